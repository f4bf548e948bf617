/**
 * Reads the configuration: one YAML file, over it environment variables (FLOWLEDGER_<SECTION>_<KEY>), over them the command line.
 * Every fault is reported, each with where it stands, what was found and what is accepted.
 */
import { existsSync, readFileSync } from 'node:fs';
import { LineCounter, parseDocument, stringify, type YAMLMap } from 'yaml';
import { z } from 'zod';

export interface ConfigSources {
  /** Path of the YAML file; without one, defaults and the environment make the configuration. */
  readonly file?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** From the command line: `section.key` to value. */
  readonly overrides?: Readonly<Record<string, string>>;
}

type Sections = Readonly<Record<string, z.ZodObject>>;
type ConfigOf<All extends Sections> = { readonly [Name in keyof All]: Readonly<z.output<All[Name]>> };

/** The configuration cannot be used; its message has one line for every fault. */
export class ConfigError extends Error {
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(faults.join('\n'));
    this.faults = faults;
  }
}

/** The exit code for a configuration error (EX_CONFIG of sysexits.h). */
export const configErrorExitCode = 78;

/** The file that applies: the one named on the command line, else FLOWLEDGER_CONFIG, else flowledger.yaml here where it exists. */
export function findConfigFile(named: string | undefined, env: Readonly<Record<string, string | undefined>>): string | undefined {
  const file = named ?? env['FLOWLEDGER_CONFIG'];
  if (file) return file;
  return existsSync('flowledger.yaml') ? 'flowledger.yaml' : undefined;
}

/** @throws ConfigError */
export function readConfig<All extends Sections>(sections: All, sources: ConfigSources): ConfigOf<All> {
  return read(sections, sources).config;
}

/** The effective configuration in the form of the file; what is not a default says where it came from. @throws ConfigError */
export function describeConfig(sections: Sections, sources: ConfigSources): string {
  const { config, entries } = read(sections, sources);
  const lines: string[] = [];
  for (const [name, schema] of Object.entries(sections)) {
    lines.push(`${name}:`);
    for (const [key, value] of Object.entries(z.encode(schema, config[name] as never))) {
      const origin = entries.get(`${name}.${key}`)?.origin;
      const [first = '', ...rest] = stringify({ [key]: value }, { lineWidth: 0 })
        .trimEnd()
        .split('\n');
      lines.push(`  ${first}${origin ? `  # ${origin}` : ''}`, ...rest.map((line) => `  ${line}`));
    }
  }
  return `${lines.join('\n')}\n`;
}

interface Entry {
  readonly value: unknown;
  readonly origin: string;
}

/** Collects what each source says about each `section.key`; a later source replaces an earlier one. */
class Reading {
  readonly entries = new Map<string, Entry>();
  readonly faults: string[] = [];
  readonly #sections: Sections;

  constructor(sections: Sections) {
    this.#sections = sections;
  }

  add(section: string, key: string, value: unknown, origin: string): void {
    const schema = this.#sections[section];
    if (!schema) {
      this.faults.push(`${origin} ${section}: unknown section${suggestion(section, Object.keys(this.#sections))}`);
    } else if (!(key in schema.shape)) {
      this.faults.push(`${origin} ${section}.${key}: unknown key${suggestion(key, Object.keys(schema.shape))}`);
    } else {
      this.entries.set(`${section}.${key}`, { value, origin });
    }
  }
}

function read<All extends Sections>(sections: All, sources: ConfigSources) {
  const reading = new Reading(sections);
  if (sources.file !== undefined) readFile(reading, sections, sources.file);
  readEnvironment(reading, sections, sources.env ?? {});
  for (const [name, value] of Object.entries(sources.overrides ?? {})) {
    const [section = '', key = ''] = name.split('.');
    reading.add(section, key, value, 'command line');
  }
  const config: Record<string, Record<string, unknown>> = {};
  for (const [name, schema] of Object.entries(sections)) {
    config[name] = {};
    for (const [key, kind] of Object.entries(schema.shape)) {
      const entry = reading.entries.get(`${name}.${key}`);
      const result = z.safeParse(kind, entry?.value);
      if (result.success) config[name][key] = result.data;
      else for (const issue of result.error.issues) reading.faults.push(describeFault(`${name}.${key}`, entry, issue));
    }
    Object.freeze(config[name]);
  }
  if (reading.faults.length > 0) throw new ConfigError(reading.faults);
  return { config: Object.freeze(config) as ConfigOf<All>, entries: reading.entries };
}

function describeFault(name: string, entry: Entry | undefined, issue: z.core.$ZodIssue): string {
  const index = issue.path[0];
  const found = index === undefined ? entry?.value : toList(entry?.value)[Number(index)];
  const place = index === undefined ? name : `${name}[${String(index)}]`;
  const what = found === null || found === undefined || found === '' ? 'has no value' : `${JSON.stringify(found)} is not accepted`;
  return `${entry?.origin ?? 'default'} ${place}: ${what}; accepted is ${issue.message}`;
}

function toList(value: unknown): unknown[] {
  if (Array.isArray(value)) return value;
  return String(value)
    .split(',')
    .map((part) => part.trim());
}

function readFile(reading: Reading, sections: Sections, file: string): void {
  let source: string;
  try {
    source = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError([`${file}: cannot be read: ${(error as Error).message}`]);
  }
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  if (document.errors.length > 0) throw new ConfigError(document.errors.map((error) => `${at(error.pos[0])} not YAML: ${error.message}`));
  for (const [section, node, place] of pairs(document.contents, at)) {
    if (!(section in sections)) reading.add(section, '', undefined, place);
    else if (isMap(node)) for (const [key, value, keyPlace] of pairs(node, at)) reading.add(section, key, value?.toJS(document) ?? null, keyPlace);
    else if (node?.toJS(document) != null) reading.faults.push(`${place} ${section}: keys are expected below a section's name`);
  }
  if (document.contents && !isMap(document.contents) && document.toJS() !== null) reading.faults.push(`${at(0)}: sections are expected`);
}

type YamlNode = NonNullable<ReturnType<typeof parseDocument>['contents']>;

function isMap(node: YamlNode | null): node is YamlNode & YAMLMap<never, YamlNode | null> {
  return node !== null && 'items' in node && node.items.every((item) => typeof item === 'object' && item !== null && 'key' in item);
}

/** The entries of a map: key, value, and where the key stands. */
function* pairs(node: YamlNode | null, at: (offset: number) => string): Generator<[string, YamlNode | null, string]> {
  if (!isMap(node)) return;
  for (const pair of node.items) {
    const key = pair.key as { value?: unknown; range?: [number, number, number] };
    yield [String(key.value ?? ''), pair.value, at(key.range?.[0] ?? 0)];
  }
}

const prefix = 'FLOWLEDGER_';
/** Variables of the command line itself, not of the configuration. */
const reserved = new Set(['FLOWLEDGER_CONFIG', 'FLOWLEDGER_STATE']);
/** Kubernetes gives every container variables like these for each service of the namespace; they are not meant for this program. */
const serviceLink = /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)$/;

function readEnvironment(reading: Reading, sections: Sections, env: Readonly<Record<string, string | undefined>>): void {
  for (const [variable, value] of Object.entries(env)) {
    if (value === undefined || !variable.startsWith(prefix) || reserved.has(variable)) continue;
    const name = variable.slice(prefix.length).toLowerCase();
    const section = Object.keys(sections).find((candidate) => name.startsWith(`${candidate}_`)) ?? (name.split('_')[0] as string);
    const key = name.slice(section.length + 1);
    const known = sections[section] !== undefined && key in sections[section].shape;
    if (known || !serviceLink.test(variable)) reading.add(section, key, value, `environment variable ${variable}`);
  }
}

function suggestion(word: string, known: readonly string[]): string {
  const [nearest] = known.map((name) => ({ name, distance: editDistance(word, name) })).sort((a, b) => a.distance - b.distance);
  return nearest && nearest.distance <= Math.max(2, word.length / 3) ? `; did you mean "${nearest.name}"?` : `; known are ${known.join(', ')}`;
}

/** Levenshtein's: how many letters must be put in, taken out or changed. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min((next[j - 1] ?? 0) + 1, (row[j] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
