/** Which exporters are heard at all, and for which places are kept, by the prefixes that the configuration names. */
import { PrefixMap } from '../../core/aggregate/prefix-map.ts';
import { addressBytes } from '../../core/nar/address.ts';

export interface ExporterListsConfig {
  readonly exporters_allow: readonly string[];
  readonly exporters_known: readonly string[];
}

/** Verdicts that are remembered, so that an address is looked up once and not for each of its datagrams. */
const verdictsMax = 20_000;
const everybody = /\/0$/;

export class ExporterLists {
  readonly #allowed: PrefixMap;
  readonly #known: PrefixMap;
  readonly #allowsAll: boolean;
  readonly #namesSome: boolean;
  readonly #verdicts = new Map<string, boolean>();
  /** Of exporters that are not allowed. */
  readonly counters = { datagrams: 0 };

  /** Prefixes of `exporters_allow` that are not those of everybody name exporters, too. */
  constructor({ exporters_allow: allow, exporters_known: known }: ExporterListsConfig) {
    const named = [...known, ...allow.filter((prefix) => !everybody.test(prefix))];
    this.#allowed = prefixes(allow);
    this.#known = prefixes(named);
    this.#allowsAll = ['0.0.0.0/0', '::/0'].every((all) => allow.includes(all));
    this.#namesSome = named.length > 0;
  }

  /** address: as text, IPv4 without the IPv6 prefix. */
  allows(address: string): boolean {
    if (this.#allowsAll) return true;
    let verdict = this.#verdicts.get(address);
    if (verdict === undefined) {
      verdict = isIn(this.#allowed, address);
      if (this.#verdicts.size >= verdictsMax) this.#verdicts.clear();
      this.#verdicts.set(address, verdict);
    }
    return verdict;
  }

  /** null where the configuration names no exporter. */
  get isKnown(): ((address: string) => boolean) | null {
    return this.#namesSome ? (address) => isIn(this.#known, address) : null;
  }
}

function prefixes(list: readonly string[]): PrefixMap {
  return new PrefixMap(list.map((prefix) => [prefix, prefix] as const));
}

function isIn(map: PrefixMap, address: string): boolean {
  // A link-local address names its interface behind a percent sign.
  return map.find(addressBytes(address.split('%', 1)[0] as string)) !== undefined;
}
