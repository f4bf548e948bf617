/** Two feeds, a broker with producer epochs, replicas whose streams arrive in any order, elections and faults at any time. */
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { sha256 } from '../../../adapters/digest.ts';
import { type FeedOptions, FeedPartition } from '../../../core/feed/partition.ts';
import { decodeOutput, emptyTail, type RawRecord, TailScan } from '../../../core/feed/tail.ts';
import { encodeForChain } from '../../../schemas/codec.ts';
import { type Replica, replicas } from '../../../schemas/topics.ts';
import type { Output, OutputBlock } from '../../../schemas/types.ts';
import { blockOf, hex, historyOf } from './outputs.ts';

const length = 24;
const history = historyOf(length);

const options: FeedOptions = {
  emit: 'elected',
  agreeWithinMs: 5_000,
  transactionOutputsMax: 4,
  transactionBytesMax: 1_000_000,
  standbyAfterMs: 1_000,
  chance: () => 0.5,
};

/** Topic aggregates with its transactions: one open at a time, of the newest epoch. */
class Broker {
  readonly records: RawRecord[] = [];
  epoch = 0;
  #committed: { output: Output; offset: number }[] = [];

  init(): number {
    return ++this.epoch;
  }

  /** How a transaction ends: done; done and not told; aborted and not told. A fenced one writes nothing. */
  commit(epoch: number, values: readonly Buffer[], fate: 'done' | 'untold' | 'aborted'): 'done' | 'fenced' | 'unknown' {
    if (epoch !== this.epoch) return 'fenced';
    for (const value of values) {
      if (fate !== 'aborted') this.#committed.push({ output: decodeOutput(value)!, offset: this.records.length });
      this.#write(value, null);
    }
    this.#write(null, fate === 'aborted' ? 'abort' : 'commit');
    checkAggregates(this.#committed);
    return fate === 'done' ? 'done' : 'unknown';
  }

  #write(value: Buffer | null, marker: RawRecord['marker']): void {
    this.records.push({ offset: this.records.length, value, producerId: 'p', marker });
  }

  /** What a committed reader gets. */
  get committed(): readonly { output: Output; offset: number }[] {
    return this.#committed;
  }
}

interface World {
  readonly broker: Broker;
  readonly topics: Record<Replica, OutputBlock[]>;
  nowMs: number;
  leader: Replica | null;
}

/** One feed process: its loop, with everything it waits for happening at once. */
class FeedProcess {
  readonly #world: World;
  #feed!: FeedPartition;
  #epoch = 0;
  #read: Record<Replica | 'aggregates', number> = { a: 0, b: 0, aggregates: 0 };
  readonly #options: FeedOptions;
  /** Positions that a restart begins at. */
  #noted: Record<Replica, number | null> = { a: null, b: null };
  everHeld = false;

  constructor(world: World, changed: Partial<FeedOptions>) {
    this.#world = world;
    this.#options = { ...options, ...changed };
    this.start();
  }

  get feed(): FeedPartition {
    return this.#feed;
  }

  start(): void {
    this.#feed = new FeedPartition(0, this.#options, sha256);
  }

  note(): void {
    const positions = this.#feed.positions();
    for (const replica of replicas) this.#noted[replica] = positions[replica] ?? this.#noted[replica];
  }

  /** Reads up to so many blocks of a replica's topic. */
  read(replica: Replica, count: number): void {
    const outputs = this.#feed.outputs[replica];
    if (!this.#feed.tail || outputs.unplaced) return;
    this.#read[replica] = outputs.resume() ?? this.#read[replica];
    const topic = this.#world.topics[replica];
    for (let i = 0; i < count && this.#read[replica] < topic.length; i++) {
      const taken = this.#feed.take(replica, topic[this.#read[replica]]!, this.#read[replica], this.#world.nowMs);
      if (taken === 'paused') return;
      this.#read[replica]++;
    }
    outputs.readTo(this.#read[replica]);
    this.#look();
  }

  readAggregates(): void {
    if (!this.#feed.tail) return;
    for (const { output, offset } of this.#world.broker.committed) {
      if (offset < this.#read.aggregates) continue;
      this.#feed.follow(output, offset, this.#world.nowMs);
    }
    this.#read.aggregates = this.#world.broker.records.length;
    this.#look();
  }

  proceed(fate: 'done' | 'untold' | 'aborted'): void {
    this.#feed.elect(this.#world.leader);
    const step = this.#feed.next(this.#world.nowMs);
    if (step.do === 'open') this.#open();
    else if (step.do === 'place') {
      const noted = step.fromStart ? null : this.#noted[step.replica];
      this.#read[step.replica] = noted ?? 0;
      this.#feed.placed(step.replica, noted === null, this.#world.topics[step.replica].length);
      this.#feed.outputs[step.replica].readTo(this.#read[step.replica]);
    } else if (step.do === 'emit') {
      const result = this.#world.broker.commit(
        this.#epoch,
        step.messages.map(({ value }) => value),
        fate,
      );
      if (result !== 'done') this.#feed.fail(result === 'fenced', this.#world.nowMs);
    }
    this.#look();
  }

  #open(): void {
    this.#epoch = this.#world.broker.init();
    const scan = new TailScan(0, sha256);
    for (const record of this.#world.broker.records) scan.take(record);
    this.#read.aggregates = this.#world.broker.records.length;
    this.#feed.open(scan.tail ?? emptyTail, this.#world.nowMs);
  }

  #look(): void {
    if (this.#feed.phase.name === 'held') this.everHeld = true;
  }
}

const replicaOf = fc.constantFrom<Replica>('a', 'b');
const feedIndex = fc.integer({ min: 0, max: 1 });
const event = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('write' as const), replica: replicaOf, pick: fc.nat(), size: fc.integer({ min: 1, max: 5 }) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant('read' as const), feed: feedIndex, replica: replicaOf, count: fc.integer({ min: 1, max: 4 }) }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('follow' as const), feed: feedIndex }) },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('proceed' as const),
      feed: feedIndex,
      fate: fc.oneof({ weight: 6, arbitrary: fc.constant('done' as const) }, fc.constantFrom('untold' as const, 'aborted' as const)),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('elect' as const), replica: replicaOf }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('time' as const), ms: fc.integer({ min: 1, max: 3_000 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('note' as const), feed: feedIndex }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const), feed: feedIndex }) },
);

type Event = typeof event extends fc.Arbitrary<infer One> ? One : never;

/** Replicas write each output at least once in order, and any of them again at any time. */
class Writers {
  readonly #sources: Record<Replica, readonly Output[]>;
  readonly #next = { a: 1, b: 1 };
  readonly #topics: Record<Replica, OutputBlock[]>;

  constructor(topics: Record<Replica, OutputBlock[]>, sources: Record<Replica, readonly Output[]>) {
    this.#topics = topics;
    this.#sources = sources;
  }

  write(replica: Replica, pick: number, size: number): void {
    const next = this.#next[replica];
    // Now and then a block is written ahead of one that was swallowed, or again.
    const first = pick % 4 === 0 ? 1 + (pick % next) : pick % 7 === 0 ? next + 2 : next;
    if (first > length) return;
    const last = Math.min(length, first + size - 1);
    this.#topics[replica].push(blockOf(this.#sources[replica], first, last));
    if (first <= next) this.#next[replica] = Math.max(next, last + 1);
  }

  finish(): void {
    for (const replica of replicas) this.#topics[replica].push(blockOf(this.#sources[replica], 1, length));
  }
}

function newWorld(): World {
  return { broker: new Broker(), topics: { a: [], b: [] }, nowMs: 1_000_000, leader: null };
}

function carryOut(world: World, feeds: readonly FeedProcess[], writers: Writers, events: readonly Event[]): void {
  for (const one of events) {
    const feed = feeds['feed' in one ? one.feed : 0]!;
    if (one.do === 'write') writers.write(one.replica, one.pick, one.size);
    else if (one.do === 'read') feed.read(one.replica, one.count);
    else if (one.do === 'follow') feed.readAggregates();
    else if (one.do === 'proceed') feed.proceed(one.fate);
    else if (one.do === 'elect') world.leader = one.replica;
    else if (one.do === 'time') world.nowMs += one.ms;
    else if (one.do === 'note') feed.note();
    else feed.start();
  }
}

/** n contiguous, each once, and one history throughout. */
function checkAggregates(committed: readonly { output: Output }[]): void {
  const outputs = committed.map(({ output }) => output);
  expect(outputs.map(({ n }) => n)).toEqual(outputs.map((_, i) => i + 1));
  const last = outputs.at(-1);
  if (!last) return;
  const other = differing?.[last.n - 1];
  expect([history[last.n - 1]!, ...(other ? [other] : [])].map(({ chain }) => hex(chain))).toContain(hex(last.chain));
  let chain = emptyTail.chain;
  for (const output of outputs) {
    expect(hex(sha256Chain(output, chain))).toBe(hex(output.chain));
    chain = output.chain;
  }
}

let differing: readonly Output[] | null = null;

function sha256Chain(output: Output, previous: Uint8Array): Uint8Array {
  return sha256(encodeForChain(output, previous)).subarray(0, 16);
}

/** Faults stop: everything is written, read and carried out until nothing moves any more. */
function settle(world: World, feeds: readonly FeedProcess[], writers: Writers): void {
  writers.finish();
  world.leader ??= 'a';
  for (let i = 0; i < 150; i++) {
    world.nowMs += 250;
    for (const feed of feeds) {
      feed.proceed('done');
      for (const replica of replicas) feed.read(replica, 2);
      feed.readAggregates();
    }
  }
}

const settings = { numRuns: 200 };

test('whatever happens to two feeds, aggregates is the history, each n once, and all of it in the end', () => {
  differing = null;
  fc.assert(
    fc.property(fc.array(event, { maxLength: 120 }), fc.constantFrom<FeedOptions['emit']>('elected', 'agreed'), (events, emit) => {
      const world = newWorld();
      const feeds = [new FeedProcess(world, { emit }), new FeedProcess(world, { emit })];
      const writers = new Writers(world.topics, { a: history, b: history });
      carryOut(world, feeds, writers, events);
      settle(world, feeds, writers);
      expect(world.broker.committed.length).toBe(length);
      expect(feeds.map(({ feed }) => feed.phase.name)).not.toContain('held');
    }),
    settings,
  );
});

/** B differs from A from an n on, and two feeds meet the events and then have time to settle. */
function tellTwoHistories(events: readonly Event[], differsFrom: number): { world: World; feeds: FeedProcess[]; writers: Writers } {
  differing = historyOf(length, differsFrom);
  const world = newWorld();
  const feeds = [new FeedProcess(world, {}), new FeedProcess(world, {})];
  const writers = new Writers(world.topics, { a: history, b: differing });
  carryOut(world, feeds, writers, events);
  settle(world, feeds, writers);
  return { world, feeds, writers };
}

test('whatever happens while one replica tells another history, the two are never mixed, and the partition is held', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 120 }), fc.integer({ min: 1, max: length }), (events, differsFrom) => {
      const { feeds } = tellTwoHistories(events, differsFrom);
      expect(feeds.every(({ feed }) => feed.phase.name === 'held')).toBe(true);
    }),
    settings,
  );
});

test('a partition that is held is held again after a restart, and nothing in dispute is emitted', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 120 }), fc.integer({ min: 1, max: length }), (events, differsFrom) => {
      const { world, feeds, writers } = tellTwoHistories(events, differsFrom);
      const emitted = world.broker.committed.length;
      for (const feed of feeds) feed.start();
      settle(world, feeds, writers);
      expect(feeds.every(({ feed }) => feed.phase.name === 'held')).toBe(true);
      // What lies before the difference may still go out.
      expect(world.broker.committed.length).toBeLessThanOrEqual(Math.max(emitted, differsFrom - 1));
    }),
    { numRuns: 150 },
  );
});
