/** From what `doctor` has seen to its findings: pure, so that each can be tested with a made-up system. */

import type { BrokerAbility } from '../../adapters/kafka-admin.ts';
import type { BrokerDisk } from '../../adapters/ports.ts';
import type { RedisInspection, SettingDoubt } from '../../adapters/redis-store.ts';
import type { Health } from '../../schemas/types.ts';
import { type Code, type ErrorCode, errorCodes, type Severity } from './error-codes.ts';
import type { HealthRecord } from './health-records.ts';
import type { Status } from './status.ts';
import type { Finding as TopicFinding } from './topics.ts';

export interface Finding {
  readonly code: Code;
  readonly severity: Severity;
  readonly title: string;
  /** What was found, in words and figures. */
  readonly found: string;
  readonly remedy: string;
}

/** The remedy is the code's, where the finding has no better one. */
export function finding(code: Code, found: string, remedy?: string): Finding {
  const { severity, title, remedy: usual }: ErrorCode = errorCodes[code];
  return { code, severity, title, found, remedy: remedy ?? usual };
}

const clockToleranceMs = 1_000;
const behindMs = 30_000;
const copyFullPercent = 80;
const diskFull = 0.1;
const diskFilling = 0.25;
const redisOldest = [6, 2];

export function brokerFindings(abilities: readonly BrokerAbility[]): Finding[] {
  return abilities.flatMap(({ broker, release, missing }) =>
    missing.length === 0
      ? []
      : [
          finding(
            'FL102',
            `broker ${broker} (Apache Kafka ${release ? `${release} or later` : 'older than 2.7'}) does not take ${missing.join(', ')}`,
          ),
        ],
  );
}

export function topicFindings(names: readonly string[], existing: ReadonlySet<string>, differences: readonly TopicFinding[]): Finding[] {
  const missing = names.filter((name) => !existing.has(name)).map((name) => finding('FL111', `there is no topic ${name}`));
  const different = differences.map(({ topic, setting, found, needed, why, grave }) => {
    const what = `${topic}: ${setting} is ${found}, needed is ${needed}: ${why}`;
    if (setting === 'partitions') return finding('FL114', what, `set topics.partitions to ${found}`);
    return finding(grave ? 'FL112' : 'FL113', what);
  });
  return [...missing, ...different];
}

export function diskFindings(disks: readonly BrokerDisk[]): Finding[] {
  return disks.flatMap(({ broker, path, totalBytes, usableBytes }) => {
    if (totalBytes === null || usableBytes === null) return [finding('FL123', `broker ${broker}, ${path}`)];
    const what = `broker ${broker}, ${path}: ${percent(usableBytes, totalBytes)} % of ${gibibytes(totalBytes)} GiB are free`;
    const free = usableBytes / totalBytes;
    if (free < diskFull) return [finding('FL121', what)];
    return free < diskFilling ? [finding('FL122', what)] : [];
  });
}

const redisCodes: Readonly<Record<SettingDoubt['setting'], Code>> = {
  appendonly: 'FL202',
  appendfsync: 'FL203',
  'no-appendfsync-on-rewrite': 'FL204',
  'maxmemory-policy': 'FL205',
  maxmemory: 'FL206',
};

export function redisFindings({ version, doubts, lastWrite }: RedisInspection): Finding[] {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [oldestMajor = 0, oldestMinor = 0] = redisOldest;
  return [
    ...(major < oldestMajor || (major === oldestMajor && minor < oldestMinor) ? [finding('FL209', `its version is ${version}`)] : []),
    ...(lastWrite === 'ok' ? [] : [finding('FL208', `aof_last_write_status is ${lastWrite}`)]),
    ...(doubts?.map(({ setting, found, needed, cost }) => finding(redisCodes[setting], `${setting} is ${found}, needed is ${needed}: ${cost}`)) ?? [
      finding('FL207', 'CONFIG GET is refused'),
    ]),
  ];
}

/** `brokerAheadMs` is null where nothing was appended while it was measured. */
export function clockFindings(brokerAheadMs: number | null, records: readonly HealthRecord[], futureMaxMs: number): Finding[] {
  const own =
    brokerAheadMs !== null && Math.abs(brokerAheadMs) > clockToleranceMs
      ? [finding('FL301', `the broker's is ${Math.abs(brokerAheadMs)} ms ${brokerAheadMs > 0 ? 'ahead of' : 'behind'} this machine's`)]
      : [];
  const services = records.flatMap(({ health: { role, id, at_ms }, appendedMs }) => {
    const behind = appendedMs - at_ms;
    if (Math.abs(behind) <= clockToleranceMs) return [];
    const what = `that of ${role} ${id} is ${Math.abs(behind)} ms ${behind > 0 ? 'behind' : 'ahead of'} the broker's`;
    return [role === 'collector' && behind > futureMaxMs ? finding('FL303', what) : finding('FL302', what)];
  });
  return [...own, ...services];
}

export interface SocketFacts {
  /** net.core.rmem_max of this machine; null where it has none. */
  readonly grantedBytes: number | null;
  readonly neededBytes: number;
  /** Of the collector on this machine: by listening address; null where it does not answer. */
  readonly droppedDatagrams: ReadonlyMap<string, number> | null;
  readonly waitingSets: number;
}

export function socketFindings({ grantedBytes, neededBytes, droppedDatagrams, waitingSets }: SocketFacts): Finding[] {
  const dropped = [...(droppedDatagrams ?? [])].filter(([, count]) => count > 0);
  const isSmall = grantedBytes !== null && grantedBytes < neededBytes;
  return [
    ...(isSmall
      ? [
          finding(
            'FL401',
            `net.core.rmem_max is ${grantedBytes}, collector.receive_buffer ${neededBytes}`,
            `sysctl -w net.core.rmem_max=${neededBytes}, and put it into /etc/sysctl.d; then restart the collector`,
          ),
        ]
      : []),
    ...dropped.map(([listen, count]) => finding('FL402', `${count} datagrams at ${listen || 'its socket'} since the collector started`)),
    ...(waitingSets > 0 ? [finding('FL704', `${waitingSets} data sets wait`)] : []),
  ];
}

/** What the newest record of a partition is: ours, of a schema that is not known, or none of ours. */
export interface SchemaFact {
  readonly place: string;
  readonly problem: 'unknown' | 'undecodable';
  readonly message: string;
}

export function schemaFindings(facts: readonly SchemaFact[]): Finding[] {
  return facts.map(({ place, problem, message }) => finding(problem === 'unknown' ? 'FL501' : 'FL502', `the newest record of ${place}: ${message}`));
}

export function statusFindings(status: Status): Finding[] {
  const services = status.services.flatMap(({ role, id, up, ready, reasons }) => {
    const name = id === '-' ? role : `${role} ${id}`;
    const why = reasons.join('; ');
    if (!up) return [finding('FL601', `${name}: ${why}`)];
    if (!ready) return [finding('FL602', `${name}: ${why}`)];
    return reasons.map((reason) => finding('FL603', `${name}: ${reason}`));
  });
  const partitions = status.partitions.flatMap(({ partition, leader, replicas, feed, accounting }) => {
    const found: Finding[] = leader === null ? [finding('FL611', `partition ${partition}`)] : [];
    if (feed.state === 'held') found.push(finding('FL612', `partition ${partition} is held by the feed at n ${feed.n}`));
    if (accounting.state === 'held' || accounting.state === 'stopped')
      found.push(finding('FL612', `partition ${partition} is ${accounting.state} by accounting at n ${accounting.n}`));
    for (const [replica, { state, verdict, lag_ms, up }] of Object.entries(replicas)) {
      const name = `aggregator ${replica}, partition ${partition}`;
      if (verdict?.state === 'quarantined') found.push(finding('FL613', `${name}, from n ${verdict.n} on: ${verdict.evidence}`));
      else if (state === 'stopped' || state === 'disputed') found.push(finding('FL614', `${name}: ${state}`));
      if (up && (lag_ms ?? 0) > behindMs) found.push(finding('FL615', `${name}: ${Math.round((lag_ms ?? 0) / 1000)} s`));
    }
    return found;
  });
  return [...services, ...partitions];
}

export function copyFindings(records: readonly Health[]): Finding[] {
  return records.flatMap(({ id, copy }) => {
    if (!copy || copy.bytes_max === 0 || copy.bytes * 100 < copy.bytes_max * copyFullPercent) return [];
    return [finding('FL616', `that of collector ${id} holds ${copy.bytes} of ${copy.bytes_max} bytes (${copy.store})`)];
  });
}

/** What the newest batches say of one exporter. */
export interface ExporterFacts {
  readonly name: string;
  readonly nars: number;
  readonly unsampledNars: number;
  readonly undecodableDatagrams: number;
  readonly lostOnWireFlows: number;
  readonly lostOnWireDatagrams: number;
}

export function exporterFindings(exporters: readonly ExporterFacts[]): Finding[] {
  return exporters.flatMap(({ name, nars, unsampledNars, undecodableDatagrams, lostOnWireFlows, lostOnWireDatagrams }) => [
    ...(undecodableDatagrams > 0 ? [finding('FL701', `${name}: ${undecodableDatagrams} datagrams could not be decoded lately`)] : []),
    ...(unsampledNars > 0 ? [finding('FL702', `${name}: ${unsampledNars} of ${nars} flows lately`)] : []),
    ...(lostOnWireFlows > 0 || lostOnWireDatagrams > 0
      ? [finding('FL703', `${name}: ${lostOnWireFlows} flows and ${lostOnWireDatagrams} datagrams lately`)]
      : []),
  ]);
}

export function ledgerDiskFindings(path: string, freeBytes: number, totalBytes: number): Finding[] {
  return freeBytes / totalBytes < diskFull ? [finding('FL802', `${path}: ${percent(freeBytes, totalBytes)} % are free`)] : [];
}

function percent(part: number, whole: number): number {
  return Math.floor((100 * part) / whole);
}

function gibibytes(bytes: number): string {
  return (bytes / 1024 ** 3).toFixed(1);
}
