/** I16 and I18, looked at whenever the head of a log is cut or a snapshot is deleted. Each function returns what is wrong, or nothing. */
import { createHash } from 'node:crypto';
import { outputBlockCodec, snapshotChunkCodec } from '../../schemas/codec.ts';
import { outputTopic, type Replica, replicas, snapshotTopic, topics } from '../../schemas/topics.ts';
import type { SnapshotChunk } from '../../schemas/types.ts';
import type { PartitionHistory } from './checkers.ts';
import type { ModelBroker } from './model-log.ts';

interface Whole {
  readonly offset: number;
  /** Everything that it says of itself. */
  readonly text: string;
}

/** The snapshots of the present log that stand whole in a replica's topic, by their own word and by their bytes. */
function wholeSnapshots(broker: ModelBroker, replica: Replica, partition: number): Whole[] {
  const { id } = broker.topic(topics.nars.name);
  const standing = new Map<string, SnapshotChunk>();
  for (const { record, gone } of broker.partition(snapshotTopic(replica).name, partition).entries) {
    if (gone) continue;
    if (record.value) standing.set(record.key!.toString(), snapshotChunkCodec.decode(record.value));
    else standing.delete(record.key!.toString());
  }
  const byOffset = new Map<number, SnapshotChunk[]>();
  for (const chunk of standing.values()) if (chunk.topic_id === id) byOffset.set(chunk.offset, [...(byOffset.get(chunk.offset) ?? []), chunk]);
  return [...byOffset].flatMap(([offset, chunks]) => {
    chunks.sort((a, b) => a.chunk - b.chunk);
    const { n, chain, digest, chunks: count } = chunks[0]!;
    const bytes = Buffer.concat(chunks.map((chunk) => chunk.bytes));
    const isWhole = chunks.length === count && createHash('sha256').update(bytes).digest().equals(digest);
    return isWhole ? [{ offset, text: `${n} ${Buffer.from(chain).toString('hex')} ${Buffer.from(digest).toString('hex')}` }] : [];
  });
}

/** Of the newest snapshot that both hold; 0 without one. */
export function agreedOffset(broker: ModelBroker, partition: number): number {
  const [ofA, ofB] = replicas.map((replica) => wholeSnapshots(broker, replica, partition)) as [Whole[], Whole[]];
  return Math.max(0, ...ofA.filter((a) => ofB.some((b) => b.offset === a.offset && b.text === a.text)).map(({ offset }) => offset));
}

/** I16. Both hold, or held, a snapshot behind the record that comes first now, and what is cut is older than the history. */
export function cutsOnlyAgreed(broker: ModelBroker, partition: number, historyMs: number, agreedOnce: number): string | null {
  const { entries, startOffset } = broker.partition(topics.nars.name, partition);
  const agreed = Math.max(agreedOnce, agreedOffset(broker, partition));
  if (startOffset > agreed - 1) return `nars/${partition} is cut at ${startOffset}, both hold ${agreed}`;
  const youngest = entries[startOffset - 1]!.record.appendedMs;
  const ageMs = broker.clock.now() - youngest;
  return ageMs < historyMs ? `nars/${partition} is cut at ${startOffset}, where a record is ${ageMs} ms old, of ${historyMs} to be kept` : null;
}

/** I16. What is not in the log any more is in a snapshot of one of them. */
export function snapshotCoversTheCut(broker: ModelBroker, partition: number): string | null {
  const { startOffset } = broker.partition(topics.nars.name, partition);
  if (startOffset === 0) return null;
  const newest = Math.max(0, ...replicas.flatMap((replica) => wholeSnapshots(broker, replica, partition)).map(({ offset }) => offset));
  return newest < startOffset ? `nars/${partition} begins at ${startOffset}, and the newest snapshot is at ${newest}` : null;
}

/** I18. A reader that begins at the head gets an n that is emitted and that both have written, and from there on all that was there. */
export function outputsAreCutBehind(broker: ModelBroker, history: PartitionHistory, replica: Replica, partition: number): string | null {
  const { entries, startOffset } = broker.partition(outputTopic(replica).name, partition);
  const written = Math.min(...replicas.map((one) => history.views[one].outputs.length));
  const waiting = new Set<number>();
  let first = 0;
  let last = 0;
  for (const { record } of entries.slice(startOffset)) {
    for (const { n } of outputBlockCodec.decode(record.value!).outputs) {
      first ||= n;
      last ||= n - 1;
      waiting.add(n);
      while (waiting.delete(last + 1)) last++;
    }
  }
  const facts = `aggregates.${replica}/${partition} is cut at ${startOffset}, where n ${first} to ${last} are left`;
  if (first > Math.min(written, history.emitted.length)) return `${facts}; emitted are ${history.emitted.length}, both have ${written}`;
  return last < history.views[replica].outputs.length ? `${facts}; it held ${history.views[replica].outputs.length}` : null;
}
