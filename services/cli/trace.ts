/** `flowledger trace`: follows a flow from its batch in nars through window and n to the ledger, and says what became of it. */
import { type Command, InvalidArgumentError } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { sha256 } from '../../adapters/digest.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { LedgerError, type LedgerView } from '../../adapters/ledger.ts';
import { openLedgerView } from '../../adapters/ledger-sqlite.ts';
import { openLogger } from '../../adapters/logger.ts';
import type { Log, LogRecord } from '../../adapters/ports.ts';
import { sameChain } from '../../core/aggregate/chain.ts';
import { GroupKeys } from '../../core/aggregate/group-key.ts';
import { NarColumns } from '../../core/aggregate/nar-columns.ts';
import { type BatchOutcome, BatchOutcomes, type Route, RouteSearch, windowOfFlow } from '../../core/ledger/trace.ts';
import { addressBytes } from '../../core/nar/address.ts';
import { type NarText, narText } from '../../core/nar/nar.ts';
import { ackCodec, decodeNarBatchFrame, foldStateCodec, narBatchCodec, outputCodec } from '../../schemas/codec.ts';
import { ackPartition, adminCollector, replicas, topics } from '../../schemas/topics.ts';
import type { Ack, FoldConfig, GroupField, NarBatch } from '../../schemas/types.ts';
import type { Config } from '../config.ts';
import { decodedOrNull, recordsBetween } from '../log-records.ts';
import { readSnapshots } from '../snapshots.ts';
import { parseDuration } from './duration.ts';
import { recordsOf } from './fold-config.ts';
import { readPointInTime, writePointInTime } from './point-in-time.ts';
import { settingsOf } from './settings.ts';

/** Later than any date that a collector's clock can mean, in ms: as in the fold. */
const timeMsMax = 8.64e15;

interface Options {
  readonly src: Buffer;
  readonly dst: Buffer;
  readonly at?: number;
  readonly within: number;
  readonly limit: number;
  readonly json?: boolean;
}

export function registerTrace(program: Command): void {
  program
    .command('trace')
    .description(
      'Follows the flows between two addresses around a time: batch, window, n, ledger row, and what became of each. Where there is none, what was ' +
        'lost at that time. Exit code 1 where no flow was found.',
    )
    .requiredOption('--src <address>', 'source address of the flow', readAddress)
    .requiredOption('--dst <address>', 'its destination address', readAddress)
    .option('--at <time>', 'when the collector sent it on: 2026-11-23T14:00Z, -2h, now, or Unix time in ms (default: now)', (text) =>
      readPointInTime(text, systemClock.now()),
    )
    .option('--within <duration>', 'so long before and after that time', parseDuration, 300_000)
    .option('--limit <n>', 'at most so many flows, those nearest to the time', readCount, 5)
    .option('--json', 'one JSON object; its fields are in docs/JSON.md')
    .addHelpText('after', '\nExample:\n  $ flowledger trace --src 198.51.100.7 --dst 203.0.113.9 --at -10m')
    .action(async (options: Options, command: Command) => {
      process.exitCode = await trace(options, settingsOf(command).config);
    });
}

function readAddress(text: string): Buffer {
  try {
    const bytes = addressBytes(text);
    if (bytes.length > 0) return bytes;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  throw new InvalidArgumentError('An IPv4 or IPv6 address is expected.');
}

function readCount(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('A whole number above 0 is expected.');
  return Number(text);
}

/**
 * billed and adjusted: booked. emitted: in topic aggregates, not booked yet, or no ledger is here. open: its window is not closed yet. waiting: not
 * acknowledged by both aggregators yet. duplicate: its batch stood in the log before; gap: it came before one that was missing; of both another
 * copy counts. absent: no output has its group.
 */
export type Verdict = 'billed' | 'adjusted' | 'emitted' | 'open' | 'waiting' | 'duplicate' | 'gap' | 'absent';

interface TracedFlow {
  readonly verdict: Verdict;
  /** The verdict in words. */
  readonly why: string;
  readonly nar: NarText;
  readonly batch: {
    readonly collector: string;
    readonly incarnation: string;
    readonly sequence: number;
    readonly partition: number;
    readonly offset: number;
    readonly appended_ms: number;
    readonly acknowledged_by: readonly string[];
  };
  /** null where the configuration of the fold is not known. */
  readonly window: {
    readonly start_ms: number;
    readonly end_ms: number;
    readonly clamped: boolean;
    readonly group: Readonly<Record<string, string>>;
  } | null;
  readonly output: { readonly n: number; readonly kind: string; readonly close_nars_offset: number } | null;
  /** Whether the ledger has (partition, n) with that chain; null where there is no ledger here. */
  readonly booked: boolean | null;
}

/** What was lost at that time, for a flow that is not in the log. */
interface Losses {
  readonly reason: string;
  readonly exporter: string;
  readonly flows: number;
  readonly datagrams: number;
  readonly partition: number;
  readonly offset: number;
}

interface Report {
  readonly at_ms: number;
  readonly from_ms: number;
  readonly to_ms: number;
  readonly found: number;
  readonly flows: readonly TracedFlow[];
  readonly losses: readonly Losses[];
}

interface Sighting {
  readonly record: LogRecord;
  readonly batch: NarBatch;
  readonly index: number;
  readonly outcome: BatchOutcome;
}

async function trace(options: Options, config: Config): Promise<number> {
  const log = openKafka(config.kafka, openLogger('trace', config.log.level), systemClock);
  let view: LedgerView | null = null;
  try {
    view = openView(config.accounting.ledger);
    const report = await traceFlows(log, view, { ...options, at: options.at ?? systemClock.now() });
    process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : renderTrace(report));
    return report.found > 0 ? 0 : 1;
  } finally {
    view?.close();
    await log.close();
  }
}

/** Without a ledger here the trace ends with topic aggregates. */
function openView(path: string): LedgerView | null {
  try {
    return openLedgerView(path);
  } catch (error) {
    if (error instanceof LedgerError) return null;
    throw error;
  }
}

/** Of flows whose batches were appended at `at`, `within` more or less. @throws LogFault, UnknownSchema */
export async function traceFlows(log: Log, view: LedgerView | null, options: Options & { readonly at: number }): Promise<Report> {
  const atMs = options.at;
  const [fromMs, toMs] = [atMs - options.within, atMs + options.within];
  const sightings: Sighting[] = [];
  const losses: Losses[] = [];
  for (let partition = 0; partition < (await log.partitionCount(topics.nars.name)); partition++) {
    await look(log, partition, fromMs, toMs, options, sightings, losses);
  }
  const nearest = [...sightings].sort((a, b) => Math.abs(a.record.appendedMs - atMs) - Math.abs(b.record.appendedMs - atMs)).slice(0, options.limit);
  const flows: TracedFlow[] = [];
  const configs = new Map<number, FoldConfig | null>();
  for (const sighting of nearest) {
    const { partition } = sighting.batch;
    if (!configs.has(partition)) configs.set(partition, await foldConfigOf(log, partition));
    flows.push(await follow(log, view, sighting, configs.get(partition) ?? null));
  }
  return { at_ms: atMs, from_ms: fromMs, to_ms: toMs, found: sightings.length, flows, losses: sightings.length > 0 ? [] : losses };
}

async function look(
  log: Log,
  partition: number,
  fromMs: number,
  toMs: number,
  { src, dst }: Pick<Options, 'src' | 'dst'>,
  sightings: Sighting[],
  losses: Losses[],
): Promise<void> {
  const { name } = topics.nars;
  const [from, to] = [await log.offsetAt(name, partition, fromMs), await log.offsetAt(name, partition, toMs)];
  const outcomes = new BatchOutcomes();
  for await (const record of recordsBetween(log, name, partition, from, to)) {
    const batch = decodedOrNull(narBatchCodec, record.value);
    if (!batch) continue;
    const outcome = outcomes.outcome(batch);
    batch.nars.forEach((nar, index) => {
      if (src.equals(nar.src_addr) && dst.equals(nar.dst_addr)) sightings.push({ record, batch, index, outcome });
    });
    const at = { partition, offset: record.offset };
    for (const loss of batch.losses) losses.push({ reason: loss.reason, exporter: loss.sampler_address, flows: loss.nars, datagrams: 0, ...at });
    for (const report of batch.exporters) losses.push(...lossesOf(report, at));
  }
}

function lossesOf(report: NarBatch['exporters'][number], at: { partition: number; offset: number }): Losses[] {
  const { sampler_address: exporter, lost_on_wire_flows: flows, lost_on_wire_datagrams: datagrams, undecodable_datagrams: undecodable } = report;
  return [
    ...(flows > 0 || datagrams > 0
      ? [{ reason: 'lost_on_wire', exporter, flows: Math.max(0, flows), datagrams: Math.max(0, datagrams), ...at }]
      : []),
    ...(undecodable > 0 ? [{ reason: 'undecodable', exporter, flows: report.undecodable_flows, datagrams: undecodable, ...at }] : []),
  ];
}

/** The newest one: of a snapshot, or of the administration's entries where there is none yet. */
async function foldConfigOf(log: Log, partition: number): Promise<FoldConfig | null> {
  const topicId = await log.topicId(topics.nars.name);
  let newest: { readonly offset: number; readonly config: FoldConfig | null } = { offset: 0, config: null };
  for (const replica of replicas) {
    const { whole } = await readSnapshots(log, sha256, replica, partition, topicId);
    for (const { offset, state } of whole) if (offset > newest.offset) newest = { offset, config: foldStateCodec.decode(state).config };
  }
  let { config } = newest;
  for await (const record of recordsOf(log, topics.nars.name, partition, newest.offset)) {
    // The key tells without decoding.
    if (record.key?.toString() === adminCollector) config = decodedOrNull(narBatchCodec, record.value)?.fold_config ?? config;
  }
  return config;
}

async function follow(log: Log, view: LedgerView | null, sighting: Sighting, config: FoldConfig | null): Promise<TracedFlow> {
  const { record, batch, index } = sighting;
  const nar = batch.nars[index]!;
  const report = batch.exporters[nar.exporter]!;
  const origin = { samplerAddress: report.sampler_address, observationDomainId: report.observation_domain_id, protocol: report.protocol };
  const acknowledgedBy = await acknowledgments(log, batch);
  const known = {
    nar: narText(nar, origin),
    batch: {
      collector: batch.collector,
      incarnation: batch.incarnation,
      sequence: batch.sequence,
      partition: batch.partition,
      offset: record.offset,
      appended_ms: record.appendedMs,
      acknowledged_by: acknowledgedBy,
    },
    window: null,
    output: null,
    booked: null,
  };
  if (sighting.outcome === 'duplicate') return { ...known, verdict: 'duplicate', why: 'its batch stood in the log before; that copy counts' };
  if (sighting.outcome === 'gap')
    return { ...known, verdict: 'gap', why: 'a batch before it was missing here; the collector sends both again, and that copy counts' };
  if (!config) return { ...known, verdict: 'waiting', why: 'the log has no configuration of the fold yet' };
  const times = { endMs: nar.time_flow_end_ms, receivedMs: nar.time_received_ms, appendedMs: record.appendedMs };
  const { startMs, clamped } = windowOfFlow(times, config);
  const group = groupOf(record, index, config);
  const window = {
    start_ms: startMs,
    end_ms: startMs + config.window_ms,
    clamped,
    group: Object.fromEntries(group.map(({ name, value }) => [name, value])),
  };
  const route = await routeOf(log, batch.partition, record, { offset: record.offset, windowStartMs: startMs, group });
  if (route.kind === 'open') {
    const away = replicas.filter((replica) => !acknowledgedBy.includes(replica));
    const why =
      away.length > 0
        ? `not acknowledged by aggregator ${away.join(' and ')} yet: see flowledger status`
        : `its window closes when the watermark passes ${writePointInTime(window.end_ms)}`;
    return { ...known, window, verdict: away.length > 0 ? 'waiting' : 'open', why };
  }
  if (route.kind === 'absent') {
    const why =
      `its window was closed by offset ${route.close.nars_offset} and no output has its group: configuration ${config.version} is not the one it ` +
      'was folded with, or its counters were implausible';
    return { ...known, window, verdict: 'absent', why };
  }
  const { output, kind, close } = route;
  const chain = view?.chainAt(batch.partition, output.n) ?? null;
  const booked = view === null ? null : chain !== null && sameChain(chain, output.chain);
  const found = { ...known, window, output: { n: output.n, kind, close_nars_offset: close.nars_offset }, booked };
  if (!booked) return { ...found, verdict: 'emitted', why: view ? 'accounting has not booked this n yet' : 'there is no ledger here' };
  if (kind === 'usage') return { ...found, verdict: 'billed', why: 'it is in the ledger, in the usage of its window' };
  return { ...found, verdict: 'adjusted', why: 'it came after its window had been closed, so an adjustment of that window has it' };
}

/** Replicas that say they have folded the batch. */
async function acknowledgments(log: Log, { collector, incarnation, partition, sequence }: NarBatch): Promise<string[]> {
  const newest = new Map<string, Ack>();
  for await (const { value } of recordsOf(log, topics.acks.name, ackPartition(collector), 0)) {
    const ack = decodedOrNull(ackCodec, value);
    if (ack?.collector === collector && ack.partition === partition) newest.set(ack.replica, ack);
  }
  const folded = (ack: Ack) => ack.sequences.some((one) => one.incarnation === incarnation && one.sequence >= sequence);
  return replicas.filter((replica) => newest.has(replica) && folded(newest.get(replica)!));
}

function groupOf(record: LogRecord, index: number, config: FoldConfig): readonly GroupField[] {
  const value = record.value as Buffer;
  const { frame, narsStart } = decodeNarBatchFrame(value);
  const columns = new NarColumns();
  columns.read(value, narsStart, frame.exporters.length, timeMsMax);
  return new GroupKeys(config).groupOf(columns, index, frame.exporters[columns.exporter[index] as number]!).fields;
}

/** Outputs come after the record that they were folded from, so those before its append are not looked at. */
async function routeOf(log: Log, partition: number, record: LogRecord, place: ConstructorParameters<typeof RouteSearch>[0]): Promise<Route> {
  const { name } = topics.aggregates;
  const search = new RouteSearch(place);
  const from = await log.offsetAt(name, partition, record.appendedMs);
  for await (const { value } of recordsBetween(log, name, partition, from, (await log.bounds(name, partition)).endOffset)) {
    const output = decodedOrNull(outputCodec, value);
    if (output && search.take(output)) break;
  }
  return search.route;
}

function renderTrace({ found, flows, losses, from_ms, to_ms }: Report): string {
  const span = `from ${writePointInTime(from_ms)} to ${writePointInTime(to_ms)}`;
  if (found === 0) {
    const lost = losses.map(
      ({ reason, exporter, flows: count, datagrams, partition, offset }) =>
        `  ${reason}: ${exporter || 'exporter not known'}, ${count} flows, ${datagrams} datagrams (nars/${partition} offset ${offset})\n`,
    );
    const rest =
      losses.length === 0
        ? 'and nothing is known to be lost then: it was not exported, or at another time (--at, --within)\n'
        : 'but then was lost:\n';
    return `no flow between these addresses is in the log ${span}, ${rest}${lost.join('')}`;
  }
  const more = found > flows.length ? `${found - flows.length} more ${span}; --limit shows them\n` : '';
  return flows.map(renderFlow).join('\n') + more;
}

function renderFlow({ verdict, why, nar, batch, window, output, booked }: TracedFlow): string {
  const lines = [
    `${verdict.toUpperCase()}: ${why}`,
    `  flow    ${nar.src_addr}:${nar.src_port} -> ${nar.dst_addr}:${nar.dst_port} proto ${nar.proto}, ${nar.bytes} bytes, ${nar.packets} packets, ` +
      `ended ${writePointInTime(nar.time_flow_end_ms)}, received ${writePointInTime(nar.time_received_ms)}`,
    `  from    exporter ${nar.sampler_address} domain ${nar.observation_domain_id} (${nar.protocol}), collector ${batch.collector}`,
    `  batch   incarnation ${batch.incarnation} sequence ${batch.sequence}, nars/${batch.partition} offset ${batch.offset}, ` +
      `appended ${writePointInTime(batch.appended_ms)}, acknowledged by ${batch.acknowledged_by.join(' and ') || 'nobody yet'}`,
    ...(window
      ? [
          `  window  ${writePointInTime(window.start_ms)} to ${writePointInTime(window.end_ms)}${window.clamped ? ' (clamped)' : ''}, ` +
            Object.entries(window.group)
              .map(([name, value]) => `${name}=${value}`)
              .join(' '),
        ]
      : []),
    ...(output
      ? [`  output  n ${output.n} of partition ${batch.partition} (${output.kind}), closed by nars offset ${output.close_nars_offset}`]
      : []),
    ...(booked === null ? [] : [`  ledger  ${booked ? `row (${batch.partition}, ${output?.n})` : 'not booked yet'}`]),
  ];
  return `${lines.join('\n')}\n`;
}
