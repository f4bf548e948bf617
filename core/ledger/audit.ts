/**
 * The balance as a report: what was decoded is billed, rejected, lost or open; whether A and B agree; and whether anything is still on its way.
 * I7: billed is summed from the aggregates that the ledger holds, independently of what any WindowClose says.
 */
import type { ExporterBalance, ExporterHolding, Health, LocalCopy, PartitionHealth } from '../../schemas/types.ts';
import { sameChain } from '../aggregate/chain.ts';
import { type Balance, imbalanceOf } from './book.ts';
import { add, type Counters, describe, difference, exact, isZero, noCounters } from './counters.ts';

/** What the ledger holds of a partition. */
export interface PartitionAccount {
  readonly partition: number;
  readonly n: number;
  /** n of the last WindowClose. */
  readonly closeN: number;
  readonly balance: Balance;
  readonly open: Counters;
  /** Of the aggregates up to the last WindowClose; those after it are among open. */
  readonly billed: Counters;
  readonly doubts: number;
  readonly unclosedWindows: number;
}

/** What is known of the running services; the newest record of each. */
export interface HealthFacts {
  readonly records: readonly Health[];
  readonly nowMs: number;
  /** Why there are no records; null where they could be read. */
  readonly problem: string | null;
}

/** What was emitted of a wrong replica and put right since. */
interface Correction {
  readonly partition: number;
  readonly fromN: number;
  readonly lastN: number;
  readonly records: number;
}

export interface AuditFacts {
  readonly partitions: readonly PartitionAccount[];
  readonly exporters: readonly ExporterBalance[];
  readonly corrections: readonly Correction[];
  readonly health: HealthFacts;
  /** The chain that the ledger holds for an output; null where it does not hold it. */
  readonly chainAt: (partition: number, n: number) => Uint8Array | null;
}

type Exact = number | string;
type Sums = Record<string, Exact>;

/** As `audit --json` prints it: docs/JSON.md. */
export interface AuditReport {
  readonly totals: Sums;
  readonly exporters: readonly Sums[];
  readonly partitions: readonly Sums[];
  readonly imbalance: Sums;
  readonly imbalances: readonly string[];
  readonly unclosed_windows: number;
  readonly divergence: number;
  readonly divergences: readonly string[];
  /** Replicas that were judged to be wrong and are not repaired yet; what is billed comes from the other. */
  readonly quarantined: readonly string[];
  readonly corrections: readonly Sums[];
  readonly doubts: number;
  readonly complete: boolean;
  readonly waiting_for: readonly string[];
}

/** A service that has not been heard for this long is silent: several of its intervals, and a pause of its process. */
const silentMs = 5_000;

/** States of an aggregator's partition in which nothing is to be expected of it. */
const notFolding: readonly string[] = ['stopped', 'disputed', 'quarantined'];

const parts = ['decoded', 'aggregated', 'late', 'rejected', 'lost'] as const;

export function auditReport(facts: AuditFacts): AuditReport {
  const { partitions, exporters, health } = facts;
  const billed = noCounters();
  const open = noCounters();
  const imbalance = noCounters();
  for (const account of partitions) {
    add(billed, account.billed);
    add(open, account.open);
    add(imbalance, unbilled(account));
  }
  const imbalances = [...partitions.flatMap(describePartition), ...exporters.flatMap(describeExporter)];
  const divergences = findDivergences(facts);
  const waitingFor = findWaiting(facts);
  return {
    totals: { ...sumExporters(exporters), ...bufferedTotals(health), ...named('open', open), ...named('billed', billed) },
    exporters: exportersWithHoldings(exporters, holdings(health)),
    partitions: partitions.map(partitionSums),
    imbalance: sums(imbalance),
    imbalances,
    unclosed_windows: partitions.reduce((total, account) => total + account.unclosedWindows, 0),
    divergence: divergences.size,
    divergences: [...divergences.values()],
    quarantined: findQuarantined(health),
    corrections: facts.corrections.map(({ partition, fromN, lastN, records }) => ({ partition, from_n: fromN, last_n: lastN, records })),
    doubts: partitions.reduce((total, account) => total + account.doubts, 0),
    complete: waitingFor.length === 0,
    waiting_for: waitingFor,
  };
}

/** The process's exit code: 1 on any imbalance or divergence. What is still on its way is neither. */
export function auditExitCode(report: AuditReport): 0 | 1 {
  return report.imbalances.length > 0 || report.divergence > 0 ? 1 : 0;
}

/** I7, by what is billed. */
function unbilled({ balance, billed, open }: PartitionAccount): Counters {
  return difference(balance.decoded, billed, balance.rejected, balance.lost, open);
}

function describePartition(account: PartitionAccount): string[] {
  const { partition, balance, open, billed, unclosedWindows } = account;
  const found: string[] = [];
  const imbalance = unbilled(account);
  if (!isZero(imbalance)) found.push(`partition ${partition}: decoded less billed, rejected, lost and open leaves ${describe(imbalance)}`);
  const stated = imbalanceOf(balance, open);
  if (!isZero(stated)) found.push(`partition ${partition}: decoded less aggregated, late, rejected, lost and open leaves ${describe(stated)}`);
  const given = { ...balance.aggregated };
  add(given, balance.late);
  const rest = difference(given, billed);
  if (!isZero(rest)) found.push(`partition ${partition}: aggregated and late less billed leaves ${describe(rest)}`);
  if (unclosedWindows > 0) found.push(`partition ${partition}: ${unclosedWindows} windows are not closed, since their sums do not agree`);
  return found;
}

/** More can never have been given out for an exporter than was decoded of it. */
function describeExporter(exporter: ExporterBalance): string[] {
  const open = openOf(exporter);
  if (open.flows >= 0 && open.bytes >= 0n && open.packets >= 0n) return [];
  const { sampler_address, observation_domain_id, protocol } = exporter;
  return [`exporter ${sampler_address}, ${observation_domain_id}, ${protocol}: more given out than decoded: ${describe(open)} open`];
}

function countersOf(exporter: ExporterBalance, part: (typeof parts)[number]): Counters {
  return { flows: exporter[`${part}_flows`], bytes: exporter[`${part}_bytes`], packets: exporter[`${part}_packets`] };
}

function openOf(exporter: ExporterBalance): Counters {
  const [decoded, ...given] = parts.map((part) => countersOf(exporter, part));
  return difference(decoded!, ...given);
}

function sums(counters: Counters): Sums {
  return { flows: counters.flows, bytes: exact(counters.bytes), packets: exact(counters.packets) };
}

function named(name: string, counters: Counters): Sums {
  return { [`${name}_flows`]: counters.flows, [`${name}_bytes`]: exact(counters.bytes), [`${name}_packets`]: exact(counters.packets) };
}

/** Those that the ledger knows, then those of which it has nothing yet. */
function exportersWithHoldings(exporters: readonly ExporterBalance[], held: ReadonlyMap<string, ExporterHolding>): Sums[] {
  const rest = new Map(held);
  const known = exporters.map((exporter) => {
    const name = nameOf(exporter);
    rest.delete(name);
    return exporterSums(exporter, held.get(name)?.nars ?? 0);
  });
  return [...known, ...Array.from(rest.values(), ({ nars, ...exporter }) => exporterSums({ ...noBalance, ...exporter }, nars))];
}

function exporterSums(exporter: ExporterBalance, buffered: number): Sums {
  const { sampler_address, observation_domain_id, protocol, ...counts } = exporter;
  const billed = {
    flows: exporter.aggregated_flows + exporter.late_flows,
    bytes: exporter.aggregated_bytes + exporter.late_bytes,
    packets: exporter.aggregated_packets + exporter.late_packets,
  };
  const open = openOf(exporter);
  const flows = { ...exactAll(counts), buffered_flows: buffered, ...named('open', open), ...named('billed', billed) };
  return { exporter: sampler_address, observation_domain_id, protocol, ...flows };
}

function sumExporters(exporters: readonly ExporterBalance[]): Sums {
  const total: Record<string, bigint> = {};
  for (const name of exporterCounts) total[name] = exporters.reduce((sum, exporter) => sum + BigInt(exporter[name]), 0n);
  return exactAll(total);
}

function exactAll(values: Record<string, number | bigint>): Sums {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, exact(value)]));
}

function partitionSums(account: PartitionAccount): Sums {
  const { partition, n, balance, open, billed, doubts, unclosedWindows } = account;
  return {
    partition,
    n,
    ...Object.assign({}, ...parts.map((part) => named(part, balance[part]))),
    ...named('open', open),
    ...named('billed', billed),
    ...named('imbalance', unbilled(account)),
    unclosed_windows: unclosedWindows,
    doubts,
  };
}

function bufferedTotals(health: HealthFacts): Sums {
  const buffered = copies(health).reduce((total, { copy }) => total + copy.nars + copy.pending_nars, 0);
  const ofKnown = [...holdings(health).values()].reduce((total, { nars }) => total + nars, 0);
  return { buffered_flows: buffered, buffered_unnamed_flows: buffered - ofKnown };
}

/** By exporter, the sum over all collectors, as far as they name them. */
function holdings(health: HealthFacts): Map<string, ExporterHolding> {
  const held = new Map<string, ExporterHolding>();
  for (const holding of copies(health).flatMap(({ copy }) => copy.exporters)) {
    const name = nameOf(holding);
    held.set(name, { ...holding, nars: holding.nars + (held.get(name)?.nars ?? 0) });
  }
  return held;
}

function nameOf({ sampler_address, observation_domain_id, protocol }: Omit<ExporterHolding, 'nars'>): string {
  return `${sampler_address}|${observation_domain_id}|${protocol}`;
}

function copies(health: HealthFacts): { record: Health; copy: LocalCopy }[] {
  return health.records.flatMap((record) => (record.copy ? [{ record, copy: record.copy }] : []));
}

/** By partition: it is held, or two who hold the same n have different histories. */
function findDivergences({ partitions, health, chainAt }: AuditFacts): Map<number, string> {
  const found = new Map<number, string>();
  const seen = new Map<string, { chain: Uint8Array; who: string }>();
  const note = (partition: number, what: string) => {
    if (!found.has(partition)) found.set(partition, `partition ${partition}: ${what}`);
  };
  for (const record of health.records) {
    const live = isLive(record, health.nowMs);
    for (const state of record.partitions) {
      if (live && record.role === 'feed' && state.state === 'held') note(state.partition, `held by feed ${record.id}: ${state.detail}`);
      if (live && record.role === 'feed' && state.state === 'stopped') note(state.partition, `not emitted any further: ${state.detail}`);
      if (live && record.role === 'accounting' && state.state === 'stopped') note(state.partition, `not booked any further: ${state.detail}`);
      if (live && record.role === 'aggregator' && state.state === 'disputed') note(state.partition, `aggregator ${record.id}: ${state.detail}`);
      // What a replica in quarantine says counts for nobody.
      if (state.n === 0 || state.state === 'quarantined' || !['aggregator', 'feed'].includes(record.role)) continue;
      const who = `${record.role} ${record.id}`;
      const key = `${state.partition}/${state.n}`;
      const other = seen.get(key);
      if (other && !sameChain(other.chain, state.chain)) note(state.partition, `${who} and ${other.who} have different outputs up to n ${state.n}`);
      if (!other) seen.set(key, { chain: state.chain, who });
      const account = partitions.find(({ partition }) => partition === state.partition);
      const booked = account && state.n <= account.n ? chainAt(state.partition, state.n) : null;
      if (booked && !sameChain(booked, state.chain)) note(state.partition, `${who} and the ledger have different outputs up to n ${state.n}`);
    }
  }
  return found;
}

function findQuarantined({ records, nowMs }: HealthFacts): string[] {
  return records
    .filter((record) => record.role === 'aggregator' && isLive(record, nowMs))
    .flatMap(({ id, partitions }) => partitions.map((state) => ({ id, state })))
    .filter(({ state }) => state.state === 'quarantined')
    .map(({ id, state }) => `partition ${state.partition}: aggregator ${id} is ${state.detail}`);
}

function findWaiting(facts: AuditFacts): string[] {
  const { health, partitions } = facts;
  const open = partitions.flatMap(({ partition, n, closeN, open }) => [
    ...(open.flows > 0 ? [`partition ${partition}: ${open.flows} flows in windows that are open`] : []),
    ...(n > closeN ? [`partition ${partition}: ${n - closeN} outputs after the last close`] : []),
  ]);
  if (health.problem !== null) return [`health of the services is not known: ${health.problem}`, ...open];
  const accounting = health.records.filter((record) => record.role === 'accounting' && isLive(record, health.nowMs));
  return [
    ...copies(health).flatMap(({ record, copy }) => waitingInCopy(record, copy, health.nowMs)),
    ...partitionNumbers(facts).flatMap((partition) =>
      waitingInPartition(partition, partitions.find((account) => account.partition === partition)?.n ?? 0, health),
    ),
    ...(accounting.length === 0 ? ['accounting is not running'] : []),
    ...open,
  ];
}

function isLive(record: Health, nowMs: number): boolean {
  return !record.stopping && nowMs - record.at_ms <= silentMs;
}

/** What both replicas have not acknowledged may be missing in the log; what one of them has acknowledged is in its outputs. */
function waitingInCopy(record: Health, copy: LocalCopy, nowMs: number): string[] {
  const who = `collector ${record.id}`;
  if (!record.stopping && !isLive(record, nowMs)) {
    return [`${who} has been silent for ${Math.round((nowMs - record.at_ms) / 1000)} s; what it holds is not known`];
  }
  const unsent = copy.pending_nars + copy.unconfirmed_nars;
  if (unsent > 0) return [`${who}: ${unsent} flows are not in the log yet${record.stopping ? '; it is stopped: start it again' : ''}`];
  const unfolded = Math.min(copy.unacknowledged_a_nars, copy.unacknowledged_b_nars);
  return unfolded > 0 && !record.stopping ? [`${who}: ${unfolded} flows are acknowledged by neither aggregator`] : [];
}

/** Those of the ledger, and those that the aggregators have and the ledger has nothing of yet. */
function partitionNumbers({ partitions, health }: AuditFacts): number[] {
  const folded = health.records.filter(({ role }) => role === 'aggregator').flatMap((record) => record.partitions.map(({ partition }) => partition));
  return [...new Set([...partitions.map(({ partition }) => partition), ...folded])].sort((a, b) => a - b);
}

function waitingInPartition(partition: number, bookedN: number, health: HealthFacts): string[] {
  const replicas = health.records
    .filter((record) => record.role === 'aggregator' && isLive(record, health.nowMs))
    .flatMap((record) => record.partitions.filter((state) => state.partition === partition && !notFolding.includes(state.state)));
  const furthest = replicas.reduce<PartitionHealth | null>((best, state) => (best && best.next_offset >= state.next_offset ? best : state), null);
  if (!furthest) return [`partition ${partition}: no aggregator is running on it`];
  const found: string[] = [];
  const unfolded = furthest.end_offset - furthest.next_offset;
  if (unfolded > 0) found.push(`partition ${partition}: ${unfolded} records are not folded yet`);
  if (furthest.open_flows > 0) found.push(`partition ${partition}: ${furthest.open_flows} flows in windows that the aggregators have open`);
  const unbooked = Math.max(...replicas.map((state) => state.n)) - bookedN;
  if (unbooked > 0) found.push(`partition ${partition}: ${unbooked} outputs are not booked yet`);
  return found;
}

const exporterCounts = [
  'received_datagrams',
  'undecodable_datagrams',
  'duplicate_datagrams',
  'lost_on_wire_flows',
  'lost_on_wire_datagrams',
  'undecodable_flows',
  ...(['decoded', 'aggregated', 'late', 'rejected', 'lost'] as const).flatMap(
    (part) => [`${part}_flows`, `${part}_bytes`, `${part}_packets`] as const,
  ),
] as const;

/** Of an exporter of which nothing is booked yet. */
const noBalance = Object.fromEntries(exporterCounts.map((name) => [name, /_(bytes|packets)$/.test(name) ? 0n : 0])) as unknown as Omit<
  ExporterBalance,
  keyof Omit<ExporterHolding, 'nars'>
>;
