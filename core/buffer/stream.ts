/**
 * What one incarnation keeps of one partition: a run of batches in the order of their sequences, and how far they got.
 *
 *   trimmed      sent                    unsent
 *   ............ [first ........] [next .......... last]
 *
 * `next` falls below `first` when a replica says that it misses what was trimmed; a tombstone then stands for it (F3).
 */
import type { Replica } from '../../schemas/topics.ts';

/**
 * store: the batch is in the store. memory: only in this process. released: only its totals are left, where the batch was.
 * gone: the store had it and has it no more.
 */
export type Place = 'store' | 'memory' | 'released' | 'gone';

export interface Kept {
  readonly sequence: number;
  readonly nars: number;
  /** Bytes of the batch and of its totals, with what the store needs around them. */
  readonly size: number;
  readonly totalsSize: number;
  readonly watermarkMs: number;
  /** NARs of the stream up to this batch and with it, since the stream was taken up. */
  readonly narsThrough: number;
  place: Place;
  /** A replica that folded up to this offset has met the batch, if the log holds it. Of no meaning while the batch is unsent. */
  past: number;
  sentMs: number;
  value: Uint8Array | null;
  totals: Uint8Array | null;
  /** The broker will never take it: its tombstone goes instead. */
  refused: boolean;
}

export interface StreamOptions {
  readonly incarnation: string;
  readonly partition: number;
  readonly last: number;
  /** Its batches say so: they live in memory only. */
  readonly volatile: boolean;
  /** The store has a stream of this name. */
  readonly inStore: boolean;
  /** The process itself adds to it. */
  readonly own: boolean;
}

export class Stream {
  readonly incarnation: string;
  readonly partition: number;
  readonly volatile: boolean;
  own: boolean;
  inStore: boolean;
  /** The store's stream ends where this one does, so that it can be continued there. */
  intact = true;
  closed = false;
  last: number;
  next: number;
  /** As `Kept.past`, for everything that was trimmed. */
  trimmedPast = 0;
  /** Found in the store, and it is not known yet where the log ended then (the restart rule): nothing is sent, nothing is missing. */
  awaitsLogEnd = false;
  /** The store has trimmed up to here. */
  trimmedInStore = 0;
  /** What Kafka confirmed has been noted in the store up to here. */
  notedThrough = 0;
  /** Changes when the sent become unsent, so that a late answer of Kafka does not undo it. */
  generation = 0;
  changedMs = 0;
  readonly acknowledged: Record<Replica, number> = { a: 0, b: 0 };
  #kept: Kept[] = [];
  #narsTrimmed = 0;

  constructor(options: StreamOptions) {
    this.incarnation = options.incarnation;
    this.partition = options.partition;
    this.volatile = options.volatile;
    this.inStore = options.inStore;
    this.own = options.own;
    this.last = options.last;
    this.next = options.last + 1;
  }

  get first(): number {
    return this.#kept[0]?.sequence ?? this.last + 1;
  }

  get isEmpty(): boolean {
    return this.#kept.length === 0;
  }

  get batches(): readonly Kept[] {
    return this.#kept;
  }

  get narsThrough(): number {
    return this.#kept[this.#kept.length - 1]?.narsThrough ?? this.#narsTrimmed;
  }

  at(sequence: number): Kept | undefined {
    return this.#kept[sequence - this.first];
  }

  /** What both replicas have. */
  get settled(): number {
    return Math.min(this.acknowledged.a, this.acknowledged.b, this.last);
  }

  add(kept: Kept): void {
    if (kept.sequence !== this.last + 1)
      throw new Error(`batch ${kept.sequence} of ${this.incarnation}/${this.partition} does not follow ${this.last}`);
    this.#kept.push(kept);
    this.last = kept.sequence;
  }

  /** NARs above a sequence that are kept. */
  narsAfter(sequence: number): number {
    if (sequence < this.first) return this.narsThrough - this.#narsTrimmed;
    return this.narsThrough - (this.at(sequence)?.narsThrough ?? this.narsThrough);
  }

  /** I2: drops what both replicas have, and nothing else. */
  trim(): readonly Kept[] {
    const count = Math.max(0, this.settled - this.first + 1);
    if (count === 0) return [];
    const trimmed = this.#kept.splice(0, count);
    for (const kept of trimmed) {
      if (kept.sequence < this.next && kept.past > this.trimmedPast) this.trimmedPast = kept.past;
      this.#narsTrimmed = kept.narsThrough;
    }
    // Acknowledged without being known as sent: another process sent it. Its place in the log is unknown and below what the replicas folded.
    this.next = Math.max(this.next, this.settled + 1);
    return trimmed;
  }

  /**
   * I14: the go-back-N rule for one replica's latest Ack: what it folded past and did not accept is missing, and all after it goes again.
   * An unsent batch is never missing, so while a re-send is unconfirmed there is no second one; lag alone proves nothing (F4).
   */
  judge(accepted: number, foldedOffset: number): boolean {
    const missing = accepted + 1;
    if (this.awaitsLogEnd || missing > this.last || missing >= this.next) return false;
    const past = missing < this.first ? this.trimmedPast : this.at(missing)?.past;
    if (past === undefined || foldedOffset < past) return false;
    this.unsend(missing);
    return true;
  }

  /** Everything from a sequence on counts as unsent. */
  unsend(sequence: number): void {
    this.next = Math.min(this.next, sequence);
    this.generation++;
  }

  /** Kafka confirmed `from`..`through`; each sequence's batch, or the one that stands for it, lies below `pastOf(sequence)`. */
  sent(from: number, through: number, pastOf: (sequence: number) => number, nowMs: number): void {
    if (from < this.first) this.trimmedPast = Math.max(this.trimmedPast, pastOf(from));
    for (let sequence = Math.max(from, this.first); sequence <= through; sequence++) {
      const kept = this.at(sequence);
      if (!kept) continue;
      kept.past = pastOf(sequence);
      kept.sentMs = nowMs;
    }
    this.next = Math.max(this.next, through + 1);
  }
}
