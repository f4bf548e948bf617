/**
 * What the sequence numbers of sFlow's sources say: each source of an agent counts its flow samples, so that a gap tells how many were lost. Whether
 * a datagram comes late is known from its own sequence.
 */

import type { Place } from './exporter-sequence.ts';

/** Sources of all exporters together that are followed; of further ones no loss is told. */
export class SourceBudget {
  left: number;

  constructor(sourcesMax: number) {
    this.left = sourcesMax;
  }
}

interface SampleSource {
  next: number;
  /** Counted as lost, and may still come late. */
  missing: number;
}

/** A jump ahead of more than this is a new numbering and not a loss. */
const plausibleJump = 1_000_000;

export class SampleSequences {
  /** Samples lost since the owner last set it to 0; negative where a late datagram brought some of before. */
  lost = 0;
  readonly #budget: SourceBudget;
  readonly #sources = new Map<number, SampleSource>();

  constructor(budget: SourceBudget) {
    this.#budget = budget;
  }

  /** A flow sample arrived, in a datagram of this place in the agent's own sequence. */
  take(source: number, sequence: number, place: Place): void {
    if (place === 'stale') return;
    const known = this.#sources.get(source);
    if (known === undefined) {
      if (this.#budget.left <= 0) return;
      this.#budget.left--;
      this.#sources.set(source, { next: (sequence + 1) >>> 0, missing: 0 });
      return;
    }
    const ahead = (sequence - known.next) | 0;
    if (place === 'late' && ahead < 0) {
      if (known.missing === 0) return;
      known.missing--;
      this.lost--;
      return;
    }
    // From behind although its datagram is not, or too far ahead: the source counts anew.
    const missing = ahead > 0 && ahead <= plausibleJump ? ahead : 0;
    known.missing += missing;
    this.lost += missing;
    known.next = (sequence + 1) >>> 0;
  }

  /** The agent started anew, or is forgotten. */
  clear(): void {
    this.#budget.left += this.#sources.size;
    this.#sources.clear();
  }
}
