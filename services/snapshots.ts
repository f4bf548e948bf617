/**
 * Snapshots of a partition's fold in a compacted topic, in chunks keyed partition/topic id/offset/chunk: a late writer cannot mix two (F7), nor can
 * those of a log that was replaced be taken for those of the present one.
 */
import { type Log, LogFault, type LogMessage, type LogRecord, type LogWriter } from '../adapters/ports.ts';
import { type Digest, sameChain } from '../core/aggregate/chain.ts';
import { snapshotChunkCodec, UndecodableRecord } from '../schemas/codec.ts';
import { type Replica, snapshotTopic } from '../schemas/topics.ts';
import type { SnapshotChunk } from '../schemas/types.ts';
import { recordsBetween } from './log-records.ts';

export interface Snapshot {
  readonly partition: number;
  /** Of nars. */
  readonly topicId: string;
  /** The next offset of nars to fold. */
  readonly offset: number;
  readonly n: number;
  readonly chain: Uint8Array;
  /** Of the value of the record at offset - 1; empty when offset is 0. */
  readonly recordDigest: Uint8Array;
  readonly state: Uint8Array;
}

/** Well below the largest message; two go into one call. */
const chunkBytesMax = 512 * 1024;
const chunksPerCallMax = 2;

/** While reading: enough that a whole one is among them even if some writers died midway. */
const snapshotsReadMax = 6;

/** What there is of a snapshot in the topic. */
export interface SnapshotMark {
  readonly topicId: string;
  readonly offset: number;
  readonly chunks: number;
}

/** By the part of their keys that names a snapshot. */
export type SnapshotMarks = Map<string, SnapshotMark>;

export interface SnapshotsRead {
  /** Those of one log, newest (of the highest offset) first. */
  readonly whole: readonly Snapshot[];
  /** What is there at all, of whichever log. */
  readonly marks: SnapshotMarks;
}

/**
 * The whole ones of the log with this topic id of nars; of many the newest few, and the one at `keptOffset`, which is not among them where several
 * processes of one replica write. @throws LogFault, UnknownSchema
 */
export async function readSnapshots(
  log: Log,
  digest: Digest,
  replica: Replica,
  partition: number,
  topicId: string,
  keptOffset = -1,
): Promise<SnapshotsRead> {
  const topic = snapshotTopic(replica).name;
  const { startOffset, endOffset } = await log.bounds(topic, partition);
  const held = new Map<string, Map<number, SnapshotChunk>>();
  const marks: SnapshotMarks = new Map();
  for await (const record of recordsBetween(log, topic, partition, startOffset, endOffset)) {
    const name = chunkName(record);
    if (!name) continue;
    const chunk = decodeChunk(record.value);
    if (!chunk) {
      const chunks = held.get(name.snapshot);
      chunks?.delete(name.chunk);
      if (!chunks || chunks.size === 0) {
        held.delete(name.snapshot);
        marks.delete(name.snapshot);
      }
      continue;
    }
    const { topic_id, offset, chunks } = chunk;
    marks.set(name.snapshot, { topicId: topic_id, offset, chunks: Math.max(marks.get(name.snapshot)?.chunks ?? 0, chunks) });
    if (topic_id !== topicId) continue;
    held.set(name.snapshot, (held.get(name.snapshot) ?? new Map<number, SnapshotChunk>()).set(name.chunk, chunk));
    if (held.size > snapshotsReadMax) held.delete(oldestOf(held, keptOffset));
  }
  const whole = [...held.values()].flatMap((chunks) => assemble([...chunks.values()], digest) ?? []);
  return { whole: whole.sort((one, other) => other.offset - one.offset), marks };
}

function oldestOf(held: ReadonlyMap<string, ReadonlyMap<number, SnapshotChunk>>, keptOffset: number): string {
  const offsets = [...held].map(([snapshot, chunks]) => ({ snapshot, offset: [...chunks.values()][0]?.offset ?? 0 }));
  const others = offsets.filter(({ offset }) => offset !== keptOffset);
  return others.reduce((oldest, one) => (one.offset < oldest.offset ? one : oldest)).snapshot;
}

/**
 * Writes it and reads it back: a client's success is no proof (F6), and the heads of nars are cut on the strength of what stands there.
 * @throws LogFault, after which all of it is to be written again
 */
export async function writeSnapshot(
  log: Log,
  writer: LogWriter,
  digest: Digest,
  replica: Replica,
  snapshot: Snapshot,
  marks: SnapshotMarks,
): Promise<void> {
  const { name: topic } = snapshotTopic(replica);
  const { partition, topicId, offset, state } = snapshot;
  const stateDigest = digest(state);
  const chunks = Math.max(1, Math.ceil(state.length / chunkBytesMax));
  const { endOffset: beforeOffset } = await log.bounds(topic, partition);
  marks.set(snapshotName(snapshot), { topicId, offset, chunks });
  for (let first = 0; first < chunks; first += chunksPerCallMax) {
    const messages: LogMessage[] = [];
    for (let chunk = first; chunk < Math.min(chunks, first + chunksPerCallMax); chunk++) {
      messages.push({ key: chunkKey(snapshotName(snapshot), chunk), value: encodeChunk(snapshot, chunk, chunks, stateDigest) });
    }
    await writer.append(topic, partition, messages);
  }
  const { endOffset } = await log.bounds(topic, partition);
  const missing = new Set(Array.from({ length: chunks }, (_, chunk) => chunk));
  for await (const record of recordsBetween(log, topic, partition, beforeOffset, endOffset)) {
    const name = chunkName(record);
    if (name?.snapshot !== snapshotName(snapshot)) continue;
    if (record.value?.equals(encodeChunk(snapshot, name.chunk, chunks, stateDigest))) missing.delete(name.chunk);
    else missing.add(name.chunk);
  }
  if (missing.size > 0) throw new LogFault('unknown', `${missing.size} of ${chunks} chunks of snapshot ${offset} are not in ${topic}/${partition}`);
}

/** Tombstones all their chunks. @throws LogFault */
export async function deleteSnapshots(
  writer: LogWriter,
  replica: Replica,
  partition: number,
  marks: SnapshotMarks,
  names: readonly string[],
): Promise<void> {
  for (const name of names) {
    const chunks = marks.get(name)?.chunks ?? 0;
    const tombstones = Array.from({ length: chunks }, (_, chunk) => ({ key: chunkKey(name, chunk), value: null }));
    await writer.append(snapshotTopic(replica).name, partition, tombstones);
    marks.delete(name);
  }
}

function encodeChunk(snapshot: Snapshot, chunk: number, chunks: number, stateDigest: Uint8Array): Buffer {
  const { partition, topicId, offset, n, chain, recordDigest, state } = snapshot;
  const bytes = Buffer.from(state.subarray(chunk * chunkBytesMax, (chunk + 1) * chunkBytesMax));
  return snapshotChunkCodec.encode({
    partition,
    topic_id: topicId,
    offset,
    n,
    chain,
    record_digest: recordDigest,
    chunk,
    chunks,
    digest: stateDigest,
    bytes,
  });
}

function snapshotName({ partition, topicId, offset }: Pick<Snapshot, 'partition' | 'topicId' | 'offset'>): string {
  return `${partition}/${topicId}/${offset}`;
}

function chunkKey(snapshot: string, chunk: number): Buffer {
  return Buffer.from(`${snapshot}/${chunk}`);
}

/** Which snapshot a record of the topic belongs to, and which chunk it is; null for what is neither. */
export function chunkName(record: LogRecord): { snapshot: string; chunk: number } | null {
  const match = /^(\d+(?:\/[^/]+)?\/\d+)\/(\d+)$/.exec(record.key?.toString() ?? '');
  return match && { snapshot: match[1] as string, chunk: Number(match[2]) };
}

/** What is no chunk counts as missing. @throws UnknownSchema */
export function decodeChunk(value: Uint8Array | null): SnapshotChunk | null {
  if (!value) return null;
  try {
    return snapshotChunkCodec.decode(value);
  } catch (error) {
    if (error instanceof UndecodableRecord) return null;
    throw error;
  }
}

function assemble(chunks: SnapshotChunk[], digest: Digest): Snapshot | null {
  chunks.sort((a, b) => a.chunk - b.chunk);
  const first = chunks[0];
  if (!first || chunks.length !== first.chunks || chunks.some((chunk, index) => chunk.chunk !== index)) return null;
  const state = Buffer.concat(chunks.map(({ bytes }) => bytes));
  if (!sameChain(digest(state), first.digest)) return null;
  const { partition, topic_id: topicId, offset, n, chain, record_digest: recordDigest } = first;
  return { partition, topicId, offset, n, chain, recordDigest, state };
}
