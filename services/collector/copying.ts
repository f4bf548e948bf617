/**
 * Getting batches into the local copy, wherever that is now: the store, or while it is away the process' memory, under an incarnation of its own
 * whose batches say so. I1: nothing is sent that is not kept here first.
 */
import type { Clock, Logger } from '../../adapters/ports.ts';
import { type Flush, type FlushOutcome, type Store, type StoredBatch, StoreFault } from '../../adapters/store.ts';
import { type Batcher, type CutBatch, cutBatch, refusedBatch } from '../../core/buffer/batcher.ts';
import { entryOverheadBytes, type Ledger } from '../../core/buffer/ledger.ts';
import type { Stream } from '../../core/buffer/stream.ts';
import { emptyBatch } from '../../core/buffer/tombstone.ts';

export interface CopyingOptions {
  readonly collector: string;
  readonly partitions: number;
  readonly storeMax: number;
  readonly storeReserve: number;
  readonly memoryMax: number;
  /** Whoever did not see to its copy for so long may have been taken for dead by then, and its incarnation closed. */
  readonly leaseMs: number;
}

export interface CopyingParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ledger: Ledger;
  readonly batcher: Batcher;
}

/** kept: it is in the copy. again: it was handed back to the batcher under new numbers, take it anew. */
export type CopyOutcome = 'kept' | 'again';

type Positions = readonly (readonly [exporter: string, position: string])[];

/** A flush whose answer did not come: its batches keep their numbers, are kept in memory, and the very same flush is tried again. */
interface Doubt {
  readonly flush: Flush;
}

/** So much is released at once at least, in shares of the bound: each release costs the store a write. */
const releaseShare = 64;
/** Batches that move from memory to the store in one flush. */
const movedAtOnce = 100;
/** NARs are kept again when so large a share of the bound is free. */
const roomShare = 20;

export class Copying {
  readonly #options: CopyingOptions;
  readonly #parts: CopyingParts;
  #mode: 'store' | 'memory' = 'store';
  #incarnation: string;
  #ends: number[];
  #volatile = '';
  #volatileEnds: number[] = [];
  readonly #owned = new Set<string>();
  #doubt: Doubt | null = null;
  /** The store is back, and too full for what is in memory. */
  #awaitsRoom = false;
  #hasReleased = false;
  #attendedMs: number;
  /** The lease has run out since the last flush. */
  #isOverdue = false;
  #leftMs = 0;
  /** A flush to the store is under way; where its streams end is not known meanwhile. */
  #isFlushing = false;
  /** The positions that the store does not have yet. */
  readonly #positions = new Map<string, string>();
  readonly counters = {
    storedBatches: 0,
    storedNars: 0,
    storedBytes: 0,
    volatileBatches: 0,
    volatileNars: 0,
    mismatches: 0,
    storeFaults: 0,
    refusedNars: 0,
  };
  /** Why the store is away, in its own words. */
  fault = '';

  constructor(options: CopyingOptions, parts: CopyingParts) {
    this.#options = options;
    this.#parts = parts;
    this.#incarnation = this.#newIncarnation();
    this.#ends = this.#zeros();
    this.#attendedMs = parts.clock.now();
    parts.batcher.number(this.#incarnation, false, this.#ends);
  }

  get mode(): 'store' | 'memory' {
    return this.#mode;
  }

  /** It can be read from: also while the copy is in memory since there is no room in it. */
  get isStoreThere(): boolean {
    return this.#mode === 'store' || this.#awaitsRoom;
  }

  get #narsMax(): number {
    return this.#options.storeMax - this.#options.storeReserve;
  }

  /** Of the store; the volatile one while the store is away. */
  get incarnation(): string {
    return this.#mode === 'store' ? this.#incarnation : this.#volatile;
  }

  get isInDoubt(): boolean {
    return this.#doubt !== null;
  }

  /** Some time in the life of this process. */
  wasOwn(incarnation: string): boolean {
    return this.#owned.has(incarnation);
  }

  isOwn(incarnation: string): boolean {
    return incarnation === this.#incarnation;
  }

  /**
   * At every turn. G3: another process of this collector says goodbye, under the next number, for what it sees idle; the store tells the owner,
   * unless it went back since. So who stood still gives no further number under its incarnation.
   */
  attend(): void {
    const nowMs = this.#parts.clock.now();
    if (nowMs - this.#attendedMs >= this.#options.leaseMs && this.#ends.some((last) => last > 0)) this.#isOverdue = true;
    this.#attendedMs = nowMs;
  }

  /** The batches hold everything that reaches these positions. */
  async keep(cut: readonly CutBatch[], positions: Positions): Promise<CopyOutcome> {
    for (const [exporter, position] of positions) this.#positions.set(exporter, position);
    if (this.#mode === 'memory') return this.#keepInMemory(cut);
    this.#isFlushing = true;
    try {
      return await this.#keepInStore(cut);
    } finally {
      this.#isFlushing = false;
    }
  }

  async #keepInStore(cut: readonly CutBatch[]): Promise<CopyOutcome> {
    const admitted = await this.#admit(cut);
    if (admitted === null) return 'again';
    this.attend();
    if (this.#isOverdue) {
      this.#parts.logger.warn({ incarnation: this.#incarnation }, 'this process stood still: another one may have closed its incarnation');
      this.#renumber();
      return this.#handBack(admitted);
    }
    const flush: Flush = {
      incarnation: this.#incarnation,
      ends: this.#ends.map((last, partition) => ({ partition, last })),
      batches: admitted,
      positions: [...this.#positions],
    };
    let outcome: FlushOutcome;
    try {
      outcome = await this.#parts.store.flush(flush);
    } catch (error) {
      return this.#notStored(error, flush, admitted);
    }
    if (outcome.kind === 'mismatch') {
      this.#renew(outcome);
      return this.#handBack(admitted);
    }
    this.#stored(flush, admitted);
    return 'kept';
  }

  /** To be numbered anew, for wherever the copy is now. */
  #handBack(cut: readonly CutBatch[]): CopyOutcome {
    if (this.#mode === 'store') this.#parts.batcher.again(cut, this.#incarnation, false, this.#ends);
    else this.#parts.batcher.again(cut, this.#volatile, true, this.#volatileEnds);
    return 'again';
  }

  #stored(flush: Flush, cut: readonly CutBatch[]): void {
    const nowMs = this.#parts.clock.now();
    for (const batch of cut) {
      this.#parts.ledger.keep(this.#parts.ledger.open(flush.incarnation, batch.partition, false), batch, 'store', nowMs);
      this.#ends[batch.partition] = batch.sequence;
      this.#countStored(batch);
    }
    this.#positionsStored(flush);
  }

  #countStored(batch: { value: Uint8Array; nars: number }): void {
    this.counters.storedBatches++;
    this.counters.storedNars += batch.nars;
    this.counters.storedBytes += batch.value.length;
  }

  #positionsStored(flush: Flush): void {
    for (const [exporter, position] of flush.positions) if (this.#positions.get(exporter) === position) this.#positions.delete(exporter);
  }

  #notStored(error: unknown, flush: Flush, cut: readonly CutBatch[]): CopyOutcome {
    if (!(error instanceof StoreFault)) throw error;
    this.leave(error);
    if (error.kind !== 'unknown') return this.#handBack(cut);
    const nowMs = this.#parts.clock.now();
    for (const batch of cut) {
      this.#parts.ledger.keep(this.#parts.ledger.open(flush.incarnation, batch.partition, false), batch, 'memory', nowMs);
      this.#ends[batch.partition] = batch.sequence;
    }
    this.#doubt = { flush };
    return 'kept';
  }

  /** The store failed: from now on the copy is in memory, and says so. */
  leave(error: StoreFault): void {
    this.counters.storeFaults++;
    this.fault = error.message;
    this.#awaitsRoom = false;
    if (this.#mode === 'memory') return;
    this.#parts.logger.warn({ fault: error.kind, error: error.message }, 'the store is away: the local copy is in memory until it is back');
    this.#mode = 'memory';
    this.#leftMs = this.#parts.clock.now();
    this.#volatile = this.#newIncarnation();
    this.#volatileEnds = this.#zeros();
    this.#parts.batcher.refuse(null);
    this.#parts.batcher.number(this.#volatile, true, this.#volatileEnds);
  }

  /** The store does not end where the process left it: it went back, or somebody else writes to it. Numbers must not be given twice (F1, F12). */
  #renew(found: { partition: number; expected: number; found: number }): void {
    this.counters.mismatches++;
    const previous = this.#incarnation;
    this.#renumber();
    const { partition, expected, found: last } = found;
    const facts = { partition, expected, found: last, previous, incarnation: this.#incarnation };
    this.#parts.logger.error(
      facts,
      'the store does not end where this process left it: it was set back, or another process uses the same collector name',
    );
  }

  /** What the incarnation has in the store is sent and closed like any other's. */
  #renumber(): void {
    for (const stream of this.#parts.ledger.streams) {
      if (stream.incarnation !== this.#incarnation) continue;
      stream.own = false;
      stream.changedMs = this.#parts.clock.now();
    }
    this.#incarnation = this.#newIncarnation();
    this.#ends = this.#zeros();
    this.#isOverdue = false;
  }

  /**
   * False at the very end of the reserve: nothing is taken then, not even Losses or ticks. NARs are counted as lost where they arrive, in memory; the
   * exporters' positions stay behind with them, so that even a crash makes the loss no smaller than it is.
   */
  hasRoom(): boolean {
    const { ledger, batcher } = this.#parts;
    const { storeMax, storeReserve, memoryMax } = this.#options;
    if (this.#mode === 'store' ? ledger.bytes.store < storeMax : ledger.bytes.memory < memoryMax + storeReserve) return true;
    batcher.refuse(this.#mode === 'store' ? 'store_full' : 'memory_full');
    return false;
  }

  /** What of a flush may enter the store: all, or its Losses alone. null: the store went away over it. */
  async #admit(cut: readonly CutBatch[]): Promise<readonly CutBatch[] | null> {
    const { ledger, batcher } = this.#parts;
    const { storeMax } = this.#options;
    const narsMax = this.#narsMax;
    if (batcher.refusing && ledger.bytes.store < narsMax - storeMax / roomShare) {
      this.#parts.logger.info({ bytes: ledger.bytes.store }, 'there is room in the store again: NARs are kept');
      batcher.refuse(null);
    }
    const wanted = sizeOf(cut);
    if (ledger.bytes.store + wanted <= narsMax || cut.every((batch) => batch.nars === batch.lost)) return cut;
    try {
      await this.#release(Math.max(wanted, storeMax / releaseShare));
    } catch (error) {
      if (!(error instanceof StoreFault)) throw error;
      this.leave(error);
      this.#handBack(cut);
      return null;
    }
    if (ledger.bytes.store + wanted <= narsMax) return cut;
    return this.#refuse(cut, 'store_full');
  }

  /** At the bound, what Kafka confirmed goes first; its totals stay, so that its tombstone can report the loss should it be missing. */
  async #release(bytes: number): Promise<void> {
    const { ledger, store, logger } = this.#parts;
    const points = ledger.releasable('store', bytes);
    if (points.length === 0) return;
    const release = points.map(({ stream, through }) => ({ incarnation: stream.incarnation, partition: stream.partition, through }));
    await store.settle({ confirmed: [], release, trim: [], drop: [] });
    for (const { stream, through } of points) ledger.released(stream, through, 'store');
    if (!this.#hasReleased)
      logger.error({}, 'the store is at its bound: batches that the broker confirmed are released before both aggregators acknowledged them');
    this.#hasReleased = true;
  }

  #refuse(cut: readonly CutBatch[], reason: 'store_full' | 'memory_full'): readonly CutBatch[] {
    if (!this.#parts.batcher.refusing) this.#parts.logger.error({ reason }, 'the local copy is at its bound: NARs are refused, each counted as lost');
    this.#parts.batcher.refuse(reason);
    for (const batch of cut) this.counters.refusedNars += batch.nars - batch.lost;
    return cut.map((batch) => refusedBatch(batch, reason));
  }

  #keepInMemory(cut: readonly CutBatch[]): CopyOutcome {
    const { ledger, batcher, clock } = this.#parts;
    const { memoryMax } = this.#options;
    const wanted = sizeOf(cut);
    if (batcher.refusing && ledger.bytes.memory < memoryMax - memoryMax / roomShare) batcher.refuse(null);
    let admitted = cut;
    if (ledger.bytes.memory + wanted > memoryMax) {
      for (const { stream, through } of ledger.releasable('memory', Math.max(wanted, memoryMax / releaseShare)))
        ledger.released(stream, through, 'memory');
      if (ledger.bytes.memory + wanted > memoryMax) admitted = this.#refuse(cut, 'memory_full');
    }
    for (const batch of admitted) {
      ledger.keep(ledger.open(this.#volatile, batch.partition, true), batch, 'memory', clock.now());
      this.#volatileEnds[batch.partition] = batch.sequence;
      this.counters.volatileBatches++;
      this.counters.volatileNars += batch.nars;
    }
    return 'kept';
  }

  /**
   * The store answers again, nothing of it is in doubt, and what left it is trimmed there: the volatile incarnation is closed. Not where the store is
   * full: what is in memory stays there, and what is in the store is sent, until there is room. @throws StoreFault when it is away again.
   */
  async returnToStore(): Promise<void> {
    if (this.#mode === 'store' || this.#isFlushing || this.#doubt) return;
    this.#awaitsRoom = !(await this.#moveVolatile());
    if (this.#awaitsRoom) {
      this.fault = 'it answers, and has no room for what came meanwhile';
      return;
    }
    while (this.#positions.size > 0) await this.#storePositions();
    const { ledger, batcher, clock, logger } = this.#parts;
    for (const [partition, last] of this.#volatileEnds.entries()) {
      if (last === 0) continue;
      const identity = {
        collector: this.#options.collector,
        incarnation: this.#volatile,
        partition,
        sequence: last + 1,
        volatile: true,
        goodbye: true,
      };
      const stream = ledger.open(this.#volatile, partition, true);
      ledger.keep(stream, cutBatch(emptyBatch(identity, clock.now())), 'memory', clock.now());
      stream.own = false;
      stream.intact = false;
    }
    // The store's incarnation was idle meanwhile.
    if (clock.now() - this.#leftMs >= this.#options.leaseMs) this.#renumber();
    this.#mode = 'store';
    this.fault = '';
    batcher.refuse(null);
    batcher.number(this.#incarnation, false, this.#ends);
    logger.info({ incarnation: this.#incarnation }, 'the store is back: the local copy is in it again');
  }

  /**
   * Volatile batches of which no aggregator acknowledged any yet enter the store under their own numbers. Of these the log may know nothing, so that
   * nobody would doubt their absence; where some are acknowledged, the fold knows the incarnation and doubts its end without a goodbye (G9).
   * @returns false where the store has no room for all of them
   */
  async #moveVolatile(): Promise<boolean> {
    const { ledger, store } = this.#parts;
    for (let partition = 0; partition < this.#options.partitions; partition++) {
      const stream = ledger.stream(this.#volatile, partition);
      while (stream?.first === 1) {
        const last = (stream.batches.find(({ place }) => place !== 'store')?.sequence ?? stream.last + 1) - 1;
        const batches = this.#movable(stream, last);
        const [next] = batches;
        if (!next) break;
        if (!(await this.#makeRoom(next.size))) return false;
        const moved: StoredBatch[] = [];
        let room = this.#narsMax - ledger.bytes.store;
        for (const { sequence, value, totals, size } of batches) {
          room -= size;
          if (room >= 0) moved.push({ partition, sequence, value, totals, goodbye: false });
        }
        const outcome = await store.flush({ incarnation: this.#volatile, ends: [{ partition, last }], batches: moved, positions: [] });
        // Nobody else writes under this incarnation: what is there already is an earlier attempt.
        const through = outcome.kind === 'mismatch' ? outcome.found : last + moved.length;
        if (through <= last) break;
        for (let sequence = last + 1; sequence <= Math.min(through, stream.last); sequence++) ledger.moved(stream, sequence);
        stream.inStore = true;
      }
    }
    return true;
  }

  /** Those behind a sequence that are in memory with all that they hold. */
  #movable(stream: Stream, last: number): { sequence: number; value: Uint8Array; totals: Uint8Array; size: number }[] {
    const movable: { sequence: number; value: Uint8Array; totals: Uint8Array; size: number }[] = [];
    for (const { sequence, value, totals, size, place } of stream.batches.slice(last, last + movedAtOnce)) {
      if (place !== 'memory' || !value || !totals) break;
      movable.push({ sequence, value, totals, size });
    }
    return movable;
  }

  /** I13: what comes out of memory takes no more of the store than what comes in from outside. */
  async #makeRoom(bytes: number): Promise<boolean> {
    const { ledger } = this.#parts;
    const fits = () => ledger.bytes.store + bytes <= this.#narsMax;
    if (!fits()) await this.#release(Math.max(bytes, this.#options.storeMax / releaseShare));
    return fits();
  }

  /** Before the goodbye, which ends the doubt: from older positions the next process would report as lost what was sent from memory. */
  async #storePositions(): Promise<void> {
    const ends = this.#ends.map((last, partition) => ({ partition, last }));
    const flush: Flush = { incarnation: this.#incarnation, ends, batches: [], positions: [...this.#positions] };
    const outcome = await this.#parts.store.flush(flush);
    if (outcome.kind === 'mismatch') this.#renew(outcome);
    else this.#positionsStored(flush);
  }

  /** Tries the flush again whose answer did not come. @throws StoreFault */
  async settleDoubt(): Promise<void> {
    if (!this.#doubt || this.#isFlushing) return;
    const { flush } = this.#doubt;
    const outcome = await this.#parts.store.flush(flush);
    this.#doubt = null;
    if (outcome.kind === 'mismatch') {
      // The batches stay in memory under their numbers: they are sent from there, and should the store have them after all, it holds the same bytes.
      this.#renew(outcome);
      return;
    }
    for (const batch of flush.batches) {
      const stream = this.#parts.ledger.stream(flush.incarnation, batch.partition);
      if (stream) this.#parts.ledger.moved(stream, batch.sequence);
      this.counters.storedBatches++;
      this.counters.storedBytes += batch.value.length;
    }
    this.#positionsStored(flush);
  }

  #newIncarnation(): string {
    const incarnation = this.#parts.clock.unique();
    this.#owned.add(incarnation);
    return incarnation;
  }

  #zeros(): number[] {
    return new Array<number>(this.#options.partitions).fill(0);
  }
}

function sizeOf(cut: readonly CutBatch[]): number {
  return cut.reduce((bytes, { value, totals }) => bytes + value.length + totals.length + entryOverheadBytes, 0);
}
