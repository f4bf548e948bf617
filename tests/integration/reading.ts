/** What an independent consumer sees of the topics, for tests: nothing here is shared with the services' loops. */
import kafkajs, { type Admin } from 'kafkajs';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import type { Log, Logger, LogRecord } from '../../adapters/ports.ts';
import { electionCodec, healthCodec, outputBlockCodec, outputCodec, verdictCodec } from '../../schemas/codec.ts';
import { outputTopic, type Replica } from '../../schemas/topics.ts';
import type { Election, Health, Output, Verdict } from '../../schemas/types.ts';

export const quiet: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** @param brokers HOST:PORT, comma separated */
export function openLog(brokers: string): Log {
  const addresses = brokers.split(',').map((broker) => {
    const [host = '', port] = broker.split(':');
    return { host, port: Number(port) };
  });
  const config = { brokers: addresses, client_id: 'test', topic_prefix: '', request_timeout: 5000 };
  return openKafka(config, quiet, systemClock);
}

/** Every record of a partition up to its present end. */
export async function readAll(log: Log, topic: string, partition: number, isolation: 'raw' | 'committed'): Promise<LogRecord[]> {
  const { startOffset, endOffset } = await log.bounds(topic, partition);
  const reader = log.reader(isolation);
  const records: LogRecord[] = [];
  reader.assign(topic, partition, startOffset);
  for (let next = startOffset; next < endOffset; ) {
    for (const fetched of await reader.poll(500)) {
      records.push(...fetched.records);
      next = fetched.nextOffset;
    }
  }
  await reader.close();
  return records;
}

/** What accounting's topic holds of a partition, in log order. */
export async function readAggregates(log: Log, partition: number): Promise<Output[]> {
  const records = await readAll(log, 'aggregates', partition, 'committed');
  return records.map(({ value }) => outputCodec.decode(value as Buffer));
}

/** One replica's outputs of a partition by n, as a reader of n = last + 1 takes them. */
export async function readOutputs(log: Log, replica: Replica, partition: number): Promise<Output[]> {
  const outputs: Output[] = [];
  for (const { value } of await readAll(log, outputTopic(replica).name, partition, 'raw')) {
    for (const output of outputBlockCodec.decode(value as Buffer).outputs) if (output.n === outputs.length + 1) outputs.push(output);
  }
  return outputs;
}

export const chainsOf = (outputs: readonly Output[]) => outputs.map(({ n, chain }) => `${n} ${Buffer.from(chain).toString('hex')}`);

/** The elections of a partition in log order, as far as compaction left them. */
export async function readElections(log: Log, partition: number): Promise<Election[]> {
  const records = await readAll(log, 'elections', 0, 'raw');
  return records.flatMap(({ value }) => (value ? [electionCodec.decode(value)] : [])).filter((election) => election.partition === partition);
}

/** All verdicts in log order, as far as compaction left them. */
export async function readVerdicts(log: Log): Promise<Verdict[]> {
  const records = await readAll(log, 'verdicts', 0, 'raw');
  return records.flatMap(({ value }) => (value ? [verdictCodec.decode(value)] : []));
}

/** Each service's newest health record. */
export async function readHealth(log: Log): Promise<Map<string, Health>> {
  const newest = new Map<string, Health>();
  for (const { value } of await readAll(log, 'health', 0, 'raw')) {
    if (!value) continue;
    const health = healthCodec.decode(value);
    newest.set(`${health.role}/${health.id}`, health);
  }
  return newest;
}

/** Asks again until the answer is right. @throws Error with the last answer */
export async function eventually<Answer>(ask: () => Promise<Answer>, right: (answer: Answer) => boolean, withinMs = 30_000): Promise<Answer> {
  let answer = await ask();
  for (const end = Date.now() + withinMs; !right(answer) && Date.now() < end; answer = await ask()) await systemClock.sleep(100);
  if (right(answer)) return answer;
  const text = JSON.stringify(answer, (_key, value) => (typeof value === 'bigint' ? String(value) : value));
  throw new Error(`not within ${withinMs} ms; the last answer was ${text?.slice(0, 2000)}`);
}

/** A replica's outputs of a partition as a reader takes them that begins at the topic's head, wherever that was cut: n = last + 1. */
export async function readKeptOutputs(log: Log, replica: Replica, partition: number): Promise<Output[]> {
  const outputs: Output[] = [];
  for (const { value } of await readAll(log, outputTopic(replica).name, partition, 'raw')) {
    for (const output of outputBlockCodec.decode(value as Buffer).outputs) {
      if (output.n === (outputs.at(-1)?.n ?? output.n - 1) + 1) outputs.push(output);
    }
  }
  return outputs;
}

/** As an operator does it. */
export async function deleteTopic(broker: string, topic: string): Promise<void> {
  const admin: Admin = new kafkajs.Kafka({ brokers: [broker], clientId: 'operator', logLevel: kafkajs.logLevel.NOTHING }).admin();
  await admin.connect();
  try {
    await admin.deleteTopics({ topics: [topic], timeout: 10_000 });
    await eventually(
      () => admin.listTopics(),
      (names) => !names.includes(topic),
    );
  } finally {
    await admin.disconnect();
  }
}
