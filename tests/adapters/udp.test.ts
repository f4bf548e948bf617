import { createSocket } from 'node:dgram';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { systemClock } from '../../adapters/clock.ts';
import { readDrops } from '../../adapters/kernel-drops.ts';
import type { Logger } from '../../adapters/ports.ts';
import { receiveUdp } from '../../adapters/udp.ts';

const table = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  350: 0100007F:0807 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 71001 2 0000000000000000 17
  350: 0100007F:0807 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 71002 2 0000000000000000 5
 1534: 00000000:12A3 00000000:0000 07 00000000:00000000 00:00000000 00000000   104        0 71003 2 0000000000000000 0
`;
const none = '00000000'.repeat(4);
const table6 = `  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode ref pointer drops
  921: 00000000000000000000000001000000:0807 ${none}:0000 07 00000000:00000000 00:00000000 00000000     0        0 71004 2 0 3
`;

describe('what the kernel dropped', () => {
  test('is read of the own sockets only, though others share their ports', () => {
    expect(readDrops(table, new Set(['71001', '71003']))).toEqual([
      { host: '127.0.0.1', port: 2055, drops: 17 },
      { host: '0.0.0.0', port: 4771, drops: 0 },
    ]);
    expect(readDrops(table6, new Set(['71004']))).toEqual([{ host: '::1', port: 2055, drops: 3 }]);
    expect(readDrops('', new Set(['71004']))).toEqual([]);
  });

  const onLinux = existsSync('/proc/net/udp') ? test : test.skip;
  onLinux('adds up with what was received, per socket, and is said for a while', async () => {
    let received = 0;
    const warnings: string[] = [];
    const quiet = () => undefined;
    const logger: Logger = { debug: quiet, info: quiet, warn: (_facts, message) => warnings.push(message), error: quiet };
    const listen = [
      { host: '127.0.0.1', port: 0 },
      { host: '127.0.0.1', port: 0 },
    ];
    let nowMs = 1_000;
    const clock = { ...systemClock, now: () => nowMs };
    const receive = (datagrams: readonly unknown[]) => {
      received += datagrams.length;
    };
    const udp = await receiveUdp({ listen, receiveBuffer: 4_096, clock, logger, receive });
    const sender = createSocket('udp4');
    const sent = 400;
    const allSent: Promise<void>[] = [];
    for (let i = 0; i < sent; i++) {
      allSent.push(new Promise((resolve) => sender.send(Buffer.alloc(1_000), udp.addresses[0]!.port, '127.0.0.1', () => resolve())));
    }
    await Promise.all(allSent);
    await delay(200);
    expect(udp.reasons()).toEqual([]);
    nowMs += 1_000;
    const [flooded, calm] = udp.figures();
    expect(flooded?.drops).toBeGreaterThan(0);
    expect(received + (flooded?.drops ?? 0)).toBe(sent);
    expect(calm?.drops).toBe(0);
    expect(flooded?.listen).toBe(`127.0.0.1:${udp.addresses[0]?.port}`);
    expect(udp.reasons()).toEqual([expect.stringContaining(`the kernel dropped ${flooded?.drops} datagrams`)]);
    expect(warnings).toEqual([expect.stringContaining('the kernel drops datagrams')]);
    nowMs += 61_000;
    expect(udp.reasons()).toEqual([]);
    sender.close();
    await udp.close();
    expect(udp.figures()[0]?.drops).toBe(flooded?.drops);
  });

  test('a receive buffer that the system does not give names the setting', async () => {
    const warnings: object[] = [];
    const quiet = () => undefined;
    const logger: Logger = { debug: quiet, info: quiet, warn: (facts) => warnings.push(facts), error: quiet };
    const receiveBuffer = 1 << 30;
    const udp = await receiveUdp({ listen: [{ host: '127.0.0.1', port: 0 }], receiveBuffer, clock: systemClock, logger, receive: quiet });
    const given = udp.figures()[0]?.receiveBuffer ?? 0;
    if (given < receiveBuffer) expect(warnings).toEqual([expect.objectContaining({ given, remedy: `sysctl -w net.core.rmem_max=${receiveBuffer}` })]);
    else expect(warnings).toEqual([]);
    await udp.close();
  });
});
