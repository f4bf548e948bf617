/** What exporters said once is known to the next process: a real collector on a real Redis, killed between templates and data. */
import { createSocket, type Socket } from 'node:dgram';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { Stack } from '../../infra/stack.ts';
import { exportSeconds, fieldSpecifier, ipfixMessage, octets, set, templateRecord } from '../core/wire/decoding.ts';
import { eventually } from './reading.ts';

const minute = 60_000;
const collector = 'collector-1';

let stack: Stack;
let redis: Redis;
let exporter: Socket;

beforeEach(async () => {
  stack = await Stack.startWithoutServices({ partitions: 2 });
  redis = new Redis(stack.port('redis'), '127.0.0.1');
  exporter = createSocket('udp4');
  await start();
}, minute);

afterEach(async () => {
  exporter?.close();
  redis?.disconnect();
  await stack?.stop();
}, minute);

async function start(): Promise<void> {
  await stack.startService(collector);
  await stack.ready(collector);
}

async function send(message: Buffer): Promise<void> {
  const [host, port] = stack.listen().split(':');
  await new Promise<void>((resolve, reject) => exporter.send(message, Number(port), host, (error) => (error ? reject(error) : resolve())));
}

const metric = async (name: string) => (await stack.metrics(collector)).get(`flowledger_collector_${name}`) ?? 0;
const reaches = (name: string, value: number) =>
  eventually(
    () => metric(name),
    (seen) => seen === value,
  );

const fields = [
  [8, 4],
  [12, 4],
  [1, 4],
  [2, 4],
] as const;
const template = set(2, templateRecord(256, fields));
const options = Buffer.concat([
  set(3, octets([300, 2], [2, 2], [1, 2]), fieldSpecifier([149, 4]), fieldSpecifier([34, 4])),
  set(300, octets([1, 4], [512, 4])),
]);
const flow = set(256, octets([0x0a000001, 4], [0x0a000002, 4], [700, 4], [7, 4]));

test(
  'kill -9 between the templates and the data: the data decodes at once, that of other domains waits',
  async () => {
    await send(ipfixMessage(0, [template, options]));
    await reaches('saved_templates_total', 3);
    await stack.kill(collector);
    await start();
    await send(ipfixMessage(1, [flow], exportSeconds + 1));
    await send(ipfixMessage(0, [flow], exportSeconds + 1, 2));
    await reaches('received_datagrams_total', 2);
    expect(await metric('recalled_templates_total')).toBe(3);
    expect(await metric('decoded_flows_total')).toBe(1);
    expect(await metric('waiting_sets')).toBe(1);
  },
  2 * minute,
);

test(
  'what is spoilt in Redis is ignored, counted and removed; the rest serves',
  async () => {
    await send(ipfixMessage(0, [template, options]));
    await send(ipfixMessage(0, [template], exportSeconds, 2));
    await reaches('saved_templates_total', 4);
    await stack.kill(collector);
    const key = `flowledger:{${collector}}:templates`;
    const [spoilt, moved] = ['127.0.0.1|1|ipfix|256', '127.0.0.1|2|ipfix|256'];
    const text = (await redis.hget(key, spoilt)) as string;
    await redis.hset(key, spoilt, text.replace('[8,4,0,', '[12,4,0,'), '127.0.0.1|3|ipfix|256', text);
    await start();
    await reaches('ignored_templates_total', 2);
    await send(ipfixMessage(1, [flow], exportSeconds + 1));
    await send(ipfixMessage(0, [flow], exportSeconds + 1, 2));
    await reaches('received_datagrams_total', 2);
    expect(await metric('decoded_flows_total')).toBe(1);
    await eventually(
      () => redis.hkeys(key),
      (names) => names.length === 3,
    );
    expect((await redis.hkeys(key)).sort()).toEqual(['127.0.0.1|1|ipfix|300', '127.0.0.1|1|ipfix|options', moved]);
  },
  2 * minute,
);
