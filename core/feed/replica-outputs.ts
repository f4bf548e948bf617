/**
 * The outputs of one replica for one partition, as its topic yields them: taken in order of n, each n once, each checked against its chain.
 *
 * R1. (I4) n = last + 1 is taken, n <= last was taken before (a restart or a zombie wrote it again) and is only compared.
 * R2. A block beyond last + 1 waits: what is missing was swallowed on the way and is written again later in the topic.
 * R3. What is kept is bounded. Where the bound is met, reading stops and later goes on at the first block that was not taken.
 * R4. (I15) A quarantined replica is not read at all. In the topic of one that was repaired a process that does not know of it yet may still write
 *     the wrong history: behind the clean beginning that is either of an n taken before, or does not continue what was taken; it is dropped.
 */
import type { Replica } from '../../schemas/topics.ts';
import type { Output, OutputBlock } from '../../schemas/types.ts';
import { chainOf, type Digest, sameChain } from '../aggregate/chain.ts';
import type { Comparison } from './comparison.ts';
import type { Tail } from './tail.ts';

export interface FeedItem {
  readonly output: Output;
  /** chain of n - 1. */
  readonly previousChain: Uint8Array;
  readonly arrivedMs: number;
}

/**
 * invalid: its content does not give its chain, or it is of another partition, or not contiguous; as good as missing.
 * foreign: of the history that the replica told before it was repaired.
 */
export type Taken = 'taken' | 'waits' | 'paused' | 'invalid' | 'foreign';

/** How its topic is read. */
type Reading =
  /** Where to read from is not settled yet; fromStart: no noted position will do. */
  | { readonly name: 'unplaced'; readonly fromStart: boolean }
  /** Read from a noted position or from the start of the log; endOffset is the log's end at that time. */
  | { readonly name: 'reading'; readonly fromStart: boolean; readonly endOffset: number }
  /** In quarantine. */
  | { readonly name: 'barred' }
  /** Enough is kept. */
  | { readonly name: 'paused'; readonly resumeOffset: number; readonly endOffset: number };

interface Taking {
  readonly offset: number;
  readonly tail: Tail;
  readonly nowMs: number;
}

export class ReplicaOutputs {
  readonly replica: Replica;
  readonly #partition: number;
  readonly #digest: Digest;
  readonly #comparison: Comparison;
  readonly #keptMax: number;
  #reading: Reading = { name: 'unplaced', fromStart: false };
  #caughtUp = false;
  /** The last output taken; null before the first block. */
  #last: { n: number; chain: Uint8Array } | null = null;
  /** From #head on contiguous, ending with the last output taken; what lies before it was dropped. */
  #items: FeedItem[] = [];
  #head = 0;
  /** Blocks that begin beyond last + 1. */
  #waiting: { block: OutputBlock; offset: number }[] = [];
  #waitingOutputs = 0;
  /** Of the first block that found no room among the waiting. */
  #droppedOffset: number | null = null;
  /** First n and offset of the blocks taken, ascending. */
  #blocks: { firstN: number; offset: number }[] = [];
  /** R4. */
  #isRepaired = false;
  invalid = 0;
  repeated = 0;
  foreign = 0;

  constructor(replica: Replica, partition: number, digest: Digest, comparison: Comparison, keptMax: number) {
    this.replica = replica;
    this.#partition = partition;
    this.#digest = digest;
    this.#comparison = comparison;
    this.#keptMax = keptMax;
  }

  /** n of the last output taken; null before the first block. */
  get lastN(): number | null {
    return this.#last?.n ?? null;
  }

  /** All that was in its topic when reading began has been seen. */
  get caughtUp(): boolean {
    return this.#caughtUp;
  }

  get unplaced(): boolean {
    return this.#reading.name === 'unplaced';
  }

  /** Asks to be placed at the log's start when it is unplaced: no noted position will do. */
  get fromStart(): boolean {
    return this.#reading.name === 'unplaced' && this.#reading.fromStart;
  }

  /** Reading has begun at a position; endOffset is the log's end at that time. */
  placed(fromStart: boolean, endOffset: number): void {
    this.#reading = { name: 'reading', fromStart, endOffset };
  }

  /** In quarantine: not read, not compared, not waited for. */
  get barred(): boolean {
    return this.#reading.name === 'barred';
  }

  bar(): void {
    this.#clear();
    this.#reading = { name: 'barred' };
  }

  /** It was repaired: its topic is read anew, from the clean beginning that it has now. */
  readmit(): void {
    this.#clear();
    this.#reading = { name: 'unplaced', fromStart: true };
    this.#isRepaired = true;
  }

  /** Everything is to be read again. */
  displace(fromStart: boolean): void {
    if (this.barred) return;
    this.#clear();
    this.#reading = { name: 'unplaced', fromStart };
  }

  #clear(): void {
    this.#caughtUp = false;
    this.#last = null;
    this.#items = [];
    this.#head = 0;
    this.#waiting = [];
    this.#waitingOutputs = 0;
    this.#droppedOffset = null;
    this.#blocks = [];
  }

  /** The reader's position after what it gave. */
  readTo(nextOffset: number): void {
    if (this.#reading.name === 'reading' && nextOffset >= this.#reading.endOffset) this.#caughtUp = true;
  }

  /** Where to read on, once there is room again; null while there is none, or no need. */
  resume(): number | null {
    if (this.#reading.name !== 'paused' || 2 * this.#kept > this.#keptMax) return null;
    const { resumeOffset, endOffset } = this.#reading;
    this.#reading = { name: 'reading', fromStart: true, endOffset };
    return resumeOffset;
  }

  get paused(): boolean {
    return this.#reading.name === 'paused';
  }

  take(block: OutputBlock, { offset, tail, nowMs }: Taking): Taken {
    const reading = this.#reading;
    if (reading.name !== 'reading') return 'paused';
    if (!this.#wellFormed(block)) {
      this.invalid++;
      return 'invalid';
    }
    if (this.#kept >= this.#keptMax) {
      this.#reading = { name: 'paused', resumeOffset: offset, endOffset: reading.endOffset };
      return 'paused';
    }
    if (!this.#last && block.first_n <= tail.n + 1) this.#last = { n: block.first_n - 1, chain: block.previous_chain };
    if (!this.#last || block.first_n > this.#last.n + 1) return this.#wait(block, offset);
    const before = this.#last.n;
    const taken = this.#takeInOrder(block, { offset, tail, nowMs });
    if (this.#last.n > before) this.#takeWaiting(tail, nowMs, reading.endOffset);
    return taken;
  }

  /** The output of that n; undefined where it was not taken yet, or was dropped. */
  item(n: number): FeedItem | undefined {
    const first = this.#items[this.#head]?.output.n;
    return first === undefined || n < first ? undefined : this.#items[this.#head + n - first];
  }

  /** The first n that its topic has, where all of it was read and it begins beyond what comes next; null elsewhere. */
  get beginsAt(): number | null {
    const isWhole = this.#reading.name === 'reading' && this.#reading.fromStart && this.#caughtUp;
    if (!isWhole || this.#last || this.#waiting.length === 0) return null;
    return Math.min(...this.#waiting.map(({ block }) => block.first_n));
  }

  /** All up to n are in aggregates and are not needed any more. */
  drop(n: number): void {
    const first = this.#items[this.#head]?.output.n;
    if (first === undefined || n < first) return;
    this.#head = Math.min(this.#items.length, this.#head + n - first + 1);
    // Moving the rest down at every output would cost the square of what is kept.
    if (2 * this.#head < this.#items.length) return;
    this.#items.splice(0, this.#head);
    this.#head = 0;
  }

  /** Whether n + 1 is kept or still to come; else it was dropped too early, and everything must be read again. */
  continues(n: number): boolean {
    return this.#last === null || n >= this.#last.n || this.item(n + 1) !== undefined;
  }

  /** Offset of the block that holds n, for a later start; null where it is not known. Forgets older blocks. */
  noteAt(n: number): number | null {
    const index = this.#blocks.findLastIndex(({ firstN }) => firstN <= n);
    if (index < 0) return null;
    this.#blocks.splice(0, index);
    return this.#blocks[0]?.offset ?? null;
  }

  /**
   * The offset from which on n, and whatever was read behind it, can be read; null where it is not known. Blocks need not stand in the order of
   * their n: one that was swallowed is written again behind those that follow it.
   */
  keepFrom(n: number): number | null {
    const index = this.#blocks.findLastIndex(({ firstN }) => firstN <= n);
    if (index < 0 || n > (this.#last?.n ?? 0)) return null;
    let offset = this.#droppedOffset ?? Number.POSITIVE_INFINITY;
    if (this.#reading.name === 'paused') offset = Math.min(offset, this.#reading.resumeOffset);
    for (const one of this.#waiting) offset = Math.min(offset, one.offset);
    for (const one of this.#blocks.slice(index)) offset = Math.min(offset, one.offset);
    return offset;
  }

  get #kept(): number {
    return this.#items.length - this.#head;
  }

  #wellFormed({ partition, first_n, outputs }: OutputBlock): boolean {
    return (
      partition === this.#partition && outputs.length > 0 && outputs.every((output, i) => output.n === first_n + i && output.partition === partition)
    );
  }

  #wait(block: OutputBlock, offset: number): Taken {
    if (!this.#last && this.#reading.name === 'reading' && !this.#reading.fromStart) {
      this.displace(true); // the noted position was too late
      return 'paused';
    }
    if (this.#waiting.some((one) => one.block.first_n === block.first_n)) return 'waits';
    if (this.#waitingOutputs + block.outputs.length > this.#keptMax) this.#droppedOffset ??= offset;
    else {
      this.#waiting.push({ block, offset });
      this.#waitingOutputs += block.outputs.length;
    }
    return 'waits';
  }

  #takeWaiting(tail: Tail, nowMs: number, endOffset: number): void {
    for (;;) {
      const index = this.#waiting.findIndex(({ block }) => block.first_n <= (this.#last?.n ?? 0) + 1);
      const [next] = index < 0 ? [] : this.#waiting.splice(index, 1);
      if (!next) break;
      this.#waitingOutputs -= next.block.outputs.length;
      this.#takeInOrder(next.block, { offset: next.offset, tail, nowMs });
    }
    if (this.#droppedOffset === null) return;
    this.#reading = { name: 'paused', resumeOffset: this.#droppedOffset, endOffset };
    this.#droppedOffset = null;
  }

  #takeInOrder(block: OutputBlock, { offset, tail, nowMs }: Taking): Taken {
    if (!this.#isRepaired) this.#comparison.note(this.replica, block.first_n - 1, block.previous_chain);
    let took = false;
    for (const output of block.outputs) {
      const last = this.#last!;
      if (output.n <= last.n) {
        if (!this.#isRepaired) this.#comparison.note(this.replica, output.n, output.chain);
        this.repeated++;
        continue;
      }
      if (!sameChain(chainOf(output, last.chain, this.#digest).chain, output.chain)) {
        // R4. Of its own history it may well be the next.
        if (this.#isRepaired) this.foreign++;
        else this.invalid++;
        return this.#isRepaired ? 'foreign' : 'invalid';
      }
      this.#comparison.note(this.replica, output.n, output.chain);
      if (output.n > tail.n) this.#items.push({ output, previousChain: last.chain, arrivedMs: nowMs });
      this.#last = { n: output.n, chain: output.chain };
      took = true;
    }
    if (took) this.#blocks.push({ firstN: block.first_n, offset });
    return 'taken';
  }
}
