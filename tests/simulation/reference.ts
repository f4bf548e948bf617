/** The fold of one partition as it would be if nothing ever failed: one pass over the log, as it grows. */
import { sha256 } from '../../adapters/digest.ts';
import type { LogRecord } from '../../adapters/ports.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import { outputCodec } from '../../schemas/codec.ts';
import type { Reference } from './checkers.ts';

export class ReferenceFold implements Reference {
  outputs: Buffer[] = [];
  /** n after each record. */
  #nAfter: number[] = [];
  #records: { readonly record: LogRecord; readonly isBase: boolean }[] = [];
  #fold: Fold;

  constructor(partition: number) {
    this.#fold = new Fold(partition, sha256);
  }

  take(record: LogRecord): void {
    this.#take(record, false);
  }

  continueAt(count: number, base: LogRecord): void {
    const kept = this.#records.slice(0, count);
    this.outputs = [];
    this.#nAfter = [];
    this.#records = [];
    this.#fold = new Fold(this.#fold.partition, sha256);
    for (const { record, isBase } of kept) this.#take(record, isBase);
    this.#take(base, true);
  }

  #take(record: LogRecord, isBase: boolean): void {
    this.#records.push({ record, isBase });
    if (isBase) this.#fold = Fold.onBase(record, this.#fold.serialise(), sha256);
    else for (const block of this.#fold.step(record).blocks) for (const output of block.outputs) this.outputs.push(outputCodec.encode(output));
    this.#nAfter.push(this.#fold.n);
  }

  nAt(offset: number): number {
    return this.#nAfter[offset - 1] ?? 0;
  }
}
