/** The picture of `flowledger top`: a function from what is known to lines of text, in ASCII. */
import type { Health } from '../../schemas/types.ts';
import type { Finding } from './diagnosis.ts';
import type { Rates } from './rates.ts';
import type { CollectorStatus, PartitionStatus, ReplicaStatus, Status } from './status.ts';
import { type Column, grouped, renderTable } from './table.ts';

export interface TopState {
  readonly status: Status;
  /** The newest report of each service. */
  readonly records: readonly Health[];
  readonly rates: Rates;
  /** What accounting says of its balance; null where it does not answer here. */
  readonly imbalanceFlows: number | null;
  readonly alarms: readonly Finding[];
  /** Why what is shown may be old; '' while it is not. */
  readonly problem: string;
}

export interface Size {
  readonly columns: number;
  /** Infinity: all there is. */
  readonly rows: number;
}

const collectorsMax = 3;
const alarmsMax = 4;

/** At most so many lines, none of them wider than so many columns. */
export function renderTop(state: TopState, { columns, rows }: Size): string[] {
  const isWhole = rows === Number.POSITIVE_INFINITY;
  const head = [title(state, columns), sentence(state), ''];
  const collectors = collectorTable(state, isWhole ? Number.POSITIVE_INFINITY : collectorsMax);
  const alarms = alarmLines(state, isWhole ? Number.POSITIVE_INFINITY : alarmsMax);
  const above = [...head, ...stageTable(state), '', ...collectors, ''];
  const room = rows - above.length - (alarms.length > 0 ? alarms.length + 1 : 0);
  const lines = [...above, ...partitionTable(state.status.partitions, room), ...(alarms.length > 0 ? ['', ...alarms] : [])];
  return lines.slice(0, rows).map((line) => cut(line, columns));
}

/** A line that goes on beyond the edge ends with a dot dot. */
function cut(line: string, columns: number): string {
  return line.length > columns ? `${line.slice(0, Math.max(0, columns - 2))}..` : line;
}

function title({ status, problem }: TopState, columns: number): string {
  const left = `flowledger  ${time(status.at_ms)}`;
  const right = problem ? `STALE: ${problem}` : 'q quits';
  return left + right.padStart(Math.max(right.length + 2, columns - left.length));
}

/** What somebody wants to know at three in the morning. */
function sentence({ status, records, imbalanceFlows, alarms }: TopState): string {
  const balance =
    imbalanceFlows === null ? 'Balance not known here' : imbalanceFlows === 0 ? 'Balanced' : `IMBALANCE of ${grouped(imbalanceFlows)} flows`;
  const billedMs = billedUpTo(records);
  const billed =
    billedMs === null ? 'nothing billed yet' : `billed up to ${clockTime(billedMs)}, ${seconds(Math.max(0, status.at_ms - billedMs))} ago`;
  const errors = alarms.filter(({ severity }) => severity === 'error').length;
  return `${errors > 0 ? `${errors} ERRORS. ` : ''}${balance}; ${billed}; ${leaders(status.partitions)}.`;
}

/** The partition that is furthest behind counts. */
function billedUpTo(records: readonly Health[]): number | null {
  const watermarks = records
    .filter(({ role }) => role === 'accounting')
    .flatMap(({ partitions }) => partitions.map(({ watermark_ms }) => watermark_ms));
  const lowest = Math.min(...watermarks);
  return Number.isFinite(lowest) && lowest > 0 ? lowest : null;
}

function leaders(partitions: readonly PartitionStatus[]): string {
  const of = (leader: string | null) => partitions.filter((one) => one.leader === leader).length;
  const [a, b, nobody] = [of('a'), of('b'), of(null)];
  const parts = [a > 0 ? `a leads ${a}` : '', b > 0 ? `b leads ${b}` : '', nobody > 0 ? `NOBODY leads ${nobody}` : ''].filter(Boolean);
  return `${parts.join(', ')} of ${partitions.length}`;
}

const stageColumns: readonly Column[] = [
  { title: 'stage' },
  { title: 'up' },
  { title: 'rate', figures: true },
  { title: 'per second' },
  { title: 'lag', figures: true },
  { title: 'lag s', figures: true },
];

function stageTable({ status, records, rates }: TopState): string[] {
  const exporters = new Set(records.flatMap(({ copy }) => copy?.exporters.map(({ sampler_address }) => sampler_address) ?? []));
  const sum = (figure: 'datagrams' | 'flows') =>
    rates.collectors.size > 0 ? [...rates.collectors.values()].reduce((all, one) => all + one[figure], 0) : null;
  const unconfirmed = status.collectors.reduce((all, { unconfirmed_nars }) => all + unconfirmed_nars, 0);
  const oldest = Math.max(...status.collectors.map(({ oldest_age_ms }) => oldest_age_ms ?? 0), 0);
  const replica = (name: 'a' | 'b') => {
    const parts = status.partitions.map(({ replicas }) => replicas[name]);
    const lag = parts.reduce((all, { lag_records }) => all + (lag_records ?? 0), 0);
    return [
      up(status, 'aggregator', name),
      rate(rates.folded[name]),
      'records',
      short(lag),
      fixed(Math.max(...parts.map(({ lag_ms }) => lag_ms ?? 0), 0)),
    ];
  };
  const follower = (role: string, value: number | null) => {
    const parts = records.filter((one) => one.role === role).flatMap(({ partitions }) => partitions.filter(({ state }) => state !== 'standby'));
    const lag = parts.reduce((all, { end_offset, next_offset }) => all + Math.max(0, end_offset - next_offset), 0);
    return [up(status, role), rate(value), 'outputs', short(lag), fixed(Math.max(...parts.map(({ lag_ms }) => lag_ms), 0))];
  };
  return tableLines(stageColumns, [
    ['exporters', exporters.size > 0 ? String(exporters.size) : '-', rate(sum('datagrams')), 'datagrams', '', ''],
    ['collectors', up(status, 'collector'), rate(sum('flows')), 'flows', short(unconfirmed), fixed(oldest)],
    ['aggregator a', ...replica('a')],
    ['aggregator b', ...replica('b')],
    ['feed', ...follower('feed', rates.emitted)],
    ['accounting', ...follower('accounting', rates.booked)],
  ]);
}

/** `yes` and `NO` for one, else how many of how many. */
function up({ services }: Status, role: string, id?: string): string {
  const all = services.filter((one) => one.role === role && (id === undefined || one.id === id));
  const well = all.filter((one) => one.up && one.ready).length;
  return all.length === 1 ? (well === 1 ? 'yes' : 'NO') : `${well}/${all.length}`;
}

const collectorColumns: readonly Column[] = [
  { title: 'collector' },
  { title: 'flows/s', figures: true },
  { title: 'buffered', figures: true },
  { title: 'not by a', figures: true },
  { title: 'not by b', figures: true },
  { title: 'oldest', figures: true },
  { title: 'store' },
];

function collectorTable({ status, rates }: TopState, most: number): string[] {
  const fullest = [...status.collectors].sort((one, other) => other.buffered_nars - one.buffered_nars);
  const rows = fullest.slice(0, most).map((at) => collectorRow(at, rates.collectors.get(at.collector)?.flows ?? null));
  const rest = fullest.length - rows.length;
  return [...tableLines(collectorColumns, rows), ...(rest > 0 ? [`${rest} more, with less`] : [])];
}

function collectorRow(at: CollectorStatus, flows: number | null): string[] {
  const { collector, buffered_nars, unacknowledged_a_nars, unacknowledged_b_nars, oldest_age_ms, store, durable } = at;
  return [
    collector,
    at.up ? rate(flows) : 'DOWN',
    short(buffered_nars),
    short(unacknowledged_a_nars),
    short(unacknowledged_b_nars),
    oldest_age_ms === null ? '-' : seconds(oldest_age_ms),
    durable ? store : `${store} NOT DURABLE`,
  ];
}

const partitionColumns: readonly Column[] = [
  { title: 'part', figures: true },
  { title: 'led' },
  { title: 'a lag', figures: true },
  { title: 'a s', figures: true },
  { title: 'a n', figures: true },
  { title: 'b lag', figures: true },
  { title: 'b s', figures: true },
  { title: 'b n', figures: true },
  { title: 'fed n', figures: true },
  { title: 'watermark' },
];

/** Where not all find room, those that are worst off come first. */
function partitionTable(partitions: readonly PartitionStatus[], room: number): string[] {
  const isWhole = partitions.length + 1 <= room;
  const shown = isWhole
    ? partitions
    : [...partitions].sort((a, b) => worry(b) - worry(a) || a.partition - b.partition).slice(0, Math.max(1, room - 2));
  const lines = tableLines(partitionColumns, shown.map(partitionRow));
  return isWhole ? lines : [...lines, `${partitions.length - shown.length} more, no worse`];
}

function worry({ leader, replicas, feed }: PartitionStatus): number {
  const of = ({ up: isUp, state, lag_ms }: ReplicaStatus) => (isUp ? 0 : 1e9) + (state === 'running' ? 0 : 1e9) + (lag_ms ?? 0);
  return of(replicas.a) + of(replicas.b) + (leader === null ? 1e10 : 0) + (feed.state === 'held' ? 1e11 : 0);
}

function partitionRow({ partition, leader, replicas, feed }: PartitionStatus): string[] {
  const highest = Math.max(replicas.a.watermark_ms ?? 0, replicas.b.watermark_ms ?? 0);
  return [
    String(partition),
    leader ?? 'NO',
    ...replicaCells(replicas.a),
    ...replicaCells(replicas.b),
    feed.state === 'held' ? 'HELD' : feed.n === null ? '-' : short(feed.n),
    highest > 0 ? clockTime(highest) : '-',
  ];
}

/** What is not as usual stands in place of the lag. */
function replicaCells({ up: isUp, state, lag_records, lag_ms, n }: ReplicaStatus): string[] {
  const lag = !isUp ? 'DOWN' : state === 'running' ? short(lag_records ?? 0) : state.slice(0, 6).toUpperCase();
  return [lag, lag_ms === null ? '-' : fixed(lag_ms), n === null ? '-' : short(n)];
}

/** The worst first. */
function alarmLines({ alarms }: TopState, most: number): string[] {
  const ranks = ['error', 'warning', 'notice'];
  const sorted = [...alarms].sort((a, b) => ranks.indexOf(a.severity) - ranks.indexOf(b.severity));
  const shown = sorted.length > most ? sorted.slice(0, most - 1) : sorted;
  const rest = sorted.length - shown.length;
  return [
    ...shown.map(({ code, severity, found }) => `${code} ${severity === 'error' ? 'ERROR' : severity}: ${found}`),
    ...(rest > 0 ? [`${rest} more alarms: flowledger doctor`] : []),
  ];
}

function tableLines(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  return renderTable(columns, rows).trimEnd().split('\n');
}

function rate(perSecond: number | null): string {
  return perSecond === null ? '-' : short(Math.round(perSecond));
}

/** In at most seven columns: 99,999, then 100.0k, 1.0M, 1.0G. */
export function short(value: number): string {
  if (value < 100_000) return grouped(value);
  const [unit, divisor] = value < 999_950 ? (['k', 1e3] as const) : value < 999_950_000 ? (['M', 1e6] as const) : (['G', 1e9] as const);
  return `${(value / divisor).toFixed(1)}${unit}`;
}

function fixed(ms: number): string {
  return (ms / 1000).toFixed(1);
}

function seconds(ms: number): string {
  return ms < 120_000 ? `${fixed(ms)} s` : ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}

function clockTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(11, 19)}Z`;
}

function time(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 10)} ${clockTime(ms)}`;
}
