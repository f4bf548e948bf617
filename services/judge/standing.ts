/** The snapshots of one replica and partition as they stand in its topic, read on from where the topic was read to before. */
import type { RunningDigest } from '../../adapters/digest.ts';
import type { Log } from '../../adapters/ports.ts';
import { chainText } from '../../core/aggregate/chain.ts';
import { type StandingSnapshot, StandingSnapshots } from '../../core/judge/agreement.ts';
import { type Replica, snapshotTopic } from '../../schemas/topics.ts';
import { recordsBetween } from '../log-records.ts';
import { chunkName, decodeChunk } from '../snapshots.ts';

export class StandingLog {
  readonly #log: Log;
  readonly #topic: string;
  readonly #partition: number;
  readonly #runningDigest: () => RunningDigest;
  #snapshots = new StandingSnapshots();
  #id = '';
  #nextOffset = 0;

  constructor(log: Log, replica: Replica, partition: number, runningDigest: () => RunningDigest) {
    this.#log = log;
    this.#topic = snapshotTopic(replica).name;
    this.#partition = partition;
    this.#runningDigest = runningDigest;
  }

  /** As of the last refresh. */
  get snapshots(): StandingSnapshots {
    return this.#snapshots;
  }

  /** Reads up to the present end. @throws LogFault, UnknownSchema */
  async refresh(): Promise<void> {
    const id = await this.#log.topicId(this.#topic);
    const { startOffset, endOffset } = await this.#log.bounds(this.#topic, this.#partition);
    if (id !== this.#id || this.#nextOffset > endOffset) {
      this.#id = id;
      this.#nextOffset = 0;
      this.#snapshots = new StandingSnapshots();
    }
    for await (const record of recordsBetween(this.#log, this.#topic, this.#partition, Math.max(startOffset, this.#nextOffset), endOffset)) {
      const name = chunkName(record);
      if (name) this.#snapshots.take(name.snapshot, name.chunk, decodeChunk(record.value), record.offset);
      this.#nextOffset = record.offset + 1;
    }
    this.#nextOffset = endOffset;
  }

  /** Whether the state has the digest that its chunks name, read once more, a chunk at a time. @throws LogFault, UnknownSchema */
  async isTrue(snapshot: StandingSnapshot): Promise<boolean> {
    const digest = this.#runningDigest();
    let taken = 0;
    for (const { from, to } of ascendingRuns(snapshot.places)) {
      for await (const record of recordsBetween(this.#log, this.#topic, this.#partition, from, to + 1)) {
        const chunk = record.offset === snapshot.places[taken] ? decodeChunk(record.value) : null;
        if (!chunk) continue;
        digest.add(chunk.bytes);
        taken++;
      }
    }
    return taken === snapshot.places.length && chainText(digest.end()) === snapshot.digest;
  }
}

/** Chunks that were written in one go are read in one go. */
function* ascendingRuns(places: readonly number[]): Generator<{ from: number; to: number }> {
  for (let first = 0; first < places.length; ) {
    let last = first;
    while ((places[last + 1] ?? -1) > (places[last] as number)) last++;
    yield { from: places[first] as number, to: places[last] as number };
    first = last + 1;
  }
}
