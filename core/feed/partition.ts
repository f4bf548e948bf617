/**
 * One partition of the feed: copies the elected replica's outputs to topic aggregates, each once, as long as A and B do not differ.
 *
 *   starting --writer open, tail read--> active --another feed fenced it--> standby
 *      ^                                   |                                   |
 *      +------------ any fault ------------+        n stands still though      |
 *      +---------------------------------- the leader has n + 1 ---------------+
 *   any of them --two histories--> held --verdict: the wrong one is quarantined, and aggregates has nothing of it--> starting
 *                                  held --verdict, and aggregates has something of it: it is corrected--> starting
 *
 * E1. (I6) Only outputs that continue n and chain of the tail are emitted, so a leader with another history is never mixed in.
 * E2. (I6) The tail moves only by what is read back from aggregates: a client's success is not proof, and a second transaction waits for the first.
 * E3. (I5) Chains of A, B and aggregates are compared at equal n, before and after emitting; a difference holds the partition. A verdict ends that
 *     (I15): a quarantined replica is not read, not compared and not waited for, and its chains are forgotten.
 *     (I17) Where aggregates has something of the wrong history, the verdict ends it only after a correction: what was wrong is taken back and
 *     what is right is stated, from an output on that the verdict names, by one whose outputs are the judged ones.
 * E4. After a start nothing is emitted that the other replica's topic could contradict: it is first read up to where it then ended.
 */
import { otherReplica, type Replica, replicas } from '../../schemas/topics.ts';
import type { Output, OutputBlock, Verdict } from '../../schemas/types.ts';
import { type Digest, sameChain } from '../aggregate/chain.ts';
import { Comparison, comparedOutputsMax, type Divergence, describeDivergence } from './comparison.ts';
import type { Replacement } from './correction.ts';
import { type AggregatesMessage, messageOf } from './message.ts';
import type { OutputPlace } from './output-heads.ts';
import { ReplicaOutputs, type Taken } from './replica-outputs.ts';
import type { Seam } from './seam.ts';
import { correctedTail, type Tail } from './tail.ts';

export interface FeedOptions {
  readonly emit: 'elected' | 'agreed';
  readonly agreeWithinMs: number;
  readonly transactionOutputsMax: number;
  readonly transactionBytesMax: number;
  readonly standbyAfterMs: number;
  /** A number in [0, 1): two feeds must not go on in step. */
  readonly chance: () => number;
}

/** One transaction: committed or under way, and not read back yet. */
interface Sent {
  readonly lastN: number;
  readonly atMs: number;
}

export type Phase =
  | { readonly name: 'starting'; readonly notBeforeMs: number }
  | { readonly name: 'standby'; readonly waitingSinceMs: number | null }
  | { readonly name: 'active'; readonly sinceMs: number; readonly sent: Sent | null }
  | { readonly name: 'held'; readonly divergence: Divergence };

/** What the loop is to do next. */
export type Step =
  | { readonly do: 'wait' }
  /** Throw the writer away, open another one, and only then read the tail of aggregates. */
  | { readonly do: 'open' }
  /** Begin to read a replica's topic: at a noted position, or at its start. */
  | { readonly do: 'place'; readonly replica: Replica; readonly fromStart: boolean }
  | { readonly do: 'emit'; readonly messages: readonly AggregatesMessage[] }
  /** Open another writer, read the tail, and where it is theirs still, write what the first of them that can be had gives. */
  | { readonly do: 'correct'; readonly replacements: readonly Replacement[] };

/** After it a transaction that is not read back is taken for lost. A healthy broker needs some ms. */
const readBackWithinMs = 5_000;
/** What was swallowed on its way to an output topic is written again well within this. */
const writtenAgainWithinMs = 10_000;
const retryFirstMs = 50;
const retryMaxMs = 5_000;
/** A feed that was active for so many times its patience was not in a duel. */
const stableFactor = 10;
const patienceFactorMax = 16;
/** Whoever takes over needs as long as this feed did; it is not to be fenced before its first transaction. */
const openingFactor = 3;

export class FeedPartition {
  readonly partition: number;
  readonly outputs: Readonly<Record<Replica, ReplicaOutputs>>;
  emitted = 0;
  transactions = 0;
  opened = 0;
  takeOvers = 0;
  corrections = 0;
  fencedCount = 0;
  faults = 0;
  /** Records of aggregates that came twice, or over a gap. */
  outOfLine = 0;
  lastEmissionMs = 0;
  readonly #judged: Record<Replica, Verdict | null> = { a: null, b: null };
  readonly #options: FeedOptions;
  readonly #comparison = new Comparison();
  #phase: Phase = { name: 'starting', notBeforeMs: 0 };
  #tail: Tail | null = null;
  #leader: Replica | null = null;
  /** Whose outputs were written last. */
  #emittedOf: Replica | null = null;
  #seam: Seam | null = null;
  #failures = 0;
  #takingOver = false;
  #startedAgain = false;
  #openingSinceMs = 0;
  /** How long opening the writer and reading the tail took lately, failed attempts as well; earlier ones count half each time. */
  #openingMs = 0;
  #duels = 0;
  #patienceMs: number;
  #placeNotBeforeMs = 0;
  /** The tail as the log itself told it, or as a transaction left it that the client says was committed and that was read back. */
  #confirmedN = 0;
  #correctNotBeforeMs = 0;
  /** Why aggregates cannot be corrected; '' while nobody has found that. */
  #uncorrectable = '';
  /** Since when the leader's topic has not had what comes next, and begins beyond it. */
  #starvingSinceMs: number | null = null;
  #isStarved = false;

  constructor(partition: number, options: FeedOptions, digest: Digest) {
    this.partition = partition;
    this.#options = options;
    this.#patienceMs = options.standbyAfterMs;
    const keptMax = Math.max(1_000, 2 * options.transactionOutputsMax);
    const outputsOf = (replica: Replica) => new ReplicaOutputs(replica, partition, digest, this.#comparison, keptMax);
    this.outputs = { a: outputsOf('a'), b: outputsOf('b') };
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** null until aggregates was read for the first time. */
  get tail(): Tail | null {
    return this.#tail;
  }

  get leader(): Replica | null {
    return this.#leader;
  }

  /** The last one that this feed has made; null while it has emitted of one replica only. */
  get seam(): Seam | null {
    return this.#seam;
  }

  /** How long n may stand still before a feed that stands by takes over. */
  get patienceMs(): number {
    return this.#patienceMs;
  }

  /** What would be emitted next was cut from the leader's topic: aggregates lost its end, and this does not pass by itself. */
  get isStarved(): boolean {
    return this.#isStarved;
  }

  elect(leader: Replica | null): void {
    this.#leader = leader;
  }

  /** The last verdict on a replica. One that is known already changes nothing. */
  judge(replica: Replica, verdict: Verdict, nowMs: number): void {
    const known = this.#judged[replica];
    if (known && known.epoch === verdict.epoch && known.state === verdict.state && known.begins === verdict.begins) return;
    this.#judged[replica] = verdict;
    if (verdict.state === 'quarantined') this.outputs[replica].bar();
    else this.outputs[replica].readmit();
    this.#comparison.forget(replica);
    if (this.#phase.name !== 'held') return;
    // What is left of the difference, where aggregates itself has something of the wrong history.
    const { divergence } = this.#comparison;
    this.#phase = divergence ? { name: 'held', divergence } : { name: 'starting', notBeforeMs: nowMs };
  }

  /** The verdict by which a replica is in quarantine; null while it is not. */
  quarantine(replica: Replica): Verdict | null {
    const verdict = this.#judged[replica];
    return verdict?.state === 'quarantined' ? verdict : null;
  }

  take(replica: Replica, block: OutputBlock, offset: number, nowMs: number): Taken {
    if (!this.#tail) return 'paused';
    const taken = this.outputs[replica].take(block, { offset, tail: this.#tail, nowMs });
    this.#holdIfDiverged();
    return taken;
  }

  /** What to do now. Whoever asks does it, and then says how it went: opened, placed, failed; what was emitted is seen by follow. */
  next(nowMs: number): Step {
    const phase = this.#phase;
    this.#noteStarving(nowMs);
    if (phase.name === 'starting') return nowMs >= phase.notBeforeMs ? this.#toOpen(nowMs) : { do: 'wait' };
    const place = this.#place(nowMs);
    if (place) return place;
    if (phase.name === 'active') return this.#emit(phase.sent, nowMs);
    if (phase.name === 'standby') return this.#watch(phase.waitingSinceMs, nowMs);
    return this.#correct(nowMs);
  }

  /** Held, and judged: whose outputs are to stand where wrong ones do. */
  #correct(nowMs: number): Step {
    const replacements = nowMs >= this.#correctNotBeforeMs ? this.#replacements() : [];
    return replacements.length > 0 ? { do: 'correct', replacements } : { do: 'wait' };
  }

  /** By each verdict on outputs that may have been emitted: of the other one, or of the accused itself once it is repaired. */
  #replacements(): Replacement[] {
    const tail = this.#tail;
    const phase = this.#phase;
    if (!tail || phase.name !== 'held' || !phase.divergence.between.includes('aggregates')) return [];
    return replicas.flatMap((accused) => {
      const verdict = this.#judged[accused];
      if (!verdict || verdict.given_chain.length === 0 || verdict.n > tail.n) return [];
      const replica = [otherReplica(accused), accused].find((one) => !this.outputs[one].barred && (this.outputs[one].lastN ?? 0) >= tail.n);
      return replica ? [{ replica, verdict, tail }] : [];
    });
  }

  /** Whether it stands there is seen when the tail is read again. */
  corrected(nowMs: number): void {
    this.#comparison.forget('aggregates');
    this.#startAgain(nowMs, true);
  }

  /** Nothing was written. With a reason it cannot be done; it is looked at again after a while, all the same. */
  notCorrected(reason: string, nowMs: number): void {
    this.faults++;
    this.#uncorrectable = reason;
    this.#correctNotBeforeMs = nowMs + (reason ? retryMaxMs : this.#retryMs());
  }

  #noteStarving(nowMs: number): void {
    const isStarving = this.#phase.name === 'active' && this.#leader !== null && this.outputs[this.#leader].beginsAt !== null;
    this.#starvingSinceMs = isStarving ? (this.#starvingSinceMs ?? nowMs) : null;
    this.#isStarved = this.#starvingSinceMs !== null && nowMs - this.#starvingSinceMs >= writtenAgainWithinMs;
  }

  #toOpen(nowMs: number): Step {
    this.#openingSinceMs = nowMs;
    return { do: 'open' };
  }

  #noteOpening(nowMs: number): void {
    this.#openingMs = Math.max(nowMs - this.#openingSinceMs, this.#openingMs / 2);
  }

  /** The writer is open, and this is where aggregates ends. */
  open(tail: Tail, nowMs: number): void {
    this.opened++;
    this.#noteOpening(nowMs);
    if (this.#takingOver) this.takeOvers++;
    if (tail.n === this.#tail?.n && !sameChain(tail.chain, this.#tail.chain)) this.#noteCorrection();
    this.#setTail(tail);
    this.#confirmedN = tail.n;
    for (const replica of replicas) if (!this.outputs[replica].continues(tail.n)) this.outputs[replica].displace(false);
    if (this.#phase.name !== 'held') this.#phase = { name: 'active', sinceMs: nowMs, sent: null };
    this.#holdIfDiverged();
  }

  /** Opening, or a transaction, failed. Nothing may be concluded about it, except that another writer fenced this one. */
  fail(fenced: boolean, nowMs: number): void {
    this.faults++;
    if (this.#phase.name === 'starting') this.#noteOpening(nowMs);
    // That another feed emits was seen in aggregates already: whatever this failure is, there is nothing to start again.
    if (this.#phase.name === 'standby') return;
    if (fenced) this.#standBy(nowMs);
    else this.#startAgain(nowMs);
  }

  placed(replica: Replica, fromStart: boolean, endOffset: number): void {
    this.outputs[replica].placed(fromStart, endOffset);
  }

  placeFailed(nowMs: number): void {
    this.faults++;
    this.#placeNotBeforeMs = nowMs + this.#retryMs();
  }

  /** A committed record of aggregates behind the tail, in order. */
  follow(output: Output, offset: number, nowMs: number): void {
    const tail = this.#tail;
    if (!tail || output.partition !== this.partition) return;
    if (output.correction) this.#followCorrection(tail, output, offset);
    else this.#followOutput(tail, output, offset, nowMs);
    this.#holdIfDiverged();
  }

  #followOutput(tail: Tail, output: Output, offset: number, nowMs: number): void {
    if (output.n === tail.n + 1) {
      const watermarkMs = Math.max(tail.watermarkMs, output.window_close?.watermark_ms ?? 0);
      this.#setTail({ n: output.n, chain: output.chain, offset, watermarkMs });
      this.#moved(output.n, nowMs);
    } else {
      this.outOfLine++;
      this.#comparison.note('aggregates', output.n, output.chain);
      // A gap is a transaction of this feed that never got there; the tail is still what continues.
      if (output.n > tail.n && this.#phase.name === 'active') this.#startAgain(nowMs);
    }
  }

  /** It counts as a whole, with its last record. */
  #followCorrection(tail: Tail, output: Output, offset: number): void {
    const corrected = correctedTail(tail, output, offset);
    if (!corrected) return;
    this.#noteCorrection();
    this.#setTail(corrected);
    for (const replica of replicas) if (!this.outputs[replica].continues(corrected.n)) this.outputs[replica].displace(false);
    const { divergence } = this.#comparison;
    // Whoever wrote it: whether this feed's writer is still the newest, it learns by opening another one, or by n that moves meanwhile.
    if (this.#phase.name !== 'starting') this.#phase = divergence ? { name: 'held', divergence } : { name: 'standby', waitingSinceMs: null };
  }

  #noteCorrection(): void {
    this.corrections++;
    this.#uncorrectable = '';
    this.#comparison.forget('aggregates');
  }

  /** Topic aggregates is not the log that it was: all is to be read again. */
  forget(nowMs: number): void {
    for (const replica of replicas) this.outputs[replica].displace(false);
    if (this.#phase.name !== 'held') this.#startAgain(nowMs);
  }

  /**
   * Where a later start should begin to read, so that it compares again whatever was compared lately: offsets in each topic, null where not known.
   * While the partition is held they stay where they are, so that a restart finds the difference again.
   */
  positions(): Readonly<Record<Replica | 'aggregates', number | null>> {
    const tail = this.#tail;
    if (!tail || tail.offset < 0 || this.#phase.name === 'held') return { a: null, b: null, aggregates: null };
    const { a, b } = this.outputs;
    const compared = Math.min(tail.n, ...[a, b].filter(({ barred }) => !barred).map(({ lastN }) => lastN ?? 0));
    const n = Math.max(compared, tail.n - comparedOutputsMax);
    const of = (outputs: ReplicaOutputs) => outputs.noteAt(Math.min(n, outputs.lastN ?? 0));
    return { a: of(a), b: of(b), aggregates: tail.offset };
  }

  /** The highest n of which the heads of both output topics are not needed any more, and where it is in them (I18); null where it is not known. */
  cuttable(): OutputPlace | null {
    if (this.#phase.name !== 'active') return null;
    const { a, b } = this.outputs;
    // K8: what was read may be of a transaction that is aborted.
    const n = Math.min(this.#comparison.agreedN, this.#confirmedN);
    const [ofA, ofB] = [a.keepFrom(n), b.keepFrom(n)];
    return ofA === null || ofB === null ? null : { n, a: ofA, b: ofB };
  }

  /** In words, for health and status. */
  describe(): string {
    const phase = this.#phase;
    if (phase.name === 'held') return `held: ${describeDivergence(phase.divergence)}${this.#remedy(phase.divergence)}`;
    if (phase.name === 'standby') return 'another feed emits this partition';
    if (phase.name === 'starting') return 'opens its writer and reads the tail of aggregates';
    if (!this.#leader) return 'waits for the first election: is a watchdog running?';
    if (this.#isStarved) {
      const left = `what is left of aggregates.${this.#leader} begins with n ${this.outputs[this.#leader].beginsAt}`;
      return `aggregates ends with n ${this.#tail?.n}, and ${left}: aggregates has lost its end, restore it from a backup`;
    }
    return replicas
      .filter((replica) => this.quarantine(replica))
      .map((replica) => `${replica} is in quarantine: nothing is compared until it is repaired`)
      .join('; ');
  }

  /** What a verdict alone cannot end. */
  #remedy({ between }: Divergence): string {
    const wrongFrom = replicas.flatMap((replica) => this.#judged[replica]?.n ?? []);
    if (!between.includes('aggregates') || wrongFrom.length === 0) return '';
    const found = `; output ${Math.min(...wrongFrom)} or a later one was emitted although it is wrong`;
    return this.#uncorrectable ? `${found}, and cannot be corrected: ${this.#uncorrectable}` : `${found}: it is being corrected`;
  }

  #place(nowMs: number): Step | null {
    if (nowMs < this.#placeNotBeforeMs) return null;
    const unplaced = replicas.find((replica) => this.outputs[replica].unplaced);
    return unplaced ? { do: 'place', replica: unplaced, fromStart: this.outputs[unplaced].fromStart } : null;
  }

  #emit(sent: Sent | null, nowMs: number): Step {
    if (sent) {
      if (nowMs - sent.atMs <= readBackWithinMs) return { do: 'wait' };
      this.faults++;
      this.#startAgain(nowMs);
      return { do: 'wait' };
    }
    // Whoever asks has come to the end of the transaction before.
    this.#confirmedN = this.#tail?.n ?? 0;
    const messages = this.#nextMessages(nowMs);
    const phase = this.#phase;
    if (phase.name !== 'active' || messages.length === 0) return { do: 'wait' };
    this.#noteSeam(this.#leader!, this.#tail!.n);
    this.#phase = { ...phase, sent: { lastN: this.#tail!.n + messages.length, atMs: nowMs } };
    return { do: 'emit', messages };
  }

  /** A transaction is begun when the one before it was read back, so all up to n is of the former leader. */
  #noteSeam(leader: Replica, n: number): void {
    if (this.#emittedOf !== null && this.#emittedOf !== leader) this.#seam = { from: this.#emittedOf, to: leader, n };
    this.#emittedOf = leader;
  }

  #nextMessages(nowMs: number): AggregatesMessage[] {
    const messages: AggregatesMessage[] = [];
    const tail = this.#tail;
    const leader = this.#leader;
    if (!tail || !leader) return messages;
    const { transactionOutputsMax, transactionBytesMax } = this.#options;
    let bytes = 0;
    let chain = tail.chain;
    while (messages.length < transactionOutputsMax) {
      const item = this.outputs[leader].item(tail.n + 1 + messages.length);
      if (!item || !this.#mayEmit(item.output.n, item.arrivedMs, nowMs)) break;
      if (!sameChain(item.previousChain, chain)) {
        // E1. The comparison at n found it already, unless it was too long ago.
        this.#comparison.note(leader, item.output.n - 1, item.previousChain);
        this.#holdIfDiverged();
        return [];
      }
      const message = messageOf(item.output);
      bytes += message.key.length + message.value.length;
      if (messages.length > 0 && bytes > transactionBytesMax) break;
      messages.push(message);
      chain = item.output.chain;
    }
    return messages;
  }

  #mayEmit(n: number, arrivedMs: number, nowMs: number): boolean {
    const other = this.outputs[otherReplica(this.#leader!)];
    if (other.barred) return true;
    if ((other.lastN ?? 0) >= n) return true;
    if (!other.caughtUp) return false;
    return this.#options.emit === 'elected' || nowMs - arrivedMs >= this.#options.agreeWithinMs;
  }

  /** Standing by: takes over when n does not move for as long as the leader has had n + 1. */
  #watch(waitingSinceMs: number | null, nowMs: number): Step {
    const waits = this.#leader !== null && this.#tail !== null && this.outputs[this.#leader].item(this.#tail.n + 1) !== undefined;
    if (!waits) {
      this.#phase = { name: 'standby', waitingSinceMs: null };
      return { do: 'wait' };
    }
    const sinceMs = waitingSinceMs ?? nowMs;
    if (nowMs - sinceMs < this.#patienceMs) {
      this.#phase = { name: 'standby', waitingSinceMs: sinceMs };
      return { do: 'wait' };
    }
    this.#takingOver = true;
    this.#phase = { name: 'starting', notBeforeMs: nowMs };
    return this.#toOpen(nowMs);
  }

  #setTail(tail: Tail): void {
    this.#tail = tail;
    this.#comparison.note('aggregates', tail.n, tail.chain);
    for (const replica of replicas) this.outputs[replica].drop(tail.n);
  }

  #moved(n: number, nowMs: number): void {
    const phase = this.#phase;
    if (phase.name === 'standby') this.#phase = { name: 'standby', waitingSinceMs: null };
    if (phase.name !== 'active') return;
    // Somebody else wrote it, which takes a newer epoch than this feed's.
    if (!phase.sent || n > phase.sent.lastN) {
      this.#standBy(nowMs);
      return;
    }
    this.emitted++;
    this.lastEmissionMs = nowMs;
    if (n < phase.sent.lastN) return;
    this.transactions++;
    this.#failures = 0;
    this.#phase = { ...phase, sent: null };
  }

  /** F8: whoever is fenced does not fence back at once; how long it waits grows at random with each take-over that did not last. */
  #standBy(nowMs: number): void {
    this.fencedCount++;
    const phase = this.#phase;
    const lasted = phase.name === 'active' && nowMs - phase.sinceMs > stableFactor * this.#patienceMs;
    // After a fault a feed opens again at once, which fences whoever took over meanwhile: that is a take-over, too.
    const isDuel = this.#takingOver || this.#startedAgain;
    this.#duels = lasted ? 0 : this.#duels + Number(isDuel);
    this.#takingOver = false;
    this.#startedAgain = false;
    const growth = Math.min(2 ** this.#duels, patienceFactorMax) - 1;
    const { standbyAfterMs, chance } = this.#options;
    const leastMs = Math.min(patienceFactorMax * standbyAfterMs, Math.max(standbyAfterMs, openingFactor * this.#openingMs));
    this.#patienceMs = Math.round(leastMs * (1 + growth * chance()));
    if (phase.name !== 'held') this.#phase = { name: 'standby', waitingSinceMs: null };
  }

  #startAgain(nowMs: number, fromHeld = false): void {
    if (this.#phase.name === 'held' && !fromHeld) return;
    this.#startedAgain = true;
    this.#phase = { name: 'starting', notBeforeMs: nowMs + this.#retryMs() };
  }

  #retryMs(): number {
    const ms = Math.min(retryMaxMs, retryFirstMs * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 10);
    return Math.round(ms * (0.5 + this.#options.chance() / 2));
  }

  #holdIfDiverged(): void {
    const { divergence } = this.#comparison;
    if (divergence && this.#phase.name !== 'held') this.#phase = { name: 'held', divergence };
  }
}
