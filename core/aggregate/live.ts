/**
 * The collectors' incarnations as the log shows them: what was accepted of each, who is live, and the watermark that the live ones allow.
 * All of it is a pure function of the records accepted; no wall clock decides who has gone (F11, G10).
 * I8. The watermark never goes back, and no collector's clock moves it past the broker's append time.
 */

import type { NarBatchFrame } from '../../schemas/codec.ts';
import { adminCollector } from '../../schemas/topics.ts';
import type { CollectorState, IncarnationSequence, IncarnationState } from '../../schemas/types.ts';
import { compareText } from './window.ts';

export class Incarnations {
  /** By collector, then by incarnation; never forgotten, since a copy of an old batch may still arrive (F1). */
  readonly #collectors = new Map<string, Map<string, IncarnationState>>();

  static restore(states: readonly CollectorState[]): Incarnations {
    const incarnations = new Incarnations();
    for (const { name, incarnations: ofOne } of states) {
      incarnations.#collectors.set(name, new Map(ofOne.map((state) => [state.incarnation, { ...state }] as const)));
    }
    return incarnations;
  }

  state(): CollectorState[] {
    return [...this.#collectors]
      .sort(([a], [b]) => compareText(a, b))
      .map(([name, ofOne]) => ({
        name,
        incarnations: [...ofOne.values()].sort((a, b) => compareText(a.incarnation, b.incarnation)).map((incarnation) => ({ ...incarnation })),
      }));
  }

  /** Sorted. */
  names(): string[] {
    return [...this.#collectors.keys()].sort(compareText);
  }

  /** The last sequence accepted; 0 before the first. */
  last(collector: string, incarnation: string): number {
    return this.#collectors.get(collector)?.get(incarnation)?.sequence ?? 0;
  }

  /** G1: a collector of which nothing was accepted yet has to be told so. */
  hear(collector: string): Map<string, IncarnationState> {
    const known = this.#collectors.get(collector) ?? new Map<string, IncarnationState>();
    this.#collectors.set(collector, known);
    return known;
  }

  /** watermarkMs: the batch's own, limited by its append time, less the allowed lateness. */
  accept(batch: NarBatchFrame, watermarkMs: number): void {
    const { collector, incarnation, through, goodbye, volatile } = batch;
    const known = this.hear(collector);
    const before = known.get(incarnation);
    known.set(incarnation, {
      incarnation,
      sequence: through,
      first_watermark_ms: before?.first_watermark_ms ?? watermarkMs,
      highest_watermark_ms: Math.max(before?.highest_watermark_ms ?? watermarkMs, watermarkMs),
      goodbye,
      volatile: volatile || (before?.volatile ?? false),
    });
  }

  /** Sorted by incarnation. */
  sequences(collector: string): IncarnationSequence[] {
    return [...(this.#collectors.get(collector)?.values() ?? [])]
      .map(({ incarnation, sequence }) => ({ incarnation, sequence }))
      .sort((a, b) => compareText(a.incarnation, b.incarnation));
  }

  /** The lowest watermark of the live incarnations; null when none is live. */
  watermark(liveWithinMs: number): number | null {
    const from = this.#highest() - liveWithinMs;
    let lowest: number | null = null;
    for (const [, { goodbye, highest_watermark_ms: own }] of this.#counted()) {
      if (!goodbye && own >= from && (lowest === null || own < lowest)) lowest = own;
    }
    return lowest;
  }

  /** Collectors of which something was heard in this span, sorted. */
  heardIn(startMs: number, endMs: number): string[] {
    const names = new Set<string>();
    for (const [name, { first_watermark_ms: first, highest_watermark_ms: highest }] of this.#counted()) {
      if (first < endMs && highest > startMs) names.add(name);
    }
    return [...names].sort(compareText);
  }

  /** G9: volatile incarnations that went without a goodbye. One whose batches come after all is live again, or says goodbye: no doubt any more. */
  doubts(liveWithinMs: number): number {
    const from = this.#highest() - liveWithinMs;
    let count = 0;
    for (const [, { goodbye, volatile, highest_watermark_ms: own }] of this.#counted()) if (volatile && !goodbye && own < from) count++;
    return count;
  }

  /** G10: of those that said no goodbye. */
  #highest(): number {
    let highest = Number.NEGATIVE_INFINITY;
    for (const [, { goodbye, highest_watermark_ms: own }] of this.#counted()) if (!goodbye && own > highest) highest = own;
    return highest;
  }

  /** The administration's entries are outside of the watermark. */
  *#counted(): Generator<readonly [name: string, incarnation: IncarnationState]> {
    for (const [name, ofOne] of this.#collectors) {
      if (name === adminCollector) continue;
      for (const incarnation of ofOne.values()) yield [name, incarnation];
    }
  }
}
