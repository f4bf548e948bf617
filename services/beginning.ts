/**
 * With what a log begins (G7): its first base entry names the empty state, or, where the log replaced another one, a snapshot of that (DESIGN 3.8).
 * What lies before it is not folded.
 */
import type { Log, LogRecord } from '../adapters/ports.ts';
import { type Digest, sameChain } from '../core/aggregate/chain.ts';
import { Fold } from '../core/aggregate/fold.ts';
import { noPosition, type Position } from '../core/aggregate/read-back.ts';
import { adminCollector, type Replica, topics } from '../schemas/topics.ts';
import type { Base, SnapshotName } from '../schemas/types.ts';
import { recordsBetween } from './log-records.ts';
import { readSnapshots, type Snapshot } from './snapshots.ts';

export interface FoundBase {
  readonly record: LogRecord;
  readonly base: Base;
}

/** Looks for the first base entry of a partition of nars, going on where it left off: a log without one may be long. */
export class BaseSearch {
  readonly #log: Log;
  readonly #partition: number;
  #topicId = '';
  #nextOffset = 0;
  #found: FoundBase | null = null;

  constructor(log: Log, partition: number) {
    this.#log = log;
    this.#partition = partition;
  }

  /** Tells the base that was found last from any other; '' while there is none. */
  get foundName(): string {
    return this.#found ? `${this.#topicId}/${this.#found.record.offset}` : '';
  }

  /** Null where there is none up to the present end, or where the head, and the base with it, was cut. @throws LogFault, UnknownSchema */
  async find(): Promise<FoundBase | null> {
    const { name } = topics.nars;
    const topicId = await this.#log.topicId(name);
    const { startOffset, endOffset } = await this.#log.bounds(name, this.#partition);
    if (topicId !== this.#topicId || endOffset < this.#nextOffset) {
      this.#topicId = topicId;
      this.#nextOffset = 0;
      this.#found = null;
    }
    if (startOffset > 0) return null;
    const records = recordsBetween(this.#log, name, this.#partition, this.#nextOffset, this.#found ? this.#nextOffset : endOffset);
    for await (const record of records) {
      this.#nextOffset = record.offset + 1;
      // The key tells without decoding.
      const base = record.key?.toString() === adminCollector ? Fold.baseIn(record, this.#partition) : null;
      if (!base) continue;
      this.#found = { record, base };
      break;
    }
    return this.#found;
  }
}

/** The snapshot that a base names is not there; the message names the remedy. */
export class MissingBase extends Error {}

export interface Beginning {
  readonly fold: Fold;
  /** The last output of the former log; n 0 where there was none. */
  readonly position: Position;
  /** Of the value of the base entry; null where nothing is folded yet. */
  readonly recordDigest: Uint8Array | null;
  /** What the base names; null for the empty state, or while there is no base. */
  readonly snapshot: SnapshotName | null;
}

/** @throws MissingBase, LogFault, UnknownSchema, UnknownFoldVersion */
export async function beginningOf(log: Log, digest: Digest, partition: number, search: BaseSearch): Promise<Beginning> {
  const found = await search.find();
  const name = found?.base.snapshot;
  if (!found || !name) return { fold: new Fold(partition, digest), position: noPosition, recordDigest: null, snapshot: null };
  const snapshot = await namedSnapshot(log, digest, partition, name);
  const { record } = found;
  const position = { n: snapshot.n, chain: snapshot.chain };
  return { fold: Fold.onBase(record, snapshot.state, digest), position, recordDigest: digest(record.value ?? Buffer.alloc(0)), snapshot: name };
}

/** It may stand in either topic: both replicas write the same bytes. */
async function namedSnapshot(log: Log, digest: Digest, partition: number, name: SnapshotName): Promise<Snapshot> {
  const { topic_id, offset, n, chain } = name;
  for (const replica of name.replica === 'b' ? (['b', 'a'] as const) : (['a', 'b'] as const)) {
    const { whole } = await readSnapshots(log, digest, replica as Replica, partition, topic_id, offset);
    const found = whole.find((snapshot) => snapshot.offset === offset && snapshot.n === n && sameChain(snapshot.chain, chain));
    if (found) return found;
  }
  throw new MissingBase(
    `the base of nars/${partition} names the snapshot at offset ${offset} of the former log (topic id ${topic_id}), which stands whole in neither ` +
      'snapshots.a nor snapshots.b: restore these topics from a backup',
  );
}
