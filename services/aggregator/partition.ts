/**
 * One partition of a replica, from start to stop.
 *
 *   starting --> restoring --> running --> stopping --> stopped
 *      ^             |            |                        ^
 *      +-- fault ----+            +-- the log has ended ---+
 *      +------ the reader's place is gone
 *
 * After each fault of the reader it is checked that the log is still the one that was folded (DESIGN 3.8); nothing is folded meanwhile.
 * I15: a verdict that puts this replica into quarantine ends whatever it does with the partition. It begins anew by repairing itself (repair.ts),
 * and is on probation, without snapshots and Acks, until its own verdict says that it is repaired.
 */
import { LogFault, type LogReader, type LogRecord, type LogWriter } from '../../adapters/ports.ts';
import { emptyChain } from '../../core/aggregate/chain.ts';
import { SnapshotNeeded } from '../../core/aggregate/fold.ts';
import { NotDeterministic } from '../../core/aggregate/read-back.ts';
import { UnknownFoldVersion } from '../../core/aggregate/settings.ts';
import { UndecodableRecord, UnknownSchema } from '../../schemas/codec.ts';
import { outputTopic, topics } from '../../schemas/topics.ts';
import type { PartitionHealth, Verdict } from '../../schemas/types.ts';
import { BaseSearch, MissingBase } from '../beginning.ts';
import { endRepair, type Repair, repair } from './repair.ts';
import { logEnded, PartitionEnded, type Restored, replacedRemedy, restore, type Standing, standsThere } from './restore.ts';
import { type AggregatorParts, type PartitionCounters, type Probation, Running } from './running.ts';

type Phase =
  | { readonly kind: 'starting'; readonly fromMs: number; readonly problem: string }
  | { readonly kind: 'restoring'; readonly problem: string }
  | { readonly kind: 'running'; readonly running: Running; check: Check }
  | { readonly kind: 'stopping'; readonly running: Running; readonly reason: string; readonly isFault: boolean }
  | {
      readonly kind: 'stopped';
      readonly reason: string;
      readonly isFault: boolean;
      readonly isDisputed: boolean;
      readonly last: Running | null;
      lookMs: number;
    };

/**
 * due: to be checked from then on; under_way: being checked; in both nothing is folded. done: nars is read, or held up by what is not folded yet.
 * proof: what is read since the last subscription is not folded before a look that began behind its first records has found the same log; another
 * one may have taken its place in between, and have grown as long. null: it has.
 */
type Check =
  | { readonly kind: 'due'; readonly fromMs: number; readonly problem: string }
  | { readonly kind: 'under_way' }
  | { readonly kind: 'done'; lookedMs: number; isReading: boolean; proof: 'due' | { readonly sinceMs: number } | null };

/** Ends of one partition; each message names the remedy. A refused message is one that the broker will never take. */
const endings = [PartitionEnded, NotDeterministic, UnknownSchema, UndecodableRecord, UnknownFoldVersion, MissingBase, LogFault];

const retryMs = 250;
/** A replica that is wrong again and again is repaired ever more seldom; it begins anew when it was sound for so long. */
const repairRestFirstMs = 10_000;
const repairRestMaxMs = 600_000;
const soundMs = 3_600_000;
/** What is read meanwhile stays in memory. */
const proofWithinMs = 2_000;
/** A topic that was re-created is noticed within this also where the reader sees no fault. */
const lookIntervalMs = 5_000;

export class ReplicaPartition {
  readonly partition: number;
  readonly counters: PartitionCounters = {
    nars: 0,
    records: { accepted: 0, duplicate: 0, gap: 0, before_base: 0, rejected: 0 },
    outputs: 0,
    rewrittenBlocks: 0,
    snapshots: 0,
    acks: 0,
    faults: 0,
    restores: 0,
    quarantines: 0,
  };
  readonly #parts: AggregatorParts;
  readonly #reader: LogReader;
  readonly #writer: LogWriter;
  #phase: Phase = { kind: 'starting', fromMs: 0, problem: '' };
  /** null before the verdicts were read: nothing is begun before it is known whose snapshots may be taken. */
  #standing: Standing | null = null;
  #quarantinedMs = Number.NEGATIVE_INFINITY;
  #repairRestMs = 0;
  /** The last state that was given up. */
  #abandoned: Running | null = null;
  readonly #bases: BaseSearch;
  /** It stopped since its log is not the one that was folded. */
  #hasEnded = false;
  /** The base entry that was begun with last, by its topic id and offset. */
  #begunBase = '';
  #lookingForBase = false;
  #stopRequested = false;
  /** An error of this program: the process is to end with it. */
  failure: unknown = null;

  constructor(parts: AggregatorParts, partition: number, reader: LogReader, writer: LogWriter) {
    this.#parts = parts;
    this.partition = partition;
    this.#reader = reader;
    this.#writer = writer;
    this.#bases = new BaseSearch(parts.log, partition);
  }

  /** The last verdicts on this replica and on the other. */
  judge(standing: Standing): void {
    const before = this.#standing?.own ?? null;
    this.#standing = standing;
    const { own } = standing;
    if (!own || (before?.epoch === own.epoch && before.state === own.state)) return;
    if (own.state === 'quarantined') this.#quarantine(own);
    else this.#acquit(own);
  }

  /** The verdict by which it is in quarantine; null while it is not. */
  get quarantine(): Verdict | null {
    const own = this.#standing?.own;
    return own?.state === 'quarantined' ? own : null;
  }

  #quarantine({ epoch, n, evidence }: Verdict): void {
    const { clock, logger } = this.#parts;
    const now = clock.now();
    const isFirst = now - this.#quarantinedMs > soundMs;
    this.#repairRestMs = isFirst ? 0 : Math.min(repairRestMaxMs, Math.max(repairRestFirstMs, 2 * this.#repairRestMs));
    this.#quarantinedMs = now;
    this.counters.quarantines++;
    logger.error({ partition: this.partition, epoch, n }, `in quarantine, its state is abandoned: ${evidence}`);
    this.#abandon();
    if (this.#stopRequested) this.#phase = stoppedPhase('stopping', null);
    else this.#phase = { kind: 'starting', fromMs: now + this.#repairRestMs, problem: '' };
  }

  #acquit({ epoch, begins }: Verdict): void {
    const { running } = this;
    const phase = this.#phase;
    if (phase.kind === 'running' && phase.running.isOnProbation) phase.running.acquit();
    // Another process of this replica was quicker: what it wrote is as good.
    else if (phase.kind === 'starting' || phase.kind === 'restoring') this.#again('');
    else if (running) running.readBack.isRepaired = true;
    this.#parts.logger.warn({ partition: this.partition, epoch, begins }, 'repaired');
  }

  /** Null before there is a state. */
  get running(): Running | null {
    const phase = this.#phase;
    if (phase.kind === 'running' || phase.kind === 'stopping') return phase.running;
    return phase.kind === 'stopped' ? phase.last : null;
  }

  get isRunning(): boolean {
    return this.#phase.kind === 'running';
  }

  get isStopped(): boolean {
    return this.#phase.kind === 'stopped';
  }

  /** Why it does not run, or what is wrong while it does; '' when all is well. */
  get problem(): string {
    const phase = this.#phase;
    const { quarantine } = this;
    if (quarantine) return this.#quarantineProblem(quarantine);
    if (phase.kind === 'starting' || phase.kind === 'restoring') {
      return phase.problem || (this.#standing ? 'restoring its state' : 'reading the verdicts so far');
    }
    if (phase.kind === 'stopping' || phase.kind === 'stopped') return phase.reason;
    if (phase.check.kind === 'due' && phase.check.problem) return phase.check.problem;
    return phase.running.fold.hasBase ? '' : 'its log has no base entry yet: run "flowledger topics"';
  }

  #quarantineProblem({ n, evidence }: Verdict): string {
    const phase = this.#phase;
    const { running } = this;
    const why = `in quarantine from n ${n} on, since ${evidence}`;
    if (phase.kind === 'stopped') return `${why}; its repair has stopped: ${phase.reason}`;
    const faults = 'problem' in phase && phase.problem ? `, after ${phase.problem}` : '';
    return `${why}; it repairs itself${faults}${running ? `, and has come to n ${running.readBack.n}` : ''}`;
  }

  /** Records of nars. */
  takeNars(records: readonly LogRecord[], endOffset: number): void {
    const phase = this.#phase;
    if (phase.kind !== 'running' || phase.check.kind !== 'done') return;
    // A log that ends before it ended may be another one of the same name.
    if (endOffset < phase.running.endOffset) this.#suspend(phase, this.#parts.clock.now(), `nars/${this.partition} ends before it ended`);
    else {
      phase.running.enqueue(records, endOffset);
      if (phase.check.proof !== null && records.length > 0) this.#prove(phase, phase.check, this.#parts.clock.now());
    }
  }

  /** The process stood still: the log that is read on may be another one. */
  mistrust(): void {
    const phase = this.#phase;
    if (phase.kind === 'running' && phase.check.kind === 'done') phase.check.proof ??= 'due';
  }

  /** Records of the own output topic. */
  takeOutputs(records: readonly LogRecord[], nextOffset: number): void {
    const { running } = this;
    if (!running || this.isStopped) return;
    this.#guard(() => running.takeOutputs(records, nextOffset));
  }

  get canFold(): boolean {
    const phase = this.#phase;
    return phase.kind === 'running' && phase.check.kind === 'done' && phase.check.proof === null && phase.running.canFold;
  }

  foldSome(bytesMax: number): void {
    const phase = this.#phase;
    if (phase.kind === 'running') this.#guard(() => phase.running.foldSome(bytesMax));
  }

  /** Starts whatever is to be done now; nothing is waited for. */
  work(): void {
    const phase = this.#phase;
    const now = this.#parts.clock.now();
    switch (phase.kind) {
      case 'starting':
        // What the state before has on its way would else come after what takes its place.
        if (this.#standing && now >= phase.fromMs && this.#abandoned?.isQuiet !== false) this.#restore(phase.problem, this.#standing);
        return;
      case 'running': {
        if (phase.check.kind === 'due' && now >= phase.check.fromMs) this.#check(phase);
        if (phase.check.kind === 'done') this.#steer(phase, phase.check, now);
        this.#workOn(phase.running);
        return;
      }
      case 'stopping':
        this.#workOn(phase.running);
        if (phase.running.isFinished) this.#stopped(phase.reason, phase.isFault);
        return;
      case 'stopped':
        if (this.#hasEnded && !this.#stopRequested && now >= phase.lookMs) this.#lookForBase(phase, now);
    }
  }

  /** The log has ended, or could not be begun: it goes on, without a new process, from a base that was written since. */
  #lookForBase(phase: Phase & { kind: 'stopped' }, now: number): void {
    phase.lookMs = now + lookIntervalMs;
    if (this.#lookingForBase) return;
    this.#lookingForBase = true;
    this.#bases
      .find()
      .then(
        (found) => {
          const name = this.#bases.foundName;
          if (this.#phase !== phase || !found?.base.snapshot || name === this.#begunBase) return;
          this.#begunBase = name;
          this.#hasEnded = false;
          this.#parts.logger.warn({ partition: this.partition, base: name }, 'the log has a new base, the partition begins with it');
          this.#phase = { kind: 'starting', fromMs: now, problem: phase.reason };
        },
        (error) => {
          if (!(error instanceof LogFault)) this.failure = error;
        },
      )
      .finally(() => {
        this.#lookingForBase = false;
      });
  }

  #workOn(running: Running): void {
    running.work((error) => {
      if (this.running === running) this.#fail(error);
    });
  }

  /** The reader failed: where it stands is looked at before anything else is folded. */
  readerFailed(fault: LogFault): void {
    const phase = this.#phase;
    if (phase.kind !== 'running') return;
    if (fault.kind === 'out_of_range' && fault.at?.topic === outputTopic(this.#parts.replica).name) this.#again(fault.message);
    else this.#suspend(phase, this.#parts.clock.now(), fault.message);
  }

  /** Finishes what was folded, and stops. */
  stop(): void {
    this.#stopRequested = true;
    const phase = this.#phase;
    if (phase.kind === 'starting' || phase.kind === 'restoring' || this.quarantine) this.#stopped('stopping', false);
    else if (phase.kind === 'running') this.#finish(phase.running, 'stopping', false, true);
  }

  health(): PartitionHealth {
    const { running, partition } = this;
    return {
      partition,
      next_offset: running?.fold.nextOffset ?? 0,
      end_offset: Math.max(running?.endOffset ?? 0, running?.fold.nextOffset ?? 0),
      lag_ms: running?.lagMs(this.#parts.clock.now()) ?? 0,
      n: running?.readBack.n ?? 0,
      chain: running?.readBack.chain ?? emptyChain,
      watermark_ms: Math.max(0, running?.fold.watermarkMs ?? 0),
      open_flows: running?.fold.openFlows ?? 0,
      state: this.#state(),
      detail: this.problem,
    };
  }

  #state(): string {
    const phase = this.#phase;
    if (this.quarantine) return 'quarantined';
    if (phase.kind === 'stopped' && phase.isDisputed) return 'disputed';
    // Where it stood is not written yet, and the base of the next log may rest on that.
    if (phase.kind === 'stopping' && this.#hasEnded) return 'running';
    if ((phase.kind === 'stopping' || phase.kind === 'stopped') && phase.isFault) return 'stopped';
    return phase.kind === 'starting' || phase.kind === 'restoring' ? 'starting' : 'running';
  }

  #restore(problem: string, standing: Standing): void {
    const { log, digest, replica, clock, logger } = this.#parts;
    const phase: Phase = { kind: 'restoring', problem };
    this.#phase = phase;
    const verdict = this.quarantine;
    const parts = { log, digest, replica, standing, bases: this.#bases, nowMs: () => clock.now() };
    const restoring: Promise<Restored | Repair> = verdict ? repair(parts, this.#writer, this.partition, verdict) : restore(parts, this.partition);
    restoring.then(
      (restored) => {
        if (this.#phase !== phase) return;
        const { fold, readBack, origin } = restored;
        this.#abandoned = null;
        this.counters.restores++;
        logger.info({ partition: this.partition, offset: fold.nextOffset, n: fold.n, written: readBack.n, origin }, 'partition restored');
        const probation = verdict && 'begins' in restored ? this.#probation(verdict, restored.begins) : null;
        const running = new Running(this.#parts, this.#writer, this.counters, restored, probation);
        const check: Check = { kind: 'done', lookedMs: clock.now(), isReading: false, proof: 'due' };
        this.#phase = { kind: 'running', running, check };
        this.#reader.assign(outputTopic(replica).name, this.partition, running.outputsOffset);
      },
      (error) => {
        if (this.#phase === phase) this.#fail(error);
      },
    );
  }

  #probation(verdict: Verdict, begins: number): Probation {
    const { log, replica, clock } = this.#parts;
    return { untilN: verdict.n, begins, end: (from) => endRepair({ log, replica, nowMs: clock.now() }, this.#writer, verdict, from) };
  }

  /** Reads nars where there is nothing left to fold, and stops reading where something is held up. */
  #steer(phase: Phase & { kind: 'running' }, check: Check & { kind: 'done' }, now: number): void {
    const { running } = phase;
    if (check.proof !== null && running.queued > 0) {
      this.#prove(phase, check, now);
    } else if (check.isReading && running.queued > 0) {
      this.#reader.unassign(topics.nars.name, this.partition);
      check.isReading = false;
    } else if (!check.isReading && running.queued === 0) {
      this.#reader.assign(topics.nars.name, this.partition, running.fold.nextOffset);
      check.isReading = true;
      check.proof = 'due';
    }
    if (now - check.lookedMs < lookIntervalMs) return;
    check.lookedMs = now;
    this.#look(phase);
  }

  #prove(phase: Phase & { kind: 'running' }, check: Check & { kind: 'done' }, now: number): void {
    if (check.proof === null) return;
    if (check.proof !== 'due') {
      if (now - check.proof.sinceMs >= proofWithinMs)
        this.#suspend(phase, now, `it is not known whether nars/${this.partition} is the log that was folded`);
      return;
    }
    check.proof = { sinceMs: now };
    this.#requireSameLog(phase.running).then(
      (isReadable) => {
        if (this.#phase !== phase || phase.check !== check) return;
        if (isReadable) check.proof = null;
        else this.#again('its place in the log or in the output topic is gone');
      },
      (error) => {
        if (this.#phase !== phase || phase.check !== check) return;
        if (error instanceof LogFault) this.#suspend(phase, this.#parts.clock.now(), error.message);
        else this.#fail(error);
      },
    );
  }

  /** As #check, while folding goes on: a reader by topic name need not notice that the topic is another one. */
  #look(phase: Phase & { kind: 'running' }): void {
    this.#requireSameLog(phase.running).catch((error) => {
      if (this.#phase === phase && !(error instanceof LogFault)) this.#fail(error);
    });
  }

  #suspend(phase: Phase & { kind: 'running' }, now: number, problem: string): void {
    phase.running.dropQueue();
    this.#reader.unassign(topics.nars.name, this.partition);
    if (phase.check.kind === 'done') phase.check = { kind: 'due', fromMs: now, problem };
  }

  #check(phase: Phase & { kind: 'running' }): void {
    phase.check = { kind: 'under_way' };
    const { clock, logger } = this.#parts;
    this.#requireSameLog(phase.running).then(
      (isReadable) => {
        if (this.#phase !== phase) return;
        if (isReadable) phase.check = { kind: 'done', lookedMs: clock.now(), isReading: false, proof: 'due' };
        else this.#again('its place in the output topic is gone');
      },
      (error) => {
        if (this.#phase !== phase) return;
        if (error instanceof LogFault) {
          this.counters.faults++;
          logger.debug({ partition: this.partition, fault: error.message }, 'the log cannot be looked at');
          phase.check = { kind: 'due', fromMs: clock.now() + retryMs, problem: error.message };
        } else this.#fail(error);
      },
    );
  }

  /** @returns false where the own output topic has to be read anew. @throws PartitionEnded, LogFault */
  async #requireSameLog(running: Running): Promise<boolean> {
    const { log, digest, replica } = this.#parts;
    const { partition } = this;
    // Together, before anything is waited for: folding may go on meanwhile.
    const { nextOffset } = running.fold;
    const { recordDigest } = running;
    const topicId = await log.topicId(topics.nars.name);
    if (topicId !== running.topicId)
      throw new PartitionEnded(`${logEnded(partition)} (topic id ${topicId}, was ${running.topicId}). ${replacedRemedy}`);
    const bounds = await log.bounds(topics.nars.name, partition);
    if (nextOffset > bounds.endOffset) {
      throw new PartitionEnded(`${logEnded(partition)}: it ends at offset ${bounds.endOffset}, ${nextOffset} were folded. ${replacedRemedy}`);
    }
    // The head was cut in front of this replica: a newer snapshot has what it missed.
    if (nextOffset < bounds.startOffset) return false;
    if (recordDigest && !(await standsThere(log, digest, partition, nextOffset, recordDigest, bounds))) {
      throw new PartitionEnded(`${logEnded(partition)}: the record at offset ${nextOffset - 1} is another one. ${replacedRemedy}`);
    }
    const outputs = await log.bounds(outputTopic(replica).name, partition);
    return running.outputsOffset >= outputs.startOffset && running.outputsOffset <= outputs.endOffset;
  }

  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** A fault of the log is tried again. What cannot be gone on with ends this partition only. Anything else is an error of this program. */
  #fail(error: unknown): void {
    const phase = this.#phase;
    if (phase.kind === 'stopped') return;
    if (error instanceof LogFault && error.kind !== 'refused') {
      this.counters.faults++;
      if (phase.kind !== 'stopping') this.#again(error.message);
      return;
    }
    if (error instanceof SnapshotNeeded) {
      this.#again(error.message);
      return;
    }
    if (!(error instanceof Error) || !endings.some((ending) => error instanceof ending)) {
      this.failure = error;
      return;
    }
    if (error instanceof NotDeterministic && this.quarantine) {
      // Something else got between what the repair writes: it is done once more.
      this.#again(error.message);
      return;
    }
    this.#hasEnded = error instanceof PartitionEnded;
    this.#parts.logger.error({ partition: this.partition, reason: error.message }, 'partition stopped');
    const isUnsound = error instanceof NotDeterministic || error instanceof LogFault;
    if (phase.kind === 'running' && !isUnsound) this.#finish(phase.running, error.message, true, !(error instanceof PartitionEnded));
    else this.#stopped(error.message, true, error instanceof NotDeterministic);
  }

  #again(problem: string): void {
    this.#abandon();
    if (this.#stopRequested) this.#phase = stoppedPhase('stopping', null);
    else this.#phase = { kind: 'starting', fromMs: this.#parts.clock.now() + retryMs, problem };
  }

  #finish(running: Running, reason: string, isFault: boolean, acknowledge: boolean): void {
    this.#reader.unassign(topics.nars.name, this.partition);
    running.finish(acknowledge);
    this.#phase = { kind: 'stopping', running, reason, isFault };
  }

  #stopped(reason: string, isFault: boolean, isDisputed = false): void {
    const last = this.running;
    this.#abandon();
    this.#phase = { ...stoppedPhase(reason, last), isFault, isDisputed };
  }

  #abandon(): void {
    this.#abandoned = this.running ?? this.#abandoned;
    this.running?.abandon();
    this.#reader.unassign(topics.nars.name, this.partition);
    this.#reader.unassign(outputTopic(this.#parts.replica).name, this.partition);
  }
}

function stoppedPhase(reason: string, last: Running | null): Phase & { kind: 'stopped' } {
  return { kind: 'stopped', reason, isFault: false, isDisputed: false, last, lookMs: 0 };
}
