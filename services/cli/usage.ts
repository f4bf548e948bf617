/** Usage from the ledger. */
import { type Command, InvalidArgumentError } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import type { AccountUsageRow, LedgerView, Period, UsageRow, UsageSums } from '../../adapters/ledger.ts';
import { openLedgerView } from '../../adapters/ledger-sqlite.ts';
import { exact } from '../../core/ledger/counters.ts';
import { readPointInTime, writePointInTime } from './point-in-time.ts';
import { settingsOf } from './settings.ts';
import { type Column, grouped, renderTable } from './table.ts';

interface Options {
  readonly json?: boolean;
  readonly by?: readonly string[];
  readonly from?: number;
  readonly to?: number;
  readonly ledger?: string;
}

type Cell = number | string;
type JsonRow = Record<string, Cell>;

/** As `usage --json` prints it: docs/JSON.md. */
export interface UsageReport {
  readonly rows: readonly JsonRow[];
  readonly totals: JsonRow;
  readonly unclosed_windows: number;
}

export function registerUsage(program: Command): void {
  const readTime = (text: string) => readPointInTime(text, systemClock.now());
  program
    .command('usage')
    .description('Usage from the ledger, also while accounting runs.')
    .option('--by <fields>', 'grouping fields, window, kind; or account, alone or with window (default: all grouping fields)', readFields)
    .option('--from <time>', 'first window that counts: 2026-11-23T14:00Z, -2h, now, or Unix time in ms', readTime)
    .option('--to <time>', 'windows that start before it count', readTime)
    .option('--json', 'one JSON object; its fields are in docs/JSON.md')
    .option('--ledger <file>', "the ledger's file (default: accounting.ledger of the configuration)")
    .addHelpText('after', '\nExamples:\n  $ flowledger usage --from -2h\n  $ flowledger usage --by account,window --json')
    .action((options: Options, command: Command) => {
      const view = openLedgerView(options.ledger ?? settingsOf(command).config.accounting.ledger);
      try {
        const report = usageReport(view, options);
        process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : renderUsage(report));
      } finally {
        view.close();
      }
    });
}

function readFields(text: string): string[] {
  const fields = text.split(',').map((field) => field.trim());
  if (fields.some((field) => field === '')) throw new InvalidArgumentError('Field names separated by commas are expected.');
  return [...new Set(fields)];
}

/** @throws Error naming the field that the ledger does not have, and those that it has */
export function usageReport(view: LedgerView, options: Pick<Options, 'by' | 'from' | 'to'>): UsageReport {
  const period = { fromMs: options.from ?? null, toMs: options.to ?? null };
  const fields = view.groupFields();
  const by = options.by ?? fields;
  const unclosed = { unclosed_windows: view.unclosedWindows(period) };
  if (by.includes('account')) return { ...accountReport(view, by, period), ...unclosed };
  const accepted = [...fields, 'window', 'kind', 'account'];
  const unknown = by.find((field) => !accepted.includes(field));
  if (unknown !== undefined && fields.length > 0)
    throw new Error(`--by ${unknown}: the ledger has no such field; accepted are ${accepted.join(', ')}`);
  const rows = view.usage(by, period);
  return { rows: rows.map(usageRow), totals: sumsOf(total(rows), ''), ...unclosed };
}

function accountReport(view: LedgerView, by: readonly string[], period: Period): Pick<UsageReport, 'rows' | 'totals'> {
  const other = by.find((field) => field !== 'account' && field !== 'window');
  if (other !== undefined) throw new Error(`--by account,${other}: account is taken from five-minute samples and goes with window only`);
  const rows = view.accountUsage(by.includes('window'), period);
  const totals = { ...sumsOf(total(rows.map((row) => row.in)), 'in_'), ...sumsOf(total(rows.map((row) => row.out)), 'out_') };
  return { rows: rows.map(accountRow), totals };
}

function usageRow(row: UsageRow): JsonRow {
  return { ...windowOf(row), ...row.fields, ...sumsOf(row, '') };
}

function accountRow(row: AccountUsageRow): JsonRow {
  const { account, samples, completeSamples } = row;
  return { ...windowOf(row), account, ...sumsOf(row.in, 'in_'), ...sumsOf(row.out, 'out_'), samples, complete_samples: completeSamples };
}

function windowOf({ windowFromMs, windowToMs }: UsageRow | AccountUsageRow): JsonRow {
  return { window_from: writePointInTime(windowFromMs), window_to: writePointInTime(windowToMs) };
}

const sumNames = ['flows', 'bytes', 'packets', 'scaled_bytes', 'scaled_packets'] as const;

function sumsOf(sums: UsageSums, prefix: string): JsonRow {
  return Object.fromEntries(sumNames.map((name) => [prefix + name, exact(sums[name])]));
}

function total(rows: readonly UsageSums[]): UsageSums {
  const of = (name: (typeof sumNames)[number]) => rows.reduce((sum, row) => sum + row[name], 0n);
  return Object.fromEntries(sumNames.map((name) => [name, of(name)])) as unknown as UsageSums;
}

const notShown = new Set(['scaled_packets', 'in_scaled_packets', 'out_scaled_packets', 'in_packets', 'out_packets', 'in_flows', 'out_flows']);

function renderUsage({ rows, totals, unclosed_windows: unclosed }: UsageReport): string {
  const warning = unclosed > 0 ? `\n${unclosed} windows of this time do not add up and are not closed: see "flowledger audit"\n` : '';
  const [first] = rows;
  if (!first) return `no usage in the ledger for this time\n${warning}`;
  const names = Object.keys(first).filter((name) => !notShown.has(name));
  const columns: Column[] = names.map((name) => ({ title: name, figures: isFigure(name) }));
  const cells = (row: JsonRow) => names.map((name) => (isFigure(name) ? grouped(row[name] ?? '') : String(row[name] ?? '')));
  return renderTable(columns, [...rows.map(cells), cells({ ...totals, window_from: 'total' })]) + warning;
}

function isFigure(name: string): boolean {
  return /(^|_)(flows|bytes|packets|samples)$/.test(name);
}
