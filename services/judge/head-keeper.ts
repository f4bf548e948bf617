/**
 * One partition of nars, as the judge sees it: finds the newest snapshot that both replicas agree on, records it, and cuts the head behind it.
 * Order of the effects (I16): both snapshots read back, the agreement recorded, the agreement read back, the head cut.
 */
import type { RunningDigest } from '../../adapters/digest.ts';
import type { Clock, Log, Logger, LogWriter } from '../../adapters/ports.ts';
import { newestAgreed, records, type StandingSnapshot } from '../../core/judge/agreement.ts';
import { cutBefore, type Holding, holdings } from '../../core/judge/head.ts';
import { agreementCodec } from '../../schemas/codec.ts';
import { type Replica, replicas, topics } from '../../schemas/topics.ts';
import type { Agreement } from '../../schemas/types.ts';
import type { AgreementLog } from '../agreement-log.ts';
import { recordsBetween } from '../log-records.ts';
import type { JudgeConfig } from './config.ts';
import { StandingLog } from './standing.ts';

const { name: nars } = topics.nars;
/** A process that stood still for longer asks again which log it is about to cut. */
const sureWithinMs = 1_000;

export interface HeadParts {
  readonly log: Log;
  readonly writer: LogWriter;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly runningDigest: () => RunningDigest;
  /** Shared by all partitions, refreshed before each turn. */
  readonly agreements: AgreementLog;
  readonly settings: Pick<JudgeConfig, 'history' | 'held_after'>;
}

export class HeadKeeper {
  readonly partition: number;
  readonly counters = { agreements: 0, cuts: 0, cutRecords: 0, untrueSnapshots: 0 };
  /** First offset of nars that is not cut, and the next one to be written; as of the last turn. */
  startOffset = 0;
  endOffset = 0;
  agreement: Agreement | null = null;
  holdings: readonly Holding[] = [];
  readonly #parts: HeadParts;
  readonly #standing: Readonly<Record<Replica, StandingLog>>;
  /** The last snapshot whose states were read and found to be what their chunks say. */
  #verified: StandingSnapshot | null = null;
  /** Append time of the record at an offset. */
  #uncovered = { topicId: '', offset: -1, appendedMs: 0 };

  constructor(parts: HeadParts, partition: number) {
    this.#parts = parts;
    this.partition = partition;
    const standingOf = (replica: Replica) => new StandingLog(parts.log, replica, partition, parts.runningDigest);
    this.#standing = { a: standingOf('a'), b: standingOf('b') };
  }

  /** @throws LogFault, UnknownSchema */
  async turn(): Promise<void> {
    const { log, agreements } = this.#parts;
    const topicId = await log.topicId(nars);
    for (const replica of replicas) await this.#standing[replica].refresh();
    const found = await this.#newestAgreed(topicId);
    this.agreement = agreements.of(this.partition, topicId);
    if (found && records(this.agreement, found)) await this.#cut(found);
    else if (found && found.offset > (this.agreement?.offset ?? -1)) await this.#record(found);
    const { startOffset, endOffset } = await log.bounds(nars, this.partition);
    this.startOffset = startOffset;
    this.endOffset = endOffset;
    await this.#lookForHoldings(topicId);
  }

  /** Both states are read back whole; one that is not what it says is left out from then on. */
  async #newestAgreed(topicId: string): Promise<StandingSnapshot | null> {
    for (;;) {
      const found = newestAgreed({ a: this.#standing.a.snapshots, b: this.#standing.b.snapshots }, topicId);
      if (!found) return null;
      const isKnown = this.#verified?.name === found.a.name && this.#verified.digest === found.a.digest;
      if (isKnown || records(this.#parts.agreements.of(this.partition, topicId), found.a)) return found.a;
      const untrue: Replica[] = [];
      for (const replica of replicas) if (!(await this.#standing[replica].isTrue(found[replica]))) untrue.push(replica);
      if (untrue.length === 0) {
        this.#verified = found.a;
        return found.a;
      }
      for (const replica of untrue) {
        this.counters.untrueSnapshots++;
        this.#standing[replica].snapshots.discard(found[replica].name);
        const facts = { partition: this.partition, replica, offset: found[replica].offset };
        this.#parts.logger.error(facts, 'the snapshot is not what its chunks say, and is left out; the next one is waited for');
      }
    }
  }

  /** What is recorded counts when it is read back, in a later turn. */
  async #record({ topicId, offset, n, chain, digest }: StandingSnapshot): Promise<void> {
    const { writer, clock, logger } = this.#parts;
    const { partition } = this;
    const agreement: Agreement = {
      partition,
      topic_id: topicId,
      offset,
      n,
      chain: Buffer.from(chain, 'hex'),
      digest: Buffer.from(digest, 'hex'),
      at_ms: clock.now(),
    };
    await writer.append(topics.agreements.name, 0, [{ key: Buffer.from(String(partition)), value: agreementCodec.encode(agreement) }]);
    this.counters.agreements++;
    logger.debug({ partition, offset, n }, 'both replicas agree on a snapshot');
  }

  async #cut({ topicId, offset }: StandingSnapshot): Promise<void> {
    const { log, clock, settings, logger } = this.#parts;
    const { partition } = this;
    const { startOffset } = await log.bounds(nars, partition);
    const before = cutBefore(offset, await log.offsetAt(nars, partition, clock.now() - settings.history));
    if (before <= startOffset) return;
    const askedMs = clock.now();
    // Offsets of a log that was replaced meanwhile say nothing of the present one.
    if ((await log.topicId(nars)) !== topicId || clock.now() - askedMs > sureWithinMs) return;
    await log.deleteRecords(nars, partition, before);
    this.counters.cuts++;
    this.counters.cutRecords += before - startOffset;
    logger.debug({ partition, from: startOffset, to: before, agreed: offset }, 'the head of nars is cut');
  }

  async #lookForHoldings(topicId: string): Promise<void> {
    const { clock, settings } = this.#parts;
    const newest = { a: this.#standing.a.snapshots.newest(topicId), b: this.#standing.b.snapshots.newest(topicId) };
    const agreedOffset = this.agreement?.offset ?? 0;
    const uncoveredMs = await this.#uncoveredMs(topicId, Math.max(agreedOffset, this.startOffset));
    this.holdings = holdings({ agreedOffset, endOffset: this.endOffset, newest, uncoveredMs }, settings.held_after, clock.now());
  }

  /** Known from the log, so that a judge that is started anew tells the same. */
  async #uncoveredMs(topicId: string, offset: number): Promise<number | null> {
    if (offset >= this.endOffset) return null;
    if (this.#uncovered.topicId !== topicId || this.#uncovered.offset !== offset) {
      let appendedMs: number | null = null;
      for await (const record of recordsBetween(this.#parts.log, nars, this.partition, offset, Math.min(offset + 1, this.endOffset))) {
        appendedMs ??= record.appendedMs;
      }
      if (appendedMs === null) return null;
      this.#uncovered = { topicId, offset, appendedMs };
    }
    return this.#uncovered.appendedMs;
  }
}
