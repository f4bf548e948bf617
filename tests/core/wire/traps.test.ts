/** What real devices send that is not as it should be, or that other decoders stumbled over. */
import { describe, expect, test } from '@jest/globals';
import { decoding, exportSeconds, ipfixMessage, netflow9Datagram, octets, set, templateRecord } from './decoding.ts';

const exportMs = exportSeconds * 1000;
const fields = [
  [8, 4],
  [12, 4],
  [1, 4],
  [2, 4],
];
const flow = (bytes: number) => octets([0x0a000001, 4], [0x0a000002, 4], [bytes, 4], [1, 4]);

describe('NetFlow v7', () => {
  function netflow7(sequence: number, count: number, ...records: Buffer[]): Buffer {
    const header = octets([7, 2], [count, 2], [100_000, 4], [exportSeconds, 4], [500_000_000, 4], [sequence, 4], [0xffff_ffff, 4]);
    return Buffer.concat([header, ...records]);
  }
  const record = octets(
    ...([
      [0x0a000001, 4],
      [0x0a000002, 4],
      [0x0a0000fe, 4],
      [3, 2],
      [4, 2],
      [5, 4],
      [600, 4],
      [90_000, 4],
      [95_000, 4],
    ] as const),
    ...([
      [1000, 2],
      [443, 2],
      [0x7f, 1],
      [0x1b, 1],
      [6, 1],
      [8, 1],
      [64500, 2],
      [64501, 2],
      [24, 1],
      [16, 1],
      [0, 2],
      [0x0a0000fd, 4],
    ] as const),
  );

  test('is read in records of 52 octets, its reserved header left alone', () => {
    const { take, nars, report } = decoding();
    take(netflow7(0, 2, record, record));
    take(netflow7(5, 1, record));
    expect(nars).toHaveLength(3);
    expect(nars[1]).toMatchObject({
      ...{ protocol: 'netflow_v7', observation_domain_id: 0, src_addr: '10.0.0.1', dst_addr: '10.0.0.2', next_hop: '10.0.0.254' },
      ...{ src_port: 1000, dst_port: 443, proto: 6, bytes: 600, packets: 5, tcp_flags: 0x1b, ip_tos: 8, in_if: 3, out_if: 4 },
      ...{ src_as: 64500, dst_as: 64501, src_net: 24, dst_net: 16, sampling_rate: 0 },
      ...{ time_flow_start_ms: exportMs + 500 - 10_000, time_flow_end_ms: exportMs + 500 - 5_000 },
    });
    expect(report()).toMatchObject({ received_datagrams: 2, lost_on_wire_flows: 3 });
  });

  test('with a count that does not fit is undecodable', () => {
    for (const count of [1, 3, 55582]) {
      const { take, nars, report } = decoding();
      take(netflow7(0, count, record, record));
      expect(nars).toHaveLength(0);
      expect(report()).toMatchObject({ undecodable_datagrams: 1 });
    }
  });
});

describe('NetFlow v9', () => {
  test('with any Count is read to its end', () => {
    for (const count of [0, 1, 2, 0xffff]) {
      const { take, nars } = decoding();
      const datagram = netflow9Datagram(0, [set(0, templateRecord(256, fields)), set(256, flow(1), flow(2)), set(256, flow(3))]);
      datagram.writeUInt16BE(count, 2);
      take(datagram);
      expect(nars.map((nar) => nar.bytes)).toEqual([1, 2, 3]);
    }
  });

  test('with a field of 65535 octets tells the length in the record, as IPFIX does', () => {
    const { take, nars } = decoding();
    const text = (length: number) => Buffer.concat([octets([length, 1]), Buffer.alloc(length, 0x41)]);
    const template = templateRecord(256, [[94, 65535], ...fields]);
    const long = Buffer.concat([octets([255, 1], [300, 2]), Buffer.alloc(300, 0x42)]);
    take(netflow9Datagram(0, [set(0, template), set(256, text(0), flow(1), text(7), flow(2), long, flow(3))]));
    expect(nars.map((nar) => [nar.src_addr, nar.bytes])).toEqual([
      ['10.0.0.1', 1],
      ['10.0.0.1', 2],
      ['10.0.0.1', 3],
    ]);
  });

  test('with private element numbers above 32767 has no enterprise number behind them', () => {
    const { take, nars } = decoding();
    take(netflow9Datagram(0, [set(0, templateRecord(256, [[56701, 32], ...fields])), set(256, Buffer.alloc(32, 0x41), flow(7))]));
    expect(nars).toMatchObject([{ src_addr: '10.0.0.1', bytes: 7 }]);
  });
});

describe('sets', () => {
  test('that are unknown, reserved, or without a template stand beside good ones', () => {
    for (const [protocol, templates, reserved] of [
      ['v9', 0, [4, 100, 255]],
      ['ipfix', 2, [0, 1, 4, 255]],
    ] as const) {
      const { take, nars, decoder } = decoding();
      const strangers = reserved.map((id) => set(id, Buffer.alloc(12, 0xff)));
      const sets = [...strangers, set(templates, templateRecord(256, fields)), ...strangers, set(999, flow(9)), set(256, flow(1)), ...strangers];
      take(protocol === 'v9' ? netflow9Datagram(0, sets) : ipfixMessage(0, sets));
      expect(nars.map((nar) => nar.bytes)).toEqual([1]);
      expect(decoder.counters).toMatchObject({ waitingSets: 1, malformedSets: 0, undecodableDatagrams: 0 });
    }
  });

  test('that are broken end their datagram, and leave those before them whole', () => {
    const broken = [octets([256, 2], [3, 2], [0, 4]), octets([256, 2], [500, 2], [0, 8])];
    for (const end of broken) {
      const { take, nars, decoder } = decoding();
      take(netflow9Datagram(0, [set(0, templateRecord(256, fields)), set(256, flow(1)), end]));
      expect(nars.map((nar) => nar.bytes)).toEqual([1]);
      expect(decoder.counters).toMatchObject({ malformedSets: 1, undecodableDatagrams: 0 });
    }
  });

  test('may be padded with anything, in data and in templates', () => {
    for (const padding of [Buffer.alloc(3), Buffer.alloc(3, 0xff), Buffer.alloc(15, 0xff)]) {
      const { take, nars, decoder } = decoding();
      take(ipfixMessage(0, [set(2, templateRecord(256, fields), padding.subarray(0, 3)), set(256, flow(1), flow(2), padding)]));
      expect(nars.map((nar) => nar.bytes)).toEqual([1, 2]);
      expect(decoder.counters).toMatchObject({ malformedSets: 0, templates: 1, refusedTemplates: 0 });
    }
  });
});

describe('fields', () => {
  test('of no length say nothing, and move nothing', () => {
    const { take, nars } = decoding();
    const withEmpty = [[0, 0], [8, 0], ...fields.slice(0, 2), [7, 0], [1, 0], ...fields.slice(2), [12, 0], [2, 0]];
    take(netflow9Datagram(0, [set(0, templateRecord(256, withEmpty)), set(256, flow(5), flow(6))]));
    expect(nars).toMatchObject([
      { src_addr: '10.0.0.1', dst_addr: '10.0.0.2', src_port: 0, bytes: 5, packets: 1 },
      { src_addr: '10.0.0.1', dst_addr: '10.0.0.2', src_port: 0, bytes: 6, packets: 1 },
    ]);
  });

  test('of structured data (RFC 6313) are skipped whole, whatever counters they hold', () => {
    const { take, nars } = decoding();
    // basicList of octetDeltaCount; subTemplateList of template 256; subTemplateMultiList; each with its length in one octet, and in three.
    const basicList = octets([0xff, 1], [1, 2], [4, 2], [111, 4], [222, 4]);
    const subTemplateList = Buffer.concat([octets([3, 1], [256, 2]), flow(333)]);
    const multiList = Buffer.concat([octets([3, 1], [256, 2], [20, 2]), flow(444)]);
    const short = (list: Buffer) => Buffer.concat([octets([list.length, 1]), list]);
    const long = (list: Buffer) => Buffer.concat([octets([255, 1], [list.length, 2]), list]);
    const template = templateRecord(256, [[291, 65535], ...fields, [292, 65535], [293, 65535], [7, 2]]);
    const record = (sized: (list: Buffer) => Buffer, bytes: number) =>
      Buffer.concat([sized(basicList), flow(bytes), sized(subTemplateList), sized(multiList), octets([80, 2])]);
    take(ipfixMessage(0, [set(2, template), set(256, record(short, 1), record(long, 2), record(short, 3))]));
    expect(nars.map((nar) => [nar.src_addr, nar.bytes, nar.src_port])).toEqual([
      ['10.0.0.1', 1, 80],
      ['10.0.0.1', 2, 80],
      ['10.0.0.1', 3, 80],
    ]);
  });

  test('of OUT_BYTES never take the place of IN_BYTES, in whatever order, and count alone', () => {
    const one = (template: number[][], record: Buffer) => {
      const { take, nars } = decoding();
      take(netflow9Datagram(0, [set(0, templateRecord(256, template)), set(256, record)]));
      return nars.map((nar) => [nar.bytes, nar.packets]);
    };
    const [inBytes, inPackets, outBytes, outPackets] = [1, 2, 23, 24].map((element) => [element, 4]) as [number[], number[], number[], number[]];
    expect(one([inBytes, inPackets, outBytes, outPackets], octets([500, 4], [5, 4], [0, 4], [0, 4]))).toEqual([[500, 5]]);
    expect(one([outBytes, outPackets, inBytes, inPackets], octets([0, 4], [0, 4], [500, 4], [5, 4]))).toEqual([[500, 5]]);
    expect(one([outBytes, outPackets], octets([300, 4], [3, 4]))).toEqual([[300, 3]]);
  });
});

describe('times', () => {
  const times = [
    [22, 4],
    [21, 4],
    [1, 4],
  ];
  const one = (uptimeMs: number, first: number, last: number) => {
    const { take, nars } = decoding();
    take(netflow9Datagram(0, [set(0, templateRecord(256, times)), set(256, octets([first, 4], [last, 4], [1, 4]))], uptimeMs));
    return [nars[0]!.time_flow_start_ms - exportMs, nars[0]!.time_flow_end_ms - exportMs];
  };

  test('of a first packet one millisecond before the start are no 49 days away', () => {
    expect(one(5_000, 0xffff_ffff, 4_000)).toEqual([-5_001, -1_000]);
  });

  test('across a wrap of the uptime stay in order', () => {
    expect(one(1_000, 0xffff_f000, 500)).toEqual([-5_096, -500]);
    expect(one(0, 0xffff_0000, 0xffff_ff00)).toEqual([-65_536, -256]);
  });

  test('of an uptime that counts in another unit lie ahead, for the fold to clamp', () => {
    expect(one(1_000, 600_000_000, 604_801_000)).toEqual([599_999_000, 604_800_000]);
  });
});
