import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { encodeBatch, narBytesMax, writeNar } from '../../../core/buffer/nar-writer.ts';
import { emptyBatch } from '../../../core/buffer/tombstone.ts';
import { narBatchCodec } from '../../../schemas/codec.ts';
import type { Nar } from '../../../schemas/types.ts';

const largest = 2 ** 53 - 2;
const number = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.integer({ min: 0, max: 53 }).map((bits) => Math.min(2 ** bits, largest)),
  fc.integer({ min: 0, max: 53 }).map((bits) => Math.max(0, 2 ** bits - 2)),
  fc.maxSafeNat().map((value) => Math.min(value, largest)),
);
/** Before 1970 is not a time that occurs, but it is representable; avsc itself rounds below -(2^52). */
const time = fc.oneof(number, fc.integer({ min: -(2 ** 50), max: 0 }));
const address = fc
  .constantFrom(0, 4, 16)
  .chain((length) => fc.uint8Array({ minLength: length, maxLength: length }))
  .map((bytes) => Buffer.from(bytes));
const octets = fc.uint8Array({ maxLength: 32 }).map((bytes) => Buffer.from(bytes));
const small = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const nar: fc.Arbitrary<Nar> = fc.record({
  exporter: fc.integer({ min: 0, max: 10_000 }),
  src_addr: address,
  dst_addr: address,
  src_port: small,
  dst_port: small,
  proto: small,
  bytes: number,
  packets: number,
  tcp_flags: small,
  ip_tos: small,
  in_if: number,
  out_if: number,
  src_as: number,
  dst_as: number,
  src_net: small,
  dst_net: small,
  next_hop: address,
  flow_direction: small,
  sampling_rate: number,
  time_flow_start_ms: time,
  time_flow_end_ms: time,
  time_received_ms: time,
  details: fc.option(
    fc.record({
      src_mac: octets,
      dst_mac: octets,
      mpls_labels: octets,
      nat_src_addr: octets,
      nat_dst_addr: octets,
      bgp_next_hop: octets,
      application_id: octets,
      src_vlan: small,
      dst_vlan: small,
      customer_vlan: small,
      nat_src_port: small,
      nat_dst_port: small,
      icmp_type: fc.integer({ min: -1, max: 255 }),
      icmp_code: fc.integer({ min: -1, max: 255 }),
      ingress_vrf: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      egress_vrf: number,
      forwarding_status: small,
    }),
    { nil: null },
  ),
});
const batch = emptyBatch({ collector: 'c', incarnation: 'i', partition: 3, sequence: 4, volatile: false, goodbye: false }, 1_700_000_000_000);

describe('NARs written one by one', () => {
  test('are the bytes that the codec writes', () => {
    const same = (nars: Nar[]) => {
      const into = new Uint8Array(nars.length * narBytesMax);
      let at = 0;
      for (const one of nars) {
        const end = writeNar(into, at, one, one.exporter);
        expect(end - at).toBeLessThanOrEqual(narBytesMax);
        at = end;
      }
      const written = encodeBatch(batch, into.subarray(0, at), nars.length);
      expect(Buffer.from(written).equals(narBatchCodec.encode({ ...batch, nars }))).toBe(true);
    };
    fc.assert(fc.property(fc.array(nar, { maxLength: 150 }), same), { numRuns: 300 });
  });
});
