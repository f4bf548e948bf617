/**
 * Sampling rates that an exporter announces in options records (RFC 3954 section 6.1, RFC 5476): for the whole domain, per sampler, per interface.
 */

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
  #domainRate = 0;
  readonly #samplers = new Map<number, number>();
  readonly #interfaces = new Map<number, number>();

  /** samplerId 0: none is named; ingressInterface 0: the whole device. */
  announce(rate: number, samplerId: number, ingressInterface: number): void {
    if (rate <= 0) return;
    if (samplerId > 0) set(this.#samplers, samplerId, rate);
    else if (ingressInterface > 0) set(this.#interfaces, ingressInterface, rate);
    else this.#domainRate = rate;
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
}

function set(rates: Map<number, number>, id: number, rate: number): void {
  if (rates.size < announcementsMax || rates.has(id)) rates.set(id, rate);
}
