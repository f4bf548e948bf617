import { describe, expect, test } from '@jest/globals';
import { Decoder, defaultDecoderLimits } from '../../../core/wire/decoder.ts';
import { SyntheticExporter } from '../../../core/wire/synthetic-exporter.ts';
import { decoding, exportSeconds, fieldSpecifier, ipfixMessage, netflow9Datagram, octets, set, templateRecord } from './decoding.ts';

type Parts = readonly (readonly [value: number, octets: number])[];

/** An options record: its fields, how many of them are scopes, and what it says. */
interface Options {
  readonly fields: readonly (readonly number[])[];
  readonly scopes: number;
  readonly record: Buffer;
}

const says = (fields: readonly (readonly number[])[], values: readonly number[], scopes = 1): Options => ({
  fields,
  scopes,
  record: octets(...fields.map(([, length], i) => [values[i]!, length!] as const)),
});

/** The rate of one flow after these options, in IPFIX. */
function rate(options: readonly Options[], flowFields: readonly (readonly number[])[], ...values: number[]): number {
  const { take, nars } = decoding();
  options.forEach(({ fields, scopes, record }, i) => {
    const id = 300 + i;
    const template = Buffer.concat([octets([id, 2], [fields.length, 2], [scopes, 2]), ...fields.map(fieldSpecifier)]);
    take(ipfixMessage(i, [set(3, template), set(id, record)]));
  });
  take(
    ipfixMessage(options.length, [
      set(2, templateRecord(256, flowFields)),
      set(256, octets(...(flowFields.map(([, length], i) => [values[i]!, length!]) as Parts))),
    ]),
  );
  expect(nars).toHaveLength(1);
  return nars[0]!.sampling_rate;
}

const domain = [149, 4];
const interval34 = [34, 4];
const interval50 = [50, 4];

describe('a rate in options', () => {
  test('is told as an interval, as interval and space, as size and population, or as a probability', () => {
    const flow = (options: Options) => rate([options], [[1, 4]], 1);
    expect(flow(says([domain, interval34], [1, 512]))).toBe(512);
    expect(flow(says([domain, interval50], [1, 512]))).toBe(512);
    expect(flow(says([domain, [305, 4], [306, 4]], [1, 1, 999]))).toBe(1000);
    expect(flow(says([domain, [306, 4], [305, 4]], [1, 99_990, 10]))).toBe(10_000);
    expect(flow(says([domain, [309, 4], [310, 4]], [1, 2, 200]))).toBe(100);
    const probability = Buffer.alloc(8);
    probability.writeDoubleBE(0.001);
    expect(flow({ fields: [domain, [311, 8]], scopes: 1, record: Buffer.concat([octets([1, 4]), probability]) })).toBe(1000);
    for (const nonsense of [0, -1, 2, Number.NaN, Number.POSITIVE_INFINITY]) {
      probability.writeDoubleBE(nonsense);
      expect(flow({ fields: [domain, [311, 8]], scopes: 1, record: Buffer.concat([octets([1, 4]), probability]) })).toBe(0);
    }
    expect(flow(says([domain, [309, 4], [310, 4]], [1, 0, 200]))).toBe(0);
    expect(flow(says([domain, [305, 4], [306, 8]], [1, 1, 2 ** 53]))).toBe(0xffff_ffff);
    // It says that all packets are seen, which is not the same as saying nothing.
    expect(flow(says([domain, interval34], [1, 1]))).toBe(1);
  });

  test('is that of the sampler that the flow names, of which there may be several', () => {
    const two = [says([domain, [48, 1], interval50], [1, 1, 100]), says([domain, [48, 1], interval50], [1, 2, 2000])];
    expect(rate(two, [[48, 1]], 1)).toBe(100);
    expect(rate(two, [[48, 1]], 2)).toBe(2000);
    expect(rate(two, [[48, 1]], 3)).toBe(0);
    expect(rate(two, [[1, 4]], 1)).toBe(0);
    const selector = [
      says(
        [
          [302, 8],
          [305, 4],
          [306, 4],
        ],
        [2 ** 40 + 9, 1, 999],
      ),
    ];
    expect(rate(selector, [[302, 8]], 2 ** 40 + 9)).toBe(1000);
    expect(rate(selector, [[302, 4]], 8)).toBe(0);
  });

  test('is that of the interface at which the flow was seen', () => {
    const options = [says([[10, 4], interval34], [7, 64]), says([[14, 4], interval34], [8, 128])];
    const fields = [
      [10, 4],
      [14, 4],
      [61, 1],
    ];
    expect(rate(options, fields, 7, 9, 0)).toBe(64);
    expect(rate(options, fields, 9, 8, 1)).toBe(128);
    expect(rate(options, fields, 9, 7, 0)).toBe(0);
    expect(rate(options, [[10, 4]], 7)).toBe(64);
  });

  test('of line cards is that of the device where all say the same', () => {
    const card = (id: number, oneIn: number) => says([[141, 4], interval34], [id, oneIn]);
    expect(rate([card(1, 100), card(2, 100)], [[1, 4]], 1)).toBe(100);
    expect(rate([card(1, 100), card(2, 200)], [[1, 4]], 1)).toBe(0);
    expect(rate([card(1, 100), card(2, 200), card(2, 100)], [[1, 4]], 1)).toBe(100);
    expect(rate([card(1, 100), card(2, 200), says([domain, interval34], [1, 50])], [[1, 4]], 1)).toBe(50);
  });

  test('of one template alone is not taken for that of all', () => {
    expect(rate([says([[145, 2], interval34], [256, 100])], [[1, 4]], 1)).toBe(0);
  });

  test('counts after the flow itself, sampler before interface before device', () => {
    const device = says([domain, interval34], [1, 1000]);
    const ofInterface = says([[10, 4], interval34], [7, 64]);
    const ofSampler = says([domain, [48, 1], interval50], [1, 3, 100]);
    const all = [ofSampler, ofInterface, device];
    expect(rate(all, [[48, 1], [10, 4], interval34], 3, 7, 10)).toBe(10);
    expect(rate(all, [[48, 1], [10, 4], interval34], 3, 7, 0)).toBe(100);
    expect(
      rate(
        all,
        [
          [48, 1],
          [10, 4],
          [305, 4],
          [306, 4],
        ],
        3,
        7,
        1,
        19,
      ),
    ).toBe(20);
    expect(
      rate(
        all,
        [
          [48, 1],
          [10, 4],
          [309, 4],
          [310, 4],
        ],
        3,
        7,
        1,
        30,
      ),
    ).toBe(30);
    expect(
      rate(
        all,
        [
          [48, 1],
          [10, 4],
        ],
        3,
        7,
      ),
    ).toBe(100);
    expect(
      rate(
        all,
        [
          [48, 1],
          [10, 4],
        ],
        4,
        7,
      ),
    ).toBe(64);
    expect(
      rate(
        all,
        [
          [48, 1],
          [10, 4],
        ],
        4,
        8,
      ),
    ).toBe(1000);
  });

  test('of NetFlow v9 has scopes of its own', () => {
    const v9 = (scope: number, value: number, inIf: number) => {
      const { take, nars } = decoding();
      const template = Buffer.concat([octets([300, 2], [4, 2], [4, 2], [scope, 2], [4, 2]), fieldSpecifier(interval34)]);
      take(netflow9Datagram(0, [set(1, template), set(300, octets([value, 4], [256, 4]))]));
      take(netflow9Datagram(1, [set(0, templateRecord(256, [[10, 4]])), set(256, octets([inIf, 4]))]));
      return nars[0]!.sampling_rate;
    };
    expect(v9(1, 10, 3)).toBe(256);
    expect(v9(2, 3, 3)).toBe(256);
    expect(v9(2, 3, 4)).toBe(0);
    // "Interface 0" is no interface.
    expect(v9(2, 0, 4)).toBe(256);
    expect(v9(3, 1, 4)).toBe(256);
    expect(v9(4, 1, 4)).toBe(0);
    expect(v9(5, 256, 4)).toBe(0);
  });
});

describe('a configured rate', () => {
  function rates(...datagrams: Buffer[]): number[] {
    const given: number[] = [];
    const decoder = new Decoder(defaultDecoderLimits, null, (address) => (address === '192.0.2.1' ? 77 : 0));
    for (const datagram of datagrams) decoder.decode(datagram, '192.0.2.1', exportSeconds * 1000, (nar) => given.push(nar.sampling_rate));
    for (const datagram of datagrams) decoder.decode(datagram, '192.0.2.2', exportSeconds * 1000, (nar) => given.push(nar.sampling_rate));
    return given;
  }

  test('stands in for what an exporter does not say, in any protocol', () => {
    const flow = ipfixMessage(0, [set(2, templateRecord(256, [[1, 4]])), set(256, octets([1, 4]))]);
    expect(rates(flow)).toEqual([77, 0]);
    const synthetic = (samplingRate: number) => new SyntheticExporter({ protocol: 'v5', seed: 1, keys: 1, samplingRate }).next(0, 1);
    expect(rates(synthetic(0))).toEqual([77, 0]);
    expect(rates(synthetic(10))).toEqual([10, 10]);
  });

  test('comes after all that the exporter says', () => {
    const options = Buffer.concat([octets([300, 2], [2, 2], [1, 2]), fieldSpecifier(domain), fieldSpecifier(interval34)]);
    const template = set(2, templateRecord(256, [[1, 4]]));
    expect(rates(ipfixMessage(0, [set(3, options), set(300, octets([1, 4], [512, 4])), template, set(256, octets([1, 4]))]))).toEqual([512, 512]);
    expect(rates(ipfixMessage(0, [set(2, templateRecord(256, [interval34])), set(256, octets([9, 4]))]))).toEqual([9, 9]);
  });
});
