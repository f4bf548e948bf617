/**
 * The audit that never stops: whatever says what chain belongs to an n is compared with all others that said it of the same n.
 *
 * What is kept is bounded. A difference that is older than that is found later: a chain digests the whole history, so it differs at every later n.
 */
import type { Replica } from '../../schemas/topics.ts';
import { chainText } from '../aggregate/chain.ts';

export type Source = Replica | 'aggregates';

const sources: readonly Source[] = ['a', 'b', 'aggregates'];

/** Two histories of one partition: at least one of them is wrong. */
export interface Divergence {
  readonly n: number;
  readonly between: readonly [Source, Source];
  /** In hexadecimal, in the same order. */
  readonly chains: readonly [string, string];
}

/** Chains kept per source: the lag of one replica behind the other within which the first difference is named. */
export const comparedOutputsMax = 8192;

export class Comparison {
  /** As text: quick to compare, and nothing of the buffer that a chain was read from is kept alive. */
  readonly #chains: Readonly<Record<Source, Map<number, string>>> = { a: new Map(), b: new Map(), aggregates: new Map() };
  #divergence: Divergence | null = null;
  #agreedN = 0;

  /** The first difference that was found. */
  get divergence(): Divergence | null {
    return this.#divergence;
  }

  /** The highest n of which all three said the same; 0 before the first. Their whole histories up to there are the same, then. */
  get agreedN(): number {
    return this.#agreedN;
  }

  note(source: Source, n: number, chain: Uint8Array): void {
    const text = chainText(chain);
    for (const other of sources) {
      const found = this.#chains[other].get(n);
      if (found !== undefined && found !== text) this.#divergence ??= { n, between: [source, other], chains: [text, found] };
    }
    const own = this.#chains[source];
    own.set(n, text);
    own.delete(n - comparedOutputsMax);
    if (n > this.#agreedN && sources.every((one) => this.#chains[one].get(n) === text)) this.#agreedN = n;
  }

  /** What this source said counts no more, nor a difference that only it made. */
  forget(source: Source): void {
    this.#chains[source].clear();
    this.#divergence = null;
    for (const [at, one] of sources.entries()) for (const other of sources.slice(at + 1)) this.#compare(one, other);
  }

  #compare(one: Source, other: Source): void {
    for (const [n, chain] of this.#chains[one]) {
      const found = this.#chains[other].get(n);
      if (found === undefined || found === chain || (this.#divergence && this.#divergence.n <= n)) continue;
      this.#divergence = { n, between: [one, other], chains: [chain, found] };
    }
  }
}

export function describeDivergence({ n, between, chains }: Divergence): string {
  const [one, other] = between;
  if (one === other) return `${one} holds two histories: at n ${n} chain ${chains[0]} and chain ${chains[1]}`;
  return `${one} and ${other} differ at n ${n}: chain ${chains[0]} and chain ${chains[1]}`;
}
