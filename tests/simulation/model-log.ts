/** A broker in memory: Kafka as far as flowledger relies on it, with the faults that flowledger must survive. */
import { type Log, LogFault, type LogMessage, type LogRecord } from '../../adapters/ports.ts';
import { allTopics } from '../../schemas/topics.ts';
import { type Chance, type ModelClock, ProcessHandle } from './model-clock.ts';
import { ModelLog } from './model-log-client.ts';

/** Probability of each fault, per request. All 0: a broker that is merely slow. */
export interface LogFaults {
  /** Refused before anything happened. */
  unavailable: number;
  /** Carried out, and the answer is lost. */
  unknownAppended: number;
  /** Lost on the way there. */
  unknownLost: number;
  /** Carried out up to some seconds later, when the client has given up and its connection is gone. */
  unknownLate: number;
  /** A client that reports a success and has sent nothing. */
  swallowed: number;
  /** Carried out, and once more up to some seconds later. */
  repeated: number;
  /** A read fails. */
  readFault: number;
  /** K8: a reader of isolation `committed` gets records of an aborted transaction. */
  leaked: number;
}

export const noLogFaults: LogFaults = {
  unavailable: 0,
  unknownAppended: 0,
  unknownLost: 0,
  unknownLate: 0,
  swallowed: 0,
  repeated: 0,
  readFault: 0,
  leaked: 0,
};

/** What the broker remembers of a producer's last batches in a partition: by these it knows a repeat. */
interface SeenBatch {
  readonly epoch: number;
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly offset: number;
}

/** As Kafka does. */
const batchesSeenMax = 5;
/** producer.id.expiration.ms, much shortened: after it any sequence is accepted. */
const producerExpiryMs = 20_000;

/** One request to append, as it stands on the wire. */
export interface ProduceRequest {
  readonly producerId: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly messages: readonly LogMessage[];
}

export interface Transaction {
  readonly producer: Producer;
  state: 'open' | 'decided' | 'committed' | 'aborted';
  readonly partition: PartitionLog;
}

/** Of a transactional id. */
export interface Producer {
  id: string;
  epoch: number;
  current: Transaction | null;
}

interface Entry {
  readonly record: LogRecord;
  readonly transaction: Transaction | null;
  /** Compaction took it; its offset stays empty. */
  gone: boolean;
}

/** One partition's records; offsets are positions, the head that was cut included. */
export class PartitionLog {
  readonly topic: string;
  readonly partition: number;
  readonly entries: Entry[] = [];
  startOffset = 0;
  readonly waiting = new Set<() => void>();
  readonly #producers = new Map<string, { batches: SeenBatch[]; atMs: number }>();

  constructor(topic: string, partition: number) {
    this.topic = topic;
    this.partition = partition;
  }

  get endOffset(): number {
    return this.entries.length;
  }

  /** Data records that a reader of isolation `committed` gets, from an offset on. */
  *committed(from = 0): Generator<LogRecord> {
    for (let offset = from; offset < this.entries.length; offset++) {
      const entry = this.entries[offset]!;
      if (undecided(entry.transaction)) return;
      if (!entry.record.marker && entry.transaction?.state !== 'aborted') yield entry.record;
    }
  }

  /**
   * As ProducerStateEntry does: a batch of the epoch, first and last sequence of one of the last five is taken for a repeat, whatever it holds, and
   * answered with the offset of that one (K1); anything but the next sequence is refused. Null: to be appended.
   */
  repeated({ producerId, epoch, sequence, messages }: ProduceRequest, nowMs: number): number | null {
    const seen = this.#producers.get(producerId);
    if (!seen || nowMs - seen.atMs > producerExpiryMs) return null;
    const lastSequence = sequence + messages.length - 1;
    const same = seen.batches.find((batch) => batch.epoch === epoch && batch.firstSequence === sequence && batch.lastSequence === lastSequence);
    if (same) return same.offset;
    const last = seen.batches.at(-1);
    if (last && last.epoch === epoch && sequence !== last.lastSequence + 1) {
      throw new LogFault('unknown', `sequence ${sequence} of producer ${producerId} is out of order, ${last.lastSequence + 1} is due`);
    }
    return null;
  }

  noteBatch({ producerId, epoch, sequence, messages }: ProduceRequest, offset: number, nowMs: number): void {
    const batches = this.#producers.get(producerId)?.batches ?? [];
    batches.push({ epoch, firstSequence: sequence, lastSequence: sequence + messages.length - 1, offset });
    this.#producers.set(producerId, { batches: batches.slice(-batchesSeenMax), atMs: nowMs });
  }

  /** An unclean election: another broker's copy, which is shorter, is the log now; what it knew of producers is as old. */
  truncate(from: number): void {
    let endOffset = Math.max(0, Math.min(this.entries.length, from));
    // A transaction that would lose its marker goes as a whole: until the coordinator writes the marker again nobody reads behind it.
    while (endOffset > 0 && this.entries[endOffset - 1]?.transaction && !this.entries[endOffset - 1]?.record.marker) endOffset--;
    this.entries.length = endOffset;
    this.startOffset = Math.min(this.startOffset, this.endOffset);
    for (const [id, { batches, atMs }] of this.#producers) {
      this.#producers.set(id, { batches: batches.filter(({ offset }) => offset < endOffset), atMs });
    }
  }
}

function undecided(transaction: Transaction | null): boolean {
  return transaction?.state === 'open' || transaction?.state === 'decided';
}

const transactionTimeoutMs = 30_000;
const activeSegmentRecords = 5;

/** The broker itself. What processes get of it is a Log, by connect(). */
export class ModelBroker {
  readonly clock: ModelClock;
  readonly chance: Chance;
  faults: LogFaults = { ...noLogFaults };
  /** The client goes on with its producer after a fault: K1 comes of that. */
  isClientCareless = false;
  /** As above, for transactions: KAFKA-17754 comes of that. */
  keepsTransactionalWriter = false;
  /** Off the true time, by jumps. */
  skewMs = 0;
  /** How often each fault happened. */
  readonly counts: Record<string, number> = {};
  /** Called for each record that enters the log, markers included. */
  onAppend: (topic: string, partition: number, record: LogRecord) => void = () => undefined;
  /** Called when a head was cut. */
  onCut: (topic: string, partition: number, from: number) => void = () => undefined;
  readonly #topics = new Map<string, { id: string; partitions: PartitionLog[] }>();
  readonly #producers = new Map<string, Producer>();
  readonly #groupOffsets = new Map<string, number>();
  readonly #cutOff = new Map<ProcessHandle, number>();
  #nextProducer = 1000;
  /** How often a transactional producer was opened. */
  opened = 0;
  #awayUntil = Number.NEGATIVE_INFINITY;

  /** With the topics of schemas/topics.ts. */
  constructor(clock: ModelClock, narsPartitions = 1) {
    this.clock = clock;
    this.chance = clock.chance.fork();
    for (const topic of allTopics) this.createTopic(topic.name, topic.partitions === 'nars' ? narsPartitions : topic.partitions);
  }

  /** Also replaces a topic of that name, with a new id. */
  createTopic(name: string, partitions: number): void {
    const id = `topic-${this.chance.integer(0, 2 ** 32).toString(16)}`;
    const former = this.#topics.get(name);
    this.#topics.set(name, { id, partitions: Array.from({ length: partitions }, (_, partition) => new PartitionLog(name, partition)) });
    for (const log of former?.partitions ?? []) this.#wake(log);
  }

  /** Without a process: for a test's own calls. */
  connect(process: ProcessHandle = new ProcessHandle(this.clock, 'outside')): Log {
    return new ModelLog(this, process);
  }

  /** The broker answers nobody until then. */
  away(ms: number): void {
    this.#awayUntil = this.clock.time + ms;
    this.#wakeAll();
  }

  /** One process does not reach the broker for a while. */
  cutOff(process: ProcessHandle, ms: number): void {
    this.#cutOff.set(process, this.clock.time + ms);
    this.#wakeAll();
  }

  reachable(process: ProcessHandle): boolean {
    return this.clock.time >= this.#awayUntil && this.clock.time >= (this.#cutOff.get(process) ?? this.clock.time);
  }

  /** @throws LogFault */
  partition(topic: string, partition: number): PartitionLog {
    const found = this.#topics.get(topic)?.partitions[partition];
    if (!found) throw new LogFault('missing', `no partition ${partition} of topic ${topic}`, { at: { topic, partition } });
    return found;
  }

  /** @throws LogFault */
  topic(name: string): { readonly id: string; readonly partitions: readonly PartitionLog[] } {
    const topic = this.#topics.get(name);
    if (!topic) throw new LogFault('missing', `no topic ${name}`);
    return topic;
  }

  deleteRecords(topic: string, partition: number, before: number): void {
    const log = this.partition(topic, partition);
    const from = log.startOffset;
    log.startOffset = Math.max(from, Math.min(before, log.endOffset));
    if (log.startOffset > from) this.onCut(topic, partition, from);
    this.#wake(log);
  }

  /** After an unclean election the log has lost its last records. */
  truncate(topic: string, partition: number, records: number): void {
    const log = this.partition(topic, partition);
    log.truncate(log.endOffset - records);
    this.#wake(log);
  }

  /** Keeps the last record of each key, and whatever is among the last few. */
  compact(topic: string): void {
    for (const { entries } of this.topic(topic).partitions) {
      const seen = new Set<string>();
      for (const [index, entry] of [...entries.entries()].reverse()) {
        const key = entry.record.key?.toString('latin1') ?? '';
        if (seen.has(key) && index < entries.length - activeSegmentRecords) entry.gone = true;
        seen.add(key);
      }
    }
  }

  newProducerId(): string {
    return String(this.#nextProducer++);
  }

  /** A produce request outside of transactions arrives. @returns the offset that it is answered with. @throws LogFault */
  produce(log: PartitionLog, request: ProduceRequest): number {
    const now = this.clock.now();
    const repeated = log.repeated(request, now);
    if (repeated !== null) {
      this.count('taken for a repeat');
      return repeated;
    }
    const offset = this.append(log, request.messages, null);
    log.noteBatch(request, offset, now);
    return offset;
  }

  append(log: PartitionLog, messages: readonly LogMessage[], transaction: Transaction | null): number {
    const first = log.endOffset;
    for (const message of messages) this.#push(log, message.key, message.value, transaction, null);
    this.#wake(log);
    return first;
  }

  #push(
    log: PartitionLog,
    key: Uint8Array | null,
    value: Uint8Array | null,
    transaction: Transaction | null,
    marker: 'commit' | 'abort' | null,
  ): void {
    const record: LogRecord = {
      offset: log.endOffset,
      key: key && asBuffer(key),
      value: value && asBuffer(value),
      appendedMs: this.clock.now() + this.skewMs,
      producerId: transaction?.producer.id ?? '',
      marker,
    };
    log.entries.push({ record, transaction, gone: false });
    // A topic that was re-created has another log of that name; what is still written to the former one, nobody sees.
    if (this.#topics.get(log.topic)?.partitions[log.partition] === log) this.onAppend(log.topic, log.partition, record);
  }

  #wake(log: PartitionLog): void {
    for (const wake of [...log.waiting]) wake();
  }

  #wakeAll(): void {
    for (const { partitions } of this.#topics.values()) for (const log of partitions) this.#wake(log);
  }

  /** InitProducerId: ends what the older epoch had under way, and fences it. */
  openProducer(transactionalId: string): { producer: Producer; epoch: number } {
    this.opened++;
    let producer = this.#producers.get(transactionalId);
    const current = producer?.current;
    if (current) this.endTransaction(current, current.state === 'decided' ? 'commit' : 'abort');
    if (!producer || this.chance.happens(0.05)) {
      if (producer) producer.epoch = Number.POSITIVE_INFINITY;
      producer = { id: this.newProducerId(), epoch: 0, current: null };
      this.#producers.set(transactionalId, producer);
    }
    producer.epoch++;
    return { producer, epoch: producer.epoch };
  }

  /** AddPartitionsToTxn. */
  beginTransaction(producer: Producer, log: PartitionLog): void {
    if (producer.current) return;
    const transaction: Transaction = { producer, state: 'open', partition: log };
    producer.current = transaction;
    this.clock.after(transactionTimeoutMs, () => {
      if (transaction.state !== 'open') return;
      producer.epoch++;
      this.endTransaction(transaction, 'abort');
    });
  }

  /** A produce request of a transactional producer arrives: it joins whatever transaction is open, its own or a later one of the same epoch. */
  produceInTransaction(producer: Producer, request: ProduceRequest): void {
    const transaction = producer.current;
    if (transaction?.state !== 'open') throw new LogFault('unknown', 'no transaction is open');
    const { partition } = transaction;
    const now = this.clock.now();
    if (partition.repeated(request, now) !== null) {
      this.count('taken for a repeat');
      return;
    }
    partition.noteBatch(request, partition.endOffset, now);
    this.append(partition, request.messages, transaction);
  }

  /** EndTxn arrives: it commits whatever transaction is open (KAFKA-17754). */
  commitTransaction(producer: Producer): void {
    const transaction = producer.current;
    if (!transaction) throw new LogFault('unknown', 'no transaction is open');
    transaction.state = 'decided';
    this.clock.after(this.latency(), () => this.endTransaction(transaction, 'commit'));
  }

  endTransaction(transaction: Transaction, marker: 'commit' | 'abort'): void {
    if (transaction.state === 'committed' || transaction.state === 'aborted') return;
    transaction.state = marker === 'commit' ? 'committed' : 'aborted';
    if (transaction.producer.current === transaction) transaction.producer.current = null;
    this.#push(transaction.partition, null, null, transaction, marker);
    this.#wake(transaction.partition);
  }

  groupOffset(group: string, topic: string, partition: number): number {
    return this.#groupOffsets.get(`${group}/${topic}/${partition}`) ?? -1;
  }

  setGroupOffset(group: string, topic: string, partition: number, offset: number): void {
    this.#groupOffsets.set(`${group}/${topic}/${partition}`, offset);
  }

  /** They expire, or an operator resets them; to: where, given the log. Null: none is noted any more. */
  resetGroupOffsets(to: (log: PartitionLog) => number | null): void {
    for (const name of [...this.#groupOffsets.keys()]) {
      const [, topic, partition] = name.split('/') as [string, string, string];
      const offset = to(this.partition(topic, Number(partition)));
      if (offset === null) this.#groupOffsets.delete(name);
      else this.#groupOffsets.set(name, offset);
    }
  }

  /** One way over the network, in ms: mostly well below one, rarely a hundred. */
  latency(): number {
    const draw = this.chance.next();
    return draw < 0.98 ? 0.1 + draw : this.chance.integer(5, 120);
  }

  /** Says whether the fault of that name happens now, and counts it. */
  strikes(fault: keyof LogFaults): boolean {
    if (!this.chance.happens(this.faults[fault])) return false;
    this.count(fault);
    return true;
  }

  count(fault: string): void {
    this.counts[fault] = (this.counts[fault] ?? 0) + 1;
  }

  laterMs(): number {
    return this.chance.integer(1, 15_000);
  }
}

/** Whoever appends has a copy already. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
