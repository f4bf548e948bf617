/**
 * `node tests/fuzz/fuzz.ts --runs 1000000 --seed 1`: so many spoilt datagrams, at least. One line for each scenario that fails, with the file in
 * tests/fuzz/corpus that holds the shortest part of it that still does; the tests replay these files from then on. Then what was seen.
 */
import { parseArgs } from 'node:util';
import { writeFind } from './corpus.ts';
import { play } from './play.ts';
import { scenarioOf } from './scenarios.ts';
import { readSessions } from './sessions.ts';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '100000' }, seed: { type: 'string', default: '1' } } });
const runs = Number(values.runs);
const first = Number(values.seed);
if (!Number.isSafeInteger(runs) || !Number.isSafeInteger(first) || runs < 1)
  throw new Error('--runs and --seed are whole numbers, --runs at least 1');

/** CPU time of one scenario; it mostly takes some milliseconds. */
const scenarioMsMax = 5_000;
const heapBytesMax = 300 * 1024 * 1024;
/** One cause mostly shows in many seeds. */
const findsMax = 5;
const tellEvery = 1_000_000;

const material = await readSessions();
const say = (line: string) => process.stdout.write(`${line}\n`);
let mutated = 0;
let scenarios = 0;
let finds = 0;
let heapBytes = 0;
let toldAt = tellEvery;
for (let seed = first; mutated < runs && finds < findsMax; seed++) {
  const scenario = scenarioOf(seed, material);
  const before = process.cpuUsage();
  let fault = play(scenario.steps, scenario.limits);
  const { user, system } = process.cpuUsage(before);
  if ((user + system) / 1000 > scenarioMsMax) fault ??= `it takes ${Math.round((user + system) / 1000)} ms`;
  scenarios++;
  mutated += scenario.mutated;
  if (scenarios % 1_000 === 0) {
    heapBytes = Math.max(heapBytes, process.memoryUsage().heapUsed);
    if (heapBytes > heapBytesMax) fault ??= `the heap has ${heapBytes} octets`;
  }
  if (fault !== null) {
    finds++;
    say(`${scenario.name}: ${fault}\n  ${writeFind(scenario)}`);
  }
  if (mutated < toldAt) continue;
  say(`${mutated} spoilt datagrams`);
  toldAt += tellEvery;
}
say(`${mutated} spoilt datagrams in ${scenarios} scenarios, ${finds} finds, heap at most ${Math.round(heapBytes / 1024 / 1024)} MB`);
process.exitCode = finds > 0 ? 1 : 0;
