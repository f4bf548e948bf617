/** Reads partitions by position, without a group: a restarted reader goes on at once, and only the caller decides where. */
import type { Clock, Fetched, Logger, LogReader } from '../ports.ts';
import { LogFault } from '../ports.ts';
import { type Cluster, createErrorFromCode, faultOf, type KafkaSettings, openCluster } from './client.ts';
import { committedRecords, decodeRecords } from './records.ts';
import { type FetchPosition, fetchRequest, type PartitionResponse } from './requests.ts';

const fetchBytesMax = 16 * 1024 * 1024;
const partitionBytesMax = 4 * 1024 * 1024;
/** One broker answers within this even when there is nothing new, so that a moved leader or a new position is noticed. */
const longPollMs = 250;

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
  readonly #positions = new Map<string, FetchPosition>();
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
    this.#positions.set(`${name}/${partition}`, { topic: name, partition, offset });
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
    for (const position of this.#positions.values()) {
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
      this.#stale = false;
    }
    return cluster;
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
    if (response.errorCode !== 0) {
      this.#stale = true;
      this.#fault = faultOf(createErrorFromCode(response.errorCode), 'unavailable', `fetch of ${key} at offset ${position.offset}`, {
        topic,
        partition,
      });
      return null;
    }
    const { records, nextOffset } = await decodeRecords(response.records, position.offset);
    this.#positions.set(key, { ...position, offset: nextOffset });
    return { topic, partition, records: this.#committed ? committedRecords(records, response.aborted) : records, nextOffset, endOffset, startOffset };
  }
}

/** A broker fills its answer in the order asked: starting elsewhere each time keeps a busy partition from starving the others. */
function rotated(positions: readonly FetchPosition[], random: number): FetchPosition[] {
  const start = Math.floor(random * positions.length);
  return [...positions.slice(start), ...positions.slice(0, start)];
}
