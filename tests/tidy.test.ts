/**
 * Reads the source and holds what no compiler does: who may import whom, what the core may touch, names, sizes, and that the documents say what the
 * code does.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { declaredMetrics, expectedMetricsPage, readMetricsPage } from './metrics-table.ts';

const repository = fileURLToPath(new URL('..', import.meta.url));

interface Source {
  readonly path: string;
  readonly text: string;
  /** Without comments and the contents of strings. */
  readonly code: string;
  readonly comments: string;
  /** As written in the source. */
  readonly imports: readonly string[];
  /** Those of them that are files of ours, from the repository's root. */
  readonly files: readonly string[];
}

/** A declaration at the beginning of a line, or a call. */
const importing = /^(?:import|export)\b(?:[^;']*?\bfrom)?\s*'([^'\n]+)'|\b(?:import|require)\('([^'\n]+)'\)/gm;

function readSource(path: string): Source {
  const text = readFileSync(join(repository, path), 'utf8');
  const imports = [...text.matchAll(importing)].map(([, fixed, lazy]) => (fixed ?? lazy) as string);
  const files = imports.filter((name) => name.startsWith('.')).map((name) => normalize(join(dirname(path), name)));
  const pattern = /\/\*[\s\S]*?\*\/|(?<![:'"`\\])\/\/[^\n]*/g;
  const code = text.replace(pattern, ' ').replace(/'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g, "''");
  return { path, text, code, comments: (text.match(pattern) ?? []).join('\n'), imports, files };
}

const folders = ['schemas', 'core', 'adapters', 'services', 'infra', 'tests'];
const sources = folders
  .flatMap((folder) => readdirSync(join(repository, folder), { recursive: true, encoding: 'utf8' }).map((file) => join(folder, file)))
  .filter((path) => path.endsWith('.ts'))
  .sort()
  .map(readSource);
const product = sources.filter(({ path }) => !path.startsWith('tests/'));
const core = sources.filter(({ path }) => path.startsWith('core/'));
const firstFolder = (path: string) => path.split('/')[0] as string;

/** Every fault of every file, so that one run shows them all. */
function faults(list: readonly Source[], check: (source: Source) => readonly string[]): string[] {
  return list.flatMap((source) => check(source).map((fault) => `${source.path}: ${fault}`));
}

describe('layers', () => {
  /** What each may import besides itself. Only the command line starts local backends. */
  const mayImport: Record<string, readonly string[]> = {
    schemas: [],
    core: ['schemas'],
    adapters: ['schemas', 'core'],
    services: ['schemas', 'core', 'adapters'],
    infra: ['schemas', 'adapters'],
    tests: folders,
  };
  const allowed = (from: string, to: string) =>
    firstFolder(from) === firstFolder(to) ||
    (mayImport[firstFolder(from)] ?? []).includes(firstFolder(to)) ||
    (from.startsWith('services/cli/') && to.startsWith('infra/'));

  test('imports go one way: schemas, core, adapters, services', () => {
    expect(faults(sources, ({ path, files }) => files.filter((file) => !allowed(path, file)).map((file) => `imports ${file}`))).toEqual([]);
  });

  test('a folder of core imports itself and those before it', () => {
    const order = ['nar', 'wire', 'buffer', 'aggregate', 'judge', 'elect', 'feed', 'ledger'];
    const rank = (path: string) => order.indexOf(path.split('/')[1] as string);
    expect(core.filter(({ path }) => rank(path) < 0).map(({ path }) => path)).toEqual([]);
    expect(
      faults(core, ({ path, files }) => files.filter((file) => file.startsWith('core/') && rank(file) > rank(path)).map((file) => `imports ${file}`)),
    ).toEqual([]);
  });

  test('a service does not import another one', () => {
    const service = (path: string) => (path.startsWith('services/') && path.split('/').length > 2 ? (path.split('/')[1] as string) : '');
    const strange = ({ path, files }: Source) =>
      files.filter((file) => service(path) !== 'cli' && service(path) !== '' && service(file) !== '' && service(file) !== service(path));
    expect(faults(sources, (source) => strange(source).map((file) => `imports ${file}`))).toEqual([]);
  });
});

describe('purity', () => {
  const banned = [
    /\basync\b/,
    /\bawait\b/,
    /\bPromise\b/,
    /\bDate\b/,
    /\bMath\.random\b/,
    /\bprocess\b/,
    /\bset(Timeout|Interval|Immediate)\b/,
    /\bperformance\b/,
  ];

  test('core touches no clock, no chance, no system', () => {
    expect(faults(core, ({ code }) => banned.filter((pattern) => pattern.test(code)).map(String))).toEqual([]);
  });

  test('core imports nothing but files of ours', () => {
    expect(faults(core, ({ imports }) => imports.filter((name) => !name.startsWith('.')))).toEqual([]);
  });

  test('the loops of the services wait on ports alone, or they could not run under a simulated clock', () => {
    const loops = product.filter(({ path }) => /^services\/(?!cli\/)[^/]+\/(?!main\.ts|config\.ts)/.test(path));
    const timed = [/\bDate\.now\b/, /\bnew Date\(\)/, /\bMath\.random\b/, /\bset(Timeout|Interval|Immediate)\b/, /\bperformance\.now\b/];
    expect(faults(loops, ({ code }) => timed.filter((pattern) => pattern.test(code)).map(String))).toEqual([]);
    expect(faults(loops, ({ imports }) => imports.filter((name) => /^node:(timers|crypto|child_process|net|dgram|http)/.test(name)))).toEqual([]);
  });
});

describe('libraries', () => {
  /** Each has one door. */
  const doors: Readonly<Record<string, readonly string[]>> = {
    avsc: ['schemas/codec.ts'],
    kafkajs: ['adapters/kafka/', 'adapters/kafka-admin.ts'],
    ioredis: ['adapters/redis-store.ts'],
    pino: ['adapters/logger.ts'],
    'prom-client': ['adapters/metrics.ts'],
    fastify: ['adapters/http.ts'],
    zod: ['adapters/config.ts', 'adapters/config-values.ts'],
    yaml: ['adapters/config.ts'],
    commander: ['services/cli/'],
    'node:sqlite': ['adapters/ledger-sqlite.ts'],
    'node:tls': ['adapters/tcp.ts'],
    'node:dgram': ['adapters/udp.ts', 'adapters/udp-sender.ts', 'infra/'],
  };
  const library = (name: string) => (name.startsWith('node:') ? name : name.split('/')[0]) as string;

  test('each is imported by its adapter only', () => {
    const strangers = ({ path, imports }: Source) =>
      imports.filter((name) => doors[library(name)] && !doors[library(name)]?.some((door) => path.startsWith(door)));
    expect(faults(product, strangers)).toEqual([]);
  });

  test('every one has its door', () => {
    const unknown = ({ imports }: Source) => imports.filter((name) => !name.startsWith('.') && !name.startsWith('node:') && !doors[library(name)]);
    expect(faults(product, unknown)).toEqual([]);
  });
});

describe('files', () => {
  test('no name says nothing', () => {
    const empty = new Set(['utils', 'util', 'helpers', 'helper', 'common', 'shared', 'lib', 'misc', 'base', 'index', 'types', 'manager']);
    // schemas/types.ts is written from the schemas.
    const said = ({ path }: Source) =>
      path === 'schemas/types.ts' ? [] : path.split('/').filter((part) => empty.has(basename(part).replace(/\.(test\.)?ts$/, '')));
    expect(faults(sources, said)).toEqual([]);
  });

  test('no file is over 600 lines, no line over 150 columns', () => {
    const written = sources.filter(({ path }) => path !== 'schemas/types.ts');
    const tooLong = ({ text }: Source) =>
      text.split('\n').flatMap((line, at) => (line.length > 150 ? [`line ${at + 1} has ${line.length} columns`] : []));
    expect(faults(written, tooLong)).toEqual([]);
    expect(faults(written, ({ text }) => (text.split('\n').length > 600 ? [`${text.split('\n').length} lines`] : []))).toEqual([]);
  });

  test('nothing is left to be done later, and nothing is exported by default', () => {
    const later = new RegExp(`\\b(${['TO', 'DO'].join('')}|${['FIX', 'ME'].join('')}|${'X'.repeat(3)})\\b`);
    expect(faults(sources, ({ text }) => (later.test(text) ? [String(later.exec(text)?.[0])] : []))).toEqual([]);
    expect(faults(sources, ({ code }) => (/\bexport default\b/.test(code) ? ['export default'] : []))).toEqual([]);
  });

  test('every file opens with what it is', () => {
    expect(faults(product, ({ text }) => (/^(#!.*\n)?\/\*\*/.test(text) ? [] : ['no opening comment']))).toEqual([]);
  });

  test('every file is imported by another, or is run', () => {
    const run = new Set([
      'services/cli/main.ts',
      'schemas/generate.ts',
      'infra/install.ts',
      'infra/demo.ts',
      'tests/bench/bench.ts',
      'tests/simulation/simulate.ts',
      'tests/conformance/conformance.ts',
      // Loaded into the processes of a test by --import.
      'tests/integration/flip-on-signal.ts',
      'tests/simulation/worker.ts',
      'tests/simulation/mutate.ts',
      'tests/fuzz/fuzz.ts',
      'tests/torture/torture.ts',
      'tests/torture/failover-trials.ts',
    ]);
    const importedBy = (list: readonly Source[]) => new Set(list.flatMap(({ files }) => files));
    const [byProduct, byAny] = [importedBy(product), importedBy(sources)];
    // infra/stack.ts serves the demo and tests alike; what only tests import is of no use to the product.
    const dead = sources.filter(({ path }) => {
      if (run.has(path) || path.endsWith('.test.ts')) return false;
      return !(path.startsWith('tests/') ? byAny : byProduct).has(path);
    });
    expect(dead.map(({ path }) => path)).toEqual([]);
  });
});

describe('documents', () => {
  const documents = ['README.md', ...readdirSync(join(repository, 'docs'), { recursive: true, encoding: 'utf8' }).map((file) => `docs/${file}`)]
    .filter((path) => path.endsWith('.md'))
    .map((path) => ({ path, text: readFileSync(join(repository, path), 'utf8') }));

  test('docs/METRICS.md lists every metric and no other (make metrics writes it)', () => {
    expect(readMetricsPage()).toBe(expectedMetricsPage(readMetricsPage()));
  });

  test('a metric that is named anywhere is declared', () => {
    const declared = new Set(declaredMetrics().map(({ name }) => name));
    const named = /\b(?:flowledger_(?:collector|aggregator|watchdog|feed|judge|accounting|ledger)|kafka_consumergroup)_[a-z0-9_]*[a-z0-9]\b/g;
    const unknown = (text: string) => [...new Set(text.match(named) ?? [])].filter((name) => !declared.has(name));
    expect([...sources, ...documents].flatMap(({ path, text }) => unknown(text).map((name) => `${path}: ${name}`))).toEqual([]);
    expect(faults(product, ({ text }) => (/`flowledger_/.test(text) ? ['a metric name that is put together cannot be looked for'] : []))).toEqual([]);
  });

  test('the code cites invariants that exist, and each is cited', () => {
    const page = readFileSync(join(repository, 'docs', 'INVARIANTS.md'), 'utf8');
    const known = new Set([...page.matchAll(/^\|\s*(I\d+)\s*\|/gm)].map(([, id]) => id as string));
    const cited = ({ comments }: Source) => comments.match(/\bI\d+\b/g) ?? [];
    expect(known.size).toBeGreaterThan(0);
    expect(faults(sources, (source) => cited(source).filter((id) => !known.has(id)))).toEqual([]);
    const citedInProduct = new Set(product.flatMap(cited));
    expect([...known].filter((id) => !citedInProduct.has(id))).toEqual([]);
  });
});
