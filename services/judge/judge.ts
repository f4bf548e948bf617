/**
 * The judge: looks at what both replicas have written, says what they agree on, and, where they differ, which of them is wrong.
 * Several may run: whatever one of them writes or cuts, each of the others could have.
 */

import type { RunningDigest } from '../../adapters/digest.ts';
import { type Clock, type Log, LogFault, type Logger, type LogWriter } from '../../adapters/ports.ts';
import type { Digest } from '../../core/aggregate/chain.ts';
import { DiskGrowth } from '../../core/judge/disk.ts';
import type { Holding } from '../../core/judge/head.ts';
import { healthCodec } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';
import type { Health } from '../../schemas/types.ts';
import { AgreementLog } from '../agreement-log.ts';
import type { JudgeConfig } from './config.ts';
import { HeadKeeper } from './head-keeper.ts';
import { Judging } from './judging.ts';

/** Disks fill slowly, and every broker is asked. */
const disksIntervalMs = 60_000;

export type JudgeSettings = Omit<JudgeConfig, 'http'>;

export interface JudgeParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly digest: Digest;
  readonly runningDigest: () => RunningDigest;
  readonly settings: JudgeSettings;
}

export class Judge {
  /** Turns that a fault of the log broke off; the next one begins anew. */
  faults = 0;
  readonly disks = new DiskGrowth();
  readonly judging: Judging;
  readonly #parts: JudgeParts;
  readonly #incarnation: string;
  readonly #startedMs: number;
  readonly #writer: LogWriter;
  readonly #agreements: AgreementLog;
  #heads: HeadKeeper[] = [];
  #disksMs = Number.NEGATIVE_INFINITY;
  #disksFault = '';
  #problem = 'not connected to the broker yet: see kafka.brokers';
  #stopping = false;

  constructor(parts: JudgeParts) {
    this.#parts = parts;
    this.#incarnation = parts.clock.unique();
    this.#startedMs = parts.clock.now();
    this.#writer = parts.log.writer();
    this.#agreements = new AgreementLog(parts.log);
    this.judging = new Judging({ ...parts, id: parts.settings.id });
  }

  /** One for each partition of nars; empty before the broker was reached. */
  get heads(): readonly HeadKeeper[] {
    return this.#heads;
  }

  readiness(): { ready: boolean; reasons: string[] } {
    const reasons: string[] = [];
    if (this.#stopping) reasons.push('stopping');
    else if (this.#problem) reasons.push(this.#problem);
    return { ready: reasons.length === 0, reasons: [...reasons, ...this.judging.reasons, ...this.#alarms()] };
  }

  #alarms(): string[] {
    const fullInMs = this.disks.soonestFullMs;
    const disk = fullInMs === null ? '' : `; the first disk is full in ${(fullInMs / hourMs).toFixed(1)} hours at the present growth`;
    return this.#heads.flatMap((head) => head.holdings.map((holding) => `${describeHolding(head.partition, holding)}${disk}`));
  }

  /** Until the signal is aborted. @throws UnknownSchema when a record was written by a newer version. */
  async run(signal: AbortSignal): Promise<void> {
    const failed = new AbortController();
    const stop = AbortSignal.any([signal, failed.signal]);
    const telling = this.#tellHealth(stop);
    const judging = this.judging.run(stop).finally(() => failed.abort());
    try {
      await this.#work(stop);
      await judging;
    } finally {
      failed.abort();
      this.#stopping = true;
      await judging.catch(() => undefined);
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
    const { log, settings } = this.#parts;
    const count = await log.partitionCount(topics.nars.name);
    const parts = { ...this.#parts, writer: this.#writer, agreements: this.#agreements, settings };
    for (let partition = this.#heads.length; partition < count; partition++) this.#heads.push(new HeadKeeper(parts, partition));
    await this.#agreements.refresh();
    // One partition whose broker is away does not keep the others from their turn.
    const faults: LogFault[] = [];
    for (const head of this.#heads) await head.turn().catch((error) => void faults.push(requireFault(error)));
    await this.#lookAtDisks();
    if (faults[0]) throw faults[0];
  }

  async #lookAtDisks(): Promise<void> {
    const { log, clock, settings, logger } = this.#parts;
    const now = clock.now();
    if (now - this.#disksMs < disksIntervalMs) return;
    this.#disksMs = now;
    try {
      const disks = await log.disks();
      const usable = (logBytes: number) => (settings.disk_size > 0 ? Math.max(0, settings.disk_size - logBytes) : null);
      const sizes = disks.map(({ broker, path, logBytes, usableBytes }) => ({
        name: `${broker}:${path}`,
        logBytes,
        usableBytes: usableBytes ?? usable(logBytes),
      }));
      this.disks.take(sizes, now);
      this.#disksFault = '';
    } catch (error) {
      const { message } = requireFault(error);
      // An older broker, or one that does not let us ask: the heads are cut all the same.
      if (this.#disksFault !== message) logger.warn({ fault: message }, 'the size of the disks is not told; see judge.disk_size');
      this.#disksFault = message;
    }
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

const hourMs = 3_600_000;

function describeHolding(partition: number, { replica, sinceMs, offset, otherOffset }: Holding): string {
  const since = `since ${new Date(sinceMs).toISOString()}`;
  const behind = `aggregator ${replica} holds the head of nars/${partition} back ${since}: its newest snapshot is at offset ${offset}`;
  if (offset < otherOffset) return `${behind}, the other one's at ${otherOffset}; start it (an empty one restores itself from the other)`;
  return `${behind}, and no newer one is agreed on; see "flowledger status", and aggregate.snapshot_every`;
}

/** @throws what is no fault of the log */
function requireFault(error: unknown): LogFault {
  if (error instanceof LogFault) return error;
  throw error;
}
