/** Follows what the services say of themselves, and who leads: what a live picture is made of. */
import { type Clock, type Log, LogFault } from '../../adapters/ports.ts';
import { Verdicts } from '../../core/judge/verdicts.ts';
import { electionCodec, healthCodec, verdictCodec } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';
import type { Election, Health } from '../../schemas/types.ts';
import { decodedOrNull } from '../log-records.ts';
import { copyFindings, statusFindings } from './diagnosis.ts';
import { newestHealth } from './health-records.ts';
import { type Reports, ratesBetween } from './rates.ts';
import { noteElection, statusOf } from './status.ts';
import type { TopState } from './top-view.ts';

/** Rates are taken over so many frames, or they would flicker. */
const framesOfRate = 5;
const pollMs = 100;

export class SystemWatch {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #reports = new Map<string, Health>();
  readonly #elections = new Map<number, Election>();
  readonly #verdicts = new Verdicts();
  /** The reports of the last frames, oldest first. */
  readonly #frames: Reports[] = [];
  #partitionCount = 0;
  #reader: ReturnType<Log['reader']>;

  private constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
    this.#reader = log.reader('raw');
  }

  /** @throws LogFault */
  static async open(log: Log, clock: Clock): Promise<SystemWatch> {
    const watch = new SystemWatch(log, clock);
    try {
      await watch.#place();
    } catch (error) {
      await watch.close();
      throw error;
    }
    return watch;
  }

  /** After a fault: where it left off may not be there any more. */
  async openAgain(): Promise<void> {
    await this.#reader.close();
    this.#reader = this.#log.reader('raw');
    await this.#place().catch((error: unknown) => {
      // Without what is followed the next frame faults as well, and this is tried again.
      if (!(error instanceof LogFault)) throw error;
    });
  }

  async #place(): Promise<void> {
    const log = this.#log;
    this.#partitionCount = await log.partitionCount(topics.nars.name);
    const health = await log.bounds(topics.health.name, 0);
    // Services that are down said something before that.
    for (const report of await newestHealth(log, this.#clock)) this.#reports.set(`${report.role}/${report.id}`, report);
    this.#reader.assign(topics.health.name, 0, health.endOffset);
    for (const { name } of [topics.elections, topics.verdicts]) this.#reader.assign(name, 0, (await log.bounds(name, 0)).startOffset);
  }

  /** Reads what comes until then, and ends a frame. @throws LogFault */
  async follow(untilMs: number, signal?: AbortSignal): Promise<void> {
    this.#frames.push(new Map(this.#reports));
    if (this.#frames.length > framesOfRate) this.#frames.shift();
    while (this.#clock.now() < untilMs && !signal?.aborted) {
      for (const { topic, records } of await this.#reader.poll(pollMs)) for (const { value } of records) this.#take(topic, value);
    }
  }

  #take(topic: string, value: Uint8Array | null): void {
    if (topic === topics.elections.name) noteElection(this.#elections, decodedOrNull(electionCodec, value));
    else if (topic === topics.verdicts.name) {
      const verdict = decodedOrNull(verdictCodec, value);
      if (verdict) this.#verdicts.apply(verdict);
    } else {
      const report = decodedOrNull(healthCodec, value);
      if (report) this.#reports.set(`${report.role}/${report.id}`, report);
    }
  }

  state(): Omit<TopState, 'problem' | 'imbalanceFlows'> {
    const records = [...this.#reports.values()];
    const facts = { records, elections: this.#elections, verdicts: this.#verdicts, partitionCount: this.#partitionCount };
    const status = statusOf(facts, this.#clock.now());
    const alarms = [...statusFindings(status), ...copyFindings(records)];
    return { status, records, alarms, rates: ratesBetween(this.#frames[0] ?? new Map(), this.#reports) };
  }

  close(): Promise<void> {
    return this.#reader.close();
  }
}
