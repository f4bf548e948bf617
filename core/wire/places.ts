/**
 * How much of the decoder's tables each address may take. Senders of datagrams can be forged, and exporters go wrong: no address gets more than its
 * part, and where some exporters are known by configuration all others together get half, so that a flood leaves the rest to those that are meant.
 */

export interface PlaceLimits {
  /** Exporters (address, observation domain, protocol) at a time. */
  readonly exportersMax: number;
  readonly exportersPerAddressMax: number;
  /** Fields of all templates and samplers together; each template costs a few more than it has. */
  readonly fieldsMax: number;
}

/** Of all fields, for one address: one in so many. */
const addressShare = 4;

/** A bound of which those that are not known may take a part only. */
class Room {
  readonly #max: number;
  readonly #othersMax: number;
  #used = 0;
  #ofOthers = 0;

  constructor(max: number, othersMax: number) {
    this.#max = max;
    this.#othersMax = othersMax;
  }

  /** Gives back where the amount is negative; false, and nothing taken, where there is no room. */
  take(amount: number, isKnown: boolean): boolean {
    if (amount > 0 && (this.#used + amount > this.#max || (!isKnown && this.#ofOthers + amount > this.#othersMax))) return false;
    this.#used += amount;
    if (!isKnown) this.#ofOthers += amount;
    return true;
  }
}

/** What one address has taken. */
export class Place {
  readonly address: string;
  readonly isKnown: boolean;
  readonly #fields: Room;
  readonly #fieldsMax: number;
  exporters = 0;
  /** Octets of data sets that wait for their templates. */
  waitingBytes = 0;
  #used = 0;

  constructor(address: string, isKnown: boolean, fields: Room, fieldsMax: number) {
    this.address = address;
    this.isKnown = isKnown;
    this.#fields = fields;
    this.#fieldsMax = fieldsMax;
  }

  /** Room for so many fields; gives back where the number is negative. False, and nothing taken, where there is none. */
  takeFields(amount: number): boolean {
    if (amount > 0 && this.#used + amount > this.#fieldsMax) return false;
    if (!this.#fields.take(amount, this.isKnown)) return false;
    this.#used += amount;
    return true;
  }
}

export class Places {
  readonly #limits: PlaceLimits;
  readonly #isKnown: ((address: string) => boolean) | null;
  readonly #exporters: Room;
  readonly #fields: Room;
  readonly #places = new Map<string, Place>();

  /** isKnown: null where the configuration names no exporter; all have all of it then. */
  constructor(limits: PlaceLimits, isKnown: ((address: string) => boolean) | null) {
    const others = (max: number) => (isKnown === null ? max : Math.floor(max / 2));
    this.#limits = limits;
    this.#isKnown = isKnown;
    this.#exporters = new Room(limits.exportersMax, others(limits.exportersMax));
    this.#fields = new Room(limits.fieldsMax, others(limits.fieldsMax));
  }

  /**
   * The place of an address, for one exporter more; null where there is none.
   * @param origin the address, and behind a slash or a hash what else tells its exporters apart
   */
  enter(origin: string): Place | null {
    const address = origin.split(/[/#]/, 1)[0] as string;
    const place =
      this.#places.get(address) ??
      new Place(address, this.#isKnown?.(address) ?? false, this.#fields, Math.ceil(this.#limits.fieldsMax / addressShare));
    if (place.exporters >= this.#limits.exportersPerAddressMax || !this.#exporters.take(1, place.isKnown)) return null;
    place.exporters++;
    this.#places.set(address, place);
    return place;
  }

  /** An exporter of the address is forgotten. */
  leave(place: Place): void {
    this.#exporters.take(-1, place.isKnown);
    place.exporters--;
    if (place.exporters === 0) this.#places.delete(place.address);
  }
}
