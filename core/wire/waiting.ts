/** Data sets that came before their template: kept for a while, bounded in octets, oldest given up first. */
import type { Exporter, WaitingSet } from './exporter.ts';

export interface WaitingLimits {
  readonly waitMs: number;
  readonly waitBytesMax: number;
}

/** Fewest octets of a data record that are worth believing, to bound how many a set of unknown layout may hold. */
const recordOctetsMin = 4;

export function recordsMaxIn(octets: number): number {
  return Math.ceil(octets / recordOctetsMin);
}

export class WaitingSets {
  readonly #limits: WaitingLimits;
  readonly #giveUp: (set: WaitingSet) => void;
  #queue: WaitingSet[] = [];
  #head = 0;
  sets = 0;
  bytes = 0;

  /** giveUp is called for each set whose template did not come in time. */
  constructor(limits: WaitingLimits, giveUp: (set: WaitingSet) => void) {
    this.#limits = limits;
    this.#giveUp = giveUp;
  }

  /** False where there is no room: one address gets at most half of it. */
  add(set: WaitingSet): boolean {
    const { exporter } = set;
    const octets = set.bytes.length;
    if (exporter.place.waitingBytes + octets > this.#limits.waitBytesMax / 2) return false;
    while (this.bytes + octets > this.#limits.waitBytesMax) this.#dropOldest();
    const sameTemplate = exporter.waiting.get(set.templateId);
    if (sameTemplate === undefined) exporter.waiting.set(set.templateId, [set]);
    else sameTemplate.push(set);
    if (this.#queue.length > 2 * this.sets + 64) this.#compact();
    this.#queue.push(set);
    exporter.place.waitingBytes += octets;
    this.bytes += octets;
    this.sets++;
    return true;
  }

  /** The sets that waited for this template, oldest first. */
  take(exporter: Exporter, templateId: number): WaitingSet[] {
    const sets = exporter.waiting.get(templateId);
    if (sets === undefined) return [];
    exporter.waiting.delete(templateId);
    for (const set of sets) this.#release(set);
    return sets;
  }

  expire(nowMs: number): void {
    while (this.#head < this.#queue.length) {
      const oldest = this.#queue[this.#head]!;
      if (!oldest.done && nowMs - oldest.receivedMs <= this.#limits.waitMs) break;
      this.#dropOldest();
    }
    this.#compact();
  }

  /** Sets that are done would otherwise keep their octets alive. */
  #compact(): void {
    this.#queue = this.#queue.filter((set) => !set.done);
    this.#head = 0;
  }

  #dropOldest(): void {
    const set = this.#queue[this.#head++]!;
    if (set.done) return;
    const sameTemplate = set.exporter.waiting.get(set.templateId)!.filter((other) => other !== set);
    if (sameTemplate.length > 0) set.exporter.waiting.set(set.templateId, sameTemplate);
    else set.exporter.waiting.delete(set.templateId);
    this.#release(set);
    this.#giveUp(set);
  }

  #release(set: WaitingSet): void {
    set.done = true;
    set.exporter.place.waitingBytes -= set.bytes.length;
    this.bytes -= set.bytes.length;
    this.sets--;
  }
}
