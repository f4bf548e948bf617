/** Tables for a terminal: columns as wide as their widest cell, figures to the right and grouped by thousands. */

export interface Column {
  readonly title: string;
  readonly figures?: boolean;
}

export function renderTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const lines = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, at) => lines.reduce((width, line) => Math.max(width, line[at]?.length ?? 0), 0));
  const pad = (cell: string, at: number) => (columns[at]?.figures ? cell.padStart(widths[at] ?? 0) : cell.padEnd(widths[at] ?? 0));
  return lines.map((line) => `${line.map(pad).join('  ').trimEnd()}\n`).join('');
}

/** 1234567 as 1,234,567; what is no whole number stays as it is. */
export function grouped(value: bigint | number | string): string {
  return String(value).replace(/^-?\d+$/, (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ','));
}
