/**
 * One partition that is being folded. Order of the effects (DESIGN 3.2, F6, F7): outputs written, outputs read back, snapshot where one is due,
 * Ack, commit of the offset (I3). Each waits for what is before it; folding goes on meanwhile, within bounds.
 */
import { type Clock, type Log, LogFault, type Logger, type LogRecord, type LogWriter } from '../../adapters/ports.ts';
import type { Digest } from '../../core/aggregate/chain.ts';
import type { Fold, Step } from '../../core/aggregate/fold.ts';
import type { ReadBack } from '../../core/aggregate/read-back.ts';
import { obsoleteSnapshots } from '../../core/judge/agreement.ts';
import { ackCodec } from '../../schemas/codec.ts';
import { ackPartition, messageBytesMax, outputTopic, type Replica, topics } from '../../schemas/topics.ts';
import { AgreementLog } from '../agreement-log.ts';
import { recordAt } from '../log-records.ts';
import { deleteSnapshots, type Snapshot, type SnapshotMarks, writeSnapshot } from '../snapshots.ts';
import type { AggregatorConfig } from './config.ts';
import { groupOf, type Restored } from './restore.ts';

export type AggregatorSettings = Pick<AggregatorConfig, 'ack_interval' | 'ack_repeat' | 'snapshot_idle' | 'health_interval'>;

export interface AggregatorParts {
  readonly replica: Replica;
  readonly log: Log;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly digest: Digest;
  readonly settings: AggregatorSettings;
}

/** What a partition has done since the process started. */
export interface PartitionCounters {
  nars: number;
  readonly records: Record<Step['outcome'], number>;
  outputs: number;
  rewrittenBlocks: number;
  snapshots: number;
  acks: number;
  faults: number;
  restores: number;
  quarantines: number;
}

/** Folding waits when so much is written and not read back. */
const unreadBytesMax = 64 * 1024 * 1024;
/** What was written and does not come back within this is written again. */
const rewriteAfterMs = 2_000;
const retryMs = 250;
/** Offsets are committed for dashboards only. */
const commitIntervalMs = 1_000;
/** Where the end of the log is read, to tell the lag, when it has been out of reach for this long. */
const probeAfterMs = 1_000;

/**
 * What a replica that repairs itself has to do before it is one again (I15). Until then it writes outputs, and neither snapshots nor Acks.
 * Written, read back and read again by everybody, its verdict ends it.
 */
export interface Probation {
  /** Outputs must be read back up to here: the first that was wrong is right again, so that nothing written late can take its place. */
  readonly untilN: number;
  /** In the own output topic, of the first record of the repair; -1 while there is none. */
  begins: number;
  /** Cuts off all that lies before it, and writes the verdict. */
  readonly end: (begins: number) => Promise<void>;
}

interface Checkpoint {
  readonly offset: number;
  readonly n: number;
  readonly collectors: readonly string[];
  readonly acks: { readonly partition: number; readonly key: Buffer; readonly value: Buffer }[];
}

export class Running {
  readonly fold: Fold;
  readonly readBack: ReadBack;
  readonly topicId: string;
  /** The reader's next offset in the own output topic. */
  outputsOffset: number;
  /** Of nars, as far as it is known. */
  endOffset: number;
  /** Fetched and not folded yet. */
  #queue: LogRecord[] = [];
  readonly #parts: AggregatorParts;
  readonly #writer: LogWriter;
  readonly #counters: PartitionCounters;
  readonly #marks: SnapshotMarks;
  readonly #agreements: AgreementLog;
  /** The last folded record, or the digest of its value where this process has not folded it. */
  #last: { readonly record: LogRecord } | { readonly digest: Uint8Array | null };
  #foldedMs: number;
  #snapshotOffset: number;
  /** Behind the record of the own output topic that brought the tail to where it is; -1 where this process has not seen it. */
  #tailEndOffset = -1;
  #due: Snapshot | null = null;
  /** Behind the record that ends with the due snapshot's n: where a restart from it begins to read. */
  #dueEndOffset = -1;
  #checkpoint: Checkpoint | null = null;
  readonly #heard = new Set<string>();
  readonly #ackedMs = new Map<string, number>();
  #ackMs = Number.NEGATIVE_INFINITY;
  #ackedOffset = -1;
  #commitMs = Number.NEGATIVE_INFINITY;
  #writing = false;
  #settling = false;
  #writeFromMs = 0;
  #settleFromMs = 0;
  #finishing: { readonly acknowledge: boolean } | null = null;
  #behindSinceMs: number | null = null;
  /** Of the last folded record and of the last record of the log; 0 where not known. */
  #appendedMs = 0;
  #endAppendedMs = 0;
  #probing = false;
  #isAbandoned = false;
  #probation: Probation | null;

  constructor(parts: AggregatorParts, writer: LogWriter, counters: PartitionCounters, restored: Restored, probation: Probation | null = null) {
    this.#parts = parts;
    this.#writer = writer;
    this.#counters = counters;
    this.fold = restored.fold;
    this.readBack = restored.readBack;
    this.topicId = restored.topicId;
    this.outputsOffset = restored.outputsOffset;
    this.endOffset = restored.fold.nextOffset;
    this.#marks = restored.marks;
    this.#agreements = new AgreementLog(parts.log);
    this.#last = { digest: restored.recordDigest };
    this.#snapshotOffset = restored.snapshotOffset;
    this.#foldedMs = parts.clock.now();
    this.#probation = probation;
  }

  get isOnProbation(): boolean {
    return this.#probation !== null;
  }

  /** Everybody knows that it is repaired. */
  acquit(): void {
    this.#probation = null;
    this.#settleFromMs = 0;
    this.readBack.isRepaired = true;
  }

  get queued(): number {
    return this.#queue.length;
  }

  enqueue(records: readonly LogRecord[], endOffset: number): void {
    for (const record of records) this.#queue.push(record);
    this.endOffset = endOffset;
  }

  /** They are read again from fold.nextOffset on. */
  dropQueue(): void {
    this.#queue = [];
  }

  get canFold(): boolean {
    return this.#canFoldAt(0);
  }

  #canFoldAt(index: number): boolean {
    const next = this.#queue[index];
    if (!next || this.#finishing || this.readBack.unreadBytes >= unreadBytesMax) return false;
    // A snapshot that is due is never left out, or the replicas would hold different ones.
    return this.#due === null || !this.fold.isSnapshotDueAfter(next.offset);
  }

  /** Folds queued records until their size passes bytesMax. @throws UnknownSchema, UnknownFoldVersion, SnapshotNeeded, NotDeterministic */
  foldSome(bytesMax: number): void {
    let bytes = 0;
    let taken = 0;
    try {
      for (; bytes < bytesMax && this.#canFoldAt(taken); taken++) {
        const record = this.#queue[taken] as LogRecord;
        bytes += record.value?.length ?? 0;
        // The reader may have been moved back to a record that is folded.
        if (record.offset >= this.fold.nextOffset) this.#foldOne(record);
      }
    } finally {
      this.#queue.splice(0, taken);
    }
  }

  #foldOne(record: LogRecord): void {
    const step = this.fold.step(record);
    this.#last = { record };
    this.#appendedMs = record.appendedMs;
    this.#foldedMs = this.#parts.clock.now();
    this.#counters.records[step.outcome]++;
    this.#counters.nars += step.nars;
    if (step.outcome === 'accepted' || step.outcome === 'duplicate' || step.outcome === 'gap') this.#heard.add(step.collector);
    for (const block of step.blocks) {
      this.#counters.outputs += block.outputs.length;
      this.readBack.add(block);
    }
    if (step.snapshotDue && !this.#due && !this.#probation) this.#plan();
  }

  /** Records of the own output topic, in their order. @throws NotDeterministic, UnknownSchema */
  takeOutputs(records: readonly LogRecord[], nextOffset: number): void {
    for (const { offset, value } of records) {
      const before = this.readBack.n;
      this.readBack.take(value, this.#parts.clock.now());
      if (this.readBack.n === before) continue;
      if (this.#probation?.begins === -1) this.#probation.begins = offset;
      this.#tailEndOffset = offset + 1;
      if (this.#due && this.readBack.n === this.#due.n) this.#dueEndOffset = this.#tailEndOffset;
    }
    this.outputsOffset = nextOffset;
  }

  /** Of the value of the last folded record; null before the first. */
  get recordDigest(): Uint8Array | null {
    if ('digest' in this.#last) return this.#last.digest;
    const digest = this.#parts.digest(this.#last.record.value ?? Buffer.alloc(0));
    this.#last = { digest };
    return digest;
  }

  /** A snapshot of the state as it is now, to be written when the outputs up to here are read back. */
  #plan(): void {
    this.#due = this.#snapshot();
    this.#dueEndOffset = this.readBack.n === this.#due.n ? this.#tailEndOffset : -1;
  }

  #snapshot(): Snapshot {
    const { fold, topicId } = this;
    const { partition, nextOffset: offset, n, chain } = fold;
    return { partition, topicId, offset, n, chain, recordDigest: this.recordDigest ?? Buffer.alloc(0), state: fold.serialise() };
  }

  /** Starts whatever is to be written now; nothing is waited for. onFailure: this partition cannot go on. */
  work(onFailure: (error: unknown) => void): void {
    const now = this.#parts.clock.now();
    if (!this.#writing && now >= this.#writeFromMs) {
      if (this.readBack.isMissing(this.outputsOffset, now, rewriteAfterMs)) this.#counters.rewrittenBlocks += this.readBack.resend();
      if (this.readBack.unsent(1).length > 0) {
        this.#writing = true;
        this.#write()
          .catch(onFailure)
          .finally(() => {
            this.#writing = false;
          });
      }
    }
    if (!this.#settling && now >= this.#settleFromMs) {
      if (!this.#probation) this.#prepare(now);
      if (this.#isProbationOver() || this.#isSnapshotReady() || this.#isCheckpointReady()) {
        this.#settling = true;
        this.#settle()
          .catch(onFailure)
          .finally(() => {
            this.#settling = false;
          });
      }
    }
  }

  #isProbationOver(): boolean {
    return this.#probation !== null && this.#probation.begins >= 0 && this.readBack.n >= this.#probation.untilN;
  }

  async #write(): Promise<void> {
    const { name: topic } = outputTopic(this.#parts.replica);
    const { partition } = this.fold;
    while (!this.#isAbandoned) {
      const blocks = this.readBack.unsent(messageBytesMax);
      if (blocks.length === 0) return;
      const key = Buffer.from(String(partition));
      // Handed over before the answer, since it may be read back before that comes.
      this.readBack.sent(blocks, null, this.#parts.clock.now());
      try {
        const offset = await this.#writer.append(
          topic,
          partition,
          blocks.map(({ bytes }) => ({ key, value: bytes })),
        );
        this.readBack.sent(blocks, offset < 0 ? null : offset + blocks.length, this.#parts.clock.now());
      } catch (error) {
        if (!(error instanceof LogFault) || error.kind === 'refused') throw error;
        this.#counters.faults++;
        this.#parts.logger.warn({ partition, fault: error.message }, 'outputs not written, to be written again');
        this.#counters.rewrittenBlocks += this.readBack.resend();
        this.#writeFromMs = this.#parts.clock.now() + retryMs;
        return;
      }
    }
  }

  /** Notes what is to be snapshotted and acknowledged, as it stands now. */
  #prepare(now: number): void {
    const { fold } = this;
    if (!fold.hasBase) return;
    const isIdle = now - this.#foldedMs >= this.#parts.settings.snapshot_idle;
    if (!this.#due && fold.nextOffset > this.#snapshotOffset && (isIdle || this.#finishing)) this.#plan();
    if (this.#checkpoint || this.#finishing?.acknowledge === false) return;
    const isLast = this.#finishing !== null && this.#ackedOffset < fold.nextOffset;
    if (!isLast && now - this.#ackMs < this.#parts.settings.ack_interval) return;
    const collectors = fold
      .collectors()
      .filter((collector) => isLast || this.#heard.has(collector) || now - (this.#ackedMs.get(collector) ?? 0) >= this.#parts.settings.ack_repeat);
    if (collectors.length > 0) this.#checkpoint = this.#checkpointOf(collectors, now);
  }

  #checkpointOf(collectors: readonly string[], now: number): Checkpoint {
    const { replica } = this.#parts;
    const { partition, nextOffset: offset, n } = this.fold;
    const acks = collectors.map((collector) => {
      this.#heard.delete(collector);
      const sequences = this.fold.sequences(collector);
      const ack = { replica, collector, partition, topic_id: this.topicId, folded_offset: offset, sequences, at_ms: now };
      return { partition: ackPartition(collector), key: Buffer.from(`${replica}/${collector}/${partition}`), value: ackCodec.encode(ack) };
    });
    return { offset, n, collectors, acks };
  }

  #isSnapshotReady(): boolean {
    return this.#due !== null && this.readBack.n >= this.#due.n;
  }

  #isCheckpointReady(): boolean {
    const { offset, n } = this.#checkpoint ?? { offset: 0, n: Number.POSITIVE_INFINITY };
    return this.readBack.n >= n && (this.#due === null || this.#due.offset > offset);
  }

  async #settle(): Promise<void> {
    try {
      if (this.#probation) await this.#endProbation(this.#probation);
      const due = this.#due;
      if (due && this.#isSnapshotReady()) await this.#writeSnapshot(due);
      if (this.#isAbandoned) return;
      const checkpoint = this.#checkpoint;
      if (checkpoint && this.#isCheckpointReady()) await this.#acknowledge(checkpoint);
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      this.#counters.faults++;
      this.#parts.logger.warn(
        { partition: this.fold.partition, fault: error.message },
        'snapshot, acknowledgment or verdict not written, to be tried again',
      );
      this.#settleFromMs = this.#parts.clock.now() + retryMs;
    }
  }

  /** Said again until it is read back. */
  async #endProbation(probation: Probation): Promise<void> {
    await probation.end(probation.begins);
    this.#settleFromMs = this.#parts.clock.now() + rewriteAfterMs;
  }

  async #writeSnapshot(snapshot: Snapshot): Promise<void> {
    const { log, digest, replica } = this.#parts;
    const hintOffset = this.#dueEndOffset;
    await writeSnapshot(log, this.#writer, digest, replica, snapshot, this.#marks);
    this.#due = null;
    this.#snapshotOffset = snapshot.offset;
    this.#counters.snapshots++;
    if (hintOffset >= 0) await log.commitOffset(groupOf(replica), outputTopic(replica).name, snapshot.partition, hintOffset);
    await this.#agreements.refresh();
    const obsolete = obsoleteSnapshots(this.#marks, this.topicId, this.#agreements.of(snapshot.partition, this.topicId));
    await deleteSnapshots(this.#writer, replica, snapshot.partition, this.#marks, obsolete);
  }

  async #acknowledge({ offset, collectors, acks }: Checkpoint): Promise<void> {
    const { log, clock, replica } = this.#parts;
    const byPartition = new Map<number, { key: Buffer; value: Buffer }[]>();
    for (const { partition, key, value } of acks) {
      const messages = byPartition.get(partition) ?? [];
      messages.push({ key, value });
      byPartition.set(partition, messages);
    }
    for (const [partition, messages] of byPartition) await this.#writer.append(topics.acks.name, partition, messages);
    this.#checkpoint = null;
    const now = clock.now();
    this.#ackMs = now;
    this.#ackedOffset = offset;
    for (const collector of collectors) this.#ackedMs.set(collector, now);
    this.#counters.acks += acks.length;
    if (!this.#finishing && now - this.#commitMs < commitIntervalMs) return;
    this.#commitMs = now;
    await log.commitOffset(groupOf(replica), topics.nars.name, this.fold.partition, offset);
  }

  /** From now on nothing is folded; what was folded is written, read back, snapshotted and, where told so, acknowledged. */
  finish(acknowledge: boolean): void {
    this.#finishing = { acknowledge };
    this.#queue = [];
    if (!acknowledge) this.#checkpoint = null;
  }

  /** Another state takes its place, or none: nothing more is written but what is on its way. */
  abandon(): void {
    this.#isAbandoned = true;
  }

  /** Nothing is on its way. */
  get isQuiet(): boolean {
    return !this.#writing && !this.#settling;
  }

  get isFinished(): boolean {
    if (!this.#finishing || !this.readBack.isComplete || this.#settling || this.#writing) return false;
    if (!this.fold.hasBase) return true;
    if (this.#due || this.fold.nextOffset > this.#snapshotOffset) return false;
    return !this.#finishing.acknowledge || this.#ackedOffset >= this.fold.nextOffset || this.fold.collectors().length === 0;
  }

  /** Append time of the log's end less that of the last record folded; both are in the log. */
  lagMs(now: number): number {
    if (this.fold.nextOffset >= this.endOffset) {
      this.#behindSinceMs = null;
      this.#endAppendedMs = 0;
      return 0;
    }
    this.#behindSinceMs ??= now;
    if (now - this.#behindSinceMs >= probeAfterMs && !this.#probing) this.#probe(now);
    const newestMs = Math.max(this.#endAppendedMs, this.#queue.at(-1)?.appendedMs ?? 0);
    return this.#appendedMs === 0 ? 0 : Math.max(0, newestMs - this.#appendedMs);
  }

  #probe(now: number): void {
    this.#probing = true;
    this.#behindSinceMs = now;
    recordAt(this.#parts.log, topics.nars.name, this.fold.partition, this.endOffset - 1)
      .then(
        (record) => {
          this.#endAppendedMs = record?.appendedMs ?? 0;
        },
        // The lag is told by what was read so far; the loop's own reader finds out what is wrong.
        () => undefined,
      )
      .finally(() => {
        this.#probing = false;
      });
  }
}
