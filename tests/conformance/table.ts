/** What was seen, as the page docs/CONFORMANCE.md and on the screen. */
import type { Case, Seen } from './case.ts';

/** error: the case could not be played, or its fault did not happen. */
export type Result = Seen | { readonly error: string };

export interface ClientResults {
  readonly name: string;
  readonly version: string;
  /** By case id. */
  readonly bare: ReadonlyMap<string, Result>;
  readonly guarded: ReadonlyMap<string, Result>;
}

const uses: readonly { readonly use: Case['use']; readonly title: string }[] = [
  { use: 'appends', title: 'appends: what is said to be appended is in the log, once and in order' },
  { use: 'transactions', title: 'transactions: what was committed is read, nothing else, and a restart goes on' },
  { use: 'committed reads', title: 'reads of committed records only' },
  { use: 'groups', title: 'groups, and positions within transactions' },
  { use: 'idle', title: 'idle connections' },
];

const mark = (result: Result | undefined, yes: string, no: string) => (!result ? '' : 'error' in result ? 'not played' : result.defect ? yes : no);
const bareMark = (result: Result | undefined) => mark(result, '**reproduced**', 'not reproduced');
const guardMark = (result: Result | undefined) => mark(result, '**fails**', 'holds');
const factsOf = (result: Result | undefined) => (!result ? '' : 'error' in result ? result.error : result.facts);
const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ');
const row = (cells: readonly string[]) => `| ${cells.map(cell).join(' | ')} |`;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [row(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(row)].join('\n');
}

/** Which cases of a use showed their defect. */
function faulty(cases: readonly Case[], use: Case['use'], results: ReadonlyMap<string, Result>): string {
  const found = cases.filter((one) => one.use === use).filter(({ id }) => (results.get(id) as { defect?: boolean } | undefined)?.defect !== false);
  return found.length === 0 ? 'safe' : `not safe: ${found.map(({ id }) => id).join(', ')}`;
}

export function renderPage(cases: readonly Case[], clients: readonly ClientResults[], kafkaVersion: string): string {
  const columns = clients.flatMap(({ name }) => [`${name}, bare`, `${name}, behind the port`]);
  const marks = cases.map(({ id, about }) => [
    id,
    about,
    ...clients.flatMap(({ bare, guarded }) => [bareMark(bare.get(id)), guardMark(guarded.get(id))]),
  ]);
  const safety = uses.map(({ use, title }) => [
    title,
    ...clients.flatMap(({ bare, guarded }) => [faulty(cases, use, bare), faulty(cases, use, guarded)]),
  ]);
  const facts = cases.map(({ id, about }) =>
    [
      `### ${id}`,
      '',
      about,
      '',
      ...clients.flatMap(({ name, bare, guarded }) => [
        `- ${name}, bare: ${bareMark(bare.get(id))}. ${factsOf(bare.get(id))}.`,
        `- ${name}, behind the port: ${guardMark(guarded.get(id))}. ${factsOf(guarded.get(id))}.`,
      ]),
    ].join('\n'),
  );
  const versions = clients.map(({ name, version }) => `${name} ${version}`).join(', ');
  return `${[
    '# Conformance of the Kafka clients',
    `Written by \`make conformance\` (\`tests/conformance\`): every known defect of a Kafka client is brought about against a real broker, through
proxies that swallow, delay, repeat and change answers and keep requests back; first with the client as it comes, then in the same situation
through the port \`Log\` of \`adapters/ports.ts\`. Behind the port stand, for kafkajs, the product's own adapter (\`adapters/kafka.ts\`; appends and
fetches are its own requests over the client's connections), and for @platformatic/kafka an adapter of the suite
(\`tests/conformance/platformatic-log.ts\`) with guards of the same kind. The ids K1 ... K10 are cited in the code.`,
    `Apache Kafka ${kafkaVersion}, Node ${process.version}, ${versions}. One broker; where a case needs two nodes, the metadata that
clients get shows it as two, each behind a proxy of its own. Request timeout 500 ms.`,
    '## Which client is safe for what',
    'Not safe: a defect of that kind was reproduced, or a guard failed; which ones stands behind it.',
    table(['for', ...columns], safety),
    '## Defects',
    table(['', 'defect', ...columns], marks),
    '## What was seen',
    ...facts,
  ].join('\n\n')}\n`;
}
