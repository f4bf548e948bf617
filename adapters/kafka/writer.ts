/**
 * Writers, each guarded against what the client gets wrong: one partition a send (K2, K3), one send a partition at a time (K4), and after any
 * error another producer (K1, K5, K6).
 */
import type { Kafka, Producer, ProducerConfig, Transaction } from 'kafkajs';
import type { Logger, LogMessage, LogWriter, TransactionalWriter } from '../ports.ts';
import { LogFault } from '../ports.ts';
import { CompressionTypes, faultOf, type KafkaSettings, openClient } from './client.ts';

/** Below this many bytes compression costs more than it saves. */
const compressFromBytes = 512;

const producerOptions = {
  idempotent: true,
  allowAutoTopicCreation: false,
  metadataMaxAge: 60_000,
  // K3: a partitioner runs again at each retry; this one can only say what the message says.
  createPartitioner:
    () =>
    ({ message }: { message: { partition?: number } }) =>
      message.partition as number,
} satisfies ProducerConfig;

function sending(settings: KafkaSettings, topic: string, partition: number, messages: readonly LogMessage[]) {
  let bytes = 0;
  for (const message of messages) bytes += message.value?.length ?? 0;
  return {
    topic: settings.topicPrefix + topic,
    acks: -1,
    timeout: settings.requestTimeoutMs,
    compression: bytes < compressFromBytes ? CompressionTypes.None : CompressionTypes.ZSTD,
    messages: messages.map(({ key, value }) => ({ key: key && asBuffer(key), value: value && asBuffer(value), partition })),
  };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export class KafkaWriter implements LogWriter {
  readonly #settings: KafkaSettings;
  readonly #client: Kafka;
  readonly #last = new Map<string, Promise<unknown>>();
  #producer: Promise<Producer> | null = null;

  constructor(settings: KafkaSettings, logger: Logger) {
    this.#settings = settings;
    this.#client = openClient(settings, logger);
  }

  append(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number> {
    const key = `${topic}/${partition}`;
    const turn = (this.#last.get(key) ?? Promise.resolve()).then(() => this.#append(topic, partition, messages));
    this.#last.set(
      key,
      turn.catch(() => undefined),
    );
    return turn;
  }

  async close(): Promise<void> {
    const producer = this.#producer;
    this.#producer = null;
    await producer?.then((opened) => opened.disconnect()).catch(() => undefined);
  }

  async #append(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number> {
    const opening = this.#producer ?? this.#open();
    this.#producer = opening;
    const doing = `append to ${topic}/${partition}`;
    let producer: Producer;
    try {
      producer = await opening;
    } catch (error) {
      if (this.#producer === opening) this.#producer = null;
      throw faultOf(error, 'unavailable', doing);
    }
    try {
      const [appended] = await producer.send(sending(this.#settings, topic, partition, messages));
      return Number(appended?.baseOffset ?? -1);
    } catch (error) {
      // K1: with the same producer the next batch could be taken for a repeat of this one, and be dropped with a success.
      if (this.#producer === opening) this.#producer = null;
      producer.disconnect().catch(() => undefined);
      throw faultOf(error, 'unknown', doing);
    }
  }

  async #open(): Promise<Producer> {
    const producer = this.#client.producer(producerOptions);
    try {
      await producer.connect();
      return producer;
    } catch (error) {
      producer.disconnect().catch(() => undefined);
      throw error;
    }
  }
}

export class KafkaTransactionalWriter implements TransactionalWriter {
  readonly #settings: KafkaSettings;
  readonly #producer: Producer;
  #transaction: Transaction | null = null;

  constructor(settings: KafkaSettings, logger: Logger, transactionalId: string) {
    this.#settings = settings;
    this.#producer = openClient(settings, logger).producer({
      ...producerOptions,
      transactionalId: settings.topicPrefix + transactionalId,
      transactionTimeout: 10_000,
      maxInFlightRequests: 1,
    });
  }

  async open(): Promise<void> {
    try {
      await this.#producer.connect();
      // The client asks for the producer id, and thereby a new epoch, when the first transaction begins; nothing else is sent yet.
      this.#transaction = await this.#producer.transaction();
    } catch (error) {
      throw faultOf(error, 'unavailable', 'opening a transactional writer');
    }
  }

  async commit(topic: string, partition: number, messages: readonly LogMessage[]): Promise<void> {
    const transaction = this.#transaction;
    // K6: a transaction that failed is never used again, not even to abort it (KAFKA-17754).
    this.#transaction = null;
    if (!transaction) throw new LogFault('unknown', 'this transactional writer has failed before: open another one');
    try {
      await transaction.send(sending(this.#settings, topic, partition, messages));
      await transaction.commit();
      this.#transaction = await this.#producer.transaction();
    } catch (error) {
      throw faultOf(error, 'unknown', `transaction on ${topic}/${partition}`);
    }
  }

  async close(): Promise<void> {
    this.#transaction = null;
    await this.#producer.disconnect().catch(() => undefined);
  }
}
