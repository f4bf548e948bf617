import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { SyntheticExporter } from '../../../core/wire/synthetic-exporter.ts';
import { decoding } from './decoding.ts';

const protocols = ['v5', 'v9', 'ipfix'] as const;

describe.each(protocols)('a synthetic %s exporter', (protocol) => {
  test('is decoded to its own totals, with nothing lost', () => {
    fc.assert(
      fc.property(
        fc.record({ seed: fc.integer(), keys: fc.integer({ min: 1, max: 50 }), samplingRate: fc.constantFrom(0, 1, 1000) }),
        fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 20 }),
        (options, sizes) => {
          const exporter = new SyntheticExporter({ protocol, ...options, templateEvery: 5 });
          const { take, nars, report, decoder } = decoding();
          sizes.forEach((flows, i) => {
            take(exporter.next(1_700_000_000_123 + 40 * i, flows));
          });
          const total = (of: (nar: (typeof nars)[number]) => number) => nars.reduce((sum, nar) => sum + of(nar), 0);
          expect({ flows: nars.length, bytes: total((nar) => nar.bytes), packets: total((nar) => nar.packets) }).toEqual({
            flows: exporter.totals.flows,
            bytes: exporter.totals.bytes,
            packets: exporter.totals.packets,
          });
          expect(nars.every((nar) => nar.sampling_rate === options.samplingRate)).toBe(true);
          expect(report()).toMatchObject({
            received_datagrams: sizes.length,
            lost_on_wire_flows: 0,
            lost_on_wire_datagrams: 0,
            undecodable_datagrams: 0,
          });
          expect(decoder.counters.malformedSets + decoder.counters.exporterRestarts).toBe(0);
        },
      ),
      { numRuns: 50 },
    );
  });

  test('gives the same flows for the same seed, whenever it runs', () => {
    const flows = (nowMs: number, seed: number) => {
      const exporter = new SyntheticExporter({ protocol, seed, keys: 10 });
      const { take, nars } = decoding();
      for (let i = 0; i < 3; i++) take(exporter.next(nowMs, 10));
      return nars.map(({ time_flow_start_ms, time_flow_end_ms, ...rest }) => ({ ...rest, age: nowMs - time_flow_end_ms }));
    };
    expect(flows(1_700_000_000_000, 7)).toEqual(flows(1_800_000_000_000, 7));
    expect(flows(1_700_000_000_000, 7)).not.toEqual(flows(1_700_000_000_000, 8));
  });

  test('sends flows of the last second, none longer than five', () => {
    const nowMs = 1_700_000_000_456;
    const exporter = new SyntheticExporter({ protocol, seed: 1, keys: 10 });
    const { take, nars } = decoding();
    take(exporter.next(nowMs, 20));
    for (const nar of nars) {
      expect(nowMs - nar.time_flow_end_ms).toBeGreaterThanOrEqual(0);
      expect(nowMs - nar.time_flow_end_ms).toBeLessThan(1000);
      expect(nar.time_flow_end_ms - nar.time_flow_start_ms).toBeGreaterThanOrEqual(0);
      expect(nar.time_flow_end_ms - nar.time_flow_start_ms).toBeLessThan(5000);
    }
  });

  test('never makes a datagram that an Ethernet frame does not hold', () => {
    const exporter = new SyntheticExporter({ protocol, seed: 1, keys: 10, samplingRate: 100 });
    for (let i = 0; i < 3; i++) expect(exporter.next(1_700_000_000_000, 1000).length).toBeLessThanOrEqual(1472);
  });

  test('shows the exact loss where datagrams are missing', () => {
    const exporter = new SyntheticExporter({ protocol, seed: 1, keys: 10 });
    const { take, report } = decoding();
    const datagrams = Array.from({ length: 10 }, (_, i) => exporter.next(1_700_000_000_000 + i, 4));
    datagrams
      .filter((_, i) => i !== 3 && i !== 4)
      .forEach((datagram) => {
        take(datagram);
      });
    const lost = protocol === 'v9' ? { lost_on_wire_datagrams: 2, lost_on_wire_flows: 0 } : { lost_on_wire_datagrams: 0, lost_on_wire_flows: 8 };
    expect(report()).toMatchObject({ received_datagrams: 8, ...lost });
  });
});
