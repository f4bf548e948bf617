/** The port of the ledger: what accounting writes, and what usage and audit ask. */

import type { Digest } from '../core/aggregate/chain.ts';
import type { PartitionAccount } from '../core/ledger/audit.ts';
import type { Book, Booking } from '../core/ledger/book.ts';
import type { LedgerFault } from '../core/ledger/continuity.ts';
import type { WholeCorrection } from '../core/ledger/correction.ts';
import type { ExporterBalance } from '../schemas/types.ts';

/** Where accounting goes on in a partition. */
export interface PartitionPosition {
  readonly book: Book;
  /** Of topic aggregates; 0 where the topic is another one than the ledger was written from. */
  readonly nextOffset: number;
}

export interface LedgerEntry {
  readonly booking: Booking;
  /** Of topic aggregates, after the booking's last output. */
  readonly nextOffset: number;
}

/** The books cannot be opened or written; the message names the file and the remedy. */
export class LedgerError extends Error {}

export interface Ledger {
  /** Positions of partitions 0 .. partitions - 1; the books are computed anew from the rows. */
  open(topicId: string, partitions: number): PartitionPosition[];
  /** Writes all entries in one transaction, or none. @throws LedgerError when a booking does not continue what the ledger holds. */
  write(entries: readonly LedgerEntry[]): void;
  /**
   * Books a partition anew from the correction's first n on, in one transaction, or not at all; `nextOffset` as in an entry. Returns the book that
   * comes out. @throws LedgerError when the partition does not stand at its last n
   */
  correct(correction: WholeCorrection, nextOffset: number, digest: Digest): Book | LedgerFault;
  /** Windows whose sums do not agree. */
  unclosedWindows(): { partition: number; windows: number }[];
  /** Reads through the writer's own connection: of a ledger in memory there is no other. */
  view(): LedgerView;
  close(): void;
}

export interface Period {
  /** Unix time in ms; a window counts where it starts in [fromMs, toMs). */
  readonly fromMs: number | null;
  readonly toMs: number | null;
}

export interface UsageSums {
  readonly flows: bigint;
  readonly bytes: bigint;
  readonly packets: bigint;
  readonly scaled_bytes: bigint;
  readonly scaled_packets: bigint;
}

export interface UsageRow extends UsageSums {
  /** First start and last end of the windows in it, Unix time in ms. */
  readonly windowFromMs: number;
  readonly windowToMs: number;
  /** The fields that were asked for. */
  readonly fields: Readonly<Record<string, string>>;
}

/** A correction that was booked. */
export interface BookedCorrection {
  readonly partition: number;
  readonly fromN: number;
  readonly lastN: number;
  /** Outputs that were taken back, or came instead. */
  readonly records: number;
}

export interface AccountUsageRow {
  readonly windowFromMs: number;
  readonly windowToMs: number;
  readonly account: string;
  readonly in: UsageSums;
  readonly out: UsageSums;
  /** Five-minute samples of the row's time, and how many of them are complete. */
  readonly samples: number;
  readonly completeSamples: number;
}

/** Reads a ledger, also while accounting writes it; each call sees the books as they stand between two transactions. */
export interface LedgerView {
  /** Names of the grouping fields in the ledger, in their order. */
  groupFields(): string[];
  /** By grouping fields, `window` and `kind`; ascending by them. */
  usage(by: readonly string[], period: Period): UsageRow[];
  /** From the five-minute samples; by account, and by sample where byWindow is set. */
  accountUsage(byWindow: boolean, period: Period): AccountUsageRow[];
  unclosedWindows(period: Period): number;
  audit(): { partitions: PartitionAccount[]; exporters: ExporterBalance[] };
  chainAt(partition: number, n: number): Uint8Array | null;
  /** In the order in which they were booked. */
  corrections(): BookedCorrection[];
  close(): void;
}
