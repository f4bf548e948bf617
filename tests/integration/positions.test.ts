/**
 * Positions are taken from what is read (K7, K9): what a group's members do, what an operator's tool writes into a group, or that a group is gone,
 * changes nothing in what is folded, fed and booked.
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type Admin, Kafka, logLevel } from 'kafkajs';
import type { Log } from '../../adapters/ports.ts';
import { Stack } from '../../infra/stack.ts';
import { accountingGroup } from '../../services/accounting/accounting.ts';
import { groupOf } from '../../services/aggregator/restore.ts';
import { feedGroup } from '../../services/feed/emission.ts';
import { chainsOf, eventually, openLog, readAggregates, readHealth, readOutputs } from './reading.ts';

const minute = 60_000;
const partitions = [0, 1];
/** What each group notes positions of. */
const noted = [
  [groupOf('a'), 'nars'],
  [groupOf('a'), 'aggregates.a'],
  [feedGroup, 'aggregates.a'],
  [feedGroup, 'aggregates.b'],
  [feedGroup, 'aggregates'],
  [accountingGroup, 'aggregates'],
] as const;
const groups = [...new Set(noted.map(([group]) => group))];
const readers = ['aggregator-a', 'feed', 'accounting'];

let stack: Stack;
let log: Log;
let client: Kafka;
let admin: Admin;
let sent = 0;

beforeAll(async () => {
  const env = { FLOWLEDGER_AGGREGATE_WINDOW: '1s', FLOWLEDGER_AGGREGATE_LATENESS: '1s', FLOWLEDGER_AGGREGATE_LIVE_WITHIN: '5s' };
  stack = await Stack.start({ partitions: partitions.length, env });
  const broker = stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string;
  log = openLog(broker);
  client = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING });
  admin = client.admin();
  await admin.connect();
  await send();
  await everythingIsBilledOnce();
}, 3 * minute);

afterAll(async () => {
  await admin?.disconnect();
  await log?.close();
  await stack?.stop();
}, minute);

async function send(): Promise<void> {
  const args = `generate --protocol v5 --to ${stack.listen()} --rate 10000 --flows 2000 --exporters 2 --keys 50 --seed 7`;
  const { code, stdout, stderr } = await stack.command(...args.split(' '));
  if (code !== 0) throw new Error(stderr);
  sent += JSON.parse(stdout.trim().split('\n').at(-1) as string).flows;
}

async function everythingIsBilledOnce(): Promise<void> {
  const audit = JSON.parse((await stack.command('audit', '--json', '--wait', '60s')).stdout);
  expect(audit).toMatchObject({ complete: true, divergence: 0, imbalance: { flows: 0, bytes: 0, packets: 0 }, totals: { billed_flows: sent } });
  for (const partition of partitions) {
    const fed = await readAggregates(log, partition);
    expect(fed.map(({ n }) => n)).toEqual(fed.map((_, i) => i + 1));
    const [a, b] = [await readOutputs(log, 'a', partition), await readOutputs(log, 'b', partition)];
    const both = Math.min(a.length, b.length);
    expect(both).toBeGreaterThan(0);
    expect(chainsOf(b.slice(0, both))).toEqual(chainsOf(a.slice(0, both)));
  }
}

/** Kills what reads, lets the log grow, does something to the positions, and starts again what reads. */
async function whileNobodyReads(meddle: () => Promise<void>): Promise<void> {
  for (const name of readers) await stack.kill(name);
  await send();
  await eventually(
    async () => (await readHealth(log)).get('collector/collector-1')?.copy,
    (copy) => copy?.unconfirmed_nars === 0 && copy.unacknowledged_a_nars > 0,
  );
  await meddle();
  for (const name of readers) await stack.startService(name);
  for (const name of readers) await stack.ready(name);
}

const positionsNoted = () =>
  Promise.all(noted.flatMap(([group, topic]) => partitions.map((partition) => log.committedOffset(group, topic, partition))));

test(
  'members that join and leave the groups, and commit as they like',
  async () => {
    const members = groups.flatMap((groupId) => [1, 2].map(() => client.consumer({ groupId, sessionTimeout: 6000, rebalanceTimeout: 6000 })));
    for (const [i, member] of members.entries()) {
      await member.connect();
      const topics = noted.filter(([group]) => group === groups[Math.floor(i / 2)]).map(([, topic]) => topic);
      await member.subscribe({ topics, fromBeginning: false });
      await member.run({ eachMessage: async () => undefined });
    }
    const generation = async () => (await admin.describeGroups(groups)).groups.map(({ members: joined, state }) => `${state} ${joined.length}`);
    await eventually(generation, (states) => states.every((state) => state === 'Stable 2'), minute);
    await send();
    await members[0]?.disconnect();
    await send();
    await everythingIsBilledOnce();
    await Promise.all(members.map((member) => member.disconnect()));
  },
  3 * minute,
);

test(
  'positions reset to the end while nobody reads',
  async () => {
    await whileNobodyReads(async () => {
      for (const [group, topic] of noted) {
        for (const partition of partitions) await log.commitOffset(group, topic, partition, (await log.bounds(topic, partition)).endOffset);
      }
    });
    await everythingIsBilledOnce();
  },
  3 * minute,
);

test(
  'positions reset to somewhere in the middle while nobody reads',
  async () => {
    await whileNobodyReads(async () => {
      for (const [group, topic] of noted) {
        for (const partition of partitions) {
          const { startOffset, endOffset } = await log.bounds(topic, partition);
          await log.commitOffset(group, topic, partition, Math.floor((startOffset + endOffset) / 2));
        }
      }
    });
    await everythingIsBilledOnce();
  },
  3 * minute,
);

test(
  'positions that expired',
  async () => {
    await whileNobodyReads(async () => {
      await admin.deleteGroups([...groups]);
      expect(await positionsNoted()).toEqual(noted.flatMap(() => partitions.map(() => -1)));
    });
    await everythingIsBilledOnce();
  },
  3 * minute,
);
