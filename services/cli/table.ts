/** Columns for a terminal: as wide as their widest cell, figures to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number | null)[])[]): string {
  const cells = [
    head,
    ...rows.map((row) => row.map((cell) => (cell === null ? '-' : typeof cell === 'number' ? cell.toLocaleString('en-US') : cell))),
  ];
  const widths = head.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? '').length)));
  const numeric = head.map((_, column) => rows.some((row) => typeof row[column] === 'number'));
  const pad = (cell: string, column: number) => (numeric[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0));
  return cells.map((row) => `${row.map(pad).join('  ').trimEnd()}\n`).join('');
}
