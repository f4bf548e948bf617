/** Longest prefix match over IPv4 and IPv6. An IPv6 prefix does not match IPv4 addresses, nor the reverse. */
import { addressBytes } from '../nar/address.ts';

/** By the network's octets with host bits zero: an IPv4 network as a 32-bit integer, an IPv6 network as latin1 text. */
type Networks = Map<number | string, string>;

interface PrefixesOfLength {
  readonly length: number;
  readonly networks: Networks;
}

export class PrefixMap {
  /** Longest first. */
  readonly #v4: PrefixesOfLength[] = [];
  readonly #v6: PrefixesOfLength[] = [];

  /** Of two entries for one prefix the last counts. @throws RangeError for what is not a prefix */
  constructor(entries: Iterable<readonly [prefix: string, value: string]>) {
    for (const [prefix, value] of entries) {
      const { network, length } = parsePrefix(prefix);
      const isV4 = network.length === 4;
      const prefixes = isV4 ? this.#v4 : this.#v6;
      let ofLength = prefixes.find((candidate) => candidate.length === length);
      if (!ofLength) {
        ofLength = { length, networks: new Map() };
        prefixes.push(ofLength);
      }
      ofLength.networks.set(isV4 ? maskedV4(integerOf(network), length) : maskedV6(network, length), value);
    }
    for (const prefixes of [this.#v4, this.#v6]) prefixes.sort((a, b) => b.length - a.length);
  }

  /** Of an address of 4 or 16 octets; any other has no value. */
  find(address: Uint8Array): string | undefined {
    if (address.length === 4) {
      const integer = integerOf(address);
      for (const { length, networks } of this.#v4) {
        const value = networks.get(maskedV4(integer, length));
        if (value !== undefined) return value;
      }
    } else if (address.length === 16) {
      for (const { length, networks } of this.#v6) {
        const value = networks.get(maskedV6(address, length));
        if (value !== undefined) return value;
      }
    }
    return undefined;
  }
}

function parsePrefix(prefix: string): { network: Uint8Array; length: number } {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(prefix);
  if (!match) throw new RangeError(`not a prefix: ${prefix}`);
  const network = addressBytes(match[1] as string);
  const length = Number(match[2]);
  if (length > network.length * 8) throw new RangeError(`prefix is longer than its address: ${prefix}`);
  return { network, length };
}

/** The IPv4 address there as a signed 32-bit integer, which V8 keeps without an object. */
export function integerOf(bytes: Uint8Array, at = 0): number {
  return ((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number);
}

function maskedV4(integer: number, length: number): number {
  // A shift by 32 is a shift by 0.
  return length === 0 ? 0 : integer & (-1 << (32 - length));
}

function maskedV6(address: Uint8Array, length: number): string {
  let text = '';
  for (let i = 0; i * 8 < length; i++) {
    const bits = Math.min(8, length - i * 8);
    text += String.fromCharCode((address[i] as number) & (0xff00 >> bits) & 0xff);
  }
  return text;
}
