/** @platformatic/kafka as it comes. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Admin, Consumer, Producer } from '@platformatic/kafka';
import type { BareClient, BareProducer, BareTransactionalProducer, Tries } from './bare.ts';
import { clientId, nameOf } from './bare-kafkajs.ts';

const requestTimeoutMs = 500;
const sessionTimeout = 6_000;

/** Less than what K8e lays into the log: a transaction then lies in several fetches. */
const fetchBytes = 2_000_000;

export function barePlatformatic(broker: string, user: string | null = null): BareClient {
  const manifest = new URL('../package.json', import.meta.resolve('@platformatic/kafka'));
  const { version } = JSON.parse(readFileSync(fileURLToPath(manifest), 'utf8'));
  const sasl = user === null ? {} : { sasl: { mechanism: 'PLAIN' as const, username: user, password: user } };
  const options = (requestTimeout: number) => ({ clientId, bootstrapBrokers: [broker], requestTimeout, ...sasl });
  return {
    name: '@platformatic/kafka',
    version,
    as: (name, other) => barePlatformatic(other, name),
    producer: async (tries, { requestTimeoutMs: timeout = requestTimeoutMs } = {}) =>
      producer(new Producer({ ...options(timeout), ...triesOf(tries), idempotent: true })),
    transactional: async (transactionalId, tries) => transactional({ ...options(requestTimeoutMs), ...triesOf(tries), transactionalId }),
    consume: (topic, offset, until) => consume(options(10_000), topic, offset, until),
    async position(group, topic, partition) {
      const consumer = new Consumer({ ...options(5000), groupId: group });
      const found = await consumer.listCommittedOffsets({ topics: [{ topic, partitions: [partition] }] });
      await consumer.close(true);
      return Number(found.get(topic)?.[partition] ?? found.get(topic)?.[0] ?? -1n);
    },
    deliveries: (topic, group, workMs) => deliveries(options(10_000), topic, group, workMs),
  };
}

function triesOf(tries: Tries) {
  return tries === 'default' ? {} : { retries: tries === 'one' ? 1 : 2, retryDelay: 50 };
}

const textOf = (topic: string, partition: number | null, value: string) => ({
  topic,
  value: Buffer.from(value),
  ...(partition === null ? {} : { partition }),
});

function producer(opened: Producer): BareProducer {
  return {
    async send(topic, partition, values) {
      await opened.send({ messages: values.map((value) => textOf(topic, partition, value)) });
    },
    async sendAcross(topic, values) {
      await opened.send({ messages: Array.from(values, ([partition, value]) => textOf(topic, partition, value)) });
    },
    close: () => opened.close(true),
  };
}

function transactional(options: ConstructorParameters<typeof Producer>[0]): BareTransactionalProducer {
  const opened = new Producer({ ...options, idempotent: true });
  return {
    async begin() {
      const transaction = await opened.beginTransaction();
      return {
        async send(topic, partition, value, key) {
          await transaction.send({ messages: [{ ...textOf(topic, partition, value), ...(key ? { key } : {}) }] });
        },
        async noteOffset(groupId, topic, offset, member) {
          const admin = new Admin({ clientId, bootstrapBrokers: options.bootstrapBrokers as string[] });
          const [{ nodeId: coordinatorId } = { nodeId: 1 }] = await admin.findCoordinator({ keyType: 0, keys: [groupId] } as never);
          await admin.close();
          await transaction.addConsumer({ groupId } as never);
          const consumer = { groupId, coordinatorId, ...(member ?? { generationId: -1, memberId: '' }) };
          await transaction.addOffset({ topic, partition: 0, offset: BigInt(offset - 1), metadata: { consumer } } as never);
        },
        commit: () => transaction.commit(),
        abort: () => transaction.abort(),
      };
    },
    close: () => opened.close(true),
  };
}

type ClientOptions = { clientId: string; bootstrapBrokers: string[]; requestTimeout: number };

async function consume(options: ClientOptions, topic: string, offset: number, until: string): Promise<string[]> {
  const consumer = new Consumer({ ...options, groupId: `consume-${topic}` });
  const stream = await consumer.consume({
    topics: [topic],
    mode: 'manual',
    offsets: [{ topic, partition: 0, offset: BigInt(offset) }],
    autocommit: false,
    maxWaitTime: 500,
    maxBytes: fetchBytes,
  });
  const values: string[] = [];
  const seen = new Promise<void>((resolve) => {
    stream.on('data', ({ value }: { value: Buffer }) => {
      values.push(nameOf(value));
      if (values.at(-1) === until) resolve();
    });
  });
  await Promise.race([seen, delay(20_000)]);
  await consumer.close(true);
  return values;
}

async function deliveries(options: ClientOptions, topic: string, groupId: string, workMs: number): Promise<number> {
  let count = 0;
  const consumers: Consumer[] = [];
  const member = async () => {
    const group = { groupId, sessionTimeout, rebalanceTimeout: sessionTimeout, heartbeatInterval: 1500 };
    const consumer = new Consumer({ ...options, ...group });
    consumers.push(consumer);
    const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false, maxWaitTime: 500 });
    const work = async () => {
      for await (const message of stream) {
        count++;
        await delay(workMs);
        await message.commit();
      }
    };
    work().catch(() => undefined);
  };
  await member();
  for (const end = Date.now() + 20_000; count === 0 && Date.now() < end; ) await delay(50);
  member().catch(() => undefined);
  await delay(workMs + sessionTimeout);
  const counted = count;
  await Promise.all(consumers.map((one) => one.close(true).catch(() => undefined)));
  return counted;
}
