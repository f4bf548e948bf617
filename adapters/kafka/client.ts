/**
 * kafkajs 2.2.4 and what has to be known of its inside. With kafka-admin.ts the only importer of it; every option that matters is stated here.
 * Reading and writing use its cluster and connections, but neither its consumer (group membership would delay every restart, and K9), nor its record
 * decoder (K8), nor, outside of transactions, its producer (K1, K2).
 */
import { createRequire } from 'node:module';
import { zstdDecompressSync } from 'node:zlib';
import kafkajs, { type KafkaConfig as ClientConfig, type Kafka } from 'kafkajs';
import { LogFault, type LogFaultKind, type Logger } from '../ports.ts';
import { treatSilenceAsRefusal } from './connecting.ts';
import { compress } from './produce.ts';

const { CompressionCodecs, CompressionTypes, Kafka: KafkaClient, logLevel } = kafkajs;
const require = createRequire(import.meta.url);
const Cluster = require('kafkajs/src/cluster') as new (options: object) => Cluster;
const RequestQueue = require('kafkajs/src/network/requestQueue') as { prototype: RequestQueue };
const Encoder = require('kafkajs/src/protocol/encoder') as { prototype: Encoder };
const socketFactory = require('kafkajs/src/network/socketFactory') as () => unknown;
const { createLogger } = require('kafkajs/src/loggers') as { createLogger(options: object): unknown };
const { createErrorFromCode } = require('kafkajs/src/protocol/error') as { createErrorFromCode(code: number): Error };

export { CompressionTypes, createErrorFromCode };

treatSilenceAsRefusal();

/** What reading needs of kafkajs' cluster. */
export interface Cluster {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  refreshMetadata(): Promise<void>;
  addMultipleTargetTopics(topics: readonly string[]): Promise<void>;
  findTopicPartitionMetadata(topic: string): { partitionId: number; leader: number; partitionErrorCode: number }[];
  findLeaderForPartitions(topic: string, partitions: readonly number[]): Record<string, number[]>;
  findBroker(node: { nodeId: string }): Promise<Broker>;
  findControllerBroker(): Promise<Broker>;
  findGroupCoordinator(group: { groupId: string }): Promise<Broker>;
  readonly brokerPool: { readonly metadata: { readonly brokers: readonly { readonly nodeId: number }[] } | null };
}

export interface Broker {
  connectionPool: { send<Response>(request: ProtocolRequest<Response>): Promise<Response> };
  listOffsets(request: object): Promise<{ responses: { partitions: { partition: number; offset: string }[] }[] }>;
  initProducerId(request: { transactionalId?: string; transactionTimeout: number }): Promise<{ producerId: string; producerEpoch: number }>;
  offsetCommit(request: object): Promise<unknown>;
  offsetFetch(request: object): Promise<{ responses: { partitions: { partition: number; offset: string }[] }[] }>;
}

export interface ProtocolRequest<Response> {
  readonly request: { apiKey: number; apiVersion: number; apiName: string; encode(): Promise<unknown> };
  readonly response: { decode(payload: Buffer): Promise<unknown>; parse(decoded: never): Promise<Response> };
  readonly requestTimeout?: number;
}

interface RequestQueue {
  pending: unknown[];
  throttledUntil: number;
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  checkPendingRequests(): void;
  scheduleCheckPendingRequests(): void;
}

interface Encoder {
  buf: Buffer;
  /** Octets written into buf. */
  offset: number;
  /** What comes before buf. */
  parts?: Buffer[];
  readonly buffer: Buffer;
  writeInt32(value: number): Encoder;
  writeBufferInternal(buffer: Buffer): void;
  writeBytes(value: Buffer | string | null): Encoder;
  writeEncoder(value: Encoder): Encoder;
  writeEncoderArray(values: readonly Encoder[]): Encoder;
  size(): number;
}

export interface KafkaSettings {
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly topicPrefix: string;
  readonly requestTimeoutMs: number;
  readonly ssl?: ClientConfig['ssl'];
  readonly sasl?: ClientConfig['sasl'];
}

/** Retries stay short inside the client: the loops decide what happens next, with fresh metadata. ~24 ms a transaction instead of ~300. */
const retry = { initialRetryTime: 10, factor: 0, multiplier: 1.3, maxRetryTime: 250, retries: 12 };

/** K10: the client's own check reschedules itself every millisecond for ever; a check is due only while a request waits. */
RequestQueue.prototype.scheduleCheckPendingRequests = function (this: RequestQueue): void {
  if (this.throttleCheckTimeoutId || this.pending.length === 0) return;
  const waitMs = Math.max(10, this.throttledUntil - Date.now());
  this.throttleCheckTimeoutId = setTimeout(() => {
    this.throttleCheckTimeoutId = null;
    this.checkPendingRequests();
  }, waitMs);
};

/**
 * Each layer of the client's encoder copies all that is within it into a zeroed buffer of up to twice the size, so that a request left many times its
 * size to be collected. Here a large buffer is taken over as it is, and all are joined once, at the end.
 */
const takenOverFromBytes = 4096;
const { writeBufferInternal, writeBytes } = Encoder.prototype;
Encoder.prototype.writeBufferInternal = function (this: Encoder, buffer: Buffer): void {
  if (buffer.length < takenOverFromBytes) {
    writeBufferInternal.call(this, buffer);
    return;
  }
  this.parts ??= [];
  this.parts.push(this.buf.subarray(0, this.offset), buffer);
  this.buf = Buffer.allocUnsafe(64);
  this.offset = 0;
};
Encoder.prototype.writeBytes = function (this: Encoder, value: Buffer | string | null): Encoder {
  if (!Buffer.isBuffer(value)) return writeBytes.call(this, value);
  this.writeInt32(value.length).writeBufferInternal(value);
  return this;
};
Encoder.prototype.writeEncoder = function (this: Encoder, value: Encoder): Encoder {
  for (const part of value.parts ?? []) this.writeBufferInternal(part);
  this.writeBufferInternal(value.buf.subarray(0, value.offset));
  return this;
};
Encoder.prototype.writeEncoderArray = function (this: Encoder, values: readonly Encoder[]): Encoder {
  for (const value of values) this.writeEncoder(value);
  return this;
};
Encoder.prototype.size = function (this: Encoder): number {
  return (this.parts ?? []).reduce((size, part) => size + part.length, this.offset);
};
Object.defineProperty(Encoder.prototype, 'buffer', {
  get(this: Encoder): Buffer {
    if (this.parts) {
      this.buf = Buffer.concat([...this.parts, this.buf.subarray(0, this.offset)]);
      this.offset = this.buf.length;
      delete this.parts;
    }
    return this.buf.subarray(0, this.offset);
  },
});

CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: ({ buffer }: { buffer: Buffer }) => Promise.resolve(compress(buffer)),
  decompress: (buffer: Buffer) => Promise.resolve(zstdDecompressSync(buffer)),
});

/** The client's own messages go to our log one level down: a fault that matters comes back as a LogFault. */
function logCreator(logger: Logger) {
  return () =>
    ({ namespace, log }: { namespace: string; log: { message: string; error?: string } }) =>
      logger.debug({ client: namespace, error: log.error }, log.message);
}

function clientOptions(settings: KafkaSettings) {
  return {
    brokers: [...settings.brokers],
    clientId: settings.clientId,
    ssl: settings.ssl ?? false,
    sasl: settings.sasl,
    connectionTimeout: 2000,
    authenticationTimeout: 5000,
    requestTimeout: settings.requestTimeoutMs,
    enforceRequestTimeout: true,
    retry,
  };
}

export function openClient(settings: KafkaSettings, logger: Logger): Kafka {
  const { sasl, ...options } = clientOptions(settings);
  return new KafkaClient({ ...options, ...(sasl ? { sasl } : {}), logLevel: logLevel.ERROR, logCreator: logCreator(logger) } as ClientConfig);
}

/** A cluster of its own has connections of its own, so that a long poll holds up nobody else's requests. */
export function openCluster(settings: KafkaSettings, logger: Logger): Cluster {
  return new Cluster({
    ...clientOptions(settings),
    logger: createLogger({ level: logLevel.ERROR, logCreator: logCreator(logger) }),
    socketFactory: socketFactory(),
    metadataMaxAge: 60_000,
    allowAutoTopicCreation: false,
    maxInFlightRequests: null,
  });
}

const kinds: Record<string, LogFaultKind> = {
  PRODUCER_FENCED: 'fenced',
  INVALID_PRODUCER_EPOCH: 'fenced',
  TRANSACTION_COORDINATOR_FENCED: 'fenced',
  MESSAGE_TOO_LARGE: 'refused',
  RECORD_LIST_TOO_LARGE: 'refused',
  INVALID_RECORD: 'refused',
  OFFSET_OUT_OF_RANGE: 'out_of_range',
  UNKNOWN_TOPIC_OR_PARTITION: 'missing',
  UNKNOWN_TOPIC_ID: 'missing',
};

interface ClientError extends Error {
  readonly type?: string;
  readonly cause?: unknown;
}

/** The client's errors by what must happen next. Anything that is not known for certain is `otherwise`. */
export function faultOf(error: unknown, otherwise: LogFaultKind, doing: string, at?: { topic: string; partition: number }): LogFault {
  if (error instanceof LogFault) return error;
  const options = { cause: error, ...(at ? { at } : {}) };
  for (let cause = error as ClientError | undefined; cause instanceof Error; cause = cause.cause as ClientError | undefined) {
    const kind = cause.type ? kinds[cause.type] : undefined;
    if (kind) return new LogFault(kind, `${doing}: ${cause.message}`, options);
  }
  return new LogFault(otherwise, `${doing}: ${(error as Error).message}`, options);
}
