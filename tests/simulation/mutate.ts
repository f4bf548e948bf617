/**
 * `node tests/simulation/mutate.ts`: switches off each guard in turn, and looks within how many histories the checkers notice. --only NAME: one of
 * them. --table: as docs/SIMULATION.md has it. Exits with 1 where one is not caught in time.
 */
import { parseArgs } from 'node:util';
import { type Caught, catchMutation } from './catching.ts';
import { type Mutation, mutations } from './mutations.ts';

const { values } = parseArgs({ options: { only: { type: 'string' }, table: { type: 'boolean', default: false } } });
const chosen = mutations.filter(({ name }) => values.only === undefined || name === values.only);
if (chosen.length === 0) throw new Error(`there is no mutation ${values.only}: ${mutations.map(({ name }) => name).join(', ')}`);

let missed = 0;
if (values.table) process.stdout.write('| guard that is switched off | cases | caught by | after seeds | must be within |\n|---|---|---|---|---|\n');
for (const mutation of chosen) {
  const caught = await catchMutation(mutation).catch((error) => Promise.reject(new Error(`${mutation.name}: ${error}`)));
  if (!caught) missed++;
  process.stdout.write(`${values.table ? rowOf(mutation, caught) : lineOf(mutation, caught)}\n`);
}
process.stdout.write(values.table ? '' : `${chosen.length} guards switched off, ${missed} not noticed\n`);
if (missed > 0) process.exitCode = 1;

function lineOf({ name, guard, seedsMax }: Mutation, caught: Caught | null): string {
  if (!caught) return `NOT CAUGHT within ${seedsMax} seeds: ${name} (${guard})`;
  return `${name}: ${caught.invariant} after ${caught.seeds} of ${seedsMax} seeds: ${caught.violation.slice(0, 120)}`;
}

function rowOf({ guard, cases = [], seedsMax }: Mutation, caught: Caught | null): string {
  return `| ${guard} | ${cases.join(' ')} | ${caught?.invariant ?? 'nothing'} | ${caught?.seeds ?? '-'} | ${seedsMax} |`;
}
