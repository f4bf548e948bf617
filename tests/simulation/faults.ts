/** What goes wrong, and when: drawn from the seed, until the faults stop. */
import { allTopics, snapshotTopic } from '../../schemas/topics.ts';
import { agreedOffset } from './cut-checkers.ts';
import type { Chance } from './model-clock.ts';
import { noLogFaults } from './model-log.ts';
import { noStoreFaults } from './model-store.ts';
import type { Supervised } from './processes.ts';
import type { World } from './world.ts';

/** A fault strikes every so many ms, on average: dense in some seeds, sparse in others. */
const pausesBetweenMs = [1_500, 4_000, 8_000];

type Fault = (world: World, chance: Chance) => void;

const someone = (world: World, chance: Chance): Supervised => chance.pick(world.supervised);

const kinds: Readonly<Record<string, Fault>> = {
  kill: (world, chance) => someone(world, chance).kill(chance.integer(50, chance.happens(0.2) ? 45_000 : 3_000)),
  stop: (world, chance) => someone(world, chance).stop(chance.integer(50, 3_000)),
  stall: (world, chance) => someone(world, chance).pause(chance.integer(100, 20_000), false),
  zombie: (world, chance) => {
    const doubles = world.supervised.filter(({ role }) => role.kind !== 'accounting' && role.kind !== 'collector');
    chance.pick(doubles).pause(chance.integer(500, 40_000), true);
  },
  zombieCollector: (world, chance) => {
    world.onlyBound();
    const collectors = world.supervised.filter(({ role }) => role.kind === 'collector');
    chance.pick(collectors).pause(chance.integer(500, 40_000), true);
  },
  brokerAway: (world, chance) => {
    const ms = chance.integer(100, 15_000);
    world.note(`the broker is away for ${ms} ms`);
    world.broker.away(ms);
  },
  cutOff: (world, chance) => {
    const { current } = someone(world, chance);
    if (!current) return;
    const ms = chance.integer(500, 30_000);
    world.note(`${current.name} does not reach the broker for ${ms} ms`);
    world.broker.cutOff(current, ms);
  },
  storeAway: (world, chance) => {
    const store = chance.pick(world.stores);
    const ms = chance.integer(100, 20_000);
    world.note(`a store is away for ${ms} ms`);
    store.away(ms);
  },
  storeBack: (world, chance) => {
    const restore = chance.pick(world.stores).save();
    world.onlyBound();
    world.clock.after(chance.integer(10, 3_000), () => {
      world.note('a store goes back to what it was');
      restore();
    });
  },
  storeWiped: (world, chance) => {
    world.note('a store is emptied');
    world.onlyBound();
    chance.pick(world.stores).wipe();
  },
  compaction: (world) => {
    for (const topic of allTopics) if (topic.settings['cleanup.policy']?.value === 'compact') world.broker.compact(topic.name);
  },
  snapshotsLost: (world) => {
    world.note('the snapshots of replica b are lost');
    for (const partition of world.histories.keys()) world.agreedOnce[partition] = agreedOffset(world.broker, partition);
    world.broker.createTopic(snapshotTopic('b').name, world.histories.length);
  },
  badLog: (world, chance) => {
    const rate = () => (chance.happens(0.4) ? chance.next() * 0.3 : 0);
    world.note('the log is bad for a while');
    world.broker.faults = {
      unavailable: rate(),
      unknownAppended: rate(),
      unknownLost: rate(),
      unknownLate: rate(),
      swallowed: rate(),
      repeated: rate(),
      readFault: rate(),
    };
    world.clock.after(chance.integer(500, 15_000), () => {
      world.broker.faults = { ...noLogFaults };
    });
  },
  badStore: (world, chance) => {
    const store = chance.pick(world.stores);
    world.note('a store is bad for a while');
    store.faults = { away: chance.next() * 0.2, unknownDone: chance.next() * 0.3, unknownLost: chance.next() * 0.3 };
    world.clock.after(chance.integer(500, 15_000), () => {
      store.faults = { ...noStoreFaults };
    });
  },
  badWire: (world, chance) => {
    world.note('the network loses datagrams for a while');
    world.wire = { lost: chance.next() * 0.3, repeated: chance.next() * 0.1, delayed: chance.next() * 0.2 };
    world.clock.after(chance.integer(500, 15_000), () => {
      world.wire = { lost: 0, repeated: 0, delayed: 0 };
    });
  },
};

const roughKinds = ['storeBack', 'storeWiped', 'storeAway', 'badStore', 'zombieCollector'];

/** Has faults strike until then; each seed knows only some kinds, so that rare combinations come up, too. */
export function scheduleFaults(world: World, chance: Chance, untilMs: number): void {
  // In half of the seeds nothing happens after which a loss could be known only roughly, so that all is held to the flow.
  const rough = chance.happens(0.5) ? [] : roughKinds;
  const names = [...Object.keys(kinds).filter((name) => !roughKinds.includes(name)), ...rough].filter(() => chance.happens(0.5));
  const pauseMs = chance.pick(pausesBetweenMs);
  const strike = () => {
    if (world.clock.now() >= untilMs) return;
    const name = chance.pick(names);
    world.count(name);
    kinds[name]?.(world, chance);
    world.clock.after(chance.integer(0, 2 * pauseMs), strike);
  };
  if (names.length > 0) world.clock.after(chance.integer(3_000, 10_000), strike);
}

/** Everything is well again; of doubled processes some stay, since safety must not need them gone. */
export function endFaults(world: World, chance: Chance): void {
  world.note('no more faults');
  world.broker.faults = { ...noLogFaults };
  world.broker.away(0);
  for (const store of world.stores) {
    store.faults = { ...noStoreFaults };
    store.away(0);
  }
  world.wire = { lost: 0, repeated: 0, delayed: 0 };
  for (const supervised of world.supervised) {
    for (const process of supervised.processes) {
      world.broker.cutOff(process, 0);
      process.resume();
    }
    if (supervised.role.kind === 'collector' || chance.happens(0.5)) supervised.killOlder();
  }
}
