/** What goes wrong: each kind draws its parameters from a seed before the history begins, and strikes with them when its time comes. */
import { allTopics, outputTopic, type Replica, replicas, snapshotTopic, topics } from '../../schemas/topics.ts';
import { agreedOffset } from './cut-checkers.ts';
import type { Chance } from './model-clock.ts';
import { noLogFaults } from './model-log.ts';
import { noStoreFaults } from './model-store.ts';
import { type Params, type Parts, partNames, type Strike } from './scenario.ts';
import type { World } from './world.ts';

/** Draws what a strike needs to know. */
class Sketch {
  readonly parts: Parts;
  readonly chance: Chance;
  /** The replica whose memory goes wrong: with both, there would be nobody to be repaired from. */
  readonly flipped: Replica;
  readonly #isLong: boolean;

  constructor(parts: Parts, chance: Chance, isLong: boolean) {
    this.parts = parts;
    this.chance = chance;
    this.flipped = chance.pick(replicas);
    this.#isLong = isLong;
  }

  /** A duration; in short histories nothing lasts longer than a part of what it does in long ones. */
  ms(low: number, high: number): number {
    return this.chance.integer(low, this.#isLong ? high : Math.max(low, Math.ceil(high / shorter)));
  }

  part(...not: readonly string[]): string {
    return this.chance.pick(partNames(this.parts).filter((name) => !not.some((head) => name.startsWith(head))));
  }

  collector(): number {
    return this.chance.integer(0, this.parts.collectors - 1);
  }

  partition(): number {
    return this.chance.integer(0, this.parts.partitions - 1);
  }

  rate(max: number): number {
    return Math.round(1000 * max * this.chance.next()) / 1000;
  }

  /** Some of the rates stay 0, so that each kind of trouble also comes alone. */
  someRate(max: number): number {
    return this.chance.happens(0.4) ? this.rate(max) : 0;
  }
}

const shorter = 5;

interface Fault {
  readonly draw: (sketch: Sketch) => Params;
  readonly strike: (world: World, params: Params) => void;
}

/** A strike gets what was drawn for it. */
function fault<Drawn extends Params>(draw: (sketch: Sketch) => Drawn, strike: (world: World, params: Drawn) => void): Fault {
  return { draw, strike: (world, params) => strike(world, params as Drawn) };
}

const nothing = () => ({});

export const faults: Readonly<Record<string, Fault>> = {
  kill: fault(
    (sketch) => ({ part: sketch.part(), downMs: sketch.ms(50, sketch.chance.happens(0.2) ? 45_000 : 6_000) }),
    (world, { part, downMs }) => world.part(part).kill(downMs),
  ),
  stop: fault(
    (sketch) => ({ part: sketch.part(), downMs: sketch.ms(50, 6_000) }),
    (world, { part, downMs }) => world.part(part).stop(downMs),
  ),
  stall: fault(
    (sketch) => ({ part: sketch.part(), ms: sketch.ms(100, 20_000) }),
    (world, { part, ms }) => world.part(part).pause(ms, false),
  ),
  zombie: fault(
    (sketch) => ({ part: sketch.part('c', 'accounting'), ms: sketch.ms(500, 40_000) }),
    (world, { part, ms }) => world.part(part).pause(ms, true),
  ),
  zombieCollector: fault(
    (sketch) => ({ part: collectorName(sketch.collector()), ms: sketch.ms(500, 40_000) }),
    (world, { part, ms }) => {
      world.onlyBound();
      world.part(part).pause(ms, true);
    },
  ),
  brokerAway: fault(
    (sketch) => ({ ms: sketch.ms(100, 15_000) }),
    (world, { ms }) => world.broker.away(ms),
  ),
  cutOff: fault(
    (sketch) => ({ part: sketch.part(), ms: sketch.ms(500, 30_000) }),
    (world, { part, ms }) => {
      const { current } = world.part(part);
      if (current) world.broker.cutOff(current, ms);
    },
  ),
  storeAway: fault(
    (sketch) => ({ collector: sketch.collector(), ms: sketch.ms(100, 20_000) }),
    (world, { collector, ms }) => world.store(collector).away(ms),
  ),
  storeBack: fault(
    (sketch) => ({ collector: sketch.collector(), ms: sketch.ms(10, 10_000) }),
    (world, { collector, ms }) => {
      const restore = world.store(collector).save();
      world.onlyBound();
      world.clock.after(ms, () => {
        world.note(`store ${collector} goes back to what it was`);
        restore();
      });
    },
  ),
  storeWiped: fault(
    (sketch) => ({ collector: sketch.collector() }),
    (world, { collector }) => {
      world.onlyBound();
      world.store(collector).wipe();
    },
  ),
  compaction: fault(nothing, (world) => {
    for (const topic of allTopics) if (topic.settings['cleanup.policy']?.value === 'compact') world.broker.compact(topic.name);
  }),
  snapshotsLost: fault(nothing, (world) => {
    for (const partition of world.histories.keys()) {
      world.agreedOnce[partition] = Math.max(world.agreedOnce[partition] ?? 0, agreedOffset(world.broker, partition));
    }
    world.broker.createTopic(snapshotTopic('b').name, world.histories.length);
  }),
  snapshotSpoilt: fault(
    (sketch) => ({ partition: sketch.partition() }),
    (world, { partition }) => {
      world.agreedOnce[partition] = Math.max(world.agreedOnce[partition] ?? 0, agreedOffset(world.broker, partition));
      const { entries } = world.broker.partition(snapshotTopic('b').name, partition);
      const value = entries.findLast(({ record, gone }) => !gone && record.value)?.record.value;
      // One bit of the state, which is the last field.
      if (value) value[value.length - 1 - Math.floor(value.length / 8)]! ^= 0x10;
    },
  ),
  flip: fault(
    (sketch) => ({ replica: sketch.flipped, partition: sketch.partition() }),
    // Before both hold a snapshot alike nobody could tell where what is wrong began; it may also have been copied by then.
    (world, { replica, partition }) => whenAgreed(world, partition, 60, () => world.flip(replica, partition)),
  ),
  badLog: fault(
    (sketch) => ({
      ms: sketch.ms(500, 15_000),
      unavailable: sketch.someRate(0.3),
      unknownAppended: sketch.someRate(0.3),
      unknownLost: sketch.someRate(0.3),
      unknownLate: sketch.someRate(0.3),
      swallowed: sketch.someRate(0.3),
      repeated: sketch.someRate(0.3),
      readFault: sketch.someRate(0.3),
      leaked: sketch.someRate(0.5),
    }),
    (world, { ms, ...rates }) => {
      world.broker.faults = { ...noLogFaults, ...rates };
      world.clock.after(ms, () => {
        world.broker.faults = { ...noLogFaults };
      });
    },
  ),
  clientCareless: fault(
    (sketch) => ({ ms: sketch.ms(500, 15_000) }),
    (world, { ms }) => {
      world.broker.isClientCareless = true;
      world.clock.after(ms, () => {
        world.broker.isClientCareless = false;
      });
    },
  ),
  offsetsReset: fault(
    (sketch) => ({ to: sketch.chance.pick(['none', 'earliest', 'latest', 'middle']) }),
    (world, { to }) =>
      world.broker.resetGroupOffsets(({ startOffset, endOffset }) => {
        if (to === 'none') return null;
        return to === 'earliest' ? startOffset : to === 'latest' ? endOffset : Math.floor((startOffset + endOffset) / 2);
      }),
  ),
  clockJump: fault(
    (sketch) => ({ part: sketch.part(), ms: sketch.chance.integer(-8_000, 8_000) }),
    (world, { part, ms }) => {
      world.jumpedMs += Math.abs(ms);
      for (const process of world.part(part).processes) process.skewMs += ms;
    },
  ),
  brokerClockJump: fault(
    (sketch) => ({ ms: sketch.chance.integer(-4_000, 4_000) }),
    (world, { ms }) => {
      world.jumpedMs += Math.abs(ms);
      world.broker.skewMs += ms;
    },
  ),
  configChange: fault(
    (sketch) => ({
      window_ms: sketch.chance.pick([2_000, 4_000, 5_000]),
      lateness_ms: sketch.chance.pick([0, 500, 2_000]),
      live_within_ms: sketch.chance.pick([2_000, 5_000, 15_000]),
      snapshot_every: sketch.chance.pick([20, 100, 500]),
      spread: sketch.chance.happens(0.3),
    }),
    (world, params) => world.changeConfig(params),
  ),
  acksRecreated: fault(nothing, (world) => world.broker.createTopic(topics.acks.name, topics.acks.partitions)),
  storeCrash: fault(
    (sketch) => ({ collector: sketch.collector(), downMs: sketch.ms(100, 10_000) }),
    (world, { collector, downMs }) => world.store(collector).crash(downMs),
  ),
  storeTail: fault(
    (sketch) => ({ collector: sketch.collector(), lostMs: sketch.chance.integer(10, 1_000), downMs: sketch.ms(100, 10_000) }),
    (world, { collector, lostMs, downMs }) => {
      const restore = world.store(collector).save();
      world.onlyBound();
      world.clock.after(lostMs, () => {
        restore();
        world.store(collector).away(downMs);
      });
    },
  ),
  storeFull: fault(
    (sketch) => ({ collector: sketch.collector(), ms: sketch.ms(100, 15_000) }),
    (world, { collector, ms }) => world.store(collector).full(ms),
  ),
  badStore: fault(
    (sketch) => ({
      collector: sketch.collector(),
      ms: sketch.ms(500, 15_000),
      away: sketch.rate(0.2),
      unknownDone: sketch.rate(0.3),
      unknownLost: sketch.rate(0.3),
    }),
    (world, { collector, ms, ...rates }) => {
      const store = world.store(collector);
      store.faults = { ...noStoreFaults, ...rates };
      world.clock.after(ms, () => {
        store.faults = { ...noStoreFaults };
      });
    },
  ),
  badWire: fault(
    (sketch) => ({ ms: sketch.ms(500, 15_000), lost: sketch.rate(0.3), repeated: sketch.rate(0.1), delayed: sketch.rate(0.2) }),
    (world, { ms, lost, repeated, delayed }) => {
      world.wire = { lost, repeated, delayed };
      world.clock.after(ms, () => {
        world.wire = { lost: 0, repeated: 0, delayed: 0 };
      });
    },
  ),
};

/**
 * Errors of operators, and disks that lie: the design does not promise that all goes on by itself after these, only what promises.ts says. At most
 * one kind of them comes up in a history, and seldom.
 */
export const graveFaults: Readonly<Record<string, Fault>> = {
  narsTruncated: fault(
    (sketch) => ({ partition: sketch.partition(), records: sketch.chance.integer(1, 30) }),
    (world, { partition, records }) => {
      world.broker.truncate(topics.nars.name, partition, records);
      world.logReplaced(partition);
    },
  ),
  narsRecreated: fault(nothing, (world) => {
    world.broker.createTopic(topics.nars.name, world.histories.length);
    for (const [partition, { eras }] of world.histories.entries()) {
      eras.replace(world.broker.topic(topics.nars.name).id);
      world.logReplaced(partition);
    }
  }),
  narsRetention: fault(
    (sketch) => ({ partition: sketch.partition(), kept: sketch.chance.integer(0, 20) }),
    (world, { partition, kept }) => {
      world.mayStop(partition);
      world.broker.deleteRecords(topics.nars.name, partition, world.broker.partition(topics.nars.name, partition).endOffset - kept);
    },
  ),
  outputsRetention: fault(
    (sketch) => ({ partition: sketch.partition(), replica: sketch.chance.pick(replicas), kept: sketch.chance.integer(0, 20) }),
    (world, { partition, replica, kept }) => {
      const { name } = outputTopic(replica);
      world.mayStop(partition);
      world.broker.deleteRecords(name, partition, world.broker.partition(name, partition).endOffset - kept);
    },
  ),
  outputsTruncated: fault(
    (sketch) => ({ partition: sketch.partition(), replica: sketch.chance.pick(replicas), records: sketch.chance.integer(1, 10) }),
    (world, { partition, replica, records }) => {
      world.mayStop(partition);
      world.broker.truncate(outputTopic(replica).name, partition, records);
      world.outputsLost(replica, partition);
    },
  ),
  outputsRecreated: fault(
    (sketch) => ({ replica: sketch.chance.pick(replicas) }),
    (world, { replica }) => {
      world.broker.createTopic(outputTopic(replica).name, world.histories.length);
      for (const partition of world.histories.keys()) {
        world.mayStop(partition);
        world.outputsLost(replica, partition);
      }
    },
  ),
  aggregatesTruncated: fault(
    (sketch) => ({ partition: sketch.partition(), records: sketch.chance.integer(1, 30) }),
    (world, { partition, records }) => {
      world.mayStop(partition);
      world.broker.truncate(topics.aggregates.name, partition, records);
      world.aggregatesLost(partition);
    },
  ),
  allSnapshotsLost: fault(nothing, (world) => {
    for (const replica of replicas) {
      for (const { entries } of world.broker.topic(snapshotTopic(replica).name).partitions) for (const entry of entries) entry.gone = true;
    }
    for (const partition of world.histories.keys()) world.mayStop(partition);
  }),
  newerFold: fault(nothing, (world) => {
    for (const partition of world.histories.keys()) world.mayStop(partition);
    world.changeConfig({ fold_version: 2 });
  }),
};

function whenAgreed(world: World, partition: number, attempts: number, act: () => void): void {
  const { entries } = world.broker.partition(topics.agreements.name, 0);
  if (entries.some(({ record }) => record.key?.toString() === String(partition))) act();
  else if (attempts > 0) world.clock.after(500, () => whenAgreed(world, partition, attempts - 1, act));
}

/** A fault strikes every so many ms, on average: dense in some seeds, sparse in others. */
const pausesBetweenMs = { short: [250, 600, 1_500], long: [1_500, 4_000, 8_000] };

/** After these a loss is known only roughly. */
const roughFaults = ['storeBack', 'storeWiped', 'storeAway', 'storeTail', 'storeFull', 'badStore', 'zombieCollector'];
/** In so many histories something happens after which not all is promised. */
const graveShare = 0.12;

/** What goes wrong in a history; each seed knows only some kinds, so that rare combinations come up, too. */
export function drawStrikes(parts: Parts, untilMs: number, isLong: boolean, chance: Chance, only?: readonly string[]): Strike[] {
  const sketch = new Sketch(parts, chance, isLong);
  // In half of the seeds nothing happens after which a loss could be known only roughly, so that all is held to the flow.
  const rough = chance.happens(0.5) ? [] : roughFaults;
  const usual = Object.keys(faults).filter((name) => name !== 'flip' && !roughFaults.includes(name));
  const names = only ? [...only] : [...usual, ...rough].filter(() => chance.happens(0.5));
  // Memory goes wrong in some seeds only, since their feeds wait for both replicas.
  if (!only && chance.happens(0.25)) names.push('flip');
  const grave = !only && !names.includes('flip') && chance.happens(graveShare) ? chance.pick(Object.keys(graveFaults)) : null;
  const pauseMs = chance.pick(isLong ? pausesBetweenMs.long : pausesBetweenMs.short);
  const strikes: Strike[] = [];
  for (let atMs = chance.integer(500, 3_000); names.length > 0 && atMs < untilMs; atMs += chance.integer(0, 2 * pauseMs)) {
    const name = chance.pick(names);
    strikes.push({ atMs, fault: name, params: kindOf(name).draw(sketch) });
  }
  if (grave) strikes.push({ atMs: chance.integer(untilMs / 3, untilMs), fault: grave, params: kindOf(grave).draw(sketch) });
  return strikes.sort((one, other) => one.atMs - other.atMs);
}

const harmless = ['stall', 'zombie', 'clockJump', 'configChange', 'offsetsReset', 'compaction', 'badWire'];

/** Whatever is slow, doubled or wrong about the time: all that was sent once is in the log. */
export function neverRepeats({ fault: name }: Strike): boolean {
  return harmless.includes(name);
}

/** After it not all is promised. */
export function isGrave(name: string): boolean {
  return name in graveFaults;
}

function kindOf(name: string): Fault {
  const kind = faults[name] ?? graveFaults[name];
  if (!kind) throw new Error(`there is no fault ${name}`);
  return kind;
}

export function strike(world: World, { fault: name, params }: Strike): void {
  const kind = kindOf(name);
  world.note(`${name} ${JSON.stringify(params)}`);
  world.count(name);
  kind.strike(world, params);
}

/** Everything is well again; of doubled processes some stay, since safety must not need them gone. */
export function endFaults(world: World, chance: Chance): void {
  world.note('no more faults');
  world.broker.faults = { ...noLogFaults };
  world.broker.away(0);
  world.broker.isClientCareless = false;
  for (const store of world.stores) {
    store.faults = { ...noStoreFaults };
    store.away(0);
    store.full(0);
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

export function collectorName(index: number): string {
  return `c${index + 1}`;
}

export function collectorNames(count: number): string[] {
  return Array.from({ length: count }, (_, index) => collectorName(index));
}
