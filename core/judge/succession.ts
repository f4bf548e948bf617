/**
 * With which snapshot a log that replaces another one begins (DESIGN 3.8, F5): one that continues the tail of `aggregates`, or something that is
 * published would be published again otherwise; and among those the one furthest ahead, since what lies behind it is to be sent again.
 *
 * I19. Each replica writes where it stood when its log ended, so the one furthest ahead has all that both have acknowledged.
 */
import type { Replica } from '../../schemas/topics.ts';

/** n and chain, in hexadecimal; n 0 stands before the first output. */
export interface OutputPoint {
  readonly n: number;
  readonly chain: string;
}

/** A whole snapshot of a former log. */
export interface Candidate extends OutputPoint {
  readonly replica: Replica;
  readonly topicId: string;
  readonly offset: number;
  /** Batches accepted so far, of all incarnations: of two states of one history the later has more. */
  readonly progress: number;
}

/** What a replica's output topic holds: contiguous from `first` on, with the chains that were asked for, by n. */
export interface HeldOutputs {
  readonly first: OutputPoint | null;
  readonly lastN: number;
  readonly chains: ReadonlyMap<number, string>;
}

/** How a candidate stands to the tail. */
export type Standing = 'continues' | 'behind' | 'another_history' | 'unproven';

export function standingOf({ n, chain }: OutputPoint, tail: OutputPoint, topics: readonly HeldOutputs[]): Standing {
  if (n < tail.n) return 'behind';
  if (n === tail.n) return chain === tail.chain ? 'continues' : 'another_history';
  let isRefuted = false;
  for (const { chains, first } of topics) {
    if (chains.get(n) !== chain) continue;
    const atTail = tail.n === 0 ? (first?.n === 0 ? tail.chain : undefined) : chains.get(tail.n);
    if (atTail === tail.chain) return 'continues';
    if (atTail !== undefined) isRefuted = true;
  }
  return isRefuted ? 'another_history' : 'unproven';
}

/** null where none continues the tail. */
export function successor(candidates: readonly { readonly candidate: Candidate; readonly standing: Standing }[]): Candidate | null {
  const able = candidates.filter(({ standing }) => standing === 'continues').map(({ candidate }) => candidate);
  return able.sort((one, other) => other.n - one.n || other.progress - one.progress || other.offset - one.offset)[0] ?? null;
}
