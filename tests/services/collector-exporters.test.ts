/** What a collector keeps of exporters, whom it hears, and what becomes of their transport sessions. */
import { describe, expect, test } from '@jest/globals';
import { replicas } from '../../schemas/topics.ts';
import { ipfixMessage, octets, set, templateRecord } from '../core/wire/decoding.ts';
import { World } from './collector-world.ts';

test('what exporters send that are not allowed is dropped first, also before the positions are restored', async () => {
  const world = new World(45, { exporters_allow: ['192.168.7.0/24'] });
  const { bytes } = world.exporter.export(world.clock.now(), 3);
  const forged = () => world.process.deliver(() => world.collector.receive([{ bytes, address: '203.0.113.1', receivedMs: world.clock.now() }]));
  forged();
  world.export(2);
  await world.run(1_000);
  forged();
  await world.run(1_000);
  expect(world.collector.stats()).toMatchObject({ disallowed: { datagrams: 2 }, decoder: { datagrams: 1, flows: 2 } });
});

describe('transport sessions', () => {
  const session = '192.0.2.1#tcp-1';
  const fields = [
    [8, 4],
    [12, 4],
    [15, 4],
    [1, 4],
    [2, 4],
  ] as const;
  const message = (world: World, sequence: number) => {
    const record = octets([0x0a010101, 4], [0x0a020202, 4], [sequence, 4], [100, 4], [1, 4]);
    const sets = [set(2, templateRecord(256, fields)), set(256, record)];
    const bytes = ipfixMessage(sequence, sets, Math.floor(world.clock.now() / 1000));
    return { bytes, address: '192.0.2.1', receivedMs: world.clock.now(), session };
  };
  const receive = (world: World, sequence: number) => world.process.deliver(() => world.collector.receiveMessage(message(world, sequence)));
  const end = (world: World, isComplete: boolean) => world.process.deliver(() => world.collector.sessionEnded(session, '192.0.2.1', isComplete));
  const doubts = (world: World) => replicas.map((replica) => world.account(replica).doubts);

  test.each([
    [true, 0],
    [false, 1],
  ])('that ended completely (%s) leave so many doubts: %i; a kill after it leaves no further one', async (isComplete, expected) => {
    const world = new World(51);
    await world.run(200);
    receive(world, 0);
    await world.run(1_000);
    end(world, isComplete);
    await world.run(3_000);
    world.process.kill();
    world.start();
    await world.run(10_000);
    expect(world.account('a').nars).toBe(1);
    expect(doubts(world)).toEqual([expected, expected]);
    expect(world.server.positions.size).toBe(0);
  });

  test('in which the process ended leave one doubt at the next start, and none at the one after', async () => {
    const world = new World(52);
    await world.run(200);
    receive(world, 0);
    await world.run(1_000);
    for (let i = 0; i < 3; i++) {
      world.process.kill();
      world.start();
      await world.run(10_000);
      expect(doubts(world)).toEqual([1, 1]);
    }
    expect(world.error).toBeNull();
  });

  test('are not read before the start is over, nor while NARs are refused, and are again when there is room', async () => {
    const world = new World(53, { store_max: 200_000, store_reserve: 50_000 });
    expect(world.collector.hasRoom()).toBe(false);
    await world.traffic(1_000);
    expect(world.collector.hasRoom()).toBe(true);
    world.broker.away(30_000);
    await world.traffic(20_000);
    expect(world.collector.stats().refusedNars).toBeGreaterThan(0);
    expect(world.collector.hasRoom()).toBe(false);
    await world.settle();
    expect(world.collector.hasRoom()).toBe(true);
  });

  test('are not read while more waits for the copy than memory is meant for', async () => {
    const world = new World(54, { memory_max: 400_000, flush_interval: 10_000 });
    await world.run(200);
    for (let i = 0; i < 200 && world.collector.hasRoom(); i++) world.export(30);
    expect(world.collector.hasRoom()).toBe(false);
    expect(world.exporter.sent.length).toBeLessThan(5_000);
    await world.run(11_000);
    expect(world.collector.hasRoom()).toBe(true);
  });
});

describe('templates', () => {
  const nextHop = 15;
  const fields = [
    [8, 4],
    [12, 4],
    [nextHop, 4],
    [1, 4],
    [2, 4],
  ] as const;
  const receive = (world: World, message: Buffer) =>
    world.process.deliver(() => world.collector.receive([{ bytes: message, address: '192.0.2.1', receivedMs: world.clock.now() }]));
  const templates = (world: World) => ipfixMessage(0, [set(2, templateRecord(256, fields))], Math.floor(world.clock.now() / 1000));
  const data = (world: World, from: number) => {
    const record = octets([0x0a010101, 4], [0x0a020202, 4], [from, 4], [100, 4], [1, 4]);
    return ipfixMessage(from, [set(256, record)], Math.floor(world.clock.now() / 1000));
  };
  const restart = async (world: World) => {
    world.process.kill();
    world.start();
    await world.run(100);
  };

  test('outlive the process that learnt them: kill -9 between them and their data', async () => {
    const world = new World(41);
    receive(world, templates(world));
    await world.run(1_000);
    await restart(world);
    receive(world, data(world, 0));
    expect(world.collector.stats().decoder).toMatchObject({ recalledTemplates: 1, waitingSets: 0, flows: 1 });
    await world.run(3_000);
    expect(world.account('a').nars).toBe(1);
    expect(world.error).toBeNull();
  });

  test.each(['wipe', 'save'] as const)('are saved again in a store that lost them (%s)', async (how) => {
    const world = new World(42);
    const setBack = world.server.save();
    receive(world, templates(world));
    await world.run(1_000);
    expect(world.server.templates.size).toBe(1);
    if (how === 'wipe') world.server.wipe();
    else setBack();
    expect(world.server.templates.size).toBe(0);
    await world.run(5_000);
    expect(world.server.templates.size).toBe(1);
    await restart(world);
    receive(world, data(world, 0));
    expect(world.collector.stats().decoder.flows).toBe(1);
  });

  test('that came while the store was away are saved when it is back', async () => {
    const world = new World(43);
    await world.run(1_000);
    world.server.away(5_000);
    await world.run(2_000);
    receive(world, templates(world));
    await world.run(2_000);
    expect(world.server.templates.size).toBe(0);
    await world.run(5_000);
    expect(world.server.templates.size).toBe(1);
  });

  test('cost the store nothing while they only repeat', async () => {
    const world = new World(44);
    let saves = 0;
    const watched = world.server.write.bind(world.server);
    world.server.write = (effect) => {
      const before = new Map(world.server.templates);
      const written = watched(effect);
      if ([...world.server.templates].some(([name, text]) => before.get(name) !== text)) saves++;
      return written;
    };
    for (let i = 0; i < 50; i++) {
      receive(world, templates(world));
      await world.run(1_000);
    }
    expect(world.collector.stats().decoder.templates).toBeGreaterThan(10);
    expect(saves).toBe(1);
  });
});
