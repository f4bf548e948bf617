/** What must hold in every history; `make simulate SEED= RUNS=` looks at many more. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { drawScenario, type Scenario } from './scenario.ts';
import { shrink } from './shrink.ts';
import { World } from './world.ts';

/** A seed, or a scenario as one line of JSON. */
const kept = readFileSync(new URL('seeds.txt', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => /^[\d{]/.test(line))
  .map((line) => (line.startsWith('{') ? (JSON.parse(line) as Scenario) : drawScenario(Number(line.split(' ')[0]))));
const faultyMs = 20_000;

describe('simulation', () => {
  test('one seed is one history', async () => {
    const digests = [];
    for (let run = 0; run < 2; run++) digests.push((await new World({ seed: 7, faultyMs }).run()).digest);
    expect(digests[0]).toBe(digests[1]);
    expect((await new World({ seed: 8, faultyMs }).run()).digest).not.toBe(digests[0]);
  }, 60_000);

  test('every invariant has a checker that looks at it', async () => {
    const page = readFileSync(new URL('../../docs/INVARIANTS.md', import.meta.url), 'utf8');
    const numbered = [...page.matchAll(/^\|\s*(I\d+)\s*\|/gm)].map(([, id]) => id as string);
    const looked = new Set<string>();
    for (let seed = 1; seed <= 100 && looked.size < numbered.length; seed++)
      for (const id of Object.keys((await new World({ seed }).run()).checked)) looked.add(id);
    expect([...looked].sort()).toEqual([...numbered].sort());
  }, 60_000);

  test('what failed once is good', async () => {
    const violations = [];
    for (const scenario of kept) violations.push(...(await new World({ seed: scenario.seed, scenario }).run()).violations);
    expect(violations).toEqual([]);
  }, 600_000);

  test('a scenario that fails is shrunk to the faults that matter', async () => {
    const scenario = drawScenario(3, undefined, ['kill', 'stall']);
    const killsTwice = ({ strikes }: Scenario) => strikes.filter(({ fault }) => fault === 'kill').length > 1;
    expect(killsTwice(scenario)).toBe(true);
    const shrunk = await shrink(scenario, async (one) => killsTwice(one));
    expect(shrunk.scenario.strikes.map(({ fault }) => fault)).toEqual(['kill', 'kill']);
    expect(shrunk.scenario.parts).toMatchObject({ partitions: 1, watchdogs: 1, feeds: 1 });
  });
});
