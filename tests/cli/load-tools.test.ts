import { spawn } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { loopbackAddresses } from '../../services/cli/replay.ts';
import { captures, type Decoding, decoding } from '../core/wire/decoding.ts';

const main = join(import.meta.dirname, '../../services/cli/main.ts');

async function run(args: readonly string[], stopAfter?: Promise<unknown>) {
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const out = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => {
    out.stdout += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    out.stderr += chunk;
  });
  const closed = once(child, 'close');
  if (stopAfter !== undefined) {
    await stopAfter;
    child.kill('SIGTERM');
  }
  const [code] = await closed;
  return { code, ...out };
}

let socket: Socket;
let to: string;
let received: Decoding;
let sources: Set<string>;

beforeEach(async () => {
  received = decoding();
  sources = new Set();
  socket = createSocket({ type: 'udp4', recvBufferSize: 4 * 1024 * 1024 });
  socket.on('message', (datagram, { address }) => {
    sources.add(address);
    received.take(datagram, address, Date.now());
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  to = `127.0.0.1:${(socket.address() as AddressInfo).port}`;
});

afterEach(async () => {
  socket.close();
  await once(socket, 'close');
});

/** What was sent before the sender ended is in the socket by then; one more turn takes it out. */
async function settled(datagrams: number): Promise<void> {
  const { counters } = received.decoder;
  for (let i = 0; i < 200 && counters.datagrams < datagrams; i++) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe('generate', () => {
  test.each(['v5', 'v9', 'ipfix'])('sends %s that decodes to what it says it sent', async (protocol) => {
    const args = ['--protocol', protocol, '--to', to, '--rate', '20000', '--flows', '4001', '--exporters', '3', '--keys', '50', '--seed', '7'];
    const { code, stdout } = await run(['generate', ...args]);
    expect(code).toBe(0);
    const sent = JSON.parse(stdout);
    await settled(sent.datagrams);
    const { nars, decoder } = received;
    expect(sent).toMatchObject({ flows: 4001, exporters: 3, datagrams: decoder.counters.datagrams, failed_datagrams: 0 });
    expect(nars).toHaveLength(4001);
    expect(nars.reduce((sum, nar) => sum + nar.bytes, 0)).toBe(sent.bytes);
    expect(nars.reduce((sum, nar) => sum + nar.packets, 0)).toBe(sent.packets);
    expect([...sources].sort()).toEqual(['127.0.1.1', '127.0.1.2', '127.0.1.3']);
    for (const report of decoder.takeReports()) expect(report).toMatchObject({ lost_on_wire_flows: 0, lost_on_wire_datagrams: 0 });
  });

  test('keeps to its rate and its duration', async () => {
    const { stdout } = await run(['generate', '--to', to, '--rate', '2000', '--duration', '1s']);
    const { flows, elapsed_ms } = JSON.parse(stdout);
    expect(elapsed_ms).toBeLessThan(2_500);
    expect(flows).toBeGreaterThan(1_500);
    expect(flows).toBeLessThanOrEqual(2_000);
  });

  test('stops at SIGTERM and says what it sent', async () => {
    const { code, stdout } = await run(['generate', '--to', to, '--rate', '1000', '--flows', '1000000'], once(socket, 'message'));
    expect(code).toBe(0);
    const sent = JSON.parse(stdout);
    await settled(sent.datagrams);
    expect(sent.flows).toBe(received.nars.length);
  });

  test('says what is wrong with its options', async () => {
    expect(await run(['generate', '--to', 'nowhere'])).toMatchObject({ code: 1, stderr: expect.stringContaining('HOST:PORT') });
    expect((await run(['generate', '--to', to, '--rate', 'fast'])).code).toBe(64);
  });
});

describe('replay', () => {
  test('sends each exporter of the captures from an address of its own', async () => {
    const files = ['nf9-two-exporters.pcap', 'ipfix-cesnet-3kB.pcap'].map((name) => join(captures, name));
    const { code, stdout } = await run(['replay', ...files, '--to', to, '--speed', 'max']);
    expect(code).toBe(0);
    const sent = JSON.parse(stdout);
    await settled(71);
    expect(sent).toMatchObject({ datagrams: 71, failed_datagrams: 0 });
    expect(sent.exporters.map(({ address }: { address: string }) => address).sort()).toEqual([...sources].sort());
    expect(received.nars).toHaveLength(8 + 3979);
  });

  test('gives every exporter the same address each time, and no two the same one', () => {
    const many = new Set(Array.from({ length: 5_000 }, (_, i) => `198.51.${i >> 8}.${i & 255}`));
    const addresses = loopbackAddresses(many);
    expect(new Set(addresses.values()).size).toBe(5_000);
    for (const address of addresses.values()) expect(address).toMatch(/^127\.(12[89]|1[3-9]\d|2\d\d)\.\d+\.([1-9]|[1-9]\d|1\d\d|2[0-4]\d|25[0-4])$/);
    expect(loopbackAddresses(new Set(['198.51.100.10'])).get('198.51.100.10')).toBe(
      loopbackAddresses(new Set(['198.51.100.10'])).get('198.51.100.10'),
    );
  });
});

describe('decode', () => {
  test('prints one JSON object a flow, and a summary', async () => {
    const { code, stdout, stderr } = await run(['decode', join(captures, 'nf9-ios-sampler.pcap'), '--json']);
    expect(code).toBe(0);
    const lines = stdout.trim().split('\n');
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { sampler_address: '198.51.100.32', observation_domain_id: 2081, src_addr: '192.168.0.1', dst_port: 32822, bytes: 60, sampling_rate: 5000 },
    ]);
    expect(stderr).toContain('4 datagrams, 1 flows, 60 bytes, 1 packets');
  });

  test('prints a table for people', async () => {
    const { stdout } = await run(['decode', join(captures, 'nf5-mikrotik.pcap')]);
    expect(stdout.split('\n')).toHaveLength(32);
  });

  test('says that a file is no capture', async () => {
    expect(await run(['decode', join(captures, 'README.md')])).toMatchObject({ code: 1, stderr: expect.stringContaining('no pcap file') });
  });
});
