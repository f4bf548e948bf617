/**
 * The ledger of the local copy: what is kept per (incarnation, partition), what of it Kafka confirmed, what each replica acknowledged; and so
 * what to send, what is missing, what may be trimmed or released, and which replica's acknowledgments stay out. It decides; the loop carries out.
 */
import { type Replica, replicas } from '../../schemas/topics.ts';
import { type Holding, Holdings } from './holdings.ts';
import { type Kept, type Place, Stream } from './stream.ts';

export interface LedgerOptions {
  readonly partitions: number;
  readonly suspicionAfterMs: number;
  /** Bytes of unsent batches that are kept in memory besides the store, so that they need not be read back. */
  readonly cacheBytesMax: number;
}

/** A batch as it enters the copy. */
export interface NewBatch {
  readonly partition: number;
  readonly sequence: number;
  readonly goodbye: boolean;
  readonly watermarkMs: number;
  readonly nars: number;
  readonly holdings: readonly Holding[];
  readonly value: Uint8Array;
  readonly totals: Uint8Array;
}

/** A batch that is in the store already, by its totals. */
export interface FoundBatch {
  readonly sequence: number;
  readonly nars: number;
  readonly holdings: readonly Holding[];
  readonly valueSize: number;
  readonly totalsSize: number;
  readonly watermarkMs: number;
  /** Only its totals are left. */
  readonly released: boolean;
}

/** A replica's latest word on a partition's batches of this collector; an incarnation that it does not name stands at 0 (G1). */
export interface AckView {
  readonly replica: Replica;
  readonly partition: number;
  readonly topicId: string;
  readonly foldedOffset: number;
  readonly sequences: ReadonlyMap<string, number>;
}

/** One message to send; `from` tells where its bytes are. unheld: nothing is left, the tombstone names no totals. */
export interface SendItem {
  readonly sequence: number;
  readonly through: number;
  readonly from: 'value' | 'store' | 'totals' | 'unheld';
  readonly kept: Kept | null;
}

/** One append: batches of one stream, in order, to its partition. While it is under way, the partition has no other. */
export interface SendPlan {
  readonly stream: Stream;
  readonly items: readonly SendItem[];
  readonly topicId: string;
  readonly generation: number;
}

export interface SendLimits {
  readonly messagesMax: number;
  readonly bytesMax: number;
  /** Batches can be read from the store now. */
  readonly storeThere: boolean;
}

export interface Suspected {
  readonly replica: Replica;
  readonly partition: number;
  readonly sinceMs: number;
}

interface ReplicaView {
  readonly ack: AckView;
  /** When it last said something new. */
  progressMs: number;
}

export interface LedgerCounters {
  resends: number;
  tombstones: number;
  releasedBatches: number;
  releasedNars: number;
  trimmedBatches: number;
  trimmedNars: number;
  confirmedBatches: number;
  confirmedNars: number;
  goneBatches: number;
}

/** Totals that are kept in memory beside the store, per stream. */
const ownTotalsMax = 10_000;

/** What a batch costs in Redis besides its bytes: two stream entries; measured, rounded up. */
export const entryOverheadBytes = 256;

export class Ledger {
  readonly #options: LedgerOptions;
  readonly #streams = new Map<string, Stream>();
  readonly #byPartition: Stream[][];
  readonly #views: Record<Replica, Map<number, ReplicaView>> = { a: new Map(), b: new Map() };
  readonly #sending = new Set<number>();
  #topicId = '';
  #cachedBytes = 0;
  /** The acknowledgments are read up to their end since then; null: they cannot be read. */
  #hearingSinceMs: number | null = null;
  readonly holdings = new Holdings();
  readonly bytes: Record<'store' | 'memory', number> = { store: 0, memory: 0 };
  readonly counters: LedgerCounters = {
    resends: 0,
    tombstones: 0,
    releasedBatches: 0,
    releasedNars: 0,
    trimmedBatches: 0,
    trimmedNars: 0,
    confirmedBatches: 0,
    confirmedNars: 0,
    goneBatches: 0,
  };

  constructor(options: LedgerOptions) {
    this.#options = options;
    this.#byPartition = Array.from({ length: options.partitions }, () => []);
  }

  get streams(): readonly Stream[] {
    return this.#byPartition.flat();
  }

  stream(incarnation: string, partition: number): Stream | undefined {
    return this.#streams.get(`${incarnation}/${partition}`);
  }

  /** A stream that the process adds to, from its first batch on. */
  open(incarnation: string, partition: number, isVolatile: boolean): Stream {
    const known = this.stream(incarnation, partition);
    if (known) return known;
    return this.#enter(new Stream({ incarnation, partition, last: 0, volatile: isVolatile, inStore: !isVolatile, own: true }));
  }

  /** A stream that is found in the store, with what is known of it (G3). Nothing of it is sent before the log's end is known: see `logEnds`. */
  adopt(found: {
    readonly incarnation: string;
    readonly partition: number;
    readonly first: number;
    readonly closed: boolean;
    readonly volatile: boolean;
  }): Stream {
    const { incarnation, partition, first, closed } = found;
    const stream = new Stream({ incarnation, partition, last: first - 1, volatile: found.volatile, inStore: true, own: false });
    stream.closed = closed;
    stream.awaitsLogEnd = true;
    stream.trimmedInStore = first - 1;
    return this.#enter(stream);
  }

  #enter(stream: Stream): Stream {
    this.#streams.set(`${stream.incarnation}/${stream.partition}`, stream);
    this.#byPartition[stream.partition]?.push(stream);
    for (const replica of replicas) {
      const view = this.#views[replica].get(stream.partition);
      if (view) stream.acknowledged[replica] = view.ack.sequences.get(stream.incarnation) ?? 0;
    }
    return stream;
  }

  forget(stream: Stream): void {
    this.#streams.delete(`${stream.incarnation}/${stream.partition}`);
    const list = this.#byPartition[stream.partition];
    list?.splice(list.indexOf(stream), 1);
    this.holdings.trim(stream, stream.last);
  }

  /** A batch is in the copy. Its bytes stay here, too, until Kafka confirms it, as far as the cache goes; in memory, until it is trimmed. */
  keep(stream: Stream, batch: NewBatch, place: 'store' | 'memory', nowMs: number): void {
    const size = batch.value.length + batch.totals.length + entryOverheadBytes;
    const cached = place === 'memory' || this.#cachedBytes + batch.value.length <= this.#options.cacheBytesMax;
    stream.add({
      sequence: batch.sequence,
      nars: batch.nars,
      size,
      totalsSize: batch.totals.length + entryOverheadBytes,
      watermarkMs: batch.watermarkMs,
      narsThrough: stream.narsThrough + batch.nars,
      place,
      past: 0,
      sentMs: 0,
      value: cached ? batch.value : null,
      totals: cached ? batch.totals : null,
      refused: false,
    });
    this.holdings.add(stream, batch.sequence, batch.holdings);
    this.bytes[place] += size;
    if (place === 'store' && cached) this.#cachedBytes += batch.value.length;
    stream.closed = batch.goodbye;
    stream.changedMs = nowMs;
  }

  /** A batch that is in the store already, read from its totals. */
  found(stream: Stream, entry: FoundBatch, nowMs: number): void {
    this.foundGone(stream, entry.sequence - 1);
    this.#addFound(stream, entry, entry.released ? 'released' : 'store');
    this.holdings.add(stream, entry.sequence, entry.holdings);
    stream.changedMs = nowMs;
  }

  /** The store numbered up to here, and no longer has the batches. */
  foundGone(stream: Stream, through: number): void {
    while (stream.last < through) {
      this.#addFound(stream, { sequence: stream.last + 1, nars: 0, valueSize: 0, totalsSize: 0, watermarkMs: 0 }, 'gone');
    }
  }

  #addFound(stream: Stream, entry: Pick<FoundBatch, 'sequence' | 'nars' | 'valueSize' | 'totalsSize' | 'watermarkMs'>, place: Place): void {
    const totalsSize = entry.totalsSize + entryOverheadBytes;
    const size = entry.valueSize + totalsSize;
    const { sequence, nars, watermarkMs } = entry;
    const narsThrough = stream.narsThrough + nars;
    stream.add({ sequence, nars, size, totalsSize, watermarkMs, narsThrough, place, past: 0, sentMs: 0, value: null, totals: null, refused: false });
    this.bytes.store += place === 'store' ? size : place === 'released' ? totalsSize : 0;
  }

  /** Streams that wait for the end of the log, so that they can be sent. */
  awaiting(): Stream[] {
    return this.streams.filter((stream) => stream.awaitsLogEnd);
  }

  /**
   * The restart rule: where the log ended when the stream was taken up. What Kafka had confirmed before is not sent again; where a replica folds past
   * that end without having it, it is missing.
   */
  logEnd(stream: Stream, endOffset: number, confirmed: { readonly sequence: number; readonly topicId: string } | null): void {
    stream.awaitsLogEnd = false;
    const sentThrough = confirmed?.topicId === this.#topicId ? Math.min(confirmed.sequence, stream.last) : stream.first - 1;
    stream.trimmedPast = Math.max(stream.trimmedPast, endOffset);
    stream.next = Math.max(stream.first, sentThrough + 1);
    for (let sequence = stream.first; sequence < stream.next; sequence++) {
      const kept = stream.at(sequence);
      if (kept) kept.past = endOffset;
    }
    stream.notedThrough = Math.max(stream.notedThrough, sentThrough);
    this.#judge(stream);
  }

  get topicId(): string {
    return this.#topicId;
  }

  /** Another id: the log was replaced, and everything that both replicas have not acknowledged is unsent. */
  topic(topicId: string): void {
    if (topicId === this.#topicId) return;
    const isFirst = this.#topicId === '';
    this.#topicId = topicId;
    if (isFirst) return;
    for (const stream of this.streams) {
      stream.unsend(Math.max(stream.first, stream.settled + 1));
      stream.trimmedPast = 0;
      stream.notedThrough = 0;
    }
  }

  /** An Ack was read. It is judged alone, never with the other replica's, and only the latest counts, not the highest. */
  ack(ack: AckView, nowMs: number): void {
    const before = this.#views[ack.replica].get(ack.partition);
    const isNews = !before || before.ack.foldedOffset !== ack.foldedOffset || before.ack.topicId !== ack.topicId || !sameSequences(before.ack, ack);
    this.#views[ack.replica].set(ack.partition, { ack, progressMs: isNews ? nowMs : before.progressMs });
    for (const stream of this.#byPartition[ack.partition] ?? []) {
      stream.acknowledged[ack.replica] = ack.sequences.get(stream.incarnation) ?? 0;
      this.#judge(stream);
      this.#trim(stream);
    }
  }

  #judge(stream: Stream): void {
    for (const replica of replicas) {
      const ack = this.#views[replica].get(stream.partition)?.ack;
      if (ack?.topicId !== this.#topicId) continue;
      if (stream.judge(stream.acknowledged[replica], ack.foldedOffset)) this.counters.resends++;
    }
  }

  #trim(stream: Stream): void {
    for (const kept of stream.trim()) {
      this.#leave(kept);
      this.counters.trimmedBatches++;
      this.counters.trimmedNars += kept.nars;
    }
    this.holdings.trim(stream, stream.first - 1);
  }

  #leave(kept: Kept): void {
    if (kept.place === 'store') {
      this.bytes.store -= kept.size;
      if (kept.value) this.#cachedBytes -= kept.value.length;
    } else if (kept.place === 'memory') this.bytes.memory -= kept.size;
    else if (kept.place === 'released') this.bytes[kept.totals ? 'memory' : 'store'] -= kept.totalsSize;
  }

  /** The next append for a partition: of the stream whose next batch is the oldest. null: nothing to send, or one is under way. */
  plan(partition: number, limits: SendLimits): SendPlan | null {
    if (this.#sending.has(partition)) return null;
    let best: { stream: Stream; item: SendItem; watermarkMs: number } | null = null;
    for (const stream of this.#byPartition[partition] ?? []) {
      const item = nextItem(stream, stream.next, limits.storeThere);
      if (!item) continue;
      const watermarkMs = item.kept?.watermarkMs ?? 0;
      if (!best || watermarkMs < best.watermarkMs) best = { stream, item, watermarkMs };
    }
    if (!best) return null;
    const { stream } = best;
    const items: SendItem[] = [];
    let bytes = 0;
    for (let item: SendItem | null = best.item; item; item = nextItem(stream, item.through + 1, limits.storeThere)) {
      bytes += item.kept?.size ?? entryOverheadBytes;
      if (items.length > 0 && (items.length >= limits.messagesMax || bytes > limits.bytesMax)) break;
      items.push(item);
    }
    this.#sending.add(partition);
    return { stream, items, topicId: this.#topicId, generation: stream.generation };
  }

  /** The append is confirmed, its first message at this offset. A success is not proof (K1): the acknowledgments are. */
  sent(plan: SendPlan, baseOffset: number, nowMs: number): void {
    const { stream, items } = plan;
    this.#sending.delete(stream.partition);
    if (plan.topicId !== this.#topicId || plan.generation !== stream.generation) return;
    for (const [index, item] of items.entries()) {
      stream.sent(item.sequence, item.through, () => baseOffset + index + 1, nowMs);
      this.counters.confirmedBatches++;
      this.counters.confirmedNars += item.kept?.nars ?? 0;
      if (item.from === 'totals' || item.from === 'unheld') this.counters.tombstones++;
      const kept = stream.at(item.sequence);
      if (kept?.place === 'store' && kept.value) {
        this.#cachedBytes -= kept.value.length;
        kept.value = null;
        // Should the store be lost, the totals make the loss exact; for a long outage of a replica they would be too many.
        if (stream.batches.length > ownTotalsMax) kept.totals = null;
      }
    }
    this.#judge(stream);
  }

  /** The append failed, or nobody knows: its batches are still unsent. */
  failed(plan: SendPlan): void {
    this.#sending.delete(plan.stream.partition);
  }

  /** The broker will never take this batch: its tombstone goes in its place. */
  refused(plan: SendPlan): void {
    this.failed(plan);
    const kept = plan.items[0]?.kept;
    if (kept) kept.refused = true;
  }

  /** Batches that the store was asked for and does not have. */
  gone(stream: Stream, from: number, through: number): void {
    for (let sequence = Math.max(from, stream.first); sequence <= through; sequence++) {
      const kept = stream.at(sequence);
      if (kept?.place !== 'store' && !(kept?.place === 'released' && !kept.totals)) continue;
      this.#leave(kept);
      this.counters.goneBatches++;
      kept.place = kept.value ? 'memory' : kept.totals ? 'released' : 'gone';
      if (kept.place !== 'gone') this.bytes.memory += kept.place === 'memory' ? kept.size : kept.totalsSize;
    }
  }

  /** A batch whose storing was in doubt is in the store after all. */
  moved(stream: Stream, sequence: number): void {
    const kept = stream.at(sequence);
    if (kept?.place !== 'memory') return;
    this.bytes.memory -= kept.size;
    this.bytes.store += kept.size;
    kept.place = 'store';
    if (kept.sequence < stream.next) kept.value = null;
    else this.#cachedBytes += kept.value?.length ?? 0;
  }

  /**
   * At the bound: batches that Kafka confirmed, oldest first, until so many bytes are free or no more can be. Per stream from its first batch on.
   * Nothing is done here yet: the store releases first, then `released`.
   */
  releasable(place: 'store' | 'memory', bytesMin: number): { stream: Stream; through: number; bytes: number }[] {
    const points: { stream: Stream; through: number; bytes: number }[] = [];
    let free = 0;
    const streams = this.streams
      .filter((stream) => !stream.awaitsLogEnd)
      .sort((x, y) => (x.batches[0]?.watermarkMs ?? 0) - (y.batches[0]?.watermarkMs ?? 0));
    for (const stream of streams) {
      if (free >= bytesMin) break;
      let through = 0;
      let bytes = 0;
      for (const kept of stream.batches) {
        if (kept.sequence >= stream.next || free + bytes >= bytesMin) break;
        if (kept.place !== place) continue;
        bytes += kept.size - kept.totalsSize;
        through = kept.sequence;
      }
      if (through > 0) points.push({ stream, through, bytes });
      free += bytes;
    }
    return points;
  }

  released(stream: Stream, through: number, place: 'store' | 'memory'): void {
    for (const kept of stream.batches) {
      if (kept.sequence > through) break;
      if (kept.place !== place) continue;
      this.#leave(kept);
      kept.place = 'released';
      kept.value = null;
      if (place === 'store') kept.totals = null;
      this.bytes[place] += kept.totalsSize;
      this.counters.releasedBatches++;
      this.counters.releasedNars += kept.nars;
    }
  }

  /** null: the acknowledgments cannot be read now, so their absence says nothing. */
  hearing(sinceMs: number | null): void {
    this.#hearingSinceMs = sinceMs;
  }

  /** A replica is suspected when it says nothing new about a partition for so long while something that Kafka confirmed is not acknowledged by it. */
  suspicions(nowMs: number): Suspected[] {
    const suspected: Suspected[] = [];
    if (this.#hearingSinceMs === null) return suspected;
    for (let partition = 0; partition < this.#byPartition.length; partition++) {
      for (const replica of replicas) {
        const oldestMs = this.#oldestUnacknowledged(partition, replica);
        if (oldestMs === null) continue;
        const sinceMs = Math.max(oldestMs, this.#views[replica].get(partition)?.progressMs ?? 0, this.#hearingSinceMs);
        if (nowMs - sinceMs >= this.#options.suspicionAfterMs) suspected.push({ replica, partition, sinceMs });
      }
    }
    return suspected;
  }

  #oldestUnacknowledged(partition: number, replica: Replica): number | null {
    let oldestMs: number | null = null;
    for (const stream of this.#byPartition[partition] ?? []) {
      if (stream.awaitsLogEnd) continue;
      const kept = stream.at(Math.max(stream.acknowledged[replica] + 1, stream.first));
      if (kept && kept.sequence < stream.next && (oldestMs === null || kept.sentMs < oldestMs)) oldestMs = kept.sentMs;
    }
    return oldestMs;
  }

  /** Something of the process' own in this partition is not sent yet: no tick is added on top. */
  hasUnsent(partition: number): boolean {
    return (this.#byPartition[partition] ?? []).some((stream) => stream.own && stream.next <= stream.last);
  }
}

function nextItem(stream: Stream, sequence: number, storeThere: boolean): SendItem | null {
  if (stream.awaitsLogEnd || sequence > stream.last) return null;
  if (sequence < stream.first) return { sequence, through: stream.first - 1, from: 'unheld', kept: null };
  const kept = stream.at(sequence) as Kept;
  const from = sourceOf(kept);
  const needsStore = from === 'store' || (from === 'totals' && !kept.totals && !(kept.refused && kept.value));
  return needsStore && !storeThere ? null : { sequence, through: sequence, from, kept };
}

function sourceOf(kept: Kept): SendItem['from'] {
  if (kept.place === 'gone') return 'unheld';
  if (kept.place === 'released' || kept.refused) return 'totals';
  return kept.value ? 'value' : 'store';
}

function sameSequences(x: AckView, y: AckView): boolean {
  if (x.sequences.size !== y.sequences.size) return false;
  for (const [incarnation, sequence] of x.sequences) if (y.sequences.get(incarnation) !== sequence) return false;
  return true;
}
