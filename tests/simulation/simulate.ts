/**
 * `node tests/simulation/simulate.ts --seed 1 --runs 100`: one line for each seed that fails, with the file that holds its trace, the shortest
 * scenario that still fails, and the command that replays it; then what was seen.
 * --scenario FILE: replays a scenario that was written before. --seconds: of virtual time with faults, instead of what the seed says.
 * --trace: keeps the trace of runs that do not fail, too. --workers: threads; as many as there are cores, up to 2, where it is not given.
 */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Pool } from './pool.ts';
import { describeScenario, drawScenario, type Scenario } from './scenario.ts';
import { invariantOf, shrink } from './shrink.ts';
import { addTo, figuresOf, listOf, Progress } from './telling.ts';
import type { Outcome } from './world.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '100' },
    seconds: { type: 'string' },
    scenario: { type: 'string' },
    trace: { type: 'boolean', default: false },
    workers: { type: 'string', default: String(Math.min(2, availableParallelism())) },
  },
});
const first = Number(values.seed);
const runs = values.scenario ? 1 : Number(values.runs);
if (!Number.isSafeInteger(first) || !Number.isSafeInteger(runs) || runs < 1)
  throw new Error('--seed and --runs are whole numbers, --runs at least 1');

const replayed = values.scenario ? (JSON.parse(readFileSync(values.scenario, 'utf8')) as Scenario) : null;
const seconds = values.seconds ? { faultyMs: 1000 * Number(values.seconds) } : {};
const scenarioOf = (seed: number): Scenario => replayed ?? drawScenario(seed, seconds.faultyMs);
/** One cause mostly shows in many seeds. */
const shrunkMax = 3;
const pool = new Pool(Math.min(runs, Math.max(1, Number(values.workers))));
const progress = new Progress(runs);
const figures = figuresOf();
let folder = '';

function* tasks() {
  for (let seed = first; seed < first + runs; seed++) yield { seed, scenario: scenarioOf(seed), keepTrace: values.trace };
}

for await (const outcome of pool.runAll(tasks())) {
  figures.seeds++;
  figures.virtualMs += outcome.virtualMs;
  figures.events += outcome.events;
  figures.flows += outcome.flows;
  addTo(figures.faults, outcome.counts);
  addTo(figures.seen, outcome.seen);
  if (outcome.violations.length > 0) {
    figures.failed++;
    progress.clear();
    await tellFailure(outcome);
  } else if (values.trace)
    process.stdout.write(`seed ${outcome.seed}: good (trace: ${write(`seed-${outcome.seed}.txt`, outcome.trace.join('\n'))})\n`);
  progress.tell(figures.seeds, figures.failed);
}
progress.clear();
await pool.close();
process.stdout.write(`${figures.seeds} seeds, ${figures.failed} failed; ${figures.flows} flows, ${figures.events} events\n`);
process.stdout.write(`${progress.speed(figures.virtualMs)}\n`);
process.stdout.write(`faults: ${listOf(figures.faults)}\nseen: ${listOf(figures.seen)}\n`);
if (figures.failed > 0) process.exitCode = 1;

async function tellFailure({ seed, violations }: Outcome): Promise<void> {
  const scenario = scenarioOf(seed);
  const { trace } = await pool.run({ seed, scenario, keepTrace: true });
  process.stdout.write(`seed ${seed}: ${violations[0]} (trace: ${write(`seed-${seed}.txt`, trace.join('\n'))})\n`);
  if (figures.failed > shrunkMax) return;
  const invariant = invariantOf(violations[0]);
  const shrunk = await shrink(scenario, async (one) => invariantOf((await pool.run({ seed, scenario: one })).violations[0]) === invariant);
  const again = await pool.run({ seed, scenario: shrunk.scenario, keepTrace: true });
  const path = write(`seed-${seed}.json`, JSON.stringify(shrunk.scenario));
  const traced = write(`seed-${seed}-shrunk.txt`, again.trace.join('\n'));
  process.stdout.write(`shrunk in ${shrunk.runs} runs to ${again.violations[0]} (trace: ${traced})\n${describeScenario(shrunk.scenario)}\n`);
  process.stdout.write(`replay: make simulate SCENARIO=${path}\n`);
}

function write(name: string, text: string): string {
  folder ||= mkdtempSync(join(tmpdir(), 'flowledger-simulation-'));
  const path = join(folder, name);
  writeFileSync(path, `${text}\n`);
  return path;
}
