/**
 * What one history is made of, as data: drawn from its seed, written down where it failed, shrunk, and replayed. Two runs of one scenario are one
 * history, event by event.
 */
import { collectorNames, drawStrikes, isGrave } from './faults.ts';
import { Chance } from './model-clock.ts';

export type Params = Readonly<Record<string, number | string | boolean>>;

/** Something goes wrong at a time. */
export interface Strike {
  /** Since the start of the history. */
  readonly atMs: number;
  /** One of `faults`. */
  readonly fault: string;
  readonly params: Params;
}

/** How many there are of what there can be several of. Aggregators a and b and accounting are always there. */
export interface Parts {
  readonly partitions: number;
  readonly collectors: number;
  readonly exporters: number;
  readonly watchdogs: number;
  readonly feeds: number;
  readonly judges: number;
}

export interface Scenario {
  /** Of every chance that is not written down here: delays, what is sent, whether a request meets a fault while faults are likely. */
  readonly seed: number;
  readonly parts: Parts;
  /** So long things go wrong, in virtual ms; */
  readonly faultyMs: number;
  /** then so long all is well while exporters go on; then everything must settle. */
  readonly quietMs: number;
  readonly strikes: readonly Strike[];
  /** When the faults are over, nars is deleted and made anew, while both replicas run or one of them is away. */
  readonly replacement?: Replacement;
}

export interface Replacement {
  readonly awayMs: number;
  /** The broker is not well meanwhile. */
  readonly isRough: boolean;
}

const replacementShare = 0.15;

/** Most histories are short and dense, so that many can be told; some are long, for what takes its time. */
const longShare = 0.02;

/** only: of the faults, these alone. */
export function drawScenario(seed: number, faultyMs?: number, only?: readonly string[]): Scenario {
  const chance = new Chance(seed).fork();
  const isLong = chance.happens(longShare);
  const collectors = chance.integer(1, 2);
  const parts = {
    partitions: chance.pick([1, 1, 2, 3]),
    collectors,
    exporters: chance.integer(collectors, 3),
    watchdogs: chance.happens(0.3) ? 2 : 1,
    feeds: chance.happens(0.3) ? 2 : 1,
    judges: chance.happens(0.3) ? 2 : 1,
  };
  const drawnMs = isLong ? chance.integer(45_000, 120_000) : chance.integer(8_000, 20_000);
  const span = { faultyMs: faultyMs ?? drawnMs, quietMs: isLong ? 45_000 : chance.integer(2_000, 6_000) };
  const strikes = drawStrikes(parts, span.faultyMs, isLong, chance, only);
  // What a flipped replica has folded is no state that a log could begin with.
  const isReplaced = !only && chance.happens(replacementShare) && !strikes.some(({ fault }) => fault === 'flip' || isGrave(fault));
  const replacement = { awayMs: chance.happens(0.4) ? chance.integer(2_000, 20_000) : 0, isRough: chance.happens(0.5) };
  return { seed, parts, ...span, strikes, ...(isReplaced ? { replacement } : {}) };
}

/** Every part that can be killed, by name. */
export function partNames({ collectors, watchdogs, feeds, judges }: Parts): string[] {
  const numbered = (name: string, count: number) => Array.from({ length: count }, (_, index) => `${name}-${index + 1}`);
  const several = [...numbered('watchdog', watchdogs), ...numbered('feed', feeds), ...numbered('judge', judges)];
  return [...collectorNames(collectors), 'a', 'b', ...several, 'accounting'];
}

/** A strike that names a part that is not there is left out. */
export function isPossible({ params }: Strike, parts: Parts): boolean {
  const { part, collector, partition } = params;
  if (typeof part === 'string' && !partNames(parts).includes(part)) return false;
  if (typeof collector === 'number' && collector >= parts.collectors) return false;
  return typeof partition !== 'number' || partition < parts.partitions;
}

/** One strike a line, for people. */
export function describeScenario({ seed, parts, faultyMs, quietMs, strikes, replacement }: Scenario): string {
  const counts = Object.entries(parts).map(([name, count]) => `${count} ${name}`);
  const replaced = replacement ? `; then nars is replaced ${JSON.stringify(replacement)}` : '';
  const head = `seed ${seed}: ${counts.join(', ')}; faults for ${faultyMs / 1000} s, quiet for ${quietMs / 1000} s${replaced}`;
  return [head, ...strikes.map(({ atMs, fault, params }) => `  at ${(atMs / 1000).toFixed(3)} s ${fault} ${JSON.stringify(params)}`)].join('\n');
}
