/** The metrics that the source declares, and the table of docs/METRICS.md made of them: `make metrics`. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = fileURLToPath(new URL('..', import.meta.url));
const page = join(repository, 'docs', 'METRICS.md');
const begin = '<!-- The table is written by make metrics. -->';

export interface DeclaredMetric {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  readonly labels: readonly string[];
  readonly help: string;
}

const quoted = `'(?:[^'\\\\]|\\\\.)*'|"(?:[^"\\\\]|\\\\.)*"`;
/** A name, its help and, where they stand beside it, its labels; in a call or in a table of metrics. */
const declaration = new RegExp(`'((?:flowledger|kafka_consumergroup)_[a-z0-9_]+)',\\s*(${quoted})(?:,\\s*\\[([^\\]]*)\\])?`, 'g');

/** Every metric that a service declares, by name. */
export function declaredMetrics(): DeclaredMetric[] {
  const metrics = new Map<string, DeclaredMetric>();
  const files = readdirSync(join(repository, 'services'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  for (const file of files) {
    const source = readFileSync(join(repository, 'services', file), 'utf8');
    for (const [, name = '', help = '', labels = ''] of source.matchAll(declaration)) {
      const type = name.endsWith('_total') ? 'counter' : 'gauge';
      const labelNames = [...labels.matchAll(/'([a-z_]+)'/g)].map(([, label]) => label as string);
      metrics.set(name, { name, type, labels: labelNames, help: help.slice(1, -1).replace(/\\(.)/g, '$1').replace(/\.$/, '') });
    }
  }
  return [...metrics.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The page as it must be: what stands before the table, and the table. */
export function expectedMetricsPage(present: string): string {
  const head = present.slice(0, present.indexOf(begin) + begin.length);
  const rows = declaredMetrics().map(({ name, type, labels, help }) => `| \`${name}\` | ${type} | ${labels.join(', ')} | ${help} |`);
  return `${head}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n${rows.join('\n')}\n`;
}

export function readMetricsPage(): string {
  return readFileSync(page, 'utf8');
}

if (import.meta.main) writeFileSync(page, expectedMetricsPage(readMetricsPage()));
