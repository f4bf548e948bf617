/** kafkajs as it comes, in a copy of its own: the product's adapter mends some of it in place. */
import { cpSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Consumer, Kafka, KafkaConfig } from 'kafkajs';
import type { BareClient, BareProducer, BareTransaction, BareTransactionalProducer, Tries } from './bare.ts';

export const clientId = 'conformance';
const requestTimeoutMs = 500;
const few = { initialRetryTime: 50, retries: 1 };
const sessionTimeout = 6_000;

interface Module {
  readonly Kafka: new (config: KafkaConfig) => Kafka;
  readonly logLevel: { readonly NOTHING: number };
}

export function bareKafkajs(broker: string, dir: string): BareClient {
  const require = createRequire(import.meta.url);
  const original = dirname(require.resolve('kafkajs/package.json'));
  const copy = join(dir, 'kafkajs');
  cpSync(original, copy, { recursive: true });
  const { version } = JSON.parse(readFileSync(join(copy, 'package.json'), 'utf8'));
  return clientOf(require(copy), version, broker, null);
}

function clientOf(module: Module, version: string, broker: string, user: string | null): BareClient {
  const { Kafka: Client, logLevel } = module;
  const sasl = user === null ? {} : { sasl: { mechanism: 'plain' as const, username: user, password: user } };
  const open = (requestTimeout: number) => new Client({ brokers: [broker], clientId, requestTimeout, logLevel: logLevel.NOTHING, ...sasl });
  return {
    name: 'kafkajs',
    version,
    as: (name, other) => clientOf(module, version, other, name),
    producer: (tries, options = {}) => producer(open(options.requestTimeoutMs ?? requestTimeoutMs), tries),
    transactional: (id, tries) => transactional(open(requestTimeoutMs), id, tries),
    consume: (topic, offset, until) => consume(open(5000), topic, offset, until),
    async position(group, topic, partition) {
      const admin = open(5000).admin();
      await admin.connect();
      const [found] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
      await admin.disconnect();
      return Number(found?.partitions.find((one) => one.partition === partition)?.offset ?? -1);
    },
    deliveries: (topic, group, workMs) => deliveries(open(5000), topic, group, workMs),
  };
}

async function producer(client: Kafka, tries: Tries): Promise<BareProducer> {
  const opened = client.producer({ idempotent: true, ...(tries === 'default' ? {} : { retry: few }) });
  await opened.connect();
  return {
    async send(topic, partition, values) {
      await opened.send({ topic, acks: -1, messages: values.map((value) => ({ value, ...(partition === null ? {} : { partition }) })) });
    },
    async sendAcross(topic, values) {
      await opened.send({ topic, acks: -1, messages: Array.from(values, ([partition, value]) => ({ partition, value })) });
    },
    close: () => opened.disconnect(),
  };
}

async function transactional(client: Kafka, transactionalId: string, tries: Tries): Promise<BareTransactionalProducer> {
  const opened = client.producer({ transactionalId, idempotent: true, maxInFlightRequests: 1, ...(tries === 'default' ? {} : { retry: few }) });
  await opened.connect();
  return {
    async begin(): Promise<BareTransaction> {
      const transaction = await opened.transaction();
      return {
        async send(topic, partition, value, key) {
          await transaction.send({ topic, acks: -1, messages: [{ partition, value, ...(key ? { key } : {}) }] });
        },
        noteOffset: (consumerGroupId, topic, offset) =>
          transaction.sendOffsets({ consumerGroupId, topics: [{ topic, partitions: [{ partition: 0, offset: String(offset) }] }] }),
        commit: () => transaction.commit(),
        abort: () => transaction.abort(),
      };
    },
    close: () => opened.disconnect(),
  };
}

async function consume(client: Kafka, topic: string, offset: number, until: string): Promise<string[]> {
  const consumer = client.consumer({ groupId: `consume-${topic}`, readUncommitted: false });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const values: string[] = [];
  const seen = new Promise<void>((resolve) => {
    void consumer.run({
      autoCommit: false,
      eachMessage: async ({ message }) => {
        if (Number(message.offset) < offset) return;
        values.push(nameOf(message.value));
        if (values.at(-1) === until) resolve();
      },
    });
  });
  consumer.seek({ topic, partition: 0, offset: String(offset) });
  await Promise.race([seen, delay(20_000)]);
  await consumer.disconnect();
  return values;
}

async function deliveries(client: Kafka, topic: string, groupId: string, workMs: number): Promise<number> {
  let count = 0;
  const member = async (): Promise<Consumer> => {
    const consumer = client.consumer({ groupId, sessionTimeout, rebalanceTimeout: sessionTimeout });
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({
      eachMessage: async () => {
        count++;
        await delay(workMs);
      },
    });
    return consumer;
  };
  const members = [await member()];
  for (const end = Date.now() + 20_000; count === 0 && Date.now() < end; ) await delay(50);
  members.push(await member());
  await delay(workMs + sessionTimeout);
  const counted = count;
  await Promise.all(members.map((one) => one.disconnect()));
  return counted;
}

/** The first word: what comes after it only makes a record large. */
export function nameOf(value: Buffer | null): string {
  return value?.subarray(0, 64).toString().split(' ')[0] ?? '';
}
