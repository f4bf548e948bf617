/**
 * A replica in quarantine repairs itself (DESIGN 3.5). It begins anew with the newest snapshot that the other one holds alike, so that nothing of
 * what went wrong is in it, and folds the log from there: then what it writes is compared with the other's as before, where a copy of the other's
 * state would only ever agree with it. Without such a snapshot it begins with the empty state, where the log is whole, else with the sound
 * replica's newest snapshot.
 *
 * I15. In this order, any part of which may be done again after a crash, since the verdict stands until the last one:
 * own snapshots that are not held alike are deleted; the outputs up to the snapshot are written again behind the wrong ones, byte for byte, so that
 * the topic holds what it held (F7, G2); the fold's outputs follow, up to the first that was wrong and beyond it; all of that is read back; the
 * head of the topic is cut in front of it, so that no reader meets the wrong history; and only then the verdict says that it is repaired.
 */
import { type Clock, type Log, LogFault, type LogMessage, type LogWriter } from '../../adapters/ports.ts';
import { sameChain } from '../../core/aggregate/chain.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import { decodeBlock } from '../../core/aggregate/output-block.ts';
import { NotDeterministic, noPosition, type Position, ReadBack } from '../../core/aggregate/read-back.ts';
import { keyOf } from '../../core/judge/verdicts.ts';
import { verdictCodec } from '../../schemas/codec.ts';
import { messageBytesMax, otherReplica, outputTopic, type Replica, topics } from '../../schemas/topics.ts';
import type { OutputBlock, Verdict } from '../../schemas/types.ts';
import { AgreementLog } from '../agreement-log.ts';
import { beginningOf } from '../beginning.ts';
import { recordsBetween } from '../log-records.ts';
import { deleteSnapshots, readSnapshots, type Snapshot, type SnapshotMark } from '../snapshots.ts';
import { PartitionEnded, type Restored, type RestoreParts, requireContinuation } from './restore.ts';

export interface Repair extends Restored {
  /** In the own output topic, of the first record that was written again; -1 while there is none. */
  readonly begins: number;
}

/** Copies are written as often as they are not read back. */
const copyRoundsMax = 5;

/** @throws PartitionEnded, NotDeterministic, UnknownSchema, UnknownFoldVersion; LogFault, after which it is to be tried again */
export async function repair(parts: RestoreParts, writer: LogWriter, partition: number, verdict: Verdict): Promise<Repair> {
  const { log, digest, replica } = parts;
  const topicId = await log.topicId(topics.nars.name);
  const agreements = new AgreementLog(log);
  await agreements.refresh();
  const agreed = agreements.of(partition, topicId);
  const own = await readSnapshots(log, digest, replica, partition, topicId, agreed?.offset);
  const others = await readSnapshots(log, digest, otherReplica(replica), partition, topicId, agreed?.offset);
  const isAgreed = ({ offset, state }: Snapshot) => agreed !== null && offset === agreed.offset && sameChain(digest(state), agreed.digest);
  const alike = own.whole.filter((snapshot) => isAgreed(snapshot) || others.whole.some((other) => isSame(snapshot, other)));
  // Of so many that they were not all read, the agreed one is not wrong for that.
  const isUnread = (offset: number) => offset === agreed?.offset && !own.whole.some((snapshot) => snapshot.offset === offset);
  const isWrong = ({ topicId: id, offset }: SnapshotMark) => id === topicId && !alike.some((one) => one.offset === offset) && !isUnread(offset);
  const wrong = [...own.marks].filter(([, mark]) => isWrong(mark)).map(([name]) => name);
  await deleteSnapshots(writer, replica, partition, own.marks, wrong);
  const { startOffset } = await log.bounds(topics.nars.name, partition);
  const snapshot = choose(alike, verdict.sound === '' ? [] : others.whole, startOffset);
  if (!snapshot && startOffset > 0) {
    throw new PartitionEnded(
      `no snapshot is held alike by both replicas, and nars/${partition} begins at offset ${startOffset}: ` +
        'restore the topics snapshots.a and snapshots.b, or the records of nars, from a backup',
    );
  }
  if (snapshot) await requireContinuation(log, digest, snapshot);
  const beginning = snapshot ? null : await beginningOf(log, digest, partition, parts.bases);
  const fold = beginning?.fold ?? Fold.restore((snapshot as Snapshot).state, digest);
  const position = snapshot ?? beginning?.position ?? noPosition;
  const isOwn = snapshot !== null && alike.includes(snapshot);
  const copied = await copyUpTo(parts, writer, partition, position, isOwn || beginning !== null);
  return {
    ...copied,
    fold,
    readBack: new ReadBack(partition, position, position),
    topicId,
    recordDigest: snapshot?.recordDigest ?? beginning?.recordDigest ?? null,
    snapshotOffset: isOwn ? snapshot.offset : 0,
    marks: own.marks,
    origin: snapshot ? `${isOwn ? 'the snapshot that both hold' : "the other's snapshot"} at offset ${snapshot.offset}` : "the log's beginning",
  };
}

function isSame(one: Snapshot, other: Snapshot): boolean {
  return one.offset === other.offset && sameChain(one.state, other.state);
}

function choose(alike: readonly Snapshot[], others: readonly Snapshot[], startOffset: number): Snapshot | null {
  const isUsable = (snapshot: Snapshot) => snapshot.offset >= startOffset;
  const agreed = alike.find(isUsable);
  if (agreed || startOffset === 0) return agreed ?? null;
  return others.find(isUsable) ?? null;
}

type CopyParts = Pick<RestoreParts, 'log' | 'replica'>;

interface Copied {
  readonly begins: number;
  readonly outputsOffset: number;
}

/**
 * The outputs up to the position, written again at the end of the own topic, in bounded pieces, and read back. They come from the own topic where
 * the snapshot is its own: up to there it is right, whatever follows; else from the other's.
 * @throws LogFault, NotDeterministic where something else was written in between
 */
async function copyUpTo(parts: CopyParts, writer: LogWriter, partition: number, position: Position, isOwn: boolean): Promise<Copied> {
  const { log, replica } = parts;
  const { name: target } = outputTopic(replica);
  const from = (await log.bounds(target, partition)).endOffset;
  if (position.n === 0) return { begins: -1, outputsOffset: from };
  const source = await findSource(parts, partition, position, isOwn ? [replica, otherReplica(replica)] : [otherReplica(replica)]);
  if (!source) return { begins: -1, outputsOffset: from };
  for (let round = 0; round < copyRoundsMax; round++) {
    const seen = await readCopies(log, target, partition, from, source.before, position);
    if (seen.last.n === position.n) return { begins: seen.begins, outputsOffset: seen.endOffset };
    await writeCopies(parts, writer, partition, source, seen.last, position);
  }
  throw new LogFault('unknown', `the outputs up to n ${position.n} are not read back from ${target}/${partition}`);
}

interface Source {
  readonly replica: Replica;
  /** What its topic begins behind. */
  readonly before: Position;
  readonly endOffset: number;
}

/** A topic in which the outputs, in order, end with the position; null where what is left of all begins behind it. */
async function findSource({ log }: CopyParts, partition: number, position: Position, candidates: readonly Replica[]): Promise<Source | null> {
  let areAllCut = true;
  for (const replica of candidates) {
    const { name } = outputTopic(replica);
    const { startOffset, endOffset } = await log.bounds(name, partition);
    let before: Position | null = null;
    let last: Position | null = null;
    for await (const { value } of recordsBetween(log, name, partition, startOffset, endOffset)) {
      const block = decodeBlock(value, partition);
      if (!block) continue;
      before ??= { n: block.first_n - 1, chain: block.previous_chain };
      last ??= before;
      if (last.n < position.n) last = continued(block, last) ?? last;
      if (last.n >= position.n) break;
    }
    if (before && last?.n === position.n && sameChain(last.chain, position.chain)) return { replica, before, endOffset };
    if (!before || before.n < position.n) areAllCut = false;
  }
  if (areAllCut) return null;
  throw new LogFault('unavailable', `the outputs up to n ${position.n} of partition ${partition} stand in neither output topic`);
}

/** The last output of a block that continues what is there; null for any other block. */
function continued({ first_n, previous_chain, outputs }: OutputBlock, last: Position): Position | null {
  const end = outputs.at(-1);
  if (!end || end.n <= last.n || first_n > last.n + 1) return null;
  const before = outputs[last.n - first_n]?.chain ?? previous_chain;
  return sameChain(before, last.chain) ? { n: end.n, chain: end.chain } : null;
}

async function writeCopies(
  { log, replica }: CopyParts,
  writer: LogWriter,
  partition: number,
  source: Source,
  behind: Position,
  to: Position,
): Promise<void> {
  const { name: target } = outputTopic(replica);
  const { name } = outputTopic(source.replica);
  const { startOffset } = await log.bounds(name, partition);
  const key = Buffer.from(String(partition));
  let last = source.before;
  let messages: LogMessage[] = [];
  let bytes = 0;
  const flush = async () => {
    if (messages.length > 0) await writer.append(target, partition, messages);
    messages = [];
    bytes = 0;
  };
  for await (const { value } of recordsBetween(log, name, partition, startOffset, source.endOffset)) {
    if (last.n >= to.n) break;
    const block = decodeBlock(value, partition);
    const next = block && continued(block, last);
    if (!value || !next) continue;
    last = next;
    if (last.n <= behind.n) continue;
    if (bytes + value.length > messageBytesMax) await flush();
    messages.push({ key, value });
    bytes += value.length;
  }
  await flush();
}

/** How far the copies stand in the own topic, behind what was there before. @throws NotDeterministic for anything else between them */
async function readCopies(
  log: Log,
  topic: string,
  partition: number,
  from: number,
  before: Position,
  to: Position,
): Promise<{ last: Position; begins: number; endOffset: number }> {
  const { endOffset } = await log.bounds(topic, partition);
  let last = before;
  let begins = -1;
  let nextOffset = from;
  for await (const { offset, value } of recordsBetween(log, topic, partition, from, endOffset)) {
    const block = decodeBlock(value, partition);
    const next = block && continued(block, last);
    nextOffset = offset + 1;
    if (!next) {
      // Behind what is repaired here, yet before what the fold will write: a reader could take it for the next.
      if ((block?.outputs.at(-1)?.n ?? 0) > to.n) throw inBetween(partition, to.n);
      continue;
    }
    if (begins < 0) begins = offset;
    last = next;
    if (last.n < to.n) continue;
    if (last.n === to.n && sameChain(last.chain, to.chain)) return { last, begins, endOffset: nextOffset };
    throw inBetween(partition, to.n);
  }
  return { last, begins, endOffset: nextOffset };
}

function inBetween(partition: number, n: number): NotDeterministic {
  return new NotDeterministic(`something else was written while the outputs of partition ${partition} up to ${n} were repaired`);
}

interface EndParts {
  readonly log: Log;
  readonly replica: Replica;
  readonly nowMs: number;
}

/** The clean history stands in the topic and is read back: what lies before it is cut off, and the verdict says so. @throws LogFault */
export async function endRepair({ log, replica, nowMs }: EndParts, writer: LogWriter, verdict: Verdict, begins: number): Promise<void> {
  const { partition, epoch, n } = verdict;
  const { name } = outputTopic(replica);
  await log.deleteRecords(name, partition, begins);
  const { startOffset } = await log.bounds(name, partition);
  if (startOffset < begins) throw new LogFault('unknown', `the head of ${name}/${partition} is not cut yet`);
  const evidence = `its outputs are folded anew up to n ${n} and beyond, and stand in ${name} from offset ${begins} on`;
  const repaired: Verdict = { ...verdict, epoch: epoch + 1, state: 'repaired', begins: startOffset, evidence, author: replica, at_ms: nowMs };
  await writer.append(topics.verdicts.name, 0, [{ key: Buffer.from(keyOf(partition, replica)), value: verdictCodec.encode(repaired) }]);
}

/**
 * An output topic that goes on beyond a position, with what will not be folded again: it is made to end there. What lies before is written again
 * behind it, and then all that was there is cut off, so that it holds at every moment what it held (G2); then the verdict, which is that of a
 * repaired replica, has every reader of the topic begin anew.
 * @throws LogFault, after which it is to be done again; NotDeterministic
 */
export async function resetOutputs(
  parts: CopyParts & { readonly clock: Clock },
  writer: LogWriter,
  position: Position,
  verdict: Verdict,
): Promise<void> {
  const { log, replica, clock } = parts;
  const { partition } = verdict;
  const copied = await copyUpTo(parts, writer, partition, position, true);
  const begins = copied.begins >= 0 ? copied.begins : copied.outputsOffset;
  const { name } = outputTopic(replica);
  await log.deleteRecords(name, partition, begins);
  const value = verdictCodec.encode({ ...verdict, begins, at_ms: clock.now() });
  await writer.append(topics.verdicts.name, 0, [{ key: Buffer.from(keyOf(partition, replica)), value }]);
}
