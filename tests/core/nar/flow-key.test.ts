import { describe, expect, test } from '@jest/globals';
import { addressBytes } from '../../../core/nar/address.ts';
import { partitionOf } from '../../../core/nar/flow-key.ts';
import type { Nar } from '../../../schemas/types.ts';

function flow(src: string, dst: string, srcPort: number, dstPort: number, proto: number): Nar {
  const key = { src_addr: addressBytes(src), dst_addr: addressBytes(dst), src_port: srcPort, dst_port: dstPort, proto };
  return key as unknown as Nar;
}

describe('the partition of a flow', () => {
  test.each([
    ['10.0.0.1', '198.18.0.1', 1234, 443, 6, 3, 407],
    ['10.0.0.1', '198.18.0.1', 1235, 443, 6, 0, 548],
    ['2001:db8::1', '2001:db8::2', 1234, 443, 6, 2, 270],
    ['', '', 0, 0, 0, 1, 813],
    ['0.0.0.0', '255.255.255.255', 65535, 65535, 255, 1, 497],
    ['::ffff:10.0.0.1', '::ffff:198.18.0.1', 1234, 443, 6, 3, 507],
  ])('of %s %s %d %d %d never changes', (src, dst, srcPort, dstPort, proto, ofFour, ofThousand) => {
    expect(partitionOf(flow(src, dst, srcPort, dstPort, proto), 4)).toBe(ofFour);
    expect(partitionOf(flow(src, dst, srcPort, dstPort, proto), 1000)).toBe(ofThousand);
  });

  test('spreads flows that differ little', () => {
    const counts = new Array(8).fill(0);
    for (let i = 0; i < 8_000; i++) counts[partitionOf(flow(`10.0.${i >> 8}.${i & 255}`, '198.18.0.1', 1024, 443, 6), 8)]++;
    for (const count of counts) expect(Math.abs(count - 1_000)).toBeLessThan(150);
  });
});
