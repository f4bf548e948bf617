/** The fold of one partition as it would be if nothing ever failed: one pass over the log, as it grows. */
import { sha256 } from '../../adapters/digest.ts';
import type { LogRecord } from '../../adapters/ports.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import { UnknownFoldVersion } from '../../core/aggregate/settings.ts';
import { outputCodec } from '../../schemas/codec.ts';
import type { Reference } from './checkers.ts';

export class ReferenceFold implements Reference {
  outputs: Buffer[] = [];
  /** n after each record. */
  #nAfter: number[] = [];
  #records: { readonly record: LogRecord; readonly isBase: boolean }[] = [];
  #fold: Fold;
  #isOver = false;

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
    if (this.#isOver) return;
    if (isBase) this.#fold = Fold.onBase(record, this.#fold.serialise(), sha256);
    else this.#step(record);
    this.#nAfter.push(this.#fold.n);
  }

  #step(record: LogRecord): void {
    try {
      for (const block of this.#fold.step(record).blocks) for (const output of block.outputs) this.outputs.push(outputCodec.encode(output));
    } catch (error) {
      // A replica that does not know a version folds no further, so nothing is due any more.
      if (!(error instanceof UnknownFoldVersion)) throw error;
      this.#isOver = true;
    }
  }

  get watermarkMs(): number | null {
    return this.#fold.watermarkMs;
  }

  nAt(offset: number): number {
    return this.#nAfter[offset - 1] ?? 0;
  }
}
