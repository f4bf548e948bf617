import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { systemClock } from '../../adapters/clock.ts';
import type { Logger } from '../../adapters/ports.ts';
import { receiveTcp, type TcpOptions, type TcpReceiver } from '../../adapters/tcp.ts';
import { ipfixMessage } from '../core/wire/decoding.ts';

const quiet = () => undefined;
const logger: Logger = { debug: quiet, info: quiet, warn: quiet, error: quiet };
const message = (number: number, octets = 20) => ipfixMessage(number, [Buffer.alloc(octets, number)]);

class World {
  readonly received: { bytes: Buffer; address: string; session: string }[] = [];
  readonly endings: { session: string; address: string; isComplete: boolean }[] = [];
  hasRoom = true;
  /** The only time that sessions are held against: a loaded machine is slow, not an exporter. */
  nowMs = 1_000_000;
  receiver!: TcpReceiver;
  readonly #clients: Socket[] = [];

  static async start(options: Partial<TcpOptions> = {}): Promise<World> {
    const world = new World();
    world.receiver = await receiveTcp({
      listen: [{ host: '127.0.0.1', port: 0 }],
      tls: null,
      connectionsMax: 10,
      idleMs: 60_000,
      messageWithinMs: 60_000,
      clock: { ...systemClock, now: () => world.nowMs },
      logger,
      allows: () => true,
      isKnown: null,
      hasRoom: () => world.hasRoom,
      receive: ({ bytes, address, session }) => world.received.push({ bytes: Buffer.from(bytes), address, session }),
      ended: (session, address, isComplete) => world.endings.push({ session, address, isComplete }),
      ...options,
    });
    worlds.push(world);
    return world;
  }

  /** allowHalfOpen: a client that does not close when the other side does. */
  async connect(from = '127.0.0.1', allowHalfOpen = false): Promise<Socket> {
    const { port } = this.receiver.addresses[0]!;
    const client = connect({ host: '127.0.0.1', port, localAddress: from, noDelay: true, allowHalfOpen });
    this.#clients.push(client);
    client.on('error', quiet);
    await new Promise<void>((resolve) => client.once('connect', resolve));
    return client;
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await this.receiver.close();
  }
}

const worlds: World[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.stop();
});

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await delay(10);
  expect(condition()).toBe(true);
}

const closed = (client: Socket) => until(() => client.destroyed || client.closed);

describe('messages', () => {
  test('come several in a segment and one over several, each with its exporter and session', async () => {
    const world = await World.start();
    const client = await world.connect();
    const all = Buffer.concat([message(1), message(2, 1_000), message(3, 0), message(4, 60_000)]);
    for (const [from, to] of [
      [0, 40],
      [40, 43],
      [43, 500],
      [500, all.length],
    ] as const) {
      client.write(all.subarray(from, to));
      await delay(20);
    }
    await until(() => world.received.length === 4);
    expect(Buffer.concat(world.received.map(({ bytes }) => bytes)).equals(all)).toBe(true);
    expect(new Set(world.received.map(({ address }) => address))).toEqual(new Set(['127.0.0.1']));
    expect(new Set(world.received.map(({ session }) => session)).size).toBe(1);
    const other = await world.connect();
    other.write(message(5));
    await until(() => world.received.length === 5);
    expect(new Set(world.received.map(({ session }) => session)).size).toBe(2);
    expect(world.received.every(({ session }) => session.startsWith('127.0.0.1#'))).toBe(true);
  });

  test.each([
    ['of another version', Buffer.from('0009001400000000', 'hex'), 'version'],
    ['shorter than a header', Buffer.from('000a000f00000000', 'hex'), 'length'],
  ] as const)('%s end the session, and those before are taken', async (_what, bad, reason) => {
    const world = await World.start();
    const client = await world.connect();
    client.write(Buffer.concat([message(1), bad, message(2)]));
    await closed(client);
    await until(() => world.endings.length === 1);
    expect(world.received).toHaveLength(1);
    expect(world.endings).toMatchObject([{ isComplete: false, address: '127.0.0.1' }]);
    expect(world.receiver.figures()).toMatchObject({ open: 0, ended: { [reason]: 1 } });
  });
});

describe('a session', () => {
  test('that the exporter closes behind a whole message is complete', async () => {
    const world = await World.start();
    const client = await world.connect();
    client.end(message(1));
    await until(() => world.endings.length === 1);
    expect(world.received).toHaveLength(1);
    expect(world.endings).toEqual([{ session: world.received[0]!.session, address: '127.0.0.1', isComplete: true }]);
    expect(world.receiver.figures().ended.closed).toBe(1);
  });

  test('that ends within a message, or breaks, is not; one without a message says nothing', async () => {
    const world = await World.start();
    const cut = await world.connect();
    cut.end(Buffer.concat([message(1), message(2).subarray(0, 10)]));
    await until(() => world.endings.length === 1);
    const broken = await world.connect();
    broken.write(message(3));
    await until(() => world.received.length === 2);
    broken.resetAndDestroy();
    await until(() => world.endings.length === 2);
    expect(world.endings.map(({ isComplete }) => isComplete)).toEqual([false, false]);
    const silent = await world.connect();
    silent.resetAndDestroy();
    await until(() => world.receiver.figures().ended.cut === 3);
    expect(world.endings).toHaveLength(2);
  });

  test('without messages for long is closed, and so is one that does not bring a message to its end: slow loris', async () => {
    const world = await World.start({ idleMs: 2_500, messageWithinMs: 400 });
    const [silent, slow, good] = [await world.connect(), await world.connect(), await world.connect()];
    await until(() => world.receiver.figures().open === 3);
    const long = message(2, 5_000);
    slow.write(message(1));
    slow.write(long.subarray(0, 10));
    await until(() => world.received.length === 1);
    await delay(50);
    for (let i = 1; i <= 20; i++) {
      world.nowMs += 100;
      good.write(message(3));
      slow.write(long.subarray(10 * i, 10 * i + 10));
      await until(() => world.received.length === 1 + i);
    }
    await closed(slow);
    expect([silent.destroyed, good.destroyed]).toEqual([false, false]);
    expect(world.receiver.figures()).toMatchObject({ open: 2, ended: { slow: 1, idle: 0 } });
    world.nowMs += 600;
    await closed(silent);
    expect(good.destroyed).toBe(false);
    expect(world.receiver.figures()).toMatchObject({ open: 1, ended: { slow: 1, idle: 1 } });
    expect(world.endings.map(({ isComplete }) => isComplete)).toEqual([false]);
  });
});

describe('connections', () => {
  test('beyond their number are refused and counted, and there is room when one goes', async () => {
    const world = await World.start({ connectionsMax: 3 });
    const clients = [];
    for (let i = 0; i < 5; i++) clients.push(await world.connect());
    await until(() => world.receiver.figures().refused.full === 2);
    expect(world.receiver.figures()).toMatchObject({ open: 3, accepted: 3 });
    await Promise.all(clients.slice(3).map(closed));
    clients[0]!.end();
    await until(() => world.receiver.figures().open === 2);
    (await world.connect()).write(message(1));
    await until(() => world.received.length === 1);
  });

  test('of others leave half of them to known exporters', async () => {
    const world = await World.start({ connectionsMax: 4, isKnown: (address) => address === '127.0.0.9' });
    for (let i = 0; i < 6; i++) await world.connect();
    await until(() => world.receiver.figures().refused.full === 4);
    for (let i = 0; i < 2; i++) (await world.connect('127.0.0.9')).write(message(1));
    await until(() => world.received.length === 2);
  });

  test('of exporters that are not allowed are refused first', async () => {
    const world = await World.start({ allows: (address) => address !== '127.0.0.9' });
    const refused = await world.connect('127.0.0.9');
    refused.write(message(1));
    await closed(refused);
    (await world.connect()).write(message(2));
    await until(() => world.received.length === 1);
    expect(world.received[0]?.address).toBe('127.0.0.1');
    expect(world.receiver.figures()).toMatchObject({ refused: { disallowed: 1 }, accepted: 1 });
  });
});

test('an exporter waits while there is no room, and nothing of it is lost, nor is it taken for slow', async () => {
  const world = await World.start({ messageWithinMs: 300, idleMs: 300 });
  const client = await world.connect();
  world.hasRoom = false;
  let drained = 0;
  const total = 400;
  const pump = async () => {
    for (let i = 0; i < total; i++) {
      if (!client.write(message(i % 256, 60_000))) await new Promise<void>((resolve) => client.once('drain', resolve));
      drained++;
    }
  };
  const pumping = pump();
  await until(() => world.receiver.figures().paused === 1);
  world.nowMs += 3_600_000;
  await delay(1_000);
  const [taken, sent] = [world.received.length, drained];
  expect(taken).toBeLessThan(5);
  expect(sent).toBeLessThan(total);
  world.nowMs += 3_600_000;
  await delay(500);
  expect([world.received.length, drained]).toEqual([taken, sent]);
  world.hasRoom = true;
  await pumping;
  client.end();
  await until(() => world.endings.length === 1);
  expect(world.received).toHaveLength(total);
  expect(world.endings[0]?.isComplete).toBe(true);
});

test('a stop takes what was sent, and says of whom something may be missing', async () => {
  const world = await World.start();
  const [polite, stubborn] = [await world.connect(), await world.connect('127.0.0.9', true)];
  for (const client of [polite, stubborn]) client.write(message(1));
  await until(() => world.received.length === 2);
  polite.write(message(2));
  stubborn.write(message(3));
  await world.receiver.close();
  expect(world.received).toHaveLength(4);
  expect(world.endings.map(({ address, isComplete }) => [address, isComplete]).sort()).toEqual([
    ['127.0.0.1', true],
    ['127.0.0.9', false],
  ]);
});

test('an address that is taken is named', async () => {
  const world = await World.start();
  const [address] = world.receiver.addresses;
  await expect(World.start({ listen: [address!] })).rejects.toThrow(`cannot listen on 127.0.0.1:${address!.port} (tcp)`);
});
