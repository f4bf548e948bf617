import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Logger } from '../../adapters/ports.ts';
import { openRedisStore } from '../../adapters/redis-store.ts';
import type { Flush, Settlement, Store } from '../../adapters/store.ts';

const silent: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const nothing: Settlement = { confirmed: [], release: [], trim: [], drop: [] };

let directory: string;
let port: number;
let server: ChildProcess;
let store: Store;
const stores: Store[] = [];

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return typeof address === 'object' && address ? address.port : 0;
}

async function startRedis(...more: string[]): Promise<void> {
  const durable = ['--appendonly', 'yes', '--appendfsync', 'always', '--maxmemory-policy', 'noeviction', '--save', ''];
  server = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, ...durable, ...more], { stdio: 'ignore' });
}

async function stopRedis(signal: NodeJS.Signals): Promise<void> {
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill(signal);
  await ended;
}

function open(collector = 'c1'): Store {
  const opened = openRedisStore({ url: `redis://127.0.0.1:${port}`, keyPrefix: 'test', collector, bytesMax: 1 << 30, logger: silent });
  stores.push(opened);
  return opened;
}

async function untilThere(one: Store): Promise<void> {
  for (let i = 0; i < 100; i++) {
    const there = await one.durability().then(
      () => true,
      () => false,
    );
    if (there) return;
    await delay(50);
  }
  throw new Error('redis does not come up');
}

function flush(last: number, count: number, text = 'batch', incarnation = 'i1'): Flush {
  const batches = Array.from({ length: count }, (_, index) => ({
    partition: 0,
    sequence: last + 1 + index,
    value: Buffer.from(`${text} ${last + 1 + index}`),
    totals: Buffer.from(`totals ${last + 1 + index}`),
    goodbye: false,
  }));
  return {
    incarnation,
    ends: [0, 1].map((partition) => ({ partition, last: partition === 0 ? last : 0 })),
    batches,
    positions: [['e1', String(last + count)]],
  };
}

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'redis-store-'));
  port = await freePort();
  await startRedis();
  await delay(100);
  store = open();
  await untilThere(store);
});

afterEach(async () => {
  for (const one of stores.splice(0)) await one.close();
  if (server.exitCode === null && server.signalCode === null) await stopRedis('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

describe('a flush', () => {
  test('is read back byte for byte, with the positions it reaches', async () => {
    const value = Buffer.from([0, 255, 128, 10, 13]);
    const [batch] = flush(0, 1).batches;
    expect(await store.flush({ ...flush(0, 1), batches: [{ ...batch!, value }] })).toEqual({ kind: 'stored' });
    expect(await store.read('i1', 0, 1, 10)).toEqual([{ sequence: 1, value }]);
    expect(await store.totals('i1', 0, 1, 10)).toEqual([{ sequence: 1, totals: Buffer.from('totals 1'), size: 5 }]);
    expect(await store.positions()).toEqual(new Map([['e1', '1']]));
    expect(await store.streams()).toEqual([{ incarnation: 'i1', partition: 0, first: 1, firstBatch: 1, last: 1, closed: false, confirmed: null }]);
  });

  test('whose answer was lost is known again, and changes nothing', async () => {
    await store.flush(flush(0, 2));
    await store.flush(flush(2, 2));
    expect(await store.flush(flush(2, 2))).toEqual({ kind: 'repeated' });
    expect((await store.streams())[0]?.last).toBe(4);
  });

  test('over a foreign batch of the same number is a mismatch, and nothing of it is written', async () => {
    await store.flush(flush(0, 2, 'foreign'));
    const other = { partition: 1, sequence: 1, value: Buffer.from('x'), totals: Buffer.from('x'), goodbye: false };
    const mine = flush(0, 2, 'mine');
    expect(await store.flush({ ...mine, batches: [other, ...mine.batches] })).toEqual({ kind: 'mismatch', partition: 0, expected: 0, found: 2 });
    expect((await store.streams()).map(({ partition }) => partition)).toEqual([0]);
    expect(await store.positions()).toEqual(new Map([['e1', '2']]));
  });

  test('onto a store that was emptied is a mismatch, also where only another partition has a batch', async () => {
    await store.flush(flush(0, 3));
    const ends = [
      { partition: 0, last: 4 },
      { partition: 1, last: 0 },
    ];
    const batches = [{ partition: 1, sequence: 1, value: Buffer.from('x'), totals: Buffer.from('x'), goodbye: false }];
    expect(await store.flush({ incarnation: 'i1', ends, batches, positions: [] })).toEqual({ kind: 'mismatch', partition: 0, expected: 4, found: 3 });
  });

  test('survives kill -9 of redis right after its answer', async () => {
    await store.flush(flush(0, 3));
    await stopRedis('SIGKILL');
    await expect(store.flush(flush(3, 1))).rejects.toMatchObject({ kind: expect.stringMatching(/away|unknown/) });
    await startRedis();
    await untilThere(store);
    expect((await store.read('i1', 0, 1, 10)).map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
    expect(await store.flush(flush(3, 1))).toEqual({ kind: 'stored' });
  });

  test('is refused as a whole when redis is out of memory', async () => {
    const { Redis } = await import('ioredis');
    const redis = new Redis(port, '127.0.0.1');
    await redis.config('SET', 'maxmemory', '1mb');
    redis.disconnect();
    await expect(store.flush(flush(0, 3))).rejects.toMatchObject({ kind: 'full' });
    expect(await store.streams()).toEqual([]);
  });

  test('of one collector is not seen by another', async () => {
    await store.flush(flush(0, 1));
    const other = open('c2');
    await untilThere(other);
    expect(await other.streams()).toEqual([]);
    expect(await other.positions()).toEqual(new Map());
  });

  test('works after the server forgot its scripts', async () => {
    await store.flush(flush(0, 1));
    const { Redis } = await import('ioredis');
    const redis = new Redis(port, '127.0.0.1');
    await redis.script('FLUSH');
    redis.disconnect();
    expect(await store.flush(flush(1, 1))).toEqual({ kind: 'stored' });
  });
});

test('an empty position takes the exporter out of the store', async () => {
  await store.flush({
    ...flush(0, 1),
    positions: [
      ['e1', '1'],
      ['e2', '1'],
    ],
  });
  await store.flush({
    ...flush(1, 1),
    positions: [
      ['e1', ''],
      ['e3', ''],
    ],
  });
  expect(await store.positions()).toEqual(new Map([['e2', '1']]));
});

test('templates are kept by name, changed and taken away, each collector its own', async () => {
  await store.saveTemplates([
    ['a', '1'],
    ['b', '2'],
    ['c', '3'],
  ]);
  await store.saveTemplates([
    ['a', 'changed'],
    ['b', null],
    ['never there', null],
  ]);
  await store.saveTemplates([]);
  expect(await store.templates()).toEqual(
    new Map([
      ['a', 'changed'],
      ['c', '3'],
    ]),
  );
  const other = open('c2');
  await untilThere(other);
  expect(await other.templates()).toEqual(new Map());
});

describe('a settlement', () => {
  const point = (through: number) => [{ incarnation: 'i1', partition: 0, through }];
  const goodbye = { partition: 0, sequence: 4, value: Buffer.from('bye'), totals: Buffer.from('bye'), goodbye: true };

  test('trims exactly, and the stream still knows where it ends', async () => {
    await store.flush(flush(0, 3));
    await store.settle({ ...nothing, trim: point(2) });
    expect((await store.read('i1', 0, 1, 10)).map(({ sequence }) => sequence)).toEqual([3]);
    await store.settle({ ...nothing, trim: point(3) });
    expect((await store.streams())[0]).toMatchObject({ first: 4, firstBatch: 4, last: 3 });
    expect(await store.flush(flush(3, 1))).toEqual({ kind: 'stored' });
  });

  test('releases the batches and keeps their totals', async () => {
    await store.flush(flush(0, 3));
    await store.settle({ ...nothing, release: point(2) });
    expect((await store.streams())[0]).toMatchObject({ first: 1, firstBatch: 3, last: 3 });
    expect((await store.totals('i1', 0, 1, 10)).map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
    expect((await store.read('i1', 0, 1, 10)).map(({ sequence }) => sequence)).toEqual([3]);
  });

  test('notes what Kafka confirmed, and where', async () => {
    await store.flush(flush(0, 3));
    const confirmed = { incarnation: 'i1', partition: 0, sequence: 2, offset: 41, topicId: 'abc-DEF_1' };
    await store.settle({ ...nothing, confirmed: [confirmed] });
    expect((await store.streams())[0]?.confirmed).toEqual(confirmed);
  });

  test('drops a stream only when it is closed, empty, and ends where it is said to', async () => {
    await store.flush(flush(0, 3));
    await store.settle({ ...nothing, trim: point(3), drop: point(3) });
    expect((await store.streams()).length).toBe(1);
    await store.flush({ incarnation: 'i1', ends: [{ partition: 0, last: 3 }], batches: [goodbye], positions: [] });
    await store.settle({ ...nothing, drop: point(4) });
    expect((await store.streams())[0]).toMatchObject({ closed: true, last: 4 });
    await store.settle({ ...nothing, trim: point(4), drop: point(3) });
    expect((await store.streams()).length).toBe(1);
    await store.settle({ ...nothing, drop: point(4) });
    expect(await store.streams()).toEqual([]);
  });
});

describe('durability', () => {
  test('without a doubt when every write is on disk', async () => {
    expect(await store.durability()).toEqual({ doubts: [] });
  });

  test('each weaker setting is a doubt that names it and its remedy', async () => {
    await stopRedis('SIGTERM');
    await startRedis('--appendfsync', 'everysec', '--maxmemory-policy', 'allkeys-lru', '--maxmemory', '100mb');
    await untilThere(store);
    const { doubts } = await store.durability();
    expect(doubts).toEqual([
      expect.stringMatching(/appendfsync is everysec.*CONFIG SET appendfsync always/),
      expect.stringMatching(/maxmemory-policy is allkeys-lru.*noeviction/),
      expect.stringMatching(/maxmemory is 104857600 bytes/),
    ]);
  });

  test('a server that is away is a fault within the time that a command may take', async () => {
    await stopRedis('SIGKILL');
    await expect(store.durability()).rejects.toMatchObject({ kind: expect.stringMatching(/away|unknown/) });
    const late = open();
    await expect(late.streams()).rejects.toMatchObject({ kind: 'away' });
  });

  test('a server that hangs is an unknown outcome, not a success', async () => {
    await store.flush(flush(0, 1));
    server.kill('SIGSTOP');
    const attempt = store.flush(flush(1, 1));
    await expect(attempt).rejects.toMatchObject({ kind: 'unknown' });
    server.kill('SIGCONT');
    await untilThere(store);
    expect(await store.flush(flush(1, 1))).toEqual({ kind: 'repeated' });
  });
});
