/**
 * The kinds of values a configuration has. Each reads what YAML or an environment variable gives, and writes it back the same way
 * (`--check` prints the effective configuration), so a kind is a codec; its error message says what is accepted.
 */
import { isIP } from 'node:net';
import { z } from 'zod';

/** A named part of the configuration; an unknown key in it is an error. */
export function section<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape);
}

/** What a section's keys hold after it was read. */
export type SectionOf<Schema extends z.ZodType> = z.output<Schema>;

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Builds a kind of value: `read` returns undefined where the text is not accepted. */
function kind<Value>(accepted: string, read: (text: string) => Value | undefined, write: (value: Value) => string | number | boolean) {
  return z.codec(
    z.unknown(),
    z.custom<Value>(() => true),
    {
      decode(value, context) {
        const single = typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
        const result = single ? read(String(value).trim()) : undefined;
        if (result !== undefined) return result;
        context.issues.push({ code: 'custom', message: accepted, input: value });
        return z.NEVER;
      },
      encode: write,
    },
  );
}

const durationUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A length of time in ms, written as 500ms, 10s, 5m, 1h or 1d. */
export function duration(preset: string, limits: { min?: string; max?: string } = {}) {
  const min = limits.min === undefined ? 0 : readDuration(limits.min);
  const max = limits.max === undefined ? Number.MAX_SAFE_INTEGER : readDuration(limits.max);
  const accepted = `a duration such as 500ms, 10s, 5m or 1h${range(limits)}`;
  return kind<number>(accepted, (text) => within(readDuration(text), min, max), writeDuration).prefault(preset);
}

function readDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text);
  if (!match) return text === '0' ? 0 : undefined;
  const milliseconds = Number(match[1]) * durationUnits[match[2] as keyof typeof durationUnits];
  return Number.isSafeInteger(milliseconds) ? milliseconds : undefined;
}

function writeDuration(milliseconds: number): string {
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    if (milliseconds !== 0 && milliseconds % durationUnits[unit] === 0) return `${milliseconds / durationUnits[unit]}${unit}`;
  }
  return `${milliseconds}ms`;
}

const sizeUnits = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 } as const;

/** A number of bytes, written as 64KiB, 32MiB or 1GiB. */
export function size(preset: string, limits: { min?: string; max?: string } = {}) {
  const min = limits.min === undefined ? 0 : readSize(limits.min);
  const max = limits.max === undefined ? Number.MAX_SAFE_INTEGER : readSize(limits.max);
  const accepted = `a size such as 64KiB, 32MiB or 1GiB${range(limits)}`;
  return kind<number>(accepted, (text) => within(readSize(text), min, max), writeSize).prefault(preset);
}

function readSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)$/.exec(text);
  if (!match) return text === '0' ? 0 : undefined;
  const bytes = Number(match[1]) * sizeUnits[match[2] as keyof typeof sizeUnits];
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

function writeSize(bytes: number): string {
  for (const unit of ['TiB', 'GiB', 'MiB', 'KiB'] as const) {
    if (bytes !== 0 && bytes % sizeUnits[unit] === 0) return `${bytes / sizeUnits[unit]}${unit}`;
  }
  return `${bytes}B`;
}

/** A whole number. */
export function count(preset: number, limits: { min?: number; max?: number } = {}) {
  const { min = 0, max = Number.MAX_SAFE_INTEGER } = limits;
  const read = (text: string) => (/^-?\d+$/.test(text) ? within(Number(text), min, max) : undefined);
  return kind<number>(`a whole number${range(limits)}`, read, Number).prefault(preset);
}

/** true or false. */
export function flag(preset: boolean) {
  const read = (text: string) => (text === 'true' ? true : text === 'false' ? false : undefined);
  return kind<boolean>('true or false', read, Boolean).prefault(preset);
}

/** Any text; `accepted` describes it where a pattern narrows it. */
export function text(preset: string, pattern = /^/, accepted = 'text') {
  return kind<string>(accepted, (value) => (pattern.test(value) ? value : undefined), String).prefault(preset);
}

/** Where a server is, password included; the password is not written back, since what is written goes to terminals and logs. */
export function url(preset: string, protocols: readonly string[]) {
  const read = (value: string) => {
    try {
      return protocols.includes(new URL(value).protocol) ? value : undefined;
    } catch {
      return undefined;
    }
  };
  return kind<string>(`a URL such as ${preset}`, read, (value) => value.replace(/(:\/\/[^:@/]*):[^@]*@/, '$1:***@')).prefault(preset);
}

/** One of a few words. */
export function choice<const Word extends string>(words: readonly Word[], preset: Word) {
  return kind<Word>(`one of ${words.join(', ')}`, (value) => words.find((word) => word === value), String).prefault(preset);
}

/** Where to listen or to connect, written as HOST:PORT or [IPV6]:PORT; port 0 lets the system choose. */
export function address(preset: string) {
  return kind<Address>('an address such as 127.0.0.1:9101 or [::1]:9101', readAddress, writeAddress).prefault(preset);
}

export function writeAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function readAddress(value: string): Address | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(value);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return host === undefined || port > 65_535 ? undefined : { host, port };
}

/** Several values of one kind: a YAML list, or in an environment variable comma separated or a JSON list. */
function listOf<Value>(preset: readonly string[], item: z.ZodType<Value>) {
  const entries = z.array(item);
  return z
    .codec(z.unknown(), z.custom<Value[]>(Array.isArray), {
      decode(value, context) {
        const values = Array.isArray(value) ? value : splitList(String(value));
        const result = entries.safeParse(values);
        if (result.success) return result.data;
        for (const issue of result.error.issues) context.issues.push({ ...issue, input: values[Number(issue.path[0])] } as never);
        return z.NEVER;
      },
      encode: (values) => z.encode(entries, values) as unknown[],
    })
    .prefault([...preset]);
}

/** An IPv6 address in brackets begins a comma separated list as well, so only what is JSON is read as JSON. */
function splitList(value: string): unknown[] {
  try {
    const json: unknown = JSON.parse(value);
    if (Array.isArray(json)) return json;
  } catch {
    // Not JSON: comma separated.
  }
  return value.split(',').flatMap((part) => (part.trim() === '' ? [] : [part.trim()]));
}

export function addresses(preset: readonly string[]) {
  return listOf<Address>(preset, kind('an address such as 127.0.0.1:9092', readAddress, writeAddress));
}

export function texts(preset: readonly string[], pattern = /./, accepted = 'text') {
  return listOf<string>(
    preset,
    kind(accepted, (value) => (pattern.test(value) ? value : undefined), String),
  );
}

/** Networks as ADDRESS/BITS; an address alone stands for itself. */
export function prefixes(preset: readonly string[]) {
  return listOf<string>(preset, kind('a prefix such as 198.51.100.0/24, 2001:db8::/32 or 192.0.2.1', readPrefix, String));
}

function readPrefix(text: string): string | undefined {
  const [network = '', length, ...rest] = text.split('/');
  const bits = isIP(network) === 4 ? 32 : isIP(network) === 6 ? 128 : -1;
  if (bits < 0 || network.includes('%') || rest.length > 0) return undefined;
  if (length === undefined) return `${network}/${bits}`;
  return /^\d{1,3}$/.test(length) && Number(length) <= bits ? `${network}/${Number(length)}` : undefined;
}

export interface AccountPrefix {
  readonly prefix: string;
  readonly account: string;
}

/** Which account a prefix belongs to: `{prefix: 198.51.100.0/24, account: acme}`, or `198.51.100.0/24=acme`. */
export function accountPrefixes() {
  const accepted = 'a prefix and its account, such as {prefix: 198.51.100.0/24, account: acme} or 198.51.100.0/24=acme';
  const pair = z.codec(z.unknown(), z.custom<AccountPrefix>(), {
    decode(value, context) {
      const result = readAccountPrefix(value);
      if (result) return result;
      context.issues.push({ code: 'custom', message: accepted, input: value });
      return z.NEVER;
    },
    encode: (value) => value,
  });
  return listOf<AccountPrefix>([], pair);
}

function readAccountPrefix(value: unknown): AccountPrefix | undefined {
  if (typeof value === 'string') {
    const [prefix, account, ...rest] = value.split('=');
    return rest.length > 0 ? undefined : readAccountPrefix({ prefix, account });
  }
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 2) return undefined;
  const { prefix, account } = value as { prefix?: unknown; account?: unknown };
  if (typeof prefix !== 'string' || (typeof account !== 'string' && typeof account !== 'number') || account === '') return undefined;
  return prefix.includes('/') && readPrefix(prefix) !== undefined ? { prefix, account: String(account) } : undefined;
}

export interface SamplingPrefix {
  readonly prefix: string;
  /** One packet in so many. */
  readonly rate: number;
}

/** At which rate the exporters of a prefix, or one of them, sample: `{prefix: 198.51.100.0/24, rate: 1000}`, or `198.51.100.1=1000`. */
export function samplingPrefixes() {
  const accepted = 'a prefix or an address, and a rate from 1 to 4294967295, such as {prefix: 198.51.100.0/24, rate: 1000} or 198.51.100.1=1000';
  const pair = z.codec(z.unknown(), z.custom<SamplingPrefix>(), {
    decode(value, context) {
      const result = readSamplingPrefix(value);
      if (result) return result;
      context.issues.push({ code: 'custom', message: accepted, input: value });
      return z.NEVER;
    },
    encode: (value) => value,
  });
  return listOf<SamplingPrefix>([], pair);
}

function readSamplingPrefix(value: unknown): SamplingPrefix | undefined {
  if (typeof value === 'string') {
    const [prefix, rate, ...rest] = value.split('=');
    return rest.length > 0 ? undefined : readSamplingPrefix({ prefix, rate });
  }
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 2) return undefined;
  const { prefix, rate } = value as { prefix?: unknown; rate?: unknown };
  if (typeof prefix !== 'string' || !/^[1-9]\d{0,9}$/.test(String(rate)) || Number(rate) > 0xffff_ffff) return undefined;
  const whole = readPrefix(prefix);
  return whole === undefined ? undefined : { prefix: whole, rate: Number(rate) };
}

function within(value: number | undefined, min = 0, max = Number.MAX_SAFE_INTEGER): number | undefined {
  return value !== undefined && value >= min && value <= max ? value : undefined;
}

function range(limits: { min?: string | number; max?: string | number }): string {
  if (limits.min !== undefined && limits.max !== undefined) return ` from ${limits.min} to ${limits.max}`;
  if (limits.min !== undefined) return `, at least ${limits.min}`;
  return limits.max === undefined ? '' : `, at most ${limits.max}`;
}
