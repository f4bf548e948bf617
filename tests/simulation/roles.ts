/** The real loops of flowledger over model adapters, with the short times that let much happen in little virtual time. */
import { runningSha256, sha256 } from '../../adapters/digest.ts';
import type { Logger } from '../../adapters/ports.ts';
import type { Replica } from '../../schemas/topics.ts';
import { Accounting } from '../../services/accounting/accounting.ts';

import { Aggregator } from '../../services/aggregator/aggregator.ts';
import { Collector } from '../../services/collector/collector.ts';
import { type CollectorConfig, collectorConfig } from '../../services/collector/config.ts';
import { Feed } from '../../services/feed/feed.ts';
import { Judge } from '../../services/judge/judge.ts';
import { Watchdog } from '../../services/watchdog/watchdog.ts';
import { collectorName } from './faults.ts';
import type { ProcessHandle } from './model-clock.ts';
import type { Role } from './processes.ts';
import type { World } from './world.ts';

function loggerOf(world: World, process: ProcessHandle): Logger {
  const line = (facts: object, message: string) => {
    const told = Object.values(facts).filter((value) => typeof value === 'string' || typeof value === 'number');
    world.note([`${process.name} says: ${message}`, ...told].join('; '));
  };
  return { debug: () => undefined, info: () => undefined, warn: line, error: line };
}

/** What every loop gets. */
function partsOf(world: World, process: ProcessHandle) {
  return { log: world.broker.connect(process), clock: process.clock, logger: loggerOf(world, process), digest: sha256 };
}

/** A copy that is full after an outage of half a minute, or of a few seconds. */
const tightCopy = { store_max: 80_000, store_reserve: 15_000, memory_max: 60_000 };
const tighterCopy = { store_max: 20_000, store_reserve: 8_000, memory_max: 15_000 };

export function collectorRole(world: World, index: number): Role {
  const name = collectorName(index);
  const { chance } = world;
  const tight = chance.pick<Partial<CollectorConfig>>([{}, {}, tightCopy, tighterCopy]);
  const transfer_gate = chance.happens(0.3) ? ('aggregator' as const) : ('broker' as const);
  const pace = { flush_interval: chance.pick([100, 250]), health_interval: 1_000 };
  const config = { ...collectorConfig.parse({}), name, batch_nars_max: chance.pick([7, 1_000]), transfer_gate, ...pace, ...tight };
  world.store(index).bytesMax = tight.store_max ?? Number.POSITIVE_INFINITY;
  const skewMs = chance.happens(0.3) ? chance.integer(-8_000, 8_000) : 0;
  return {
    kind: 'collector',
    name,
    start: (process, signal) => {
      process.skewMs += skewMs;
      const store = world.stores[index]!.connect(process);
      const collector = new Collector({ ...partsOf(world, process), config, partitions: world.histories.length, store });
      world.ingest[index] = ({ bytes, exporter }) =>
        process.deliver(() => collector.receive([{ bytes: Buffer.from(bytes), address: exporter, receivedMs: process.clock.now() }]));
      return collector.run(signal);
    },
  };
}

export function watchdogRole(world: World, index: number): Role {
  const settings = { id: `watchdog-${index}`, silent_after: 1_200, stalled_after: 10_000, suspicion_quorum: 1 };
  return {
    kind: 'watchdog',
    name: settings.id,
    start: (process, signal) => new Watchdog({ ...partsOf(world, process), settings }).run(signal),
  };
}

export function feedRole(world: World, index: number): Role {
  const settings = {
    id: `feed-${index}`,
    emit: world.chance.happens(0.2) || world.waitsForBoth ? ('agreed' as const) : ('elected' as const),
    agree_within: world.hasFlips ? 3_600_000 : 5_000,
    history: world.chance.pick([0, 3_000]),
    transaction_outputs_max: world.chance.pick([3, 50, 2_000]),
    standby_after: 3_000,
    health_interval: 500,
  };
  return {
    kind: 'feed',
    name: settings.id,
    start: (process, signal) => new Feed({ ...partsOf(world, process), settings }).run(signal),
  };
}

export function judgeRole(world: World, index: number): Role {
  const interval = world.chance.pick([500, 5_000]);
  const history = world.chance.pick([0, 4_000]);
  world.historyMs = Math.min(world.historyMs, history);
  const settings = {
    id: `judge-${index}`,
    interval,
    history,
    held_after: 60_000,
    disk_size: 0,
    health_interval: 250,
  };
  return {
    kind: 'judge',
    name: settings.id,
    start: (process, signal) => new Judge({ ...partsOf(world, process), runningDigest: runningSha256, settings }).run(signal),
  };
}

export function accountingRole(world: World): Role {
  return {
    kind: 'accounting',
    name: 'accounting',
    start: (process, signal) => new Accounting({ ...partsOf(world, process), ledger: world.ledger }).run(signal),
  };
}

export function aggregatorRole(world: World, replica: Replica): Role {
  const snapshot_idle = world.chance.pick([1_000, 30_000]);
  const settings = { ack_interval: world.chance.pick([100, 250]), ack_repeat: 1_000, snapshot_idle, health_interval: 400 };
  const skewMs = world.chance.happens(0.3) ? world.chance.integer(-8_000, 8_000) : 0;
  return {
    kind: 'aggregator',
    name: replica,
    start: (process, signal) => {
      process.skewMs += skewMs;
      const aggregator = new Aggregator({ ...partsOf(world, process), replica, settings });
      world.aggregators[replica] = { aggregator, process };
      return aggregator.run(signal);
    },
  };
}
