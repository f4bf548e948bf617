/**
 * The watchdog: listens to health and elections, and writes an election where core says that one is due.
 * Several may run: each reads back what it and the others wrote, and of two elections with one epoch the last counts.
 */
import { type Clock, type Fetched, type Log, LogFault, type Logger, type LogReader, type LogWriter } from '../../adapters/ports.ts';
import { decide, type Proposal, type Reason } from '../../core/elect/decide.ts';
import { Elections } from '../../core/elect/elections.ts';
import { Hearing } from '../../core/elect/hearing.ts';
import { Verdicts } from '../../core/judge/verdicts.ts';
import { electionCodec, healthCodec, UndecodableRecord, verdictCodec } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';
import type { Health } from '../../schemas/types.ts';
import type { WatchdogConfig } from './config.ts';

/** Health records that are read at the start, so that the feed's n is known at once: some seconds' worth. */
const backlogRecords = 500;
const pollMs = 100;
const decideIntervalMs = 50;
const healthIntervalMs = 250;
const retryMs = 250;
/** An election that is not read back by then was not written, whatever the client said. */
const readBackWithinMs = 1_000;
/** A broker with nothing new says so within 250 ms. Whoever gets no answer for longer is deaf: the broker hangs, or this process sleeps. */
const answerWithinMs = 500;

export type WatchdogSettings = Pick<WatchdogConfig, 'id' | 'silent_after' | 'stalled_after' | 'suspicion_quorum'>;

export interface WatchdogParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly settings: WatchdogSettings;
}

export class Watchdog {
  readonly hearing = new Hearing();
  readonly elections = new Elections();
  readonly verdicts = new Verdicts();
  /** Elections that this watchdog wrote and read back, by reason. */
  readonly elected = new Map<Reason, number>();
  undecodable = 0;
  readonly #parts: WatchdogParts;
  readonly #incarnation: string;
  readonly #startedMs: number;
  readonly #written = new Map<number, { readonly proposal: Proposal; readonly atMs: number }>();
  #writer: LogWriter;
  #partitions = 0;
  #electionsRead = false;
  #verdictsRead = false;
  /** Since when health is read up to its end, by the listener's time. */
  #listeningSinceMs: number | null = null;
  /** When health was answered last, by the clock. */
  #answeredMs: number;
  /** What the listener's time is behind the clock: see #listen. */
  #deafMs = 0;
  #decidedMs = 0;
  #healthMs = 0;
  #healthUnderWay = false;
  #problem = 'not connected to the broker yet: see kafka.brokers';
  #stopping = false;

  constructor(parts: WatchdogParts) {
    this.#parts = parts;
    this.#incarnation = parts.clock.unique();
    this.#startedMs = parts.clock.now();
    this.#answeredMs = this.#startedMs;
    this.#writer = parts.log.writer();
  }

  get partitions(): number {
    return this.#partitions;
  }

  readiness(): { ready: boolean; reasons: string[] } {
    const reasons: string[] = [];
    if (this.#stopping) reasons.push('stopping');
    else if (this.#problem) reasons.push(this.#problem);
    else if (!this.#electionsRead) reasons.push('reading the elections so far');
    else if (!this.#verdictsRead) reasons.push('reading the verdicts so far');
    return { ready: reasons.length === 0, reasons };
  }

  /** Until the signal is aborted. @throws UnknownSchema when a record was written by a newer version. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const reader = this.#parts.log.reader('committed');
      try {
        await this.#place(reader);
        while (!signal.aborted) {
          this.#take(await reader.poll(pollMs));
          this.#act();
        }
      } catch (error) {
        if (!(error instanceof LogFault)) throw error;
        this.#stopListening(error);
        this.#sayHealth();
        await this.#parts.clock.sleep(retryMs, signal);
      } finally {
        await reader.close();
      }
    }
    this.#stopping = true;
    await this.#writeHealth().catch(() => undefined);
    await this.#writer.close();
  }

  /** Elections and verdicts from their start; health from its end less a bit. */
  async #place(reader: LogReader): Promise<void> {
    const { log } = this.#parts;
    this.#partitions = await log.partitionCount(topics.nars.name);
    const elections = await log.bounds(topics.elections.name, 0);
    const verdicts = await log.bounds(topics.verdicts.name, 0);
    const health = await log.bounds(topics.health.name, 0);
    reader.assign(topics.verdicts.name, 0, verdicts.startOffset);
    reader.assign(topics.elections.name, 0, elections.startOffset);
    reader.assign(topics.health.name, 0, Math.max(health.startOffset, health.endOffset - backlogRecords));
    this.#electionsRead = false;
    this.#verdictsRead = false;
  }

  #stopListening(fault: LogFault): void {
    if (this.#listeningSinceMs !== null) this.#parts.logger.warn({ fault: fault.kind }, `no listening, so no election: ${fault.message}`);
    this.#listeningSinceMs = null;
    this.#problem = `the broker does not answer (${fault.message}): see kafka.brokers`;
  }

  #take(fetched: readonly Fetched[]): void {
    const isAnswered = fetched.some(({ topic }) => topic === topics.health.name);
    if (isAnswered) this.#listen();
    const nowMs = this.listenerMs;
    for (const part of fetched) {
      const atEnd = part.nextOffset >= part.endOffset;
      if (part.topic === topics.elections.name) {
        this.#takeElections(part, nowMs);
        if (atEnd) this.#electionsRead = true;
      } else if (part.topic === topics.verdicts.name) {
        this.#takeVerdicts(part);
        if (atEnd) this.#verdictsRead = true;
      } else {
        this.#takeHealth(part, nowMs);
        if (atEnd) this.#listeningSinceMs ??= nowMs;
      }
    }
    if (this.#listeningSinceMs !== null) this.#problem = '';
  }

  /**
   * The listener's time goes on only while it listens: nobody is silent because nobody listened, whether the broker hung, this process slept, or the
   * clock was set.
   */
  #listen(): void {
    const nowMs = this.#parts.clock.now();
    const sinceMs = nowMs - this.#answeredMs;
    this.#deafMs += sinceMs - Math.min(answerWithinMs, Math.max(0, sinceMs));
    this.#answeredMs = nowMs;
  }

  /** Between two answers it goes on with the clock, within the same bounds. */
  get listenerMs(): number {
    const sinceMs = this.#parts.clock.now() - this.#answeredMs;
    return this.#answeredMs - this.#deafMs + Math.min(answerWithinMs, Math.max(0, sinceMs));
  }

  #takeElections(part: Fetched, nowMs: number): void {
    for (const record of part.records) {
      const election = record.value && this.#decoded(() => electionCodec.decode(record.value!));
      if (!election || !this.elections.apply(election, Math.min(nowMs, record.appendedMs))) continue;
      const { partition, epoch, leader, previous, reason, evidence } = election;
      const own = this.#written.get(partition);
      if (own && epoch >= own.proposal.epoch) this.#written.delete(partition);
      if (election.watchdog !== this.#parts.settings.id || own?.proposal.epoch !== epoch) continue;
      this.elected.set(own.proposal.reason, (this.elected.get(own.proposal.reason) ?? 0) + 1);
      this.#parts.logger.warn({ partition, epoch, leader, previous, reason }, `elected: ${evidence}`);
    }
  }

  #takeVerdicts(part: Fetched): void {
    for (const { value } of part.records) {
      const verdict = value && this.#decoded(() => verdictCodec.decode(value));
      if (verdict) this.verdicts.apply(verdict);
    }
  }

  /** Of records that are read late the age shows against the newest, both by the broker's clock. */
  #takeHealth(part: Fetched, nowMs: number): void {
    const newestMs = part.records.at(-1)?.appendedMs ?? 0;
    for (const record of part.records) {
      const health = record.value && this.#decoded(() => healthCodec.decode(record.value!));
      if (health) this.hearing.hear(health, nowMs - Math.max(0, newestMs - record.appendedMs));
    }
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

  #act(): void {
    const nowMs = this.listenerMs;
    if (this.#electionsRead && this.#verdictsRead && nowMs - this.#decidedMs >= decideIntervalMs) {
      this.#decidedMs = nowMs;
      const proposals = this.#decide(nowMs);
      if (proposals.length > 0) void this.#elect(proposals, nowMs);
    }
    this.#sayHealth();
  }

  #decide(nowMs: number): Proposal[] {
    const { settings } = this.#parts;
    const { hearing, elections, verdicts } = this;
    const heard = { partitions: this.#partitions, hearing, elections, verdicts, listeningSinceMs: this.#listeningSinceMs };
    const options = { silentAfterMs: settings.silent_after, stalledAfterMs: settings.stalled_after, suspicionQuorum: settings.suspicion_quorum };
    return decide(heard, options, nowMs).filter(({ partition }) => {
      const written = this.#written.get(partition);
      return !written || nowMs - written.atMs > readBackWithinMs;
    });
  }

  /** Of all partitions at once: the last of them would wait for as many appends. */
  async #elect(proposals: readonly Proposal[], nowMs: number): Promise<void> {
    const { clock, settings, logger } = this.#parts;
    const messages = proposals.map((proposal) => {
      this.#written.set(proposal.partition, { proposal, atMs: nowMs });
      const value = electionCodec.encode({ ...proposal, watchdog: settings.id, at_ms: clock.now() });
      return { key: Buffer.from(String(proposal.partition)), value };
    });
    try {
      await this.#writer.append(topics.elections.name, 0, messages);
    } catch (error) {
      const partitions = proposals.map(({ partition }) => partition);
      logger.warn({ partitions }, `these elections may not have been written: ${(error as Error).message}`);
    }
  }

  /** One at a time, and nobody waits for it: a slow broker must not keep the watchdog from listening. */
  #sayHealth(): void {
    const nowMs = this.#parts.clock.now();
    const sinceMs = nowMs - this.#healthMs;
    // A clock that was set back must not make it silent until then.
    if (this.#healthUnderWay || (sinceMs >= 0 && sinceMs < healthIntervalMs)) return;
    this.#healthMs = nowMs;
    this.#healthUnderWay = true;
    const done = () => {
      this.#healthUnderWay = false;
    };
    this.#writeHealth().then(done, done);
  }

  async #writeHealth(): Promise<void> {
    const { ready, reasons } = this.readiness();
    const health: Health = {
      role: 'watchdog',
      id: this.#parts.settings.id,
      incarnation: this.#incarnation,
      at_ms: this.#parts.clock.now(),
      started_ms: this.#startedMs,
      ready,
      stopping: this.#stopping,
      reasons,
      partitions: [],
      suspicions: [],
      copy: null,
    };
    const message = { key: Buffer.from(`watchdog/${health.id}`), value: healthCodec.encode(health) };
    await this.#writer.append(topics.health.name, 0, [message]);
  }
}
