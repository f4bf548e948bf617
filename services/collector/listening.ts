/** Reads what others say: the replicas' acknowledgments, from the beginning, and the aggregators' health, from now on. */
import { type Clock, type Fetched, type Log, LogFault, type Logger, type LogReader } from '../../adapters/ports.ts';
import type { Gate } from '../../core/buffer/gate.ts';
import type { Ledger } from '../../core/buffer/ledger.ts';
import { ackCodec, healthCodec, UndecodableRecord, UnknownSchema } from '../../schemas/codec.ts';
import { ackPartition, replicas, topics } from '../../schemas/topics.ts';

export interface ListeningParts {
  readonly collector: string;
  readonly partitions: number;
  readonly log: Log;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ledger: Ledger;
  readonly gate: Gate;
  /** Acknowledgments were taken: something may be missing, or trimmed. */
  readonly heard: () => void;
  /** The replicas know an incarnation of this collector. */
  readonly known: (incarnation: string) => void;
}

const pollMs = 250;
const retryMs = 300;
/** What comes within this is read at once: each replica acknowledges ten times a second, and nothing is lost by hearing of several a little later. */
const gatherMs = 100;

export class Listening {
  readonly #parts: ListeningParts;
  readonly #ackPartition: number;
  #reader: LogReader | null = null;
  #isHearing = false;
  readonly counters = { acks: 0, undecodable: 0, faults: 0 };

  constructor(parts: ListeningParts) {
    this.#parts = parts;
    this.#ackPartition = ackPartition(parts.collector);
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const reader = this.#reader ?? (await this.#open());
        for (const fetched of await reader.poll(pollMs)) this.#take(fetched);
        await this.#parts.clock.sleep(gatherMs, signal);
      } catch (error) {
        if (!(error instanceof LogFault)) throw error;
        this.counters.faults++;
        this.#isHearing = false;
        this.#parts.ledger.hearing(null);
        await this.#close();
        await this.#parts.clock.sleep(retryMs, signal);
      }
    }
    await this.#close();
  }

  /** After any fault from the beginning again: the topic is compacted, and the latest word of each replica is what counts. */
  async #open(): Promise<LogReader> {
    const { log } = this.#parts;
    const acks = await log.bounds(topics.acks.name, this.#ackPartition);
    const health = await log.bounds(topics.health.name, 0);
    this.#reader = log.reader('committed');
    this.#reader.assign(topics.acks.name, this.#ackPartition, acks.startOffset);
    this.#reader.assign(topics.health.name, 0, health.endOffset);
    if (acks.endOffset === acks.startOffset) this.#hears();
    return this.#reader;
  }

  #hears(): void {
    if (this.#isHearing) return;
    this.#isHearing = true;
    this.#parts.ledger.hearing(this.#parts.clock.now());
  }

  async #close(): Promise<void> {
    const reader = this.#reader;
    this.#reader = null;
    await reader?.close();
  }

  #take(fetched: Fetched): void {
    for (const { value } of fetched.records) {
      if (!value) continue;
      try {
        if (fetched.topic === topics.health.name) this.#health(value);
        else this.#ack(value);
      } catch (error) {
        // Not for this version to read: it says nothing, and what stays out raises a suspicion.
        if (!(error instanceof UndecodableRecord || error instanceof UnknownSchema)) throw error;
        this.counters.undecodable++;
      }
    }
    if (fetched.topic !== topics.acks.name) return;
    if (fetched.records.length > 0) this.#parts.heard();
    if (fetched.nextOffset >= fetched.endOffset) this.#hears();
  }

  #health(value: Buffer): void {
    const { role, id, stopping } = healthCodec.decode(value);
    if (role === 'aggregator') this.#parts.gate.heard(id, stopping, this.#parts.clock.now());
  }

  #ack(value: Buffer): void {
    const { collector, replica: name, partition, topic_id: topicId, folded_offset: foldedOffset, sequences } = ackCodec.decode(value);
    const replica = replicas.find((one) => one === name);
    if (collector !== this.#parts.collector || !replica || partition >= this.#parts.partitions) return;
    const accepted = new Map(sequences.map(({ incarnation, sequence }) => [incarnation, sequence]));
    this.#parts.ledger.ack({ replica, partition, topicId, foldedOffset, sequences: accepted }, this.#parts.clock.now());
    this.counters.acks++;
    for (const incarnation of accepted.keys()) this.#parts.known(incarnation);
  }
}
