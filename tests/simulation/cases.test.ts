/** Every case of the protocol review is played on the real loops: see cases.ts and mutations.ts. */
import { describe, expect, test } from '@jest/globals';
import { type Case, cases, mutationsOf, outOfReach, scenarioOf } from './cases.ts';
import { World } from './world.ts';

const seedsPerCase = 4;
const numbered = (letter: string, count: number) => Array.from({ length: count }, (_, index) => `${letter}${String(index + 1).padStart(2, '0')}`);

describe('cases of the protocol review', () => {
  test('each has its scenario, or its mutation, or a reason', () => {
    const scenarios = cases.map(({ id }) => id);
    expect([...numbered('P', 37), ...numbered('B', 5)].filter((id) => !scenarios.includes(id))).toEqual([]);
    const failed = [...numbered('W', 23), ...numbered('M', 13)];
    expect(failed.filter((id) => mutationsOf(id).length === 0 && !(id in outOfReach))).toEqual([]);
  });

  test.each(cases.map((one): [string, Case] => [`${one.id}: ${one.says}`, one]))(
    '%s',
    async (_name, one) => {
      const struck = new Set<string>();
      for (let seed = 1; seed <= seedsPerCase; seed++) {
        const scenario = scenarioOf(one, seed);
        for (const { fault } of scenario.strikes) struck.add(fault);
        expect({ seed, violations: (await new World({ seed, scenario }).run()).violations }).toEqual({ seed, violations: [] });
      }
      expect(one.faults.filter((fault) => !struck.has(fault))).toEqual([]);
    },
    120_000,
  );
});
