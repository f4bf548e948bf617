/**
 * What of an exporter outlives the collector's process: its templates, and what its options records said. Each is a short text under a name that has
 * the exporter's key; whoever keeps them need not understand either. They are written when they change, and now and then while they are confirmed,
 * so that their age tells what must not be believed any more.
 */
import type { DecoderCounters } from './decoder-counters.ts';
import type { Exporter } from './exporter.ts';
import { dataSetIdMin } from './message.ts';
import { netflow9Scope } from './netflow9.ts';
import { savedAnewShare, type TemplateField } from './template.ts';

/** null: it is gone. */
export type MemoryChange = readonly [name: string, text: string | null];

export interface MemoryLimits {
  readonly templateExpiryMs: number;
  readonly fieldsPerTemplateMax: number;
}

/** What one call hands out at most; the rest waits for the next. */
const changesMax = 1_000;
const changedCharactersMax = 256 * 1024;
/** What may wait for its exporter to be heard; each template takes some 12 characters a field. */
const heldCharactersMax = 32 * 1024 * 1024;
/** Removals that wait while nobody takes them; what is not removed is too old for the next process, which removes it. */
const removalsMax = 20_000;
/** The stamps are this machine's or its predecessor's: so far apart their clocks may be. */
const clockToleranceMs = 60_000;
/** In place of a template's id. */
const optionsPart = 'options';

interface HeldEntry {
  readonly text: string;
  readonly heardMs: number;
}

interface TemplateEntry {
  readonly heardMs: number;
  readonly scopes: number;
  readonly fields: readonly TemplateField[];
}

interface OptionsEntry {
  readonly heardMs: number;
  readonly systemInitMs: number;
  readonly sampling: unknown;
}

export class ExporterMemory {
  readonly #limits: MemoryLimits;
  readonly #counters: DecoderCounters;
  /** By exporter's key and part, of exporters that were not heard yet. */
  readonly #held = new Map<string, Map<string, HeldEntry>>();
  #heldCharacters = 0;
  /** Beside what the exporters themselves know to be unsaved. */
  readonly #changes = new Map<string, string | null>();

  constructor(limits: MemoryLimits, counters: DecoderCounters) {
    this.#limits = limits;
    this.#counters = counters;
  }

  /** Takes what an earlier process kept. What is corrupt or too old is counted, and handed out to be removed. */
  restore(entries: Iterable<MemoryChange>, nowMs: number): void {
    for (const [name, text] of entries) {
      const [key, part] = partsOf(name);
      const entry = text === null ? undefined : this.#read(name, part, text);
      if (text === null || entry === undefined) this.#ignore(name, 'corrupt');
      else if (this.#isOld(entry.heardMs, nowMs) || entry.heardMs > nowMs + clockToleranceMs) this.#ignore(name, 'expired');
      else if (this.#heldCharacters + text.length > heldCharactersMax) this.#ignore(name, 'refused');
      else this.#hold(key, part, { text, heardMs: Math.min(entry.heardMs, nowMs) });
    }
  }

  /** Gives an exporter that is heard for the first time what is held of it. */
  recall(exporter: Exporter, nowMs: number): void {
    const held = this.#held.get(exporter.key);
    if (held === undefined) return;
    this.#held.delete(exporter.key);
    for (const [part, { text, heardMs }] of held) {
      this.#heldCharacters -= text.length;
      const name = `${exporter.key}|${part}`;
      const because = this.#isOld(heardMs, nowMs) ? 'expired' : this.#give(exporter, name, part, { text, heardMs });
      if (because !== null) {
        this.#ignore(name, because);
        continue;
      }
      exporter.isRecalled = true;
      this.#counters.recalledTemplates++;
    }
  }

  /** The exporter's first datagram shows that it started anew: an id may stand for something else now, and sampling may be another. */
  disown(exporter: Exporter): void {
    const ids = [...exporter.templates.ids()];
    for (const id of ids) exporter.templates.withdraw(id);
    const hadOptions = exporter.forgetOptions();
    this.#counters.ignoredTemplates.restarted += ids.length + (hadOptions ? 1 : 0);
  }

  /** Forgets what is held of exporters that do not come back. */
  expire(nowMs: number): void {
    for (const [key, held] of this.#held) {
      for (const [part, { text, heardMs }] of held) {
        if (!this.#isOld(heardMs, nowMs)) continue;
        held.delete(part);
        this.#heldCharacters -= text.length;
        this.#ignore(`${key}|${part}`, 'expired');
      }
      if (held.size === 0) this.#held.delete(key);
    }
  }

  /** The exporter is forgotten, and what was kept of it with it. */
  forget(exporter: Exporter): void {
    for (const id of new Set([...exporter.templates.ids(), ...exporter.templates.unsaved])) this.#remove(`${exporter.key}|${id}`);
    if (Number.isFinite(exporter.optionsSavedMs)) this.#remove(`${exporter.key}|${optionsPart}`);
  }

  /** Whoever keeps it may have lost it: everything is handed out again. */
  saveAgain(exporters: Iterable<Exporter>): void {
    for (const [key, held] of this.#held) for (const [part, { text }] of held) this.#changes.set(`${key}|${part}`, text);
    for (const exporter of exporters) {
      for (const id of exporter.templates.ids()) exporter.templates.unsaved.add(id);
      exporter.optionsUnsaved = exporter.hasOptions();
    }
  }

  /** Some of what changed since the last call: to be called again while it gives anything. */
  take(exporters: Iterable<Exporter>): MemoryChange[] {
    const changes = new Map<string, string | null>();
    let characters = 0;
    const isFull = () => changes.size >= changesMax || characters >= changedCharactersMax;
    const put = (name: string, text: string | null) => {
      changes.set(name, text);
      characters += name.length + (text?.length ?? 0);
      if (text !== null) this.#counters.savedTemplates++;
    };
    for (const [name, text] of this.#changes) {
      if (isFull()) return [...changes];
      this.#changes.delete(name);
      put(name, text);
    }
    for (const exporter of exporters) {
      for (const id of exporter.templates.unsaved) {
        if (isFull()) return [...changes];
        exporter.templates.unsaved.delete(id);
        const name = `${exporter.key}|${id}`;
        put(name, templateText(name, exporter, id));
      }
      if (!this.#isOptionsDue(exporter)) continue;
      if (isFull()) return [...changes];
      const name = `${exporter.key}|${optionsPart}`;
      put(name, optionsText(name, exporter));
    }
    return [...changes];
  }

  #isOptionsDue(exporter: Exporter): boolean {
    const confirmedMs = exporter.lastMs - exporter.optionsSavedMs;
    return exporter.optionsUnsaved || (confirmedMs > this.#limits.templateExpiryMs / savedAnewShare && exporter.hasOptions());
  }

  /** Why it cannot be taken; null where it is. */
  #give(exporter: Exporter, name: string, part: string, { text, heardMs }: HeldEntry): 'corrupt' | 'refused' | null {
    const json = checked(name, text);
    if (part === optionsPart) {
      const options = readOptions(json);
      if (options === undefined || !exporter.sampling.restore(options.sampling)) return 'corrupt';
      exporter.systemInitMs = options.systemInitMs;
      exporter.optionsSavedMs = heardMs;
      return null;
    }
    const template = readTemplate(json, this.#limits.fieldsPerTemplateMax);
    const id = Number(part);
    if (template === undefined) return 'corrupt';
    if (!exporter.templates.learn(id, template.fields, template.scopes, heardMs)) return 'refused';
    exporter.templates.unsaved.delete(id);
    exporter.templates.get(id)!.savedMs = heardMs;
    return null;
  }

  #read(name: string, part: string, text: string): TemplateEntry | OptionsEntry | undefined {
    const json = checked(name, text);
    return part === optionsPart ? readOptions(json) : isDataSetId(part) ? readTemplate(json, this.#limits.fieldsPerTemplateMax) : undefined;
  }

  #hold(key: string, part: string, entry: HeldEntry): void {
    const held = this.#held.get(key);
    if (held === undefined) this.#held.set(key, new Map([[part, entry]]));
    else held.set(part, entry);
    this.#heldCharacters += entry.text.length;
  }

  #ignore(name: string, because: 'corrupt' | 'expired' | 'refused'): void {
    this.#counters.ignoredTemplates[because]++;
    this.#remove(name);
  }

  #remove(name: string): void {
    if (this.#changes.size < removalsMax) this.#changes.set(name, null);
  }

  #isOld(heardMs: number, nowMs: number): boolean {
    return nowMs - heardMs > this.#limits.templateExpiryMs;
  }
}

function partsOf(name: string): [key: string, part: string] {
  const bar = name.lastIndexOf('|');
  return [name.slice(0, Math.max(0, bar)), name.slice(bar + 1)];
}

function isDataSetId(part: string): boolean {
  return /^\d{3,5}$/.test(part) && Number(part) >= dataSetIdMin && Number(part) <= 0xffff;
}

function templateText(name: string, exporter: Exporter, id: number): string | null {
  const template = exporter.templates.get(id);
  if (template === undefined) return null;
  template.savedMs = template.learnedMs;
  const fields = template.fields.flatMap(({ element, octets, enterprise }) => [element, octets, enterprise]);
  return checkable(name, [template.learnedMs, template.scopes, fields]);
}

function optionsText(name: string, exporter: Exporter): string | null {
  exporter.optionsUnsaved = false;
  exporter.optionsSavedMs = exporter.lastMs;
  return exporter.hasOptions() ? checkable(name, [exporter.lastMs, exporter.systemInitMs, exporter.sampling.state()]) : null;
}

function readTemplate(json: unknown, fieldsMax: number): TemplateEntry | undefined {
  if (!Array.isArray(json) || json.length !== 3) return undefined;
  const [heardMs, scopes, numbers] = json as unknown[];
  if (!isNumberUpTo(heardMs, Number.MAX_SAFE_INTEGER) || !Array.isArray(numbers) || numbers.length % 3 !== 0) return undefined;
  const fields: TemplateField[] = [];
  for (let i = 0; i < numbers.length; i += 3) {
    const [element, octets, enterprise] = numbers.slice(i, i + 3) as unknown[];
    if (!isNumberUpTo(element, 0xffff) || !isNumberUpTo(octets, 0xffff) || !isNumberUpTo(enterprise, netflow9Scope)) return undefined;
    fields.push({ element, octets, enterprise });
  }
  if (fields.length === 0 || fields.length > fieldsMax || (scopes !== -1 && !isNumberUpTo(scopes, fields.length))) return undefined;
  return { heardMs, scopes, fields };
}

function readOptions(json: unknown): OptionsEntry | undefined {
  if (!Array.isArray(json) || json.length !== 3) return undefined;
  const [heardMs, systemInitMs, sampling] = json as unknown[];
  if (!isNumberUpTo(heardMs, Number.MAX_SAFE_INTEGER) || !isNumberUpTo(systemInitMs, Number.MAX_VALUE)) return undefined;
  return { heardMs, systemInitMs, sampling };
}

function isNumberUpTo(value: unknown, max: number): value is number {
  return typeof value === 'number' && value >= 0 && value <= max;
}

/** With a digest over name and content in front: what a disk spoilt, or what got under another exporter's name, is not believed. */
function checkable(name: string, content: unknown): string {
  const json = JSON.stringify(content);
  return `${digestOf(name, json)} ${json}`;
}

/** The content; undefined where it is not what was written under this name. */
function checked(name: string, text: string): unknown {
  const space = text.indexOf(' ');
  const json = text.slice(space + 1);
  if (text.slice(0, Math.max(0, space)) !== digestOf(name, json)) return undefined;
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

/** FNV-1a over both, twice with different beginnings. */
function digestOf(name: string, json: string): string {
  let low = 0x811c9dc5;
  let high = 0x01000193;
  for (const text of [name, '\n', json]) {
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      low = Math.imul(low ^ code, 0x01000193);
      high = Math.imul(high ^ code, 0x85ebca6b) ^ (high >>> 13);
    }
  }
  return `${(low >>> 0).toString(36)}${(high >>> 0).toString(36)}`;
}
