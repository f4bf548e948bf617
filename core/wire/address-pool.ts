/**
 * Addresses as shared buffers: traffic repeats its addresses, and a buffer per address and flow would cost more than the rest of the NAR.
 * Two direct-mapped tables of fixed size, so that hostile input cannot make them grow. Nobody may write into what comes out.
 */
const v4Slots = 1 << 16;
const v6Slots = 1 << 13;

export const noAddress: Buffer = Buffer.alloc(0);

export class AddressPool {
  readonly #v4Keys = new Uint32Array(v4Slots);
  readonly #v4: (Buffer | undefined)[] = new Array(v4Slots).fill(undefined);
  readonly #v6: (Buffer | undefined)[] = new Array(v6Slots).fill(undefined);

  v4(bytes: Uint8Array, at: number): Buffer {
    const key = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
    const slot = Math.imul(key, 0x9e3779b1) >>> 16;
    const known = this.#v4[slot];
    if (known !== undefined && this.#v4Keys[slot] === key) return known;
    const address = Buffer.allocUnsafe(4);
    address.writeUInt32BE(key, 0);
    this.#v4Keys[slot] = key;
    this.#v4[slot] = address;
    return address;
  }

  v6(bytes: Uint8Array, at: number): Buffer {
    let hash = 0;
    for (let i = at; i < at + 16; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
    const slot = (hash ^ (hash >>> 15)) & (v6Slots - 1);
    const known = this.#v6[slot];
    if (known !== undefined && sameOctets(known, bytes, at)) return known;
    const address = Buffer.allocUnsafe(16);
    for (let i = 0; i < 16; i++) address[i] = bytes[at + i]!;
    this.#v6[slot] = address;
    return address;
  }
}

function sameOctets(address: Buffer, bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < 16; i++) if (address[i] !== bytes[at + i]) return false;
  return true;
}
