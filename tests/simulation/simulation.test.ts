/** What must hold in every history; `make simulate SEED= RUNS=` looks at many more. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { World } from './world.ts';

const seedsThatFailed = readFileSync(new URL('seeds.txt', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => /^\d/.test(line))
  .map((line) => Number(line.split(' ')[0]));
const someSeeds = Array.from({ length: 20 }, (_, index) => index + 1);
const faultyMs = 60_000;

describe('simulation', () => {
  test('one seed is one history', async () => {
    const digests = [];
    for (let run = 0; run < 2; run++) digests.push((await new World({ seed: 7, faultyMs }).run()).digest);
    expect(digests[0]).toBe(digests[1]);
    expect((await new World({ seed: 8, faultyMs }).run()).digest).not.toBe(digests[0]);
  }, 60_000);

  test.each(someSeeds)(
    'seed %i: nothing is lost, nothing is billed twice, and everything settles',
    async (seed) => {
      expect((await new World({ seed, faultyMs }).run()).violations).toEqual([]);
    },
    60_000,
  );

  test('the seeds that failed once are good', async () => {
    for (const seed of seedsThatFailed) expect({ seed, violations: (await new World({ seed }).run()).violations }).toEqual({ seed, violations: [] });
  }, 600_000);
});
