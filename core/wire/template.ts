/**
 * Templates (RFC 3954 section 5, RFC 7011 section 3.4): what an exporter says about the layout of its data records, compiled once into a decode
 * plan.
 */
import { type Cursor, readUnsigned } from './cursor.ts';
import {
  column,
  columnCount,
  detailsFrom,
  type Element,
  elements,
  initiatorRank,
  responderRank,
  reverseElements,
  reverseEnterprise,
  type TimeKind,
} from './element.ts';
import type { Place } from './places.ts';

export interface TemplateField {
  readonly element: number;
  /** Private enterprise number; 0 for IANA's elements, and always in NetFlow v9. */
  readonly enterprise: number;
  /** In octets; variableLength where each record says it. */
  readonly octets: number;
}

export const variableLength = 0xffff;

/**
 * Where a record's values lie, per column: offset from the record's start x 32 + octets, so that one load tells both; -1 where it has none.
 */
export type Layout = Int32Array;

/** Bits of a layout's entry that tell the octets. */
export const octetsBits = 5;
export const octetsMask = 31;

/** A value of the record, 0 where it has none. */
export function valueAt(layout: Layout, bytes: Uint8Array, base: number, place: number): number {
  const entry = layout[place]!;
  return entry < 0 ? 0 : readUnsigned(bytes, base + (entry >> octetsBits), entry & octetsMask);
}

export interface Template {
  readonly id: number;
  readonly fields: readonly TemplateField[];
  /** The first so many fields are scopes; -1 marks a template of flow records. */
  readonly scopes: number;
  /** Octets of a record, or the fewest it can have where fields vary. */
  readonly recordOctets: number;
  readonly varies: boolean;
  /** Of records of fixed length: filled in once. Else it is filled in again for each record. */
  readonly layout: Layout;
  /** Per field what it fills in, for records whose layout varies. */
  readonly targets: readonly (Element | undefined)[];
  readonly startKind: TimeKind;
  readonly endKind: TimeKind;
  readonly durationKind: TimeKind;
  readonly reverseStartKind: TimeKind;
  readonly reverseEndKind: TimeKind;
  /** Its records count a second direction, too. */
  readonly hasReverse: boolean;
  /** Its records tell an event: of a connection that began or was denied, say, which is no usage. */
  readonly hasEvent: boolean;
  /** Which families of addresses its records have. */
  readonly hasV4: boolean;
  readonly hasV6: boolean;
  /** Its records tell their own sampling rate. */
  readonly hasRate: boolean;
  /** Its records have fields of NarDetails. */
  readonly hasDetails: boolean;
  learnedMs: number;
  /** The learnedMs that is kept for the next process; it may lag behind by a part of the expiry. */
  savedMs: number;
}

function elementOf(field: TemplateField): Element | undefined {
  if (field.enterprise === 0) return elements.get(field.element);
  return field.enterprise === reverseEnterprise ? reverseElements.get(field.element) : undefined;
}

/** A field that does not fill in anything: unknown, of zero length, or of a width that its element cannot have. */
function usable(element: Element | undefined, octets: number): element is Element {
  return element !== undefined && octets > 0 && (element.octetsExact === 0 || octets === element.octetsExact || octets === variableLength);
}

/** Which fields of the template count: the best rank of each column, and of those the last. */
function chooseTargets(fields: readonly TemplateField[], scopes: number): (Element | undefined)[] {
  const best = new Map<number, number>();
  const chosen = fields.map((field, index) => {
    const element = index < scopes ? undefined : elementOf(field);
    if (!usable(element, field.octets)) return undefined;
    best.set(element.column, Math.min(best.get(element.column) ?? Number.POSITIVE_INFINITY, element.rank));
    return element;
  });
  const isBest = ({ column: place, rank }: Element) => best.get(place) === rank;
  // A responder's count beside any other than the initiator's may be part of that.
  const hasInitiator = (best.get(column.octets) ?? best.get(column.packets)) === initiatorRank;
  const counts = (element: Element) => hasInitiator || element.rank !== responderRank || !isReverseCount(element);
  return chosen.map((element) => (element !== undefined && isBest(element) && counts(element) ? element : undefined));
}

function isReverseCount(element: Element | undefined): boolean {
  return element?.column === column.reverseOctets || element?.column === column.reversePackets;
}

const v4Columns: ReadonlySet<number> = new Set([column.srcAddr4, column.dstAddr4]);
const v6Columns: ReadonlySet<number> = new Set([column.srcAddr6, column.dstAddr6]);
const rateColumns: ReadonlySet<number> = new Set([column.samplingInterval, column.samplingPacketInterval, column.samplingSize]);

function timeKind(targets: readonly (Element | undefined)[], wanted: number): TimeKind {
  return targets.findLast((element) => element?.column === wanted)?.time ?? 'none';
}

/** Compiles a template. scopes: number of scope fields, -1 for flow records. */
export function compileTemplate(id: number, fields: readonly TemplateField[], scopes: number, learnedMs: number): Template {
  const targets = chooseTargets(fields, scopes);
  const varies = fields.some((field) => field.octets === variableLength);
  const hasDetails = targets.some((element) => element !== undefined && element.column >= detailsFrom);
  const layout: Layout = new Int32Array(hasDetails ? columnCount : detailsFrom).fill(-1);
  let recordOctets = 0;
  fields.forEach((field, index) => {
    const element = targets[index];
    if (!varies && element !== undefined) place(layout, element, recordOctets, field.octets);
    // A field of variable length takes at least the one octet that tells its length.
    recordOctets += field.octets === variableLength ? 1 : field.octets;
  });
  return {
    id,
    fields,
    scopes,
    recordOctets,
    varies,
    layout,
    targets,
    startKind: timeKind(targets, column.start),
    endKind: timeKind(targets, column.end),
    durationKind: timeKind(targets, column.duration),
    reverseStartKind: timeKind(targets, column.reverseStart),
    reverseEndKind: timeKind(targets, column.reverseEnd),
    hasReverse: targets.some(isReverseCount),
    hasEvent: targets.some((element) => element?.column === column.event),
    hasV4: targets.some((element) => element !== undefined && v4Columns.has(element.column)),
    hasV6: targets.some((element) => element !== undefined && v6Columns.has(element.column)),
    hasRate: targets.some((element) => element !== undefined && rateColumns.has(element.column)),
    hasDetails,
    learnedMs,
    savedMs: Number.NEGATIVE_INFINITY,
  };
}

function place(layout: Layout, element: Element, offset: number, octets: number): void {
  const excess = Math.max(0, octets - element.octetsMax);
  layout[element.column] = ((offset + excess) << octetsBits) | (octets - excess);
}

/** Where the content of the field lies that was measured last; one object, so that measuring allocates nothing. */
export const extent = { start: 0, octets: 0 };

/** Measures the field at `at` (RFC 7011 section 7); false where it does not end before `end`. */
export function measureField(field: TemplateField, bytes: Uint8Array, at: number, end: number): boolean {
  let start = at;
  let octets = field.octets;
  if (octets === variableLength) {
    if (start + 1 > end) return false;
    octets = bytes[start++]!;
    if (octets === 255) {
      if (start + 2 > end) return false;
      octets = (bytes[start]! << 8) | bytes[start + 1]!;
      start += 2;
    }
  }
  if (start + octets > end) return false;
  extent.start = start;
  extent.octets = octets;
  return true;
}

/** Fills the layout for the record at `at`, offsets counted from `at`; gives the record's octets, or -1 where it does not end before `end`. */
export function layOut(template: Template, bytes: Uint8Array, at: number, end: number): number {
  const { layout, fields, targets } = template;
  layout.fill(-1);
  let next = at;
  for (let i = 0; i < fields.length; i++) {
    const field = fields[i]!;
    if (!measureField(field, bytes, next, end)) return -1;
    const element = targets[i];
    if (usable(element, extent.octets)) place(layout, element, extent.start - at, extent.octets);
    next = extent.start + extent.octets;
  }
  return next - at;
}

/** Reads `count` field specifiers; undefined where they do not end before the cursor does. withEnterprise: RFC 7011 section 3.2, else RFC 3954. */
export function readFields(cursor: Cursor, count: number, withEnterprise: boolean): TemplateField[] | undefined {
  const fields: TemplateField[] = [];
  for (let i = 0; i < count; i++) {
    if (!cursor.has(4)) return undefined;
    const element = cursor.u16();
    const octets = cursor.u16();
    const hasEnterprise = withEnterprise && (element & 0x8000) !== 0;
    if (hasEnterprise && !cursor.has(4)) return undefined;
    fields.push(hasEnterprise ? { element: element & 0x7fff, enterprise: cursor.u32(), octets } : { element, enterprise: 0, octets });
  }
  return fields;
}

export interface TemplateLimits {
  readonly templatesMax: number;
  readonly expiryMs: number;
  /** Where the templates' fields count. */
  readonly place: Place;
}

/** What a template takes beside its fields, in fields. */
const templateCost = 8;

/** What is kept for the next process is written again when it is older than this share of the expiry, and else only when it changes. */
export const savedAnewShare = 4;

/**
 * The templates of one exporter (address, observation domain, protocol). The transport session is not part of the scope: devices change source
 * ports.
 */
export class TemplateStore {
  readonly #limits: TemplateLimits;
  readonly #templates = new Map<number, Template>();
  /** Templates that were learnt, changed or removed, or not saved for long. */
  readonly unsaved = new Set<number>();

  constructor(limits: TemplateLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#templates.size;
  }

  find(id: number, nowMs: number): Template | undefined {
    const template = this.#templates.get(id);
    return template !== undefined && nowMs - template.learnedMs <= this.#limits.expiryMs ? template : undefined;
  }

  /** False where there is no room. A repeated template keeps its plan, a different one replaces it. */
  learn(id: number, fields: readonly TemplateField[], scopes: number, nowMs: number): boolean {
    const known = this.#templates.get(id);
    if (known !== undefined && known.scopes === scopes && sameFields(known.fields, fields)) {
      known.learnedMs = nowMs;
      if (nowMs - known.savedMs > this.#limits.expiryMs / savedAnewShare) this.unsaved.add(id);
      return true;
    }
    if (known === undefined && this.#templates.size >= this.#limits.templatesMax) return false;
    if (!this.#limits.place.takeFields(costOf(fields) - (known === undefined ? 0 : costOf(known.fields)))) return false;
    const template = compileTemplate(id, fields, scopes, nowMs);
    if (known !== undefined) template.savedMs = known.savedMs;
    this.#templates.set(id, template);
    this.unsaved.add(id);
    return true;
  }

  /** Expired ones included. */
  get(id: number): Template | undefined {
    return this.#templates.get(id);
  }

  ids(): Iterable<number> {
    return this.#templates.keys();
  }

  withdraw(id: number): boolean {
    const known = this.#templates.get(id);
    if (known === undefined) return false;
    this.#templates.delete(id);
    this.#limits.place.takeFields(-costOf(known.fields));
    if (known.savedMs > Number.NEGATIVE_INFINITY) this.unsaved.add(id);
    else this.unsaved.delete(id);
    return true;
  }

  /** RFC 7011 section 8.1: all templates of one kind. Returns how many. */
  withdrawAll(ofOptions: boolean): number {
    return this.#removeWhere((template) => template.scopes >= 0 === ofOptions);
  }

  clear(): void {
    this.#removeWhere(() => true);
  }

  expire(nowMs: number): number {
    return this.#removeWhere((template) => nowMs - template.learnedMs > this.#limits.expiryMs);
  }

  #removeWhere(matches: (template: Template) => boolean): number {
    let removed = 0;
    for (const [id, template] of this.#templates) {
      if (!matches(template)) continue;
      this.withdraw(id);
      removed++;
    }
    return removed;
  }
}

function costOf(fields: readonly TemplateField[]): number {
  return fields.length + templateCost;
}

function sameFields(a: readonly TemplateField[], b: readonly TemplateField[]): boolean {
  if (a.length !== b.length) return false;
  return a.every((field, i) => {
    const other = b[i]!;
    return field.element === other.element && field.enterprise === other.enterprise && field.octets === other.octets;
  });
}
