/**
 * The cases of the protocol review on the real loops. A case of what must hold is a few kinds of faults, and of the ways in which the log may lie;
 * the histories of several seeds that know no others are run. A design that failed, and a guard switched off, is a mutation of the source.
 */
import { mutations } from './mutations.ts';
import { drawScenario, type Scenario } from './scenario.ts';

type Lie = 'unknownAppended' | 'unknownLost' | 'unknownLate' | 'swallowed' | 'repeated' | 'leaked';

export interface Case {
  readonly id: string;
  readonly says: string;
  readonly faults: readonly string[];
  readonly lies: readonly Lie[];
}

const k1: readonly Lie[] = ['swallowed'];
const unknown: readonly Lie[] = ['unknownAppended', 'unknownLost'];
const late: readonly Lie[] = ['unknownLate'];

const holds = (id: string, says: string, faults: readonly string[], ...lies: (readonly Lie[])[]): Case => ({ id, says, faults, lies: lies.flat() });

export const cases: readonly Case[] = [
  holds('P01', 'crashes, K1, unknown outcomes', ['kill', 'clientCareless'], k1, unknown),
  holds('P02', "with other collectors' records in between", ['kill'], k1, unknown),
  holds('P03', 'delayed duplicates, appended later', ['kill'], k1, unknown, late, ['repeated']),
  holds('P04', 'two processes under one name', ['zombieCollector'], k1),
  holds('P05', 'and one of them dies', ['zombieCollector', 'kill']),
  holds('P06', 'the store is lost', ['kill', 'storeWiped'], k1),
  holds('P07', 'the store loses its tail', ['kill', 'storeTail', 'storeBack'], k1),
  holds('P08', 'in-memory fallback, then a crash', ['storeAway', 'storeFull', 'kill']),
  holds('P09', 'in-memory fallback and a second process', ['storeAway', 'zombieCollector']),
  holds('P10', 'release at the bound', ['brokerAway', 'stall', 'kill'], k1, unknown),
  holds('P11', 'release, tombstone, and the late original', ['brokerAway', 'stall', 'storeWiped'], k1, late),
  holds('P12', 'the log truncated, one history', ['narsTruncated', 'kill'], k1),
  holds('P13', 'lost acks, replicas that fold again', ['acksRecreated', 'kill'], k1),
  holds('P14', 'outputs lost, unknown, crash', ['kill'], k1, unknown),
  holds('P15', 'delayed outputs', ['kill'], k1, late),
  holds('P16', 'two processes of A', ['zombie', 'kill']),
  holds('P17', 'a zombie and a lost output', ['zombie'], k1),
  holds('P18', 'heads that are cut', ['kill', 'compaction']),
  holds('P19', "own snapshot lost, the other's taken", ['kill', 'snapshotsLost'], k1),
  holds('P20', 'longer logs', ['kill', 'offsetsReset'], k1),
  holds('P21', 'feeds, crashes, elections', ['kill', 'stop'], unknown, late),
  holds('P22', 'and no livelock', ['kill', 'zombie'], unknown, late),
  holds('P23', 'replicas that differ', ['flip', 'kill'], unknown),
  holds('P24', 'K8, guarded', ['kill', 'cutOff'], ['leaked'], unknown, late),
  holds('P25', 'interleavings of collectors', ['badWire', 'configChange']),
  holds('P26', 'collectors die', ['kill', 'configChange']),
  holds('P27', 'late batches, a duplicate', ['kill', 'brokerAway'], ['repeated']),
  holds('P28', 'goodbyes', ['stop', 'kill', 'brokerAway']),
  holds('P29', 'a clock far ahead', ['clockJump', 'brokerClockJump']),
  holds('P30', 'nars created again', ['narsRecreated']),
  holds('P31', 'and a collector dies', ['narsRecreated', 'kill']),
  holds('P32', 'two processes, K1 and unknown outcomes', ['zombieCollector'], k1, unknown),
  holds('P33', 'goodbyes for emptied incarnations', ['stop', 'kill'], k1),
  holds('P34', 'one of two processes dies and is not replaced', ['zombieCollector', 'kill', 'stop']),
  holds('P35', "the output topics' heads are cut too", ['kill', 'snapshotsLost', 'offsetsReset']),
  holds('P36', 'and outputs lost', ['kill', 'snapshotsLost'], k1, unknown),
  holds('P37', 'and a zombie', ['zombie', 'snapshotsLost']),
  holds('B01', 'crashes and unknown outcomes alone', ['kill'], unknown),
  holds('B02', 'a second process', ['zombieCollector']),
  holds('B03', 'no faults', []),
  holds('B04', 'a crash, snapshots ordered after outputs', ['kill']),
  holds('B05', 'feed: crashes, unknown outcomes, delays, elections', ['kill', 'stall'], unknown, late),
];

/** Designs that failed and cannot come about any more, each with what stands in the way. */
export const outOfReach: Readonly<Record<string, string>> = {
  W07: 'the highest Ack instead of the latest differs after a truncation only; there both replicas stop the partition first (P12)',
  W18: 'where nars was created again and its base named no snapshot, the chains of A and B differ, and the partition is held (chain unchecked, P30)',
};

export function scenarioOf({ faults, lies }: Case, seed: number): Scenario {
  const scenario = drawScenario(seed, undefined, lies.length > 0 ? [...faults, 'badLog'] : faults);
  const strikes = scenario.strikes.map((strike) => {
    if (strike.fault !== 'badLog') return strike;
    const { ms } = strike.params;
    return { ...strike, params: { ms: ms as number, ...Object.fromEntries(lies.map((lie) => [lie, lieRate])) } };
  });
  return { ...scenario, strikes };
}

const lieRate = 0.25;

/** The mutations that play a case. */
export function mutationsOf(id: string): string[] {
  return mutations.filter(({ cases: played }) => played?.includes(id)).map(({ name }) => name);
}
