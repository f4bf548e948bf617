/** Where a partition's outputs went on from another replica: n of the last that was emitted of the one, n + 1 of the other. */
import type { Replica } from '../../schemas/topics.ts';

export interface Seam {
  readonly from: Replica;
  readonly to: Replica;
  /** Of the last output that was emitted of `from`. */
  readonly n: number;
}

/** In words, as the feed says it in its health. */
export function seamText({ from, to, n }: Seam): string {
  return `${from} up to n ${n}, ${to} from n ${n + 1} on`;
}

/** null for anything that `seamText` did not write. */
export function readSeam(text: string): Seam | null {
  const [, from, last, to, first] = /^([ab]) up to n (\d+), ([ab]) from n (\d+) on$/.exec(text) ?? [];
  if (from === undefined || from === to || Number(first) !== Number(last) + 1) return null;
  return { from: from as Replica, to: to as Replica, n: Number(last) };
}
