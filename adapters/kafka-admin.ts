/** The administration of topics: what `topics`, `up` and the tests' broker need, and no service loop does. */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Admin } from 'kafkajs';
import { writeAddress } from './config-values.ts';
import { apiVersionsRequest, missingApis, releaseOf } from './kafka/api-versions.ts';
import { faultOf, type KafkaSettings, openClient, openCluster } from './kafka/client.ts';
import type { KafkaConfig } from './kafka.ts';
import { LogFault, type Logger } from './ports.ts';

/** A topic as the broker has it. */
export interface TopicState {
  readonly name: string;
  readonly partitions: number;
  /** Of the partition with the fewest. */
  readonly replication: number;
  /** Every setting in effect, the broker's defaults included. */
  readonly settings: Readonly<Record<string, string>>;
}

export interface NewTopic {
  readonly name: string;
  readonly partitions: number;
  readonly replication: number;
  readonly settings: Readonly<Record<string, string>>;
}

/** What one broker is able to do. */
export interface BrokerAbility {
  readonly broker: string;
  /** Of Apache Kafka: this one or a later one; '' for one that is older than any that can be worked with. */
  readonly release: string;
  /** Requests that we make and it does not take. */
  readonly missing: readonly string[];
}

/** DYNAMIC_TOPIC_CONFIG of Kafka's ConfigSource: set on the topic itself. */
const setOnTopic = 1;
const leadersWithinMs = 30_000;
const askAgainMs = 100;

/** Names are those of schemas/topics.ts; the prefix is put on and taken off here. */
export class KafkaAdmin {
  readonly #prefix: string;
  readonly #admin: Admin;
  readonly #clientSettings: KafkaSettings;
  readonly #logger: Logger;
  #connecting: Promise<void> | null = null;

  /** With `retries` 0 the first refusal is the answer. */
  constructor(config: KafkaConfig, logger: Logger, retries = 5) {
    this.#prefix = config.topic_prefix;
    const settings = {
      brokers: config.brokers.map(writeAddress),
      clientId: config.client_id,
      topicPrefix: config.topic_prefix,
      requestTimeoutMs: config.request_timeout,
    };
    this.#clientSettings = settings;
    this.#logger = logger;
    this.#admin = openClient(settings, logger).admin({ retry: { initialRetryTime: 100, retries } });
  }

  /** Whether a broker answers a metadata request. */
  async reachable(): Promise<boolean> {
    try {
      await this.#connect();
      return (await this.#admin.describeCluster()).brokers.length > 0;
    } catch {
      // Whatever the reason, there is no broker to work with; a connection that failed is opened again at the next call.
      this.#connecting = null;
      return false;
    }
  }

  /** Of every broker of the cluster. @throws LogFault */
  async abilities(): Promise<BrokerAbility[]> {
    const cluster = openCluster(this.#clientSettings, this.#logger);
    try {
      await cluster.connect();
      await cluster.refreshMetadata();
      const abilities: BrokerAbility[] = [];
      for (const { nodeId } of cluster.brokerPool.metadata?.brokers ?? []) {
        const broker = await cluster.findBroker({ nodeId: String(nodeId) });
        const ranges = await broker.connectionPool.send(apiVersionsRequest());
        abilities.push({ broker: String(nodeId), release: releaseOf(ranges), missing: missingApis(ranges) });
      }
      return abilities;
    } catch (error) {
      throw faultOf(error, 'unavailable', 'what the brokers are able to do');
    } finally {
      await cluster.disconnect().catch(() => undefined);
    }
  }

  /** The topics that exist, of those named. @throws LogFault; `missing` where a broker has not heard yet of a topic that another one knows */
  describe(names: readonly string[]): Promise<Map<string, TopicState>> {
    return this.#describe(names).catch((error: unknown) => {
      throw faultOf(error, 'unavailable', 'description of the topics');
    });
  }

  async #describe(names: readonly string[]): Promise<Map<string, TopicState>> {
    await this.#connect();
    const existing = new Set(await this.#admin.listTopics());
    const present = names.filter((name) => existing.has(this.#prefix + name));
    if (present.length === 0) return new Map();
    const { topics } = await this.#admin.fetchTopicMetadata({ topics: present.map((name) => this.#prefix + name) });
    const settings = await this.#settings(present);
    return new Map(
      topics.map(({ name: fullName, partitions }) => {
        const name = fullName.slice(this.#prefix.length);
        const replication = Math.min(...partitions.map((partition) => partition.replicas.length));
        const effective = Object.fromEntries((settings.get(name) ?? []).map((entry) => [entry.configName, entry.configValue]));
        return [name, { name, partitions: partitions.length, replication, settings: effective }];
      }),
    );
  }

  /** Those that are there already are left as they are. Resolves once each partition has a leader. @throws LogFault */
  create(topics: readonly NewTopic[]): Promise<void> {
    return this.#create(topics).catch((error: unknown) => {
      throw faultOf(error, 'unknown', 'creation of the topics');
    });
  }

  async #create(topics: readonly NewTopic[]): Promise<void> {
    if (topics.length === 0) return;
    await this.#connect();
    await this.#admin.createTopics({
      // The client's own wait gives up at a broker that has not heard of the topic yet.
      waitForLeaders: false,
      timeout: leadersWithinMs,
      topics: topics.map(({ name, partitions, replication, settings }) => ({
        topic: this.#prefix + name,
        numPartitions: partitions,
        replicationFactor: replication,
        configEntries: Object.entries(settings).map(([key, value]) => ({ name: key, value })),
      })),
    });
    await this.#leaders(topics.map(({ name }) => this.#prefix + name));
  }

  /** What the controller has made, a broker may hear of later: until then it says that there is no such topic, or that it has no leader. */
  async #leaders(names: readonly string[]): Promise<void> {
    const end = Date.now() + leadersWithinMs;
    for (;;) {
      const missing = await this.#withoutLeader(names).catch((error: unknown) => faultOf(error, 'unavailable', 'wait for the leaders of the topics'));
      if (missing === null) return;
      const retriable = missing.kind === 'missing' || missing.kind === 'unavailable';
      if (!retriable || Date.now() >= end) throw missing;
      await sleep(askAgainMs);
    }
  }

  async #withoutLeader(names: readonly string[]): Promise<LogFault | null> {
    const { topics } = await this.#admin.fetchTopicMetadata({ topics: [...names] });
    const without = topics.filter(({ partitions }) => partitions.some(({ leader }) => leader < 0)).map(({ name }) => name);
    return without.length > 0 ? new LogFault('unavailable', `no leader yet: ${without.join(', ')}`) : null;
  }

  /** The protocol that the client speaks replaces all settings of a topic, so those that are set on it are written again along with the new ones. */
  async alter(name: string, changes: Readonly<Record<string, string>>): Promise<void> {
    await this.#connect();
    const own = ((await this.#settings([name])).get(name) ?? []).filter((entry) => Number(entry.configSource) === setOnTopic);
    const merged = { ...Object.fromEntries(own.map((entry) => [entry.configName, entry.configValue])), ...changes };
    const configEntries = Object.entries(merged).map(([key, value]) => ({ name: key, value }));
    const resources = [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: this.#prefix + name, configEntries }];
    await this.#admin.alterConfigs({ validateOnly: false, resources });
  }

  async close(): Promise<void> {
    await this.#admin.disconnect();
  }

  async #settings(names: readonly string[]) {
    const resources = names.map((name) => ({ type: kafkajs.ConfigResourceTypes.TOPIC, name: this.#prefix + name }));
    const described = await this.#admin.describeConfigs({ includeSynonyms: false, resources });
    return new Map(described.resources.map(({ resourceName, configEntries }) => [resourceName.slice(this.#prefix.length), configEntries]));
  }

  #connect(): Promise<void> {
    this.#connecting ??= this.#admin.connect().catch((error: unknown) => {
      this.#connecting = null;
      throw error;
    });
    return this.#connecting;
  }
}
