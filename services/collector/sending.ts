/** From the local copy to the log: one append at a time and partition, several batches in each, only while the other side is there. */
import { type Clock, type Log, LogFault, type Logger, type LogMessage, type LogWriter } from '../../adapters/ports.ts';
import { type Store, StoreFault } from '../../adapters/store.ts';
import type { Gate } from '../../core/buffer/gate.ts';
import type { Ledger, SendItem, SendPlan } from '../../core/buffer/ledger.ts';
import { tombstone, unknownTombstone, withReason } from '../../core/buffer/tombstone.ts';
import { narBatchCodec } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';

export interface SendingParts {
  readonly collector: string;
  readonly partitions: number;
  readonly log: Log;
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ledger: Ledger;
  readonly gate: Gate;
  readonly storeThere: () => boolean;
  readonly storeFailed: (fault: StoreFault) => void;
  /** What Kafka had confirmed of a stream that was found in the store, by `incarnation/partition`. */
  readonly confirmed: Map<string, { sequence: number; topicId: string }>;
}

/** An append is one request: large enough to be worth it, small enough to be repeated. */
const appendMessagesMax = 64;
const appendBytesMax = 2 * 1024 * 1024;

export class Sending {
  readonly #parts: SendingParts;
  readonly #writer: LogWriter;
  readonly #key: Buffer;
  readonly #running = new Set<number>();
  /** Partitions of which the broker refused an append: its batches go one by one, to find out which. */
  readonly #oneByOne = new Set<number>();
  #failure: Error | null = null;
  #hasWarned = false;
  readonly counters = { appends: 0, appendedBytes: 0, faults: { unavailable: 0, unknown: 0, fenced: 0, refused: 0, out_of_range: 0, missing: 0 } };
  /** Why the broker does not count as there. */
  fault = 'the broker was not asked yet';

  constructor(parts: SendingParts) {
    this.#parts = parts;
    this.#writer = parts.log.writer();
    this.#key = Buffer.from(parts.collector);
  }

  /** Sends what there is to send; returns at once. @throws Error when an earlier call went wrong without a fault of the log or the store. */
  pumpAll(): void {
    if (this.#failure) throw this.#failure;
    for (let partition = 0; partition < this.#parts.partitions; partition++) {
      if (this.#running.has(partition)) continue;
      this.#pump(partition).catch((error: Error) => {
        this.#failure = error;
      });
    }
  }

  async #pump(partition: number): Promise<void> {
    const { gate, clock } = this.#parts;
    this.#running.add(partition);
    try {
      while (gate.isOpen(clock.now()) && (await this.#sendNext(partition)));
    } finally {
      this.#running.delete(partition);
    }
  }

  async #sendNext(partition: number): Promise<boolean> {
    const { ledger, storeThere } = this.#parts;
    const messagesMax = this.#oneByOne.has(partition) ? 1 : appendMessagesMax;
    const plan = ledger.plan(partition, { messagesMax, bytesMax: appendBytesMax, storeThere: storeThere() });
    if (!plan) return false;
    try {
      const messages = await this.#messages(plan);
      if (!messages) {
        ledger.failed(plan);
        return true;
      }
      const baseOffset = await this.#writer.append(topics.nars.name, partition, messages);
      ledger.sent(plan, baseOffset, this.#parts.clock.now());
      this.counters.appends++;
      for (const { value } of messages) this.counters.appendedBytes += value?.length ?? 0;
      this.#oneByOne.delete(partition);
      return true;
    } catch (error) {
      return this.#failed(plan, error);
    }
  }

  #failed(plan: SendPlan, error: unknown): boolean {
    const { ledger, gate, logger, storeFailed } = this.#parts;
    if (error instanceof StoreFault) {
      ledger.failed(plan);
      storeFailed(error);
      return false;
    }
    if (!(error instanceof LogFault)) {
      ledger.failed(plan);
      throw error;
    }
    this.counters.faults[error.kind]++;
    const { partition } = plan.stream;
    if (error.kind !== 'refused') {
      ledger.failed(plan);
      if (gate.brokerThere) logger.warn({ partition, fault: error.kind, error: error.message }, 'sending fails: batches stay in the local copy');
      gate.brokerThere = false;
      this.fault = error.message;
      return false;
    }
    const [item] = plan.items;
    if (plan.items.length === 1 && item?.from !== 'totals' && item?.from !== 'unheld') {
      logger.error(
        { partition, sequence: item?.sequence, error: error.message },
        'the broker refuses a batch for good: its loss is reported in its place',
      );
      ledger.refused(plan);
      return true;
    }
    ledger.failed(plan);
    if (this.#oneByOne.has(partition)) {
      gate.brokerThere = false;
      this.fault = `the broker refuses even a batch without NARs: ${error.message}`;
      return false;
    }
    this.#oneByOne.add(partition);
    return true;
  }

  /** null: the store does not have all of it, which the ledger knows now. */
  async #messages(plan: SendPlan): Promise<LogMessage[] | null> {
    const { incarnation, partition } = plan.stream;
    const stored = plan.items.filter((item) => item.from === 'store');
    const read = new Map<number, Uint8Array>();
    const [first] = stored;
    const last = stored[stored.length - 1];
    if (first && last) {
      const entries = await this.#parts.store.read(incarnation, partition, first.sequence, last.sequence - first.sequence + 1);
      for (const { sequence, value } of entries) read.set(sequence, value);
    }
    const messages: LogMessage[] = [];
    for (const item of plan.items) {
      const value =
        item.from === 'value'
          ? (item.kept?.value ?? null)
          : item.from === 'store'
            ? (read.get(item.sequence) ?? null)
            : await this.#tombstone(plan, item);
      if (!value) {
        this.#parts.ledger.gone(plan.stream, item.sequence, item.through);
        return null;
      }
      messages.push({ key: this.#key, value });
    }
    return messages;
  }

  async #tombstone({ stream }: SendPlan, item: SendItem): Promise<Uint8Array | null> {
    const { incarnation, partition, last } = stream;
    const { sequence, through, kept } = item;
    if (item.from === 'unheld') {
      const identity = { collector: this.#parts.collector, incarnation, partition, sequence, through, volatile: stream.volatile };
      return narBatchCodec.encode(unknownTombstone({ ...identity, goodbye: stream.closed && through === last, nars: kept?.nars ?? 0 }));
    }
    if (kept?.refused && kept.value) return narBatchCodec.encode(tombstone(narBatchCodec.decode(kept.value), 'refused_by_broker'));
    const totals =
      kept?.totals ?? (await this.#parts.store.totals(incarnation, partition, sequence, 1)).find((entry) => entry.sequence === sequence)?.totals;
    if (!totals) return null;
    const batch = narBatchCodec.decode(totals);
    const reason = kept?.refused ? 'refused_by_broker' : kept?.place === 'released' && stream.intact ? 'released' : 'store_lost';
    return narBatchCodec.encode(withReason(batch, reason));
  }

  /** Asks the broker whether it is there, and what must be known before anything is sent: the topic's id, its partitions, where they end. */
  async determine(): Promise<void> {
    const { log, ledger, gate, logger, partitions, confirmed } = this.#parts;
    try {
      const topicId = await log.topicId(topics.nars.name);
      const found = await log.partitionCount(topics.nars.name);
      if (found !== partitions) {
        this.fault = `topic nars has ${found} partitions, topics.partitions is ${partitions}: set it to ${found} and restart`;
        if (gate.brokerThere || !this.#hasWarned)
          logger.error({ found, partitions }, 'the number of partitions differs from the configuration: nothing is sent');
        this.#hasWarned = true;
        gate.brokerThere = false;
        return;
      }
      if (ledger.topicId !== '' && ledger.topicId !== topicId) logger.error({ before: ledger.topicId, now: topicId }, 'topic nars was replaced');
      ledger.topic(topicId);
      for (const stream of ledger.awaiting()) {
        const name = `${stream.incarnation}/${stream.partition}`;
        const { endOffset } = await log.bounds(topics.nars.name, stream.partition);
        ledger.logEnd(stream, endOffset, confirmed.get(name) ?? null);
        confirmed.delete(name);
      }
      if (!gate.brokerThere) logger.info({ topicId }, 'the broker is there: batches are sent');
      gate.brokerThere = true;
      this.fault = '';
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      if (gate.brokerThere) logger.warn({ fault: error.kind, error: error.message }, 'the broker is away: batches stay in the local copy');
      gate.brokerThere = false;
      this.fault = error.kind === 'missing' ? 'topic nars is missing: run flowledger topics' : error.message;
    }
  }

  close(): Promise<void> {
    return this.#writer.close();
  }
}
