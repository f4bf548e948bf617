/** What the store is to be told after the fact: what Kafka confirmed, what can go, and which streams are over. */
import type { Ledger } from './ledger.ts';
import type { Stream } from './stream.ts';

export interface StreamMark {
  readonly incarnation: string;
  readonly partition: number;
  readonly through: number;
}

export interface ConfirmedThrough {
  readonly incarnation: string;
  readonly partition: number;
  readonly sequence: number;
  readonly offset: number;
  readonly topicId: string;
}

export interface DueSettlement {
  readonly confirmed: readonly ConfirmedThrough[];
  readonly trim: readonly StreamMark[];
  readonly drop: readonly StreamMark[];
}

/** null: nothing is due. Telling the store twice does no harm. */
export function dueSettlement(ledger: Ledger): DueSettlement | null {
  const confirmed: ConfirmedThrough[] = [];
  const trim: StreamMark[] = [];
  const drop: StreamMark[] = [];
  for (const stream of ledger.streams) {
    if (!stream.inStore) continue;
    const { incarnation, partition } = stream;
    const lastSent = stream.at(stream.next - 1);
    if (lastSent && lastSent.sequence > stream.notedThrough && !stream.awaitsLogEnd) {
      confirmed.push({ incarnation, partition, sequence: lastSent.sequence, offset: lastSent.past - 1, topicId: ledger.topicId });
    }
    const through = stream.first - 1;
    if (through > stream.trimmedInStore) trim.push({ incarnation, partition, through });
    if (isOver(stream)) drop.push({ incarnation, partition, through: stream.last });
  }
  return confirmed.length + trim.length + drop.length > 0 ? { confirmed, trim, drop } : null;
}

/** The store did what was due. */
export function noteSettled(ledger: Ledger, settlement: DueSettlement): void {
  for (const { incarnation, partition, sequence } of settlement.confirmed) {
    const stream = ledger.stream(incarnation, partition);
    if (stream) stream.notedThrough = Math.max(stream.notedThrough, sequence);
  }
  for (const { incarnation, partition, through } of settlement.trim) {
    const stream = ledger.stream(incarnation, partition);
    if (stream) stream.trimmedInStore = Math.max(stream.trimmedInStore, through);
  }
  for (const { incarnation, partition } of settlement.drop) {
    const stream = ledger.stream(incarnation, partition);
    if (stream && isOver(stream)) ledger.forget(stream);
  }
}

/** Streams that live in memory alone, said goodbye, and are acknowledged: nothing of them is left to do. */
export function forgetOver(ledger: Ledger): void {
  for (const stream of ledger.streams) {
    if ((!stream.inStore || !stream.intact) && isOver(stream)) ledger.forget(stream);
  }
}

/**
 * Emptied incarnations of others that said no goodbye, and of which nothing was heard for a while: they would hold the watermark back (G3).
 * Should the owner live after all, it finds its stream longer than it left it, and takes a new incarnation.
 */
export function goodbyesDue(ledger: Ledger, nowMs: number, idleMs: number): Stream[] {
  return ledger.streams.filter(
    (stream) => !stream.own && !stream.closed && !stream.awaitsLogEnd && isSettled(stream) && stream.last > 0 && nowMs - stream.changedMs >= idleMs,
  );
}

function isOver(stream: Stream): boolean {
  return !stream.own && stream.closed && isSettled(stream);
}

function isSettled(stream: Stream): boolean {
  return stream.isEmpty && stream.settled === stream.last && stream.next > stream.last;
}
