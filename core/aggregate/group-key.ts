/**
 * The grouping key of a NAR, compiled once per configuration. A NAR's values are followed through a tree of maps, one level per field,
 * to its group, so that no text is built for a flow whose values were seen before.
 * The tree and the accounts' cache only remember what can be computed again: emptying them changes no result.
 */
import type { ExporterReport, FoldConfig, GroupField, Nar } from '../../schemas/types.ts';
import { addressText } from '../nar/address.ts';
import { PrefixMap } from './prefix-map.ts';
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
const accountsRememberedMax = 1 << 16;

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
  if (name === 'src_account' || name === 'dst_account') {
    const address = name === 'src_account' ? 'src_addr' : 'dst_addr';
    const accountOf = (nar: Nar) => accounts.of(nar[address]);
    return { name, valueOf: accountOf, textOf: accountOf };
  }
  const address = addressFields.find((field) => field === name);
  if (address) return { name, valueOf: (nar) => addressValue(nar[address]), textOf: (nar) => textOfAddress(nar[address]) };
  const number = numberFields.find((field) => field === name) as 'proto' | undefined;
  if (number) return { name, valueOf: (nar) => nar[number], textOf: (nar) => String(nar[number]) };
  const exporter = exporterFields.find((field) => field === name);
  if (exporter) return { name, valueOf: (_nar, report) => report[exporter], textOf: (_nar, report) => String(report[exporter]) };
  throw new UnknownGroupField(`group_by names ${name}, which this release does not know`);
}

/** Which account an address belongs to. */
class Accounts {
  readonly #prefixes: PrefixMap;
  readonly #remembered = new Map<Value, string>();

  constructor(entries: Iterable<readonly [prefix: string, account: string]>) {
    this.#prefixes = new PrefixMap(entries);
  }

  of(address: Uint8Array): string {
    const value = addressValue(address);
    const remembered = this.#remembered.get(value);
    if (remembered !== undefined) return remembered;
    const account = this.#prefixes.find(address) ?? unassignedAccount;
    if (this.#remembered.size >= accountsRememberedMax) this.#remembered.clear();
    this.#remembered.set(value, account);
    return account;
  }
}

/** An IPv4 address as a 32-bit integer, which V8 keeps without an object; anything else as text. */
function addressValue(address: Uint8Array): Value {
  if (address.length !== 4) return Buffer.from(address.buffer, address.byteOffset, address.byteLength).toString('latin1');
  return ((address[0] as number) << 24) | ((address[1] as number) << 16) | ((address[2] as number) << 8) | (address[3] as number);
}

function textOfAddress(address: Uint8Array): string {
  const isAddress = address.length === 0 || address.length === 4 || address.length === 16;
  return isAddress ? addressText(address) : `0x${Buffer.from(address).toString('hex')}`;
}
