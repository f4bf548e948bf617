/** Runs histories with a guard switched off until one goes wrong. */
import { availableParallelism } from 'node:os';
import type { Mutation } from './mutations.ts';
import { Pool } from './pool.ts';
import { drawScenario, type Scenario } from './scenario.ts';
import { invariantOf } from './shrink.ts';

export interface Caught {
  /** So many histories were looked at. */
  readonly seeds: number;
  readonly invariant: string;
  readonly violation: string;
}

export async function catchMutation({ edits, only, strikes, replacement, seedsMax }: Mutation): Promise<Caught | null> {
  const pool = new Pool(Math.min(2, availableParallelism()), edits);
  const scenarioOf = (seed: number) => ({ ...drawScenario(seed, undefined, only), ...(strikes && { strikes }), ...(replacement && { replacement }) });
  function* tasks() {
    for (let seed = 1; seed <= seedsMax; seed++) yield { seed, scenario: scenarioOf(seed) };
  }
  try {
    let seeds = 0;
    for await (const { violations } of pool.runAll(tasks())) {
      seeds++;
      const [violation] = violations;
      if (violation) await requireGood(scenarioOf(seeds));
      if (violation) return { seeds, invariant: invariantOf(violation), violation };
    }
    return null;
  } finally {
    await pool.close();
  }
}

/** @throws Error where it is not the missing guard that is to blame */
async function requireGood(scenario: Scenario): Promise<void> {
  const pool = new Pool(1);
  try {
    const { violations } = await pool.run({ seed: scenario.seed, scenario });
    if (violations[0]) throw new Error(`seed ${scenario.seed} goes wrong with all guards on: ${violations[0]}`);
  } finally {
    await pool.close();
  }
}
