/**
 * The deterministic fold over one partition of nars: step(state, record) -> outputs. No clock, no chance, no dependence on how the log was cut
 * into fetches or where a process restarted. Two folds of the same log are equal to the byte, in their outputs and in their states.
 *
 * A1. Nothing is folded before the log's first base entry, nor before the first configuration (G7).
 * A2. Of each incarnation sequence last + 1 is accepted; what is lower is a duplicate, what is higher a gap, of which nothing is taken (F3, F4).
 * A3. The partition's watermark never goes back; a batch's own counts as at most its append time (F11), and so does the time of reception.
 * A4. Every accepted flow is in exactly one open window or adjustment, and leaves it in exactly one output.
 * A5. A configuration or a schema that this release does not know throws before anything is changed: the replica stops, and never folds on.
 */
import { decodeNarBatchFrame, foldStateCodec, type NarBatchFrame, UndecodableRecord } from '../../schemas/codec.ts';
import { adminCollector } from '../../schemas/topics.ts';
import type { Base, FoldCounts, FoldState, IncarnationSequence, OutputBlock, SnapshotName } from '../../schemas/types.ts';
import { Balance } from './balance.ts';
import { type Digest, emptyChain, sameChain } from './chain.ts';
import { closeWindows } from './close.ts';
import { Incarnations } from './live.ts';
import { NarColumns } from './nar-columns.ts';
import { Outputs } from './outputs.ts';
import { compileSettings, type Settings } from './settings.ts';
import { Windows } from './windows.ts';

export interface FoldRecord {
  readonly offset: number;
  /** The broker's append time, Unix time in ms. */
  readonly appendedMs: number;
  readonly value: Uint8Array | null;
}

export type Outcome = 'accepted' | 'duplicate' | 'gap' | 'before_base' | 'rejected';

export interface Step {
  readonly outcome: Outcome;
  /** Whose batch it was; '' where that is not known. */
  readonly collector: string;
  readonly nars: number;
  /** In order of n. */
  readonly blocks: readonly OutputBlock[];
  /** A snapshot of the state after this record is due, at the same offsets in every replica. */
  readonly snapshotDue: boolean;
}

/** The log's base names a snapshot of the log before it: only `onBase` takes such a record. */
export class SnapshotNeeded extends Error {
  readonly snapshot: SnapshotName;
  constructor(snapshot: SnapshotName) {
    const { replica, topic_id, offset } = snapshot;
    super(`the log begins with the snapshot of replica ${replica} at offset ${offset} of the former log (topic id ${topic_id})`);
    this.snapshot = snapshot;
  }
}

/** Later than any date that a collector's clock can mean, in ms; keeps sums of times exact. */
const timeMsMax = 8.64e15;

export class Fold {
  readonly partition: number;
  #nextOffset = 0;
  #hasBase = false;
  #settings: Settings | null = null;
  #watermarkMs: number | null = null;
  #unknownLosses = 0;
  #counts: FoldCounts = { accepted: 0, duplicate: 0, gap: 0, before_base: 0, rejected: 0, ignored_configs: 0 };
  #incarnations = new Incarnations();
  #windows = new Windows();
  #balance = new Balance();
  /** Of the batch that is being folded. */
  readonly #nars = new NarColumns();
  #outputs: Outputs;

  /** The empty state, before the first record of a log. */
  constructor(partition: number, digest: Digest) {
    this.partition = partition;
    this.#outputs = new Outputs(partition, 0, emptyChain, digest);
  }

  /** @throws UnknownSchema when a newer release wrote the state, UndecodableRecord, UnknownFoldVersion */
  static restore(bytes: Uint8Array, digest: Digest): Fold {
    const state = foldStateCodec.decode(bytes);
    const fold = new Fold(state.partition, digest);
    fold.#nextOffset = state.next_offset;
    fold.#hasBase = state.has_base;
    fold.#settings = state.config && compileSettings(state.config);
    fold.#watermarkMs = state.watermark_ms;
    fold.#unknownLosses = state.unknown_losses;
    fold.#counts = { ...state.counts };
    fold.#incarnations = Incarnations.restore(state.collectors);
    fold.#windows = Windows.restore(state.closed_through_ms, state.open, state.late, state.config?.window_ms ?? 0);
    fold.#balance = Balance.restore(state.exporters);
    fold.#outputs = new Outputs(state.partition, state.n, state.chain, digest);
    return fold;
  }

  /**
   * Goes on behind the base entry of a log that replaced another one, with the state that the base names (F5): n and chain go on, incarnations and
   * windows are kept, offsets are those of the new log. The configuration in force is the state's.
   * @throws SnapshotNeeded when the state is not the one that is named; RangeError when the record is no such base; as `restore`
   */
  static onBase(record: FoldRecord, state: Uint8Array, digest: Digest): Fold {
    const fold = Fold.restore(state, digest);
    const batch = decode(record.value, fold.partition, fold.#nars);
    const snapshot = batch?.collector === adminCollector ? batch.base?.snapshot : null;
    if (!batch || !snapshot) throw new RangeError(`the record at offset ${record.offset} is no base that names a snapshot`);
    if (snapshot.n !== fold.n || !sameChain(snapshot.chain, fold.chain) || snapshot.offset !== fold.#nextOffset) throw new SnapshotNeeded(snapshot);
    const heardMs = Math.min(batch.watermark_ms, record.appendedMs);
    fold.#incarnations.accept(batch, heardMs - (fold.#settings?.config.lateness_ms ?? 0));
    fold.#counts.accepted++;
    fold.#nextOffset = record.offset + 1;
    return fold;
  }

  /** The base entry that a record holds, where it may be the log's first; null for any other record. @throws UnknownSchema */
  static baseIn(record: FoldRecord, partition: number): Base | null {
    const batch = decode(record.value, partition, new NarColumns());
    return batch?.collector === adminCollector && batch.sequence === 1 ? batch.base : null;
  }

  /** Canonical: equal states have equal bytes, in whichever order they came about. */
  serialise(): Buffer {
    const { open, late } = this.#windows.state();
    const state: FoldState = {
      partition: this.partition,
      next_offset: this.#nextOffset,
      n: this.n,
      chain: this.chain,
      has_base: this.#hasBase,
      config: this.#settings?.config ?? null,
      watermark_ms: this.#watermarkMs,
      closed_through_ms: this.#windows.closedThroughMs,
      unknown_losses: this.#unknownLosses,
      counts: this.#counts,
      collectors: this.#incarnations.state(),
      open,
      late,
      exporters: this.#balance.entries(),
    };
    return foldStateCodec.encode(state);
  }

  /** The offset of the next record to fold. */
  get nextOffset(): number {
    return this.#nextOffset;
  }

  get n(): number {
    return this.#outputs.n;
  }

  get chain(): Uint8Array {
    return this.#outputs.chain;
  }

  get watermarkMs(): number | null {
    return this.#watermarkMs;
  }

  get hasBase(): boolean {
    return this.#hasBase;
  }

  /** 0 before the first configuration. */
  get configVersion(): number {
    return this.#settings?.config.version ?? 0;
  }

  /** Whether a snapshot is due after the record at this offset, as far as the present configuration says. */
  isSnapshotDueAfter(offset: number): boolean {
    const every = this.#settings?.config.snapshot_every;
    return this.#hasBase && every !== undefined && (offset + 1) % every === 0;
  }

  /** Flows accepted and in no output yet. */
  get openFlows(): number {
    return this.#windows.open().flows;
  }

  /** Records of the log so far, by what became of them. */
  get counts(): Readonly<FoldCounts> {
    return this.#counts;
  }

  /** All that were heard, those of which nothing was accepted included; sorted. */
  collectors(): string[] {
    return this.#incarnations.names();
  }

  /** What an Ack says of a collector: all its incarnations, sorted. */
  sequences(collector: string): IncarnationSequence[] {
    return this.#incarnations.sequences(collector);
  }

  /** @throws UnknownSchema, UnknownFoldVersion, SnapshotNeeded: nothing was changed, and nothing may be folded by this release any more */
  step(record: FoldRecord): Step {
    if (record.offset < this.#nextOffset) throw new RangeError(`offset ${record.offset} was folded: the next is ${this.#nextOffset}`);
    const batch = decode(record.value, this.partition, this.#nars);
    const outcome = batch ? this.#take(batch, record) : 'rejected';
    this.#nextOffset = record.offset + 1;
    this.#counts[outcome]++;
    return {
      outcome,
      collector: batch?.collector ?? '',
      nars: outcome === 'accepted' && batch ? this.#nars.count : 0,
      blocks: this.#outputs.takeBlocks(),
      snapshotDue: this.isSnapshotDueAfter(record.offset),
    };
  }

  #take(batch: NarBatchFrame, record: FoldRecord): Outcome {
    const isAdmin = batch.collector === adminCollector;
    // A1.
    if (isAdmin ? !this.#hasBase && !batch.base : !this.#hasBase || !this.#settings) return 'before_base';
    // A2.
    const last = this.#incarnations.last(batch.collector, batch.incarnation);
    if (batch.sequence <= last) return 'duplicate';
    if (batch.sequence > last + 1) {
      if (!this.#hasBase) return 'before_base';
      this.#incarnations.hear(batch.collector);
      return 'gap';
    }
    if (isAdmin) this.#administer(batch);
    const heardMs = Math.min(batch.watermark_ms, record.appendedMs); // A3
    this.#incarnations.accept(batch, heardMs - (this.#settings?.config.lateness_ms ?? 0));
    if (this.#settings) this.#account(batch, heardMs, this.#settings, record);
    return 'accepted';
  }

  /** A5: whatever throws here does so before a change. */
  #administer(batch: NarBatchFrame): void {
    const { base, fold_config: config } = batch;
    if (base?.snapshot && !this.#hasBase) throw new SnapshotNeeded(base.snapshot);
    const isNext = config !== null && config.version === this.configVersion + 1;
    const settings = isNext ? compileSettings(config) : null;
    this.#hasBase ||= base !== null;
    if (settings) {
      this.#settings = settings;
      this.#windows.adopt(settings.config.window_ms);
    } else if (config) this.#counts.ignored_configs++;
  }

  #account(batch: NarBatchFrame, heardMs: number, settings: Settings, { offset, appendedMs }: FoldRecord): void {
    const windows = this.#windows;
    const isFirst = windows.closedThroughMs === null;
    const allowedMs = this.#incarnations.watermark(settings.config.live_within_ms);
    if (allowedMs !== null && (this.#watermarkMs === null || allowedMs > this.#watermarkMs)) this.#watermarkMs = allowedMs; // A3
    if (isFirst && this.#watermarkMs !== null) windows.begin(this.#watermarkMs);
    const rejected = windows.add(this.#nars, batch.exporters, settings, appendedMs);
    this.#report(batch, heardMs);
    for (const { report, totals } of rejected) this.#balance.reject(report, totals);
    if (this.#watermarkMs === null) return;
    const doubts = () => this.#unknownLosses + this.#incarnations.doubts(settings.config.live_within_ms);
    const heardIn = (startMs: number, endMs: number) => this.#incarnations.heardIn(startMs, endMs);
    const { config } = settings;
    closeWindows({ windows, balance: this.#balance, outputs: this.#outputs, config, watermarkMs: this.#watermarkMs, offset, doubts, heardIn });
  }

  #report(batch: NarBatchFrame, heardMs: number): void {
    if (batch.exporters.length === 0 && batch.losses.length === 0) return;
    const { coverage } = this.#windows.coverageAt(heardMs);
    for (const report of batch.exporters) {
      this.#balance.report(report);
      coverage.lostOnWireFlows += report.lost_on_wire_flows;
      coverage.lostOnWireDatagrams += report.lost_on_wire_datagrams;
    }
    for (const loss of batch.losses) {
      this.#balance.loss(loss);
      coverage.lostFlows += loss.nars;
      if (loss.unknown) this.#unknownLosses++;
    }
  }
}

/** The batch's NARs are in the columns then. Null for what every release rejects alike (F16). @throws UnknownSchema */
function decode(value: Uint8Array | null, partition: number, nars: NarColumns): NarBatchFrame | null {
  if (value === null) return null;
  try {
    const { frame, narsStart } = decodeNarBatchFrame(value);
    return nars.read(value, narsStart, frame.exporters.length, timeMsMax) && isWellFormed(frame, partition) ? frame : null;
  } catch (error) {
    if (error instanceof UndecodableRecord) return null;
    throw error;
  }
}

function isWellFormed(batch: NarBatchFrame, partition: number): boolean {
  return batch.partition === partition && batch.sequence >= 1 && batch.through >= batch.sequence && batch.watermark_ms >= 0;
}
