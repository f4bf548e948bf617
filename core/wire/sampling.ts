/**
 * Sampling rates that an exporter announces in options records (RFC 3954 section 6.1, RFC 5476): per sampler, per interface, for the whole device,
 * per line card. Where nothing tells a record's rate it is 0, unknown: it is never guessed.
 */

import type { Place } from './places.ts';

/** Samplers, interfaces and line cards of one exporter that are remembered, of each so many; further ones are ignored. */
const announcementsMax = 4_096;

export interface SamplingFields {
  interval: number;
  packetInterval: number;
  packetSpace: number;
  size: number;
  population: number;
  /** Of a packet to be taken, 0 to 1. */
  probability: number;
}

const rateMax = 0xffff_ffff;

/** "1 in so many" of IE 34 / 50, else (305 + 306) / 305, else 310 / 309, else 1 / 311; 0 where none is told. */
export function rateOf(fields: SamplingFields): number {
  const { interval, packetInterval, packetSpace, size, population, probability } = fields;
  let rate = 0;
  if (interval > 0) rate = interval;
  else if (packetInterval > 0) rate = (packetInterval + packetSpace) / packetInterval;
  else if (size > 0) rate = population / size;
  else if (probability > 0 && probability <= 1) rate = 1 / probability;
  return Math.min(Math.round(rate), rateMax);
}

/** What an announcement is about; 0 where it does not say. */
export interface SamplingScope {
  readonly samplerId: number;
  readonly interface: number;
  readonly lineCard: number;
}

export class Sampling {
  readonly #place: Place;
  readonly #configuredRate: number;
  #deviceRate = 0;
  readonly #samplers = new Map<number, number>();
  readonly #interfaces = new Map<number, number>();
  readonly #lineCards = new Map<number, number>();
  /** That of all line cards, 0 where they differ: records do not tell their line card. */
  #lineCardRate = 0;

  /** Samplers, interfaces and line cards that found no room. */
  refused = 0;

  /** configuredRate: what the operator says of an exporter that does not say it itself; 0 for nothing. */
  constructor(place: Place, configuredRate: number) {
    this.#place = place;
    this.#configuredRate = configuredRate;
  }

  /** True where that is news. */
  announce(rate: number, scope: SamplingScope): boolean {
    if (rate <= 0) return false;
    if (scope.samplerId > 0) return this.#set(this.#samplers, scope.samplerId, rate);
    if (scope.interface > 0) return this.#set(this.#interfaces, scope.interface, rate);
    if (scope.lineCard > 0) return this.#announceLineCard(scope.lineCard, rate);
    const isNews = this.#deviceRate !== rate;
    this.#deviceRate = rate;
    return isNews;
  }

  #announceLineCard(lineCard: number, rate: number): boolean {
    if (!this.#set(this.#lineCards, lineCard, rate)) return false;
    this.#lineCardRate = rate;
    for (const other of this.#lineCards.values()) if (other !== rate) this.#lineCardRate = 0;
    return true;
  }

  /** The rate for a record that does not tell its own; 0 where nobody has said. interface: where the flow was observed. */
  rateFor(samplerId: number, ifIndex: number): number {
    if (samplerId > 0 && this.#samplers.size > 0) {
      const rate = this.#samplers.get(samplerId);
      if (rate !== undefined) return rate;
    }
    if (this.#interfaces.size > 0) {
      const rate = this.#interfaces.get(ifIndex);
      if (rate !== undefined) return rate;
    }
    return this.#deviceRate || this.#lineCardRate || this.#configuredRate;
  }

  get isEmpty(): boolean {
    return this.#deviceRate === 0 && this.#size === 0;
  }

  get #size(): number {
    return this.#samplers.size + this.#interfaces.size + this.#lineCards.size;
  }

  clear(): void {
    this.#place.takeFields(-this.#size);
    this.#deviceRate = 0;
    this.#lineCardRate = 0;
    for (const rates of [this.#samplers, this.#interfaces, this.#lineCards]) rates.clear();
  }

  #set(rates: Map<number, number>, id: number, rate: number): boolean {
    const known = rates.get(id);
    if (known === rate) return false;
    if (known === undefined && (rates.size >= announcementsMax || !this.#place.takeFields(1))) {
      this.refused++;
      return false;
    }
    rates.set(id, rate);
    return true;
  }

  /** All that was announced, as what JSON can hold. */
  state(): unknown {
    return [this.#deviceRate, [...this.#samplers], [...this.#interfaces], [...this.#lineCards]];
  }

  /** Takes a state up again; false, and nothing changed, where it is none. */
  restore(state: unknown): boolean {
    if (!Array.isArray(state) || state.length !== 4) return false;
    const [deviceRate, samplers, interfaces, lineCards] = state as unknown[];
    if (!isRate(deviceRate) || !areRates(samplers) || !areRates(interfaces) || !areRates(lineCards)) return false;
    this.#deviceRate = deviceRate;
    for (const [id, rate] of samplers) this.#set(this.#samplers, id, rate);
    for (const [id, rate] of interfaces) this.#set(this.#interfaces, id, rate);
    for (const [id, rate] of lineCards) this.#announceLineCard(id, rate);
    return true;
  }
}

function isRate(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function areRates(value: unknown): value is [id: number, rate: number][] {
  return Array.isArray(value) && value.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isRate));
}
