/**
 * The grouping key of a NAR, compiled once per configuration. A NAR's values are followed through a tree of maps, one level per field,
 * to its group, so that no text is built for a flow whose values were seen before.
 * The tree and the accounts' table only remember what can be computed again: emptying them changes no result.
 */
import type { ExporterReport, FoldConfig, GroupField, Nar } from '../../schemas/types.ts';
import { addressText } from '../nar/address.ts';
import { integerOf, PrefixMap } from './prefix-map.ts';
import type { Usage } from './sums.ts';
import type { Window } from './window.ts';

/** Traffic that no prefix names. */
export const unassignedAccount = 'unassigned';

export interface Group {
  /** Unique per names and values of the fields, across configurations; its order is that of the outputs. */
  readonly key: string;
  readonly fields: readonly GroupField[];
  /** Where the group's last flow was added: most flows go to the same window as the one before. */
  window: Window | null;
  usage: Usage | null;
}

type Value = number | string;
type Level = Map<Value, Level | Group>;

interface Field {
  readonly name: string;
  readonly valueOf: (nar: Nar, report: ExporterReport) => Value;
  /** As it stands in outputs. */
  readonly textOf: (nar: Nar, report: ExporterReport) => string;
}

const addressFields = ['src_addr', 'dst_addr', 'next_hop'] as const;
const numberFields = [
  ...['src_port', 'dst_port', 'proto', 'tcp_flags', 'ip_tos', 'in_if', 'out_if', 'src_as', 'dst_as', 'src_net', 'dst_net'],
  ...['flow_direction', 'sampling_rate'],
] as (keyof Nar)[];
const exporterFields = ['sampler_address', 'observation_domain_id', 'protocol'] as const;

const groupsRememberedMax = 1 << 17;
/** A power of two; a hash is shifted to a place. */
const addressesRemembered = 1 << 16;
const addressShift = 16;

export class GroupKeys {
  readonly #fields: readonly Field[];
  readonly #last: Field | undefined;
  readonly #groupsMax: number;
  #root: Level = new Map();
  #groups = 0;

  /** @throws UnknownGroupField, RangeError for a prefix that is none */
  constructor(config: Pick<FoldConfig, 'group_by' | 'accounts'>, groupsMax = groupsRememberedMax) {
    const accounts = new Accounts(config.accounts.map(({ prefix, account }) => [prefix, account] as const));
    const fields = config.group_by.map((name) => compileField(name, accounts));
    this.#last = fields.at(-1);
    this.#fields = fields.slice(0, -1);
    this.#groupsMax = groupsMax;
  }

  groupOf(nar: Nar, report: ExporterReport): Group {
    let level = this.#root;
    for (const field of this.#fields) {
      const value = field.valueOf(nar, report);
      let next = level.get(value) as Level | undefined;
      if (!next) {
        next = new Map();
        level.set(value, next);
      }
      level = next;
    }
    const value = this.#last ? this.#last.valueOf(nar, report) : 0;
    return (level.get(value) as Group | undefined) ?? this.#remember(level, value, nar, report);
  }

  #remember(level: Level, value: Value, nar: Nar, report: ExporterReport): Group {
    const all = this.#last ? [...this.#fields, this.#last] : [];
    const fields = all.map((field) => ({ name: field.name, value: field.textOf(nar, report) }));
    const group: Group = { key: groupKey(fields), fields, window: null, usage: null };
    if (this.#groups >= this.#groupsMax) {
      this.#root = new Map();
      this.#groups = 0;
      return group;
    }
    this.#groups++;
    level.set(value, group);
    return group;
  }
}

/** A configuration groups by a field that this release does not know: it must not fold on. */
export class UnknownGroupField extends Error {}

/** Names and values, so that a window that two configurations grouped differently keeps them apart. */
export function groupKey(fields: readonly GroupField[]): string {
  return JSON.stringify(fields.flatMap(({ name, value }) => [name, value]));
}

function compileField(name: string, accounts: Accounts): Field {
  if (name === 'src_account') {
    return { name, valueOf: (nar) => accounts.of(nar.src_addr), textOf: (nar) => accounts.nameOf(accounts.of(nar.src_addr)) };
  }
  if (name === 'dst_account') {
    return { name, valueOf: (nar) => accounts.of(nar.dst_addr), textOf: (nar) => accounts.nameOf(accounts.of(nar.dst_addr)) };
  }
  const address = addressFields.find((field) => field === name);
  if (address) return { name, valueOf: (nar) => addressValue(nar[address]), textOf: (nar) => textOfAddress(nar[address]) };
  const number = numberFields.find((field) => field === name) as 'proto' | undefined;
  if (number) return { name, valueOf: (nar) => nar[number], textOf: (nar) => String(nar[number]) };
  const exporter = exporterFields.find((field) => field === name);
  if (exporter) return { name, valueOf: (_nar, report) => report[exporter], textOf: (_nar, report) => String(report[exporter]) };
  throw new UnknownGroupField(`group_by names ${name}, which this release does not know`);
}

/**
 * Which account an address belongs to, as a small number. IPv4 addresses are remembered in a table of fixed size, in which an address
 * takes the place of another one: a look-up costs one access to memory.
 */
class Accounts {
  readonly #prefixes: PrefixMap;
  readonly #names: string[] = [];
  readonly #numbers = new Map<string, number>();
  /** Pairs of an address and its account's number + 1; 0 where nothing is remembered. */
  readonly #table = new Int32Array(2 * addressesRemembered);

  constructor(entries: Iterable<readonly [prefix: string, account: string]>) {
    this.#prefixes = new PrefixMap(entries);
  }

  of(address: Uint8Array): number {
    if (address.length !== 4) return this.#find(address);
    const integer = integerOf(address);
    const slot = 2 * (Math.imul(integer, 0x9e3779b1) >>> addressShift);
    const remembered = this.#table[slot + 1] as number;
    if (remembered !== 0 && this.#table[slot] === integer) return remembered - 1;
    const account = this.#find(address);
    this.#table[slot] = integer;
    this.#table[slot + 1] = account + 1;
    return account;
  }

  nameOf(account: number): string {
    return this.#names[account] as string;
  }

  #find(address: Uint8Array): number {
    const name = this.#prefixes.find(address) ?? unassignedAccount;
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    this.#numbers.set(name, this.#names.length);
    return this.#names.push(name) - 1;
  }
}

/** Anything but an IPv4 address as text. */
function addressValue(address: Uint8Array): Value {
  if (address.length === 4) return integerOf(address);
  return Buffer.from(address.buffer, address.byteOffset, address.byteLength).toString('latin1');
}

function textOfAddress(address: Uint8Array): string {
  const isAddress = address.length === 0 || address.length === 4 || address.length === 16;
  return isAddress ? addressText(address) : `0x${Buffer.from(address).toString('hex')}`;
}
