/**
 * What both replicas agree on (DESIGN 3.6): the newest snapshot of a partition that stands whole in both topics with one offset, n, chain and state.
 *
 * I16. Nothing of nars is cut that is not folded into such a snapshot, held by both.
 * J1. Of what was read only digests and places are kept, never a state; and those of so many snapshots at most, the youngest written.
 */
import type { Agreement, SnapshotChunk } from '../../schemas/types.ts';
import { chainText } from '../aggregate/chain.ts';

/** A snapshot that stands whole in a replica's topic, as far as its chunks say. */
export interface StandingSnapshot {
  /** The part of its keys that names it. */
  readonly name: string;
  /** Of nars. */
  readonly topicId: string;
  readonly offset: number;
  readonly n: number;
  /** In hexadecimal, like the digest of the whole state. */
  readonly chain: string;
  readonly digest: string;
  /** Where its chunks are in the snapshot topic, by their numbers. */
  readonly places: readonly number[];
}

interface Held extends Omit<StandingSnapshot, 'places'> {
  readonly chunks: number;
  readonly places: Map<number, number>;
}

/** The product keeps four; more are there while several processes of one replica write. */
const snapshotsMax = 64;

/** What stands in one replica's snapshot topic of a partition, taken record by record as the topic grows. */
export class StandingSnapshots {
  readonly #held = new Map<string, Held>();

  /** A record of the topic: which snapshot and chunk its key names, its value or null where there is none, its offset. */
  take(name: string, number: number, chunk: SnapshotChunk | null, place: number): void {
    const before = this.#held.get(name);
    if (!chunk) {
      before?.places.delete(number);
      if (before?.places.size === 0) this.#held.delete(name);
      return;
    }
    const { topic_id: topicId, offset, n, chunks } = chunk;
    const held: Held = { name, topicId, offset, n, chain: chainText(chunk.chain), digest: chainText(chunk.digest), chunks, places: new Map() };
    if (before && isSame(before, held) && before.chunks === chunks) for (const [one, at] of before.places) held.places.set(one, at);
    held.places.set(number, place);
    // Put behind the others, so that the first of the map is the one that was written to least lately.
    this.#held.delete(name);
    this.#held.set(name, held);
    if (this.#held.size > snapshotsMax) this.#held.delete(this.#held.keys().next().value as string);
  }

  /** What its chunks say is not true. */
  discard(name: string): void {
    this.#held.delete(name);
  }

  /** Whole ones of one log, newest (of the highest offset) first. */
  whole(topicId: string): StandingSnapshot[] {
    return [...this.#held.values()]
      .filter((held) => held.topicId === topicId && held.places.size === held.chunks)
      .map((held) => ({ ...held, places: Array.from({ length: held.chunks }, (_, chunk) => held.places.get(chunk) ?? -1) }))
      .filter(({ places }) => !places.includes(-1))
      .sort((one, other) => other.offset - one.offset);
  }

  /** The highest offset of a whole one; 0 without one. */
  newest(topicId: string): number {
    return this.whole(topicId)[0]?.offset ?? 0;
  }
}

export type SnapshotsOfBoth = Readonly<Record<'a' | 'b', StandingSnapshots>>;

/** null where the replicas hold no snapshot of one offset, or only such as differ. */
export function newestAgreed({ a, b }: SnapshotsOfBoth, topicId: string): Record<'a' | 'b', StandingSnapshot> | null {
  const ofB = b.whole(topicId);
  for (const one of a.whole(topicId)) {
    const other = ofB.find((candidate) => isSame(one, candidate));
    if (other) return { a: one, b: other };
  }
  return null;
}

function isSame(one: Omit<StandingSnapshot, 'places'>, other: Omit<StandingSnapshot, 'places'>): boolean {
  const { topicId, offset, n, chain, digest } = other;
  return one.topicId === topicId && one.offset === offset && one.n === n && one.chain === chain && one.digest === digest;
}

/** The agreement that is recorded says the same of the snapshot that was found. */
export function records(agreement: Agreement | null, found: StandingSnapshot): boolean {
  if (!agreement || agreement.topic_id !== found.topicId || agreement.offset !== found.offset || agreement.n !== found.n) return false;
  return chainText(agreement.chain) === found.chain && chainText(agreement.digest) === found.digest;
}

/** The last agreement of each partition, in log order: one of another topic id replaces it, one of the same id only with a higher offset. */
export class Agreements {
  readonly #last = new Map<number, Agreement>();

  apply(agreement: Agreement): void {
    const last = this.#last.get(agreement.partition);
    if (last && last.topic_id === agreement.topic_id && last.offset > agreement.offset) return;
    this.#last.set(agreement.partition, agreement);
  }

  /** null where nothing is agreed on in this log. */
  of(partition: number, topicId: string): Agreement | null {
    const last = this.#last.get(partition);
    return last?.topic_id === topicId ? last : null;
  }

  clear(): void {
    this.#last.clear();
  }
}

/** How many of the newest ones a replica keeps of its own: a restart falls back to an older one where the newest is not whole. */
const keptNewest = 3;

/**
 * Names of own snapshots that nobody needs any more (G8). Of the present log the newest few and the agreed one stay; of a former log all,
 * until both hold one of the present log, since the base may name one of them.
 */
export function obsoleteSnapshots(
  marks: Iterable<readonly [name: string, mark: { readonly topicId: string; readonly offset: number }]>,
  topicId: string,
  agreed: Agreement | null,
): string[] {
  const all = [...marks];
  const present = all.filter(([, mark]) => mark.topicId === topicId).sort(([, one], [, other]) => other.offset - one.offset);
  const agreedOffset = agreed?.topic_id === topicId ? agreed.offset : null;
  const kept = present.slice(0, keptNewest).filter(([, { offset }]) => agreedOffset === null || offset >= agreedOffset);
  const obsolete = present.filter(([name, { offset }]) => offset !== agreedOffset && !kept.some(([one]) => one === name));
  const former = agreedOffset === null ? [] : all.filter(([, mark]) => mark.topicId !== topicId);
  return [...obsolete, ...former].map(([name]) => name);
}
