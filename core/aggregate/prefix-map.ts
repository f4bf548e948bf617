/** Longest prefix match over IPv4 and IPv6. An IPv6 prefix does not match IPv4 addresses, nor the reverse. */
import { addressBytes } from '../nar/address.ts';

interface PrefixesOfLength {
  readonly length: number;
  /** By the network's octets, host bits zero, as latin1 text. */
  readonly values: Map<string, string>;
}

export class PrefixMap {
  readonly #v4: PrefixesOfLength[];
  readonly #v6: PrefixesOfLength[];

  /** Of two entries for one prefix the last counts. @throws RangeError for what is not a prefix */
  constructor(entries: Iterable<readonly [prefix: string, value: string]>) {
    const byLength = new Map<string, PrefixesOfLength>();
    for (const [prefix, value] of entries) {
      const { network, length } = parsePrefix(prefix);
      const name = `${network.length}/${length}`;
      const prefixes = byLength.get(name) ?? { length, values: new Map<string, string>() };
      byLength.set(name, prefixes);
      prefixes.values.set(masked(network, length), value);
    }
    const longestFirst = (octets: string) =>
      [...byLength]
        .filter(([name]) => name.startsWith(`${octets}/`))
        .map(([, prefixes]) => prefixes)
        .sort((a, b) => b.length - a.length);
    this.#v4 = longestFirst('4');
    this.#v6 = longestFirst('16');
  }

  /** Of an address of 4 or 16 octets. */
  find(address: Uint8Array): string | undefined {
    const candidates = address.length === 4 ? this.#v4 : address.length === 16 ? this.#v6 : [];
    for (const { length, values } of candidates) {
      const value = values.get(masked(address, length));
      if (value !== undefined) return value;
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

function masked(address: Uint8Array, length: number): string {
  let text = '';
  for (let i = 0; i * 8 < length; i++) {
    const bits = Math.min(8, length - i * 8);
    text += String.fromCharCode((address[i] as number) & (0xff00 >> bits) & 0xff);
  }
  return text;
}
