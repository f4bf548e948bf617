/** Datagrams spoilt at random, the same ones for the same seed. */
import type { PseudoRandom } from '../../core/wire/pseudo-random.ts';

/** Values that lengths, counts and ids stumble over. */
const edges = [0, 1, 2, 3, 4, 5, 7, 9, 10, 16, 20, 48, 52, 127, 128, 255, 256, 257, 0x7fff, 0x8000, 0xfffe, 0xffff] as const;
const datagramOctetsMax = 9_000;
const mutationsMax = 6;

export class Mutator {
  readonly #random: PseudoRandom;
  /** What a part of is put in elsewhere. */
  readonly #others: readonly Buffer[];

  constructor(random: PseudoRandom, others: readonly Buffer[]) {
    this.#random = random;
    this.#others = others;
  }

  /** A copy with one to six changes, of any length. */
  anywhere(datagram: Uint8Array): Buffer {
    let spoilt: Buffer = Buffer.from(datagram);
    for (let changes = 1 + this.#random.below(mutationsMax); changes > 0; changes--) spoilt = this.#change(spoilt);
    return spoilt.subarray(0, datagramOctetsMax);
  }

  /** Changes octets from start to end in place, and no others. */
  within(datagram: Buffer, start: number, end: number): void {
    if (end <= start) return;
    for (let changes = 1 + this.#random.below(2 * mutationsMax); changes > 0; changes--) this.#overwrite(datagram, start, end);
  }

  /** So many octets at random. */
  noise(octets: number): Buffer {
    const noise = Buffer.alloc(octets);
    for (let at = 0; at < octets; at++) noise[at] = this.#random.below(256);
    return noise;
  }

  #change(datagram: Buffer): Buffer {
    const random = this.#random;
    const at = random.below(datagram.length + 1);
    switch (random.below(8)) {
      case 0:
        return datagram.subarray(0, at);
      case 1:
        return Buffer.concat([datagram, this.noise(random.below(40))]);
      case 2: {
        const other = this.#others[random.below(this.#others.length)] as Buffer;
        const from = random.below(other.length + 1);
        return Buffer.concat([datagram.subarray(0, at), other.subarray(from)]);
      }
      case 3: {
        const part = datagram.subarray(at, at + random.below(64));
        return Buffer.concat([datagram.subarray(0, at), part, datagram.subarray(at)]);
      }
      case 4:
        return Buffer.concat([datagram.subarray(0, at), datagram.subarray(at + random.below(64))]);
      default:
        this.#overwrite(datagram, 0, datagram.length);
        return datagram;
    }
  }

  #overwrite(datagram: Buffer, start: number, end: number): void {
    const random = this.#random;
    const octets = end - start;
    if (octets < 1) return;
    const at = start + random.below(octets);
    switch (random.below(4)) {
      case 0:
        datagram[at] = datagram[at]! ^ (1 << random.below(8));
        return;
      case 1:
        datagram[at] = random.below(256);
        return;
      default: {
        // Lengths and counts stand at even places.
        const even = start + (random.below(octets) & ~1);
        const edge = edges[random.below(edges.length)] as number;
        if (even + 2 <= end) datagram.writeUInt16BE(random.below(4) === 0 ? (datagram.readUInt16BE(even) + edge) & 0xffff : edge, even);
      }
    }
  }
}
