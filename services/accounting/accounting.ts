/**
 * Accounting: reads topic aggregates, books each partition in order of n, and says how it stands.
 * Where it goes on is in the ledger, written in one transaction with what was booked; the group's offset at the broker is for dashboards.
 */
import type { Ledger, LedgerEntry } from '../../adapters/ledger.ts';
import { type Clock, type Fetched, type Log, LogFault, type Logger, type LogReader, type LogRecord } from '../../adapters/ports.ts';
import type { Digest } from '../../core/aggregate/chain.ts';
import { type Book, type Booking, enter, newBooking } from '../../core/ledger/book.ts';
import { fault, type LedgerFault } from '../../core/ledger/continuity.ts';
import { CorrectionRecords, judgeCorrection, type WholeCorrection } from '../../core/ledger/correction.ts';
import { describe } from '../../core/ledger/counters.ts';
import { healthCodec, outputCodec, UndecodableRecord, UnknownSchema } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';
import type { Health, Output, PartitionHealth } from '../../schemas/types.ts';

export const accountingGroup = 'flowledger-accounting';

const topic = topics.aggregates.name;

/** Long enough to be no load on an idle broker, short enough for a stop to be prompt. */
const pollMs = 250;
const healthIntervalMs = 250;
const retryMs = 500;
const commitIntervalMs = 1_000;

/** Outputs of one transaction: what is booked in some 100 ms, so that health and a stop do not wait longer. */
const outputsPerWriteMax = 5_000;

export interface AccountingParts {
  readonly log: Log;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly digest: Digest;
}

/** What the metrics show of a partition. */
export interface PartitionStatus {
  readonly partition: number;
  book: Book;
  nextOffset: number;
  endOffset: number;
  /** Of the last record taken. */
  appendedMs: number;
  committedOffset: number;
  aggregates: number;
  flows: number;
  bytes: bigint;
  windowsClosed: number;
  windowsUnclosed: number;
  repeated: number;
  corrections: number;
  /** Of a correction that has not been read to its last record. */
  correcting: CorrectionRecords | null;
  fault: LedgerFault | null;
}

/** What became of a piece of a partition's records. */
interface Entered {
  /** How many were taken. */
  readonly taken: number;
  /** Where reading goes on if the process ends now. */
  readonly readTo: number;
  /** The last one taken was the last of this. */
  readonly correction: WholeCorrection | null;
}

export class Accounting {
  readonly #parts: AccountingParts;
  readonly #partitions: PartitionStatus[] = [];
  readonly #incarnation: string;
  readonly #startedMs: number;
  #reader: LogReader | null = null;
  #committedMs = 0;
  #logProblem = 'not connected to the broker yet: see kafka.brokers';
  #stopping = false;
  writes = 0;
  writeFailures = 0;

  constructor(parts: AccountingParts) {
    this.#parts = parts;
    this.#incarnation = parts.clock.unique();
    this.#startedMs = parts.clock.now();
  }

  get partitions(): readonly PartitionStatus[] {
    return this.#partitions;
  }

  /** Of one partition in s: now less the append time of the last record taken, where there are more; else 0. */
  lagMs(status: PartitionStatus): number {
    return status.nextOffset < status.endOffset ? Math.max(0, this.#parts.clock.now() - status.appendedMs) : 0;
  }

  readiness(): { ready: boolean; reasons: string[] } {
    const faults = this.#partitions.flatMap((status) => (status.fault ? [status.fault.message] : []));
    const unclosed = this.#partitions.flatMap(({ partition, windowsUnclosed }) =>
      windowsUnclosed > 0 ? [`partition ${partition}: ${windowsUnclosed} windows do not add up; see "flowledger audit"`] : [],
    );
    const problems = [...(this.#logProblem === '' ? [] : [this.#logProblem]), ...faults];
    return { ready: problems.length === 0, reasons: [...problems, ...unclosed] };
  }

  /** Books until the signal is aborted. @throws LedgerError, and whatever the ledger's file gives */
  async run(signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const ended = AbortSignal.any([signal, stop.signal]);
    const reporting = this.#report(ended);
    try {
      while (!ended.aborted) await this.#step(ended);
    } finally {
      stop.abort();
      await reporting;
      await this.#disconnect();
    }
  }

  async #step(signal: AbortSignal): Promise<void> {
    try {
      this.#reader ??= await this.#connect();
      const fetched = await this.#reader.poll(pollMs);
      this.#logProblem = '';
      await this.#book(fetched, signal);
      await this.#commitOffsets(commitIntervalMs);
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      await this.#afterFault(error, signal);
    }
  }

  async #connect(): Promise<LogReader> {
    const { log, ledger, logger } = this.#parts;
    const topicId = await log.topicId(topic);
    const positions = ledger.open(topicId, await log.partitionCount(topic));
    const unclosed = new Map(ledger.unclosedWindows().map(({ partition, windows }) => [partition, windows]));
    const reader = log.reader('committed');
    for (const { book, nextOffset } of positions) {
      const before = this.#partitions[book.partition];
      const status = before ?? newStatus(book);
      status.book = book;
      status.nextOffset = nextOffset;
      status.correcting = null;
      status.windowsUnclosed = unclosed.get(book.partition) ?? 0;
      this.#partitions[book.partition] = status;
      if (!status.fault) reader.assign(topic, book.partition, nextOffset);
    }
    logger.info({ topicId, partitions: positions.map(({ book, nextOffset }) => ({ n: book.n, nextOffset })) }, 'booking goes on');
    return reader;
  }

  async #disconnect(): Promise<void> {
    const reader = this.#reader;
    this.#reader = null;
    await reader?.close();
  }

  /** The reader is thrown away, and positions are taken from the ledger again: the topic may be another one now. */
  async #afterFault(error: LogFault, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#parts;
    const problem = `topic ${topic} cannot be read: ${error.message}`;
    if (this.#logProblem !== problem) logger.warn({ kind: error.kind, problem }, 'reading waits');
    this.#logProblem = problem;
    if (error.kind === 'out_of_range') await this.#returnIntoRange(error.at?.partition);
    else await this.#disconnect();
    await clock.sleep(retryMs, signal);
  }

  /** Reading the topic from its start again is always safe, since n and chain are checked; outputs that are gone show as a gap. */
  async #returnIntoRange(faulty: number | undefined): Promise<void> {
    for (const status of this.#partitions) {
      try {
        const { startOffset, endOffset } = await this.#parts.log.bounds(topic, status.partition);
        if (status.partition !== faulty && status.nextOffset >= startOffset && status.nextOffset <= endOffset) continue;
        const facts = { partition: status.partition, nextOffset: status.nextOffset, startOffset, endOffset };
        this.#parts.logger.warn(facts, 'position is not in the log: reading from its start');
        status.nextOffset = startOffset;
        status.correcting = null;
        if (!status.fault) this.#reader?.assign(topic, status.partition, startOffset);
      } catch (error) {
        if (!(error instanceof LogFault)) throw error;
      }
    }
  }

  /** One poll can bring what takes seconds to book; between two transactions others have their turn, and a stop is heeded. */
  async #book(fetched: readonly Fetched[], signal: AbortSignal): Promise<void> {
    let entries: LedgerEntry[] = [];
    let outputs = 0;
    for (const { partition, records, nextOffset, endOffset } of fetched) {
      const status = this.#partitions[partition];
      if (!status || status.fault) continue;
      status.endOffset = endOffset;
      if (records.length === 0 && !status.correcting) status.nextOffset = nextOffset;
      for (let from = 0; from < records.length && !status.fault; ) {
        const piece = records.slice(from, from + outputsPerWriteMax - outputs);
        const booking = newBooking(status.book);
        const { taken, readTo, correction } = this.#enterAll(status, booking, piece);
        from += taken;
        outputs += taken;
        const isAll = from === records.length && !status.fault && !status.correcting && !correction;
        entries.push({ booking, nextOffset: isAll ? nextOffset : readTo });
        if (outputs < outputsPerWriteMax && !correction) continue;
        this.#write(entries);
        entries = [];
        outputs = 0;
        if (correction) this.#correct(status, correction, piece[taken - 1]!.offset + 1);
        await this.#parts.clock.sleep(0);
        if (signal.aborted) return;
      }
    }
    this.#write(entries);
  }

  /** Up to a fault, or to the end of a correction. */
  #enterAll(status: PartitionStatus, booking: Booking, records: readonly LogRecord[]): Entered {
    let readTo = status.correcting?.offset ?? status.nextOffset;
    for (const [i, record] of records.entries()) {
      const output = decode(record, booking);
      if ('code' in output) {
        this.#stop(status, output);
        return { taken: i, readTo, correction: null };
      }
      if (output.correction || status.correcting) {
        status.correcting ??= new CorrectionRecords(record.offset);
        readTo = status.correcting.offset;
        const gathered = status.correcting.take(output);
        if (gathered) status.correcting = null;
        if (gathered && 'code' in gathered) this.#stop(status, gathered);
        else if (gathered) return { taken: i + 1, readTo, correction: gathered };
      } else {
        const found = enter(booking, output, this.#parts.digest);
        if (found) this.#stop(status, found);
        else readTo = record.offset + 1;
      }
      if (status.fault) return { taken: i, readTo, correction: null };
      status.appendedMs = record.appendedMs;
    }
    return { taken: records.length, readTo, correction: null };
  }

  /** Upon what is written; nothing of the partition is in hand. */
  #correct(status: PartitionStatus, correction: WholeCorrection, nextOffset: number): void {
    const { ledger, logger, digest } = this.#parts;
    const { partition, fromN, lastN } = correction;
    const verdict = judgeCorrection(status.book, correction);
    if (verdict === 'booked_before') {
      status.repeated++;
      status.nextOffset = nextOffset;
      return;
    }
    const book = verdict === 'next' ? ledger.correct(correction, nextOffset, digest) : verdict;
    if ('code' in book) {
      this.#stop(status, book);
      return;
    }
    status.book = book;
    status.nextOffset = nextOffset;
    status.corrections++;
    status.windowsUnclosed = ledger.unclosedWindows().find((one) => one.partition === partition)?.windows ?? 0;
    logger.warn({ partition, fromN, lastN }, 'what was emitted of a wrong replica is corrected: booked anew from there');
  }

  #stop(status: PartitionStatus, found: LedgerFault): void {
    status.fault = found;
    this.#reader?.unassign(topic, status.partition);
    this.#parts.logger.error(
      { partition: found.partition, n: found.n, code: found.code, fault: found.message },
      'partition is not booked any further',
    );
  }

  /** A booking changes the books in memory only once it is on disk. */
  #write(entries: readonly LedgerEntry[]): void {
    if (entries.length === 0) return;
    try {
      this.#parts.ledger.write(entries);
    } catch (error) {
      this.writeFailures++;
      throw error;
    }
    this.writes++;
    for (const { booking, nextOffset } of entries) this.#noteBooked(this.#partitions[booking.partition]!, booking, nextOffset);
  }

  #noteBooked(status: PartitionStatus, booking: Booking, nextOffset: number): void {
    status.book = booking.book;
    status.nextOffset = nextOffset;
    status.repeated += booking.repeated;
    status.aggregates += booking.aggregates.length;
    for (const { aggregate } of booking.aggregates) {
      status.flows += aggregate.flows;
      status.bytes += aggregate.bytes;
    }
    for (const { n, close, disagreements } of booking.windows) {
      if (disagreements.length === 0) {
        status.windowsClosed++;
        continue;
      }
      status.windowsUnclosed++;
      const { partition } = booking;
      const facts = { partition, n, windowStartMs: close.window_start_ms, open: describe(booking.book.open), disagreements };
      this.#parts.logger.error(facts, 'window does not add up and is not closed');
    }
  }

  async #commitOffsets(everyMs: number): Promise<void> {
    const { clock, log } = this.#parts;
    if (clock.now() - this.#committedMs < everyMs) return;
    this.#committedMs = clock.now();
    for (const status of this.#partitions) {
      if (status.committedOffset === status.nextOffset) continue;
      try {
        await log.commitOffset(accountingGroup, topic, status.partition, status.nextOffset);
        status.committedOffset = status.nextOffset;
      } catch (error) {
        // For dashboards only: reading does not wait for it.
        if (!(error instanceof LogFault)) throw error;
      }
    }
  }

  /** Beside the booking, so that a slow broker never delays it. */
  async #report(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    const writer = log.writer();
    const append = async () => {
      try {
        await writer.append(topics.health.name, 0, [{ key: Buffer.from('accounting/accounting'), value: healthCodec.encode(this.#health()) }]);
      } catch (error) {
        // Whoever reads health sees that it is missing.
        if (!(error instanceof LogFault)) throw error;
      }
    };
    while (!signal.aborted) {
      await append();
      await clock.sleep(healthIntervalMs, signal);
    }
    this.#stopping = true;
    await append();
    await writer.close();
  }

  #health(): Health {
    return {
      role: 'accounting',
      id: 'accounting',
      incarnation: this.#incarnation,
      at_ms: this.#parts.clock.now(),
      started_ms: this.#startedMs,
      stopping: this.#stopping,
      ...this.readiness(),
      partitions: this.#partitions.map((status) => this.#partitionHealth(status)),
      suspicions: [],
      copy: null,
    };
  }

  #partitionHealth(status: PartitionStatus): PartitionHealth {
    const { partition, book, nextOffset, endOffset, fault } = status;
    return {
      partition,
      next_offset: nextOffset,
      end_offset: endOffset,
      lag_ms: this.lagMs(status),
      n: book.n,
      chain: book.chain,
      watermark_ms: book.watermarkMs,
      open_flows: book.open.flows,
      state: fault ? 'stopped' : this.#logProblem === '' ? 'running' : 'starting',
      detail: fault?.message ?? '',
    };
  }
}

function newStatus(book: Book): PartitionStatus {
  return {
    partition: book.partition,
    book,
    nextOffset: 0,
    endOffset: 0,
    appendedMs: 0,
    committedOffset: -1,
    aggregates: 0,
    flows: 0,
    bytes: 0n,
    windowsClosed: 0,
    windowsUnclosed: 0,
    repeated: 0,
    corrections: 0,
    correcting: null,
    fault: null,
  };
}

function decode({ offset, value }: LogRecord, { partition, book }: Booking): Output | LedgerFault {
  const n = book.n + 1;
  if (!value)
    return fault(
      'undecodable',
      partition,
      n,
      `is expected at offset ${offset} of topic aggregates, and the record is empty: only a feed may write there`,
    );
  try {
    return outputCodec.decode(value);
  } catch (error) {
    const found = `is expected at offset ${offset} of topic aggregates: ${(error as Error).message}`;
    if (error instanceof UnknownSchema) return fault('unknown_schema', partition, n, found);
    if (error instanceof UndecodableRecord) return fault('undecodable', partition, n, `${found}. Only a feed may write to topic aggregates`);
    throw error;
  }
}
