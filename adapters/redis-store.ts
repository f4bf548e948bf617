/** The local copy in Redis. The only importer of ioredis. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Redis } from 'ioredis';
import type { Logger } from './ports.ts';
import {
  type Durability,
  type Flush,
  type FlushOutcome,
  type Settlement,
  type Store,
  type StoredStream,
  type StoredTotals,
  StoreFault,
  type StreamPoint,
} from './store.ts';

export interface RedisStoreOptions {
  readonly url: string;
  readonly keyPrefix: string;
  readonly collector: string;
  /** What the collector means to keep at most; a smaller maxmemory is a doubt. */
  readonly bytesMax: number;
  readonly logger: Logger;
}

/** Longer than an fsync on a busy disk takes; shorter than it takes the receive buffer to fill. */
const commandTimeoutMs = 2_000;
const connectTimeoutMs = 2_000;
const reconnectMs = 200;

interface Script {
  readonly text: string;
  readonly sha: string;
}

const flushScript = loadScript('redis-flush.lua');
const settleScript = loadScript('redis-settle.lua');
const streamsScript = loadScript('redis-streams.lua');

export function openRedisStore(options: RedisStoreOptions): Store {
  return new RedisStore(options);
}

class RedisStore implements Store {
  readonly #redis: Redis;
  readonly #options: RedisStoreOptions;
  /** The braces keep a collector's keys together where Redis is a cluster. */
  readonly #prefix: string;
  /** The first attempt to connect has come to an end: before that, nothing can be said about whether the server is there. */
  readonly #tried: Promise<void>;

  constructor(options: RedisStoreOptions) {
    this.#options = options;
    this.#prefix = `${options.keyPrefix}:{${options.collector}}`;
    this.#redis = new Redis(options.url, {
      // A command is carried out now or not at all, and never sent twice by the client: only the caller knows what a repetition means.
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 1,
      enableReadyCheck: true,
      commandTimeout: commandTimeoutMs,
      connectTimeout: connectTimeoutMs,
      retryStrategy: () => reconnectMs,
      connectionName: `flowledger-${options.collector}`,
    });
    this.#tried = new Promise((resolve) => {
      this.#redis.once('ready', resolve);
      this.#redis.once('close', resolve);
    });
    let isDown = false;
    this.#redis.on('error', (error: Error) => {
      if (!isDown) options.logger.warn({ url: withoutPassword(options.url), error: error.message }, 'redis is not reachable');
      isDown = true;
    });
    this.#redis.on('ready', () => {
      if (isDown) options.logger.info({ url: withoutPassword(options.url) }, 'redis is reachable');
      isDown = false;
    });
  }

  async flush(flush: Flush): Promise<FlushOutcome> {
    const { ends, batches, positions } = flush;
    const indexOf = new Map(ends.map(({ partition }, index) => [partition, index]));
    const keys = [this.#key('streams'), this.#key('positions')];
    const args: (string | Buffer)[] = [String(ends.length)];
    for (const { partition, last } of ends) {
      keys.push(...this.#streamKeys(flush.incarnation, partition));
      args.push(nameOf(flush.incarnation, partition), String(last));
    }
    args.push(String(batches.length));
    for (const { partition, sequence, value, totals, goodbye } of batches) {
      const index = indexOf.get(partition);
      if (index === undefined) throw new Error(`the flush has a batch of partition ${partition}, and does not say where that ends`);
      args.push(String(index), String(sequence), bufferOf(value), bufferOf(totals), goodbye ? '1' : '0');
    }
    args.push(String(positions.length));
    for (const [exporter, position] of positions) args.push(exporter, position);
    const [kind, index, found] = (await this.#run(flushScript, keys, args)) as [Buffer, number, number];
    if (kind.toString() !== 'mismatch') return { kind: kind.toString() as 'stored' | 'repeated' };
    const end = ends[index] as Flush['ends'][number];
    return { kind: 'mismatch', partition: end.partition, expected: end.last, found };
  }

  async streams(): Promise<StoredStream[]> {
    const [states, confirmed] = await this.#ask(() =>
      Promise.all([this.#redis.hgetall(this.#key('streams')), this.#redis.hgetall(this.#key('confirmed'))]),
    );
    const names = Object.keys(states);
    const keys = names.flatMap((name) => [this.#key(`batches:${name}`), this.#key(`totals:${name}`)]);
    if (names.length === 0) return [];
    const described = (await this.#run(streamsScript, keys, [])) as [number, number, number][];
    return names.map((name, index) => {
      const [first, firstBatch, last] = described[index] as [number, number, number];
      const { incarnation, partition } = identityOf(name);
      const [sequence, offset, topicId] = confirmed[name]?.split(' ') ?? [];
      return {
        incarnation,
        partition,
        first: first || last + 1,
        firstBatch: firstBatch || last + 1,
        last,
        closed: states[name] === 'closed',
        confirmed: topicId === undefined ? null : { incarnation, partition, sequence: Number(sequence), offset: Number(offset), topicId },
      };
    });
  }

  async totals(incarnation: string, partition: number, from: number, count: number): Promise<StoredTotals[]> {
    const entries = await this.#range(this.#streamKeys(incarnation, partition)[1], from, count);
    return entries.map(([id, [, totals, , size]]) => ({
      sequence: Number.parseInt(id.toString(), 10),
      totals: totals as Buffer,
      size: Number(size),
    }));
  }

  async read(incarnation: string, partition: number, from: number, count: number): Promise<{ sequence: number; value: Uint8Array }[]> {
    const entries = await this.#range(this.#streamKeys(incarnation, partition)[0], from, count);
    return entries.map(([id, [, value]]) => ({ sequence: Number.parseInt(id.toString(), 10), value: value as Buffer }));
  }

  async settle(settlement: Settlement): Promise<void> {
    const keys = [this.#key('streams'), this.#key('confirmed')];
    const args: string[] = [String(settlement.confirmed.length)];
    for (const { incarnation, partition, sequence, offset, topicId } of settlement.confirmed) {
      args.push(nameOf(incarnation, partition), `${sequence} ${offset} ${topicId}`);
    }
    const add = (what: string, points: readonly StreamPoint[]) => {
      for (const { incarnation, partition, through } of points) {
        keys.push(...this.#streamKeys(incarnation, partition));
        args.push(what, nameOf(incarnation, partition), String(through));
      }
    };
    add('release', settlement.release);
    add('trim', settlement.trim);
    add('drop', settlement.drop);
    await this.#run(settleScript, keys, args);
  }

  async positions(): Promise<Map<string, string>> {
    return new Map(Object.entries(await this.#ask(() => this.#redis.hgetall(this.#key('positions')))));
  }

  async templates(): Promise<Map<string, string>> {
    return new Map(Object.entries(await this.#ask(() => this.#redis.hgetall(this.#key('templates')))));
  }

  async saveTemplates(changes: readonly (readonly [name: string, text: string | null])[]): Promise<void> {
    const saved = changes.flatMap(([name, text]) => (text === null ? [] : [name, text]));
    const removed = changes.flatMap(([name, text]) => (text === null ? [name] : []));
    if (removed.length > 0) await this.#ask(() => this.#redis.hdel(this.#key('templates'), ...removed));
    if (saved.length > 0) await this.#ask(() => this.#redis.hset(this.#key('templates'), ...saved));
  }

  async durability(): Promise<Durability> {
    const settings = await this.#ask(() => settingsOf(this.#redis));
    if (!settings) {
      return {
        doubts: [
          'redis does not tell its settings (CONFIG GET is not permitted): see to appendonly yes, appendfsync always, maxmemory-policy noeviction',
        ],
      };
    }
    return { doubts: doubtsOf(settings, this.#options.bytesMax) };
  }

  async close(): Promise<void> {
    this.#redis.disconnect();
  }

  #range(key: string, from: number, count: number): Promise<[Buffer, Buffer[]][]> {
    return this.#ask(() => this.#redis.xrangeBuffer(key, `${from}-0`, '+', 'COUNT', count));
  }

  #run(script: Script, keys: readonly string[], args: readonly (string | Buffer)[]): Promise<unknown> {
    return this.#ask(async () => {
      try {
        return await this.#redis.callBuffer('EVALSHA', script.sha, keys.length, ...keys, ...args);
      } catch (error) {
        // Nothing was done: the server was restarted, or its script cache flushed.
        if (!(error as Error).message.startsWith('NOSCRIPT')) throw error;
        return await this.#redis.callBuffer('EVAL', script.text, keys.length, ...keys, ...args);
      }
    });
  }

  /** Every fault of the client becomes one of the store, by what may be concluded from it. */
  async #ask<T>(command: () => Promise<T>): Promise<T> {
    await this.#tried;
    if (this.#redis.status !== 'ready') throw new StoreFault('away', `redis at ${withoutPassword(this.#options.url)} is not reachable`);
    try {
      return await command();
    } catch (error) {
      throw faultOf(error as Error);
    }
  }

  #key(name: string): string {
    return `${this.#prefix}:${name}`;
  }

  #streamKeys(incarnation: string, partition: number): [batches: string, totals: string] {
    const name = nameOf(incarnation, partition);
    return [this.#key(`batches:${name}`), this.#key(`totals:${name}`)];
  }
}

function faultOf(error: Error): StoreFault {
  if (error.name !== 'ReplyError') {
    const isUnsent = error.message.startsWith("Stream isn't writeable");
    return new StoreFault(isUnsent ? 'away' : 'unknown', `redis: ${error.message}`, { cause: error });
  }
  if (/\bOOM\b/.test(error.message)) return new StoreFault('full', `redis: ${error.message}`, { cause: error });
  return new StoreFault(/^(LOADING|MASTERDOWN|CLUSTERDOWN)/.test(error.message) ? 'away' : 'refused', `redis: ${error.message}`, { cause: error });
}

/** A setting with which a record that Redis has confirmed may be gone. */
export interface SettingDoubt {
  readonly setting: 'appendonly' | 'appendfsync' | 'no-appendfsync-on-rewrite' | 'maxmemory-policy' | 'maxmemory';
  readonly found: string;
  readonly needed: string;
  readonly cost: string;
}

function settingDoubts(settings: ReadonlyMap<string, string>, bytesMax: number): SettingDoubt[] {
  const doubts: SettingDoubt[] = [];
  const expect = (setting: SettingDoubt['setting'], needed: string, cost: string) => {
    const found = settings.get(setting) ?? 'unknown';
    if (found !== needed) doubts.push({ setting, found, needed, cost });
  };
  expect('appendonly', 'yes', 'a restart of redis loses what no aggregator has');
  if (settings.get('appendonly') === 'yes') {
    expect('appendfsync', 'always', 'a crash of its machine loses the last second');
    expect('no-appendfsync-on-rewrite', 'no', 'a crash of its machine during a rewrite loses up to half a minute');
  }
  expect('maxmemory-policy', 'noeviction', 'redis may delete batches that no aggregator has');
  const maxmemory = Number(settings.get('maxmemory') ?? 0);
  if (maxmemory > 0 && maxmemory < bytesMax) {
    doubts.push({ setting: 'maxmemory', found: String(maxmemory), needed: String(bytesMax), cost: 'it is full before the collector is' });
  }
  return doubts;
}

function doubtsOf(settings: ReadonlyMap<string, string>, bytesMax: number): string[] {
  return settingDoubts(settings, bytesMax).map(({ setting, found, needed, cost }) =>
    setting === 'maxmemory'
      ? `redis: maxmemory is ${found} bytes, less than the ${needed} of collector.store_max; raise it, or lower store_max`
      : `redis: ${setting} is ${found}, so ${cost}; CONFIG SET ${setting} ${needed}, and put it into its configuration`,
  );
}

/** How a Redis is set up, for whoever looks at it once. */
export interface RedisInspection {
  /** Such as 7.0.15. */
  readonly version: string;
  /** null where it does not tell its settings. */
  readonly doubts: readonly SettingDoubt[] | null;
  /** Of the last append to its file; ok, or what it says instead. */
  readonly lastWrite: string;
}

/** Connects, looks and disconnects. @throws StoreFault */
export async function inspectRedis(url: string, bytesMax: number): Promise<RedisInspection> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null, connectTimeout: connectTimeoutMs, commandTimeout: commandTimeoutMs });
  let refusal = '';
  redis.on('error', (error: Error) => {
    refusal = error.message;
  });
  try {
    await redis.connect();
    const info = await redis.info();
    const settings = await settingsOf(redis);
    return {
      version: /^redis_version:(\S+)/m.exec(info)?.[1] ?? '',
      doubts: settings && settingDoubts(settings, bytesMax),
      lastWrite: /^aof_last_write_status:(\S+)/m.exec(info)?.[1] ?? 'ok',
    };
  } catch (error) {
    throw new StoreFault('away', `redis at ${withoutPassword(url)}: ${refusal || (error as Error).message}`, { cause: error });
  } finally {
    redis.disconnect();
  }
}

/** null where it does not tell. */
async function settingsOf(redis: Redis): Promise<Map<string, string> | null> {
  try {
    const names = ['appendonly', 'appendfsync', 'maxmemory-policy', 'maxmemory', 'no-appendfsync-on-rewrite'];
    const reply = (await redis.call('CONFIG', 'GET', ...names)) as string[];
    const settings = new Map<string, string>();
    for (let i = 0; i + 1 < reply.length; i += 2) settings.set(reply[i] as string, reply[i + 1] as string);
    return settings;
  } catch (error) {
    if (/^(NOPERM|ERR unknown command)/.test((error as Error).message)) return null;
    throw error;
  }
}

function nameOf(incarnation: string, partition: number): string {
  return `${incarnation}/${partition}`;
}

function identityOf(name: string): { incarnation: string; partition: number } {
  const slash = name.lastIndexOf('/');
  return { incarnation: name.slice(0, slash), partition: Number(name.slice(slash + 1)) };
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function withoutPassword(url: string): string {
  return url.replace(/\/\/[^@/]*@/, '//');
}

function loadScript(file: string): Script {
  const text = readFileSync(new URL(file, import.meta.url), 'utf8');
  return { text, sha: createHash('sha1').update(text).digest('hex') };
}
