/** The Kafka adapter against a real broker: what it promises its callers, and that the client's known defects (K1 ... K10) are guarded. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { KafkaAdmin } from '../../adapters/kafka-admin.ts';
import { type Fetched, type Log, LogFault } from '../../adapters/ports.ts';
import { freePort, type LocalKafka, startKafka } from '../../infra/local-kafka.ts';
import {
  addOffsetsToTxnKey,
  endTxnKey,
  heartbeatKey,
  joinGroupKey,
  leaveGroupKey,
  notLeaderError,
  produceKey,
  syncGroupKey,
  txnOffsetCommitKey,
  withProduceErrors,
} from './kafka-frames.ts';
import { deleteTopic, quiet, readAll } from './reading.ts';
import { type Exchange, ResponseProxy, swallow } from './response-proxy.ts';

const minute = 60_000;
const text = (value: string) => ({ key: null, value: Buffer.from(value) });
const values = (records: readonly { value: Buffer | null }[]) => records.map(({ value }) => value?.toString());

let dir: string;
let proxy: ResponseProxy;
let kafka: LocalKafka;
let admin: KafkaAdmin;
let log: Log;
let topics = 0;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'flowledger-kafka-'));
  proxy = await ResponseProxy.open();
  kafka = await startKafkaBehind(proxy);
  const config = { brokers: [{ host: '127.0.0.1', port: proxy.port }], client_id: 'test', topic_prefix: 'test.', request_timeout: 500 };
  admin = new KafkaAdmin(config, quiet);
  log = openKafka(config, quiet, systemClock);
}, 3 * minute);

afterAll(async () => {
  await log?.close();
  await admin?.close();
  await proxy?.close();
  await kafka?.stop();
  rmSync(dir, { recursive: true, force: true });
}, minute);

/** The broker's port is known only once it runs, but its readiness is asked through the advertised one. */
async function startKafkaBehind(front: ResponseProxy): Promise<LocalKafka> {
  const port = await freePort();
  front.relayTo(port);
  return startKafka({ dir, port, advertisedPort: front.port });
}

afterEach(() => {
  proxy.meddle = null;
});

async function newTopic(partitions = 1): Promise<string> {
  const name = `t${++topics}`;
  await admin.create([{ name, partitions, replication: 1, settings: { 'message.timestamp.type': 'LogAppendTime' } }]);
  return name;
}

async function faultOf(promise: Promise<unknown>): Promise<LogFault> {
  const fault = await promise.then(
    () => null,
    (error) => error,
  );
  expect(fault).toBeInstanceOf(LogFault);
  return fault;
}

describe('reading by position', () => {
  test('records come with offset, key, value and the append time, and the end of the log is known', async () => {
    const topic = await newTopic(2);
    const writer = log.writer();
    const before = Date.now();
    expect(await writer.append(topic, 1, [{ key: Buffer.from('k'), value: Buffer.from('one') }, text('two')])).toBe(0);
    const reader = log.reader('raw');
    reader.assign(topic, 0, 0);
    reader.assign(topic, 1, 1);
    const fetched: Fetched[] = [];
    for (const end = Date.now() + 5000; !fetched.some(({ records }) => records.length > 0) && Date.now() < end; )
      fetched.push(...(await reader.poll(500)));
    const part = fetched.find(({ records }) => records.length > 0);
    expect(part).toMatchObject({ topic, partition: 1, nextOffset: 2, endOffset: 2, startOffset: 0 });
    expect(part?.records[0]).toMatchObject({ offset: 1, key: null, marker: null });
    expect(part?.records[0]?.appendedMs).toBeGreaterThanOrEqual(before - 1000);
    await Promise.all([reader.close(), writer.close()]);
  });

  test('an offset beyond the log is a fault that names the partition, and what was read of the others is not lost', async () => {
    const topic = await newTopic(2);
    const writer = log.writer();
    await writer.append(topic, 0, [text('kept')]);
    const reader = log.reader('raw');
    reader.assign(topic, 0, 0);
    reader.assign(topic, 1, 99);
    const seen: (string | undefined)[] = [];
    let fault: LogFault | null = null;
    for (let i = 0; i < 20 && !(fault && seen.length); i++) {
      const fetched = await reader.poll(200).catch((error) => {
        fault = error;
        return [];
      });
      for (const { records } of fetched) seen.push(...values(records));
    }
    expect(seen).toEqual(['kept']);
    expect(fault).toMatchObject({ kind: 'out_of_range', at: { topic, partition: 1 } });
    await Promise.all([reader.close(), writer.close()]);
  });

  test('a topic that does not exist is missing, and one that was re-created has another id', async () => {
    expect((await faultOf(log.topicId('nowhere'))).kind).toBe('missing');
    const topic = await newTopic(3);
    expect(await log.topicId(topic)).toMatch(/^[0-9a-f]{32}$/);
    expect(await log.topicId(topic)).not.toBe(await log.topicId(await newTopic()));
    expect(await log.partitionCount(topic)).toBe(3);
  });

  test('a topic that was re-created is a fault, though it has records at the offset where reading stands', async () => {
    const topic = await newTopic();
    const writer = log.writer();
    await writer.append(topic, 0, [text('former')]);
    const reader = log.reader('raw');
    reader.assign(topic, 0, 0);
    const read: (string | undefined)[] = [];
    while (read.length === 0) for (const { records } of await reader.poll(500)) read.push(...values(records));
    await deleteTopic(kafka.broker, `test.${topic}`);
    await admin.create([{ name: topic, partitions: 1, replication: 1, settings: {} }]);
    const other = log.writer();
    for (const word of ['one', 'two', 'three']) await other.append(topic, 0, [text(word)]);
    const faults: LogFault[] = [];
    for (let i = 0; i < 20 && faults.at(-1)?.kind !== 'out_of_range'; i++) {
      for (const { records } of await reader.poll(200).catch((error) => {
        faults.push(error);
        return [];
      }))
        read.push(...values(records));
    }
    expect(read).toEqual(['former']);
    expect(faults.at(-1)).toMatchObject({ kind: 'out_of_range', at: { topic, partition: 0 } });
    reader.assign(topic, 0, 1);
    while (read.length === 1) for (const { records } of await reader.poll(500).catch(() => [])) read.push(...values(records));
    expect(read).toEqual(['former', 'two', 'three']);
    await Promise.all([reader.close(), writer.close(), other.close()]);
  }, 60_000);

  test.each([
    ['closes every connection', (socket: Socket) => socket.destroy()],
    ['says nothing', (socket: Socket) => socket.on('error', () => {})],
  ])(
    'where the first of the brokers %s, the others are asked',
    async (_, meet) => {
      const hole = createServer(meet);
      await new Promise<void>((resolve) => hole.listen(0, '127.0.0.1', resolve));
      const ports = [(hole.address() as { port: number }).port, proxy.port];
      const config = { client_id: 'test', topic_prefix: 'test.', request_timeout: 500 };
      const around = openKafka({ ...config, brokers: ports.map((port) => ({ host: '127.0.0.1', port })) }, quiet, systemClock);
      const topic = await newTopic();
      const writer = around.writer();
      expect(await writer.append(topic, 0, [text('around')])).toBe(0);
      expect((await readAll(around, topic, 0, 'raw')).map(({ value }) => value?.toString())).toEqual(['around']);
      const transactional = around.transactionalWriter(`around-${topic}`);
      await transactional.open();
      await Promise.all([writer.close(), transactional.close(), around.close()]);
      hole.close();
    },
    minute,
  );

  test('a noted position is what comes back', async () => {
    const topic = await newTopic(2);
    await log.commitOffset('group', topic, 1, 42);
    expect(await log.committedOffset('group', topic, 1)).toBe(42);
    expect(await log.committedOffset('group', topic, 0)).toBe(-1);
  });
});

describe('cutting heads', () => {
  test('what lies before an offset is gone, a head never comes back, and a cut beyond the end is a fault', async () => {
    const topic = await newTopic(2);
    const writer = log.writer();
    for (const word of ['one', 'two', 'three']) await writer.append(topic, 1, [text(word)]);
    await log.deleteRecords(topic, 1, 2);
    expect(await log.bounds(topic, 1)).toEqual({ startOffset: 2, endOffset: 3 });
    await log.deleteRecords(topic, 1, 1);
    expect(await log.bounds(topic, 1)).toEqual({ startOffset: 2, endOffset: 3 });
    expect(values(await readAll(log, topic, 1, 'raw'))).toEqual(['three']);
    expect((await faultOf(log.deleteRecords(topic, 1, 4))).kind).toBe('out_of_range');
    expect((await faultOf(log.deleteRecords('nowhere', 0, 1))).kind).toBe('missing');
    expect(await log.bounds(topic, 1)).toEqual({ startOffset: 2, endOffset: 3 });
    await writer.close();
  });

  test('an offset is found by the append time', async () => {
    const topic = await newTopic();
    const writer = log.writer();
    await writer.append(topic, 0, [text('old')]);
    await delay(20);
    await writer.append(topic, 0, [text('new')]);
    const [, last] = await readAll(log, topic, 0, 'raw');
    const appendedMs = last?.appendedMs as number;
    expect(await log.offsetAt(topic, 0, 0)).toBe(0);
    expect(await log.offsetAt(topic, 0, appendedMs)).toBe(1);
    expect(await log.offsetAt(topic, 0, appendedMs + 1)).toBe(2);
    await writer.close();
  });

  test('the broker tells the size of its disk', async () => {
    const [disk, ...others] = await log.disks();
    expect(others).toEqual([]);
    expect(disk?.logBytes).toBeGreaterThan(0);
    expect(disk?.totalBytes).toBeGreaterThan(disk?.usableBytes as number);
  });
});

describe('guards', () => {
  test('K1: after a send whose answer was lost, a batch of the same size is appended, not taken for a repeat', async () => {
    const topic = await newTopic();
    const writer = log.writer();
    await writer.append(topic, 0, [text('before')]);
    const meddled = proxy.meddled;
    proxy.meddle = swallow(produceKey);
    const fault = await faultOf(writer.append(topic, 0, [text('lost answer')]));
    proxy.meddle = null;
    expect(fault.kind).toBe('unknown');
    expect(proxy.meddled).toBeGreaterThan(meddled);
    await writer.append(topic, 0, [text('after')]);
    const read = values(await readAll(log, topic, 0, 'raw'));
    expect(read.slice(0, 2)).toEqual(['before', 'lost answer']);
    expect(read.at(-1)).toBe('after');
    await writer.close();
  }, 60_000);

  test('K2, K3: what the client sends again goes to the partition that was named, under the same numbers, one request at a time', async () => {
    const topic = await newTopic(3);
    const writer = log.writer();
    const before = proxy.exchanges.length;
    const refused = new Set<string>();
    // Each batch is appended, and its leader says that it has stepped down: the client asks who leads now, and sends again by itself.
    proxy.meddle = async (exchange, response) => {
      const fresh = exchange.produced.filter(({ partition, baseSequence }) => !refused.has(`${partition}/${baseSequence}`));
      for (const { partition, baseSequence } of fresh) refused.add(`${partition}/${baseSequence}`);
      if (fresh.length > 0) await delay(20);
      const errorOf = (_topic: string, partition: number) => (fresh.some((part) => part.partition === partition) ? notLeaderError : null);
      return [withProduceErrors(exchange.apiVersion, response, errorOf)];
    };
    const words = Array.from({ length: 12 }, (_, i) => `${i}`);
    const offsets = await Promise.all(words.map((word, i) => writer.append(topic, i % 2, [text(word)])));
    proxy.meddle = null;
    const sends = proxy.exchanges.slice(before).flatMap(({ produced, asked, answered }) => produced.map((part) => ({ ...part, asked, answered })));
    expect(refused.size).toBe(words.length);
    expect(new Set(sends.map(({ producerId }) => producerId)).size).toBe(1);
    for (const partition of [0, 1]) {
      const own = sends.filter((send) => send.partition === partition);
      expect(own.map(({ baseSequence }) => baseSequence)).toEqual([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
      expect(own.filter((one, i) => one.asked < (own[i - 1]?.answered ?? 0))).toEqual([]);
      expect(values(await readAll(log, topic, partition, 'raw'))).toEqual(words.filter((_, i) => i % 2 === partition));
    }
    expect(offsets).toEqual(words.map((_, i) => Math.floor(i / 2)));
    expect(await log.bounds(topic, 2)).toEqual({ startOffset: 0, endOffset: 0 });
    await writer.close();
  }, 60_000);

  test('K4: appends to one partition are carried out in the order of the calls', async () => {
    const topic = await newTopic();
    const writer = log.writer();
    const words = Array.from({ length: 50 }, (_, i) => `${i}`);
    await Promise.all(words.map((word) => writer.append(topic, 0, [text(word)])));
    expect(values(await readAll(log, topic, 0, 'raw'))).toEqual(words);
    await writer.close();
  });

  test('K5: a broker that does not answer is a fault in bounded time, and afterwards the writer works again', async () => {
    const topic = await newTopic();
    const writer = log.writer();
    process.kill(kafka.pid, 'SIGSTOP');
    const fault = await faultOf(writer.append(topic, 0, [text('frozen')]));
    process.kill(kafka.pid, 'SIGCONT');
    expect(['unavailable', 'unknown']).toContain(fault.kind);
    await writer.append(topic, 0, [text('thawed')]);
    expect(values(await readAll(log, topic, 0, 'raw')).at(-1)).toBe('thawed');
    await writer.close();
  }, 60_000);

  test('K6: a transaction whose commit was not answered is never used again, and the next writer completes or aborts it', async () => {
    const topic = await newTopic();
    const writer = log.transactionalWriter('k6');
    await writer.open();
    await writer.commit(topic, 0, [text('one')]);
    proxy.meddle = swallow(endTxnKey);
    expect((await faultOf(writer.commit(topic, 0, [text('two')]))).kind).toBe('unknown');
    proxy.meddle = null;
    expect((await faultOf(writer.commit(topic, 0, [text('never')]))).kind).toBe('unknown');
    const next = log.transactionalWriter('k6');
    await next.open();
    await next.commit(topic, 0, [text('three')]);
    const committed = values(await readAll(log, topic, 0, 'committed'));
    expect([
      ['one', 'two', 'three'],
      ['one', 'three'],
    ]).toContainEqual(committed);
    await Promise.all([writer.close(), next.close()]);
  }, 60_000);

  test('K8: readers of isolation raw see markers and aborted records, readers of isolation committed neither', async () => {
    const topic = await newTopic();
    const zombie = log.transactionalWriter('k8');
    await zombie.open();
    await zombie.commit(topic, 0, [text('one')]);
    const heir = log.transactionalWriter('k8');
    await heir.open();
    expect((await faultOf(zombie.commit(topic, 0, [text('zombie')]))).kind).toBe('fenced');
    await heir.commit(topic, 0, [text('two')]);
    expect(values(await readAll(log, topic, 0, 'committed'))).toEqual(['one', 'two']);
    const raw = await readAll(log, topic, 0, 'raw');
    expect(raw.filter(({ marker }) => marker === 'commit')).toHaveLength(2);
    await Promise.all([zombie.close(), heir.close()]);
  }, 60_000);

  test('a message larger than the topic takes is refused, and the writer goes on', async () => {
    const topic = await newTopic();
    const writer = log.writer();
    const incompressible = Buffer.from(Array.from({ length: 6_000_000 }, (_, i) => (Math.imul(i, 2654435761) >>> 13) & 0xff));
    const tooLarge = Buffer.concat([incompressible, Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)))]);
    const random = Buffer.concat(Array.from({ length: 80 }, () => Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)))));
    expect((await faultOf(writer.append(topic, 0, [{ key: null, value: Buffer.concat([random, tooLarge]) }]))).kind).toBe('refused');
    await writer.append(topic, 0, [text('small')]);
    expect(values(await readAll(log, topic, 0, 'raw'))).toEqual(['small']);
    await writer.close();
  }, 60_000);

  test('K10: an error that the client does not know is a fault, and the next append comes from another producer', async () => {
    const topic = await newTopic();
    const writer = log.writer();
    await writer.append(topic, 0, [text('before')]);
    const before = proxy.exchanges.length;
    const throttlingQuotaExceeded = 89;
    proxy.meddle = (exchange, response) =>
      exchange.apiKey === produceKey ? [withProduceErrors(exchange.apiVersion, response, () => throttlingQuotaExceeded)] : [response];
    expect((await faultOf(writer.append(topic, 0, [text('unknown')]))).kind).toBe('unknown');
    proxy.meddle = null;
    await writer.append(topic, 0, [text('after')]);
    const producers = proxy.exchanges.slice(before).flatMap(({ produced }) => produced.map(({ producerId }) => producerId));
    expect(new Set(producers).size).toBe(2);
    expect(values(await readAll(log, topic, 0, 'raw'))).toEqual(['before', 'unknown', 'after']);
    await writer.close();
  }, 60_000);

  test('appends of one moment each have an outcome of their own', async () => {
    const topics = [await newTopic(3), await newTopic()] as const;
    const writer = log.writer();
    await writer.append(topics[0], 2, [text('first')]);
    const tooLarge = Buffer.concat(Array.from({ length: 100 }, () => Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)))));
    const refused = faultOf(writer.append(topics[0], 1, [{ key: null, value: tooLarge }]));
    const missing = faultOf(writer.append('nowhere', 0, [text('lost')]));
    const noSuchPartition = faultOf(writer.append(topics[1], 7, [text('lost')]));
    const appended = [writer.append(topics[0], 0, [text('a'), text('b')]), writer.append(topics[1], 0, [text('c')])];
    expect(await writer.append(topics[0], 2, [text('second')])).toBe(1);
    expect(await Promise.all(appended)).toEqual([0, 0]);
    expect([(await refused).kind, (await missing).kind, (await noSuchPartition).kind]).toEqual(['refused', 'missing', 'unavailable']);
    expect(await writer.append(topics[0], 1, [text('fits')])).toBe(0);
    expect(values(await readAll(log, topics[0], 0, 'raw'))).toEqual(['a', 'b']);
    expect(values(await readAll(log, topics[0], 2, 'raw'))).toEqual(['first', 'second']);
    await writer.close();
  }, 60_000);

  test('K10: an idle connection costs next to no CPU', async () => {
    const reader = log.reader('raw');
    reader.assign(await newTopic(), 0, 0);
    await reader.poll(500);
    let timers = 0;
    const scheduled = globalThis.setTimeout;
    globalThis.setTimeout = ((...args: Parameters<typeof setTimeout>) => {
      if ((args[1] ?? 0) <= 1) timers++;
      return scheduled(...args);
    }) as typeof setTimeout;
    await delay(500);
    globalThis.setTimeout = scheduled;
    expect(timers).toBeLessThan(10);
    await reader.close();
  });

  test('K7, K9: in all of the above nothing was asked as the member of a group, and no offset was put into a transaction', async () => {
    const topic = await newTopic();
    await log.commitOffset('group', topic, 0, 1);
    const asked = new Set(proxy.exchanges.map(({ apiKey }: Exchange) => apiKey));
    expect([...asked]).toEqual(expect.arrayContaining([produceKey, endTxnKey]));
    const asMember = [joinGroupKey, syncGroupKey, heartbeatKey, leaveGroupKey, addOffsetsToTxnKey, txnOffsetCommitKey];
    expect(asMember.filter((apiKey) => asked.has(apiKey))).toEqual([]);
  });
});
