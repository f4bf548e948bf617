/**
 * The grouping key of a NAR, compiled once per configuration. A NAR's values are followed through a tree of maps, one level per field,
 * to its group, so that no text is built for a flow whose values were seen before.
 * The tree and the accounts' table only remember what can be computed again: emptying them changes no result.
 */
import type { ExporterReport, FoldConfig, GroupField } from '../../schemas/types.ts';
import { addressText } from '../nar/address.ts';
import { type DetailNumberField, type DetailOctetField, detailNumberFields, detailOctetFields, detailText } from '../nar/details.ts';
import { type AddressField, addressFields, type NarColumns, type NumberField, numberAt, numberFields } from './nar-columns.ts';
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
  /** Of the NAR with this index. */
  readonly value: (nars: NarColumns, index: number, report: ExporterReport) => Value;
  /** As it stands in outputs. */
  readonly text: (nars: NarColumns, index: number, report: ExporterReport) => string;
}

/** What is summed up or tells when is no property to group by. */
const measures: readonly NumberField[] = ['bytes', 'packets', 'time_flow_start_ms', 'time_flow_end_ms', 'time_received_ms'];
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

  groupOf(nars: NarColumns, index: number, report: ExporterReport): Group {
    let level = this.#root;
    for (const field of this.#fields) {
      const value = field.value(nars, index, report);
      let next = level.get(value) as Level | undefined;
      if (!next) {
        next = new Map();
        level.set(value, next);
      }
      level = next;
    }
    const value = this.#last ? this.#last.value(nars, index, report) : 0;
    return (level.get(value) as Group | undefined) ?? this.#remember(level, value, nars, index, report);
  }

  #remember(level: Level, value: Value, nars: NarColumns, index: number, report: ExporterReport): Group {
    const all = this.#last ? [...this.#fields, this.#last] : [];
    const fields = all.map((field) => ({ name: field.name, value: field.text(nars, index, report) }));
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
  if (name === 'src_account') return accountField(name, 'src_addr', accounts);
  if (name === 'dst_account') return accountField(name, 'dst_addr', accounts);
  const address = addressFields.find((field) => field === name);
  if (address) return addressField(address);
  const number = numberFields.find((field) => field === name && !measures.includes(field));
  if (number) return numberField(number);
  const detail = detailOctetFields.find((field) => field === name);
  if (detail) return detailOctetField(detail);
  const detailNumber = detailNumberFields.find((field) => field === name);
  if (detailNumber) return detailNumberField(detailNumber);
  const exporter = exporterFields.find((field) => field === name);
  if (exporter) return { name, value: (_nars, _index, report) => report[exporter], text: (_nars, _index, report) => String(report[exporter]) };
  throw new UnknownGroupField(`group_by names ${name}, which this release does not know`);
}

function accountField(name: string, address: AddressField, accounts: Accounts): Field {
  const at = addressFields.indexOf(address);
  const value = ({ bytes, addresses }: NarColumns, index: number) => {
    const { start, octets } = addresses[at] as NarColumns['addresses'][number];
    return accounts.of(bytes, start[index] as number, octets[index] as number);
  };
  return { name, value, text: (nars, index) => accounts.nameOf(value(nars, index)) };
}

function addressField(name: AddressField): Field {
  const at = addressFields.indexOf(name);
  const octetsOf = ({ bytes, addresses }: NarColumns, index: number) => {
    const { start, octets } = addresses[at] as NarColumns['addresses'][number];
    return bytes.subarray(start[index], (start[index] as number) + (octets[index] as number));
  };
  const value = (nars: NarColumns, index: number) => {
    const { start, octets } = nars.addresses[at] as NarColumns['addresses'][number];
    return octets[index] === 4 ? integerOf(nars.bytes, start[index]) : latin1(octetsOf(nars, index));
  };
  return { name, value, text: (nars, index) => textOfAddress(octetsOf(nars, index)) };
}

function numberField(name: NumberField): Field {
  const at = numberAt(name);
  const value = ({ numbers }: NarColumns, index: number) => (numbers[at] as Float64Array)[index] as number;
  return { name, value, text: (nars, index) => String(value(nars, index)) };
}

function detailOctetField(name: DetailOctetField): Field {
  const value = (nars: NarColumns, index: number) => latin1(nars.detailOctets(index, name));
  return { name, value, text: (nars, index) => detailText(name, nars.detailOctets(index, name)) };
}

function detailNumberField(name: DetailNumberField): Field {
  const value = (nars: NarColumns, index: number) => nars.detailNumber(index, name);
  return { name, value, text: (nars, index) => String(value(nars, index)) };
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

  of(bytes: Uint8Array, start: number, octets: number): number {
    if (octets !== 4) return this.#find(bytes.subarray(start, start + octets));
    const integer = integerOf(bytes, start);
    const slot = 2 * (Math.imul(integer, 0x9e3779b1) >>> addressShift);
    const remembered = this.#table[slot + 1] as number;
    if (remembered !== 0 && this.#table[slot] === integer) return remembered - 1;
    const account = this.#find(bytes.subarray(start, start + octets));
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

function latin1(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength).toString('latin1');
}

function textOfAddress(address: Uint8Array): string {
  const isAddress = address.length === 0 || address.length === 4 || address.length === 16;
  return isAddress ? addressText(address) : `0x${Buffer.from(address).toString('hex')}`;
}
