/** The fold of one partition as it would be if nothing ever failed: one pass over the log, as it grows. */
import { sha256 } from '../../adapters/digest.ts';
import type { LogRecord } from '../../adapters/ports.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import { UnknownFoldVersion } from '../../core/aggregate/settings.ts';
import { outputCodec } from '../../schemas/codec.ts';
import type { Reference } from './checkers.ts';

export class ReferenceFold implements Reference {
  readonly outputs: Buffer[] = [];
  /** n after the record at each offset. */
  readonly #nAfter: number[] = [];
  readonly #fold: Fold;
  #isOver = false;

  constructor(partition: number) {
    this.#fold = new Fold(partition, sha256);
  }

  take(record: LogRecord): void {
    if (this.#isOver) return;
    try {
      for (const block of this.#fold.step(record).blocks) for (const output of block.outputs) this.outputs.push(outputCodec.encode(output));
    } catch (error) {
      // A replica that does not know a version folds no further, so nothing is due any more.
      if (!(error instanceof UnknownFoldVersion)) throw error;
      this.#isOver = true;
    }
    this.#nAfter.push(this.#fold.n);
  }

  get watermarkMs(): number | null {
    return this.#fold.watermarkMs;
  }

  nAt(offset: number): number {
    return this.#nAfter[offset - 1] ?? 0;
  }
}
