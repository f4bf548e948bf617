/** What a process gets of the model broker: the ports, with a client between them that gives up, retries and misreports as real ones do. */
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
import type { ProcessHandle } from './model-clock.ts';
import type { ModelBroker, PartitionLog, ProduceRequest, Producer, Transaction } from './model-log.ts';

const requestTimeoutMs = 5000;
const messageBytesRefused = 4 * 1024 * 1024;

export class ModelLog implements Log {
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

/** A producer of the client, outside of transactions. */
interface Identity {
  readonly id: string;
  /** The next sequence, by partition. */
  readonly sequences: Map<string, number>;
}

/** How often a client sends the very same request before it gives up. */
const attemptsMax = 2;

/** Where a request is, once it has left: what became of it there, and whether the client hears of it. */
type Arrival<T> = { readonly answer: T } | { readonly fault: LogFault };

class ModelWriter implements LogWriter {
  readonly #broker: ModelBroker;
  readonly #process: ProcessHandle;
  readonly #queues = new Map<string, Promise<unknown>>();
  #identity: Identity | null = null;
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

  async close(): Promise<void> {
    this.#closed = true;
  }

  async #send(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number> {
    if (this.#closed) throw new LogFault('unavailable', 'the writer is closed');
    if (messages.some(({ value }) => (value?.length ?? 0) > messageBytesRefused)) {
      throw new LogFault('refused', 'the message is larger than max.message.bytes');
    }
    const broker = this.#broker;
    const identity = this.#identity ?? { id: broker.newProducerId(), sequences: new Map() };
    this.#identity = identity;
    const name = `${topic}/${partition}`;
    const sequence = identity.sequences.get(name) ?? 0;
    const request = { producerId: identity.id, epoch: 0, sequence, messages };
    for (let attempt = 1; ; attempt++) {
      try {
        const offset = await this.#request(topic, partition, request);
        identity.sequences.set(name, sequence + messages.length);
        return offset;
      } catch (error) {
        if (attempt < attemptsMax && isLostAnswer(error)) continue;
        // The sequence stays where it was (K1): with the same producer the next batch may be taken for a repeat of this one.
        if (!broker.isClientCareless) this.#identity = null;
        throw error;
      }
    }
  }

  #request(topic: string, partition: number, request: ProduceRequest): Promise<number> {
    const broker = this.#broker;
    const process = this.#process;
    return process.exchange(broker.latency(), (answer, refuse) => {
      const back = (reply: () => void, ms = broker.latency()) => broker.clock.after(ms, reply);
      const unknown = () => back(() => refuse(new LostAnswer()), requestTimeoutMs / attemptsMax);
      if (!broker.reachable(process) || broker.strikes('unavailable')) return back(() => refuse(new LogFault('unavailable', 'the broker is away')));
      const arrive = (): Arrival<number> => {
        try {
          return { answer: broker.produce(broker.partition(topic, partition), request) };
        } catch (error) {
          return { fault: error as LogFault };
        }
      };
      if (broker.strikes('unknownLost')) return unknown();
      if (broker.strikes('unknownLate')) {
        broker.clock.after(broker.laterMs(), arrive);
        return unknown();
      }
      if (broker.strikes('swallowed')) return back(() => answer(Math.max(0, broker.partition(topic, partition).endOffset - 1)));
      const arrival = arrive();
      if (broker.strikes('unknownAppended')) return unknown();
      // By a client that forgot which producer it was.
      if (broker.strikes('repeated')) {
        broker.clock.after(broker.laterMs(), () => broker.append(broker.partition(topic, partition), request.messages, null));
      }
      back(() => {
        if ('fault' in arrival) refuse(arrival.fault);
        else if (broker.reachable(process)) answer(arrival.answer);
        else refuse(new LogFault('unknown', 'the connection broke'));
      });
    });
  }
}

class LostAnswer extends LogFault {
  constructor() {
    super('unknown', 'no answer in time');
  }
}

function isLostAnswer(error: unknown): boolean {
  return error instanceof LostAnswer;
}

interface Epoch {
  readonly producer: Producer;
  readonly epoch: number;
  sequence: number;
}

/**
 * A transaction is three requests, to two brokers: any of them may be lost, come late, or come twice, in whatever order. The epoch does not change
 * from one transaction to the next (before KIP-890), so what is late is stopped by a newer epoch only.
 */
class ModelTransactionalWriter implements TransactionalWriter {
  readonly #broker: ModelBroker;
  readonly #process: ProcessHandle;
  readonly #transactionalId: string;
  #identity: Epoch | null = null;
  #spoilt = false;

  constructor(broker: ModelBroker, process: ProcessHandle, transactionalId: string) {
    this.#broker = broker;
    this.#process = process;
    this.#transactionalId = transactionalId;
  }

  async open(): Promise<void> {
    const opened = await this.#step(() => this.#broker.openProducer(this.#transactionalId));
    this.#identity = { ...opened, sequence: 0 };
    this.#spoilt = false;
  }

  async commit(topic: string, partition: number, messages: readonly LogMessage[]): Promise<void> {
    const identity = this.#identity;
    if (!identity || this.#spoilt) throw new LogFault('unavailable', 'the writer is not open');
    const broker = this.#broker;
    const { producer } = identity;
    while (producer.current && producer.current.state === 'decided') await this.#step(() => undefined);
    const checked = (effect: () => void) => () => {
      this.#checkEpoch(identity);
      effect();
    };
    await this.#step(checked(() => broker.beginTransaction(producer, broker.partition(topic, partition))));
    const request = { producerId: producer.id, epoch: identity.epoch, sequence: identity.sequence, messages };
    await this.#step(checked(() => broker.produceInTransaction(producer, request)));
    identity.sequence += messages.length;
    await this.#step(checked(() => broker.commitTransaction(producer)));
  }

  async close(): Promise<void> {
    this.#spoilt = true;
  }

  #checkEpoch({ producer, epoch }: Epoch): void {
    if (producer.epoch !== epoch) throw new LogFault('fenced', `a newer producer of ${this.#transactionalId} is open`);
  }

  /** One request of the transaction's protocol. */
  async #step<T>(effect: () => T): Promise<T> {
    const broker = this.#broker;
    try {
      return await request(broker, this.#process, () => {
        if (broker.strikes('unavailable')) throw new LogFault('unavailable', 'the coordinator is not there');
        if (broker.strikes('unknownLost')) throw new LogFault('unknown', 'no answer in time');
        if (broker.strikes('unknownLate')) {
          this.#later(effect);
          throw new LogFault('unknown', 'no answer in time');
        }
        const result = effect();
        if (broker.strikes('repeated')) this.#later(effect);
        if (broker.strikes('unknownAppended')) throw new LogFault('unknown', 'no answer in time');
        return result;
      });
    } catch (error) {
      this.#spoilt = !broker.keepsTransactionalWriter;
      throw error;
    }
  }

  /** Nobody hears what becomes of it. */
  #later(effect: () => unknown): void {
    this.#broker.clock.after(this.#broker.laterMs(), () => {
      try {
        effect();
        this.#broker.count('late request of a transaction');
      } catch (error) {
        if (!(error instanceof LogFault)) throw error;
        this.#broker.count('late request refused');
      }
    });
  }
}

interface ReadPosition {
  readonly topic: string;
  readonly partition: number;
  offset: number;
  /** What was read so far; null before the first time. */
  log: PartitionLog | null;
}

class ModelReader implements LogReader {
  readonly #broker: ModelBroker;
  readonly #process: ProcessHandle;
  readonly #isolation: 'raw' | 'committed';
  readonly #positions = new Map<string, ReadPosition>();
  readonly #leaking = new Map<Transaction, boolean>();
  #closed = false;
  #wake: () => void = () => undefined;

  constructor(broker: ModelBroker, process: ProcessHandle, isolation: 'raw' | 'committed') {
    this.#broker = broker;
    this.#process = process;
    this.#isolation = isolation;
  }

  assign(topic: string, partition: number, offset: number): void {
    this.#positions.set(`${topic}/${partition}`, { topic, partition, offset, log: null });
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
        found.push([position, this.#fetch(this.#logOf(position), position.offset)]);
      } catch (error) {
        fault ??= error;
      }
    }
    // What was read of the others is told first, the fault at the next poll.
    if (fault && found.every(([, { records }]) => records.length === 0)) throw fault;
    return found;
  }

  /** Kafka's readers ask by the topic's id. */
  #logOf(position: ReadPosition): PartitionLog {
    const { topic, partition } = position;
    const log = this.#broker.partition(topic, partition);
    if (position.log && position.log !== log) throw new LogFault('out_of_range', `${topic} was re-created`, { at: { topic, partition } });
    position.log = log;
    return log;
  }

  /** An aborted transaction's records come all or not at all: the client takes note of where it began, or does not. */
  #leaks(transaction: Transaction): boolean {
    const leaks = this.#leaking.get(transaction) ?? this.#broker.strikes('leaked');
    this.#leaking.set(transaction, leaks);
    return leaks;
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
      else if (transaction?.state === 'open' || transaction?.state === 'decided') break;
      else if (!record.marker && (transaction?.state !== 'aborted' || this.#leaks(transaction))) records.push(record);
    }
    return { topic: log.topic, partition: log.partition, records, nextOffset, endOffset, startOffset };
  }
}
