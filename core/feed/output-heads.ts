/**
 * How far the heads of both output topics of a partition may be cut (DESIGN 3.6).
 *
 * I18. A place is noted where an n is emitted, stands in both topics, and was found equal in both and in aggregates; what comes before its block
 * is needed by nobody: each replica reads or copies from there on, and the feed's tail is not before it. The block itself stays (G2).
 * A place is used when it has been known for the configured history, so that no more than a few places are kept.
 */

/** Offsets in both topics from which on n, and whatever comes behind it, can be read. */
export interface OutputPlace {
  readonly n: number;
  readonly a: number;
  readonly b: number;
}

interface Noted extends OutputPlace {
  readonly atMs: number;
}

/** Places noted within one history. */
const placesMax = 8;

export class OutputHeads {
  /** The first n that was not cut; 0 before the first cut. */
  keptFromN = 0;
  readonly #historyMs: number;
  #places: Noted[] = [];

  constructor(historyMs: number) {
    this.#historyMs = historyMs;
  }

  /** What is known now; null where nothing is. */
  note(place: OutputPlace | null, nowMs: number): void {
    const last = this.#places.at(-1);
    if (!place || place.n <= (last?.n ?? this.keptFromN)) return;
    if (!last || nowMs - last.atMs >= this.#historyMs / placesMax) this.#places.push({ ...place, atMs: nowMs });
  }

  /** The last place that has been known for long enough; null where none has. */
  due(nowMs: number): OutputPlace | null {
    return this.#places.findLast(({ atMs }) => nowMs - atMs >= this.#historyMs) ?? null;
  }

  /** Both heads are cut there. */
  cut({ n }: OutputPlace): void {
    this.keptFromN = n;
    this.#places = this.#places.filter((place) => place.n > n);
  }

  /** A topic is not what it was: offsets in it say nothing any more. */
  forget(): void {
    this.#places = [];
  }
}
