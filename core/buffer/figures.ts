/** How much is kept, and of that how much is not yet where it should be; computed per stream, not per batch. */
import type { Ledger } from './ledger.ts';

export interface CopyFigures {
  readonly batches: number;
  readonly nars: number;
  readonly unconfirmedNars: number;
  readonly unacknowledgedNars: { readonly a: number; readonly b: number };
  /** Watermark of the oldest batch; 0 when there is none. */
  readonly oldestMs: number;
}

export function figuresOf(ledger: Ledger): CopyFigures {
  const sum = { batches: 0, nars: 0, unconfirmedNars: 0, unacknowledgedNars: { a: 0, b: 0 }, oldestMs: 0 };
  for (const stream of ledger.streams) {
    sum.batches += stream.batches.length;
    sum.nars += stream.narsAfter(0);
    sum.unconfirmedNars += stream.narsAfter(stream.next - 1);
    sum.unacknowledgedNars.a += stream.narsAfter(stream.acknowledged.a);
    sum.unacknowledgedNars.b += stream.narsAfter(stream.acknowledged.b);
    const oldest = stream.batches[0]?.watermarkMs ?? 0;
    if (oldest > 0 && (sum.oldestMs === 0 || oldest < sum.oldestMs)) sum.oldestMs = oldest;
  }
  return sum;
}
