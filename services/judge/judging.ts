/**
 * Judges partitions whose replicas differ (DESIGN 3.5): where the feed holds one, or a replica says that its own outputs are not what it folds, a
 * third fold of the log begins with the newest snapshot that both replicas hold alike, and tells which of them is wrong. The verdict follows from
 * the log alone, so of several judges each writes the same.
 */
import { type Clock, type Fetched, type Log, LogFault, type Logger, type LogReader, type LogRecord, type LogWriter } from '../../adapters/ports.ts';
import { type Digest, sameChain } from '../../core/aggregate/chain.ts';
import { Fold, SnapshotNeeded } from '../../core/aggregate/fold.ts';
import { decodeBlock } from '../../core/aggregate/output-block.ts';
import { UnknownFoldVersion } from '../../core/aggregate/settings.ts';
import { type Complaints, complaintsOf, HealthHeard } from '../../core/judge/complaints.ts';
import { type Sentence, sentences, Trial } from '../../core/judge/trial.ts';
import { keyOf, Verdicts } from '../../core/judge/verdicts.ts';
import { healthCodec, UndecodableRecord, UnknownSchema, verdictCodec } from '../../schemas/codec.ts';
import { outputTopic, type Replica, topics } from '../../schemas/topics.ts';
import type { Verdict } from '../../schemas/types.ts';
import { AgreementLog } from '../agreement-log.ts';
import { BaseSearch, beginningOf, MissingBase } from '../beginning.ts';
import { recordsBetween } from '../log-records.ts';
import { readSnapshots, type Snapshot } from '../snapshots.ts';

/** Health records that are read at the start: some seconds' worth. */
const backlogRecords = 500;
const pollMs = 100;
const retryMs = 250;
/** A verdict that is not read back by then was not written, whatever the client said. */
const readBackWithinMs = 1_000;
/** Folded before others have their turn. */
const sliceBytes = 256 * 1024;
/** After a trial that found nothing; grows with each. */
const restFirstMs = 1_000;
const restMaxMs = 60_000;

export interface JudgingParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly digest: Digest;
  readonly id: string;
}

/** How the trials of a partition went so far. */
interface Docket {
  notBeforeMs: number;
  restMs: number;
  /** Why it cannot be judged; '' while it can. */
  problem: string;
}

/** A partition that is being judged. */
export interface Progress {
  readonly partition: number;
  nextOffset: number;
  readonly endOffset: number;
}

export type TrialOutcome = 'quarantined' | 'nothing_wrong' | 'unconfirmed' | 'failed';

export class Judging {
  readonly verdicts = new Verdicts();
  readonly outcomes: Record<TrialOutcome, number> = { quarantined: 0, nothing_wrong: 0, unconfirmed: 0, failed: 0 };
  undecodable = 0;
  progress: Progress | null = null;
  readonly #parts: JudgingParts;
  readonly #writer: LogWriter;
  readonly #heard = new HealthHeard();
  readonly #agreements: AgreementLog;
  readonly #dockets = new Map<number, Docket>();
  #verdictsRead = false;
  #listens = false;

  constructor(parts: JudgingParts) {
    this.#parts = parts;
    this.#writer = parts.log.writer();
    this.#agreements = new AgreementLog(parts.log);
  }

  /** Why something cannot be judged, or is being judged. */
  get reasons(): string[] {
    const problems = [...this.#dockets].flatMap(([partition, { problem }]) =>
      problem ? [`partition ${partition} cannot be judged: ${problem}`] : [],
    );
    const { progress } = this;
    if (progress) problems.push(`partition ${progress.partition} is being judged: at offset ${progress.nextOffset} of ${progress.endOffset}`);
    return problems;
  }

  /** Until the signal is aborted. @throws UnknownSchema when a verdict or a health record was written by a newer version. */
  async run(signal: AbortSignal): Promise<void> {
    const failed = new AbortController();
    const stop = AbortSignal.any([signal, failed.signal]);
    const judging = this.#judgeOn(stop).finally(() => failed.abort());
    try {
      await this.#listenOn(stop);
    } finally {
      failed.abort();
      await judging;
      await this.#writer.close();
    }
  }

  async #listenOn(signal: AbortSignal): Promise<void> {
    const { log, clock, logger } = this.#parts;
    while (!signal.aborted) {
      const reader = log.reader('committed');
      try {
        await this.#place(reader);
        while (!signal.aborted) this.#take(await reader.poll(pollMs));
      } catch (error) {
        if (!(error instanceof LogFault)) throw error;
        this.#listens = false;
        logger.debug({ fault: error.message }, 'no listening, so no judging');
        await clock.sleep(retryMs, signal);
      } finally {
        await reader.close();
      }
    }
  }

  /** Verdicts from their start; health from its end less a bit. */
  async #place(reader: LogReader): Promise<void> {
    const { log } = this.#parts;
    const verdicts = await log.bounds(topics.verdicts.name, 0);
    const health = await log.bounds(topics.health.name, 0);
    reader.assign(topics.verdicts.name, 0, verdicts.startOffset);
    reader.assign(topics.health.name, 0, Math.max(health.startOffset, health.endOffset - backlogRecords));
    this.#verdictsRead = false;
    this.#listens = true;
  }

  #take(fetched: readonly Fetched[]): void {
    const nowMs = this.#parts.clock.now();
    for (const { topic, records, nextOffset, endOffset } of fetched) {
      const isVerdicts = topic === topics.verdicts.name;
      for (const { value } of records) {
        if (isVerdicts) this.#takeVerdict(value);
        else this.#takeHealth(value, nowMs);
      }
      if (isVerdicts && nextOffset >= endOffset) this.#verdictsRead = true;
    }
  }

  #takeVerdict(value: Buffer | null): void {
    const verdict = value && this.#decoded(() => verdictCodec.decode(value));
    if (!verdict || !this.verdicts.apply(verdict)) return;
    const { partition, replica, epoch, state, n, evidence } = verdict;
    // What the services said before they knew of it is no complaint.
    this.#docketOf(partition).notBeforeMs = this.#parts.clock.now() + restFirstMs;
    this.#parts.logger.warn({ partition, replica, epoch, n }, `${replica} is ${state}: ${evidence}`);
  }

  #takeHealth(value: Buffer | null, nowMs: number): void {
    const health = value && this.#decoded(() => healthCodec.decode(value));
    if (health) this.#heard.hear(health, nowMs);
  }

  #decoded<T>(decode: () => T): T | null {
    try {
      return decode();
    } catch (error) {
      if (!(error instanceof UndecodableRecord)) throw error;
      this.undecodable++;
      return null;
    }
  }

  async #judgeOn(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const due = this.#listens && this.#verdictsRead ? this.#due() : null;
      if (due) await this.#judge(due.partition, due.complaints, signal);
      else await this.#parts.clock.sleep(pollMs, signal);
    }
  }

  /** The next partition that is complained of, and may be judged now. */
  #due(): { partition: number; complaints: Complaints } | null {
    const nowMs = this.#parts.clock.now();
    for (const partition of this.#heard.partitions()) {
      const complaints = complaintsOf(this.#heard, this.verdicts, partition, nowMs);
      if (complaints && nowMs >= (this.#dockets.get(partition)?.notBeforeMs ?? 0)) return { partition, complaints };
      const docket = this.#dockets.get(partition);
      if (!complaints && docket && nowMs >= docket.notBeforeMs) this.#dockets.delete(partition);
    }
    return null;
  }

  #docketOf(partition: number): Docket {
    const docket = this.#dockets.get(partition) ?? { notBeforeMs: 0, restMs: restFirstMs, problem: '' };
    this.#dockets.set(partition, docket);
    return docket;
  }

  async #judge(partition: number, complaints: Complaints, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#parts;
    const docket = this.#docketOf(partition);
    const epochs = { a: this.verdicts.last(partition, 'a')?.epoch ?? 0, b: this.verdicts.last(partition, 'b')?.epoch ?? 0 };
    logger.warn({ partition }, `judges ${partition}: ${complaints.words.join('; ')}`);
    try {
      const found = await this.#sentences(partition, complaints, signal);
      if (signal.aborted) return;
      docket.problem = '';
      if (found && found.length > 0) await this.#pronounce(partition, found, epochs);
      else
        logger.info(
          { partition },
          found ? 'nothing is wrong with what both have written so far' : 'two trials do not say the same: it is judged again',
        );
      this.outcomes[!found ? 'unconfirmed' : found.length > 0 ? 'quarantined' : 'nothing_wrong']++;
      if (found && found.length > 0) docket.restMs = restFirstMs;
    } catch (error) {
      if (!(error instanceof LogFault || error instanceof Unjudgeable || isTooNew(error))) throw error;
      this.outcomes.failed++;
      if (!(error instanceof LogFault)) docket.problem = error.message;
      logger.warn({ partition, fault: error.message }, 'a trial could not be held');
    } finally {
      this.progress = null;
      docket.notBeforeMs = clock.now() + docket.restMs;
      docket.restMs = Math.min(2 * docket.restMs, restMaxMs);
    }
  }

  /** Where two of three do not say the same, a second trial must; null where it does not. @throws LogFault, Unjudgeable */
  async #sentences(partition: number, complaints: Complaints, signal: AbortSignal): Promise<Sentence[] | null> {
    const first = sentences(await this.#try(partition, complaints, signal), complaints);
    if (first.every(({ isConfirmed }) => isConfirmed)) return first;
    const second = sentences(await this.#try(partition, complaints, signal), complaints);
    const isSame = (one: Sentence, other: Sentence | undefined) =>
      other !== undefined && one.replica === other.replica && one.n === other.n && sameChain(one.judged, other.judged);
    return first.length === second.length && first.every((one, i) => isSame(one, second[i])) ? first : null;
  }

  async #try(partition: number, complaints: Complaints, signal: AbortSignal): Promise<Trial> {
    const { log, digest } = this.#parts;
    // Before the log's end is asked for, so that it gives all that these topics hold.
    const [a, b] = [await log.bounds(outputTopic('a').name, partition), await log.bounds(outputTopic('b').name, partition)];
    const fold = await this.#beginning(partition);
    const { endOffset } = await log.bounds(topics.nars.name, partition);
    const progress: Progress = { partition, nextOffset: fold.nextOffset, endOffset };
    this.progress = progress;
    const trial = new Trial(fold, digest);
    for (const replica of complaints.barred) trial.end(replica);
    const nars = recordsBetween(log, topics.nars.name, partition, fold.nextOffset, endOffset);
    const outputs = {
      a: recordsBetween(log, outputTopic('a').name, partition, a.startOffset, a.endOffset),
      b: recordsBetween(log, outputTopic('b').name, partition, b.startOffset, b.endOffset),
    };
    try {
      await this.#hear(trial, nars, outputs, progress, signal);
    } finally {
      for (const open of [nars, outputs.a, outputs.b]) await open.return(undefined);
    }
    return trial;
  }

  async #hear(
    trial: Trial,
    nars: AsyncGenerator<LogRecord>,
    outputs: Readonly<Record<Replica, AsyncGenerator<LogRecord>>>,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<void> {
    let bytes = 0;
    for (let want = trial.wants(); want !== null && !signal.aborted; want = trial.wants()) {
      const { value: record, done } = await (want === 'nars' ? nars : outputs[want]).next();
      if (want === 'nars') {
        if (done) trial.endNars();
        else trial.takeNars(record);
        progress.nextOffset = trial.nextOffset;
      } else if (done) trial.end(want);
      else {
        const block = decodeBlock(record.value);
        if (block) trial.takeBlock(want, block);
      }
      bytes += record?.value?.length ?? 0;
      if (bytes < sliceBytes) continue;
      bytes = 0;
      await this.#parts.clock.sleep(0, signal);
    }
  }

  /** The state that both replicas hold alike, or the empty one of a log that is whole. @throws Unjudgeable, LogFault */
  async #beginning(partition: number): Promise<Fold> {
    const { log, digest } = this.#parts;
    const topicId = await log.topicId(topics.nars.name);
    const { startOffset } = await log.bounds(topics.nars.name, partition);
    await this.#agreements.refresh();
    const recorded = this.#agreements.of(partition, topicId);
    const read = (replica: Replica) => readSnapshots(log, digest, replica, partition, topicId, recorded?.offset);
    const [a, b] = [await read('a'), await read('b')];
    const isAgreed = ({ offset, state }: Snapshot) => recorded !== null && offset === recorded.offset && sameChain(digest(state), recorded.digest);
    const alike = [...newestAlike(a.whole, b.whole), ...a.whole.filter(isAgreed), ...b.whole.filter(isAgreed)];
    const agreed = alike.find((snapshot) => snapshot.offset >= startOffset);
    if (agreed) return Fold.restore(agreed.state, digest);
    if (startOffset === 0) return (await beginningOf(log, digest, partition, new BaseSearch(log, partition))).fold;
    throw new Unjudgeable(
      `no snapshot is held alike by both replicas, and nars/${partition} begins at offset ${startOffset}: ` +
        'restore the topics snapshots.a and snapshots.b, or the records of nars, from a backup',
    );
  }

  async #pronounce(partition: number, found: readonly Sentence[], epochs: Readonly<Record<Replica, number>>): Promise<void> {
    const { clock, id } = this.#parts;
    for (const { replica, n, given, judged, sound, evidence } of found) {
      const isSound = sound !== null && !this.verdicts.isQuarantined(partition, sound) && !found.some((one) => one.replica === sound);
      const verdict: Verdict = {
        partition,
        replica,
        epoch: epochs[replica] + 1,
        state: 'quarantined',
        n,
        given_chain: given ?? Buffer.alloc(0),
        judged_chain: judged,
        sound: isSound ? sound : '',
        begins: -1,
        evidence,
        author: id,
        at_ms: clock.now(),
      };
      await this.#writer.append(topics.verdicts.name, 0, [{ key: Buffer.from(keyOf(partition, replica)), value: verdictCodec.encode(verdict) }]);
    }
    for (const untilMs = clock.now() + readBackWithinMs; clock.now() < untilMs; await clock.sleep(pollMs)) {
      if (found.every(({ replica }) => (this.verdicts.last(partition, replica)?.epoch ?? 0) > epochs[replica])) return;
    }
    throw new LogFault('unknown', 'a verdict is not read back: it is judged again');
  }
}

/** A partition of which nobody can tell which replica is wrong; the message names the remedy. */
class Unjudgeable extends Error {}

function isTooNew(error: unknown): error is Error {
  return error instanceof UnknownSchema || error instanceof UnknownFoldVersion || error instanceof MissingBase || error instanceof SnapshotNeeded;
}

/** Newest first. */
function newestAlike(one: readonly Snapshot[], other: readonly Snapshot[]): Snapshot[] {
  return one.filter((snapshot) => other.some(({ offset, state }) => offset === snapshot.offset && sameChain(state, snapshot.state)));
}
