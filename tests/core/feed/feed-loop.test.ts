/** The real loops of feed and watchdog over the model of the log, with two replicas that write known histories. */
import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../adapters/digest.ts';
import type { Logger } from '../../../adapters/ports.ts';
import { electionCodec, healthCodec, outputBlockCodec, outputCodec } from '../../../schemas/codec.ts';
import { outputTopic, type Replica, topics } from '../../../schemas/topics.ts';
import type { Election, Health, Output } from '../../../schemas/types.ts';
import { Feed } from '../../../services/feed/feed.ts';
import { Watchdog } from '../../../services/watchdog/watchdog.ts';
import { ModelClock, ProcessHandle } from '../../simulation/model-clock.ts';
import { ModelBroker, noLogFaults } from '../../simulation/model-log.ts';
import { blockOf, historyOf } from './outputs.ts';

const silent: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

class World {
  readonly clock: ModelClock;
  readonly broker: ModelBroker;
  readonly startMs: number;

  constructor(seed: number, partitions = 1) {
    this.clock = new ModelClock(seed);
    this.broker = new ModelBroker(this.clock, partitions);
    this.startMs = this.clock.now();
  }

  feed(id: string, changed: object = {}) {
    const process = new ProcessHandle(this.clock, id);
    const stop = new AbortController();
    const settings = {
      ...{
        id,
        emit: 'elected' as const,
        agree_within: 10_000,
        history: 5_000,
        transaction_outputs_max: 20,
        standby_after: 3_000,
        health_interval: 250,
      },
      ...changed,
    };
    const feed = new Feed({ log: this.broker.connect(process), clock: process.clock, logger: silent, digest: sha256, settings });
    const ended = feed.run(stop.signal);
    return { process, feed, stop, ended };
  }

  watchdog(id = 'watchdog-1') {
    const process = new ProcessHandle(this.clock, id);
    const stop = new AbortController();
    const settings = { id, silent_after: 1_000, stalled_after: 10_000, suspicion_quorum: 1 };
    const watchdog = new Watchdog({ log: this.broker.connect(process), clock: process.clock, logger: silent, settings });
    return { process, watchdog, stop, ended: watchdog.run(stop.signal) };
  }

  append(topic: string, partition: number, key: string, value: Buffer): void {
    this.broker.append(this.broker.partition(topic, partition), [{ key: Buffer.from(key), value }], null);
  }

  elect(leader: Replica, epoch: number, partition = 0): void {
    const election: Election = { partition, epoch, leader, previous: '', reason: 'operator', evidence: '', watchdog: 'test', at_ms: 0 };
    this.append(topics.elections.name, 0, String(partition), electionCodec.encode(election));
  }

  writes(replica: Replica, history: readonly Output[], firstN: number, lastN: number): void {
    const partition = history[0]!.partition;
    this.append(outputTopic(replica).name, partition, String(partition), outputBlockCodec.encode(blockOf(history, firstN, lastN)));
  }

  says(replica: Replica, n: number, history: readonly Output[], facts: Partial<Health> = {}): void {
    const part = { partition: 0, next_offset: n, end_offset: n, lag_ms: 0, n, chain: history[n - 1]?.chain ?? Buffer.alloc(16) };
    const partitions = [{ ...part, watermark_ms: 0, open_flows: 0, state: 'running', detail: '' }];
    const health = { role: 'aggregator', id: replica, incarnation: '1', at_ms: 0, started_ms: 0, ready: true, stopping: false };
    const value = healthCodec.encode({ ...health, reasons: [], partitions, suspicions: [], copy: null, ...facts });
    this.append(topics.health.name, 0, `aggregator/${replica}`, value);
  }

  emitted(partition = 0): number[] {
    return [...this.broker.partition(topics.aggregates.name, partition).committed()].map(({ value }) => outputCodec.decode(value!).n);
  }

  run(ms: number): Promise<void> {
    return this.clock.run(this.clock.time + ms);
  }
}

const counting = (length: number) => Array.from({ length }, (_, i) => i + 1);
const history = historyOf(200);

describe('the feed', () => {
  test('emits what it finds and what comes, some ms after it came', async () => {
    const world = new World(1);
    world.elect('a', 1);
    world.writes('a', history, 1, 50);
    const { stop, ended, feed } = world.feed('feed-1');
    await world.run(2_000);
    expect(world.emitted()).toEqual(counting(50));
    world.writes('a', history, 51, 60);
    const writtenMs = world.clock.time;
    expect(await world.clock.runUntil(() => world.emitted().length === 60, writtenMs + 1_000)).toBe(true);
    expect(world.clock.time - writtenMs).toBeLessThan(150);
    expect(feed.readiness()).toEqual({ ready: true, reasons: [] });
    stop.abort();
    await world.run(2_000);
    await ended;
  });

  test('carries on after being killed in the middle of anything, each n once', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const world = new World(seed);
      world.elect('a', 1);
      let written = 0;
      for (let i = 0; i < 12; i++) {
        const { process } = world.feed('feed-1');
        for (let k = 0; k < 3 && written < 180; k++) {
          const length = world.clock.chance.integer(1, 8);
          world.writes(k === 1 ? 'a' : 'b', history, written + 1, written + length);
          world.writes(k === 1 ? 'b' : 'a', history, written + 1, written + length);
          written += length;
          await world.run(world.clock.chance.integer(1, 300));
        }
        process.kill();
      }
      world.feed('feed-1');
      await world.run(30_000);
      expect(world.emitted()).toEqual(counting(written));
    }
  });

  test('of two one emits, and the other takes over when that one is dead', async () => {
    const world = new World(3);
    world.elect('a', 1);
    const one = world.feed('feed-1');
    await world.run(500);
    const two = world.feed('feed-2');
    world.writes('a', history, 1, 10);
    await world.run(5_000);
    expect(world.emitted()).toEqual(counting(10));
    two.process.kill();
    world.writes('a', history, 11, 20);
    const writtenMs = world.clock.time;
    expect(await world.clock.runUntil(() => world.emitted().length === 20, writtenMs + 10_000)).toBe(true);
    expect(world.clock.time - writtenMs).toBeGreaterThan(2_900);
    expect(world.clock.time - writtenMs).toBeLessThan(4_500);
    expect(one.feed.partitions[0]).toMatchObject({ phase: { name: 'active' }, takeOvers: 1, fencedCount: 1 });
  });

  test('two that run for long under faults emit each n once, and do not fence each other for ever', async () => {
    for (let seed = 1; seed <= 15; seed++) {
      const world = new World(seed);
      Object.assign(world.broker.faults, { unavailable: 0.02, unknownAppended: 0.03, unknownLost: 0.02, readFault: 0.02 });
      world.elect('a', 1);
      const feeds = [world.feed('feed-1'), world.feed('feed-2')];
      let epoch = 1;
      for (let written = 0; written < 200; written += 5) {
        for (const replica of ['a', 'b'] as const) world.writes(replica, history, written + 1, written + 5);
        if (world.clock.chance.happens(0.1)) world.elect(world.clock.chance.pick(['a', 'b']), ++epoch);
        const { process } = world.clock.chance.pick(feeds);
        if (world.clock.chance.happens(0.2)) process.pause();
        await world.run(world.clock.chance.integer(1, 2_000));
        for (const feed of feeds) feed.process.resume();
      }
      Object.assign(world.broker.faults, noLogFaults);
      await world.run(120_000);
      expect(world.emitted()).toEqual(counting(200));
      // Fair weather: whoever emits goes on emitting.
      const epochs = feeds.map(({ feed }) => feed.partitions[0]!.opened);
      await world.run(60_000);
      expect(feeds.map(({ feed }) => feed.partitions[0]!.opened)).toEqual(epochs);
    }
  });

  test('cuts what is emitted and compared when the history is over, never where a replica is behind, and goes on from there', async () => {
    const world = new World(4);
    const starts = () => (['a', 'b'] as const).map((replica) => world.broker.partition(outputTopic(replica).name, 0).startOffset);
    world.elect('a', 1);
    const one = world.feed('feed-1');
    for (let n = 1; n <= 60; n += 2) {
      world.writes('a', history, n, n + 1);
      if (n < 40) world.writes('b', history, n, n + 1);
      await world.run(500);
    }
    await world.run(20_000);
    expect(world.emitted()).toEqual(counting(60));
    expect(starts()).toEqual([19, 19]);
    expect(one.feed.emissions[0]?.heads.keptFromN).toBe(40);
    one.process.kill();
    world.broker.setGroupOffset('flowledger-feed', 'aggregates.a', 0, 29);
    world.feed('feed-2');
    for (let n = 41; n <= 60; n += 2) world.writes('b', history, n, n + 1);
    world.writes('b', history, 61, 70);
    world.elect('b', 2);
    await world.run(30_000);
    expect(world.emitted()).toEqual(counting(70));
    expect(starts()).toEqual([29, 29]);
  });

  test('holds the partition when the replicas differ, also after a restart, and says so in its health', async () => {
    const world = new World(5);
    const other = historyOf(200, 31);
    world.elect('a', 1);
    world.writes('a', history, 1, 40);
    const first = world.feed('feed-1');
    await world.run(8_000);
    world.writes('b', other, 1, 40);
    world.writes('a', history, 41, 50);
    await world.run(8_000);
    const emitted = world.emitted().length;
    expect(first.feed.partitions[0]?.phase).toMatchObject({ name: 'held', divergence: { n: 31 } });
    first.process.kill();
    const second = world.feed('feed-1');
    world.writes('a', history, 51, 60);
    await world.run(20_000);
    expect(second.feed.partitions[0]?.phase.name).toBe('held');
    expect(world.emitted()).toEqual(counting(emitted));
    const said = healthCodec.decode([...world.broker.partition(topics.health.name, 0).committed()].at(-1)!.value!);
    expect(said.partitions[0]).toMatchObject({ state: 'held', n: emitted, detail: expect.stringContaining('differ at n 31') });
  });

  test('emits each partition by itself', async () => {
    const world = new World(6, 3);
    const histories = [0, 1, 2].map((partition) => historyOf(20, undefined, partition));
    world.feed('feed-1');
    for (const [partition, one] of histories.entries()) {
      world.elect(partition === 1 ? 'b' : 'a', 1, partition);
      world.writes(partition === 1 ? 'b' : 'a', one, 1, 20);
    }
    await world.run(3_000);
    expect([0, 1, 2].map((partition) => world.emitted(partition))).toEqual([counting(20), counting(20), counting(20)]);
  });

  test('starts while the broker is away, and goes on when it is back', async () => {
    const world = new World(7);
    world.elect('a', 1);
    world.writes('a', history, 1, 10);
    world.broker.away(20_000);
    const { feed } = world.feed('feed-1');
    await world.run(10_000);
    expect(feed.readiness()).toMatchObject({ ready: false, reasons: [expect.stringContaining('kafka.brokers')] });
    await world.run(20_000);
    expect(world.emitted()).toEqual(counting(10));
  });
});

describe('watchdog and feed', () => {
  test('the death of the elected aggregator: the first record from the other in under 2 s', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const world = new World(seed);
      world.feed('feed-1');
      world.watchdog('watchdog-1');
      world.watchdog('watchdog-2');
      let n = 0;
      const live = new Set<Replica>(['a', 'b']);
      const turn = async () => {
        n++;
        for (const replica of live) {
          world.writes(replica, history, n, n);
          world.says(replica, n, history);
        }
        await world.run(200);
      };
      for (let i = 0; i < 30; i++) await turn();
      expect(world.emitted().length).toBeGreaterThanOrEqual(29);
      const diedMs = world.clock.time;
      live.delete('a');
      const emitted = world.emitted().length;
      while (world.emitted().length <= emitted + 1 && world.clock.time < diedMs + 5_000) await turn();
      expect(world.clock.time - diedMs).toBeLessThan(2_000);
      live.add('a');
      for (let i = 0; i < 30; i++) await turn();
      expect(world.emitted()).toEqual(counting(world.emitted().length));
      const elections = [...world.broker.partition(topics.elections.name, 0).committed()].map(({ value }) => electionCodec.decode(value!));
      expect(elections.at(-1)).toMatchObject({ leader: 'b', reason: 'silent' });
      expect(new Set(elections.map(({ epoch }) => epoch)).size).toBe(2);
    }
  });

  test('a broker that was away accuses nobody', async () => {
    const world = new World(8);
    world.watchdog();
    const talk = async (rounds: number) => {
      for (let i = 0; i < rounds; i++) {
        world.says('a', 5, history);
        world.says('b', 5, history);
        await world.run(200);
      }
    };
    await talk(20);
    world.broker.away(10_000);
    await world.run(10_400);
    await talk(20);
    const elections = [...world.broker.partition(topics.elections.name, 0).committed()].map(({ value }) => electionCodec.decode(value!));
    expect(elections.map(({ reason }) => reason)).toEqual(['initial']);
  });

  test('what is read a second time after a fault is no news', async () => {
    for (let seed = 1; seed <= 5; seed++) {
      const world = new World(seed);
      world.watchdog();
      const talk = async (rounds: number, a: Partial<Health> = {}, b: Partial<Health> = {}) => {
        for (let i = 0; i < rounds; i++) {
          world.says('a', 5, history, a);
          world.says('b', 5, history, b);
          await world.run(100);
        }
      };
      await talk(20);
      await talk(60, { stopping: true });
      await talk(10);
      await talk(5, {}, { stopping: true });
      await talk(60);
      world.broker.away(50);
      await talk(30);
      const elections = [...world.broker.partition(topics.elections.name, 0).committed()].map(({ value }) => electionCodec.decode(value!));
      expect(elections.map(({ leader }) => leader)).toEqual(['a', 'b', 'a']);
    }
  });

  test('a watchdog that was stopped for a while accuses nobody of what it did not hear', async () => {
    const world = new World(9);
    const { process } = world.watchdog();
    for (let i = 0; i < 100; i++) {
      if (i === 30) process.pause();
      if (i === 60) process.resume();
      world.says('b', 5, history);
      await world.run(20);
      world.says('a', 5, history);
      await world.run(180);
    }
    const elections = [...world.broker.partition(topics.elections.name, 0).committed()].map(({ value }) => electionCodec.decode(value!));
    expect(elections.map(({ reason }) => reason)).toEqual(['initial']);
  });

  test.each([-5, 5])('a watchdog whose clock is set by %d hours accuses nobody of it, and still notices a death', async (hours) => {
    const world = new World(10);
    const { process } = world.watchdog();
    const elections = () => [...world.broker.partition(topics.elections.name, 0).committed()].map(({ value }) => electionCodec.decode(value!));
    const talk = async (rounds: number, ...replicas: readonly Replica[]) => {
      for (let i = 0; i < rounds; i++) {
        for (const replica of replicas) world.says(replica, 5, history);
        await world.run(200);
      }
    };
    await talk(20, 'a', 'b');
    process.skewMs = hours * 3_600_000;
    await talk(20, 'a', 'b');
    expect(elections().map(({ reason }) => reason)).toEqual(['initial']);
    await talk(10, elections()[0]?.leader === 'a' ? 'b' : 'a');
    expect(elections().map(({ reason }) => reason)).toEqual(['initial', 'silent']);
  });

  test('a watchdog that gets its answers late, again and again, still notices a death', async () => {
    const world = new World(11);
    const { process } = world.watchdog();
    for (let i = 0; i < 60; i++) {
      if (i % 4 === 0) process.pause();
      if (i % 4 === 3) process.resume();
      if (i < 30) world.says('a', 5, history);
      world.says('b', 5, history);
      await world.run(200);
    }
    const elections = [...world.broker.partition(topics.elections.name, 0).committed()].map(({ value }) => electionCodec.decode(value!));
    expect(elections.map(({ reason, leader }) => [reason, leader])).toEqual([
      ['initial', 'a'],
      ['silent', 'b'],
    ]);
  });
});
