/**
 * The aggregator: folds all partitions of nars as replica a or b. One reader serves them all, nars and own outputs alike;
 * each partition writes by itself, so that a slow one holds up no other.
 */
import { type Fetched, LogFault, type LogReader, type LogRecord, type LogWriter } from '../../adapters/ports.ts';
import { Verdicts } from '../../core/judge/verdicts.ts';
import { healthCodec, UndecodableRecord, verdictCodec } from '../../schemas/codec.ts';
import { otherReplica, topics } from '../../schemas/topics.ts';
import type { Health } from '../../schemas/types.ts';
import { ReplicaPartition } from './partition.ts';
import type { AggregatorParts } from './running.ts';

/** As long as nothing happens; what arrives is folded at once. */
const pollMsMax = 100;
const retryMs = 250;
/** Folded of a partition before others have their turn: some 10 ms of work. */
const sliceBytes = 512 * 1024;
/** No turn takes longer in a process that runs. */
const turnMsMax = 1_000;
/** At a stop, for what is not written yet. */
const stopWithinMs = 10_000;

export class Aggregator {
  readonly #parts: AggregatorParts;
  readonly #incarnation: string;
  readonly #startedMs: number;
  readonly #reader: LogReader;
  readonly #writer: LogWriter;
  readonly #pollMs: number;
  readonly #verdicts = new Verdicts();
  #verdictsRead = false;
  #partitions: ReplicaPartition[] = [];
  #problem = 'not connected to the broker yet: see kafka.brokers';
  #healthMs = Number.NEGATIVE_INFINITY;
  #healthUnderWay: Promise<void> | null = null;
  #turnMs = Number.POSITIVE_INFINITY;
  #stopping = false;

  constructor(parts: AggregatorParts) {
    this.#parts = parts;
    this.#incarnation = parts.clock.unique();
    this.#startedMs = parts.clock.now();
    this.#reader = parts.log.reader('committed');
    this.#writer = parts.log.writer();
    this.#pollMs = Math.min(pollMsMax, parts.settings.ack_interval, parts.settings.health_interval);
  }

  /** Empty before the broker was reached. */
  get partitions(): readonly ReplicaPartition[] {
    return this.#partitions;
  }

  readiness(): { ready: boolean; reasons: string[] } {
    const reasons: string[] = [];
    if (this.#stopping) reasons.push('stopping');
    if (this.#problem) reasons.push(this.#problem);
    for (const { partition, problem } of this.#partitions) if (problem) reasons.push(`partition ${partition}: ${problem}`);
    return { ready: reasons.length === 0, reasons };
  }

  /** Until the signal is aborted and what was folded is written, read back and acknowledged. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#place(signal);
      while (!signal.aborted) await this.#turn();
      await this.#stop();
    } finally {
      await this.#reader.close();
      await this.#writer.close();
    }
  }

  async #place(signal: AbortSignal): Promise<void> {
    const { log, clock, logger } = this.#parts;
    while (!signal.aborted) {
      try {
        const count = await log.partitionCount(topics.nars.name);
        await this.#placeVerdicts();
        this.#partitions = Array.from({ length: count }, (_, partition) => new ReplicaPartition(this.#parts, partition, this.#reader, this.#writer));
        this.#problem = '';
        return;
      } catch (error) {
        if (!(error instanceof LogFault)) throw error;
        this.#problem = error.kind === 'missing' ? `${error.message}: run "flowledger topics"` : error.message;
        logger.debug({ fault: error.message }, 'the broker is not reachable');
        await clock.sleep(retryMs, signal);
      }
    }
  }

  async #placeVerdicts(): Promise<void> {
    const { startOffset } = await this.#parts.log.bounds(topics.verdicts.name, 0);
    this.#reader.assign(topics.verdicts.name, 0, startOffset);
  }

  async #turn(): Promise<void> {
    const { clock } = this.#parts;
    const isBusy = this.#partitions.some((partition) => partition.canFold);
    try {
      for (const fetched of await this.#reader.poll(isBusy ? 0 : this.#pollMs)) this.#take(fetched);
      if (this.#problem) this.#problem = '';
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      this.#readerFailed(error);
      await clock.sleep(retryMs);
    }
    this.#judge();
    if (clock.now() - this.#turnMs > turnMsMax) for (const partition of this.#partitions) partition.mistrust();
    this.#turnMs = clock.now();
    for (const partition of this.#partitions) if (partition.canFold) partition.foldSome(sliceBytes);
    for (const partition of this.#partitions) {
      partition.work();
      if (partition.failure) throw partition.failure;
    }
    this.#tellHealth(false);
  }

  #take({ topic, partition, records, nextOffset, endOffset }: Fetched): void {
    if (topic === topics.verdicts.name) {
      for (const record of records) this.#takeVerdict(record);
      if (nextOffset >= endOffset) this.#verdictsRead = true;
      return;
    }
    const target = this.#partitions[partition];
    if (topic === topics.nars.name) target?.takeNars(records, endOffset);
    else target?.takeOutputs(records, nextOffset);
  }

  #takeVerdict({ value }: LogRecord): void {
    try {
      if (value) this.#verdicts.apply(verdictCodec.decode(value));
    } catch (error) {
      if (!(error instanceof UndecodableRecord)) throw error;
      this.#parts.logger.error({}, 'a verdict cannot be decoded');
    }
  }

  /** Before anything else is folded or written. */
  #judge(): void {
    if (!this.#verdictsRead) return;
    const { replica } = this.#parts;
    for (const partition of this.#partitions) {
      const number = partition.partition;
      partition.judge({ own: this.#verdicts.last(number, replica), other: this.#verdicts.last(number, otherReplica(replica)) });
    }
  }

  /** Which partition it concerns is not always known, so each looks where it stands. */
  #readerFailed(fault: LogFault): void {
    this.#problem = fault.message;
    this.#parts.logger.debug({ fault: fault.message }, 'reading failed');
    if (fault.kind === 'out_of_range' && fault.at?.topic === topics.verdicts.name) {
      // Another topic of that name: what was judged before stands, until it says something else.
      this.#reader.unassign(topics.verdicts.name, 0);
      this.#placeVerdicts().catch(() => this.#reader.assign(topics.verdicts.name, 0, 0));
      return;
    }
    for (const partition of this.#partitions) if (fault.at === undefined || fault.at.partition === partition.partition) partition.readerFailed(fault);
  }

  async #stop(): Promise<void> {
    const { clock } = this.#parts;
    this.#stopping = true;
    for (const partition of this.#partitions) partition.stop();
    const untilMs = clock.now() + stopWithinMs;
    while (clock.now() < untilMs && this.#partitions.some((partition) => !partition.isStopped)) await this.#turn();
    await this.#healthUnderWay;
    this.#tellHealth(true);
    await this.#healthUnderWay;
  }

  #tellHealth(isLast: boolean): void {
    const { clock, settings } = this.#parts;
    const now = clock.now();
    if (this.#healthUnderWay || (!isLast && now - this.#healthMs < settings.health_interval)) return;
    this.#healthMs = now;
    this.#healthUnderWay = this.#writeHealth(this.#health(now, isLast)).finally(() => {
      this.#healthUnderWay = null;
    });
  }

  #health(now: number, isLast: boolean): Health {
    const { ready, reasons } = this.readiness();
    return {
      role: 'aggregator',
      id: this.#parts.replica,
      incarnation: this.#incarnation,
      at_ms: now,
      started_ms: this.#startedMs,
      ready,
      stopping: isLast,
      reasons,
      partitions: this.#partitions.map((partition) => partition.health()),
      suspicions: [],
      copy: null,
    };
  }

  async #writeHealth(health: Health): Promise<void> {
    try {
      await this.#writer.append(topics.health.name, 0, [
        { key: Buffer.from(`aggregator/${this.#parts.replica}`), value: healthCodec.encode(health) },
      ]);
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      this.#parts.logger.debug({ fault: error.message }, 'health not written');
    }
  }
}
