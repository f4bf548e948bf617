/** The head of a partition of nars: how far it may be cut, and who keeps it from that (DESIGN 3.6). */
import { otherReplica, type Replica, replicas } from '../../schemas/topics.ts';

/**
 * What lies before the result may be deleted. agreedOffset: of the agreed snapshot; historyOffset: of the first record that is within the history.
 * I16: the record before the agreed snapshot's offset stays, since a replica that begins there looks at it (G6).
 */
export function cutBefore(agreedOffset: number, historyOffset: number): number {
  return Math.max(0, Math.min(agreedOffset - 1, historyOffset));
}

export interface HeadFacts {
  /** Of the newest agreed snapshot; 0 without one. */
  readonly agreedOffset: number;
  readonly endOffset: number;
  /** Offset of each replica's newest whole snapshot; 0 without one. */
  readonly newest: Readonly<Record<Replica, number>>;
  /** Append time of the first record that no agreed snapshot covers; null where there is none. */
  readonly uncoveredMs: number | null;
}

/** A replica without which the head cannot move, since when, and how far it and the other one are. */
export interface Holding {
  readonly replica: Replica;
  readonly sinceMs: number;
  readonly offset: number;
  readonly otherOffset: number;
}

/** Those that hold the head back: the one whose snapshots stay behind the other's; both where neither writes any, or where they do not agree. */
export function holdings(facts: HeadFacts, heldAfterMs: number, nowMs: number): Holding[] {
  const { uncoveredMs, newest } = facts;
  if (uncoveredMs === null || facts.endOffset <= facts.agreedOffset || nowMs - uncoveredMs < heldAfterMs) return [];
  return replicas
    .filter((replica) => newest[replica] <= newest[otherReplica(replica)])
    .map((replica) => ({ replica, sinceMs: uncoveredMs, offset: newest[replica], otherOffset: newest[otherReplica(replica)] }));
}
