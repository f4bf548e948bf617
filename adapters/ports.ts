/** What the service loops ask of the world. The real thing is in this folder, the model in tests/simulation. */

export interface LogMessage {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
}

export interface LogRecord {
  readonly offset: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  /** The broker's append time, Unix time in ms. */
  readonly appendedMs: number;
  /** Which transaction this record belongs to or ends; '' outside of transactions. */
  readonly producerId: string;
  /** A transaction's end marker; a data record has null. Only readers of isolation `raw` see markers. */
  readonly marker: 'commit' | 'abort' | null;
}

export interface Fetched {
  readonly topic: string;
  readonly partition: number;
  readonly records: readonly LogRecord[];
  /** The reader's next offset after these records (markers and aborted records included). */
  readonly nextOffset: number;
  /** End of the log (high watermark) and its first offset when this was read. */
  readonly endOffset: number;
  readonly startOffset: number;
}

/**
 * Every fault of the log, by what must happen next.
 * unavailable: try again later. unknown: it may have been written; nothing may be concluded. fenced: another writer took over; stand by.
 * refused: the broker will never take this message. out_of_range: the reader's offset is not in the log; the reader never resets it itself.
 * missing: no such topic or partition.
 */
export type LogFaultKind = 'unavailable' | 'unknown' | 'fenced' | 'refused' | 'out_of_range' | 'missing';

export class LogFault extends Error {
  readonly kind: LogFaultKind;
  /** The partition that it concerns, where a reader of several must know. */
  readonly at: { readonly topic: string; readonly partition: number } | undefined;
  constructor(kind: LogFaultKind, message: string, options?: ErrorOptions & { at?: { topic: string; partition: number } }) {
    super(message, options);
    this.kind = kind;
    this.at = options?.at;
  }
}

export interface LogReader {
  /** Starts (or moves) reading of a partition at an offset. */
  assign(topic: string, partition: number, offset: number): void;
  unassign(topic: string, partition: number): void;
  /** Waits up to maxWaitMs for records; returns the partitions that have some, and those whose end was learnt. @throws LogFault */
  poll(maxWaitMs: number): Promise<Fetched[]>;
  close(): Promise<void>;
}

export interface LogWriter {
  /**
   * Appends to one partition with acks of all in-sync replicas; returns the offset of the first message.
   * Calls for one partition are carried out one after another. A success is not proof (K1): readers look.
   * After a fault the writer's identity at the broker is thrown away, so that nothing of the failed call can be mistaken for a later one.
   * @throws LogFault
   */
  append(topic: string, partition: number, messages: readonly LogMessage[]): Promise<number>;
  close(): Promise<void>;
}

export interface TransactionalWriter {
  /** Opens a new producer epoch, which fences every older writer of this id. @throws LogFault */
  open(): Promise<void>;
  /** Appends all messages in one transaction and commits it. After a fault the writer is of no more use: open a new one. @throws LogFault */
  commit(topic: string, partition: number, messages: readonly LogMessage[]): Promise<void>;
  close(): Promise<void>;
}

export interface LogBounds {
  readonly startOffset: number;
  readonly endOffset: number;
}

/** One directory in which a broker keeps logs. */
export interface BrokerDisk {
  readonly broker: string;
  readonly path: string;
  /** Of all partitions in it. */
  readonly logBytes: number;
  /** Of its file system, and what of that is free; null where the broker does not tell. */
  readonly totalBytes: number | null;
  readonly usableBytes: number | null;
}

export interface Log {
  writer(): LogWriter;
  /** raw: every record, and the markers. committed: no markers, no records of aborted or open transactions. */
  reader(isolation: 'raw' | 'committed'): LogReader;
  transactionalWriter(transactionalId: string): TransactionalWriter;
  /** The broker's id of the topic: another one after the topic was re-created. @throws LogFault */
  topicId(topic: string): Promise<string>;
  partitionCount(topic: string): Promise<number>;
  bounds(topic: string, partition: number): Promise<LogBounds>;
  /** The offset of the first record that was appended at that time (Unix time in ms) or later; the log's end where there is none. */
  offsetAt(topic: string, partition: number, atMs: number): Promise<number>;
  /**
   * Cuts the head: what lies before the offset is gone for good. A head that is further on already stays as it is.
   * @throws LogFault out_of_range where the log ends before the offset
   */
  deleteRecords(topic: string, partition: number, beforeOffset: number): Promise<void>;
  /** Of every broker. @throws LogFault */
  disks(): Promise<BrokerDisk[]>;
  /** Notes a position for lag dashboards, and as a hint where to start reading. Never a proof of anything. */
  commitOffset(group: string, topic: string, partition: number, offset: number): Promise<void>;
  /** -1 where none was noted. */
  committedOffset(group: string, topic: string, partition: number): Promise<number>;
  close(): Promise<void>;
}

export interface Clock {
  /** Unix time in ms; never goes back. */
  now(): number;
  /** Resolves after ms, or at once when the signal is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** A number in [0, 1). */
  random(): number;
  /** An identifier that no other process and no other call yields: time and randomness. */
  unique(): string;
}

export interface Logger {
  debug(facts: object, message: string): void;
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}
