/**
 * The feed: reads the outputs of both replicas and the elections, and writes the elected ones to topic aggregates, each once.
 * One reader serves all partitions; each partition writes by itself, so that a slow transaction holds up no other.
 */
import { type Clock, type Fetched, type Log, LogFault, type Logger, type LogReader, type LogWriter } from '../../adapters/ports.ts';
import type { Digest } from '../../core/aggregate/chain.ts';
import { Elections } from '../../core/elect/elections.ts';
import { FeedPartition } from '../../core/feed/partition.ts';
import { seamText } from '../../core/feed/seam.ts';
import { Verdicts } from '../../core/judge/verdicts.ts';
import { electionCodec, healthCodec, UndecodableRecord, verdictCodec } from '../../schemas/codec.ts';
import { messageBytesMax, replicas, topics } from '../../schemas/topics.ts';
import type { Health, PartitionHealth } from '../../schemas/types.ts';
import type { FeedConfig } from './config.ts';
import { Emission } from './emission.ts';

/** As long as nothing happens; what arrives is acted upon at once. */
const pollMs = 100;
const retryMs = 250;
const notePositionsMs = 5_000;

export type FeedSettings = Pick<
  FeedConfig,
  'id' | 'emit' | 'agree_within' | 'history' | 'transaction_outputs_max' | 'standby_after' | 'health_interval'
>;

export interface FeedParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly digest: Digest;
  readonly settings: FeedSettings;
}

export class Feed {
  readonly elections = new Elections();
  readonly verdicts = new Verdicts();
  undecodable = 0;
  readonly #parts: FeedParts;
  readonly #incarnation: string;
  readonly #startedMs: number;
  readonly #writer: LogWriter;
  #emissions: Emission[] = [];
  #electionsRead = false;
  #verdictsRead = false;
  #problem = 'not connected to the broker yet: see kafka.brokers';
  #healthMs = 0;
  #healthUnderWay = false;
  #notedMs = 0;
  #notesUnderWay = false;
  #failure: unknown = null;
  #stopping = false;

  constructor(parts: FeedParts) {
    this.#parts = parts;
    this.#incarnation = parts.clock.unique();
    this.#startedMs = parts.clock.now();
    this.#writer = parts.log.writer();
  }

  get emissions(): readonly Emission[] {
    return this.#emissions;
  }

  get partitions(): readonly FeedPartition[] {
    return this.#emissions.map(({ partition }) => partition);
  }

  readiness(): { ready: boolean; reasons: string[] } {
    const reasons: string[] = [];
    if (this.#stopping) reasons.push('stopping');
    else if (this.#problem) reasons.push(this.#problem);
    else if (!this.#electionsRead || !this.#verdictsRead) reasons.push('reading the elections and verdicts so far');
    const degraded: string[] = [];
    for (const { partition } of this.#emissions) {
      const { name } = partition.phase;
      if (name === 'starting') reasons.push(`partition ${partition.partition} ${partition.describe()}`);
      if (name === 'held') degraded.push(`partition ${partition.partition} is ${partition.describe()}; see "flowledger audit"`);
      if (partition.isStarved) degraded.push(`partition ${partition.partition}: ${partition.describe()}`);
    }
    return { ready: reasons.length === 0, reasons: [...reasons, ...degraded] };
  }

  /** Until the signal is aborted. @throws UnknownSchema when a record was written by a newer version. */
  async run(signal: AbortSignal): Promise<void> {
    const reader = this.#parts.log.reader('committed');
    try {
      await this.#loop(reader, signal);
    } finally {
      this.#stopping = true;
      await Promise.all(this.#emissions.map((emission) => emission.close()));
      await this.#notePositions().catch(() => undefined);
      await this.#writeHealth().catch(() => undefined);
      await Promise.all([reader.close(), this.#writer.close()]);
    }
    if (this.#failure) throw this.#failure;
  }

  async #loop(reader: LogReader, signal: AbortSignal): Promise<void> {
    let begun = false;
    while (!signal.aborted && !this.#failure) {
      try {
        begun = begun || (await this.#begin(reader));
        this.#take(await reader.poll(pollMs));
        this.#problem = '';
        this.#act();
      } catch (error) {
        if (!(error instanceof LogFault)) throw error;
        this.#meet(error, reader);
        this.#act();
        await this.#parts.clock.sleep(retryMs, signal);
      }
    }
  }

  async #begin(reader: LogReader): Promise<boolean> {
    const { log, settings, clock, digest, logger } = this.#parts;
    const partitions = await log.partitionCount(topics.aggregates.name);
    const options = {
      emit: settings.emit,
      agreeWithinMs: settings.agree_within,
      transactionOutputsMax: settings.transaction_outputs_max,
      transactionBytesMax: messageBytesMax,
      standbyAfterMs: settings.standby_after,
      chance: () => clock.random(),
    };
    await this.#placeElections(reader);
    await this.#placeVerdicts(reader);
    this.#emissions = Array.from({ length: partitions }, (_, n) => {
      const partition = new FeedPartition(n, options, digest);
      return new Emission({ partition, log, reader, clock, logger, digest, historyMs: settings.history, failed: (error) => this.#fail(error) });
    });
    return true;
  }

  async #placeElections(reader: LogReader): Promise<void> {
    const { startOffset } = await this.#parts.log.bounds(topics.elections.name, 0);
    this.#electionsRead = false;
    reader.assign(topics.elections.name, 0, startOffset);
  }

  async #placeVerdicts(reader: LogReader): Promise<void> {
    const { startOffset } = await this.#parts.log.bounds(topics.verdicts.name, 0);
    this.#verdictsRead = false;
    reader.assign(topics.verdicts.name, 0, startOffset);
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
  }

  #meet(fault: LogFault, reader: LogReader): void {
    this.#problem = `the broker does not answer (${fault.message}): see kafka.brokers`;
    if (fault.kind !== 'out_of_range') return;
    this.#parts.logger.error({ at: fault.at }, `a log that the feed reads is not what it was: ${fault.message}`);
    const { at } = fault;
    if (!at || at.topic === topics.elections.name) {
      reader.unassign(topics.elections.name, 0);
      this.#placeElections(reader).catch(() => reader.assign(topics.elections.name, 0, 0));
    }
    if (!at || at.topic === topics.verdicts.name) {
      reader.unassign(topics.verdicts.name, 0);
      this.#placeVerdicts(reader).catch(() => reader.assign(topics.verdicts.name, 0, 0));
    }
    if (at?.topic === topics.elections.name || at?.topic === topics.verdicts.name) return;
    for (const emission of this.#emissions) if (!at || at.partition === emission.partition.partition) emission.forget(at?.topic);
  }

  #take(fetched: readonly Fetched[]): void {
    for (const part of fetched) {
      if (part.topic === topics.elections.name) this.#takeElections(part);
      else if (part.topic === topics.verdicts.name) this.#takeVerdicts(part);
      else this.#emissions[part.partition]?.take(part);
    }
  }

  #takeElections(part: Fetched): void {
    for (const { value, appendedMs } of part.records) {
      try {
        if (!value || !this.elections.apply(electionCodec.decode(value), appendedMs)) continue;
      } catch (error) {
        if (!(error instanceof UndecodableRecord)) throw error;
        this.undecodable++;
      }
    }
    if (part.nextOffset >= part.endOffset) this.#electionsRead = true;
  }

  #takeVerdicts(part: Fetched): void {
    for (const { value } of part.records) {
      try {
        if (value) this.verdicts.apply(verdictCodec.decode(value));
      } catch (error) {
        if (!(error instanceof UndecodableRecord)) throw error;
        this.undecodable++;
      }
    }
    if (part.nextOffset >= part.endOffset) this.#verdictsRead = true;
  }

  #judge(emission: Emission): void {
    for (const replica of replicas) {
      const verdict = this.verdicts.last(emission.partition.partition, replica);
      if (verdict) emission.judge(replica, verdict);
    }
  }

  #act(): void {
    for (const emission of this.#emissions) {
      // Or what was wrong and is forgotten would be compared.
      if (!this.#verdictsRead) break;
      this.#judge(emission);
      // Until they are read to their end, an election may be one that others followed.
      if (this.#electionsRead) emission.partition.elect(this.elections.leader(emission.partition.partition));
      emission.proceed();
    }
    const nowMs = this.#parts.clock.now();
    if (!this.#healthUnderWay && nowMs - this.#healthMs >= this.#parts.settings.health_interval) {
      this.#healthMs = nowMs;
      this.#healthUnderWay = true;
      const done = () => {
        this.#healthUnderWay = false;
      };
      this.#writeHealth().then(done, done);
    }
    if (!this.#notesUnderWay && nowMs - this.#notedMs >= notePositionsMs) {
      this.#notedMs = nowMs;
      this.#notesUnderWay = true;
      const done = () => {
        this.#notesUnderWay = false;
      };
      this.#notePositions().then(done, done);
    }
  }

  async #notePositions(): Promise<void> {
    for (const emission of this.#emissions) {
      await emission.notePositions();
      await emission.cutHeads();
    }
  }

  async #writeHealth(): Promise<void> {
    const nowMs = this.#parts.clock.now();
    const { ready, reasons } = this.readiness();
    const health: Health = {
      role: 'feed',
      id: this.#parts.settings.id,
      incarnation: this.#incarnation,
      at_ms: nowMs,
      started_ms: this.#startedMs,
      ready,
      stopping: this.#stopping,
      reasons,
      partitions: this.partitions.map((partition) => partitionHealth(partition, nowMs)),
      suspicions: [],
      copy: null,
    };
    const message = { key: Buffer.from(`feed/${health.id}`), value: healthCodec.encode(health) };
    await this.#writer.append(topics.health.name, 0, [message]);
  }
}

const stateNames = { starting: 'starting', standby: 'standby', active: 'running', held: 'held' } as const;

/** end_offset is one more than the leader's last n, as next_offset is one more than the last n emitted. */
function partitionHealth(partition: FeedPartition, nowMs: number): PartitionHealth {
  const { tail, leader } = partition;
  const n = tail?.n ?? 0;
  const outputs = leader ? partition.outputs[leader] : null;
  const waiting = outputs?.item(n + 1);
  return {
    partition: partition.partition,
    next_offset: n + 1,
    end_offset: Math.max(n, outputs?.lastN ?? 0) + 1,
    lag_ms: waiting ? Math.max(0, nowMs - waiting.arrivedMs) : 0,
    n,
    chain: tail?.chain ?? Buffer.alloc(0),
    watermark_ms: tail?.watermarkMs ?? 0,
    open_flows: 0,
    state: partition.isStarved ? 'stopped' : stateNames[partition.phase.name],
    detail: partition.describe() || (partition.seam ? seamText(partition.seam) : ''),
  };
}
