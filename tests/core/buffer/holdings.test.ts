import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type Holding, Holdings } from '../../../core/buffer/holdings.ts';
import { Stream } from '../../../core/buffer/stream.ts';

const streamOf = (partition: number) => new Stream({ incarnation: 'i', partition, last: 0, volatile: false, inStore: true, own: true });
const of = (exporter: number, nars: number): Holding => ({
  sampler_address: `192.0.2.${exporter}`,
  observation_domain_id: 0,
  protocol: 'netflow_v5',
  nars,
});
const named = (holdings: Holdings) => new Map(holdings.largest(1000).map(({ sampler_address, nars }) => [sampler_address, nars]));

describe('holdings', () => {
  test('are the sum over the batches of all streams, largest first, and go with them', () => {
    const holdings = new Holdings();
    const [one, other] = [streamOf(0), streamOf(1)];
    holdings.add(one, 1, [of(1, 5), of(2, 7)]);
    holdings.add(one, 2, [of(1, 1), of(3, 0)]);
    holdings.add(other, 1, [of(1, 3)]);
    expect(holdings.largest(10)).toEqual([of(1, 9), of(2, 7)]);
    expect(holdings.largest(1)).toEqual([of(1, 9)]);
    holdings.trim(one, 1);
    expect(holdings.largest(10)).toEqual([of(1, 4)]);
    holdings.trim(one, 2);
    holdings.trim(other, 1);
    expect(holdings.largest(10)).toEqual([]);
  });

  test('tell an exporter from another of the same address', () => {
    const holdings = new Holdings();
    holdings.add(streamOf(0), 1, [of(1, 5), { ...of(1, 6), observation_domain_id: 3 }, { ...of(1, 7), protocol: 'ipfix' }]);
    expect(holdings.largest(10).map(({ nars }) => nars)).toEqual([7, 6, 5]);
  });

  test('share their counts when there would be too many, and are exact until a part of what is shared is trimmed', () => {
    const holdings = new Holdings(4);
    const stream = streamOf(0);
    for (let sequence = 1; sequence <= 100; sequence++) holdings.add(stream, sequence, [of(1, 1), of(2, 2)]);
    expect(holdings.largest(10)).toEqual([of(2, 200), of(1, 100)]);
    holdings.trim(stream, 1);
    expect((named(holdings).get('192.0.2.1') ?? 0) < 100).toBe(true);
    holdings.trim(stream, 100);
    expect(holdings.largest(10)).toEqual([]);
  });

  test('of more exporters than there are counts lose names, never gain one', () => {
    const holdings = new Holdings(8);
    for (let partition = 0; partition < 20; partition++) holdings.add(streamOf(partition), 1, [of(2 * partition, 1), of(2 * partition + 1, 1)]);
    expect(holdings.largest(1000).length).toBeLessThanOrEqual(8);
    expect(named(holdings).has('192.0.2.39')).toBe(true);
  });

  const step = fc.oneof(
    fc.record({ add: fc.nat(2), nars: fc.array(fc.tuple(fc.nat(5), fc.integer({ min: 0, max: 9 })), { maxLength: 4 }) }),
    fc.record({ trim: fc.nat(2), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  );
  test.each([
    ['with room for all counts they are exact', 1e6],
    ['with little room none is more than what is held, and nothing is left at the end', 12],
  ])('%s', (_case, countsMax) => {
    const walk = (steps: readonly ({ add: number; nars: [number, number][] } | { trim: number; share: number })[]) => {
      const holdings = new Holdings(countsMax);
      const streams = [streamOf(0), streamOf(1), streamOf(2)];
      const batches: { sequence: number; nars: [number, number][] }[][] = [[], [], []];
      const lasts = [0, 0, 0];
      for (const one of steps) {
        if ('add' in one) {
          const sequence = ++lasts[one.add]!;
          batches[one.add]!.push({ sequence, nars: one.nars });
          holdings.add(
            streams[one.add]!,
            sequence,
            one.nars.map(([exporter, nars]) => of(exporter, nars)),
          );
        } else {
          const through = Math.floor(one.share * lasts[one.trim]!);
          batches[one.trim] = batches[one.trim]!.filter(({ sequence }) => sequence > through);
          holdings.trim(streams[one.trim]!, through);
        }
        const held = new Map<string, number>();
        for (const [exporter, nars] of batches.flat().flatMap((batch) => batch.nars)) {
          if (nars > 0) held.set(`192.0.2.${exporter}`, (held.get(`192.0.2.${exporter}`) ?? 0) + nars);
        }
        const found = named(holdings);
        if (countsMax > 1000) expect(found).toEqual(held);
        for (const [exporter, nars] of found) expect(nars > 0 && nars <= (held.get(exporter) ?? 0)).toBe(true);
      }
      for (const [partition, stream] of streams.entries()) holdings.trim(stream, lasts[partition]!);
      expect(holdings.largest(1000)).toEqual([]);
    };
    fc.assert(fc.property(fc.array(step, { maxLength: 60 }), walk));
  });
});
