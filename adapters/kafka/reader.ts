/**
 * Reads partitions by position, without a group: a restarted reader goes on at once, and only the caller decides where. What is read is asked for
 * by the topic's id, so that a topic that was re-created is a fault, and never read on in.
 */
import type { Clock, Fetched, Logger, LogReader } from '../ports.ts';
import { LogFault } from '../ports.ts';
import { type Cluster, createErrorFromCode, faultOf, type KafkaSettings, openCluster } from './client.ts';
import { committedRecords, decodeRecords } from './records.ts';
import { type FetchPosition, fetchRequest, metadataRequest, type PartitionResponse } from './requests.ts';

const fetchBytesMax = 16 * 1024 * 1024;
const partitionBytesMax = 4 * 1024 * 1024;
/** One broker answers within this even when there is nothing new, so that a moved leader or a new position is noticed. */
const longPollMs = 250;

/** Kafka's errors for a topic id that the broker does not know, or not any more. */
const idErrors = new Set([100, 103]);

interface Position extends FetchPosition {
  /** Something was read of the topic of this id. */
  readonly isRead: boolean;
}

interface InFlight {
  readonly positions: readonly FetchPosition[];
  readonly settled: Promise<void>;
  responses: PartitionResponse[] | null;
  error: unknown;
}

export class KafkaReader implements LogReader {
  readonly #settings: KafkaSettings;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #committed: boolean;
  readonly #positions = new Map<string, Position>();
  /** Ids of topics by full name, as of the last look at the metadata. */
  readonly #ids = new Map<string, string>();
  readonly #inFlight = new Map<string, InFlight>();
  #cluster: Cluster | null = null;
  #stale = true;
  /** A fault of one partition waits here until what was read of the others has been given out. */
  #fault: LogFault | null = null;

  constructor(settings: KafkaSettings, logger: Logger, clock: Clock, isolation: 'raw' | 'committed') {
    this.#settings = settings;
    this.#logger = logger;
    this.#clock = clock;
    this.#committed = isolation === 'committed';
  }

  assign(topic: string, partition: number, offset: number): void {
    const name = this.#settings.topicPrefix + topic;
    if (![...this.#positions.values()].some((position) => position.topic === name)) this.#stale = true;
    this.#positions.set(`${name}/${partition}`, { topic: name, topicId: '', partition, offset, isRead: false });
  }

  unassign(topic: string, partition: number): void {
    this.#positions.delete(`${this.#settings.topicPrefix}${topic}/${partition}`);
  }

  async poll(maxWaitMs: number): Promise<Fetched[]> {
    this.#throwFault();
    if (this.#positions.size === 0) {
      await this.#clock.sleep(maxWaitMs);
      return [];
    }
    try {
      await this.#sendFetches(maxWaitMs);
      await Promise.race([...[...this.#inFlight.values()].map((fetch) => fetch.settled), this.#clock.sleep(maxWaitMs)]);
      return await this.#take();
    } catch (error) {
      this.#stale = true;
      throw faultOf(error, 'unavailable', 'fetch');
    }
  }

  async close(): Promise<void> {
    this.#positions.clear();
    const cluster = this.#cluster;
    this.#cluster = null;
    await cluster?.disconnect().catch(() => undefined);
  }

  async #sendFetches(maxWaitMs: number): Promise<void> {
    const cluster = await this.#connected();
    const byNode = new Map<string, FetchPosition[]>();
    for (const [key, known] of this.#positions) {
      const position = known.topicId ? known : { ...known, topicId: this.#ids.get(known.topic) ?? '' };
      this.#positions.set(key, position);
      const leader = Object.keys(cluster.findLeaderForPartitions(position.topic, [position.partition]))[0];
      if (leader === undefined || Number(leader) < 0)
        throw new LogFault('missing', `${position.topic}/${position.partition} has no leader or does not exist`);
      const positions = byNode.get(leader);
      if (positions) positions.push(position);
      else byNode.set(leader, [position]);
    }
    for (const [nodeId, positions] of byNode) {
      if (!this.#inFlight.has(nodeId)) this.#inFlight.set(nodeId, this.#fetch(cluster, nodeId, rotated(positions, this.#clock.random()), maxWaitMs));
    }
  }

  async #connected(): Promise<Cluster> {
    const cluster = this.#cluster ?? openCluster(this.#settings, this.#logger);
    if (!this.#cluster) {
      await cluster.connect();
      this.#cluster = cluster;
      this.#stale = true;
    }
    if (this.#stale) {
      await cluster.addMultipleTargetTopics([...new Set([...this.#positions.values()].map((position) => position.topic))]);
      await cluster.refreshMetadata();
      await this.#learnIds(cluster);
      this.#stale = false;
    }
    return cluster;
  }

  async #learnIds(cluster: Cluster): Promise<void> {
    for (const topic of new Set([...this.#positions.values()].map((position) => position.topic))) {
      const nodeId = Object.keys(cluster.findLeaderForPartitions(topic, [0]))[0];
      if (nodeId === undefined) throw new LogFault('missing', `${topic} has no leader or does not exist`);
      const { topicId } = await (await cluster.findBroker({ nodeId })).connectionPool.send(metadataRequest(topic));
      this.#ids.set(topic, topicId);
    }
  }

  #fetch(cluster: Cluster, nodeId: string, positions: readonly FetchPosition[], maxWaitMs: number): InFlight {
    const options = { maxWaitMs: Math.min(maxWaitMs, longPollMs), maxBytes: fetchBytesMax, partitionBytesMax, committed: this.#committed };
    const request = async () => (await cluster.findBroker({ nodeId })).connectionPool.send(fetchRequest(positions, options));
    const inFlight: InFlight = {
      positions,
      responses: null,
      error: null,
      settled: request().then(
        (responses) => {
          inFlight.responses = responses;
        },
        (error) => {
          inFlight.error = error;
        },
      ),
    };
    return inFlight;
  }

  async #take(): Promise<Fetched[]> {
    const fetched: Fetched[] = [];
    for (const [nodeId, inFlight] of [...this.#inFlight]) {
      if (!inFlight.responses && !inFlight.error) continue;
      this.#inFlight.delete(nodeId);
      if (inFlight.error) this.#fault = faultOf(inFlight.error, 'unavailable', 'fetch');
      for (const response of inFlight.responses ?? []) {
        const part = await this.#takePartition(inFlight, response);
        if (part) fetched.push(part);
      }
    }
    if (fetched.length === 0) this.#throwFault();
    return fetched;
  }

  #throwFault(): void {
    const fault = this.#fault;
    this.#fault = null;
    if (fault) throw fault;
  }

  async #takePartition(inFlight: InFlight, response: PartitionResponse): Promise<Fetched | null> {
    const key = `${response.topic}/${response.partition}`;
    const position = this.#positions.get(key);
    if (!position || !inFlight.positions.includes(position)) return null; // moved or unassigned meanwhile
    const topic = response.topic.slice(this.#settings.topicPrefix.length);
    const { partition, startOffset, endOffset } = response;
    if (idErrors.has(response.errorCode)) return this.#takeOtherId(key, position, topic);
    if (response.errorCode !== 0) {
      this.#stale = true;
      this.#fault = faultOf(createErrorFromCode(response.errorCode), 'unavailable', `fetch of ${key} at offset ${position.offset}`, {
        topic,
        partition,
      });
      return null;
    }
    const { records, nextOffset } = await decodeRecords(response.records, position.offset);
    this.#positions.set(key, { ...position, offset: nextOffset, isRead: true });
    return { topic, partition, records: this.#committed ? committedRecords(records, response.aborted) : records, nextOffset, endOffset, startOffset };
  }

  /**
   * The broker does not know the topic by its id. It may not have heard of it yet; else the topic is another one: where something was read of it, its
   * offsets say nothing any more; where nothing was, the caller meant the one that is there.
   */
  #takeOtherId(key: string, position: Position, topic: string): null {
    this.#stale = true;
    const now = this.#ids.get(position.topic);
    if (now !== undefined && now !== position.topicId && position.isRead) {
      this.#fault = new LogFault('out_of_range', `${key} is not the log that was read: its topic was re-created`, {
        at: { topic, partition: position.partition },
      });
    } else {
      if (!position.isRead) this.#positions.set(key, { ...position, topicId: '' });
      this.#fault = new LogFault('unavailable', `the broker does not know the topic of ${key}`);
    }
    return null;
  }
}

/** A broker fills its answer in the order asked: starting elsewhere each time keeps a busy partition from starving the others. */
function rotated(positions: readonly FetchPosition[], random: number): FetchPosition[] {
  const start = Math.floor(random * positions.length);
  return [...positions.slice(start), ...positions.slice(0, start)];
}
