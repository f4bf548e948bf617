/**
 * The administration's entries in the log of NARs: the base that a log begins with, and the configurations of the fold. Both are NarBatches of the
 * reserved collector ~admin, each of an incarnation of its own with sequence 1, so that writing one again is harmless. The incarnation's name carries
 * the version: the acknowledgments of ~admin, which name every incarnation that a replica has folded, then tell which versions are in force.
 */
import type { Clock, Log, LogRecord, LogWriter } from '../../adapters/ports.ts';
import { compileSettings, foldVersion } from '../../core/aggregate/settings.ts';
import { ackCodec, narBatchCodec } from '../../schemas/codec.ts';
import { ackPartition, adminCollector, outputTopic, type Replica, replicas, snapshotTopic, topics } from '../../schemas/topics.ts';
import type { Ack, FoldConfig, NarBatch } from '../../schemas/types.ts';
import type { AggregateConfig } from '../config.ts';

/** A configuration that the fold would not take: a replica ignores it, or stops at it, so it must not get into the log. */
export class UnusableFoldConfig extends Error {}

/** @throws UnusableFoldConfig */
function foldConfigOf(config: AggregateConfig, partitions: number, version: number): FoldConfig {
  const foldConfig = {
    version,
    fold_version: foldVersion,
    partitions,
    window_ms: config.window,
    lateness_ms: config.lateness,
    live_within_ms: config.live_within,
    past_ms_max: config.past_max,
    future_ms_max: config.future_max,
    snapshot_every: config.snapshot_every,
    group_by: [...config.group_by],
    sampling: config.sampling,
    spread: config.spread,
    deduplication: config.deduplication,
    accounts: config.accounts.map(({ prefix, account }) => ({ prefix, account })),
  };
  let usable: boolean;
  try {
    usable = compileSettings(foldConfig) !== null;
  } catch (error) {
    throw new UnusableFoldConfig(`section aggregate cannot be folded with, nothing was written: ${(error as Error).message}`, { cause: error });
  }
  if (!usable) throw new UnusableFoldConfig('section aggregate cannot be folded with, nothing was written: look at its prefixes and durations');
  return foldConfig;
}

/** A log without a base whose outputs exist: it replaces another, and an empty base would start n again at 1. */
export class ReplacedLog extends Error {}

/**
 * Writes the empty base and the first configuration into each partition that has no base yet, and reads them back.
 * @returns the partitions begun. @throws ReplacedLog, LogFault
 */
export async function beginLogs(log: Log, clock: Clock, config: AggregateConfig): Promise<number[]> {
  const partitions = await log.partitionCount(topics.nars.name);
  const begun: number[] = [];
  const incarnation = incarnationOf(1, clock);
  const writer = log.writer();
  try {
    for (let partition = 0; partition < partitions; partition++) {
      if (await hasBase(log, partition)) continue;
      await requireNoOutputs(log, partition);
      const batch = adminBatch(partition, incarnation, clock, { base: { snapshot: null }, fold_config: foldConfigOf(config, partitions, 1) });
      await writer.append(topics.nars.name, partition, [{ key: Buffer.from(adminCollector), value: narBatchCodec.encode(batch) }]);
      // A client's success is no proof that the record is there.
      if (!(await hasBase(log, partition)))
        throw new Error(`the base entry of nars/${partition} was written and cannot be read back; run this again`);
      begun.push(partition);
    }
  } finally {
    await writer.close();
  }
  return begun;
}

async function requireNoOutputs(log: Log, partition: number): Promise<void> {
  const former = [...replicas.flatMap((replica) => [outputTopic(replica).name, snapshotTopic(replica).name]), topics.aggregates.name];
  for (const topic of former) {
    if ((await log.bounds(topic, partition)).endOffset === 0) continue;
    throw new ReplacedLog(
      `nars/${partition} has no base entry, but ${topic}/${partition} has records: this log replaces another one. ` +
        'An empty base would number the outputs from 1 again, so none was written. Run "flowledger base", which lets it begin with what was folded ' +
        'of the former log; or, to begin anew, remove the output topics, the snapshots and the ledger as well.',
    );
  }
}

/** A log whose head was cut had a base: heads are only cut below a snapshot that was folded from it. */
async function hasBase(log: Log, partition: number): Promise<boolean> {
  const { startOffset } = await log.bounds(topics.nars.name, partition);
  if (startOffset > 0) return true;
  for await (const record of recordsOf(log, topics.nars.name, partition, 0)) if (adminEntry(record)?.base) return true;
  return false;
}

/** Every record from the offset to the present end. */
export async function* recordsOf(log: Log, topic: string, partition: number, from: number): AsyncGenerator<LogRecord> {
  const { startOffset, endOffset } = await log.bounds(topic, partition);
  let next = Math.max(from, startOffset);
  if (next >= endOffset) return;
  const reader = log.reader('raw');
  reader.assign(topic, partition, next);
  try {
    while (next < endOffset) {
      for (const fetched of await reader.poll(1000)) {
        for (const record of fetched.records) if (record.marker === null) yield record;
        next = fetched.nextOffset;
      }
    }
  } finally {
    await reader.close();
  }
}

/** The entry that a record holds, where it is the administration's: the key tells without decoding. */
function adminEntry(record: LogRecord): NarBatch | null {
  return record.value && record.key?.toString() === adminCollector ? narBatchCodec.decode(record.value) : null;
}

export function adminBatch(partition: number, incarnation: string, clock: Clock, entry: Pick<NarBatch, 'base' | 'fold_config'>): NarBatch {
  return {
    collector: adminCollector,
    incarnation,
    partition,
    sequence: 1,
    through: 1,
    watermark_ms: clock.now(),
    volatile: false,
    goodbye: false,
    exporters: [],
    losses: [],
    nars: [],
    ...entry,
  };
}

const incarnationPrefix = 'config-';

export function incarnationOf(version: number, clock: Clock): string {
  return `${incarnationPrefix}${version}-${clock.unique()}`;
}

function versionOf(incarnation: string): number {
  return Number(new RegExp(`^${incarnationPrefix}(\\d+)-`).exec(incarnation)?.[1] ?? 0);
}

export interface Applied {
  readonly version: number;
  readonly partitions: number;
  /** Partitions that a replica has not acknowledged in time; empty when the configuration is in force everywhere. */
  readonly missing: readonly { readonly replica: Replica; readonly partition: number }[];
}

/**
 * Writes a new configuration to every partition, again where a replica's latest acknowledgment says that it was folded past and not accepted,
 * until both replicas have acknowledged it everywhere or the time is over. A replica that comes later folds it then: it is in the log.
 * @throws UnusableFoldConfig, LogFault, or Error when somebody else wrote a configuration at the same time
 */
export async function applyFoldConfig(log: Log, clock: Clock, config: AggregateConfig, withinMs: number): Promise<Applied> {
  const partitions = await log.partitionCount(topics.nars.name);
  const topicId = await log.topicId(topics.nars.name);
  const newest = await newestVersions(log, partitions, topicId);
  const version = 1 + Math.max(...newest);
  const incarnation = incarnationOf(version, clock);
  const foldConfig = foldConfigOf(config, partitions, version);
  const writer = log.writer();
  const writtenAt = new Map<number, number>();
  const write = async (partition: number) => void writtenAt.set(partition, await append(writer, clock, partition, incarnation, foldConfig));
  try {
    for (const [partition, last] of newest.entries()) {
      // The fold takes no version but the next: where an earlier command broke off, what it left out comes first.
      for (let skipped = last + 1; skipped < version; skipped++) {
        await append(writer, clock, partition, incarnationOf(skipped, clock), { ...foldConfig, version: skipped });
      }
      await write(partition);
    }
    const end = clock.now() + withinMs;
    for (;;) {
      const acks = await adminAcks(log, topicId);
      const missing = replicas.flatMap((replica) =>
        [...writtenAt.keys()]
          .filter((partition) => !acknowledges(acks.get(`${replica}/${partition}`), incarnation))
          .map((partition) => ({ replica, partition })),
      );
      if (missing.length === 0 || clock.now() >= end) {
        for (const [partition, offset] of writtenAt) await requireFirst(log, partition, offset, foldConfig, incarnation);
        return { version, partitions, missing };
      }
      for (const { replica, partition } of missing) {
        const foldedOffset = acks.get(`${replica}/${partition}`)?.folded_offset ?? 0;
        if (foldedOffset > (writtenAt.get(partition) ?? 0)) await write(partition);
      }
      await clock.sleep(250);
    }
  } finally {
    await writer.close();
  }
}

function append(writer: LogWriter, clock: Clock, partition: number, incarnation: string, foldConfig: FoldConfig): Promise<number> {
  const batch = adminBatch(partition, incarnation, clock, { base: null, fold_config: foldConfig });
  return writer.append(topics.nars.name, partition, [{ key: Buffer.from(adminCollector), value: narBatchCodec.encode(batch) }]);
}

/** How far back another command's entry is looked for: two that run at a time are not further apart. */
const raceRecords = 10_000;

/** Of two entries with one version the fold takes the first. */
async function requireFirst(log: Log, partition: number, offset: number, { version }: FoldConfig, incarnation: string): Promise<void> {
  for await (const record of recordsOf(log, topics.nars.name, partition, offset - raceRecords)) {
    if (record.offset >= offset) return;
    const entry = adminEntry(record);
    if (entry?.fold_config?.version !== version || entry.incarnation === incarnation) continue;
    throw new Error(`configuration ${version} was written by somebody else at the same time; look at it, and run this again`);
  }
}

export function acknowledges(ack: Ack | undefined, incarnation: string): boolean {
  return ack?.sequences.some((entry) => entry.incarnation === incarnation && entry.sequence >= 1) ?? false;
}

/** The latest acknowledgments of ~admin in this log, by `replica/partition`. */
export async function adminAcks(log: Log, topicId: string): Promise<Map<string, Ack>> {
  const acks = new Map<string, Ack>();
  for await (const { value } of recordsOf(log, topics.acks.name, ackPartition(adminCollector), 0)) {
    if (!value) continue;
    const ack = ackCodec.decode(value);
    if (ack.collector === adminCollector && ack.topic_id === topicId) acks.set(`${ack.replica}/${ack.partition}`, ack);
  }
  return acks;
}

/** Of each partition the highest version that a replica has folded, or that waits in the log to be folded. */
async function newestVersions(log: Log, partitions: number, topicId: string): Promise<number[]> {
  const acks = await adminAcks(log, topicId);
  const newest: number[] = [];
  for (let partition = 0; partition < partitions; partition++) {
    const own = replicas.map((replica) => acks.get(`${replica}/${partition}`));
    let version = Math.max(0, ...own.flatMap((ack) => ack?.sequences ?? []).map(({ incarnation }) => versionOf(incarnation)));
    const unfolded = Math.min(...own.map((ack) => ack?.folded_offset ?? 0));
    for await (const record of recordsOf(log, topics.nars.name, partition, unfolded)) {
      version = Math.max(version, adminEntry(record)?.fold_config?.version ?? 0);
    }
    newest.push(version);
  }
  return newest;
}
