/**
 * Sampling rates that an exporter announces in options records (RFC 3954 section 6.1, RFC 5476): for the whole domain, per sampler, per interface.
 */

import type { Place } from './places.ts';

/** Samplers and interfaces of one exporter that are remembered; further ones are ignored. */
const announcementsMax = 4_096;

export interface SamplingFields {
  interval: number;
  packetInterval: number;
  packetSpace: number;
  size: number;
  population: number;
}

/** "1 in so many" of IE 34 / 50, else (305 + 306) / 305, else 310 / 309; 0 where none is told. */
export function rateOf(fields: SamplingFields): number {
  if (fields.interval > 0) return fields.interval;
  if (fields.packetInterval > 0) return Math.round((fields.packetInterval + fields.packetSpace) / fields.packetInterval);
  if (fields.size > 0) return Math.round(fields.population / fields.size);
  return 0;
}

export class Sampling {
  readonly #place: Place;
  #domainRate = 0;
  readonly #samplers = new Map<number, number>();
  readonly #interfaces = new Map<number, number>();

  /** Samplers and interfaces that found no room. */
  refused = 0;

  constructor(place: Place) {
    this.#place = place;
  }

  /** samplerId 0: none is named; ingressInterface 0: the whole device. True where that is news. */
  announce(rate: number, samplerId: number, ingressInterface: number): boolean {
    if (rate <= 0) return false;
    if (samplerId > 0) return this.#set(this.#samplers, samplerId, rate);
    if (ingressInterface > 0) return this.#set(this.#interfaces, ingressInterface, rate);
    const isNews = this.#domainRate !== rate;
    this.#domainRate = rate;
    return isNews;
  }

  /** The rate for a record that does not tell its own; 0 where the exporter has not said. */
  rateFor(samplerId: number, ingressInterface: number): number {
    if (samplerId > 0 && this.#samplers.size > 0) {
      const rate = this.#samplers.get(samplerId);
      if (rate !== undefined) return rate;
    }
    if (this.#interfaces.size > 0) {
      const rate = this.#interfaces.get(ingressInterface);
      if (rate !== undefined) return rate;
    }
    return this.#domainRate;
  }

  get isEmpty(): boolean {
    return this.#domainRate === 0 && this.#samplers.size === 0 && this.#interfaces.size === 0;
  }

  clear(): void {
    this.#place.takeFields(-(this.#samplers.size + this.#interfaces.size));
    this.#domainRate = 0;
    this.#samplers.clear();
    this.#interfaces.clear();
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
    return [this.#domainRate, [...this.#samplers], [...this.#interfaces]];
  }

  /** Takes a state up again; false, and nothing changed, where it is none. */
  restore(state: unknown): boolean {
    if (!Array.isArray(state) || state.length !== 3) return false;
    const [domainRate, samplers, interfaces] = state as unknown[];
    if (!isRate(domainRate) || !areRates(samplers) || !areRates(interfaces)) return false;
    this.#domainRate = domainRate;
    for (const [id, rate] of samplers) this.#set(this.#samplers, id, rate);
    for (const [id, rate] of interfaces) this.#set(this.#interfaces, id, rate);
    return true;
  }
}

function isRate(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function areRates(value: unknown): value is [id: number, rate: number][] {
  return Array.isArray(value) && value.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isRate));
}
