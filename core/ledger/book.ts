/**
 * The book of one partition: takes outputs in order of n, sums up what they bill, and closes a window when its WindowClose agrees.
 * I7: that is, when the usage and adjustments booked since the last one are those that it names, and, over the partition's whole history,
 * decoded = aggregated + late + rejected + lost + open, in flows, bytes and packets. A window that does not agree is kept, marked, and never
 * counted as closed.
 */
import type { Aggregate, ExporterBalance, Output, WindowClose } from '../../schemas/types.ts';
import type { Digest } from '../aggregate/chain.ts';
import { judge, type LedgerFault, type Standing } from './continuity.ts';
import { add, type Counters, describe, difference, isZero, noCounters } from './counters.ts';
import { addSamples, type SampleDeltas } from './samples.ts';

/** Aggregates since the last WindowClose. */
export interface Unclosed extends Counters {
  aggregates: number;
  /** First start and last end of their windows, Unix time in ms; 0 when there is none. */
  windowStartMs: number;
  windowEndMs: number;
}

/** What has become of a partition's flows since its first output. */
export interface Balance {
  decoded: Counters;
  aggregated: Counters;
  late: Counters;
  rejected: Counters;
  lost: Counters;
}

/** A partition's state; the ledger can compute it anew from its rows. */
export interface Book extends Standing {
  n: number;
  /** In a Buffer, which the codec wants. */
  chain: Uint8Array;
  replacedChain: Uint8Array | null;
  /** n of the last WindowClose; 0 before the first. */
  closeN: number;
  /** End of the last window that a WindowClose named, closed or not. */
  windowEndMs: number;
  watermarkMs: number;
  /** As the last WindowClose says. */
  open: Counters;
  doubts: number;
  usage: Unclosed;
  adjustment: Unclosed;
  balance: Balance;
}

export interface BookedAggregate {
  readonly n: number;
  readonly chain: Uint8Array;
  readonly aggregate: Aggregate;
}

export interface BookedWindow {
  readonly n: number;
  readonly chain: Uint8Array;
  readonly close: WindowClose;
  /** Why the window is not closed; empty when it is. */
  readonly disagreements: readonly string[];
}

/** Outputs of one partition to be written in one piece; applies to a ledger that stands at `previousN` only. */
export interface Booking {
  readonly partition: number;
  readonly previousN: number;
  readonly aggregates: BookedAggregate[];
  readonly windows: BookedWindow[];
  readonly samples: SampleDeltas;
  /** Outputs that were booked before. */
  repeated: number;
  book: Book;
}

export function newBook(partition: number): Book {
  return {
    partition,
    n: 0,
    chain: Buffer.alloc(16),
    replacedChain: null,
    closeN: 0,
    windowEndMs: 0,
    watermarkMs: 0,
    open: noCounters(),
    doubts: 0,
    usage: noneUnclosed(),
    adjustment: noneUnclosed(),
    balance: { decoded: noCounters(), aggregated: noCounters(), late: noCounters(), rejected: noCounters(), lost: noCounters() },
  };
}

export function noneUnclosed(): Unclosed {
  return { aggregates: 0, windowStartMs: 0, windowEndMs: 0, ...noCounters() };
}

/** Starts a booking upon a book, which it leaves as it is: a booking that cannot be written is thrown away. */
export function newBooking(book: Book): Booking {
  return {
    partition: book.partition,
    previousN: book.n,
    aggregates: [],
    windows: [],
    samples: new Map(),
    repeated: 0,
    book: { ...book, usage: { ...book.usage }, adjustment: { ...book.adjustment }, balance: copyBalance(book.balance) },
  };
}

function copyBalance({ decoded, aggregated, late, rejected, lost }: Balance): Balance {
  return { decoded: { ...decoded }, aggregated: { ...aggregated }, late: { ...late }, rejected: { ...rejected }, lost: { ...lost } };
}

/** Takes the next output as read; a fault leaves the booking with what came before it. */
export function enter(booking: Booking, output: Output, digest: Digest): LedgerFault | null {
  const { book } = booking;
  const verdict = judge(book, output, digest);
  if (verdict === 'booked_before') {
    booking.repeated++;
    return null;
  }
  if (verdict !== 'next') return verdict;
  const { n, chain, aggregate, window_close: close } = output;
  if (aggregate) {
    addUnclosed(aggregate.kind === 'usage' ? book.usage : book.adjustment, aggregate);
    addSamples(booking.samples, aggregate);
    booking.aggregates.push({ n, chain, aggregate });
  }
  if (close) booking.windows.push({ n, chain, close, disagreements: closeWindow(book, close, n) });
  book.n = n;
  book.chain = chain;
  book.replacedChain = null;
  return null;
}

function addUnclosed(sum: Unclosed, aggregate: Aggregate): void {
  if (sum.aggregates === 0 || aggregate.window_start_ms < sum.windowStartMs) sum.windowStartMs = aggregate.window_start_ms;
  if (aggregate.window_end_ms > sum.windowEndMs) sum.windowEndMs = aggregate.window_end_ms;
  sum.aggregates++;
  add(sum, aggregate);
}

function closeWindow(book: Book, close: WindowClose, n: number): string[] {
  const given = sumExporters(close.exporters);
  for (const part of ['decoded', 'aggregated', 'late', 'rejected', 'lost'] as const) add(book.balance[part], given[part]);
  book.open = { flows: close.open_flows, bytes: close.open_bytes, packets: close.open_packets };
  const disagreements = [
    ...compareSums('usage', book.usage, close.usage_aggregates, countersOf(close, 'usage')),
    ...compareSums('adjustments', book.adjustment, close.adjustment_aggregates, countersOf(close, 'adjustment')),
    ...compareWindow(book.usage, close),
    ...compareGiven('usage', book.usage, given.aggregated),
    ...compareGiven('adjustments', book.adjustment, given.late),
    ...compareBalance(book.balance, book.open),
  ];
  book.usage = noneUnclosed();
  book.adjustment = noneUnclosed();
  book.closeN = n;
  book.windowEndMs = close.window_end_ms;
  book.watermarkMs = close.watermark_ms;
  book.doubts = close.doubts;
  return disagreements;
}

function countersOf(close: WindowClose, kind: 'usage' | 'adjustment'): Counters {
  return { flows: close[`${kind}_flows`], bytes: close[`${kind}_bytes`], packets: close[`${kind}_packets`] };
}

export function sumExporters(exporters: readonly ExporterBalance[]): Balance {
  const sum: Balance = { decoded: noCounters(), aggregated: noCounters(), late: noCounters(), rejected: noCounters(), lost: noCounters() };
  for (const exporter of exporters) {
    for (const part of ['decoded', 'aggregated', 'late', 'rejected', 'lost'] as const) {
      add(sum[part], { flows: exporter[`${part}_flows`], bytes: exporter[`${part}_bytes`], packets: exporter[`${part}_packets`] });
    }
  }
  return sum;
}

/** By the sums that the close states. */
function compareSums(kind: string, booked: Unclosed, aggregates: number, stated: Counters): string[] {
  if (booked.aggregates === aggregates && isZero(difference(booked, stated))) return [];
  return [`${kind}: booked ${booked.aggregates} aggregates (${describe(booked)}), the close names ${aggregates} (${describe(stated)})`];
}

/** By the exporters of the close: what was given out since the last one. */
function compareGiven(kind: string, booked: Unclosed, given: Counters): string[] {
  if (isZero(difference(booked, given))) return [];
  return [`${kind}: booked ${describe(booked)}, the exporters of the close gave ${describe(given)}`];
}

function compareWindow(usage: Unclosed, close: WindowClose): string[] {
  if (usage.aggregates === 0 || (usage.windowStartMs >= close.window_start_ms && usage.windowEndMs <= close.window_end_ms)) return [];
  return [`usage of ${usage.windowStartMs} to ${usage.windowEndMs} is in front of the close of ${close.window_start_ms} to ${close.window_end_ms}`];
}

/** I7, over the whole history. */
function compareBalance(balance: Balance, open: Counters): string[] {
  const rest = imbalanceOf(balance, open);
  return isZero(rest) ? [] : [`decoded less aggregated, late, rejected, lost and open leaves ${describe(rest)}`];
}

/** What is left of the decoded when everything that became of it is taken off; zero at each WindowClose. */
export function imbalanceOf({ decoded, aggregated, late, rejected, lost }: Balance, open: Counters): Counters {
  return difference(decoded, aggregated, late, rejected, lost, open);
}
