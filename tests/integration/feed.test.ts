/** Two feeds against a real broker: one is killed at any time, and a read_committed consumer still sees each n once. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { KafkaAdmin } from '../../adapters/kafka-admin.ts';
import type { Log, LogWriter } from '../../adapters/ports.ts';
import { freePort, type LocalKafka, startKafka } from '../../infra/local-kafka.ts';
import { killProcess, startProcess, stopProcess } from '../../infra/processes.ts';
import { electionCodec, outputBlockCodec } from '../../schemas/codec.ts';
import { allTopics, outputTopic, type Replica, topics } from '../../schemas/topics.ts';
import type { Health, Output } from '../../schemas/types.ts';
import { blockOf, historyOf } from '../core/feed/outputs.ts';
import { chainsOf, openLog, quiet, readAggregates, readHealth } from './reading.ts';

const minute = 60_000;
const program = fileURLToPath(new URL('../../bin/flowledger', import.meta.url));
const partitions = 2;
const histories = Array.from({ length: partitions }, (_, partition) => historyOf(3_000, undefined, partition));

let dir: string;
let kafka: LocalKafka;
let log: Log;
let writer: LogWriter;
const running = new Map<string, number>();
const written: number[] = Array(partitions).fill(0);

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'flowledger-feed-'));
  kafka = await startKafka({ dir });
  const admin = new KafkaAdmin(
    { brokers: [{ host: '127.0.0.1', port: kafka.port }], client_id: 'test', topic_prefix: '', request_timeout: 5000 },
    quiet,
  );
  const settingsOf = (topic: (typeof allTopics)[number]) =>
    Object.fromEntries(Object.entries(topic.settings).map(([name, { value }]) => [name, value]));
  await admin.create(
    allTopics.map((topic) => ({
      name: topic.name,
      partitions: topic.partitions === 'nars' ? partitions : topic.partitions,
      replication: 1,
      settings: settingsOf(topic),
    })),
  );
  await admin.close();
  log = openLog(kafka.broker);
  writer = log.writer();
  for (let partition = 0; partition < partitions; partition++) await elect(partition, 'a', 1);
}, 3 * minute);

afterAll(async () => {
  for (const pid of running.values()) await stopProcess(pid, 10_000);
  await writer?.close();
  await log?.close();
  await kafka?.stop();
  rmSync(dir, { recursive: true, force: true });
}, minute);

async function startFeed(id: string): Promise<void> {
  const env = {
    FLOWLEDGER_KAFKA_BROKERS: kafka.broker,
    FLOWLEDGER_FEED_ID: id,
    FLOWLEDGER_FEED_HTTP: `127.0.0.1:${await freePort()}`,
    FLOWLEDGER_FEED_STANDBY_AFTER: '2s',
    FLOWLEDGER_FEED_TRANSACTION_OUTPUTS_MAX: '50',
  };
  const child = await startProcess({ command: program, args: ['feed'], env, logFile: join(dir, `${id}.log`), detached: false });
  running.set(id, child.pid);
}

async function killFeed(id: string): Promise<void> {
  await killProcess(running.get(id)!);
  running.delete(id);
}

async function elect(partition: number, leader: Replica, epoch: number): Promise<void> {
  const election = { partition, epoch, leader, previous: '', reason: 'operator', evidence: '', watchdog: 'test', at_ms: 0 };
  await writer.append(topics.elections.name, 0, [{ key: Buffer.from(String(partition)), value: electionCodec.encode(election) }]);
}

/** Both replicas write the next outputs of each partition. */
async function write(outputs: number, from = histories): Promise<void> {
  for (const [partition, history] of from.entries()) {
    const first = written[partition]! + 1;
    written[partition] = first + outputs - 1;
    for (const replica of ['a', 'b'] as const) {
      const value = outputBlockCodec.encode(blockOf(history, first, first + outputs - 1));
      await writer.append(outputTopic(replica).name, partition, [{ key: Buffer.from(String(partition)), value }]);
    }
  }
}

async function emitted(): Promise<Output[][]> {
  return Promise.all(histories.map((_, partition) => readAggregates(log, partition)));
}

/** Resolves with how long it took. */
async function allEmitted(withinMs: number): Promise<number> {
  const startMs = Date.now();
  for (;;) {
    const all = await emitted();
    if (all.every((outputs, partition) => outputs.length >= written[partition]!)) return Date.now() - startMs;
    if (Date.now() - startMs > withinMs) throw new Error(`after ${withinMs} ms ${all.map(({ length }) => length)} of ${written} are emitted`);
    await delay(20);
  }
}

async function expectEachOnce(): Promise<void> {
  for (const [partition, outputs] of (await emitted()).entries()) {
    expect(chainsOf(outputs)).toEqual(chainsOf(histories[partition]!.slice(0, written[partition])));
  }
}

const healthOf = async (id: string): Promise<Health | undefined> =>
  [...(await readHealth(log)).values()].find((one) => one.role === 'feed' && one.id === id);

describe('the feed on Kafka', () => {
  test(
    'emits what the leader writes, as soon as it is written',
    async () => {
      await write(100);
      await startFeed('feed-1');
      await allEmitted(30_000);
      await delay(500);
      const times: number[] = [];
      for (let i = 0; i < 10; i++) {
        await write(1);
        times.push(await allEmitted(5_000));
      }
      await expectEachOnce();
      // Two partitions are read with an own connection each time, which is most of what is measured.
      expect(times.sort((one, other) => one - other)[5]).toBeLessThan(1_000);
    },
    minute,
  );

  test(
    'a second feed fences the first, which stands by: one of them emits',
    async () => {
      await startFeed('feed-2');
      for (let i = 0; i < 40; i++) {
        await write(3);
        await delay(100);
      }
      await allEmitted(20_000);
      await expectEachOnce();
      await delay(600);
      // On a busy machine the first may have taken a partition back, when n stood still for too long.
      const [one, two] = [await healthOf('feed-1'), await healthOf('feed-2')];
      for (let partition = 0; partition < partitions; partition++) {
        expect([one, two].map((health) => health?.partitions[partition]?.state).sort()).toEqual(['running', 'standby']);
      }
    },
    minute,
  );

  test(
    'of two feeds one is killed in mid-transaction, again and again: each n once',
    async () => {
      for (let round = 0; round < 4; round++) {
        const victim = round % 2 === 0 ? 'feed-2' : 'feed-1';
        for (let i = 0; i < 10; i++) await write(20);
        await killFeed(victim);
        await elect(round % partitions, round % 2 === 0 ? 'b' : 'a', round + 2);
        await write(20);
        await allEmitted(30_000);
        await expectEachOnce();
        await startFeed(victim);
        await delay(1_500);
      }
      await write(20);
      await allEmitted(30_000);
      await expectEachOnce();
    },
    3 * minute,
  );

  test(
    'a replica that tells another history holds its partition, also after a restart',
    async () => {
      const other = historyOf(3_000, written[0]! + 1);
      const first = written[0]! + 1;
      const value = outputBlockCodec.encode(blockOf(other, first, first + 5));
      await writer.append(outputTopic('b').name, 0, [{ key: Buffer.from('0'), value }]);
      await delay(1_000);
      const block = outputBlockCodec.encode(blockOf(histories[0]!, first, first + 5));
      await writer.append(outputTopic('a').name, 0, [{ key: Buffer.from('0'), value: block }]);
      await delay(1_500);
      for (const id of ['feed-1', 'feed-2']) await killFeed(id);
      await startFeed('feed-1');
      const deadlineMs = Date.now() + 20_000;
      let health: Health | undefined;
      do {
        await delay(250);
        health = await healthOf('feed-1');
      } while (health?.partitions[0]?.state !== 'held' && Date.now() < deadlineMs);
      expect(health?.partitions[0]).toMatchObject({ state: 'held', detail: expect.stringContaining(`differ at n ${first}`) });
      expect((await emitted())[0]!.every(({ n }, i) => n === i + 1)).toBe(true);
      expect(health?.partitions[1]?.state).toBe('running');
    },
    minute,
  );
});
