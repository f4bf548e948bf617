/**
 * Where topic aggregates ends: the last data record that a commit marker follows.
 *
 * The log is read raw, markers included, after the feed's new producer epoch is open: then no transaction of an older epoch is undecided,
 * and no client's filter stands between the log and what is concluded from it. Only a record that continues n and chain moves the tail,
 * so that one which got there twice, or over a gap, is not taken for it.
 */
import { outputCodec, UndecodableRecord } from '../../schemas/codec.ts';
import type { Output } from '../../schemas/types.ts';
import { chainOf, type Digest, emptyChain, sameChain } from '../aggregate/chain.ts';

export interface Tail {
  /** 0 before the first output. */
  readonly n: number;
  readonly chain: Uint8Array;
  /** Of the record in aggregates; -1 before the first output. */
  readonly offset: number;
  /** The highest watermark of the WindowClose outputs that were read; 0 where none was. */
  readonly watermarkMs: number;
}

export const emptyTail: Tail = { n: 0, chain: emptyChain, offset: -1, watermarkMs: 0 };

export interface RawRecord {
  readonly offset: number;
  readonly value: Uint8Array | null;
  readonly producerId: string;
  readonly marker: 'commit' | 'abort' | null;
}

export class TailScan {
  readonly #partition: number;
  readonly #digest: Digest;
  readonly #open = new Map<string, RawRecord[]>();
  #tail: Tail | null = null;
  #firstOffset: number | null = null;
  /** Committed records that do not continue the tail. */
  outOfLine = 0;

  constructor(partition: number, digest: Digest) {
    this.#partition = partition;
    this.#digest = digest;
  }

  /** null where nothing was committed in what was read. */
  get tail(): Tail | null {
    return this.#tail;
  }

  /** Of the first committed record that was read; null before it. */
  get firstOffset(): number | null {
    return this.#firstOffset;
  }

  /** In offset order. @throws UnknownSchema */
  take(record: RawRecord): void {
    const { producerId, marker } = record;
    if (!marker) {
      // A record outside of transactions is nobody's of ours.
      if (producerId === '') return;
      const records = this.#open.get(producerId);
      if (records) records.push(record);
      else this.#open.set(producerId, [record]);
      return;
    }
    const records = this.#open.get(producerId) ?? [];
    this.#open.delete(producerId);
    if (marker === 'commit') for (const one of records) this.#commit(one);
  }

  #commit(record: RawRecord): void {
    this.#firstOffset ??= record.offset;
    const output = decodeOutput(record.value);
    if (output?.correction) {
      this.#correct(output, record.offset);
    } else if (output && this.#continues(output)) {
      const watermarkMs = Math.max(this.#tail?.watermarkMs ?? 0, output.window_close?.watermark_ms ?? 0);
      this.#tail = { n: output.n, chain: output.chain, offset: record.offset, watermarkMs };
    } else {
      this.outOfLine++;
    }
  }

  /** It counts as a whole, with its last record. */
  #correct(output: Output, offset: number): void {
    const corrected = output.partition === this.#partition ? correctedTail(this.#tail, output, offset) : null;
    if (corrected) this.#tail = corrected;
    else if (output.correction?.index === output.correction?.count) this.outOfLine++;
  }

  /** The first record read may have any n: what lies before it was cut, or checked by who noted where to start. */
  #continues(output: Output): boolean {
    if (output.partition !== this.#partition) return false;
    if (!this.#tail && output.n > 1) return true;
    const before = this.#tail ?? emptyTail;
    return output.n === before.n + 1 && sameChain(chainOf(output, before.chain, this.#digest).chain, output.chain);
  }
}

/** The tail after the last record of a correction was read; null where it does not continue the tail. */
export function correctedTail(tail: Tail | null, output: Output, offset: number): Tail | null {
  const { correction } = output;
  if (!correction || correction.index !== correction.count) return null;
  // The first record read may be it: whoever noted its offset has looked at what lies before.
  const continues = !tail || (tail.n === correction.last_n && sameChain(tail.chain, correction.replaced_chain));
  return continues ? { n: correction.last_n, chain: correction.chain, offset, watermarkMs: tail?.watermarkMs ?? 0 } : null;
}

/** null for what no schema can decode. @throws UnknownSchema */
export function decodeOutput(value: Uint8Array | null): Output | null {
  try {
    return value && outputCodec.decode(value);
  } catch (error) {
    if (error instanceof UndecodableRecord) return null;
    throw error;
  }
}
