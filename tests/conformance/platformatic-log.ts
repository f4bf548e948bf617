/**
 * The log on @platformatic/kafka, behind the same port as the product's adapter and with guards of the same kind, so that the suite can say of both
 * what they are safe for. No part of the product.
 */
import { Admin, Consumer, FetchIsolationLevels, findErrorBy, ListOffsetTimestamps, Producer } from '@platformatic/kafka';
import { committedRecords } from '../../adapters/kafka/records.ts';
import {
  type Clock,
  type Fetched,
  type LogBounds,
  LogFault,
  type LogFaultKind,
  type LogMessage,
  type LogReader,
  type LogRecord,
  type LogWriter,
  type TransactionalWriter,
} from '../../adapters/ports.ts';
import type { PortLog } from './case.ts';

export interface PlatformaticConfig {
  readonly broker: { readonly host: string; readonly port: number };
  readonly requestTimeoutMs: number;
}

const transactionTimeoutMs = 10_000;
const openWithinMs = 20_000;
const openAgainMs = 50;
const fetchBytesMax = 16 * 1024 * 1024;
const partitionBytesMax = 4 * 1024 * 1024;
const longPollMs = 250;
const logAppendTime = 0x08;
const controlBatch = 0x20;

/** Retries as a number of 0 or 1 mean for ever to an idempotent producer; only `false` means none. */
function clientOptions({ broker, requestTimeoutMs }: PlatformaticConfig) {
  return {
    clientId: 'conformance',
    bootstrapBrokers: [{ ...broker }],
    timeout: requestTimeoutMs,
    requestTimeout: requestTimeoutMs,
    connectTimeout: 2000,
    retries: false,
    retryDelay: 10,
    metadataMaxAge: 60_000,
    autocreateTopics: false,
  };
}

type Transaction = Awaited<ReturnType<Producer['beginTransaction']>>;

const kinds: readonly (readonly [string, LogFaultKind])[] = [
  ['PRODUCER_FENCED', 'fenced'],
  ['INVALID_PRODUCER_EPOCH', 'fenced'],
  ['TRANSACTION_COORDINATOR_FENCED', 'fenced'],
  ['MESSAGE_TOO_LARGE', 'refused'],
  ['RECORD_LIST_TOO_LARGE', 'refused'],
  ['INVALID_RECORD', 'refused'],
  ['OFFSET_OUT_OF_RANGE', 'out_of_range'],
  ['UNKNOWN_TOPIC_OR_PARTITION', 'missing'],
  ['UNKNOWN_TOPIC_ID', 'missing'],
];

function faultOf(error: unknown, otherwise: LogFaultKind, doing: string): LogFault {
  if (error instanceof LogFault) return error;
  const kind = kinds.find(([apiId]) => isOfKind(error, apiId))?.[1] ?? otherwise;
  return new LogFault(kind, `${doing}: ${(error as Error).message}`, { cause: error });
}

function isOfKind(error: unknown, apiId: string): boolean {
  return findErrorBy(error as Error, 'apiId' as never, apiId as never) !== null;
}

/** As much of the client's message as it needs, each to the partition that is named (K3). */
function sending(topic: string, partition: number, messages: readonly LogMessage[]) {
  const asBuffer = (bytes: Uint8Array | null) => (bytes ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) : undefined);
  return { acks: -1, messages: messages.map(({ key, value }) => ({ topic, partition, key: asBuffer(key), value: asBuffer(value) })) } as never;
}

class PlatformaticWriter implements LogWriter {
  readonly #config: PlatformaticConfig;
  readonly #last = new Map<string, Promise<unknown>>();
  #producer: Producer | null = null;

  constructor(config: PlatformaticConfig) {
    this.#config = config;
  }

  /** K4: one append a partition at a time. */
  append(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number> {
    const key = `${topic}/${partition}`;
    const turn = (this.#last.get(key) ?? Promise.resolve()).then(() => this.#append(topic, partition, messages));
    this.#last.set(
      key,
      turn.catch(() => undefined),
    );
    return turn;
  }

  async #append(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number> {
    const producer = this.#producer ?? new Producer({ ...clientOptions(this.#config), idempotent: true });
    this.#producer = producer;
    try {
      const { offsets } = await producer.send(sending(topic, partition, messages));
      return Number(offsets?.[0]?.offset ?? -1);
    } catch (error) {
      // K1, K5: whatever went wrong, another producer follows.
      if (this.#producer === producer) this.#producer = null;
      producer.close().catch(() => undefined);
      throw faultOf(error, 'unknown', `append to ${topic}/${partition}`);
    }
  }

  async close(): Promise<void> {
    const producer = this.#producer;
    this.#producer = null;
    await producer?.close().catch(() => undefined);
  }
}

class PlatformaticTransactionalWriter implements TransactionalWriter {
  readonly #config: PlatformaticConfig;
  readonly #clock: Clock;
  readonly #transactionalId: string;
  #producer: Producer | null = null;
  #transaction: Transaction | null = null;

  constructor(config: PlatformaticConfig, clock: Clock, transactionalId: string) {
    this.#config = config;
    this.#clock = clock;
    this.#transactionalId = transactionalId;
  }

  async open(): Promise<void> {
    const untilMs = this.#clock.now() + openWithinMs;
    for (;;) {
      try {
        await this.#begin();
        return;
      } catch (error) {
        await this.close();
        // The one before is being completed or aborted; the client's own retries are off.
        const isSoon = isOfKind(error, 'CONCURRENT_TRANSACTIONS');
        if (!isSoon || this.#clock.now() > untilMs) throw faultOf(error, 'unavailable', 'opening a transactional writer');
        await this.#clock.sleep(openAgainMs);
      }
    }
  }

  async #begin(): Promise<void> {
    this.#producer ??= new Producer({
      ...clientOptions(this.#config),
      // P2: the client knows one timeout for requests and transactions; requestTimeout stays the request's.
      timeout: transactionTimeoutMs,
      idempotent: true,
      transactionalId: this.#transactionalId,
      // P1: a new epoch of whatever identity the transactional id has.
      producerId: -1n,
      producerEpoch: -1,
    });
    this.#transaction = await this.#producer.beginTransaction();
  }

  async commit(topic: string, partition: number, messages: readonly LogMessage[]): Promise<void> {
    const transaction = this.#transaction;
    this.#transaction = null;
    if (!transaction) throw new LogFault('unknown', 'this transactional writer has failed before: open another one');
    try {
      await transaction.send(sending(topic, partition, messages));
      await transaction.commit();
      await this.#begin();
    } catch (error) {
      this.#transaction = null;
      throw faultOf(error, 'unknown', `transaction on ${topic}/${partition}`);
    }
  }

  async close(): Promise<void> {
    this.#transaction = null;
    const producer = this.#producer;
    this.#producer = null;
    await producer?.close().catch(() => undefined);
  }
}

type Batch = NonNullable<Awaited<ReturnType<Consumer['fetch']>>['responses'][number]['partitions'][number]['records']>[number];

function recordsOf(batch: Batch, position: number): LogRecord[] {
  const isControl = (batch.attributes & controlBatch) !== 0;
  const records: LogRecord[] = [];
  for (const { key, value, offsetDelta, timestampDelta } of batch.records) {
    const offset = Number(batch.firstOffset) + offsetDelta;
    if (offset < position) continue;
    records.push({
      offset,
      key: isControl ? null : (key ?? null),
      value: isControl ? null : (value ?? null),
      appendedMs: Number(batch.attributes & logAppendTime ? batch.maxTimestamp : batch.firstTimestamp + BigInt(timestampDelta)),
      producerId: batch.attributes & 0x10 ? batch.producerId.toString() : '',
      marker: isControl && key ? (key.readInt16BE(2) === 1 ? 'commit' : 'abort') : null,
    });
  }
  return records;
}

/** Fetches by position with the client's own request; its filter of aborted records leaks (K8), so ours comes after it. */
class PlatformaticReader implements LogReader {
  readonly #consumer: Consumer;
  readonly #clock: Clock;
  readonly #isCommitted: boolean;
  readonly #positions = new Map<string, { topic: string; partition: number; offset: number }>();

  constructor(config: PlatformaticConfig, clock: Clock, isolation: 'raw' | 'committed') {
    this.#clock = clock;
    this.#isCommitted = isolation === 'committed';
    this.#consumer = new Consumer({ ...clientOptions(config), groupId: 'conformance-reader' });
  }

  assign(topic: string, partition: number, offset: number): void {
    this.#consumer.topics.track(topic);
    this.#positions.set(`${topic}/${partition}`, { topic, partition, offset });
  }

  unassign(topic: string, partition: number): void {
    this.#positions.delete(`${topic}/${partition}`);
  }

  async poll(maxWaitMs: number): Promise<Fetched[]> {
    if (this.#positions.size === 0) {
      await this.#clock.sleep(maxWaitMs);
      return [];
    }
    try {
      return await this.#fetch(Math.min(maxWaitMs, longPollMs));
    } catch (error) {
      throw faultOf(error, 'unavailable', 'fetch');
    }
  }

  async #fetch(maxWaitTime: number): Promise<Fetched[]> {
    const topics = [...new Set([...this.#positions.values()].map(({ topic }) => topic))];
    const metadata = await this.#consumer.metadata({ topics });
    const names = new Map(topics.map((topic) => [metadata.topics.get(topic)?.id ?? '', topic]));
    const byNode = new Map<number, Map<string, object[]>>();
    for (const { topic, partition, offset } of this.#positions.values()) {
      const { id, partitions } = metadata.topics.get(topic) ?? { id: '', partitions: [] };
      const node = partitions[partition]?.leader ?? -1;
      const ofNode = byNode.get(node) ?? new Map<string, object[]>();
      byNode.set(node, ofNode);
      const position = { partition, currentLeaderEpoch: -1, fetchOffset: BigInt(offset), lastFetchedEpoch: -1, partitionMaxBytes: partitionBytesMax };
      ofNode.set(id, [...(ofNode.get(id) ?? []), position]);
    }
    const isolationLevel = this.#isCommitted ? FetchIsolationLevels.READ_COMMITTED : FetchIsolationLevels.READ_UNCOMMITTED;
    const fetched: Fetched[] = [];
    for (const [node, ofNode] of byNode) {
      const wanted = Array.from(ofNode, ([topicId, partitions]) => ({ topicId, partitions })) as never;
      const { responses } = await this.#consumer.fetch({ node, topics: wanted, isolationLevel, maxWaitTime, minBytes: 1, maxBytes: fetchBytesMax });
      for (const { topicId, partitions } of responses) {
        for (const response of partitions) fetched.push(...this.#take(names.get(topicId) ?? '', response));
      }
    }
    return fetched;
  }

  #take(topic: string, response: Awaited<ReturnType<Consumer['fetch']>>['responses'][number]['partitions'][number]): Fetched[] {
    const key = `${topic}/${response.partitionIndex}`;
    const position = this.#positions.get(key);
    if (!position) return [];
    const batches = response.records ?? [];
    const records = batches.flatMap((batch) => recordsOf(batch, position.offset));
    const last = batches.at(-1);
    const nextOffset = last ? Math.max(position.offset, Number(last.firstOffset) + last.lastOffsetDelta + 1) : position.offset;
    this.#positions.set(key, { ...position, offset: nextOffset });
    const aborted = (response.abortedTransactions ?? []).map(({ producerId, firstOffset }) => ({
      producerId: producerId.toString(),
      firstOffset: Number(firstOffset),
    }));
    return [
      {
        topic,
        partition: response.partitionIndex,
        records: this.#isCommitted ? committedRecords(records, aborted) : records,
        nextOffset,
        endOffset: Number(response.highWatermark),
        startOffset: Number(response.logStartOffset),
      },
    ];
  }

  async close(): Promise<void> {
    await this.#consumer.close(true).catch(() => undefined);
  }
}

export class PlatformaticLog implements PortLog {
  readonly #config: PlatformaticConfig;
  readonly #clock: Clock;
  readonly #admin: Admin;
  readonly #consumer: Consumer;

  constructor(config: PlatformaticConfig, clock: Clock) {
    this.#config = config;
    this.#clock = clock;
    const options = { ...clientOptions(config), retries: 5, retryDelay: 100 };
    this.#admin = new Admin(options);
    this.#consumer = new Consumer({ ...options, groupId: 'conformance-log' });
  }

  writer(): LogWriter {
    return new PlatformaticWriter(this.#config);
  }

  reader(isolation: 'raw' | 'committed'): LogReader {
    return new PlatformaticReader(this.#config, this.#clock, isolation);
  }

  transactionalWriter(transactionalId: string): TransactionalWriter {
    return new PlatformaticTransactionalWriter(this.#config, this.#clock, transactionalId);
  }

  async topicId(topic: string): Promise<string> {
    return ((await this.#metadata(topic)).topics.get(topic)?.id ?? '').replaceAll('-', '');
  }

  async partitionCount(topic: string): Promise<number> {
    return (await this.#metadata(topic)).topics.get(topic)?.partitionsCount ?? 0;
  }

  async bounds(topic: string, partition: number): Promise<LogBounds> {
    const options = { topics: [topic], partitions: { [topic]: [partition] }, isolationLevel: FetchIsolationLevels.READ_UNCOMMITTED };
    const at = async (timestamp: bigint) => Number((await this.#consumer.listOffsets({ ...options, timestamp })).get(topic)?.[partition] ?? -1n);
    try {
      return { startOffset: await at(ListOffsetTimestamps.EARLIEST), endOffset: await at(ListOffsetTimestamps.LATEST) };
    } catch (error) {
      throw faultOf(error, 'unavailable', `bounds of ${topic}/${partition}`);
    }
  }

  async commitOffset(group: string, topic: string, partition: number, offset: number): Promise<void> {
    const topics = [{ name: topic, partitionOffsets: [{ partition, offset: BigInt(offset) }] }];
    await this.#admin.alterConsumerGroupOffsets({ groupId: group, topics }).catch((error) => {
      throw faultOf(error, 'unavailable', `commit of ${group}`);
    });
  }

  async committedOffset(group: string, topic: string, partition: number): Promise<number> {
    const groups = [{ groupId: group, topics: [{ name: topic, partitionIndexes: [partition] }] }];
    const [found] = await this.#admin.listConsumerGroupOffsets({ groups }).catch((error) => {
      throw faultOf(error, 'unavailable', `committed offset of ${group}`);
    });
    return Number(found?.topics[0]?.partitions[0]?.committedOffset ?? -1n);
  }

  async close(): Promise<void> {
    await Promise.all([this.#admin.close().catch(() => undefined), this.#consumer.close(true).catch(() => undefined)]);
  }

  #metadata(topic: string) {
    return this.#consumer.metadata({ topics: [topic], forceUpdate: true }).catch((error) => {
      throw faultOf(error, 'unavailable', `metadata of ${topic}`);
    });
  }
}
