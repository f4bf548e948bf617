/**
 * The judge: looks at what both replicas have written, and says what they agree on.
 * Several may run: whatever one of them writes or cuts, each of the others could have.
 */
import { type Clock, type Log, LogFault, type Logger, type LogWriter } from '../../adapters/ports.ts';
import type { Digest } from '../../core/aggregate/chain.ts';
import { healthCodec } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';
import type { Health } from '../../schemas/types.ts';
import type { JudgeConfig } from './config.ts';

export type JudgeSettings = Omit<JudgeConfig, 'http'>;

export interface JudgeParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly digest: Digest;
  readonly settings: JudgeSettings;
}

export class Judge {
  /** Turns that a fault of the log broke off; the next one begins anew. */
  faults = 0;
  readonly #parts: JudgeParts;
  readonly #incarnation: string;
  readonly #startedMs: number;
  readonly #writer: LogWriter;
  #partitions = 0;
  #problem = 'not connected to the broker yet: see kafka.brokers';
  #stopping = false;

  constructor(parts: JudgeParts) {
    this.#parts = parts;
    this.#incarnation = parts.clock.unique();
    this.#startedMs = parts.clock.now();
    this.#writer = parts.log.writer();
  }

  /** 0 before the broker was reached. */
  get partitions(): number {
    return this.#partitions;
  }

  readiness(): { ready: boolean; reasons: string[] } {
    const reasons: string[] = [];
    if (this.#stopping) reasons.push('stopping');
    else if (this.#problem) reasons.push(this.#problem);
    return { ready: reasons.length === 0, reasons };
  }

  /** Until the signal is aborted. @throws UnknownSchema when a record was written by a newer version. */
  async run(signal: AbortSignal): Promise<void> {
    const failed = new AbortController();
    const stop = AbortSignal.any([signal, failed.signal]);
    const telling = this.#tellHealth(stop);
    try {
      await this.#work(stop);
    } finally {
      failed.abort();
      this.#stopping = true;
      await telling;
      await this.#writeHealth();
      await this.#writer.close();
    }
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { clock, logger, settings } = this.#parts;
    while (!signal.aborted) {
      try {
        await this.#turn();
        this.#problem = '';
      } catch (error) {
        if (!(error instanceof LogFault)) throw error;
        this.faults++;
        this.#problem = `the broker does not answer (${error.message}): see kafka.brokers`;
        logger.debug({ fault: error.message }, 'a turn was broken off');
      }
      await clock.sleep(settings.interval, signal);
    }
  }

  /** @throws LogFault */
  async #turn(): Promise<void> {
    this.#partitions = await this.#parts.log.partitionCount(topics.nars.name);
  }

  /** Beside the turns, which may take long. */
  async #tellHealth(signal: AbortSignal): Promise<void> {
    const { clock, settings } = this.#parts;
    while (!signal.aborted) {
      await this.#writeHealth();
      await clock.sleep(settings.health_interval, signal);
    }
  }

  async #writeHealth(): Promise<void> {
    const { clock, settings, logger } = this.#parts;
    const { ready, reasons } = this.readiness();
    const health: Health = {
      role: 'judge',
      id: settings.id,
      incarnation: this.#incarnation,
      at_ms: clock.now(),
      started_ms: this.#startedMs,
      ready,
      stopping: this.#stopping,
      reasons,
      partitions: [],
      suspicions: [],
      copy: null,
    };
    try {
      await this.#writer.append(topics.health.name, 0, [{ key: Buffer.from(`judge/${settings.id}`), value: healthCodec.encode(health) }]);
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      logger.debug({ fault: error.message }, 'health not written');
    }
  }
}
