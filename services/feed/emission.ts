/** One partition of the feed at work: carries out what core says, one thing after another. */
import type { Clock, Fetched, Log, Logger, LogReader, TransactionalWriter } from '../../adapters/ports.ts';
import { LogFault } from '../../adapters/ports.ts';
import { type Digest, sameChain } from '../../core/aggregate/chain.ts';
import { correctionOf, type Replacement, Uncorrectable } from '../../core/feed/correction.ts';
import { type AggregatesMessage, messageOf } from '../../core/feed/message.ts';
import { OutputHeads } from '../../core/feed/output-heads.ts';
import type { FeedPartition } from '../../core/feed/partition.ts';
import { decodeOutput, emptyTail, type Tail, TailScan } from '../../core/feed/tail.ts';
import { outputBlockCodec, UndecodableRecord } from '../../schemas/codec.ts';
import { outputTopic, type Replica, replicas, topics } from '../../schemas/topics.ts';
import type { Output, OutputBlock, Verdict } from '../../schemas/types.ts';
import { emittedOutputs, judgedOutputs } from './histories.ts';

export const feedGroup = 'flowledger-feed';

const aggregates = topics.aggregates.name;
const tailPollMs = 250;
/** A process that stood still for longer asks again which logs it is about to cut. */
const sureWithinMs = 1_000;

export interface EmissionParts {
  readonly partition: FeedPartition;
  readonly log: Log;
  /** How long the replicas' outputs are kept that nobody needs any more. */
  readonly historyMs: number;
  /** Shared by all partitions. */
  readonly reader: LogReader;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly digest: Digest;
  /** Told of what is no fault of the log: the service must stop. */
  readonly failed: (error: unknown) => void;
}

export class Emission {
  readonly partition: FeedPartition;
  undecodable = 0;
  /** How long the last transaction took, up to the client's success. */
  commitMs = 0;
  readonly heads: OutputHeads;
  readonly #parts: EmissionParts;
  readonly #noted = new Map<string, number>();
  /** Of each output topic, when it was placed. */
  readonly #topicIds: Record<Replica, string> = { a: '', b: '' };
  #writer: TransactionalWriter | null = null;
  #work: Promise<void> | null = null;
  #closed = false;
  #phaseName: string;

  constructor(parts: EmissionParts) {
    this.#parts = parts;
    this.partition = parts.partition;
    this.heads = new OutputHeads(parts.historyMs);
    this.#phaseName = parts.partition.phase.name;
  }

  /** What the shared reader got for this partition. @throws UnknownSchema */
  take(part: Fetched): void {
    if (part.topic === aggregates) this.#follow(part);
    else for (const replica of replicas) if (part.topic === outputTopic(replica).name) this.#takeBlocks(replica, part);
  }

  /** The last verdict on a replica. */
  judge(replica: Replica, verdict: Verdict): void {
    this.partition.judge(replica, verdict, this.#parts.clock.now());
    if (this.partition.outputs[replica].barred) this.#parts.reader.unassign(outputTopic(replica).name, this.partition.partition);
  }

  /** Starts the next piece of work, unless one is under way. */
  proceed(): void {
    for (const replica of replicas) this.#readOn(replica);
    this.#sayPhase();
    if (this.#work || this.#closed) return;
    const done = () => {
      this.#work = null;
    };
    this.#work = this.#carryOut().then(done, (error) => {
      done();
      this.#parts.failed(error);
    });
  }

  /** A log is not what it was; without a topic, it is not known which. */
  forget(topic: string | undefined): void {
    const { reader, clock } = this.#parts;
    const number = this.partition.partition;
    for (const replica of replicas) reader.unassign(outputTopic(replica).name, number);
    if (!topic || topic === aggregates) reader.unassign(aggregates, number);
    this.#noted.clear();
    this.heads.forget();
    this.partition.forget(clock.now());
  }

  async notePositions(): Promise<void> {
    const { log } = this.#parts;
    const { a, b, aggregates: tail } = this.partition.positions();
    const offsets = [
      [outputTopic('a').name, a],
      [outputTopic('b').name, b],
      [aggregates, tail],
    ] as const;
    for (const [topic, offset] of offsets) {
      if (offset === null || this.#noted.get(topic) === offset) continue;
      await log.commitOffset(feedGroup, topic, this.partition.partition, offset);
      this.#noted.set(topic, offset);
    }
  }

  /** What is emitted and compared is needed by nobody (I18). @throws LogFault, after which it is tried again */
  async cutHeads(): Promise<void> {
    const { log, clock } = this.#parts;
    const number = this.partition.partition;
    this.heads.note(this.partition.cuttable(), clock.now());
    const place = this.heads.due(clock.now());
    if (!place || this.partition.phase.name !== 'active') return;
    for (const replica of replicas) {
      const { name } = outputTopic(replica);
      const askedMs = clock.now();
      // Offsets of a topic that was re-created meanwhile say nothing of the present one.
      if ((await log.topicId(name)) !== this.#topicIds[replica]) return this.heads.forget();
      if (clock.now() - askedMs > sureWithinMs) return;
      await log.deleteRecords(name, number, place[replica]);
    }
    this.heads.cut(place);
  }

  /** After what is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#work;
    await this.#writer?.close();
    this.#writer = null;
  }

  #follow(part: Fetched): void {
    for (const { value, offset } of part.records) {
      const output = decodeOutput(value);
      if (output) this.partition.follow(output, offset, this.#parts.clock.now());
      else this.undecodable++;
    }
  }

  #takeBlocks(replica: Replica, part: Fetched): void {
    const nowMs = this.#parts.clock.now();
    for (const { value, offset } of part.records) {
      const block = this.#block(value);
      if (!block) continue;
      const taken = this.partition.take(replica, block, offset, nowMs);
      if (taken === 'invalid') {
        const facts = { partition: block.partition, replica, n: block.first_n, offset };
        this.#parts.logger.error(facts, `outputs of ${replica} do not give their chain; taken as missing: see "flowledger audit"`);
      }
      if (taken === 'paused') break;
    }
    const outputs = this.partition.outputs[replica];
    if (outputs.paused || outputs.unplaced || outputs.barred) this.#parts.reader.unassign(part.topic, part.partition);
    else outputs.readTo(part.nextOffset);
  }

  #block(value: Buffer | null): OutputBlock | null {
    try {
      return value && outputBlockCodec.decode(value);
    } catch (error) {
      if (!(error instanceof UndecodableRecord)) throw error;
      this.undecodable++;
      return null;
    }
  }

  #readOn(replica: Replica): void {
    const offset = this.partition.outputs[replica].resume();
    if (offset !== null) this.#parts.reader.assign(outputTopic(replica).name, this.partition.partition, offset);
  }

  async #carryOut(): Promise<void> {
    while (!this.#closed) {
      const step = this.partition.next(this.#parts.clock.now());
      if (step.do === 'wait') return;
      if (step.do === 'open') await this.#open();
      else if (step.do === 'place') await this.#place(step.replica, step.fromStart);
      else if (step.do === 'correct') await this.#correct(step.replacements);
      else await this.#commit(step.messages);
      this.#sayPhase();
    }
  }

  /** F10: the new epoch first, and only then the tail. */
  async #open(): Promise<void> {
    const { reader, clock } = this.#parts;
    try {
      await this.#openWriter();
      const { tail, endOffset } = await this.#readTail();
      reader.assign(aggregates, this.partition.partition, endOffset);
      this.partition.open(tail, clock.now());
    } catch (error) {
      this.#fail(error, 'opening the writer');
    }
  }

  async #openWriter(): Promise<TransactionalWriter> {
    const old = this.#writer;
    this.#writer = null;
    await old?.close();
    const writer = this.#parts.log.transactionalWriter(`flowledger-feed-${this.partition.partition}`);
    this.#writer = writer;
    await writer.open();
    return writer;
  }

  /** With a new epoch, as in opening: what stands behind the tail now was not written by anybody since. */
  async #correct(replacements: readonly Replacement[]): Promise<void> {
    const { clock, logger } = this.#parts;
    const number = this.partition.partition;
    try {
      const writer = await this.#openWriter();
      const { tail } = await this.#readTail();
      const refusals: string[] = [];
      for (const replacement of replacements) {
        const { replica, verdict } = replacement;
        if (tail.n !== replacement.tail.n || !sameChain(tail.chain, replacement.tail.chain)) break;
        try {
          const messages = (await this.#correction({ ...replacement, tail })).map(messageOf);
          logger.warn({ partition: number, fromN: verdict.n, lastN: tail.n, records: messages.length }, `corrects what was emitted, from ${replica}`);
          await writer.commit(aggregates, number, messages);
          break;
        } catch (error) {
          if (!(error instanceof Uncorrectable)) throw error;
          refusals.push(error.message);
        }
      }
      if (refusals.length < replacements.length) this.partition.corrected(clock.now());
      else this.partition.notCorrected(refusals.join('; '), clock.now());
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      logger.warn({ partition: number, fault: error.kind }, `a correction failed, nothing is lost: ${error.message}`);
      this.partition.notCorrected('', clock.now());
    }
  }

  async #correction(replacement: Replacement): Promise<Output[]> {
    const { log, digest } = this.#parts;
    const wrong = await emittedOutputs(log, digest, replacement);
    return correctionOf(wrong, await judgedOutputs(log, digest, replacement), replacement);
  }

  async #commit(messages: readonly AggregatesMessage[]): Promise<void> {
    const { clock } = this.#parts;
    const startedMs = clock.now();
    try {
      await this.#writer?.commit(aggregates, this.partition.partition, messages);
      this.commitMs = clock.now() - startedMs;
    } catch (error) {
      this.#fail(error, 'a transaction');
    }
  }

  #fail(error: unknown, doing: string): void {
    if (!(error instanceof LogFault)) throw error;
    const facts = { partition: this.partition.partition, fault: error.kind };
    this.#parts.logger.warn(facts, `${doing} failed, nothing is lost: ${error.message}`);
    this.partition.fail(error.kind === 'fenced', this.#parts.clock.now());
  }

  /** From the noted position when a committed record is there, else from the log's start; up to where the log ended after the epoch was open. */
  async #readTail(): Promise<{ tail: Tail; endOffset: number }> {
    const { log } = this.#parts;
    const number = this.partition.partition;
    const { startOffset, endOffset } = await log.bounds(aggregates, number);
    const noted = await log.committedOffset(feedGroup, aggregates, number);
    if (noted > startOffset && noted < endOffset) {
      const { tail, firstOffset } = await this.#scan(noted, endOffset);
      if (tail && firstOffset === noted) return { tail, endOffset };
    }
    const { tail } = await this.#scan(startOffset, endOffset);
    return { tail: tail ?? emptyTail, endOffset };
  }

  async #scan(from: number, endOffset: number): Promise<TailScan> {
    const { log, digest } = this.#parts;
    const number = this.partition.partition;
    const scan = new TailScan(number, digest);
    const reader = log.reader('raw');
    try {
      reader.assign(aggregates, number, from);
      for (let next = from; next < endOffset && !this.#closed; ) {
        for (const part of await reader.poll(tailPollMs)) {
          for (const record of part.records) scan.take(record);
          next = part.nextOffset;
        }
      }
      return scan;
    } finally {
      await reader.close();
    }
  }

  /** At the noted position, where the log still has it, unless that one was too late; else at the log's start. */
  async #place(replica: Replica, fromStart: boolean): Promise<void> {
    const { log, reader } = this.#parts;
    const number = this.partition.partition;
    const { name } = outputTopic(replica);
    try {
      this.#topicIds[replica] = await log.topicId(name);
      this.heads.forget();
      const { startOffset, endOffset } = await log.bounds(name, number);
      const noted = fromStart ? -1 : await log.committedOffset(feedGroup, name, number);
      const usable = noted > startOffset && noted < endOffset;
      reader.assign(name, number, usable ? noted : startOffset);
      this.partition.placed(replica, !usable, endOffset);
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      this.#parts.logger.warn({ partition: number, replica, fault: error.kind }, `cannot read ${name} yet: ${error.message}`);
      this.partition.placeFailed(this.#parts.clock.now());
    }
  }

  /** Alarm or news, once. */
  #sayPhase(): void {
    const { phase, partition: number, leader, isStarved } = this.partition;
    const name = isStarved ? 'starved' : phase.name;
    if (name === this.#phaseName) return;
    this.#phaseName = name;
    const facts = { partition: number, leader, n: this.partition.tail?.n };
    if (isStarved) this.#parts.logger.error(facts, `nothing is emitted any more: ${this.partition.describe()}`);
    else if (phase.name === 'held')
      this.#parts.logger.error(facts, `nothing is emitted any more, ${this.partition.describe()}; see "flowledger audit"`);
    else this.#parts.logger.info(facts, `${name}${this.partition.describe() ? `: ${this.partition.describe()}` : ''}`);
  }
}
