/** The log on Apache Kafka. */
import { type Broker, type Cluster, faultOf, type KafkaSettings, openCluster } from './kafka/client.ts';
import { deleteRecordsRequest, logDirectoriesRequest } from './kafka/disk-requests.ts';
import { KafkaReader } from './kafka/reader.ts';
import { metadataRequest, type TopicMetadata } from './kafka/requests.ts';
import { KafkaTransactionalWriter, KafkaWriter } from './kafka/writer.ts';
import type { BrokerDisk, Clock, Log, LogBounds, Logger, LogReader, LogWriter, TransactionalWriter } from './ports.ts';

const earliest = '-2';
const latest = '-1';
const readUncommitted = 0;
const attemptsMax = 4;

/** The configuration's section kafka; request_timeout in ms. */
export interface KafkaConfig {
  readonly brokers: readonly { readonly host: string; readonly port: number }[];
  readonly client_id: string;
  readonly topic_prefix: string;
  readonly request_timeout: number;
}

/** Connects when first used, so that a service starts while the broker is away. */
export function openKafka(config: KafkaConfig, logger: Logger, clock: Clock): Log {
  const settings = {
    brokers: config.brokers.map(({ host, port }) => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)),
    clientId: config.client_id,
    topicPrefix: config.topic_prefix,
    requestTimeoutMs: config.request_timeout,
  };
  return new KafkaLog(settings, logger, clock);
}

/** -1 where no record is at that time or later. */
async function listOffset(broker: Broker, { topic, partition }: { topic: string; partition: number }, timestamp: string): Promise<number> {
  const topics = [{ topic, partitions: [{ partition, timestamp }] }];
  const { responses } = await broker.listOffsets({ replicaId: -1, isolationLevel: readUncommitted, topics });
  return Number(responses[0]?.partitions[0]?.offset ?? -1);
}

class KafkaLog implements Log {
  readonly #settings: KafkaSettings;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #cluster: Cluster | null = null;
  #connecting: Promise<Cluster> | null = null;

  constructor(settings: KafkaSettings, logger: Logger, clock: Clock) {
    this.#settings = settings;
    this.#logger = logger;
    this.#clock = clock;
  }

  writer(): LogWriter {
    return new KafkaWriter(this.#settings, this.#logger, this.#clock);
  }

  reader(isolation: 'raw' | 'committed'): LogReader {
    return new KafkaReader(this.#settings, this.#logger, this.#clock, isolation);
  }

  transactionalWriter(transactionalId: string): TransactionalWriter {
    return new KafkaTransactionalWriter(this.#settings, this.#logger, transactionalId);
  }

  async topicId(topic: string): Promise<string> {
    return (await this.#metadata(topic)).topicId;
  }

  async partitionCount(topic: string): Promise<number> {
    return (await this.#metadata(topic)).partitions;
  }

  bounds(topic: string, partition: number): Promise<LogBounds> {
    const name = this.#settings.topicPrefix + topic;
    return this.#do(`bounds of ${topic}/${partition}`, async (cluster) => {
      const broker = await this.#leader(cluster, name, partition);
      const place = { topic: name, partition };
      return { startOffset: await listOffset(broker, place, earliest), endOffset: await listOffset(broker, place, latest) };
    });
  }

  offsetAt(topic: string, partition: number, atMs: number): Promise<number> {
    const place = { topic: this.#settings.topicPrefix + topic, partition };
    return this.#do(`offset at a time of ${topic}/${partition}`, async (cluster) => {
      const broker = await this.#leader(cluster, place.topic, partition);
      const offset = await listOffset(broker, place, String(Math.max(0, Math.floor(atMs))));
      return offset >= 0 ? offset : listOffset(broker, place, latest);
    });
  }

  deleteRecords(topic: string, partition: number, beforeOffset: number): Promise<void> {
    const name = this.#settings.topicPrefix + topic;
    return this.#do(`cutting the head of ${topic}/${partition}`, async (cluster) => {
      const broker = await this.#leader(cluster, name, partition);
      await broker.connectionPool.send(deleteRecordsRequest(name, partition, beforeOffset, this.#settings.requestTimeoutMs));
    });
  }

  disks(): Promise<BrokerDisk[]> {
    return this.#do('size of the disks', async (cluster) => {
      await cluster.refreshMetadata();
      const disks: BrokerDisk[] = [];
      for (const { nodeId } of cluster.brokerPool.metadata?.brokers ?? []) {
        const broker = await cluster.findBroker({ nodeId: String(nodeId) });
        for (const directory of await broker.connectionPool.send(logDirectoriesRequest())) disks.push({ broker: String(nodeId), ...directory });
      }
      return disks;
    });
  }

  commitOffset(group: string, topic: string, partition: number, offset: number): Promise<void> {
    return this.#do(`commit of ${group}`, async (cluster) => {
      const groupId = this.#settings.topicPrefix + group;
      const coordinator = await cluster.findGroupCoordinator({ groupId });
      const topics = [{ topic: this.#settings.topicPrefix + topic, partitions: [{ partition, offset: String(offset), metadata: null }] }];
      await coordinator.offsetCommit({ groupId, groupGenerationId: -1, memberId: '', retentionTime: -1, topics });
    });
  }

  committedOffset(group: string, topic: string, partition: number): Promise<number> {
    return this.#do(`committed offset of ${group}`, async (cluster) => {
      const groupId = this.#settings.topicPrefix + group;
      const coordinator = await cluster.findGroupCoordinator({ groupId });
      const topics = [{ topic: this.#settings.topicPrefix + topic, partitions: [{ partition }] }];
      const { responses } = await coordinator.offsetFetch({ groupId, topics });
      return Number(responses[0]?.partitions[0]?.offset ?? -1);
    });
  }

  async close(): Promise<void> {
    const cluster = this.#cluster;
    this.#cluster = null;
    await cluster?.disconnect().catch(() => undefined);
  }

  /** Always asked of the broker: a topic may have been re-created since. */
  #metadata(topic: string): Promise<TopicMetadata> {
    const name = this.#settings.topicPrefix + topic;
    return this.#do(`metadata of ${topic}`, async (cluster) => {
      const nodeId = await this.#anyNode(cluster, name);
      const broker = await cluster.findBroker({ nodeId });
      return broker.connectionPool.send(metadataRequest(name));
    });
  }

  async #anyNode(cluster: Cluster, topic: string): Promise<string> {
    await cluster.addMultipleTargetTopics([topic]);
    const nodeId = Object.keys(cluster.findLeaderForPartitions(topic, [0]))[0];
    if (nodeId === undefined) await cluster.refreshMetadata();
    return nodeId ?? '0';
  }

  async #leader(cluster: Cluster, topic: string, partition: number) {
    await cluster.addMultipleTargetTopics([topic]);
    const find = () => Object.keys(cluster.findLeaderForPartitions(topic, [partition]))[0];
    if (find() === undefined) await cluster.refreshMetadata();
    return cluster.findBroker({ nodeId: find() ?? '-1' });
  }

  /** What the broker calls retriable (a coordinator that is only just loading) is tried again a few times; the rest is the caller's to decide. */
  async #do<Result>(doing: string, action: (cluster: Cluster) => Promise<Result>): Promise<Result> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await action(await this.#connected());
      } catch (error) {
        await this.#cluster?.refreshMetadata().catch(() => undefined);
        const fault = faultOf(error, 'unavailable', doing);
        if (attempt === attemptsMax || fault.kind !== 'unavailable' || !(error as { retriable?: boolean }).retriable) throw fault;
        await this.#clock.sleep(100 * attempt);
      }
    }
  }

  async #connected(): Promise<Cluster> {
    if (this.#cluster) return this.#cluster;
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = null;
    });
    return this.#connecting;
  }

  async #connect(): Promise<Cluster> {
    const cluster = openCluster(this.#settings, this.#logger);
    await cluster.connect();
    this.#cluster = cluster;
    return cluster;
  }
}
