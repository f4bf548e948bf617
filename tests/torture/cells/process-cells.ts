/** Processes that die, and processes that sleep and wake up as zombies: each kind. */
import { otherReplica } from '../../../schemas/topics.ts';
import { type Cell, require } from '../cell.ts';
import { kill, pause, rollingRestart } from '../faults.ts';
import type { Field } from '../field.ts';

/** What is fed is so old at most when the system goes on without a part. */
const goneOnMs = 10_000;

const other = (field: Field) => `aggregator-${otherReplica(field.elected())}`;
const standbyFeed = async (field: Field) => ((await field.activeFeed()) === 'feed' ? 'feed-2' : 'feed');

const killed: readonly Cell[] = [
  {
    name: 'kill-elected',
    about: 'kill -9 of the elected aggregator',
    settleWithinMs: 60_000,
    fault: (field) => kill(field, [`aggregator-${field.elected()}`], 5000),
  },
  {
    name: 'kill-other',
    about: 'kill -9 of the other aggregator',
    settleWithinMs: 60_000,
    fault: (field) => kill(field, [other(field)], 5000),
  },
  {
    name: 'kill-both-aggregators',
    about: 'kill -9 of both aggregators at once',
    settleWithinMs: 60_000,
    fault: (field) => kill(field, ['aggregator-a', 'aggregator-b'], 5000),
  },
  {
    name: 'kill-collector',
    about: 'kill -9 of a collector',
    settleWithinMs: 60_000,
    fault: (field) => kill(field, ['collector-1'], 1000),
  },
  {
    name: 'kill-feed',
    about: 'kill -9 of the feed that emits',
    settleWithinMs: 60_000,
    fault: async (field) => kill(field, [await field.activeFeed()], 10_000),
  },
  {
    name: 'kill-feed-standby',
    about: 'kill -9 of the feed that stands by',
    settleWithinMs: 60_000,
    fault: async (field) => kill(field, [await standbyFeed(field)], 3000),
  },
  {
    name: 'kill-watchdog',
    about: 'kill -9 of a watchdog, and of the elected aggregator a second later',
    settleWithinMs: 60_000,
    fault: async (field) => {
      const watchdog = await kill(field, ['watchdog'], 0);
      const aggregator = await kill(field, [`aggregator-${field.elected()}`], 5000);
      return {
        holdMs: aggregator.holdMs,
        happened: async () => `${await watchdog.happened()}; ${await aggregator.happened()}`,
        heal: async () => void (await Promise.all([watchdog.heal(), aggregator.heal()])),
      };
    },
  },
  {
    name: 'kill-accounting',
    about: 'kill -9 of accounting',
    settleWithinMs: 60_000,
    fault: (field) => kill(field, ['accounting'], 5000),
  },
  {
    name: 'kill-judge',
    about: 'kill -9 of the judge',
    settleWithinMs: 60_000,
    fault: (field) => kill(field, ['judge'], 5000),
  },
  {
    name: 'kill-redis',
    about: 'kill -9 of a Redis',
    settleWithinMs: 60_000,
    fault: (field) => kill(field, ['redis-1'], 5000),
  },
  {
    name: 'kill-broker',
    about: 'kill -9 of a broker',
    settleWithinMs: 60_000,
    fault: (field) => kill(field, ['kafka-2'], 10_000),
  },
  {
    name: 'kill-controller',
    about: 'kill -9 of the broker that leads the controllers',
    settleWithinMs: 60_000,
    fault: async (field) => kill(field, [await field.controller()], 10_000),
  },
  {
    name: 'kill-two-brokers',
    about: 'kill -9 of two brokers of three: nothing can be written until one is back',
    settleWithinMs: 90_000,
    fault: (field) => kill(field, ['kafka-1', 'kafka-3'], 10_000),
  },
];

const paused: readonly Cell[] = [
  {
    name: 'pause-elected',
    about: 'SIGSTOP of the elected aggregator, 10 s',
    settleWithinMs: 60_000,
    fault: (field) => pause(field, `aggregator-${field.elected()}`, 10_000),
  },
  {
    name: 'pause-other',
    about: 'SIGSTOP of the other aggregator, 60 s',
    settleWithinMs: 90_000,
    fault: (field) => pause(field, other(field), 60_000),
  },
  {
    name: 'pause-blink',
    about: 'SIGSTOP of the elected aggregator, 1 s: as long as the watchdog waits',
    settleWithinMs: 60_000,
    fault: (field) => pause(field, `aggregator-${field.elected()}`, 1000),
  },
  {
    name: 'pause-collector',
    about: 'SIGSTOP of a collector, 10 s',
    settleWithinMs: 60_000,
    fault: (field) => pause(field, 'collector-2', 10_000),
  },
  {
    name: 'pause-feed',
    about: 'SIGSTOP of the feed that emits, 20 s',
    settleWithinMs: 60_000,
    fault: async (field) => pause(field, await field.activeFeed(), 20_000),
  },
  {
    name: 'pause-watchdog',
    about: 'SIGSTOP of a watchdog, 10 s',
    settleWithinMs: 60_000,
    fault: (field) => pause(field, 'watchdog', 10_000),
  },
  {
    name: 'pause-accounting',
    about: 'SIGSTOP of accounting, 10 s',
    settleWithinMs: 60_000,
    fault: (field) => pause(field, 'accounting', 10_000),
  },
  {
    name: 'pause-judge',
    about: 'SIGSTOP of the judge, 10 s',
    settleWithinMs: 60_000,
    fault: (field) => pause(field, 'judge', 10_000),
  },
  {
    name: 'pause-redis',
    about: 'SIGSTOP of a Redis, 8 s',
    settleWithinMs: 60_000,
    fault: (field) => pause(field, 'redis-2', 8000),
  },
  {
    name: 'pause-broker',
    about: 'SIGSTOP of a broker, 15 s: fenced meanwhile, it wakes up as a zombie',
    settleWithinMs: 90_000,
    fault: (field) => pause(field, 'kafka-1', 15_000),
  },
  {
    name: 'hang-broker',
    about: 'SIGSTOP of the first broker for 60 s: the system goes on with the other two',
    settleWithinMs: 90_000,
    fault: async (field) => {
      const paused = await pause(field, 'kafka-1', 60_000);
      return {
        ...paused,
        happened: async () => {
          const behindMs = field.witness.behindMs(Date.now());
          const evidence = await paused.happened();
          require(behindMs < goneOnMs, `after 60 s without it what is fed is still ${behindMs} ms behind`);
          return `${evidence}; what was fed was ${behindMs} ms behind before it woke up`;
        },
      };
    },
  },
];

export const processCells: readonly Cell[] = [
  ...killed,
  ...paused,
  {
    name: 'restart-services',
    about: 'rolling restart of every service',
    settleWithinMs: 60_000,
    fault: (field) => rollingRestart(field, field.stack.services),
  },
  {
    name: 'restart-brokers',
    about: 'rolling restart of the brokers',
    settleWithinMs: 90_000,
    fault: (field) => rollingRestart(field, ['kafka-1', 'kafka-2', 'kafka-3']),
  },
];
