/** A collector's local copy in memory, which outlives the collector's processes; one store per collector name. */
import {
  type ConfirmedMark,
  type Durability,
  type Flush,
  type FlushOutcome,
  type Settlement,
  type Store,
  type StoredBatch,
  type StoredStream,
  type StoredTotals,
  StoreFault,
} from '../../adapters/store.ts';
import type { Chance, ModelClock, ProcessHandle } from './model-clock.ts';

/** Probability of each fault, per call. */
export interface StoreFaults {
  /** Refused before anything happened. */
  away: number;
  /** Reported as unknown, and done. */
  unknownDone: number;
  /** Reported as unknown, and not done. */
  unknownLost: number;
}

export const noStoreFaults: StoreFaults = { away: 0, unknownDone: 0, unknownLost: 0 };

interface Entry {
  readonly value: Buffer | null;
  readonly totals: Buffer;
  readonly size: number;
}

interface Stream {
  readonly incarnation: string;
  readonly partition: number;
  last: number;
  closed: boolean;
  confirmed: ConfirmedMark | null;
  /** Ascending by sequence. */
  readonly entries: Map<number, Entry>;
}

/** The store server of one collector. What a process gets of it is a Store, by connect(). */
export class ModelStoreServer {
  readonly clock: ModelClock;
  readonly chance: Chance;
  faults: StoreFaults = { ...noStoreFaults };
  readonly counts: Record<string, number> = {};
  durability: Durability = { doubts: [] };
  /** Called before a batch or its totals leave the store. */
  onTrim: (incarnation: string, partition: number, sequence: number, what: 'released' | 'trimmed') => void = () => undefined;
  /** Called for each batch that is known to be on disk. */
  onStored: (incarnation: string, batch: StoredBatch) => void = () => undefined;
  /** Called when a process may have to start without the exporters' last positions. */
  onBlindStart: () => void = () => undefined;
  /** As its collector is configured. */
  bytesMax = Number.POSITIVE_INFINITY;
  /** It lost something that was on its disk. */
  hasGoneBack = false;
  streams = new Map<string, Stream>();
  positions = new Map<string, string>();
  templates = new Map<string, string>();
  #awayUntil = Number.NEGATIVE_INFINITY;
  #fullUntil = Number.NEGATIVE_INFINITY;
  /** Takes back what is written and not on disk yet; the answer to its writer waits for that. */
  #undo: (() => void) | null = null;

  constructor(clock: ModelClock) {
    this.clock = clock;
    this.chance = clock.chance.fork();
  }

  connect(process: ProcessHandle): Store {
    return new ModelStore(this, process);
  }

  away(ms: number): void {
    this.#awayUntil = this.clock.time + ms;
  }

  /** At maxmemory: what needs room is refused, what makes room is not. */
  full(ms: number): void {
    this.#fullUntil = this.clock.time + ms;
  }

  get isFull(): boolean {
    return this.clock.time < this.#fullUntil;
  }

  /** The server dies and comes back with what was on its disk: a write that was under way is gone, or half written, and then cut off. */
  crash(downMs: number): void {
    this.#undo?.();
    this.#undo = null;
    this.crashes++;
    this.away(downMs);
  }

  /** How often the server died. */
  crashes = 0;
  /** Else nobody keeps what a crash would take back. */
  mayCrash = false;

  /** Carries out a write that is on disk some time later. @returns what says so; false where the server died first */
  write<T>(effect: () => T): { readonly result: T; readonly onDisk: () => boolean } {
    const { crashes } = this;
    const restore = this.#undo || !this.mayCrash ? null : this.#copy();
    const result = effect();
    if (restore) this.#undo = restore;
    return {
      result,
      onDisk: () => {
        if (this.crashes !== crashes) return false;
        this.#undo = null;
        return true;
      },
    };
  }

  get reachable(): boolean {
    return this.clock.time >= this.#awayUntil;
  }

  /** All of it is gone, as after a flush of the server or a new, empty disk. */
  wipe(): void {
    this.streams.clear();
    this.positions.clear();
    this.templates.clear();
    this.hasGoneBack = true;
    this.count('wiped');
  }

  /** The store as it is now; restore() brings it back, as a server does that lost its tail or was restored from a backup. */
  save(): () => void {
    const restore = this.#copy();
    return () => {
      restore();
      this.hasGoneBack = true;
      this.count('went back');
    };
  }

  #copy(): () => void {
    const copy = (streams: Map<string, Stream>) =>
      new Map([...streams].map(([key, stream]) => [key, { ...stream, entries: new Map(stream.entries) }]));
    const streams = copy(this.streams);
    const positions = new Map(this.positions);
    const templates = new Map(this.templates);
    return () => {
      this.streams = copy(streams);
      this.templates = new Map(templates);
      this.positions = new Map(positions);
    };
  }

  /** Of what it holds, batches and totals. */
  get bytes(): number {
    let bytes = 0;
    for (const { entries } of this.streams.values()) for (const { value, totals } of entries.values()) bytes += totals.length + (value?.length ?? 0);
    return bytes;
  }

  strikes(fault: keyof StoreFaults): boolean {
    if (!this.chance.happens(this.faults[fault])) return false;
    this.count(`store ${fault}`);
    return true;
  }

  count(fault: string): void {
    this.counts[fault] = (this.counts[fault] ?? 0) + 1;
  }

  stream(incarnation: string, partition: number): Stream | undefined {
    return this.streams.get(`${incarnation}/${partition}`);
  }

  flush(flush: Flush): FlushOutcome {
    const adds = new Map<number, StoredBatch[]>();
    for (const batch of flush.batches) adds.set(batch.partition, [...(adds.get(batch.partition) ?? []), batch]);
    const found = (partition: number) => this.stream(flush.incarnation, partition)?.last ?? 0;
    const wrong = flush.ends.find(({ partition, last }) => found(partition) !== last);
    if (wrong) {
      if (flush.batches.length > 0 && this.#isRepeated(flush, adds)) return { kind: 'repeated' };
      return { kind: 'mismatch', partition: wrong.partition, expected: wrong.last, found: found(wrong.partition) };
    }
    for (const batch of flush.batches) this.#add(flush.incarnation, batch);
    for (const [exporter, position] of flush.positions) {
      if (position === '') this.positions.delete(exporter);
      else this.positions.set(exporter, position);
    }
    return { kind: 'stored' };
  }

  #isRepeated(flush: Flush, adds: ReadonlyMap<number, readonly StoredBatch[]>): boolean {
    return flush.ends.every(({ partition, last }) => {
      const batches = adds.get(partition) ?? [];
      const stream = this.stream(flush.incarnation, partition);
      if ((stream?.last ?? 0) !== last + batches.length) return false;
      return batches.every(({ sequence, value }) => stream?.entries.get(sequence)?.value?.equals(value) ?? false);
    });
  }

  #add(incarnation: string, batch: StoredBatch): void {
    const key = `${incarnation}/${batch.partition}`;
    const fresh = (): Stream => ({ incarnation, partition: batch.partition, last: 0, closed: false, confirmed: null, entries: new Map() });
    const stream = this.streams.get(key) ?? fresh();
    this.streams.set(key, stream);
    if (batch.sequence !== stream.last + 1) throw new Error(`${key}: ${batch.sequence} was given to the store after ${stream.last}`);
    stream.entries.set(batch.sequence, { value: Buffer.from(batch.value), totals: Buffer.from(batch.totals), size: batch.value.length });
    stream.last = batch.sequence;
    stream.closed = batch.goodbye;
    this.onStored(incarnation, batch);
  }

  settle(settlement: Settlement): void {
    for (const mark of settlement.confirmed) {
      const stream = this.stream(mark.incarnation, mark.partition);
      if (stream) stream.confirmed = mark;
    }
    for (const { incarnation, partition, through } of settlement.release) {
      const stream = this.stream(incarnation, partition);
      for (const [sequence, entry] of stream?.entries ?? []) {
        if (sequence > through || !entry.value) continue;
        this.onTrim(incarnation, partition, sequence, 'released');
        stream?.entries.set(sequence, { ...entry, value: null });
      }
    }
    for (const { incarnation, partition, through } of settlement.trim) {
      const stream = this.stream(incarnation, partition);
      for (const sequence of [...(stream?.entries.keys() ?? [])]) {
        if (sequence > through) continue;
        this.onTrim(incarnation, partition, sequence, 'trimmed');
        stream?.entries.delete(sequence);
      }
    }
    for (const { incarnation, partition, through } of settlement.drop) {
      const stream = this.stream(incarnation, partition);
      if (stream?.closed && stream.entries.size === 0 && stream.last === through) this.streams.delete(`${incarnation}/${partition}`);
    }
  }
}

class ModelStore implements Store {
  readonly #server: ModelStoreServer;
  readonly #process: ProcessHandle;
  #knowsPositions = false;

  constructor(server: ModelStoreServer, process: ProcessHandle) {
    this.#server = server;
    this.#process = process;
    if (server.hasGoneBack) server.onBlindStart();
  }

  flush(flush: Flush): Promise<FlushOutcome> {
    return this.#change(() => {
      if (this.#server.isFull && flush.batches.length > 0) throw new StoreFault('full', 'used memory is above maxmemory');
      return this.#server.flush(flush);
    });
  }

  settle(settlement: Settlement): Promise<void> {
    return this.#change(() => this.#server.settle(settlement));
  }

  streams(): Promise<StoredStream[]> {
    return this.#ask(() => [...this.#server.streams.values()].map(describe));
  }

  totals(incarnation: string, partition: number, from: number, count: number): Promise<StoredTotals[]> {
    return this.#ask(() =>
      this.#entries(incarnation, partition, from)
        .slice(0, count)
        .map(([sequence, { totals, size }]) => ({ sequence, totals, size })),
    );
  }

  read(incarnation: string, partition: number, from: number, count: number): Promise<{ sequence: number; value: Uint8Array }[]> {
    return this.#ask(() =>
      this.#entries(incarnation, partition, from)
        .flatMap(([sequence, { value }]) => (value ? [{ sequence, value }] : []))
        .slice(0, count),
    );
  }

  async positions(): Promise<Map<string, string>> {
    const positions = await this.#ask(() => new Map(this.#server.positions));
    this.#knowsPositions = true;
    return positions;
  }

  templates(): Promise<Map<string, string>> {
    return this.#ask(() => new Map(this.#server.templates));
  }

  saveTemplates(changes: readonly (readonly [name: string, text: string | null])[]): Promise<void> {
    return this.#change(() => {
      if (this.#server.isFull) throw new StoreFault('full', 'used memory is above maxmemory');
      for (const [name, text] of changes) {
        if (text === null) this.#server.templates.delete(name);
        else this.#server.templates.set(name, text);
      }
    });
  }

  durability(): Promise<Durability> {
    return this.#ask(() => this.#server.durability);
  }

  async close(): Promise<void> {
    return undefined;
  }

  #entries(incarnation: string, partition: number, from: number): [number, Entry][] {
    return [...(this.#server.stream(incarnation, partition)?.entries ?? [])].filter(([sequence]) => sequence >= from);
  }

  #ask<T>(effect: () => T): Promise<T> {
    return this.#process.request(this.#latency(), this.#latency(), () => {
      this.#reach();
      return effect();
    });
  }

  #reach(): void {
    const server = this.#server;
    if (server.reachable && !server.strikes('away')) return;
    if (!this.#knowsPositions) server.onBlindStart();
    throw new StoreFault('away', 'the store is away');
  }

  /** The answer comes when it is on disk. */
  #change<T>(effect: () => T): Promise<T> {
    const server = this.#server;
    return this.#process.exchange(this.#latency(), (answer, refuse) => {
      const back = (reply: () => void) => server.clock.after(this.#latency(), reply);
      const unknown = () => refuse(new StoreFault('unknown', 'no answer in time'));
      try {
        this.#reach();
        if (server.strikes('unknownLost')) return back(unknown);
        const { result, onDisk } = server.write(effect);
        if (server.strikes('unknownDone')) return back(unknown);
        back(() => (onDisk() ? answer(result) : unknown()));
      } catch (error) {
        back(() => refuse(error as Error));
      }
    });
  }

  /** One way, in ms; an fsync now and then takes long. */
  #latency(): number {
    const draw = this.#server.chance.next();
    return draw < 0.99 ? 0.05 + draw / 2 : this.#server.chance.integer(5, 60);
  }
}

function describe(stream: Stream): StoredStream {
  const sequences = [...stream.entries.keys()];
  const firstBatch = [...stream.entries].find(([, { value }]) => value !== null)?.[0];
  return {
    incarnation: stream.incarnation,
    partition: stream.partition,
    first: sequences[0] ?? stream.last + 1,
    firstBatch: firstBatch ?? stream.last + 1,
    last: stream.last,
    closed: stream.closed,
    confirmed: stream.confirmed,
  };
}
