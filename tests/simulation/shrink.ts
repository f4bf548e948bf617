/**
 * From a scenario that fails to a short one that fails by the same invariant: fewer faults by delta debugging (Zeller's ddmin), an earlier end,
 * fewer parts, shorter faults; again, until nothing can go.
 */
import { isPossible, type Params, type Parts, type Scenario, type Strike } from './scenario.ts';

export interface Shrunk {
  readonly scenario: Scenario;
  readonly runs: number;
}

/** Whether a scenario still fails in the same way. */
export type Fails = (scenario: Scenario) => Promise<boolean>;

const tailMs = 500;

class Shrinking {
  scenario: Scenario;
  runs = 0;
  readonly #fails: Fails;
  readonly #runsMax: number;

  constructor(scenario: Scenario, fails: Fails, runsMax: number) {
    this.scenario = scenario;
    this.#fails = fails;
    this.#runsMax = runsMax;
  }

  async tryOut(change: Partial<Scenario>): Promise<boolean> {
    if (this.runs >= this.#runsMax) return false;
    this.runs++;
    const scenario = { ...this.scenario, ...change };
    if (!(await this.#fails(scenario))) return false;
    this.scenario = scenario;
    return true;
  }

  /** ddmin: leaves out ever smaller runs of strikes. */
  async strikes(): Promise<void> {
    for (let size = Math.ceil(this.scenario.strikes.length / 2); size >= 1; ) {
      let isSmaller = false;
      for (let from = 0; from < this.scenario.strikes.length; ) {
        const { strikes } = this.scenario;
        if (await this.tryOut({ strikes: strikes.filter((_one, index) => index < from || index >= from + size) })) isSmaller = true;
        else from += size;
      }
      if (size === 1 && !isSmaller) return;
      size = size === 1 ? 1 : Math.ceil(size / 2);
    }
  }

  async span(): Promise<void> {
    const lastMs = this.scenario.strikes.at(-1)?.atMs ?? 0;
    for (const faultyMs of [lastMs + tailMs, Math.ceil((lastMs + this.scenario.faultyMs) / 2)]) {
      if (faultyMs < this.scenario.faultyMs && (await this.tryOut({ faultyMs }))) break;
    }
    if (this.scenario.quietMs > tailMs) await this.tryOut({ quietMs: tailMs });
  }

  async parts(): Promise<void> {
    for (const name of ['exporters', 'feeds', 'watchdogs', 'partitions', 'collectors'] as const) {
      while (this.scenario.parts[name] > 1) {
        const parts: Parts = { ...this.scenario.parts, [name]: this.scenario.parts[name] - 1 };
        if (parts.exporters < parts.collectors) break;
        const strikes = this.scenario.strikes.filter((one) => isPossible(one, parts));
        if (!(await this.tryOut({ parts, strikes }))) break;
      }
    }
  }

  /** Every duration and rate of a strike by half, as long as it fails. */
  async params(): Promise<void> {
    for (let index = 0; index < this.scenario.strikes.length; index++) {
      for (const name of Object.keys(this.scenario.strikes[index]!.params)) {
        for (;;) {
          const strike = this.scenario.strikes[index] as Strike;
          const params = halved(strike.params, name);
          if (!params) break;
          const strikes = this.scenario.strikes.with(index, { ...strike, params });
          if (!(await this.tryOut({ strikes }))) break;
        }
      }
    }
  }
}

const durations = new Set(['ms', 'downMs', 'lostMs']);

function halved(params: Params, name: string): Params | null {
  const value = params[name];
  if (typeof value !== 'number' || value === 0) return null;
  if (value < 1 && !Number.isInteger(value)) return { ...params, [name]: 0 };
  return durations.has(name) && value > 100 ? { ...params, [name]: Math.floor(value / 2) } : null;
}

export async function shrink(scenario: Scenario, fails: Fails, runsMax = 600): Promise<Shrunk> {
  const shrinking = new Shrinking(scenario, fails, runsMax);
  for (let before = ''; before !== JSON.stringify(shrinking.scenario); ) {
    before = JSON.stringify(shrinking.scenario);
    await shrinking.strikes();
    await shrinking.span();
    await shrinking.parts();
    await shrinking.params();
  }
  return { scenario: shrinking.scenario, runs: shrinking.runs };
}

/** The invariant that a violation names. */
export function invariantOf(violation: string | undefined): string {
  return violation?.split(':')[0] ?? '';
}
