/**
 * Finds the state to fold on with (DESIGN 3.6, 3.8): the newest whole snapshot of its own, else one of the other replica's (the agreed one where it
 * stands, never one of a quarantined replica), else what the log begins with, where it still has its beginning; and what of the outputs up to there
 * stands in the own output topic. What is missing there is copied from the other's, byte for byte, since a fold that begins behind it cannot compute
 * it again (F7).
 */
import { type Log, type LogBounds, LogFault } from '../../adapters/ports.ts';
import { type Digest, sameChain } from '../../core/aggregate/chain.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import { decodeBlock } from '../../core/aggregate/output-block.ts';
import { noPosition, type Position, ReadBack } from '../../core/aggregate/read-back.ts';
import { otherReplica, outputTopic, type Replica, topics } from '../../schemas/topics.ts';
import type { Verdict } from '../../schemas/types.ts';
import { AgreementLog } from '../agreement-log.ts';
import { type BaseSearch, type Beginning, beginningOf } from '../beginning.ts';
import { recordAt, recordsBetween } from '../log-records.ts';
import { readSnapshots, type Snapshot, type SnapshotMarks, type SnapshotsRead } from '../snapshots.ts';

/** What was judged of this replica and of the other, in one partition; null where nothing was. */
export interface Standing {
  readonly own: Verdict | null;
  readonly other: Verdict | null;
}

export interface RestoreParts {
  readonly log: Log;
  readonly digest: Digest;
  readonly replica: Replica;
  readonly standing: Standing;
  /** Of the partition that is restored. */
  readonly bases: BaseSearch;
  readonly nowMs: () => number;
}

export interface Restored {
  readonly fold: Fold;
  readonly readBack: ReadBack;
  /** Of the own output topic, where reading goes on. */
  readonly outputsOffset: number;
  /** Of nars. */
  readonly topicId: string;
  /** Of the value of the last folded record; null before the first. */
  readonly recordDigest: Uint8Array | null;
  /** Of the newest own snapshot; 0 without one. */
  readonly snapshotOffset: number;
  readonly marks: SnapshotMarks;
  /** Where the state comes from, for the log. */
  readonly origin: string;
}

/** This partition cannot be folded on by this replica; the message names the remedy. */
export class PartitionEnded extends Error {}

export function groupOf(replica: Replica): string {
  return `flowledger-aggregator-${replica}`;
}

/** @throws PartitionEnded, NotDeterministic, UnknownSchema, UnknownFoldVersion; LogFault, after which it is to be tried again */
export async function restore(parts: RestoreParts, partition: number): Promise<Restored> {
  const { log, digest, replica } = parts;
  const topicId = await log.topicId(topics.nars.name);
  const bounds = await log.bounds(topics.nars.name, partition);
  const own = await readSnapshots(log, digest, replica, partition, topicId);
  const found = await choose(parts, partition, topicId, bounds, own);
  const base = { topicId, marks: own.marks };
  if (!found) {
    const beginning = await begin(parts, partition, topicId, own);
    const { fold, position, recordDigest } = beginning;
    const outputs = await readOwnOutputs(parts, partition, position, false);
    if (outputs.readBack.n < position.n) await copyOutputs(parts, partition, position, outputs.readBack);
    return { ...base, ...outputs, fold, recordDigest, snapshotOffset: 0, origin: originOf(beginning) };
  }
  const { snapshot, isOwn } = found;
  const fold = Fold.restore(snapshot.state, digest);
  const outputs = await readOwnOutputs(parts, partition, snapshot, isOwn);
  if (outputs.readBack.n < snapshot.n) await copyOutputs(parts, partition, snapshot, outputs.readBack);
  const origin = `${isOwn ? 'its own' : "the other's"} snapshot at offset ${snapshot.offset}`;
  return { ...base, ...outputs, fold, recordDigest: snapshot.recordDigest, snapshotOffset: isOwn ? snapshot.offset : 0, origin };
}

/** Null: begin with the empty state. */
async function choose(
  parts: RestoreParts,
  partition: number,
  topicId: string,
  bounds: LogBounds,
  own: SnapshotsRead,
): Promise<{ snapshot: Snapshot; isOwn: boolean } | null> {
  const [newest] = own.whole;
  if (newest) await requireContinuation(parts.log, parts.digest, newest);
  if (newest && newest.offset >= bounds.startOffset) return { snapshot: newest, isOwn: true };
  // I15.
  if (parts.standing.other?.state === 'quarantined') {
    if (bounds.startOffset === 0) return null;
    const name = otherReplica(parts.replica);
    throw new LogFault('unavailable', `it has no snapshot of its own that will do, and takes none of ${name} before ${name} is repaired`);
  }
  const other = await otherSnapshot(parts, partition, topicId);
  if (other && other.offset >= bounds.startOffset) {
    await requireContinuation(parts.log, parts.digest, other);
    return { snapshot: other, isOwn: false };
  }
  if (bounds.startOffset === 0) return null;
  throw new PartitionEnded(
    `nars/${partition} begins at offset ${bounds.startOffset}, and no snapshot of either replica is at or behind it: ` +
      'restore the topics snapshots.a and snapshots.b, or the records of nars, from a backup',
  );
}

/** A log that replaced another one begins with what its base names, never with the empty state. @throws PartitionEnded, MissingBase, LogFault */
async function begin({ log, digest, replica, bases }: RestoreParts, partition: number, topicId: string, own: SnapshotsRead): Promise<Beginning> {
  const beginning = await beginningOf(log, digest, partition, bases);
  if (beginning.snapshot) return beginning;
  const others = await readSnapshots(log, digest, otherReplica(replica), partition, topicId);
  const former = [...own.marks.values(), ...others.marks.values()].find((mark) => mark.topicId !== topicId);
  if (former) throw new PartitionEnded(`${logEnded(partition)} (topic id ${topicId}, was ${former.topicId}). ${replacedRemedy}`);
  return beginning;
}

function originOf({ snapshot }: Beginning): string {
  return snapshot ? `the base: the snapshot of ${snapshot.replica} at offset ${snapshot.offset} of the former log` : "the log's beginning";
}

/** What only the other says may be what went wrong there, and has not shown yet; what both once held alike is not. */
async function otherSnapshot({ log, digest, replica }: RestoreParts, partition: number, topicId: string): Promise<Snapshot | undefined> {
  const agreements = new AgreementLog(log);
  await agreements.refresh();
  const agreed = agreements.of(partition, topicId);
  const { whole } = await readSnapshots(log, digest, otherReplica(replica), partition, topicId, agreed?.offset);
  return whole.find(({ offset, state }) => agreed?.offset === offset && sameChain(digest(state), agreed.digest)) ?? whole[0];
}

export function logEnded(partition: number): string {
  return `nars/${partition} is not the log that was folded any more`;
}

export const replacedRemedy =
  'Where the topic itself was re-created, run "flowledger base": it lets the log begin with what was folded before. Where its end was lost, ' +
  'delete the topic nars first and run "flowledger topics"; collectors send again what both aggregators have not acknowledged';

/** 3.8: the log must still have what the snapshot was folded from, as far as its head was not cut (G6). */
export async function requireContinuation(log: Log, digest: Digest, snapshot: Snapshot): Promise<void> {
  const { partition, offset } = snapshot;
  // Asked after the snapshot was read: the other replica may have folded, and written it, meanwhile.
  const bounds = await log.bounds(topics.nars.name, partition);
  if (offset > bounds.endOffset) {
    throw new PartitionEnded(`${logEnded(partition)}: it ends at offset ${bounds.endOffset}, ${offset} were folded. ${replacedRemedy}`);
  }
  if (!(await standsThere(log, digest, partition, offset, snapshot.recordDigest, bounds))) {
    throw new PartitionEnded(`${logEnded(partition)}: the record at offset ${offset - 1} is another one. ${replacedRemedy}`);
  }
}

/** Whether the last folded record is in the log byte for byte, or was cut. @throws LogFault */
export async function standsThere(
  log: Log,
  digest: Digest,
  partition: number,
  nextOffset: number,
  recordDigest: Uint8Array,
  bounds: LogBounds,
): Promise<boolean> {
  if (nextOffset <= bounds.startOffset) return true;
  const record = await recordAt(log, topics.nars.name, partition, nextOffset - 1);
  return record !== undefined && sameChain(digest(record.value ?? Buffer.alloc(0)), recordDigest);
}

/**
 * From the committed hint on where the record before it ends with the snapshot's own n and chain, else all of it. Behind an own snapshot the
 * topic is contiguous up to its n: it is written only after they were read back. Behind another's it may not be.
 */
async function readOwnOutputs(
  parts: RestoreParts,
  partition: number,
  folded: Position,
  isOwn: boolean,
): Promise<{ readBack: ReadBack; outputsOffset: number }> {
  const { log, replica, nowMs, standing } = parts;
  const { name: topic } = outputTopic(replica);
  const { startOffset, endOffset } = await log.bounds(topic, partition);
  const hint = isOwn ? await log.committedOffset(groupOf(replica), topic, partition) : -1;
  const isHinted = hint > startOffset && hint <= endOffset && endsWith(await recordAt(log, topic, partition, hint - 1), folded);
  const { n, chain } = folded;
  const position = { n, chain };
  const read = async (tail: Position | null) => {
    const readBack = new ReadBack(partition, tail, position);
    readBack.isRepaired = standing.own?.state === 'repaired';
    for await (const { value } of recordsBetween(log, topic, partition, isHinted ? hint : startOffset, endOffset)) readBack.take(value, nowMs());
    return readBack;
  };
  const readBack = await read(isHinted ? position : startOffset > 0 ? null : noPosition);
  // A topic that was re-created when the other one's head had been cut begins with what that began with.
  const late = readBack.n === 0 && n > 0 ? await lateBeginning(parts, partition) : null;
  return { readBack: late ? await read(late) : readBack, outputsOffset: endOffset };
}

function endsWith(record: { readonly value: Uint8Array | null } | undefined, { n, chain }: Position): boolean {
  const last = record && decodeBlock(record.value)?.outputs.at(-1);
  return last !== undefined && last !== null && last.n === n && sameChain(last.chain, chain);
}

/** They are written, and read back, like the fold's own. */
async function copyOutputs({ log, replica, standing }: RestoreParts, partition: number, snapshot: Position, readBack: ReadBack): Promise<void> {
  const { name: topic } = outputTopic(otherReplica(replica));
  const { startOffset, endOffset } = await log.bounds(topic, partition);
  // Where nothing is left of the own topic, it begins with what the other one, whose head was cut, begins with.
  if (readBack.n === 0 && startOffset > 0) readBack.beginAt((await lowestOf(log, topic, partition)) ?? noPosition);
  for await (const { value } of recordsBetween(log, topic, partition, startOffset, endOffset)) {
    readBack.copy(value, standing.other?.state === 'repaired');
    if (readBack.knownN >= snapshot.n) return;
  }
  throw new PartitionEnded(
    `the snapshot at n ${snapshot.n} of partition ${partition} stands in front of outputs that neither output topic has ` +
      `(${readBack.knownN + 1} and following): restore ${topic} or ${outputTopic(replica).name} from a backup`,
  );
}

/** What the own topic begins behind, where the other one does not begin before it; null where it is to have what the other one has before it. */
async function lateBeginning({ log, replica }: RestoreParts, partition: number): Promise<Position | null> {
  const names = [outputTopic(replica).name, outputTopic(otherReplica(replica)).name] as const;
  const [own, other] = [await lowestOf(log, names[0], partition), await lowestOf(log, names[1], partition)];
  return own && other && own.n > 0 && own.n <= other.n ? own : null;
}

/** What stands before the lowest n in a topic, whose blocks need not stand in the order of their n; null in an empty one. */
async function lowestOf(log: Log, topic: string, partition: number): Promise<Position | null> {
  const { startOffset, endOffset } = await log.bounds(topic, partition);
  let lowest: Position | null = null;
  for await (const { value } of recordsBetween(log, topic, partition, startOffset, endOffset)) {
    const block = decodeBlock(value, partition);
    if (block && block.first_n - 1 < (lowest?.n ?? Number.POSITIVE_INFINITY)) lowest = { n: block.first_n - 1, chain: block.previous_chain };
  }
  return lowest;
}
