/** The hand-written reader reads what the codec reads, and refuses what the codec refuses or what no NAR can say, whatever the bytes. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { addressFields, NarColumns, numberAt, numberFields } from '../../../core/aggregate/nar-columns.ts';
import { emptyBatch } from '../../../core/buffer/tombstone.ts';
import { detailNumberFields, detailOctetFields } from '../../../core/nar/details.ts';
import { decodeNarBatchFrame, narBatchCodec, UndecodableRecord } from '../../../schemas/codec.ts';
import type { Nar, NarBatch, NarDetails } from '../../../schemas/types.ts';

const exporters = 3;
const timeMsMax = 8.64e15;
const columns = new NarColumns();

/** Null where it is refused; the bytes may end in the frame, or be anything. */
function readByColumns(value: Uint8Array): Nar[] | null {
  try {
    const { narsStart } = decodeNarBatchFrame(value);
    if (!columns.read(value, narsStart, exporters, timeMsMax)) return null;
  } catch (error) {
    if (!(error instanceof UndecodableRecord)) throw error;
    return null;
  }
  return Array.from({ length: columns.count }, (_, index) => {
    const nar: Record<string, unknown> = { exporter: columns.exporter[index] };
    for (const field of numberFields) nar[field] = columns.numbers[numberAt(field)]?.[index];
    for (const [at, field] of addressFields.entries()) {
      const { start, octets } = columns.addresses[at]!;
      nar[field] = Buffer.from(columns.bytes.subarray(start[index], start[index]! + octets[index]!));
    }
    nar['details'] = columns.details[index]! < 0 ? null : readDetails(index);
    return nar as unknown as Nar;
  });
}

function readDetails(index: number): NarDetails {
  const octets = detailOctetFields.map((field) => [field, Buffer.from(columns.detailOctets(index, field))]);
  return Object.fromEntries([...octets, ...detailNumberFields.map((field) => [field, columns.detailNumber(index, field)])]);
}

function readByCodec(value: Uint8Array): Nar[] | null {
  try {
    const { nars } = narBatchCodec.decode(value);
    return nars.every(saysSomething) ? nars : null;
  } catch (error) {
    if (!(error instanceof UndecodableRecord)) throw error;
    return null;
  }
}

function saysSomething(nar: Nar): boolean {
  const received = nar.time_received_ms;
  return nar.exporter >= 0 && nar.exporter < exporters && nar.bytes >= 0 && nar.packets >= 0 && received >= 0 && received <= timeMsMax;
}

const zigzag = (bits: number) => 2 ** bits - (bits === 53 ? 2 : 0);
const edge = fc.integer({ min: 0, max: 53 }).chain((bits) => fc.constantFrom(zigzag(bits), Math.max(0, zigzag(bits) - 1)));
const positive = fc.oneof(fc.integer({ min: 0, max: 300 }), edge, fc.integer({ min: 0, max: 2 ** 53 - 2 }));
/** avsc itself rounds below -(2^52). */
const long = fc.oneof(positive, fc.integer({ min: -(2 ** 52), max: 0 }), fc.integer({ min: -70, max: 0 }));
const int = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }));
const address = fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ maxLength: 70 })).map((octets) => Buffer.from(octets));
const details: fc.Arbitrary<NarDetails> = fc.record({
  src_mac: address,
  dst_mac: address,
  mpls_labels: address,
  nat_src_addr: address,
  nat_dst_addr: address,
  bgp_next_hop: address,
  application_id: address,
  src_vlan: int,
  dst_vlan: int,
  customer_vlan: int,
  nat_src_port: int,
  nat_dst_port: int,
  icmp_type: int,
  icmp_code: int,
  ingress_vrf: long,
  egress_vrf: long,
  forwarding_status: int,
});
const nar: fc.Arbitrary<Nar> = fc.record({
  exporter: fc.oneof({ weight: 30, arbitrary: fc.nat(exporters - 1) }, { weight: 1, arbitrary: int }),
  src_addr: address,
  dst_addr: address,
  src_port: int,
  dst_port: int,
  proto: int,
  bytes: fc.oneof({ weight: 30, arbitrary: positive }, { weight: 1, arbitrary: long }),
  packets: fc.oneof({ weight: 30, arbitrary: positive }, { weight: 1, arbitrary: long }),
  tcp_flags: int,
  ip_tos: int,
  in_if: long,
  out_if: long,
  src_as: long,
  dst_as: long,
  src_net: int,
  dst_net: int,
  next_hop: address,
  flow_direction: int,
  sampling_rate: long,
  time_flow_start_ms: long,
  time_flow_end_ms: long,
  time_received_ms: fc.oneof({ weight: 30, arbitrary: fc.nat(2 ** 31 - 1) }, { weight: 1, arbitrary: long }),
  details: fc.option(details, { nil: null }),
});
const frame: NarBatch = emptyBatch(
  { collector: 'c', incarnation: 'i', partition: 3, sequence: 4, volatile: false, goodbye: false },
  1_700_000_000_000,
);
const batch = fc.array(nar, { maxLength: 90 }).map((nars) => narBatchCodec.encode({ ...frame, nars }));

function varint(zigzagged: bigint, octetsMin = 1): number[] {
  const octets: number[] = [];
  for (let rest = zigzagged; rest > 0n || octets.length < octetsMin; rest >>= 7n) octets.push(Number(rest & 0x7fn) | 0x80);
  octets.push((octets.pop() as number) & 0x7f);
  return octets;
}

describe('NARs read into columns', () => {
  let accepted = 0;
  let refused = 0;
  const same = (value: Uint8Array) => {
    const expected = readByCodec(value);
    expect(readByColumns(value)).toEqual(expected);
    if (expected === null) refused++;
    else accepted++;
  };

  test('are those that the codec reads', () => {
    fc.assert(fc.property(batch, same), { numRuns: 300 });
    expect(accepted).toBeGreaterThan(50);
    expect(refused).toBeGreaterThan(5);
  });

  test('are refused where the codec refuses them: cut anywhere, with octets behind', () => {
    const cut = fc.tuple(batch, fc.nat(), fc.uint8Array({ maxLength: 3 }));
    fc.assert(
      fc.property(cut, ([value, at, behind]) => {
        same(value.subarray(0, at % (value.length + 1)));
        same(Buffer.concat([value, behind]));
      }),
      { numRuns: 300 },
    );
  });

  test('are the same in bytes that were changed', () => {
    const { narsStart } = decodeNarBatchFrame(narBatchCodec.encode(frame));
    const changes = fc.array(fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.constantFrom(0x80, 0xff, 0x7f, 0, 1))), { minLength: 1, maxLength: 4 });
    const [acceptedBefore, refusedBefore] = [accepted, refused];
    fc.assert(
      fc.property(fc.array(nar, { maxLength: 4 }), changes, (nars, list) => {
        const value = Buffer.from(narBatchCodec.encode({ ...frame, nars }));
        for (const [at, octet] of list) value[narsStart + (at % (value.length - narsStart))] = octet;
        same(value);
      }),
      { numRuns: 3000 },
    );
    expect(accepted - acceptedBefore).toBeGreaterThan(500);
    expect(refused - refusedBefore).toBeGreaterThan(500);
  });

  test('may come in several blocks, with sizes or without, and with numbers that are longer than they need to be', () => {
    const lone = fc.array(nar.filter(saysSomething), { minLength: 1, maxLength: 5 });
    const { narsStart } = decodeNarBatchFrame(narBatchCodec.encode(frame));
    const head = narBatchCodec.encode(frame).subarray(0, narsStart);
    fc.assert(
      fc.property(fc.array(fc.tuple(lone, fc.boolean(), fc.nat(12)), { maxLength: 4 }), (blocks) => {
        const parts = blocks.flatMap(([nars, isSized, octetsMin]) => {
          const whole = narBatchCodec.encode({ ...frame, nars });
          const body = whole.subarray(narsStart + 1, -1);
          const count = BigInt(nars.length);
          const numbers = isSized
            ? [...varint(2n * count - 1n, octetsMin), ...varint(2n * BigInt(body.length), octetsMin)]
            : varint(2n * count, octetsMin);
          return [Buffer.from(numbers), body];
        });
        const value = Buffer.concat([head, ...parts, Buffer.from([0])]);
        expect(readByColumns(value)).toEqual(blocks.flatMap(([nars]) => nars));
        same(value);
      }),
    );
  });

  test.each([2n ** 20n, 2n ** 31n, 2n ** 33n, 2n ** 53n, 2n ** 62n])('are refused at once where there cannot be %s of them', (count) => {
    const { narsStart } = decodeNarBatchFrame(narBatchCodec.encode(frame));
    const body = narBatchCodec.encode({ ...frame, nars: [] }).subarray(0, narsStart);
    for (const zigzagged of [2n * count, 2n * count - 1n])
      expect(readByColumns(Buffer.concat([body, Buffer.from(varint(zigzagged)), Buffer.alloc(100)]))).toBeNull();
    for (const zigzagged of [2n * count, 2n * count - 1n])
      expect(() => narBatchCodec.decode(Buffer.concat([body, Buffer.from(varint(zigzagged)), Buffer.alloc(100)]))).toThrow(UndecodableRecord);
  });

  test.each([-2, -1, 0, 1, 2].flatMap((more) => [2n ** 54n - 4n + BigInt(more), 2n ** 56n + BigInt(more), 2n ** 63n + BigInt(more)]))(
    'are read or refused as by the codec where a number stands for %s, about where numbers stop to be exact',
    (zigzagged) => {
      const { narsStart } = decodeNarBatchFrame(narBatchCodec.encode(frame));
      const head = narBatchCodec.encode(frame).subarray(0, narsStart);
      for (const field of [3, 6, 10, 18, 20, 22]) {
        const octets = Array.from({ length: 23 }, (_, index) => (index === field ? varint(zigzagged) : [0])).flat();
        same(Buffer.concat([head, Buffer.from([2, ...octets, 0])]));
      }
      // A VRF, which is a long, and a VLAN, which is none.
      for (const field of [23, 7 + 23, 7 + 7 + 23, 7 + 8 + 23]) {
        const octets = Array.from({ length: 22 + 1 + 17 }, (_, index) => (index === field ? varint(zigzagged) : [index === 22 ? 2 : 0])).flat();
        same(Buffer.concat([head, Buffer.from([2, ...octets, 0])]));
      }
    },
  );

  test('of an exporter that is not even a number are refused', () => {
    const { narsStart } = decodeNarBatchFrame(narBatchCodec.encode(frame));
    const head = narBatchCodec.encode(frame).subarray(0, narsStart);
    const notANumber = [...new Array(200).fill(0x80), 0];
    expect(readByColumns(Buffer.concat([head, Buffer.from([2, ...notANumber]), Buffer.alloc(22), Buffer.from([0])]))).toBeNull();
  });
});
