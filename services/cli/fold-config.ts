/**
 * The administration's entries in the log of NARs: the base that a log begins with, and the configurations of the fold. Both are NarBatches of the
 * reserved collector ~admin, each of an incarnation of its own with sequence 1, so that writing one again is harmless. The incarnation's name carries
 * the version: the acknowledgments of ~admin, which name every incarnation that a replica has folded, then tell which versions are in force.
 */
import type { Clock, Log, LogRecord } from '../../adapters/ports.ts';
import { ackCodec, narBatchCodec } from '../../schemas/codec.ts';
import { ackPartition, adminCollector, outputTopic, type Replica, replicas, topics } from '../../schemas/topics.ts';
import type { Ack, FoldConfig, NarBatch } from '../../schemas/types.ts';
import type { AggregateConfig } from '../config.ts';

/** The arithmetic that this release folds with. */
const foldVersion = 1;

export function foldConfigOf(config: AggregateConfig, partitions: number, version: number): FoldConfig {
  return {
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
  for (const topic of [outputTopic('a').name, outputTopic('b').name, topics.aggregates.name]) {
    if ((await log.bounds(topic, partition)).endOffset === 0) continue;
    throw new ReplacedLog(
      `nars/${partition} has no base entry, but ${topic}/${partition} has records: this log replaces another one. ` +
        'An empty base would number the outputs from 1 again, so none was written; restore the former log, or remove the output topics and the ' +
        'ledger as well.',
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

function adminBatch(partition: number, incarnation: string, clock: Clock, entry: Pick<NarBatch, 'base' | 'fold_config'>): NarBatch {
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

function incarnationOf(version: number, clock: Clock): string {
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
 * @throws LogFault
 */
export async function applyFoldConfig(log: Log, clock: Clock, config: AggregateConfig, withinMs: number): Promise<Applied> {
  const partitions = await log.partitionCount(topics.nars.name);
  const topicId = await log.topicId(topics.nars.name);
  const version = 1 + (await newestVersion(log, partitions, topicId));
  const incarnation = incarnationOf(version, clock);
  const foldConfig = foldConfigOf(config, partitions, version);
  const writer = log.writer();
  const writtenAt = new Map<number, number>();
  const write = async (partition: number) => {
    const batch = adminBatch(partition, incarnation, clock, { base: null, fold_config: foldConfig });
    const message = { key: Buffer.from(adminCollector), value: narBatchCodec.encode(batch) };
    writtenAt.set(partition, await writer.append(topics.nars.name, partition, [message]));
  };
  try {
    for (let partition = 0; partition < partitions; partition++) await write(partition);
    const end = clock.now() + withinMs;
    for (;;) {
      const acks = await adminAcks(log, topicId);
      const missing = replicas.flatMap((replica) =>
        [...writtenAt.keys()]
          .filter((partition) => !acknowledges(acks.get(`${replica}/${partition}`), incarnation))
          .map((partition) => ({ replica, partition })),
      );
      if (missing.length === 0 || clock.now() >= end) return { version, partitions, missing };
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

function acknowledges(ack: Ack | undefined, incarnation: string): boolean {
  return ack?.sequences.some((entry) => entry.incarnation === incarnation && entry.sequence >= 1) ?? false;
}

/** The latest acknowledgments of ~admin in this log, by `replica/partition`. */
async function adminAcks(log: Log, topicId: string): Promise<Map<string, Ack>> {
  const acks = new Map<string, Ack>();
  for await (const { value } of recordsOf(log, topics.acks.name, ackPartition(adminCollector), 0)) {
    if (!value) continue;
    const ack = ackCodec.decode(value);
    if (ack.collector === adminCollector && ack.topic_id === topicId) acks.set(`${ack.replica}/${ack.partition}`, ack);
  }
  return acks;
}

/** The highest version that any replica has folded, or that waits in the log to be folded. */
async function newestVersion(log: Log, partitions: number, topicId: string): Promise<number> {
  const acks = await adminAcks(log, topicId);
  let newest = 0;
  for (const ack of acks.values()) for (const { incarnation } of ack.sequences) newest = Math.max(newest, versionOf(incarnation));
  for (let partition = 0; partition < partitions; partition++) {
    const folded = replicas.map((replica) => acks.get(`${replica}/${partition}`)?.folded_offset ?? 0);
    for await (const record of recordsOf(log, topics.nars.name, partition, Math.min(...folded))) {
      newest = Math.max(newest, adminEntry(record)?.fold_config?.version ?? 0);
    }
  }
  return newest;
}
