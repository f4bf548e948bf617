/** How every service, partition and collector is, from what they say of themselves on the topics health and elections. */
import type { Command } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import type { Log } from '../../adapters/ports.ts';
import { Verdicts } from '../../core/judge/verdicts.ts';
import { electionCodec, verdictCodec } from '../../schemas/codec.ts';
import { type Replica, topics } from '../../schemas/topics.ts';
import type { Election, Health, PartitionHealth, Verdict } from '../../schemas/types.ts';
import { decodedOrNull } from '../log-records.ts';
import { recordsOf } from './fold-config.ts';
import { newestHealth } from './health-records.ts';
import { settingsOf } from './settings.ts';
import { statusText } from './status-text.ts';

/** A service that has said nothing for longer than this is not up. */
const silentAfterMs = 3000;

export function registerStatus(program: Command): void {
  program
    .command('status')
    .description('Per service: up or not. Per partition: leader, lag of each replica, n, watermark. Per collector: buffered, unacknowledged, oldest.')
    .option('--json', 'as one JSON object; its fields are documented in docs/JSON.md')
    .addHelpText('after', '\nExample:\n  $ flowledger status --json')
    .action(async (options: { json?: boolean }, command: Command) => {
      const { config } = settingsOf(command);
      const log = openKafka(config.kafka, openLogger('status', config.log.level), systemClock);
      try {
        const status = await readStatus(log);
        process.stdout.write(options.json ? `${JSON.stringify(status)}\n` : statusText(status));
      } finally {
        await log.close();
      }
    });
}

export interface ServiceStatus {
  readonly role: string;
  readonly id: string;
  /** It has reported within the last 3 s, and is not stopping. */
  readonly up: boolean;
  readonly ready: boolean;
  /** Since its last report; null when it has not reported lately. */
  readonly age_ms: number | null;
  readonly started_ms: number | null;
  readonly reasons: readonly string[];
}

export interface ReplicaStatus {
  readonly up: boolean;
  readonly state: string;
  readonly lag_records: number | null;
  /** By append times, both from the log. */
  readonly lag_ms: number | null;
  readonly n: number | null;
  readonly watermark_ms: number | null;
  /** The last verdict on it; null where it was never judged. */
  readonly verdict: VerdictStatus | null;
}

export interface VerdictStatus {
  /** quarantined or repaired. */
  readonly state: string;
  readonly epoch: number;
  /** Of the first output that was wrong. */
  readonly n: number;
  /** The replica that was right; null where neither was. */
  readonly sound: string | null;
  readonly at_ms: number;
  readonly evidence: string;
}

export interface PartitionStatus {
  readonly partition: number;
  /** null before the first election. */
  readonly leader: string | null;
  readonly epoch: number;
  readonly replicas: Readonly<Record<Replica, ReplicaStatus>>;
  readonly feed: { readonly state: string; readonly n: number | null };
  readonly accounting: { readonly state: string; readonly n: number | null };
}

export interface CollectorStatus {
  readonly collector: string;
  readonly up: boolean;
  /** redis or memory. */
  readonly store: string;
  readonly durable: boolean;
  readonly buffered_nars: number;
  readonly buffered_bytes: number;
  readonly unconfirmed_nars: number;
  readonly unacknowledged_a_nars: number;
  readonly unacknowledged_b_nars: number;
  /** When the oldest buffered batch was cut; null when nothing is buffered. */
  readonly oldest_ms: number | null;
  readonly oldest_age_ms: number | null;
}

export interface Status {
  readonly at_ms: number;
  /** Every service is up and ready. */
  readonly healthy: boolean;
  readonly services: readonly ServiceStatus[];
  readonly partitions: readonly PartitionStatus[];
  readonly collectors: readonly CollectorStatus[];
}

/** A service's latest report and its age, by its clock and this one's. */
interface Report {
  readonly health: Health;
  readonly ageMs: number;
}

/** What runs in every system, so that its absence is told. */
const expected = [
  ['aggregator', 'a'],
  ['aggregator', 'b'],
  ['watchdog', ''],
  ['feed', ''],
  ['judge', ''],
  ['accounting', ''],
] as const;

/** @throws LogFault */
export async function readStatus(log: Log): Promise<Status> {
  const [records, elections, verdicts, partitionCount] = await Promise.all([
    newestHealth(log, systemClock),
    readElections(log),
    readVerdicts(log),
    log.partitionCount(topics.nars.name),
  ]);
  return statusOf({ records, elections, verdicts, partitionCount }, systemClock.now());
}

/** What was read of topics health, elections and verdicts. */
export interface StatusFacts {
  /** The newest of each service. */
  readonly records: readonly Health[];
  readonly elections: ReadonlyMap<number, Election>;
  readonly verdicts: Verdicts;
  readonly partitionCount: number;
}

export function statusOf({ records, elections, verdicts, partitionCount }: StatusFacts, nowMs: number): Status {
  const reports = records.map((health) => ({ health, ageMs: Math.max(0, nowMs - health.at_ms) }));
  const services = reports.map(serviceStatus);
  for (const role of ['collector', ...new Set(expected.map(([name]) => name))]) {
    const ids = expected.filter(([name, id]) => name === role && id !== '').map(([, id]) => id as string);
    for (const id of ids.length > 0 ? ids : ['']) {
      if (!services.some((service) => service.role === role && (id === '' || service.id === id))) services.push(unheard(role, id));
    }
  }
  services.sort((a, b) => order(a.role) - order(b.role) || a.id.localeCompare(b.id));
  return {
    at_ms: nowMs,
    healthy: services.every(({ up, ready }) => up && ready),
    services,
    partitions: Array.from({ length: partitionCount }, (_, partition) => partitionStatus(partition, reports, elections, verdicts)),
    collectors: reports.flatMap((report) => collectorStatus(report, nowMs)),
  };
}

const roles = ['collector', 'aggregator', 'watchdog', 'feed', 'judge', 'accounting'];

function order(role: string): number {
  return roles.indexOf(role);
}

async function readElections(log: Log): Promise<Map<number, Election>> {
  const elections = new Map<number, Election>();
  for await (const { value } of recordsOf(log, topics.elections.name, 0, 0)) noteElection(elections, decodedOrNull(electionCodec, value));
  return elections;
}

/** Of two records with one epoch the last counts; a lower epoch never does. */
export function noteElection(elections: Map<number, Election>, election: Election | null): void {
  if (election && election.epoch >= (elections.get(election.partition)?.epoch ?? 0)) elections.set(election.partition, election);
}

async function readVerdicts(log: Log): Promise<Verdicts> {
  const verdicts = new Verdicts();
  for await (const { value } of recordsOf(log, topics.verdicts.name, 0, 0)) {
    const verdict = decodedOrNull(verdictCodec, value);
    if (verdict) verdicts.apply(verdict);
  }
  return verdicts;
}

function isUp({ health, ageMs }: Report): boolean {
  return ageMs < silentAfterMs && !health.stopping;
}

function serviceStatus(report: Report): ServiceStatus {
  const { role, id, ready, started_ms, reasons, stopping } = report.health;
  const up = isUp(report);
  const why = up ? reasons : [stopping ? 'stopped' : `silent for ${Math.round(report.ageMs / 1000)} s`];
  return { role, id, up, ready: up && ready, age_ms: report.ageMs, started_ms, reasons: why };
}

function unheard(role: string, id: string): ServiceStatus {
  return { role, id: id || '-', up: false, ready: false, age_ms: null, started_ms: null, reasons: ['not heard of lately'] };
}

function partitionStatus(
  partition: number,
  reports: readonly Report[],
  elections: ReadonlyMap<number, Election>,
  verdicts: Verdicts,
): PartitionStatus {
  const election = elections.get(partition);
  const replica = (name: Replica) => replicaStatus(find(reports, 'aggregator', partition, name), verdicts.last(partition, name));
  return {
    partition,
    leader: election?.leader ?? null,
    epoch: election?.epoch ?? 0,
    replicas: { a: replica('a'), b: replica('b') },
    feed: followerStatus(find(reports, 'feed', partition)),
    accounting: followerStatus(find(reports, 'accounting', partition)),
  };
}

interface Found {
  readonly up: boolean;
  readonly at: PartitionHealth;
}

/** Of several services of a role the one that is at work: up, then not standing by, then the furthest. */
function find(reports: readonly Report[], role: string, partition: number, id?: string): Found | undefined {
  const found = reports
    .filter(({ health }) => health.role === role && (id === undefined || health.id === id))
    .flatMap((report) => report.health.partitions.filter((at) => at.partition === partition).map((at) => ({ up: isUp(report), at })));
  const rank = ({ up, at }: Found) => (up ? 2 : 0) + (at.state === 'standby' ? 0 : 1);
  return found.sort((a, b) => rank(b) - rank(a) || b.at.n - a.at.n)[0];
}

function replicaStatus(found: Found | undefined, judged: Verdict | null): ReplicaStatus {
  const verdict = judged && verdictStatus(judged);
  if (!found) return { up: false, state: 'unknown', lag_records: null, lag_ms: null, n: null, watermark_ms: null, verdict };
  const { at, up } = found;
  return {
    verdict,
    up,
    state: up ? at.state : 'down',
    lag_records: Math.max(0, at.end_offset - at.next_offset),
    lag_ms: at.lag_ms,
    n: at.n,
    watermark_ms: at.watermark_ms > 0 ? at.watermark_ms : null,
  };
}

function verdictStatus({ state, epoch, n, sound, at_ms, evidence }: Verdict): VerdictStatus {
  return { state, epoch, n, sound: sound || null, at_ms, evidence };
}

function followerStatus(found: Found | undefined): { state: string; n: number | null } {
  return found ? { state: found.up ? found.at.state : 'down', n: found.at.n } : { state: 'unknown', n: null };
}

function collectorStatus(report: Report, nowMs: number): CollectorStatus[] {
  const { health } = report;
  const { copy } = health;
  if (health.role !== 'collector' || !copy) return [];
  return [
    {
      collector: health.id,
      up: isUp(report),
      store: copy.store,
      durable: copy.durable,
      buffered_nars: copy.nars,
      buffered_bytes: copy.bytes,
      unconfirmed_nars: copy.unconfirmed_nars,
      unacknowledged_a_nars: copy.unacknowledged_a_nars,
      unacknowledged_b_nars: copy.unacknowledged_b_nars,
      oldest_ms: copy.oldest_ms > 0 ? copy.oldest_ms : null,
      oldest_age_ms: copy.oldest_ms > 0 ? Math.max(0, nowMs - copy.oldest_ms) : null,
    },
  ];
}
