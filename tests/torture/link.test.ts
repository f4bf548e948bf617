import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Link } from './link.ts';

let server: Server;
let link: Link;
let client: Socket;
let received: string;
let answered: string;

/** Until the text has come, or for a second. */
const comes = async (text: () => string, wanted: string) => {
  for (let i = 0; i < 100 && text() !== wanted; i++) await delay(10);
  return text();
};

beforeEach(async () => {
  received = '';
  answered = '';
  server = createServer((socket) => {
    socket.on('data', (bytes: Buffer) => {
      received += bytes;
      socket.write(String(bytes).toUpperCase());
    });
    socket.on('end', () => {
      received += '.';
      socket.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  link = await Link.open();
  link.leadTo((server.address() as { port: number }).port);
  client = createConnection(link.port, '127.0.0.1');
  client.on('data', (bytes) => {
    answered += bytes;
  });
});

afterEach(async () => {
  client.destroy();
  await link.close();
  await new Promise((resolve) => server.close(resolve));
});

describe('link', () => {
  test('relays both ways', async () => {
    client.write('a');
    expect(await comes(() => answered, 'A')).toBe('A');
    expect(link.counters).toMatchObject({ relayedBytes: 2, heldBytes: 0 });
  });

  test('cut towards the target, nothing gets there before it is restored, and then in order, the end last', async () => {
    client.write('a');
    await comes(() => answered, 'A');
    link.cut('to');
    client.write('b');
    await delay(50);
    client.end('c');
    await delay(50);
    expect(received).toBe('a');
    link.restore();
    expect(await comes(() => received, 'abc.')).toBe('abc.');
    expect(await comes(() => answered, 'ABC')).toBe('ABC');
    expect(link.counters.heldBytes).toBe(2);
  });

  test('cut from the target, requests get there and answers do not', async () => {
    link.cut('from');
    client.write('a');
    expect(await comes(() => received, 'a')).toBe('a');
    await delay(50);
    expect(answered).toBe('');
    link.restore();
    expect(await comes(() => answered, 'A')).toBe('A');
  });

  test('a sender that is gone is a late end for the target', async () => {
    client.write('a');
    await comes(() => answered, 'A');
    link.cut('to', 'from');
    client.write('b');
    await delay(20);
    client.destroy();
    await delay(50);
    expect(received).toBe('a');
    link.restore();
    expect(await comes(() => received, 'ab.')).toBe('ab.');
  });

  test('bad weather makes everything late, and counts', async () => {
    link.bring({ latencyMs: 20, lossShare: 1 });
    const atMs = Date.now();
    client.write('a');
    await comes(() => answered, 'A');
    expect(Date.now() - atMs).toBeGreaterThanOrEqual(400);
    expect(link.counters).toMatchObject({ lostChunks: 2, delayedChunks: 2 });
  });
});
