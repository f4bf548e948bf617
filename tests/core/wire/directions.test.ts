import { describe, expect, test } from '@jest/globals';
import { decoding, exportSeconds, ipfixMessage, netflow9Datagram, octets, set, templateRecord } from './decoding.ts';

const exportMs = exportSeconds * 1000;
const reverse = 29305;

/** All NARs of one IPFIX template and its records. */
function decoded(fields: readonly (readonly number[])[], ...records: Buffer[]) {
  const { take, nars, decoder, report } = decoding();
  take(ipfixMessage(0, [set(2, templateRecord(256, fields)), set(256, ...records)]));
  return { nars, counters: decoder.counters, report };
}

describe('a biflow (RFC 5103)', () => {
  test('is two NARs, the second with its ends swapped', () => {
    const fields = [
      ...[
        [8, 4],
        [12, 4],
        [7, 2],
        [11, 2],
        [4, 1],
        [10, 4],
        [14, 4],
        [16, 4],
        [17, 4],
        [9, 1],
        [13, 1],
        [15, 4],
        [61, 1],
        [5, 1],
        [6, 1],
      ],
      ...[
        [1, 4],
        [2, 4],
        [152, 8],
        [153, 8],
        [34, 4],
      ],
      ...[
        [1, 4, reverse],
        [2, 4, reverse],
        [5, 1, reverse],
        [6, 1, reverse],
        [152, 8, reverse],
      ],
    ];
    const record = octets(
      ...([
        [0x0a000001, 4],
        [0x0a000002, 4],
        [1000, 2],
        [443, 2],
        [6, 1],
        [3, 4],
        [4, 4],
        [64500, 4],
        [64501, 4],
        [24, 1],
        [16, 1],
      ] as const),
      ...([
        [0x0a0000fe, 4],
        [0, 1],
        [8, 1],
        [0x02, 1],
        [100, 4],
        [2, 4],
        [exportMs - 9000, 8],
        [exportMs - 1000, 8],
        [64, 4],
      ] as const),
      ...([
        [5000, 4],
        [7, 4],
        [16, 1],
        [0x12, 1],
        [exportMs - 8000, 8],
      ] as const),
    );
    const { nars, counters, report } = decoded(fields, record);
    const common = { proto: 6, sampling_rate: 64, time_flow_end_ms: exportMs - 1000, sampler_address: '192.0.2.1' };
    expect(nars).toMatchObject([
      {
        ...{ src_addr: '10.0.0.1', dst_addr: '10.0.0.2', src_port: 1000, dst_port: 443, in_if: 3, out_if: 4, src_as: 64500, dst_as: 64501 },
        ...{ src_net: 24, dst_net: 16, next_hop: '10.0.0.254', flow_direction: 0, ip_tos: 8, tcp_flags: 2, bytes: 100, packets: 2 },
        ...{ ...common, time_flow_start_ms: exportMs - 9000 },
      },
      {
        ...{ src_addr: '10.0.0.2', dst_addr: '10.0.0.1', src_port: 443, dst_port: 1000, in_if: 4, out_if: 3, src_as: 64501, dst_as: 64500 },
        ...{ src_net: 16, dst_net: 24, next_hop: '', flow_direction: 255, ip_tos: 16, tcp_flags: 0x12, bytes: 5000, packets: 7 },
        ...{ ...common, time_flow_start_ms: exportMs - 8000 },
      },
    ]);
    expect(counters).toMatchObject({ flows: 2, reverseFlows: 1 });
    // Of the exporter's sequence it is one record.
    expect(report()).toMatchObject({ lost_on_wire_flows: 0 });
  });

  test('whose reverse counters are zero, or not there, is one NAR', () => {
    const fields = [
      [1, 4],
      [2, 4],
      [1, 4, reverse],
      [2, 4, reverse],
    ];
    const record = (...values: number[]) => octets(...values.map((value) => [value, 4] as const));
    const { nars } = decoded(fields, record(10, 1, 0, 0), record(0, 0, 50, 0), record(10, 1, 0, 3));
    expect(nars.map((nar) => [nar.bytes, nar.packets])).toEqual([
      [10, 1],
      [0, 0],
      [50, 0],
      [10, 1],
      [0, 3],
    ]);
    expect(
      decoded(
        [
          [1, 4],
          [5, 1, reverse],
        ],
        octets([10, 4], [3, 1]),
      ).nars,
    ).toHaveLength(1);
  });

  test('in IPv6, and in fields of variable length', () => {
    const fields = [
      [27, 16],
      [371, 65535],
      [28, 16],
      [85, 8],
      [371, 65535],
      [85, 8, reverse],
    ];
    const [source, destination] = ['20010db8000000000000000000000001', '20010db8000000000000000000000002'].map((hex) => Buffer.from(hex, 'hex')) as [
      Buffer,
      Buffer,
    ];
    const record = Buffer.concat([source, octets([3, 1], [1, 3]), destination, octets([7, 8], [0, 1], [9, 8])]);
    expect(decoded(fields, record, record).nars).toMatchObject([
      { src_addr: '2001:db8::1', dst_addr: '2001:db8::2', bytes: 7 },
      { src_addr: '2001:db8::2', dst_addr: '2001:db8::1', bytes: 9 },
      { src_addr: '2001:db8::1', bytes: 7 },
      { src_addr: '2001:db8::2', bytes: 9 },
    ]);
  });

  test('of implausible reverse counters is one NAR and one rejected', () => {
    const { nars, counters } = decoded(
      [
        [1, 4],
        [1, 8, reverse],
      ],
      octets([10, 4], [2 ** 21, 4], [0, 4]),
    );
    expect(nars.map((nar) => nar.bytes)).toEqual([10]);
    expect(counters).toMatchObject({ flows: 1, reverseFlows: 0, rejectedFlows: 1 });
  });
});

describe('a firewall', () => {
  const ends = [
    [8, 4],
    [12, 4],
  ];
  const initiator = [
    [231, 4],
    [298, 4],
  ];
  const responder = [
    [232, 4],
    [299, 4],
  ];

  test('counts what initiator and responder sent, which are two directions', () => {
    const { nars } = decoded([...ends, ...initiator, ...responder], octets([1, 4], [2, 4], [100, 4], [3, 4], [900, 4], [8, 4]));
    expect(nars).toMatchObject([
      { src_addr: '0.0.0.1', dst_addr: '0.0.0.2', bytes: 100, packets: 3 },
      { src_addr: '0.0.0.2', dst_addr: '0.0.0.1', bytes: 900, packets: 8 },
    ]);
    const octetsOnly = decoded([...ends, [231, 4], [232, 4]], octets([1, 4], [2, 4], [100, 4], [900, 4]));
    expect(octetsOnly.nars.map((nar) => [nar.bytes, nar.packets])).toEqual([
      [100, 0],
      [900, 0],
    ]);
    const packetsOnly = decoded([...ends, [298, 4], [299, 4]], octets([1, 4], [2, 4], [3, 4], [8, 4]));
    expect(packetsOnly.nars.map((nar) => nar.packets)).toEqual([3, 8]);
  });

  test("has no second direction in a responder's count beside another one", () => {
    expect(decoded([...ends, [1, 4], ...responder], octets([1, 4], [2, 4], [100, 4], [900, 4], [8, 4])).nars).toHaveLength(1);
    expect(decoded([...ends, [85, 4], [231, 4], [232, 4]], octets([1, 4], [2, 4], [1000, 4], [100, 4], [900, 4])).nars).toMatchObject([
      { bytes: 1000 },
    ]);
  });

  test('tells of connections that begin or are denied: no usage, and no flow', () => {
    for (const event of [
      [233, 1],
      [230, 1],
    ]) {
      const { nars, counters, report } = decoded([...ends, event], octets([1, 4], [2, 4], [1, 1]), octets([1, 4], [2, 4], [3, 1]));
      expect(nars).toHaveLength(0);
      expect(counters).toMatchObject({ events: 2, flows: 0, rejectedFlows: 0, malformedSets: 0, undecodableDatagrams: 0 });
      expect(report()).toMatchObject({ received_datagrams: 1, decoded_flows: 0 });
    }
    const older = decoding();
    older.take(netflow9Datagram(0, [set(0, templateRecord(256, [...ends, [40005, 1]])), set(256, octets([1, 4], [2, 4], [1, 1]), Buffer.alloc(3))]));
    expect(older.nars).toHaveLength(0);
    expect(older.decoder.counters.events).toBe(1);
  });

  test('that counts with an event counts', () => {
    const fields = [...ends, [233, 1], [231, 4], [232, 4]];
    const { nars, counters } = decoded(fields, octets([1, 4], [2, 4], [2, 1], [0, 4], [5, 4]), octets([1, 4], [2, 4], [5, 1], [0, 4], [0, 4]));
    expect(nars.map((nar) => nar.bytes)).toEqual([0, 5]);
    expect(counters).toMatchObject({ flows: 2, reverseFlows: 1, events: 1 });
    expect(
      decoded(
        [
          [233, 1],
          [1, 4],
        ],
        octets([1, 1], [7, 4]),
      ).nars,
    ).toMatchObject([{ bytes: 7 }]);
  });
});
