/** The balance, whether A and B agree, and whether anything is still on its way. */
import { type Command, InvalidArgumentError } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { LedgerError, type LedgerView } from '../../adapters/ledger.ts';
import { openLedgerView } from '../../adapters/ledger-sqlite.ts';
import { openLogger } from '../../adapters/logger.ts';
import { type Clock, type Log, LogFault } from '../../adapters/ports.ts';
import { type AuditReport, auditExitCode, auditReport, type HealthFacts } from '../../core/ledger/audit.ts';
import { newestHealth } from './health-records.ts';
import { settingsOf } from './settings.ts';
import { grouped, renderTable } from './table.ts';

interface Options {
  readonly json?: boolean;
  readonly wait?: number;
  readonly ledger?: string;
}

/** The ledger could not be read: neither a balance nor an imbalance. */
const noLedgerExitCode = 2;

/** How often the wait looks again: the services report several times a second. */
const againMs = 500;

export function registerAudit(program: Command): void {
  program
    .command('audit')
    .description(
      'The balance of everything that was decoded, per exporter and in total, and whether the two aggregators agree.\n' +
        'Exit code 0: it balances and they agree, though something may be on its way ("complete" says so); 1: imbalance or divergence;\n' +
        '2: the ledger cannot be read.',
    )
    .option('--json', 'one JSON object; its fields are in docs/JSON.md')
    .option('--wait <duration>', 'until nothing is on its way any more, at most so long: 500ms, 30s, 2m', readDuration)
    .option('--ledger <file>', "the ledger's file (default: accounting.ledger of the configuration)")
    .addHelpText('after', '\nExamples:\n  $ flowledger audit\n  $ flowledger audit --wait 2m --json')
    .action(async (options: Options, command: Command) => {
      process.exitCode = await audit(options, command);
    });
}

function readDuration(text: string): number {
  const match = /^(\d+)(ms|s|m|h)$/.exec(text);
  if (!match) throw new InvalidArgumentError('A duration such as 500ms, 30s or 2m is expected.');
  return Number(match[1]) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match[2] as 'ms'];
}

async function audit(options: Options, command: Command): Promise<number> {
  const { config } = settingsOf(command);
  const clock = systemClock;
  const log = openKafka(config.kafka, openLogger('audit', 'silent'), clock);
  let view: LedgerView | null = null;
  try {
    view = openLedgerView(options.ledger ?? config.accounting.ledger);
    const report = await auditUntilComplete(view, log, clock, options.wait ?? 0);
    process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : renderAudit(report));
    return auditExitCode(report);
  } catch (error) {
    if (!(error instanceof LedgerError)) throw error;
    process.stderr.write(`flowledger: ${error.message}\n`);
    return noLedgerExitCode;
  } finally {
    view?.close();
    await log.close();
  }
}

/** Ends early at an imbalance or divergence: no waiting mends it. */
export async function auditUntilComplete(view: LedgerView, log: Log, clock: Clock, waitMs: number): Promise<AuditReport> {
  const deadlineMs = clock.now() + waitMs;
  for (;;) {
    const report = await auditOnce(view, log, clock);
    if (report.complete || auditExitCode(report) !== 0 || clock.now() >= deadlineMs) return report;
    await clock.sleep(againMs);
  }
}

/** Health is read before the ledger: what a service said of itself then, the ledger can have by now. */
async function auditOnce(view: LedgerView, log: Log, clock: Clock): Promise<AuditReport> {
  const health = await healthFacts(log, clock);
  return auditReport({ ...view.audit(), corrections: view.corrections(), health, chainAt: (partition, n) => view.chainAt(partition, n) });
}

async function healthFacts(log: Log, clock: Clock): Promise<HealthFacts> {
  try {
    return { records: await newestHealth(log, clock), nowMs: clock.now(), problem: null };
  } catch (error) {
    if (!(error instanceof LogFault)) throw error;
    return { records: [], nowMs: clock.now(), problem: `topic health cannot be read: ${error.message}` };
  }
}

const stages = ['decoded', 'aggregated', 'late', 'rejected', 'lost', 'open', 'billed'] as const;

function renderAudit(report: AuditReport): string {
  const { totals, imbalance, exporters } = report;
  const stageRows = stages.map((stage) => [stage, ...['flows', 'bytes', 'packets'].map((unit) => grouped(totals[`${stage}_${unit}`] ?? 0))]);
  const balance = renderTable(
    [{ title: '' }, ...['flows', 'bytes', 'packets'].map((title) => ({ title, figures: true }))],
    [...stageRows, ['imbalance', grouped(imbalance['flows']!), grouped(imbalance['bytes']!), grouped(imbalance['packets']!)]],
  );
  const counts = [
    'received_datagrams',
    'undecodable_datagrams',
    'lost_on_wire_flows',
    'lost_on_wire_datagrams',
    'decoded_flows',
    'lost_flows',
    'open_flows',
    'buffered_flows',
  ];
  const perExporter = renderTable(
    [{ title: 'exporter' }, { title: 'domain', figures: true }, { title: 'protocol' }, ...counts.map((title) => ({ title, figures: true }))],
    exporters.map((row) => [
      String(row['exporter'] || 'not known'),
      String(row['observation_domain_id']),
      String(row['protocol']),
      ...counts.map((name) => grouped(row[name] ?? 0)),
    ]),
  );
  return [balance, perExporter, renderVerdict(report)].join('\n');
}

function renderVerdict(report: AuditReport): string {
  const { imbalances, divergences, complete, waiting_for: waitingFor, doubts, quarantined, corrections } = report;
  return [
    imbalances.length === 0 ? 'balance: everything decoded is billed, rejected, lost or open' : 'balance: DOES NOT ADD UP',
    ...imbalances.map((what) => `  ${what}`),
    divergences.length === 0 ? 'aggregators: no difference is known' : 'aggregators: DIVERGE',
    ...divergences.map((what) => `  ${what}`),
    ...(quarantined.length > 0 ? ['quarantine: what is billed comes from the other aggregator alone'] : []),
    ...quarantined.map((what) => `  ${what}`),
    ...corrections.map(
      (one) => `corrected: partition ${one['partition']}, outputs ${one['from_n']} to ${one['last_n']}, which came of a wrong aggregator`,
    ),
    ...(doubts > 0 ? [`doubts: ${doubts} losses of unknown size`] : []),
    complete ? 'complete: nothing is on its way' : 'not complete, still on its way:',
    ...waitingFor.map((what) => `  ${what}`),
    '',
  ].join('\n');
}
