/**
 * Sampling rates that an exporter announces in options records (RFC 3954 section 6.1, RFC 5476): per sampler, per interface, for the whole device,
 * per line card. Where nothing tells a record's rate it is 0, unknown: it is never guessed.
 */

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
  readonly #configuredRate: number;
  #deviceRate = 0;
  readonly #samplers = new Map<number, number>();
  readonly #interfaces = new Map<number, number>();
  readonly #lineCards = new Map<number, number>();
  /** That of all line cards, 0 where they differ: records do not tell their line card. */
  #lineCardRate = 0;

  /** configuredRate: what the operator says of an exporter that does not say it itself; 0 for nothing. */
  constructor(configuredRate = 0) {
    this.#configuredRate = configuredRate;
  }

  announce(rate: number, scope: SamplingScope): void {
    if (rate <= 0) return;
    if (scope.samplerId > 0) set(this.#samplers, scope.samplerId, rate);
    else if (scope.interface > 0) set(this.#interfaces, scope.interface, rate);
    else if (scope.lineCard > 0) this.#announceLineCard(scope.lineCard, rate);
    else this.#deviceRate = rate;
  }

  #announceLineCard(lineCard: number, rate: number): void {
    set(this.#lineCards, lineCard, rate);
    this.#lineCardRate = rate;
    for (const other of this.#lineCards.values()) if (other !== rate) this.#lineCardRate = 0;
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
}

function set(rates: Map<number, number>, id: number, rate: number): void {
  if (rates.size < announcementsMax || rates.has(id)) rates.set(id, rate);
}
