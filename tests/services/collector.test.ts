import { describe, expect, test } from '@jest/globals';
import { healthCodec } from '../../schemas/codec.ts';
import { replicas, topics } from '../../schemas/topics.ts';
import { noLogFaults } from '../simulation/model-log.ts';
import { collectorName, World } from './collector-world.ts';

/** SEEDS=100 looks further than every run does. */
const seeds = Array.from({ length: Number(process.env['SEEDS'] ?? 2) }, (_, index) => index + 1);

function expectBalanced(world: World): void {
  expect(world.error).toBeNull();
  const sent = world.exporter.sent;
  for (const replica of replicas) {
    const account = world.account(replica);
    expect(account.nars).toBe(account.distinct);
    expect(account.nars).toBe(account.decoded);
    expect(account.nars + account.lost + account.lostOnWire).toBe(sent.length);
  }
}

describe('the whole of the traffic reaches both replicas, each flow once', () => {
  test('on a calm day, and the copy is empty afterwards', async () => {
    const world = new World(1);
    await world.traffic(5_000);
    await world.settle();
    expectBalanced(world);
    expect(world.account('a')).toMatchObject({ lost: 0, lostOnWire: 0, bytes: world.exporter.sent.reduce((sum, flow) => sum + flow.bytes, 0) });
    expect(world.collector.stats().figures.nars).toBe(0);
    expect(world.collector.readiness()).toEqual({ ready: true, reasons: [] });
  });

  test.each(seeds)('while the broker lies, calls fail and the collector is killed (seed %i)', async (seed) => {
    const world = new World(seed);
    await world.traffic(1_000);
    for (let i = 0; i < 6; i++) {
      world.broker.faults = {
        ...noLogFaults,
        unavailable: 0.05,
        unknownAppended: 0.05,
        unknownLost: 0.05,
        unknownLate: 0.05,
        swallowed: 0.1,
        repeated: 0.1,
        readFault: 0.05,
      };
      await world.traffic(world.clock.chance.integer(100, 3_000));
      if (world.clock.chance.happens(0.3)) world.broker.away(3_000);
      world.replicas.b.isAway = world.clock.chance.happens(0.3);
      if (world.clock.chance.happens(0.5)) {
        world.process.kill();
        await world.traffic(500);
        world.start();
      }
    }
    await world.settle();
    expectBalanced(world);
    expect(world.account('a').lost).toBe(0);
    expect(world.collector.stats().figures.nars).toBe(0);
  });

  test.each(seeds)('while the store comes and goes, and answers get lost (seed %i)', async (seed) => {
    const world = new World(seed);
    for (let i = 0; i < 6; i++) {
      world.broker.faults = { ...noLogFaults, unknownAppended: 0.05, swallowed: 0.05, unknownLost: 0.05 };
      world.server.faults = { away: 0.01, unknownDone: 0.02, unknownLost: 0.02 };
      await world.traffic(world.clock.chance.integer(100, 3_000));
      if (world.clock.chance.happens(0.5)) world.server.away(2_000);
      if (world.clock.chance.happens(0.3)) world.broker.away(3_000);
    }
    await world.settle();
    expectBalanced(world);
    expect(world.account('b')).toMatchObject({ lost: 0, lostOnWire: 0 });
    expect(world.collector.stats()).toMatchObject({ store: 'redis', bytes: { memory: 0 }, figures: { nars: 0 } });
  });

  test.each(seeds)('while the store is emptied and set back: what is only there is lost, and said to be (seed %i)', async (seed) => {
    const world = new World(seed);
    await world.traffic(2_000);
    const restore = world.server.save();
    await world.traffic(1_000);
    restore();
    await world.traffic(1_000);
    world.broker.away(3_000);
    await world.traffic(1_000);
    world.server.wipe();
    await world.traffic(1_000);
    await world.settle();
    expectBalanced(world);
    expect(world.collector.stats().copying.mismatches).toBeGreaterThanOrEqual(2);
    expect(world.account('a').doubts).toBe(0);
  });
});

describe('store and forward', () => {
  test('starts while the broker is away, keeps everything, and sends it when the broker is there', async () => {
    const world = new World(9);
    world.process.kill();
    world.broker.away(10_000);
    world.start();
    await world.traffic(5_000);
    expect(world.collector.stats()).toMatchObject({ ready: false, brokerThere: false });
    expect(world.collector.stats().figures.unconfirmedNars).toBe(world.exporter.sent.length - world.collector.stats().pendingNars);
    await world.settle();
    expectBalanced(world);
  });

  test('starts while broker and store are away: the copy is in memory, and says so', async () => {
    const world = new World(10);
    world.process.kill();
    world.broker.away(6_000);
    world.server.away(6_000);
    world.start();
    await world.traffic(5_000);
    expect(world.collector.stats()).toMatchObject({ store: 'memory', durable: false, ready: false });
    await world.settle();
    expectBalanced(world);
    expect(world.collector.stats().store).toBe('redis');
    expect(world.account('a')).toMatchObject({ lostOnWire: 0, doubts: 1 });
    expect(world.replicas.a.batches.some((batch) => batch.volatile && batch.goodbye)).toBe(true);
  });

  test('that starts and finds its store emptied says that something may be missing; the first start does not', async () => {
    const world = new World(19);
    await world.traffic(2_000);
    await world.run(3_000);
    expect(world.account('a').doubts).toBe(0);
    world.process.kill();
    world.server.wipe();
    world.start();
    await world.settle();
    expect(world.error).toBeNull();
    expect(world.account('a').doubts).toBe(1);
  });

  test('keeps the copy until both replicas have it, and suspects the one that is silent', async () => {
    const world = new World(11);
    world.replicas.b.isAway = true;
    await world.traffic(5_000);
    const { figures, suspicions } = world.collector.stats();
    expect(figures.unacknowledgedNars.a).toBeLessThan(1_000);
    expect(figures.unacknowledgedNars.b).toBe(world.exporter.sent.length - world.collector.stats().pendingNars);
    expect(suspicions.map(({ replica }) => replica)).toEqual(['b', 'b']);
    expect(
      world
        .health()
        .at(-1)
        ?.suspicions.map(({ replica }) => replica),
    ).toEqual(['b', 'b']);
    await world.settle();
    expectBalanced(world);
    expect(world.collector.stats().suspicions).toEqual([]);
    expect(world.collector.stats().figures.nars).toBe(0);
  });

  test('its health names the exporters whose flows it keeps, also those that an earlier process left in the store', async () => {
    const world = new World(20);
    world.replicas.b.isAway = true;
    await world.traffic(3_000);
    const held = () => world.health().at(-1)?.copy;
    const ofExporter = (nars: number | undefined) => [
      { sampler_address: world.exporter.address, observation_domain_id: 0, protocol: 'netflow_v5', nars },
    ];
    expect(held()?.nars).toBeGreaterThan(1_000);
    expect(held()?.exporters).toEqual(ofExporter(held()?.nars));
    world.process.kill();
    world.start();
    await world.run(5_000);
    const kept = world.exporter.sent.length - world.account('a').lostOnWire;
    expect(held()?.nars).toBeGreaterThan(kept - 200);
    expect(held()?.exporters).toEqual(ofExporter(held()?.nars));
    await world.settle();
    expectBalanced(world);
    expect(held()?.exporters).toEqual([]);
  });

  test('with the gate on aggregators nothing is sent before one is heard', async () => {
    const world = new World(12, { transfer_gate: 'aggregator' });
    await world.traffic(3_000);
    expect(world.broker.partition(topics.nars.name, 0).endOffset).toBe(0);
    const beat = () => {
      const health = { ...world.health()[0]!, role: 'aggregator', id: 'a', stopping: false };
      world.broker.append(world.broker.partition(topics.health.name, 0), [{ key: null, value: healthCodec.encode(health) }], null);
      world.clock.after(200, beat);
    };
    beat();
    await world.settle();
    expectBalanced(world);
  });
});

describe('at the bound', () => {
  const settings = { store_max: 200_000, store_reserve: 50_000 };

  test('what the broker confirmed is released first, and nothing is lost of it', async () => {
    const world = new World(13, settings);
    world.replicas.b.isAway = true;
    await world.traffic(20_000);
    expect(world.collector.stats().ledger.releasedNars).toBeGreaterThan(0);
    expect(world.collector.stats().refusedNars).toBe(0);
    await world.settle();
    expectBalanced(world);
    expect(world.account('b').lost).toBe(0);
  });

  test('a released batch that the log does not hold is reported as lost, to the flow and the byte', async () => {
    const world = new World(14, settings);
    world.broker.faults = { ...noLogFaults, swallowed: 0.3 };
    world.replicas.a.isAway = true;
    world.replicas.b.isAway = true;
    await world.traffic(20_000);
    await world.settle();
    expectBalanced(world);
    expect(world.account('a').lost).toBeGreaterThan(0);
    expect(world.account('a').bytes).toBe(world.exporter.sent.reduce((sum, flow) => sum + flow.bytes, 0));
  });

  test('NARs that find no room are refused, each counted, and even a crash makes the loss no smaller', async () => {
    const world = new World(15, settings);
    await world.traffic(1_000);
    world.broker.away(40_000);
    await world.traffic(20_000);
    expect(world.collector.stats().refusedNars).toBeGreaterThan(0);
    expect(world.collector.stats().ready).toBe(false);
    world.process.kill();
    world.start();
    await world.traffic(5_000);
    await world.settle();
    expectBalanced(world);
    expect(world.account('a').lost).toBeGreaterThan(0);
    expect(world.collector.stats().refusedNars + world.account('a').lost).toBeGreaterThan(0);
    const lost = world.collector.stats().pendingNars;
    expect(lost).toBe(0);
  });
});

describe('a stop', () => {
  test('flushes, says goodbye in every partition, sends what it can, and its last health says that it is meant', async () => {
    const world = new World(16);
    await world.traffic(2_000);
    await world.stop();
    expect(world.stopped).toBe(true);
    expect(world.health().at(-1)).toMatchObject({ role: 'collector', id: collectorName, stopping: true, ready: false });
    const goodbyes = world.replicas.a.batches.filter((batch) => batch.goodbye);
    expect(goodbyes.map(({ partition }) => partition).sort()).toEqual([0, 1]);
    expectBalanced(world);
  });

  test('while the broker is away it ends all the same; the next process sends the rest and clears the store', async () => {
    const world = new World(17);
    await world.traffic(1_000);
    world.broker.away(30_000);
    await world.traffic(1_000);
    await world.stop();
    expect(world.stopped).toBe(true);
    world.start();
    await world.run(30_000);
    await world.settle();
    expectBalanced(world);
    expect(world.account('a').lostOnWire).toBe(0);
    expect([...world.server.streams.values()].every((stream) => stream.incarnation === world.collector.stats().incarnation)).toBe(true);
  });
});

describe('two processes under one name', () => {
  test('neither says goodbye for the other, whose streams are empty whenever all is acknowledged, while it goes on', async () => {
    const world = new World(31);
    await world.run(1_000);
    world.start();
    await world.traffic(12_000, 500);
    expect(world.replicas.a.batches.filter((batch) => batch.goodbye)).toEqual([]);
    expect(world.error).toBeNull();
  });

  test('a process that finds the streams of another one, all of them empty, takes it for alive until it was idle for a while', async () => {
    const world = new World(7);
    await world.traffic(1_000);
    await world.run(2_000);
    const first = world.process;
    first.pause();
    world.start();
    await world.run(2_500);
    const goodbyes = () => world.replicas.a.batches.filter(({ goodbye }) => goodbye).length;
    expect(goodbyes()).toBe(0);
    await world.run(3_000);
    expect(goodbyes()).toBeGreaterThan(0);
  });

  test('make duplicates, never a loss and never a flow counted twice', async () => {
    const world = new World(18);
    await world.traffic(1_000);
    const first = world.process;
    world.start();
    await world.traffic(5_000);
    first.kill();
    await world.traffic(1_000);
    await world.settle();
    expect(world.error).toBeNull();
    const account = world.account('a');
    expect(account.nars).toBe(account.distinct);
    expect(account.nars).toBe(world.exporter.sent.length);
  });
});
