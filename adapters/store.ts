/**
 * What the collector's loop asks of its local copy. The real thing is redis-store.ts, the model is in tests/simulation.
 *
 * The copy holds, per (incarnation, partition), one stream of batches whose ids are the batch sequences 1, 2, 3 ..., and beside each batch its
 * totals: the bytes of its tombstone. Totals outlive a released batch and go when it is trimmed. A store may go back to an earlier state, or be empty
 * all of a sudden; whoever uses it checks where each stream ends.
 */

export interface StoredBatch {
  readonly partition: number;
  readonly sequence: number;
  /** The Kafka message, byte for byte. */
  readonly value: Uint8Array;
  /** The batch's tombstone, encoded. */
  readonly totals: Uint8Array;
  /** The batch closes its stream. */
  readonly goodbye: boolean;
}

export interface Flush {
  readonly incarnation: string;
  /** Where the process left every stream of the incarnation, those without a batch in this flush too; last is 0 where there is no stream yet. */
  readonly ends: readonly { readonly partition: number; readonly last: number }[];
  /** Per partition in ascending sequence from last + 1 on, without a gap. */
  readonly batches: readonly StoredBatch[];
  /** The exporters' sequence positions that are reached by this flush, opaque here; exporters that are not named keep theirs, an empty one goes. */
  readonly positions: readonly (readonly [exporter: string, position: string])[];
}

/**
 * stored: all of it is on disk. repeated: exactly these batches are the ends of their streams already (an earlier attempt whose answer was lost),
 * nothing was written. mismatch: a stream does not end where it should; nothing was written.
 */
export type FlushOutcome =
  | { readonly kind: 'stored' | 'repeated' }
  | { readonly kind: 'mismatch'; readonly partition: number; readonly expected: number; readonly found: number };

/** Up to this sequence Kafka confirmed the stream, the last of it at this offset of that topic. */
export interface ConfirmedMark {
  readonly incarnation: string;
  readonly partition: number;
  readonly sequence: number;
  readonly offset: number;
  readonly topicId: string;
}

export interface StoredStream {
  readonly incarnation: string;
  readonly partition: number;
  /** Lowest sequence whose totals are there; last + 1 where the stream is empty. */
  readonly first: number;
  /** Lowest sequence whose batch is there; last + 1 where none is. Those from first on and before it are released. */
  readonly firstBatch: number;
  /** The last sequence ever stored, trimmed or not. */
  readonly last: number;
  /** A goodbye was stored. */
  readonly closed: boolean;
  readonly confirmed: ConfirmedMark | null;
}

export interface StoredTotals {
  readonly sequence: number;
  readonly totals: Uint8Array;
  /** Bytes of the batch, also where it is released by now. */
  readonly size: number;
}

export interface StreamPoint {
  readonly incarnation: string;
  readonly partition: number;
  readonly through: number;
}

/** Carried out in the order of the fields, in one step. */
export interface Settlement {
  readonly confirmed: readonly ConfirmedMark[];
  /** Batches up to `through` go, their totals stay. */
  readonly release: readonly StreamPoint[];
  /** Batches and totals up to `through` go; the stream still knows where it ends. */
  readonly trim: readonly StreamPoint[];
  /** The stream goes for good, if it is closed, empty and ends at `through`; otherwise it stays. */
  readonly drop: readonly StreamPoint[];
}

/** A store that is not durable is accepted only as what it is: each doubt says what is set, what it may cost, and the remedy. */
export interface Durability {
  readonly doubts: readonly string[];
}

/**
 * away: not reachable, nothing was done. unknown: it may have been done; nothing may be concluded. full: out of memory, nothing was done.
 * refused: the server does not take it (read-only replica, disk error, no permission), nothing was done.
 */
export type StoreFaultKind = 'away' | 'unknown' | 'full' | 'refused';

export class StoreFault extends Error {
  readonly kind: StoreFaultKind;
  constructor(kind: StoreFaultKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** One collector's local copy. Every method may throw StoreFault. */
export interface Store {
  /** Atomic: either everything is on disk when this returns, or nothing is written. */
  flush(flush: Flush): Promise<FlushOutcome>;
  /** Every stream of this collector, whatever process wrote it. */
  streams(): Promise<StoredStream[]>;
  /** Totals in ascending sequence from `from` on, at most `count`. */
  totals(incarnation: string, partition: number, from: number, count: number): Promise<StoredTotals[]>;
  /** Batches in ascending sequence from `from` on, at most `count`; released and trimmed ones are left out. */
  read(incarnation: string, partition: number, from: number, count: number): Promise<{ readonly sequence: number; readonly value: Uint8Array }[]>;
  settle(settlement: Settlement): Promise<void>;
  /** The exporters' positions as of the last flush that named them. */
  positions(): Promise<Map<string, string>>;
  /**
   * What the decoder knows of each exporter (templates, sampling) as it was last saved, opaque here. It is no part of a flush: a store that lost it
   * costs data sets that wait for their template again, never a record that was decoded.
   */
  templates(): Promise<Map<string, string>>;
  /** null takes the entry away. After a fault some of it may be done. */
  saveTemplates(changes: readonly (readonly [name: string, text: string | null])[]): Promise<void>;
  /** Also tells whether the store is there at all. */
  durability(): Promise<Durability>;
  close(): Promise<void>;
}
