/** Snapshots of a partition's fold in a compacted topic, in chunks keyed partition/offset/chunk, so that a late writer cannot mix two (F7). */
import type { Log, LogMessage, LogRecord, LogWriter } from '../adapters/ports.ts';
import type { Digest } from '../core/aggregate/chain.ts';
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

/** A restart falls back to an older one when the newest is not whole. */
const snapshotsKept = 3;

/** While reading: enough that a whole one is among them even if some writers died midway. */
const snapshotsReadMax = 6;

/** How many chunks there are of each snapshot in the topic, by offset. */
export type SnapshotMarks = Map<number, number>;

/** @returns the whole ones, newest (of the highest offset) first, and what is there at all. @throws LogFault, UnknownSchema */
export async function readSnapshots(
  log: Log,
  digest: Digest,
  replica: Replica,
  partition: number,
): Promise<{ whole: Snapshot[]; marks: SnapshotMarks }> {
  const topic = snapshotTopic(replica).name;
  const { startOffset, endOffset } = await log.bounds(topic, partition);
  const chunks = new Map<number, Map<number, SnapshotChunk>>();
  const marks: SnapshotMarks = new Map();
  for await (const record of recordsBetween(log, topic, partition, startOffset, endOffset)) {
    const name = nameOf(record);
    if (!name) continue;
    const chunk = decode(record.value);
    const ofOffset = chunks.get(name.offset) ?? new Map<number, SnapshotChunk>();
    if (!chunk) {
      ofOffset.delete(name.chunk);
      if (ofOffset.size === 0) {
        chunks.delete(name.offset);
        marks.delete(name.offset);
      }
      continue;
    }
    chunks.set(name.offset, ofOffset.set(name.chunk, chunk));
    marks.set(name.offset, Math.max(marks.get(name.offset) ?? 0, chunk.chunks));
    if (chunks.size > snapshotsReadMax) chunks.delete(Math.min(...chunks.keys()));
  }
  const newestFirst = [...chunks].sort(([a], [b]) => b - a);
  return { whole: newestFirst.flatMap(([, ofOffset]) => assemble([...ofOffset.values()], digest) ?? []), marks };
}

/** Then tombstones what is older than the newest few; an entry of a snapshot that is deleted leaves the marks. @throws LogFault */
export async function writeSnapshot(writer: LogWriter, digest: Digest, replica: Replica, snapshot: Snapshot, marks: SnapshotMarks): Promise<void> {
  const { name: topic } = snapshotTopic(replica);
  const { partition, offset, state } = snapshot;
  const stateDigest = digest(state);
  const chunks = Math.max(1, Math.ceil(state.length / chunkBytesMax));
  for (let first = 0; first < chunks; first += chunksPerCallMax) {
    const messages: LogMessage[] = [];
    for (let chunk = first; chunk < Math.min(chunks, first + chunksPerCallMax); chunk++) {
      messages.push({ key: keyOf(partition, offset, chunk), value: encodeChunk(snapshot, chunk, chunks, stateDigest) });
    }
    await writer.append(topic, partition, messages);
  }
  marks.set(offset, chunks);
  const old = [...marks.keys()].sort((a, b) => b - a).slice(snapshotsKept);
  for (const oldOffset of old) {
    const count = marks.get(oldOffset) as number;
    const tombstones = Array.from({ length: count }, (_, chunk) => ({ key: keyOf(partition, oldOffset, chunk), value: null }));
    await writer.append(topic, partition, tombstones);
    marks.delete(oldOffset);
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

function keyOf(partition: number, offset: number, chunk: number): Buffer {
  return Buffer.from(`${partition}/${offset}/${chunk}`);
}

function nameOf(record: LogRecord): { offset: number; chunk: number } | null {
  const match = /^\d+\/(\d+)\/(\d+)$/.exec(record.key?.toString() ?? '');
  return match && { offset: Number(match[1]), chunk: Number(match[2]) };
}

/** What is no chunk counts as missing. */
function decode(value: Uint8Array | null): SnapshotChunk | null {
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
  if (Buffer.compare(digest(state), first.digest) !== 0) return null;
  const { partition, topic_id: topicId, offset, n, chain, record_digest: recordDigest } = first;
  return { partition, topicId, offset, n, chain, recordDigest, state };
}
