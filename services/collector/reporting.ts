/** The collector's word on topic health: at its interval, and at once when a suspicion arises or goes. */
import { type Clock, type Log, LogFault, type LogWriter } from '../../adapters/ports.ts';
import { healthCodec } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';
import type { Health } from '../../schemas/types.ts';
import type { CollectorStats } from './collector.ts';

export interface ReportingParts {
  readonly collector: string;
  readonly log: Log;
  readonly clock: Clock;
  readonly healthIntervalMs: number;
  readonly stats: () => CollectorStats;
}

/** How often suspicions are looked at, at least. */
const lookMs = 100;
/** So many lines at most make a record of a few KiB, several times a second. */
const exportersMax = 100;
/** The last report is worth no longer wait. */
const lastWithinMs = 1_000;

export class Reporting {
  readonly #parts: ReportingParts;
  readonly #writer: LogWriter;
  readonly #key: Buffer;
  readonly #startedMs: number;
  readonly #process: string;
  #isStopping = false;
  #suspected = '';
  #reportedMs = 0;
  readonly counters = { reports: 0, faults: 0 };

  constructor(parts: ReportingParts) {
    this.#parts = parts;
    this.#writer = parts.log.writer();
    this.#key = Buffer.from(`collector/${parts.collector}`);
    this.#startedMs = parts.clock.now();
    this.#process = parts.clock.unique();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, healthIntervalMs } = this.#parts;
    while (!signal.aborted) {
      const stats = this.#parts.stats();
      const suspected = stats.suspicions.map(({ replica, partition }) => `${replica}${partition}`).join();
      if (suspected !== this.#suspected || clock.now() - this.#reportedMs >= healthIntervalMs) {
        this.#suspected = suspected;
        this.#reportedMs = clock.now();
        await this.#report(stats);
      }
      await clock.sleep(Math.min(lookMs, healthIntervalMs), signal);
    }
  }

  stopping(): void {
    this.#isStopping = true;
  }

  /** The last report says that the stop is meant. */
  async last(): Promise<void> {
    const late = this.#parts.clock.sleep(lastWithinMs);
    await Promise.race([this.#report(this.#parts.stats()), late]);
  }

  close(): Promise<void> {
    return this.#writer.close();
  }

  async #report(stats: CollectorStats): Promise<void> {
    try {
      await this.#writer.append(topics.health.name, 0, [{ key: this.#key, value: healthCodec.encode(this.#health(stats)) }]);
      this.counters.reports++;
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      this.counters.faults++;
    }
  }

  #health(stats: CollectorStats): Health {
    const { figures } = stats;
    return {
      role: 'collector',
      id: this.#parts.collector,
      incarnation: this.#process,
      at_ms: this.#parts.clock.now(),
      started_ms: this.#startedMs,
      ready: stats.ready && !this.#isStopping,
      stopping: this.#isStopping,
      reasons: stats.reasons,
      partitions: [],
      suspicions: stats.suspicions.map(({ replica, partition, sinceMs }) => ({ replica, partition, since_ms: sinceMs })),
      copy: {
        store: stats.store,
        durable: stats.durable,
        batches: figures.batches,
        nars: figures.nars,
        bytes: stats.bytes.store + stats.bytes.memory,
        bytes_max: stats.bytesMax,
        unconfirmed_nars: figures.unconfirmedNars,
        unacknowledged_a_nars: figures.unacknowledgedNars.a,
        unacknowledged_b_nars: figures.unacknowledgedNars.b,
        oldest_ms: figures.oldestMs,
        received_datagrams: stats.decoder.datagrams,
        decoded_flows: stats.decoder.flows,
        pending_nars: stats.pendingNars,
        exporters: stats.holdings.largest(exportersMax),
      },
    };
  }
}
