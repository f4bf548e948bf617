import { describe, expect, test } from '@jest/globals';
import { SyntheticExporter } from '../../../core/wire/synthetic-exporter.ts';
import { decoding, exportSeconds, fieldSpecifier, ipfixMessage, netflow9Datagram, octets, set, templateRecord } from './decoding.ts';

const exportMs = exportSeconds * 1000;
const addresses = [
  [8, 4],
  [12, 4],
] as const;
const counters = [
  [1, 4],
  [2, 4],
] as const;

function flow(bytes: number, packets: number): Buffer {
  return octets([0x0a000001, 4], [0x0a000002, 4], [bytes, 4], [packets, 4]);
}

const plainTemplate = set(2, templateRecord(256, [...addresses, ...counters]));

/** The only NAR of a template and one record. */
function one(fields: readonly (readonly number[])[], record: Buffer) {
  const { take, nars } = decoding();
  take(ipfixMessage(0, [set(2, templateRecord(256, fields)), set(256, record)]));
  expect(nars).toHaveLength(1);
  return nars[0]!;
}

describe('templates', () => {
  test('may come after their data, which then has the time of its own reception', () => {
    const { take, nars, decoder } = decoding();
    take(ipfixMessage(0, [set(256, flow(100, 1), flow(200, 2))]), '192.0.2.1', 5_000);
    expect(nars).toHaveLength(0);
    expect(decoder.counters.waitingSets).toBe(1);
    take(ipfixMessage(2, [plainTemplate]), '192.0.2.1', 6_000);
    expect(nars.map((nar) => [nar.bytes, nar.time_received_ms])).toEqual([
      [100, 5_000],
      [200, 5_000],
    ]);
    expect(decoder.takeReports()).toMatchObject([{ received_datagrams: 2, undecodable_datagrams: 0, undecodable_flows: 0, lost_on_wire_flows: 0 }]);
    expect(decoder.counters.waitingBytes).toBe(0);
  });

  test('that follow their data in one datagram are as good', () => {
    const { take, nars, decoder } = decoding();
    take(ipfixMessage(0, [set(256, flow(100, 1)), plainTemplate]));
    take(ipfixMessage(4, [set(256, flow(100, 1))]));
    expect(nars).toHaveLength(2);
    expect(decoder.takeReports()).toMatchObject([{ undecodable_datagrams: 0, undecodable_flows: 0, lost_on_wire_flows: 3 }]);
  });

  test('that do not come in time leave their data counted', () => {
    const { take, nars, decoder } = decoding({ waitMs: 30_000 });
    take(ipfixMessage(0, [set(256, flow(100, 1), flow(200, 2))]), '192.0.2.1', 0);
    decoder.expire(30_000);
    expect(decoder.counters.undecodableSets).toBe(0);
    decoder.expire(30_001);
    take(ipfixMessage(2, [plainTemplate]), '192.0.2.1', 31_000);
    expect(nars).toHaveLength(0);
    expect(decoder.takeReports()).toMatchObject([{ received_datagrams: 2, undecodable_datagrams: 1, undecodable_flows: 2, lost_on_wire_flows: 0 }]);
  });

  test('may be redefined', () => {
    const { take, nars } = decoding();
    take(ipfixMessage(0, [plainTemplate, set(256, flow(100, 1))]));
    take(ipfixMessage(1, [set(2, templateRecord(256, [...counters, ...addresses]))]));
    take(ipfixMessage(1, [set(256, octets([300, 4], [3, 4], [0x0a000001, 4], [0x0a000002, 4]))]));
    expect(nars.map((nar) => [nar.src_addr, nar.bytes])).toEqual([
      ['10.0.0.1', 100],
      ['10.0.0.1', 300],
    ]);
  });

  test('may be withdrawn, one or all', () => {
    for (const withdrawal of [templateRecord(256, []), templateRecord(2, [])]) {
      const { take, nars, decoder } = decoding();
      take(ipfixMessage(0, [plainTemplate]));
      take(ipfixMessage(0, [set(2, withdrawal)]));
      take(ipfixMessage(0, [set(256, flow(100, 1))]));
      expect(nars).toHaveLength(0);
      expect(decoder.counters).toMatchObject({ withdrawnTemplates: 1, waitingSets: 1 });
    }
  });

  test('expire where they are not repeated', () => {
    const { take, nars, decoder } = decoding({ templateExpiryMs: 1_000 });
    take(ipfixMessage(0, [plainTemplate]), '192.0.2.1', 0);
    take(ipfixMessage(0, [plainTemplate]), '192.0.2.1', 900);
    take(ipfixMessage(0, [set(256, flow(100, 1))]), '192.0.2.1', 1_800);
    take(ipfixMessage(1, [set(256, flow(100, 1))]), '192.0.2.1', 2_000);
    expect(nars).toHaveLength(1);
    decoder.expire(2_000);
    expect(decoder.counters.expiredTemplates).toBe(1);
  });

  test('belong to an address and an observation domain', () => {
    const { take, nars } = decoding();
    take(ipfixMessage(0, [plainTemplate], exportSeconds, 1), '192.0.2.1');
    take(ipfixMessage(0, [set(256, flow(100, 1))], exportSeconds, 2), '192.0.2.1');
    take(ipfixMessage(0, [set(256, flow(100, 1))], exportSeconds, 1), '192.0.2.2');
    expect(nars).toHaveLength(0);
    take(ipfixMessage(0, [set(256, flow(100, 1))], exportSeconds, 1), '192.0.2.1');
    expect(nars).toHaveLength(1);
  });

  test('of zero length make no records', () => {
    const { take, nars, decoder } = decoding();
    take(ipfixMessage(0, [set(2, templateRecord(256, [[8, 0]])), set(256, flow(1, 1))]));
    expect(nars).toHaveLength(0);
    expect(decoder.counters.malformedSets).toBe(1);
  });
});

describe('fields', () => {
  test('that are not known are skipped by their length, enterprise and variable ones too', () => {
    const fields = [[4660, 3], [8, 4], [7, 5, 9999], [96, 65535], [12, 4], [1, 4, 9999], [96, 65535], ...counters];
    const long = Buffer.alloc(300, 7);
    const record = Buffer.concat([
      octets([1, 3], [0x0a000001, 4], [1, 5]),
      octets([2, 1], [0x4141, 2]),
      octets([0x0a000002, 4], [99, 4]),
      Buffer.concat([octets([255, 1], [300, 2]), long]),
      octets([100, 4], [1, 4]),
    ]);
    expect(one(fields, record)).toMatchObject({ src_addr: '10.0.0.1', dst_addr: '10.0.0.2', bytes: 100, packets: 1, src_port: 0 });
  });

  test('are taken in reduced size', () => {
    const fields = [
      [1, 3],
      [2, 1],
      [10, 1],
      [16, 2],
    ];
    expect(one(fields, octets([0x010203, 3], [7, 1], [3, 1], [65000, 2]))).toMatchObject({ bytes: 0x010203, packets: 7, in_if: 3, src_as: 65000 });
  });

  test('that occur twice are those of the inner packet', () => {
    const fields = [...addresses, [4, 1], ...addresses, [4, 1], ...counters];
    const record = octets([1, 4], [2, 4], [47, 1], [3, 4], [4, 4], [6, 1], [100, 4], [1, 4]);
    expect(one(fields, record)).toMatchObject({ src_addr: '0.0.0.3', dst_addr: '0.0.0.4', proto: 6 });
  });

  test('of octets: delta before total before initiator, and a zero is a value', () => {
    expect(
      one(
        [
          [23, 4],
          [85, 4],
          [1, 4],
        ],
        octets([5, 4], [7, 4], [0, 4]),
      ).bytes,
    ).toBe(0);
    expect(
      one(
        [
          [231, 4],
          [85, 4],
        ],
        octets([5, 4], [7, 4]),
      ).bytes,
    ).toBe(7);
    expect(
      one(
        [
          [231, 4],
          [298, 4],
        ],
        octets([5, 4], [7, 4]),
      ),
    ).toMatchObject({ bytes: 5, packets: 7 });
    expect(
      one(
        [
          [23, 4],
          [24, 4],
        ],
        octets([5, 4], [7, 4]),
      ),
    ).toMatchObject({ bytes: 5, packets: 7 });
  });

  test('of both address families: the one that is not zero', () => {
    const fields = [...addresses, [27, 16], [28, 16]];
    const zeros = Buffer.alloc(16);
    const v6 = Buffer.from('20010db8000000000000000000000001', 'hex');
    expect(one(fields, Buffer.concat([octets([1, 4], [2, 4]), zeros, zeros])).src_addr).toBe('0.0.0.1');
    expect(one(fields, Buffer.concat([octets([0, 4], [0, 4]), v6, zeros]))).toMatchObject({ src_addr: '2001:db8::1', dst_addr: '::' });
  });

  test('of counters of 2^53 and more make the record rejected, not the others', () => {
    const { take, nars, decoder } = decoding();
    const template = set(
      2,
      templateRecord(256, [
        [1, 8],
        [2, 4],
      ]),
    );
    const record = (high: number, low: number) => octets([high, 4], [low, 4], [1, 4]);
    take(ipfixMessage(0, [template, set(256, record(2 ** 21 - 1, 0xffff_ffff), record(2 ** 21, 0), record(0xffff_ffff, 0xffff_ffff), record(0, 5))]));
    expect(nars.map((nar) => nar.bytes)).toEqual([Number.MAX_SAFE_INTEGER, 5]);
    expect(decoder.takeReports()).toMatchObject([{ decoded_flows: 2, rejected_flows: 2, decoded_bytes: 0n, lost_on_wire_flows: 0 }]);
  });
});

describe('times', () => {
  test('count back from the export by uptime, with wrap', () => {
    const { take, nars } = decoding();
    const template = templateRecord(256, [
      [22, 4],
      [21, 4],
    ]);
    take(netflow9Datagram(0, [set(0, template), set(256, octets([0xffff_ffff, 4], [99_000, 4]))], 100_000));
    expect(nars).toMatchObject([{ time_flow_start_ms: exportMs - 100_001, time_flow_end_ms: exportMs - 1_000 }]);
  });

  test('in seconds, milliseconds, NTP fractions and microseconds before the export', () => {
    const ntp = exportSeconds + 2_208_988_800;
    const cases: [fields: number[][], record: Buffer, start: number, end: number][] = [
      [
        [
          [150, 4],
          [151, 4],
        ],
        octets([exportSeconds, 4], [exportSeconds + 1, 4]),
        exportMs,
        exportMs + 1000,
      ],
      [
        [
          [152, 8],
          [153, 8],
        ],
        octets([exportMs + 7, 8], [exportMs + 8, 8]),
        exportMs + 7,
        exportMs + 8,
      ],
      [
        [
          [154, 8],
          [155, 8],
        ],
        octets([ntp, 4], [2 ** 31, 4], [ntp, 4], [2 ** 30, 4]),
        exportMs + 500,
        exportMs + 250,
      ],
      [
        [
          [156, 8],
          [157, 8],
        ],
        octets([ntp, 4], [2 ** 31, 4], [ntp + 1, 4], [0, 4]),
        exportMs + 500,
        exportMs + 1000,
      ],
      [
        [
          [158, 4],
          [159, 4],
        ],
        octets([5_000_000, 4], [1_000_000, 4]),
        exportMs - 5000,
        exportMs - 1000,
      ],
      [
        [
          [160, 8],
          [22, 4],
          [21, 4],
        ],
        octets([exportMs - 50_000, 8], [10_000, 4], [20_000, 4]),
        exportMs - 40_000,
        exportMs - 30_000,
      ],
      [
        [
          [22, 4],
          [21, 4],
        ],
        octets([10_000, 4], [20_000, 4]),
        exportMs - 10_000,
        exportMs,
      ],
      [[[323, 8]], octets([exportMs - 5, 8]), exportMs - 5, exportMs - 5],
      // A duration stands in for the time that is missing, and for no other.
      ...([161, 162] as const).flatMap((element): typeof cases => {
        const duration = element === 161 ? 250 : 250_999;
        return [
          [
            [
              [153, 8],
              [element, 4],
            ],
            octets([exportMs - 100, 8], [duration, 4]),
            exportMs - 350,
            exportMs - 100,
          ],
          [
            [
              [152, 8],
              [element, 4],
            ],
            octets([exportMs - 900, 8], [duration, 4]),
            exportMs - 900,
            exportMs - 650,
          ],
          [[[element, 4]], octets([duration, 4]), exportMs - 250, exportMs],
          [
            [
              [152, 8],
              [153, 8],
              [element, 4],
            ],
            octets([exportMs - 900, 8], [exportMs - 1, 8], [duration, 4]),
            exportMs - 900,
            exportMs - 1,
          ],
        ];
      }),
      [[[1, 4]], octets([1, 4]), exportMs, exportMs],
      [[[153, 8]], octets([0xffff_ffff, 4], [0xffff_ffff, 4]), exportMs, exportMs],
    ];
    for (const [fields, record, start, end] of cases) {
      expect(one(fields, record)).toMatchObject({ time_flow_start_ms: start, time_flow_end_ms: end });
    }
  });

  test('relative to a start that an options record tells', () => {
    const { take, nars } = decoding();
    const options = Buffer.concat([octets([257, 2], [2, 2], [1, 2]), fieldSpecifier([149, 4]), fieldSpecifier([160, 8])]);
    take(ipfixMessage(0, [set(3, options), set(257, octets([1, 4], [exportMs - 60_000, 8]))]));
    take(
      ipfixMessage(1, [
        set(
          2,
          templateRecord(256, [
            [22, 4],
            [21, 4],
          ]),
        ),
        set(256, octets([1_000, 4], [2_000, 4])),
      ]),
    );
    expect(nars).toMatchObject([{ time_flow_start_ms: exportMs - 59_000, time_flow_end_ms: exportMs - 58_000 }]);
  });
});

describe('datagrams', () => {
  test('of NetFlow v5 whose count does not fit their length are undecodable, and their sequence is not believed', () => {
    const exporter = new SyntheticExporter({ protocol: 'v5', seed: 1, keys: 5 });
    const [first, corrupt, last] = [0, 1, 2].map((i) => exporter.next(exportMs + i, 3)) as [Buffer, Buffer, Buffer];
    for (const count of [2, 4, 31, 55582]) {
      const { take, nars, report } = decoding();
      const broken = Buffer.from(corrupt);
      broken.writeUInt16BE(count, 2);
      broken.writeUInt32BE(4_000_000, 16);
      for (const datagram of [first, broken, last]) take(datagram);
      expect(nars).toHaveLength(6);
      expect(report()).toMatchObject({ received_datagrams: 3, undecodable_datagrams: 1, lost_on_wire_flows: 3 });
    }
  });

  test('of IPFIX end where their length says, and may end before', () => {
    const message = ipfixMessage(0, [plainTemplate, set(256, flow(100, 1))]);
    const longer = decoding();
    longer.take(Buffer.concat([message, set(256, flow(999, 9))]));
    expect(longer.nars.map((nar) => nar.bytes)).toEqual([100]);
    const cut = decoding();
    cut.take(ipfixMessage(0, [plainTemplate]));
    cut.take(ipfixMessage(0, [set(256, flow(100, 1), flow(200, 1))]).subarray(0, -1));
    cut.take(ipfixMessage(2, [set(256, flow(300, 1))]));
    expect(cut.nars.map((nar) => nar.bytes)).toEqual([300]);
    expect(cut.report()).toMatchObject({ received_datagrams: 3, undecodable_datagrams: 1, undecodable_flows: 2, lost_on_wire_flows: 0 });
  });

  test('may have padding in their sets', () => {
    const { take, nars, decoder } = decoding();
    take(
      netflow9Datagram(0, [
        set(0, templateRecord(256, [...addresses, ...counters]), Buffer.alloc(3)),
        set(256, flow(100, 1), Buffer.from([1, 2, 3])),
      ]),
    );
    expect(nars).toHaveLength(1);
    expect(decoder.counters.malformedSets).toBe(0);
  });

  test('of an exporter that starts anew with the same numbers and the same flows are no repetitions', () => {
    for (const protocol of ['v5', 'v9', 'ipfix'] as const) {
      const { take, nars, report } = decoding();
      for (const startedMs of [exportMs, exportMs + 10_000]) take(new SyntheticExporter({ protocol, seed: 1, keys: 5 }).next(startedMs, 30));
      expect(nars.length).toBeGreaterThanOrEqual(40);
      expect(report()).toMatchObject({ received_datagrams: 2, duplicate_datagrams: 0, lost_on_wire_flows: 0 });
    }
  });

  test('that come twice count once', () => {
    for (const protocol of ['v5', 'v9', 'ipfix'] as const) {
      const exporter = new SyntheticExporter({ protocol, seed: 1, keys: 5 });
      const { take, nars, report } = decoding();
      const datagrams = Array.from({ length: 4 }, (_, i) => exporter.next(exportMs + i, 3));
      for (const datagram of [...datagrams, datagrams[1]!, datagrams[3]!]) take(datagram);
      expect(nars).toHaveLength(12);
      expect(report()).toMatchObject({ received_datagrams: 6, duplicate_datagrams: 2, lost_on_wire_flows: 0, lost_on_wire_datagrams: 0 });
    }
  });

  test('of no known version belong to nobody', () => {
    const { take, decoder } = decoding();
    for (const datagram of [Buffer.alloc(0), Buffer.from([0]), Buffer.from([0, 5]), Buffer.from([0, 8, 0, 0]), Buffer.alloc(2000)]) take(datagram);
    expect(decoder.counters.unidentifiedDatagrams).toBe(5);
    expect(decoder.takeReports()).toEqual([]);
  });

  test('are not kept: the buffer may be used again', () => {
    const { take, nars } = decoding();
    const buffer = Buffer.from(ipfixMessage(0, [set(256, flow(100, 1))]));
    take(buffer);
    buffer.fill(0xff);
    take(ipfixMessage(1, [plainTemplate]));
    expect(nars).toMatchObject([{ src_addr: '10.0.0.1', bytes: 100 }]);
  });
});

describe('a collector that was killed', () => {
  test.each([
    ['v5', { lost_on_wire_flows: 12, lost_on_wire_datagrams: 0 }],
    ['v9', { lost_on_wire_flows: 0, lost_on_wire_datagrams: 3 }],
    ['ipfix', { lost_on_wire_flows: 12, lost_on_wire_datagrams: 0 }],
  ] as const)('learns from the first datagram of %s after its restart exactly what it lost', (protocol, loss) => {
    const exporter = new SyntheticExporter({ protocol, seed: 1, keys: 5, templateEvery: 2 });
    const datagrams = Array.from({ length: 10 }, (_, i) => exporter.next(exportMs + 1000 * i, 4));
    const before = decoding();
    for (const datagram of datagrams.slice(0, 4)) before.take(datagram);
    const stored = before.decoder.takePositions();
    expect(stored.map(([key]) => key)).toEqual([`192.0.2.1|0|${protocol === 'ipfix' ? 'ipfix' : `netflow_${protocol}`}`]);
    for (const datagram of datagrams.slice(4, 6)) before.take(datagram);
    const after = decoding();
    after.decoder.restore(stored);
    for (const datagram of datagrams.slice(7)) after.take(datagram);
    expect(after.report()).toMatchObject(loss);
  });

  test('gives positions out once for each change', () => {
    const { take, decoder } = decoding();
    take(ipfixMessage(0, [plainTemplate]));
    expect(decoder.takePositions()).toHaveLength(1);
    expect(decoder.takePositions()).toHaveLength(0);
    take(ipfixMessage(0, [set(256, flow(1, 1))]));
    expect(decoder.takePositions()).toHaveLength(1);
  });

  test('counts datagrams that still waited for their template as undecodable', () => {
    const before = decoding();
    before.take(netflow9Datagram(0, [set(256, flow(100, 1))]));
    const after = decoding();
    after.decoder.restore(before.decoder.takePositions());
    after.take(netflow9Datagram(1, [set(0, templateRecord(256, [...addresses, ...counters]))]));
    expect(after.report()).toMatchObject({ received_datagrams: 1, undecodable_datagrams: 1, lost_on_wire_datagrams: 0 });
  });
});

describe('memory is bounded', () => {
  test('in exporters, of which idle ones are forgotten', () => {
    const { take, decoder } = decoding({ exportersMax: 2 });
    for (let i = 1; i <= 5; i++) take(ipfixMessage(0, [plainTemplate]), `192.0.2.${i}`, 0);
    expect(decoder.counters).toMatchObject({ exporters: 2, refusedDatagrams: 3 });
    decoder.expire(3_600_000);
    expect(decoder.counters.exporters).toBe(2);
    decoder.takeReports();
    decoder.takePositions();
    decoder.expire(3_601_000);
    expect(decoder.counters.exporters).toBe(0);
  });

  test('and yet an exporter that comes back after it was forgotten shows what was lost meanwhile', () => {
    const { take, decoder } = decoding({ exporterExpiryMs: 60_000 });
    take(ipfixMessage(0, [plainTemplate, set(256, flow(1, 1))]), '192.0.2.1', 0);
    decoder.takeReports();
    decoder.takePositions();
    decoder.expire(60_001);
    expect(decoder.counters.exporters).toBe(0);
    take(ipfixMessage(8, [plainTemplate, set(256, flow(1, 1))]), '192.0.2.1', 70_000);
    expect(decoder.takeReports()).toMatchObject([{ lost_on_wire_flows: 7 }]);
  });

  test('in templates and their fields', () => {
    const { take, decoder } = decoding({ templatesPerExporterMax: 3, fieldsPerTemplateMax: 2 });
    take(ipfixMessage(0, [set(2, ...[256, 257, 258, 259].map((id) => templateRecord(id, counters)))]));
    take(ipfixMessage(0, [plainTemplate]));
    expect(decoder.counters).toMatchObject({ templates: 3, refusedTemplates: 2 });
  });

  test('in data that wait, of which one exporter gets at most half', () => {
    const { take, decoder } = decoding({ waitBytesMax: 1_000 });
    for (let i = 0; i < 100; i++) take(ipfixMessage(2 * i, [set(256, flow(1, 1), flow(1, 1))]));
    expect(decoder.counters.waitingBytes).toBeLessThanOrEqual(500);
    for (let i = 0; i < 100; i++) take(ipfixMessage(2 * i, [set(256, flow(1, 1), flow(1, 1))]), `192.0.2.${2 + (i % 20)}`);
    expect(decoder.counters.waitingBytes).toBeLessThanOrEqual(1_000);
    decoder.expire(Number.POSITIVE_INFINITY);
    expect(decoder.counters).toMatchObject({ waitingBytes: 0, waitingSets: 0, undecodableSets: 200 });
    const reports = decoder.takeReports();
    expect(reports.reduce((sum, report) => sum + report.undecodable_datagrams, 0)).toBe(200);
  });
});
