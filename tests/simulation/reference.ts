/** The fold of one partition as it would be if nothing ever failed: one pass over the log, as it grows. */
import { sha256 } from '../../adapters/digest.ts';
import type { LogRecord } from '../../adapters/ports.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import { outputCodec } from '../../schemas/codec.ts';
import type { Reference } from './checkers.ts';

export class ReferenceFold implements Reference {
  readonly outputs: Buffer[] = [];
  /** n after the record at each offset. */
  readonly #nAfter: number[] = [];
  readonly #fold: Fold;

  constructor(partition: number) {
    this.#fold = new Fold(partition, sha256);
  }

  take(record: LogRecord): void {
    for (const block of this.#fold.step(record).blocks) for (const output of block.outputs) this.outputs.push(outputCodec.encode(output));
    this.#nAfter.push(this.#fold.n);
  }

  nAt(offset: number): number {
    return this.#nAfter[offset - 1] ?? 0;
  }
}
