/** A bounds-checked reader over a part of one datagram, big-endian. Reading past the end gives 0 and moves nowhere: ask `has` first. */
export class Cursor {
  readonly bytes: Uint8Array;
  readonly end: number;
  #at: number;

  constructor(bytes: Uint8Array, start: number, end: number) {
    this.bytes = bytes;
    this.end = Math.min(end, bytes.length);
    this.#at = start;
  }

  get at(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.end - this.#at;
  }

  has(octets: number): boolean {
    return this.end - this.#at >= octets;
  }

  u16(): number {
    return this.#take(2);
  }

  u32(): number {
    return this.#take(4);
  }

  skip(octets: number): void {
    this.#at = Math.min(this.end, this.#at + octets);
  }

  #take(octets: number): number {
    if (!this.has(octets)) return 0;
    const value = readUnsigned(this.bytes, this.#at, octets);
    this.#at += octets;
    return value;
  }
}

/**
 * An unsigned big-endian integer of 0 to 8 octets (RFC 7011 section 6.2, reduced-size encoding). The caller has checked the bounds.
 * From 2^53 on the result is rounded; it is then never below 2^53, so that an implausible counter is still seen as one.
 */
export function readUnsigned(bytes: Uint8Array, at: number, octets: number): number {
  switch (octets) {
    case 1:
      return bytes[at]!;
    case 2:
      return (bytes[at]! << 8) | bytes[at + 1]!;
    case 4:
      return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
    case 8:
      return readUnsigned(bytes, at, 4) * 0x1_0000_0000 + readUnsigned(bytes, at + 4, 4);
    default: {
      let value = 0;
      for (let i = 0; i < octets; i++) value = value * 256 + bytes[at + i]!;
      return value;
    }
  }
}
