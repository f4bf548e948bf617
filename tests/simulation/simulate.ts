/**
 * `node tests/simulation/simulate.ts --seed 1 --runs 100`: one line for each seed that fails, with the file that holds its trace; then what was seen.
 * --seconds: of virtual time with faults, instead of what the seed says. --trace: keeps the trace of runs that do not fail, too.
 */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { World } from './world.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '100' },
    seconds: { type: 'string' },
    trace: { type: 'boolean', default: false },
  },
});
const first = Number(values.seed);
const runs = Number(values.runs);
if (!Number.isSafeInteger(first) || !Number.isSafeInteger(runs) || runs < 1)
  throw new Error('--seed and --runs are whole numbers, --runs at least 1');

const faultyMs = values.seconds ? { faultyMs: 1000 * Number(values.seconds) } : {};
const faults: Record<string, number> = {};
const seen: Record<string, number> = {};
const startedMs = performance.now();
let virtualMs = 0;
let events = 0;
let flows = 0;
let failed = 0;
let traces = '';
for (let seed = first; seed < first + runs; seed++) {
  let outcome = await new World({ seed, ...faultyMs, keepTrace: values.trace }).run();
  virtualMs += outcome.virtualMs;
  events += outcome.events;
  flows += outcome.flows;
  addTo(faults, outcome.counts);
  addTo(seen, outcome.seen);
  if (outcome.violations.length === 0 && !values.trace) continue;
  if (!values.trace) outcome = await new World({ seed, ...faultyMs, keepTrace: true }).run();
  if (outcome.violations.length > 0) failed++;
  traces ||= mkdtempSync(join(tmpdir(), 'flowledger-simulation-'));
  const path = join(traces, `seed-${seed}.txt`);
  writeFileSync(path, `${outcome.trace.join('\n')}\n`);
  process.stdout.write(`seed ${seed}: ${outcome.violations[0] ?? 'good'} (trace: ${path})\n`);
}
const seconds = (performance.now() - startedMs) / 1000;
process.stdout.write(`${runs} seeds, ${failed} failed; ${flows} flows, ${events} events\n`);
process.stdout.write(
  `${(virtualMs / 3_600_000).toFixed(1)} simulated hours in ${seconds.toFixed(1)} s: ${(virtualMs / 1000 / seconds).toFixed(0)} times real time\n`,
);
process.stdout.write(`faults: ${listOf(faults)}\nseen: ${listOf(seen)}\n`);
if (failed > 0) process.exitCode = 1;

function addTo(sums: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(more)) sums[name] = (sums[name] ?? 0) + count;
}

function listOf(sums: Readonly<Record<string, number>>): string {
  const entries = Object.entries(sums).sort(([one], [other]) => (one < other ? -1 : 1));
  return entries.map(([name, count]) => `${name} ${count}`).join(', ');
}
