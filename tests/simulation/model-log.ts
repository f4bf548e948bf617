/** A broker in memory: Kafka as far as flowledger relies on it, with the faults that flowledger must survive. */
import {
  type BrokerDisk,
  type Fetched,
  type Log,
  type LogBounds,
  LogFault,
  type LogMessage,
  type LogReader,
  type LogRecord,
  type LogWriter,
  type TransactionalWriter,
} from '../../adapters/ports.ts';
import { allTopics } from '../../schemas/topics.ts';
import { type LogFaults, noLogFaults } from './log-faults.ts';
import { type Chance, type ModelClock, ProcessHandle } from './model-clock.ts';

interface Transaction {
  readonly producer: Producer;
  state: 'open' | 'decided' | 'committed' | 'aborted';
  readonly partition: PartitionLog;
  readonly firstOffset: number;
}

interface Producer {
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
}

/** Whoever appends has a copy already. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function undecided(transaction: Transaction | null): boolean {
  return transaction?.state === 'open' || transaction?.state === 'decided';
}

const requestTimeoutMs = 5000;
const transactionTimeoutMs = 30_000;
const activeSegmentRecords = 5;
const messageBytesRefused = 4 * 1024 * 1024;

/** The broker itself. What processes get of it is a Log, by connect(). */
export class ModelBroker {
  readonly clock: ModelClock;
  readonly chance: Chance;
  faults: LogFaults = { ...noLogFaults };
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
    this.#topics.set(name, { id, partitions: Array.from({ length: partitions }, (_, partition) => new PartitionLog(name, partition)) });
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
      appendedMs: this.clock.now(),
      producerId: transaction?.producer.id ?? '',
      marker,
    };
    log.entries.push({ record, transaction, gone: false });
    this.onAppend(log.topic, log.partition, record);
  }

  #wake(log: PartitionLog): void {
    for (const wake of [...log.waiting]) wake();
  }

  #wakeAll(): void {
    for (const { partitions } of this.#topics.values()) for (const log of partitions) this.#wake(log);
  }

  /** InitProducerId: ends what the older epoch had under way, and fences it. */
  openProducer(transactionalId: string): { producer: Producer; epoch: number } {
    let producer = this.#producers.get(transactionalId);
    const current = producer?.current;
    if (current) this.endTransaction(current, current.state === 'decided' ? 'commit' : 'abort');
    if (!producer || this.chance.happens(0.05)) {
      if (producer) producer.epoch = Number.POSITIVE_INFINITY;
      producer = { id: String(this.#nextProducer++), epoch: 0, current: null };
      this.#producers.set(transactionalId, producer);
    }
    producer.epoch++;
    return { producer, epoch: producer.epoch };
  }

  beginTransaction(producer: Producer, log: PartitionLog, messages: readonly LogMessage[]): Transaction {
    const transaction: Transaction = { producer, state: 'open', partition: log, firstOffset: log.endOffset };
    producer.current = transaction;
    this.append(log, messages, transaction);
    this.clock.after(transactionTimeoutMs, () => {
      if (transaction.state !== 'open') return;
      producer.epoch++;
      this.endTransaction(transaction, 'abort');
    });
    return transaction;
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

class ModelLog implements Log {
  readonly #broker: ModelBroker;
  readonly #process: ProcessHandle;

  constructor(broker: ModelBroker, process: ProcessHandle) {
    this.#broker = broker;
    this.#process = process;
  }

  writer(): LogWriter {
    return new ModelWriter(this.#broker, this.#process);
  }

  reader(isolation: 'raw' | 'committed'): LogReader {
    return new ModelReader(this.#broker, this.#process, isolation);
  }

  transactionalWriter(transactionalId: string): TransactionalWriter {
    return new ModelTransactionalWriter(this.#broker, this.#process, transactionalId);
  }

  topicId(topic: string): Promise<string> {
    return this.#ask(() => this.#broker.topic(topic).id);
  }

  partitionCount(topic: string): Promise<number> {
    return this.#ask(() => this.#broker.topic(topic).partitions.length);
  }

  bounds(topic: string, partition: number): Promise<LogBounds> {
    return this.#ask(() => {
      const { startOffset, endOffset } = this.#broker.partition(topic, partition);
      return { startOffset, endOffset };
    });
  }

  offsetAt(topic: string, partition: number, atMs: number): Promise<number> {
    return this.#ask(() => {
      const { entries, startOffset, endOffset } = this.#broker.partition(topic, partition);
      const found = entries.findIndex(({ record }, offset) => offset >= startOffset && record.appendedMs >= atMs);
      return found < 0 ? endOffset : found;
    });
  }

  /** Its answer may be lost, before or after the head was cut. */
  deleteRecords(topic: string, partition: number, beforeOffset: number): Promise<void> {
    const broker = this.#broker;
    return request(broker, this.#process, () => {
      if (broker.strikes('unavailable')) throw new LogFault('unavailable', 'the broker is busy');
      const log = broker.partition(topic, partition);
      if (broker.strikes('unknownLost')) throw new LogFault('unavailable', 'no answer in time');
      if (beforeOffset > log.endOffset) throw new LogFault('out_of_range', `${topic}/${partition} ends at ${log.endOffset}`, { at: log });
      broker.deleteRecords(topic, partition, beforeOffset);
      if (broker.strikes('unknownAppended')) throw new LogFault('unavailable', 'no answer in time');
    });
  }

  disks(): Promise<BrokerDisk[]> {
    return this.#ask(() => [{ broker: '0', path: '/', logBytes: 0, totalBytes: null, usableBytes: null }]);
  }

  commitOffset(group: string, topic: string, partition: number, offset: number): Promise<void> {
    return this.#ask(() => this.#broker.setGroupOffset(group, topic, partition, offset));
  }

  committedOffset(group: string, topic: string, partition: number): Promise<number> {
    return this.#ask(() => this.#broker.groupOffset(group, topic, partition));
  }

  async close(): Promise<void> {
    return undefined;
  }

  #ask<T>(effect: () => T): Promise<T> {
    return request(this.#broker, this.#process, () => {
      if (this.#broker.strikes('readFault')) throw new LogFault('unavailable', 'the broker is busy');
      return effect();
    });
  }
}

/** A call that fails as unavailable where the broker is away when it arrives. */
function request<T>(broker: ModelBroker, process: ProcessHandle, effect: () => T): Promise<T> {
  return process.request(broker.latency(), broker.latency(), () => {
    if (!broker.reachable(process)) throw new LogFault('unavailable', 'the broker is away');
    return effect();
  });
}

class ModelWriter implements LogWriter {
  readonly #broker: ModelBroker;
  readonly #process: ProcessHandle;
  readonly #queues = new Map<string, Promise<unknown>>();
  #closed = false;

  constructor(broker: ModelBroker, process: ProcessHandle) {
    this.#broker = broker;
    this.#process = process;
  }

  append(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number> {
    const copies = messages.map(({ key, value }) => ({ key: key && Buffer.from(key), value: value && Buffer.from(value) }));
    const queue = `${topic}/${partition}`;
    const before = this.#queues.get(queue) ?? Promise.resolve();
    const appended = before.catch(() => undefined).then(() => this.#send(topic, partition, copies));
    this.#queues.set(
      queue,
      appended.catch(() => undefined),
    );
    return appended;
  }

  #send(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number> {
    if (this.#closed) return Promise.reject(new LogFault('unavailable', 'the writer is closed'));
    if (messages.some(({ value }) => (value?.length ?? 0) > messageBytesRefused)) {
      return Promise.reject(new LogFault('refused', 'the message is larger than max.message.bytes'));
    }
    const broker = this.#broker;
    const process = this.#process;
    return process.exchange(broker.latency(), (answer, refuse) => {
      const back = (reply: () => void, ms = broker.latency()) => broker.clock.after(ms, reply);
      const unknown = () => back(() => refuse(new LogFault('unknown', 'no answer in time')), requestTimeoutMs);
      if (!broker.reachable(process) || broker.strikes('unavailable')) return back(() => refuse(new LogFault('unavailable', 'the broker is away')));
      let log: PartitionLog;
      try {
        log = broker.partition(topic, partition);
      } catch (error) {
        return back(() => refuse(error as Error));
      }
      if (broker.strikes('unknownLost')) return unknown();
      if (broker.strikes('unknownLate')) {
        broker.clock.after(broker.laterMs(), () => broker.append(broker.partition(topic, partition), messages, null));
        return unknown();
      }
      if (broker.strikes('swallowed')) return back(() => answer(Math.max(0, log.endOffset - 1)));
      const offset = broker.append(log, messages, null);
      if (broker.strikes('unknownAppended')) return unknown();
      if (broker.strikes('repeated')) broker.clock.after(broker.laterMs(), () => broker.append(broker.partition(topic, partition), messages, null));
      const ms = broker.latency();
      back(() => (broker.reachable(process) ? answer(offset) : refuse(new LogFault('unknown', 'the connection broke'))), ms);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
  }
}

class ModelTransactionalWriter implements TransactionalWriter {
  readonly #broker: ModelBroker;
  readonly #process: ProcessHandle;
  readonly #transactionalId: string;
  #identity: { producer: Producer; epoch: number } | null = null;
  #spoilt = false;

  constructor(broker: ModelBroker, process: ProcessHandle, transactionalId: string) {
    this.#broker = broker;
    this.#process = process;
    this.#transactionalId = transactionalId;
  }

  async open(): Promise<void> {
    this.#identity = await this.#step(() => this.#broker.openProducer(this.#transactionalId));
  }

  async commit(topic: string, partition: number, messages: readonly LogMessage[]): Promise<void> {
    const identity = this.#identity;
    if (!identity || this.#spoilt) throw new LogFault('unavailable', 'the writer is not open');
    const broker = this.#broker;
    const { producer } = identity;
    while (producer.current && producer.current.state === 'decided') await this.#step(() => undefined);
    const transaction = await this.#step(() => {
      this.#checkEpoch(identity);
      if (producer.current) throw new LogFault('unknown', 'a transaction is still under way');
      return broker.beginTransaction(producer, broker.partition(topic, partition), messages);
    });
    await this.#step(() => {
      this.#checkEpoch(identity);
      if (transaction.state !== 'open') throw new LogFault('fenced', 'the transaction was ended by the broker');
      transaction.state = 'decided';
      broker.clock.after(broker.latency(), () => broker.endTransaction(transaction, 'commit'));
    });
  }

  async close(): Promise<void> {
    this.#spoilt = true;
  }

  #checkEpoch(identity: { producer: Producer; epoch: number }): void {
    if (identity.producer.epoch !== identity.epoch) throw new LogFault('fenced', `a newer producer of ${this.#transactionalId} is open`);
  }

  /** One request of the transaction's protocol; its answer may be lost before or after the effect. */
  async #step<T>(effect: () => T): Promise<T> {
    const broker = this.#broker;
    try {
      return await request(broker, this.#process, () => {
        if (broker.strikes('unavailable')) throw new LogFault('unavailable', 'the coordinator is not there');
        if (broker.strikes('unknownLost')) throw new LogFault('unknown', 'no answer in time');
        const result = effect();
        if (broker.strikes('unknownAppended')) throw new LogFault('unknown', 'no answer in time');
        return result;
      });
    } catch (error) {
      this.#spoilt = true;
      throw error;
    }
  }
}

class ModelReader implements LogReader {
  readonly #broker: ModelBroker;
  readonly #process: ProcessHandle;
  readonly #isolation: 'raw' | 'committed';
  readonly #positions = new Map<string, { readonly topic: string; readonly partition: number; offset: number }>();
  #closed = false;
  #wake: () => void = () => undefined;

  constructor(broker: ModelBroker, process: ProcessHandle, isolation: 'raw' | 'committed') {
    this.#broker = broker;
    this.#process = process;
    this.#isolation = isolation;
  }

  assign(topic: string, partition: number, offset: number): void {
    this.#positions.set(`${topic}/${partition}`, { topic, partition, offset });
    this.#wake();
  }

  unassign(topic: string, partition: number): void {
    this.#positions.delete(`${topic}/${partition}`);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake();
  }

  async poll(maxWaitMs: number): Promise<Fetched[]> {
    const broker = this.#broker;
    const fetched = await this.#process.exchange<readonly (readonly [position: object, fetched: Fetched])[]>(broker.latency(), (answer, refuse) => {
      let over = false;
      let callOff: () => void = () => undefined;
      const watched: PartitionLog[] = [];
      const look = (last: boolean) => {
        if (over) return;
        let result: (readonly [object, Fetched])[] = [];
        let fault: unknown;
        try {
          result = this.#fetchAll();
        } catch (error) {
          fault = error;
        }
        if (!fault && !last && !this.#closed && !result.some(([, { records }]) => records.length > 0)) return;
        over = true;
        callOff();
        for (const log of watched) log.waiting.delete(wake);
        broker.clock.after(broker.latency(), () => (fault ? refuse(fault as Error) : answer(result)));
      };
      const wake = () => look(false);
      this.#wake = wake;
      look(broker.chance.happens(0.02)); // A poll may come back early with nothing.
      if (over) return;
      for (const { topic, partition } of this.#positions.values()) watched.push(broker.partition(topic, partition));
      for (const log of watched) log.waiting.add(wake);
      callOff = broker.clock.after(maxWaitMs, () => look(true));
    });
    const current: Fetched[] = [];
    for (const [position, part] of fetched) {
      const held = this.#positions.get(`${part.topic}/${part.partition}`);
      if (held !== position) continue;
      held.offset = part.nextOffset;
      current.push(part);
    }
    return this.#closed ? [] : current;
  }

  #fetchAll(): (readonly [object, Fetched])[] {
    const broker = this.#broker;
    if (this.#closed) return [];
    if (!broker.reachable(this.#process)) throw new LogFault('unavailable', 'the broker is away');
    if (broker.strikes('readFault')) throw new LogFault('unavailable', 'the fetch failed');
    const found: (readonly [object, Fetched])[] = [];
    let fault: unknown;
    for (const position of this.#positions.values()) {
      try {
        found.push([position, this.#fetch(broker.partition(position.topic, position.partition), position.offset)]);
      } catch (error) {
        fault ??= error;
      }
    }
    // What was read of the others is told first, the fault at the next poll.
    if (fault && found.every(([, { records }]) => records.length === 0)) throw fault;
    return found;
  }

  #fetch(log: PartitionLog, from: number): Fetched {
    const { startOffset, endOffset } = log;
    if (from < startOffset || from > endOffset) {
      const { topic, partition } = log;
      throw new LogFault('out_of_range', `offset ${from} of ${topic}/${partition} is not in ${startOffset}..${endOffset}`, {
        at: { topic, partition },
      });
    }
    const limit = this.#broker.chance.integer(1, 200);
    const records: LogRecord[] = [];
    let nextOffset = from;
    for (; nextOffset < endOffset && records.length < limit; nextOffset++) {
      const { record, transaction, gone } = log.entries[nextOffset]!;
      if (gone) continue;
      if (this.#isolation === 'raw') records.push(record);
      else if (undecided(transaction)) break;
      else if (!record.marker && transaction?.state !== 'aborted') records.push(record);
    }
    return { topic: log.topic, partition: log.partition, records, nextOffset, endOffset, startOffset };
  }
}
