/**
 * Writers. Outside of transactions requests are our own, numbered by an idempotent producer: one append a partition at a time (K4), and after any
 * error another producer (K1, K5). The client's transactions are guarded against what it gets wrong: one partition a send (K2, K3), and after any
 * error another writer (K6).
 */
import type { Producer as ClientProducer, ProducerConfig, Transaction } from 'kafkajs';
import { messageBytesMax } from '../../schemas/topics.ts';
import type { Clock, Logger, LogMessage, LogWriter, TransactionalWriter } from '../ports.ts';
import { LogFault } from '../ports.ts';
import { type Cluster, CompressionTypes, createErrorFromCode, faultOf, type KafkaSettings, openClient, openCluster } from './client.ts';
import { type PartitionRecords, type Producer, produceRequest } from './produce.ts';

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

/** Each a batch that the broker takes. */
function* pieces(messages: readonly LogMessage[]): Generator<readonly LogMessage[]> {
  let from = 0;
  let bytes = 0;
  for (const [i, { key, value }] of messages.entries()) {
    const size = (key?.length ?? 0) + (value?.length ?? 0);
    if (i > from && bytes + size > messageBytesMax) {
      yield messages.slice(from, i);
      from = i;
      bytes = 0;
    }
    bytes += size;
  }
  yield messages.slice(from);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A producer's identity at the broker, with connections of its own, from when it is given to the first fault. */
interface Session {
  readonly cluster: Cluster;
  readonly producer: Producer;
  /** Topics whose leaders are known. */
  readonly topics: Set<string>;
  /** A leader was looked for in vain. */
  isStale: boolean;
  /** Of the next message, by topic and partition. */
  readonly sequences: Map<string, number>;
  underWay: number;
  isOver: boolean;
}

interface Append {
  readonly topic: string;
  readonly partition: number;
  readonly messages: readonly LogMessage[];
  /** Since it was sent: under other numbers it might be appended twice. */
  numbered: { readonly session: Session; readonly baseSequence: number } | null;
  /** Of the present attempt. */
  resolve: (baseOffset: number) => void;
  reject: (fault: LogFault) => void;
}

interface Request {
  readonly session: Session;
  readonly nodeId: string;
  readonly appends: Append[];
  bytes: number;
}

/** Appends of one turn of the event loop go to a broker in one request, up to so many bytes. */
const requestBytesMax = 8 * 1024 * 1024;
/**
 * Somebody else leads, or nobody yet: NOT_LEADER_OR_FOLLOWER, LEADER_NOT_AVAILABLE. A leader that stepped down while it waited for the others
 * says so, too, so that the records may be in the log.
 */
const movedCodes = new Set([5, 6]);
const attemptsMax = 4;
/** Before the first repetition; longer before each next one. */
const pauseMs = 50;
/** The broker counts from 0 again. */
const sequencesMax = 2 ** 31;

/** What is sent again has its numbers: the broker takes it for what it is (K2). */
function numberedBy(session: Session) {
  return (append: Append): PartitionRecords => {
    const { topic, partition, messages } = append;
    append.numbered ??= { session, baseSequence: nextSequence(session, append) };
    return { topic, partition, messages, baseSequence: append.numbered.baseSequence };
  };
}

function nextSequence({ sequences }: Session, { topic, partition, messages }: Append): number {
  const key = `${topic}/${partition}`;
  const next = sequences.get(key) ?? 0;
  sequences.set(key, (next + messages.length) % sequencesMax);
  return next;
}

function doing({ topic, partition }: Append): string {
  return `append to ${topic}/${partition}`;
}

export class KafkaWriter implements LogWriter {
  readonly #settings: KafkaSettings;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #last = new Map<string, Promise<unknown>>();
  #waiting: Append[] = [];
  #opening: Promise<Session> | null = null;
  #session: Session | null = null;

  constructor(settings: KafkaSettings, logger: Logger, clock: Clock) {
    this.#settings = settings;
    this.#logger = logger;
    this.#clock = clock;
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
    const session = this.#session ?? (await this.#opening?.catch(() => null));
    await session?.cluster.disconnect().catch(() => undefined);
  }

  async #append(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number> {
    const nobody = () => undefined;
    const append: Append = { topic: this.#settings.topicPrefix + topic, partition, messages, numbered: null, resolve: nobody, reject: nobody };
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#attempt(append);
      } catch (error) {
        if (attempt === attemptsMax || !movedCodes.has((error as { cause?: { code?: number } }).cause?.code ?? -1)) {
          if (append.numbered) this.#end(append.numbered.session);
          throw error;
        }
        await this.#clock.sleep(pauseMs * attempt);
      }
    }
  }

  #attempt(append: Append): Promise<number> {
    return new Promise((resolve, reject) => {
      append.resolve = resolve;
      append.reject = reject;
      if (this.#waiting.length === 0) setImmediate(() => void this.#send());
      this.#waiting.push(append);
    });
  }

  /** Everything that waits, in as few requests as it goes. Never rejects: each append has its own outcome. */
  async #send(): Promise<void> {
    const appends = this.#waiting;
    this.#waiting = [];
    const sessions = await Promise.all(appends.map((append) => this.#sessionFor(append.topic).catch((error: Error) => error)));
    const requests = new Map<string, Request>();
    for (const [index, append] of appends.entries()) {
      const session = sessions[index] as Session | Error;
      if (session instanceof Error) append.reject(faultOf(session, append.numbered ? 'unknown' : 'unavailable', doing(append)));
      else if (append.numbered && append.numbered.session !== session)
        append.reject(new LogFault('unknown', `${doing(append)}: its leader moved, and the producer that began it is gone`));
      else this.#place(append, session, requests);
    }
    for (const request of requests.values()) void this.#produce(request);
  }

  /** One that knows who leads the topic's partitions. */
  async #sessionFor(topic: string): Promise<Session> {
    if (!this.#session) this.#opening ??= this.#open(topic);
    const session = this.#session ?? (await (this.#opening as Promise<Session>));
    if (!session.topics.has(topic)) {
      await session.cluster.addMultipleTargetTopics([topic]);
      session.topics.add(topic);
    }
    if (session.isStale) {
      session.isStale = false;
      await session.cluster.refreshMetadata();
    }
    return session;
  }

  /** Puts it into the request that goes to its leader. */
  #place(append: Append, session: Session, requests: Map<string, Request>): void {
    let nodeId: string;
    try {
      nodeId = Object.keys(session.cluster.findLeaderForPartitions(append.topic, [append.partition]))[0] ?? '-1';
    } catch (error) {
      // The session came to its end since it was given out, and knows no leaders any more.
      this.#end(session);
      append.reject(faultOf(error, 'unavailable', doing(append)));
      return;
    }
    if (Number(nodeId) < 0) {
      session.isStale = true;
      append.reject(new LogFault(append.numbered ? 'unknown' : 'unavailable', `${doing(append)}: it has no leader, or does not exist`));
      return;
    }
    const bytes = append.messages.reduce((sum, { value }) => sum + (value?.length ?? 0), 0);
    const open = requests.get(nodeId);
    if (open?.session === session && open.bytes + bytes <= requestBytesMax) {
      open.appends.push(append);
      open.bytes += bytes;
      return;
    }
    if (open) void this.#produce(open);
    requests.set(nodeId, { session, nodeId, appends: [append], bytes });
  }

  async #produce({ session, nodeId, appends }: Request): Promise<void> {
    session.underWay++;
    try {
      const broker = await session.cluster.findBroker({ nodeId });
      const request = produceRequest(appends.map(numberedBy(session)), session.producer, this.#clock.now(), this.#settings.requestTimeoutMs);
      const produced = await broker.connectionPool.send(request);
      for (const append of appends) {
        const found = produced.find(({ topic, partition }) => topic === append.topic && partition === append.partition);
        if (found?.errorCode === 0) {
          append.resolve(found.baseOffset);
          continue;
        }
        if (movedCodes.has(found?.errorCode ?? 0)) session.isStale = true;
        else this.#end(session);
        append.reject(faultOf(found ? createErrorFromCode(found.errorCode) : new Error('it was not answered'), 'unknown', doing(append)));
      }
    } catch (error) {
      this.#end(session);
      for (const append of appends) append.reject(faultOf(error, 'unknown', doing(append)));
    } finally {
      session.underWay--;
      if (session.isOver) this.#end(session);
    }
  }

  /** K1: with the same producer the next batch could be taken for a repeat of the one that failed, and be dropped with a success. */
  #end(session: Session): void {
    session.isOver = true;
    if (this.#session === session) this.#session = null;
    // What else is under way comes to its own end, which is bounded by the timeout.
    if (session.underWay === 0) session.cluster.disconnect().catch(() => undefined);
  }

  async #open(topic: string): Promise<Session> {
    const cluster = openCluster(this.#settings, this.#logger);
    try {
      await cluster.connect();
      await cluster.addMultipleTargetTopics([topic]);
      const producer = await this.#newProducer(cluster);
      this.#session = { cluster, producer, topics: new Set([topic]), isStale: false, sequences: new Map(), underWay: 0, isOver: false };
      return this.#session;
    } catch (error) {
      cluster.disconnect().catch(() => undefined);
      throw error;
    } finally {
      this.#opening = null;
    }
  }

  /** A broker that has only just started says that it is not ready yet. */
  async #newProducer(cluster: Cluster): Promise<Producer> {
    for (let attempt = 1; ; attempt++) {
      try {
        const broker = await cluster.findControllerBroker();
        const { producerId, producerEpoch } = await broker.initProducerId({ transactionTimeout: this.#settings.requestTimeoutMs });
        return { id: BigInt(producerId), epoch: producerEpoch };
      } catch (error) {
        if (attempt === attemptsMax || !(error as { retriable?: boolean }).retriable) throw error;
        await this.#clock.sleep(pauseMs * attempt);
      }
    }
  }
}

export class KafkaTransactionalWriter implements TransactionalWriter {
  readonly #settings: KafkaSettings;
  readonly #producer: ClientProducer;
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
      for (const piece of pieces(messages)) await transaction.send(sending(this.#settings, topic, partition, piece));
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
