/**
 * The model-checked protocol of the collector around the real ledger: one partition, a store, a log that lies in the ways that are known, two
 * replicas that fold and acknowledge. Every batch carries one content; who wins its number in the log decides how it is counted.
 */
import { Ledger, type SendPlan } from '../../../core/buffer/ledger.ts';
import { dueSettlement, forgetOver, goodbyesDue, noteSettled } from '../../../core/buffer/settlement.ts';
import type { Replica } from '../../../schemas/topics.ts';

/** content 0: an empty batch; lost: a Loss in place of the content. */
export interface ModelBatch {
  readonly incarnation: string;
  readonly sequence: number;
  readonly through: number;
  readonly contents: readonly number[];
  readonly lost: boolean;
}

interface ModelStream {
  last: number;
  closed: boolean;
  confirmed: number;
  entries: Map<number, { content: number; held: boolean; lost: boolean }>;
}

export type SendOutcome = 'appended' | 'answer lost' | 'swallowed' | 'lost';

const topicId = 'topic';
const empty = new Uint8Array(0);

export class CopyModel {
  readonly log: ModelBatch[] = [];
  store = new Map<string, ModelStream>();
  isAway = false;
  readonly folded: Record<Replica, number> = { a: 0, b: 0 };
  readonly bound: number;
  accepted = 0;
  /** Contents whose loss the store or a crash of the memory copy excuses. */
  readonly excused = new Set<number>();
  readonly homes = new Map<string, { content: number; lost: boolean }>();
  readonly violations: string[] = [];
  /** The highest that each replica ever acknowledged: a replica that folds again has it from the log. */
  readonly acknowledged: Record<Replica, Map<string, number>> = { a: new Map(), b: new Map() };
  ledger: Ledger;
  #incarnations = 0;
  #incarnation = '';
  #last = 0;
  #volatile = '';
  #volatileLast = 0;
  #memory = new Map<string, number>();
  #plan: { plan: SendPlan; messages: ModelBatch[] } | null = null;
  #now = 0;

  constructor(bound: number) {
    this.bound = bound;
    this.ledger = this.#start();
  }

  #fresh(): string {
    return `i${++this.#incarnations}`;
  }

  #start(): Ledger {
    this.ledger = new Ledger({ partitions: 1, suspicionAfterMs: 1000, cacheBytesMax: 0 });
    this.ledger.topic(topicId);
    this.#incarnation = this.#fresh();
    this.#last = 0;
    this.#volatile = '';
    this.#plan = null;
    for (const content of this.#memory.values()) if (content > 0 && !this.#isHeldInStore(content)) this.excused.add(content);
    this.#memory.clear();
    if (!this.isAway) this.look();
    return this.ledger;
  }

  #isHeldInStore(content: number): boolean {
    for (const stream of this.store.values()) for (const entry of stream.entries.values()) if (entry.content === content) return true;
    return false;
  }

  crash(): void {
    this.#start();
  }

  accept(): void {
    const content = ++this.accepted;
    if (this.isAway) {
      if (this.#volatile === '') {
        this.#volatile = this.#fresh();
        this.#volatileLast = 0;
      }
      this.#volatileLast++;
      this.#keep(this.#volatile, this.#volatileLast, content, 'memory', false);
      this.#memory.set(`${this.#volatile}/${this.#volatileLast}`, content);
      return;
    }
    const found = this.store.get(this.#incarnation)?.last ?? 0;
    if (found !== this.#last) {
      for (const stream of this.ledger.streams) stream.own = false;
      this.#incarnation = this.#fresh();
      this.#last = 0;
    }
    const held = [...this.store.values()].reduce((sum, stream) => sum + [...stream.entries.values()].filter((entry) => entry.held).length, 0);
    let refused = false;
    if (held >= this.bound) {
      const points = this.ledger.releasable('store', 1);
      for (const { stream, through } of points) {
        for (const [sequence, entry] of this.store.get(stream.incarnation)?.entries ?? []) if (sequence <= through) entry.held = false;
        this.ledger.released(stream, through, 'store');
      }
      refused = points.length === 0;
    }
    this.#last++;
    this.#toStore(this.#incarnation, this.#last, content, refused, false);
    this.#keep(this.#incarnation, this.#last, content, 'store', false);
  }

  #toStore(incarnation: string, sequence: number, content: number, lost: boolean, closed: boolean): void {
    const stream = this.store.get(incarnation) ?? { last: 0, closed: false, confirmed: 0, entries: new Map() };
    this.store.set(incarnation, stream);
    stream.entries.set(sequence, { content, held: true, lost });
    stream.last = sequence;
    stream.closed = closed;
    this.homes.set(`${incarnation}/${sequence}`, { content, lost });
  }

  #keep(incarnation: string, sequence: number, content: number, place: 'store' | 'memory', goodbye: boolean): void {
    const stream = this.ledger.stream(incarnation, 0) ?? this.ledger.open(incarnation, 0, place === 'memory');
    const batch = { partition: 0, sequence, goodbye, watermarkMs: content, nars: content > 0 ? 1 : 0, holdings: [], value: empty, totals: empty };
    this.ledger.keep(stream, batch, place, ++this.#now);
    if (place === 'memory') this.homes.set(`${incarnation}/${sequence}`, { content, lost: false });
  }

  /** The store answers again: the volatile incarnation is closed. */
  back(): void {
    if (!this.isAway) return;
    this.isAway = false;
    if (this.#volatile !== '') {
      this.#keep(this.#volatile, this.#volatileLast + 1, 0, 'memory', true);
      const stream = this.ledger.stream(this.#volatile, 0);
      if (stream) {
        stream.own = false;
        stream.intact = false;
      }
      this.#volatile = '';
    }
  }

  look(): void {
    if (this.isAway) return;
    const { ledger } = this;
    for (const stream of ledger.streams) {
      if (stream.incarnation === this.#incarnation || !stream.inStore || this.store.has(stream.incarnation)) continue;
      ledger.gone(stream, stream.first, stream.last);
      stream.inStore = false;
      stream.intact = false;
    }
    for (const [incarnation, found] of this.store) {
      if (incarnation === this.#incarnation) continue;
      const first = Math.min(...found.entries.keys(), found.last + 1);
      const known = ledger.stream(incarnation, 0);
      if (known && found.last < known.last) {
        ledger.gone(known, found.last + 1, known.last);
        known.intact = false;
        continue;
      }
      const stream = known ?? ledger.adopt({ incarnation, partition: 0, first, closed: found.closed, volatile: false });
      stream.closed = found.closed;
      for (const [sequence, { content, held }] of found.entries) {
        if (sequence <= stream.last) continue;
        const entry = { sequence, nars: content > 0 ? 1 : 0, holdings: [], valueSize: 1, totalsSize: 1, watermarkMs: content, released: !held };
        ledger.found(stream, entry, ++this.#now);
      }
      ledger.foundGone(stream, found.last);
    }
  }

  learnLogEnd(): void {
    for (const stream of this.ledger.awaiting()) {
      const confirmed = this.store.get(stream.incarnation)?.confirmed ?? 0;
      this.ledger.logEnd(stream, this.log.length, confirmed > 0 ? { sequence: confirmed, topicId } : null);
    }
  }

  settle(): void {
    forgetOver(this.ledger);
    if (this.isAway) return;
    const due = dueSettlement(this.ledger);
    if (due) {
      for (const mark of due.confirmed) {
        const stream = this.store.get(mark.incarnation);
        if (stream) stream.confirmed = mark.sequence;
      }
      for (const { incarnation, through } of due.trim) this.#trim(incarnation, through);
      for (const { incarnation, through } of due.drop) {
        const stream = this.store.get(incarnation);
        if (stream?.closed && stream.entries.size === 0 && stream.last === through) this.store.delete(incarnation);
      }
      noteSettled(this.ledger, due);
    }
    for (const stream of goodbyesDue(this.ledger, this.#now + 100, 50)) {
      const sequence = stream.last + 1;
      const found = this.store.get(stream.incarnation);
      if (!stream.inStore || !stream.intact) this.#keep(stream.incarnation, sequence, 0, 'memory', true);
      else if (found?.last === stream.last) {
        this.#toStore(stream.incarnation, sequence, 0, false, true);
        this.#keep(stream.incarnation, sequence, 0, 'store', true);
      }
    }
  }

  #trim(incarnation: string, through: number): void {
    const stream = this.store.get(incarnation);
    for (const [sequence, { content }] of stream?.entries ?? []) {
      if (sequence > through) continue;
      for (const replica of ['a', 'b'] as const) {
        if ((this.acknowledged[replica].get(incarnation) ?? 0) < sequence)
          this.violations.push(`${incarnation}/${sequence} (${content}) trimmed before ${replica} had it`);
      }
      stream?.entries.delete(sequence);
    }
  }

  /** An append begins; whatever happens until `answer` happens while it is under way. */
  send(messagesMax: number): void {
    if (this.#plan) return;
    const plan = this.ledger.plan(0, { messagesMax, bytesMax: 1e9, storeThere: !this.isAway });
    if (!plan) return;
    const messages: ModelBatch[] = [];
    for (const { sequence, through, from } of plan.items) {
      const { incarnation } = plan.stream;
      const home = this.homes.get(`${incarnation}/${sequence}`);
      if (from === 'store' && !this.store.get(incarnation)?.entries.get(sequence)?.held) {
        this.ledger.gone(plan.stream, sequence, through);
        this.ledger.failed(plan);
        return;
      }
      const contents: number[] = [];
      for (let one = sequence; one <= through; one++) contents.push(this.homes.get(`${incarnation}/${one}`)?.content ?? 0);
      messages.push({ incarnation, sequence, through, contents, lost: from === 'totals' || from === 'unheld' || (home?.lost ?? false) });
    }
    this.#plan = { plan, messages };
  }

  answer(outcome: SendOutcome): void {
    if (!this.#plan) return;
    const { plan, messages } = this.#plan;
    this.#plan = null;
    const base = this.log.length;
    if (outcome === 'appended' || outcome === 'answer lost') this.log.push(...messages);
    if (outcome === 'appended') this.ledger.sent(plan, base, ++this.#now);
    else if (outcome === 'swallowed') this.ledger.sent(plan, Math.max(0, base - messages.length), ++this.#now);
    else this.ledger.failed(plan);
  }

  fold(replica: Replica): void {
    this.folded[replica] = Math.min(this.log.length, this.folded[replica] + 1);
  }

  /** The replica's state after a prefix: accepted sequences, and how often each content was counted or reported lost. */
  state(upto: number): { last: Map<string, number>; counted: Map<number, number>; reported: Map<number, number> } {
    const last = new Map<string, number>();
    const counted = new Map<number, number>();
    const reported = new Map<number, number>();
    for (const { incarnation, sequence, through, contents, lost } of this.log.slice(0, upto)) {
      if (sequence !== (last.get(incarnation) ?? 0) + 1) continue;
      last.set(incarnation, through);
      for (const content of contents) (lost ? reported : counted).set(content, ((lost ? reported : counted).get(content) ?? 0) + 1);
    }
    return { last, counted, reported };
  }

  ack(replica: Replica): void {
    const { last } = this.state(this.folded[replica]);
    const highest = this.acknowledged[replica];
    for (const [incarnation, sequence] of last) highest.set(incarnation, Math.max(sequence, highest.get(incarnation) ?? 0));
    this.ledger.ack({ replica, partition: 0, topicId, foldedOffset: this.folded[replica], sequences: last }, ++this.#now);
  }

  /** Somebody else's record, so that the log goes on. */
  tick(): void {
    this.log.push({ incarnation: 'other', sequence: 0, through: 0, contents: [], lost: false });
  }

  wipe(): void {
    for (const stream of this.store.values()) for (const { content } of stream.entries.values()) this.excused.add(content);
    this.store = new Map();
  }

  /** The store loses its newest batch. */
  goBack(): void {
    const stream = this.store.get(this.#incarnation);
    if (!stream || stream.last === 0) return;
    const entry = stream.entries.get(stream.last);
    if (entry) this.excused.add(entry.content);
    stream.entries.delete(stream.last);
    stream.last--;
  }

  /** Faults have stopped: everything takes its turn until nothing moves any more. */
  calm(): void {
    this.back();
    for (let round = 0; round < 400; round++) {
      this.look();
      this.learnLogEnd();
      for (let i = 0; i < 4; i++) {
        this.send(3);
        this.answer('appended');
      }
      this.tick();
      for (const replica of ['a', 'b'] as const) {
        for (let i = 0; i < 20; i++) this.fold(replica);
        this.ack(replica);
      }
      this.settle();
      if (round > 5 && this.ledger.streams.every((stream) => stream.isEmpty) && this.folded.a === this.log.length) return;
    }
    const where = this.ledger.streams.map((stream) => `${stream.incarnation} ${stream.first}..${stream.last}, next ${stream.next}`);
    this.violations.push(`does not come to rest: ${where}`);
  }

  /** Everything accepted is counted exactly once, or reported lost exactly once where a loss is allowed. */
  audit(mayLose: boolean): string[] {
    const { counted, reported } = this.state(this.log.length);
    for (let content = 1; content <= this.accepted; content++) {
      const sum = (counted.get(content) ?? 0) + (reported.get(content) ?? 0);
      if (sum > 1) this.violations.push(`${content} is in the log ${sum} times`);
      if (sum === 0 && !this.excused.has(content)) this.violations.push(`${content} is lost silently`);
      if ((reported.get(content) ?? 0) > 0 && !mayLose) this.violations.push(`${content} is reported lost without need`);
    }
    return this.violations;
  }
}
