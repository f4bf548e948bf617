import { describe, expect, test } from '@jest/globals';
import { parsePcap, UnreadableCapture } from '../../adapters/pcap.ts';
import { octets } from '../core/wire/decoding.ts';

const payload = Buffer.from('export');
const segment = Buffer.concat([octets([50_000, 2], [2055, 2], [8 + payload.length, 2], [0, 2]), payload]);

function ipv4(content: Buffer, fragment = 0): Buffer {
  const header = octets(
    [0x45, 1],
    [0, 1],
    [20 + content.length, 2],
    [1, 2],
    [fragment, 2],
    [64, 1],
    [17, 1],
    [0, 2],
    [0xc0000201, 4],
    [0xcb00710a, 4],
  );
  return Buffer.concat([header, content]);
}

const ipv6 = Buffer.concat([
  octets([0x60000000, 4], [segment.length, 2], [17, 1], [64, 1]),
  Buffer.from('20010db8000000000000000000000001', 'hex'),
  Buffer.alloc(16),
  segment,
]);

function ethernet(type: number, content: Buffer, tags: readonly number[] = []): Buffer {
  const tagged = tags.flatMap((tag) => [[tag, 2] as const, [7, 2] as const]);
  return Buffer.concat([Buffer.alloc(12), octets(...tagged, [type, 2]), content]);
}

function file(linkType: number, packets: readonly Buffer[], magic = 0xa1b2c3d4, little = false): Buffer {
  const number = (value: number, length: 2 | 4) => (little ? octets([value, length]).reverse() : octets([value, length]));
  const header = [number(magic, 4), number(2, 2), number(4, 2), number(0, 4), number(0, 4), number(65535, 4), number(linkType, 4)];
  const records = packets.flatMap((packet) => [
    number(1_700_000_000, 4),
    number(500_000, 4),
    number(packet.length, 4),
    number(packet.length, 4),
    packet,
  ]);
  return Buffer.concat([...header, ...records]);
}

const wanted = { source: '192.0.2.1', sourcePort: 50_000, destinationPort: 2055, payload, timeMs: 1_700_000_000_500 };

describe('a capture file', () => {
  test.each([
    ['Ethernet', 1, ethernet(0x0800, ipv4(segment))],
    ['Ethernet with VLAN tags', 1, ethernet(0x0800, ipv4(segment), [0x88a8, 0x8100])],
    ['Linux cooked', 113, Buffer.concat([Buffer.alloc(14), octets([0x0800, 2]), ipv4(segment)])],
    ['Linux cooked, version 2', 276, Buffer.concat([octets([0x0800, 2]), Buffer.alloc(18), ipv4(segment)])],
    ['raw IP', 101, ipv4(segment)],
    ['BSD loopback', 0, Buffer.concat([octets([2, 4]), ipv4(segment)])],
  ])('of %s gives its datagrams', (_name, linkType, packet) => {
    expect(parsePcap(file(linkType, [packet]), 'x')).toEqual([wanted]);
    expect(parsePcap(file(linkType, [packet], 0xa1b2c3d4, true), 'x')).toEqual([wanted]);
  });

  test('may have nanoseconds, and IPv6', () => {
    expect(parsePcap(file(101, [ipv6], 0xa1b23c4d), 'x')).toEqual([{ ...wanted, source: '2001:db8::1', timeMs: 1_700_000_000_000.5 }]);
  });

  test('may have other packets, fragments and a cut end', () => {
    const others = [
      ethernet(0x0806, Buffer.alloc(28)),
      ethernet(0x0800, ipv4(segment, 0x2000)),
      Buffer.alloc(3),
      ethernet(0x0800, ipv4(segment.subarray(0, 5))),
    ];
    const good = ethernet(0x0800, ipv4(segment));
    expect(parsePcap(file(1, [...others, good, good]).subarray(0, -1), 'x')).toEqual([wanted]);
  });

  test('that is none is refused with its name', () => {
    expect(() => parsePcap(Buffer.from('no capture, but long enough'), 'name.pcap')).toThrow(UnreadableCapture);
    expect(() => parsePcap(file(147, []), 'name.pcap')).toThrow(/name\.pcap.*147/);
    expect(() => parsePcap(Buffer.concat([octets([0x0a0d0d0a, 4]), Buffer.alloc(30)]), 'name.pcap')).toThrow(/pcapng/);
  });
});
