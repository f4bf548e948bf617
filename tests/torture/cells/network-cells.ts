/** Parts that do not reach each other, in one direction or both, or late. */
import { type Cell, require } from '../cell.ts';
import { cut } from '../faults.ts';
import type { Field } from '../field.ts';
import type { Weather } from '../link.ts';
import { any } from '../network.ts';

const elected = (field: Field) => `aggregator-${field.elected()}`;

async function weather(field: Field, forecast: Weather, holdMs: number) {
  const links = field.network.bring(any, any, forecast);
  const count = () => links.reduce((sum, { counters }) => sum + counters.delayedChunks + counters.lostChunks, 0);
  const before = count();
  return {
    holdMs,
    happened: async () => {
      require(count() > before, 'no chunk was late');
      const kind = `${forecast.latencyMs} ms and ${forecast.lossShare * 100} % lost`;
      return `${links.length} links, ${kind}, for ${holdMs / 1000} s: ${count() - before} late chunks`;
    },
    heal: async () => field.network.restore(),
  };
}

export const networkCells: readonly Cell[] = [
  {
    name: 'cut-elected',
    about: 'the elected aggregator is cut off from all brokers',
    settleWithinMs: 60_000,
    fault: (field) => cut(field, elected(field), 'kafka', 10_000),
  },
  {
    name: 'cut-elected-requests',
    about: 'what the elected aggregator asks for does not get through, answers would',
    settleWithinMs: 60_000,
    fault: (field) => cut(field, elected(field), 'kafka', 10_000, 'to'),
  },
  {
    name: 'cut-elected-answers',
    about: 'the elected aggregator is heard but gets no answers: what it writes is written, and it does not know',
    settleWithinMs: 60_000,
    fault: (field) => cut(field, elected(field), 'kafka', 10_000, 'from'),
  },
  {
    name: 'cut-feed-answers',
    about: 'the feed that emits gets no answers: its transactions may commit without its knowing',
    settleWithinMs: 60_000,
    fault: async (field) => cut(field, await field.activeFeed(), 'kafka', 15_000, 'from'),
  },
  {
    name: 'cut-feed',
    about: 'the feed that emits is cut off from all brokers',
    settleWithinMs: 60_000,
    fault: async (field) => cut(field, await field.activeFeed(), 'kafka', 15_000),
  },
  {
    name: 'cut-collector-answers',
    about: 'a collector gets no answers from the brokers: everything is sent twice',
    settleWithinMs: 60_000,
    fault: (field) => cut(field, 'collector-1', 'kafka', 15_000, 'from'),
  },
  {
    name: 'cut-collector',
    about: 'a collector is cut off from all brokers',
    settleWithinMs: 60_000,
    fault: (field) => cut(field, 'collector-2', 'kafka', 20_000),
  },
  {
    name: 'cut-collector-redis',
    about: 'a collector is cut off from its Redis',
    settleWithinMs: 60_000,
    fault: (field) => cut(field, 'collector-1', 'redis', 10_000),
  },
  {
    name: 'cut-collector-redis-answers',
    about: "a collector's flushes reach its Redis and the answers do not come",
    settleWithinMs: 60_000,
    fault: (field) => cut(field, 'collector-2', 'redis', 10_000, 'from'),
  },
  {
    name: 'cut-watchdogs',
    about: 'both watchdogs are cut off: nobody may be accused of their deafness',
    settleWithinMs: 60_000,
    fault: async (field) => {
      const [one, two] = [await cut(field, 'watchdog', 'kafka', 10_000), await cut(field, 'watchdog-2', 'kafka', 10_000)];
      return { ...one, happened: async () => `${await one.happened()}; ${await two.happened()}` };
    },
  },
  {
    name: 'cut-broker-peers',
    about: 'the other brokers cannot fetch from one, which its clients still reach',
    settleWithinMs: 90_000,
    fault: (field) => cut(field, 'brokers', 'kafka-1', 40_000),
  },
  {
    name: 'cut-one-broker',
    about: 'no service reaches one broker, which its peers still reach',
    settleWithinMs: 90_000,
    fault: (field) => cut(field, any, 'kafka-3', 15_000),
  },
  {
    name: 'latency',
    about: '20 ms more on every link, brokers and Redis included',
    settleWithinMs: 60_000,
    fault: (field) => weather(field, { latencyMs: 20, lossShare: 0 }, 20_000),
  },
  {
    name: 'stalls',
    about: 'every hundredth chunk on every link comes 200 ms late, as a lost segment does',
    settleWithinMs: 60_000,
    fault: (field) => weather(field, { latencyMs: 0, lossShare: 0.01 }, 20_000),
  },
];
