/**
 * What of a replica's outputs stands in its own output topic, contiguous in n, as a reader of that topic finds it; and what has to be written.
 * A client's "written" is no proof (F6): a block is kept until it was read back, and written again from the first n that is missing.
 *
 * R1. The tail only moves from n to n + 1, and only to an output with the chain that the fold gave to this n.
 * R2. A record of an n up to the tail is dropped: a zombie, a retry or a late write can only repeat what stands there.
 * R4. What stands beyond the tail, since something before it is missing, must be the fold's, too: a reader may take it once that has come.
 * R3. (I15) Once this replica was repaired, a process of it that does not know that yet may still write what it wrote before. Such a record
 *     contradicts the tail, or does not continue it; it is dropped, where it else would show that two folds differ.
 */
import { outputBlockCodec, UndecodableRecord } from '../../schemas/codec.ts';
import type { OutputBlock } from '../../schemas/types.ts';
import { chainText, emptyChain, sameChain } from './chain.ts';

/** n and chain of an output; n 0 stands before the first. */
export interface Position {
  readonly n: number;
  readonly chain: Uint8Array;
}

export const noPosition: Position = { n: 0, chain: emptyChain };

export interface Unread {
  readonly firstN: number;
  readonly lastN: number;
  /** Of the outputs from firstN on. */
  readonly chains: readonly Uint8Array[];
  /** The encoded block. */
  readonly bytes: Buffer;
}

/** This replica's history differs from what stands in its own output topic: it must not write on, nor acknowledge. */
export class NotDeterministic extends Error {}

export class ReadBack {
  /** Records of the topic that no schema can decode. */
  undecodable = 0;
  /** R3: records that were dropped. */
  foreign = 0;
  /** R3. */
  isRepaired = false;
  readonly #partition: number;
  #tail: Position | null;
  /** The last output that the fold has computed, or that its snapshot stands behind. */
  #folded: Position;
  /** Chains of outputs that stand in the topic and that the fold has not computed yet, by n. */
  readonly #ahead = new Map<number, Uint8Array>();
  #unread: Unread[] = [];
  #unreadBytes = 0;
  /** The highest n that was handed out to be written. */
  #sentN = 0;
  /** Where the reader must come to before what was sent can be called missing; null where nobody knows. */
  #sentEndOffset: number | null = null;
  #movedMs = 0;

  /** tail null: the head of the topic was cut, and whatever stands first there is the beginning. */
  constructor(partition: number, tail: Position | null, folded: Position) {
    this.#partition = partition;
    this.#tail = tail;
    this.#folded = folded;
  }

  /** The highest n up to which the topic is contiguous. */
  get n(): number {
    return this.#tail?.n ?? 0;
  }

  get chain(): Uint8Array {
    return this.#tail?.chain ?? emptyChain;
  }

  /** Of the blocks that were not read back yet. */
  get unreadBytes(): number {
    return this.#unreadBytes;
  }

  /** All that the fold has given is readable. */
  get isComplete(): boolean {
    return this.n >= this.#folded.n;
  }

  /** Takes a record of the own output topic. @throws NotDeterministic, UnknownSchema */
  take(value: Uint8Array | null, nowMs: number): void {
    const head = this.#unread[0];
    // What comes back is nearly always what was sent next, so comparing the bytes saves decoding them.
    if (value && head && head.firstN === this.n + 1 && head.bytes.equals(value)) {
      this.#advance({ n: head.lastN, chain: head.chains.at(-1) as Uint8Array }, nowMs);
      return;
    }
    const block = this.#decode(value);
    if (!block) return;
    this.#tail ??= { n: block.first_n - 1, chain: block.previous_chain };
    if (!this.#isContinued(block)) return;
    for (const { n, chain } of block.outputs) {
      if (n <= this.n) continue; // R2
      if (n === this.n + 1) {
        this.#expect(n, chain); // R1
        this.#advance({ n, chain }, nowMs);
      } else if (!this.isRepaired) {
        this.#expect(n, chain); // R4
      }
    }
  }

  /** What the block says of the tail's n is what stands there. @throws NotDeterministic where that says that two folds differ */
  #isContinued({ first_n, previous_chain, outputs }: OutputBlock): boolean {
    const said = first_n === this.n + 1 ? previous_chain : outputs[this.n - first_n]?.chain;
    if (!said || sameChain(said, this.chain)) return true;
    if (!this.isRepaired) throw this.#difference(this.n, said, this.chain);
    this.foreign++;
    return false;
  }

  /** @throws NotDeterministic where the fold gives, has given or will give another chain */
  #expect(n: number, chain: Uint8Array): void {
    const expected = this.#chainOf(n) ?? this.#ahead.get(n);
    if (expected && !sameChain(chain, expected)) throw this.#difference(n, chain, expected);
    if (n > this.#folded.n) this.#ahead.set(n, chain);
  }

  /** A block that the fold has given. @throws NotDeterministic when something else stands in the topic already */
  add(block: OutputBlock): void {
    for (const { n, chain } of block.outputs) {
      const standing = this.#ahead.get(n);
      if (standing && !sameChain(standing, chain)) throw this.#difference(n, standing, chain);
      this.#ahead.delete(n);
      this.#folded = { n, chain };
    }
    if (this.#folded.n > this.n) this.#keep(block, outputBlockCodec.encode(block));
  }

  /**
   * A block of the other replica's topic that this one lacks, to be written byte for byte (F7). Blocks are to be given in order.
   * isRepaired: the other one was repaired, so that R3 holds of its topic.
   * @returns false for one that does not continue what is here. @throws NotDeterministic
   */
  copy(value: Uint8Array | null, isRepaired = false): boolean {
    const block = this.#decode(value);
    const lastN = this.#unread.at(-1)?.lastN ?? this.n;
    const last = block?.outputs.at(-1);
    if (!block || !last || last.n <= lastN || block.first_n > lastN + 1) return false;
    const before = this.#unread.at(-1)?.chains.at(-1) ?? this.chain;
    const different = this.#firstDifference(block, lastN, before);
    if (different && isRepaired) return false;
    if (different) throw different;
    this.#keep(block, Buffer.from(value as Uint8Array));
    return true;
  }

  #firstDifference(block: OutputBlock, lastN: number, before: Uint8Array): NotDeterministic | null {
    if (block.first_n === lastN + 1 && !sameChain(block.previous_chain, before)) return this.#difference(lastN, before, block.previous_chain);
    for (const { n, chain } of block.outputs) {
      const expected = n === this.n ? this.chain : this.#chainOf(n);
      if (expected && !sameChain(chain, expected)) return this.#difference(n, chain, expected);
    }
    return null;
  }

  /** Nothing is in the topic, since all of it was cut or it was re-created: whatever is written to it next goes on from here. */
  beginAt(position: Position): void {
    if (this.n === 0) this.#tail = position;
  }

  /** n up to which something is there to be written or read back. */
  get knownN(): number {
    return Math.max(this.n, this.#unread.at(-1)?.lastN ?? 0);
  }

  /** The next blocks to write, in order, together at most bytesMax unless it is a single one. */
  unsent(bytesMax: number): Unread[] {
    const blocks: Unread[] = [];
    let bytes = 0;
    for (const block of this.#unread) {
      if (block.lastN <= this.#sentN) continue;
      bytes += block.bytes.length;
      if (blocks.length > 0 && bytes > bytesMax) break;
      blocks.push(block);
    }
    return blocks;
  }

  /** They were handed to the broker, which says that its log ends at endOffset after them; null where it did not say. */
  sent(blocks: readonly Unread[], endOffset: number | null, nowMs: number): void {
    this.#sentN = Math.max(this.#sentN, blocks.at(-1)?.lastN ?? 0);
    this.#sentEndOffset = endOffset;
    this.#movedMs = nowMs;
  }

  /** Nothing may be concluded from the last attempt: all that was not read back is to be written again. @returns how many blocks that is */
  resend(): number {
    const count = this.#unread.filter(({ lastN }) => lastN <= this.#sentN).length;
    this.#sentN = 0;
    this.#sentEndOffset = null;
    return count;
  }

  /** Whether something that was sent is not there: the reader is past it, or it has not come for too long. */
  isMissing(readOffset: number, nowMs: number, withinMs: number): boolean {
    if (this.#unread.length === 0 || this.#sentN <= this.n) return false;
    const isPast = this.#sentEndOffset !== null && readOffset >= this.#sentEndOffset;
    return isPast || nowMs - this.#movedMs >= withinMs;
  }

  #keep(block: OutputBlock, bytes: Buffer): void {
    const chains = block.outputs.map(({ chain }) => chain);
    this.#unread.push({ firstN: block.first_n, lastN: block.first_n + chains.length - 1, chains, bytes });
    this.#unreadBytes += bytes.length;
  }

  #advance(tail: Position, nowMs: number): void {
    this.#tail = tail;
    this.#movedMs = nowMs;
    while (this.#unread.length > 0 && (this.#unread[0] as Unread).lastN <= tail.n) this.#unreadBytes -= (this.#unread.shift() as Unread).bytes.length;
  }

  #chainOf(n: number): Uint8Array | undefined {
    if (n === this.#folded.n) return this.#folded.chain;
    const block = this.#unread.find(({ firstN, lastN }) => firstN <= n && n <= lastN);
    return block?.chains[n - block.firstN];
  }

  #decode(value: Uint8Array | null): OutputBlock | null {
    try {
      const block = value && outputBlockCodec.decode(value);
      if (block && block.partition === this.#partition) return block;
    } catch (error) {
      if (!(error instanceof UndecodableRecord)) throw error;
    }
    this.undecodable++;
    return null;
  }

  #difference(n: number, standing: Uint8Array, folded: Uint8Array): NotDeterministic {
    return new NotDeterministic(
      `output ${n} of partition ${this.#partition} stands in this replica's output topic with chain ${chainText(standing)} ` +
        `and is folded with ${chainText(folded)}: ` +
        'two folds of one log differ, or the log was replaced; the other replica goes on, and the judge tells which is wrong',
    );
  }
}
