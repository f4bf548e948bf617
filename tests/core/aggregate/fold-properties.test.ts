/** Properties of the fold over arbitrary logs: restarts change nothing, everything adds up, and an independent accounting agrees. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { sha256 } from '../../../adapters/digest.ts';
import { Fold } from '../../../core/aggregate/fold.ts';
import { encodeForChain, outputBlockCodec } from '../../../schemas/codec.ts';
import { adminCollector } from '../../../schemas/topics.ts';
import type { FoldConfig, Nar, NarBatch } from '../../../schemas/types.ts';
import {
  batch,
  beginning,
  type Entry,
  type Folded,
  foldOf,
  groupOf,
  loss,
  minute,
  nar,
  records,
  report,
  second,
  standard,
  t0,
} from './log-of-batches.ts';

const someNar: fc.Arbitrary<Nar> = fc
  .record({
    exporter: fc.integer({ min: 0, max: 1 }),
    source: fc.integer({ min: 0, max: 3 }),
    destination: fc.integer({ min: 0, max: 3 }),
    bytes: fc.oneof(fc.integer({ min: 0, max: 100_000 }), fc.integer({ min: 2 ** 51, max: 2 ** 53 - 2 })),
    packets: fc.integer({ min: 0, max: 1000 }),
    rate: fc.constantFrom(0, 1, 1000),
    endMs: fc.integer({ min: -3 * minute, max: 8 * minute }),
    durationMs: fc.integer({ min: 0, max: 4 * minute }),
    receivedMs: fc.integer({ min: 0, max: 6 * minute }),
    long: fc.boolean(),
  })
  .map(({ exporter, source, destination, bytes, packets, rate, endMs, durationMs, receivedMs, long }) =>
    nar({
      exporter,
      src_addr: long ? Buffer.from(`20010db8${'00'.repeat(11)}0${source}`, 'hex') : Buffer.from([10, source, 0, 1]),
      dst_addr: Buffer.from([10, destination, 0, 2]),
      bytes,
      packets,
      sampling_rate: rate,
      time_flow_start_ms: t0 + endMs - durationMs,
      time_flow_end_ms: t0 + endMs,
      time_received_ms: t0 + receivedMs,
    }),
  );

interface Draft {
  readonly nars: Nar[];
  readonly stepMs: number;
  readonly goodbye: boolean;
  readonly volatile: boolean;
  readonly lost: boolean;
  readonly rejected: number;
}

const someDraft: fc.Arbitrary<Draft> = fc.record({
  nars: fc.array(someNar, { maxLength: 6 }),
  stepMs: fc.integer({ min: 0, max: 90 * second }),
  goodbye: fc.boolean(),
  volatile: fc.boolean(),
  lost: fc.boolean(),
  rejected: fc.integer({ min: 0, max: 2 }),
});

/** Each collector's batches in order of their sequence. */
const someStreams = fc.array(fc.array(someDraft, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 3 });

function streamsOf(drafts: readonly (readonly Draft[])[]): NarBatch[][] {
  return drafts.map((stream, collector) => {
    let watermarkMs = t0;
    return stream.map((draft, index) => {
      watermarkMs += draft.stepMs;
      return batch({
        collector: `c${collector}`,
        incarnation: draft.volatile && collector === 2 ? 'memory' : 'disk',
        sequence: index + 1,
        watermark_ms: watermarkMs,
        volatile: collector === 2,
        goodbye: draft.goodbye && index === stream.length - 1,
        nars: draft.nars,
        exporters: [0, 1].map((exporter) => report(draft.nars, exporter, { rejected_flows: draft.rejected, lost_on_wire_flows: draft.rejected })),
        losses: draft.lost ? [loss()] : [],
      });
    });
  });
}

const someConfig: fc.Arbitrary<FoldConfig> = fc
  .record({ spread: fc.boolean(), window: fc.constantFrom(10 * second, minute) })
  .map(({ spread, window }) => ({
    ...standard,
    spread,
    window_ms: window,
  }));

/** A log with duplicates, gaps and nonsense in it, and a change of the configuration. */
const someLog: fc.Arbitrary<Entry[]> = fc
  .record({
    drafts: someStreams,
    order: fc.array(fc.nat({ max: 2 }), { maxLength: 40 }),
    noise: fc.array(fc.nat({ max: 9 }), { maxLength: 40 }),
    config: someConfig,
    switchAt: fc.nat({ max: 20 }),
  })
  .map(({ drafts, order, noise, config, switchAt }) => {
    const streams = streamsOf(drafts);
    const entries: Entry[] = [beginning(config)];
    const next = streams.map(() => 0);
    for (const [index, pick] of order.entries()) {
      const collector = pick % streams.length;
      const stream = streams[collector]!;
      const entry = stream[next[collector]!];
      const noisy = noise[index] ?? 9;
      if (noisy === 0) entries.push(stream[Math.max(0, next[collector]! - 1)]!);
      else if (noisy === 1) entries.push(stream.at(-1)!);
      else if (noisy === 2) entries.push({ value: Buffer.from('nonsense') });
      else if (entry) {
        entries.push(entry);
        next[collector]!++;
      }
      const changed = { ...config, version: 2, window_ms: 20 * second, group_by: ['dst_addr', 'src_account'], lateness_ms: 0 };
      if (index === switchAt) entries.push(batch({ collector: adminCollector, incarnation: 'v2', fold_config: changed }));
    }
    return entries;
  });

const bytesOf = ({ blocks }: Folded) => Buffer.concat(blocks.map((block) => outputBlockCodec.encode(block)));

/** DESIGN 3.7, over all outputs up to each close. */
function expectBalanced({ outputs }: Folded): void {
  const zero = () => ({ flows: 0, bytes: 0n, packets: 0n });
  const rest = zero();
  const given = { usage: zero(), adjustment: zero(), usageCount: 0, adjustmentCount: 0 };
  for (const { aggregate, window_close: close } of outputs) {
    if (aggregate) {
      const sum = given[aggregate.kind as 'usage'];
      sum.flows += aggregate.flows;
      sum.bytes += aggregate.bytes;
      sum.packets += aggregate.packets;
      given[`${aggregate.kind as 'usage'}Count`]++;
    }
    if (!close) continue;
    expect([close.usage_aggregates, close.usage_flows, close.usage_bytes]).toEqual([given.usageCount, given.usage.flows, given.usage.bytes]);
    expect([close.adjustment_aggregates, close.adjustment_flows]).toEqual([given.adjustmentCount, given.adjustment.flows]);
    const aggregated = close.exporters.reduce((sum, entry) => sum + entry.aggregated_bytes, 0n);
    const late = close.exporters.reduce((sum, entry) => sum + entry.late_packets, 0n);
    expect([aggregated, late]).toEqual([close.usage_bytes, close.adjustment_packets]);
    Object.assign(given, { usage: zero(), adjustment: zero(), usageCount: 0, adjustmentCount: 0 });
    for (const entry of close.exporters) {
      rest.flows += entry.decoded_flows - entry.aggregated_flows - entry.late_flows - entry.rejected_flows - entry.lost_flows;
      rest.bytes += entry.decoded_bytes - entry.aggregated_bytes - entry.late_bytes - entry.rejected_bytes - entry.lost_bytes;
      rest.packets += entry.decoded_packets - entry.aggregated_packets - entry.late_packets - entry.rejected_packets - entry.lost_packets;
    }
    expect(rest).toEqual({ flows: close.open_flows, bytes: close.open_bytes, packets: close.open_packets });
  }
}

/** Ends a log so that every window closes: all say goodbye but one whose clock goes on. */
function ended(entries: readonly Entry[]): Entry[] {
  const last = batch({ collector: 'last', watermark_ms: t0 + 30 * minute });
  return [...entries, last, batch({ collector: 'last', sequence: 2, watermark_ms: t0 + 60 * minute })];
}

describe('the fold of any log', () => {
  test('has the same outputs and the same state wherever it was restarted from its state', () => {
    fc.assert(
      fc.property(someLog, fc.array(fc.nat({ max: 45 }), { maxLength: 4 }), (entries, restarts) => {
        const whole = foldOf(entries);
        let fold = new Fold(0, sha256);
        const blocks: Buffer[] = [];
        for (const [index, record] of records(entries).entries()) {
          if (restarts.includes(index)) fold = Fold.restore(fold.serialise(), sha256);
          blocks.push(...fold.step(record).blocks.map((block) => outputBlockCodec.encode(block)));
        }
        expect(Buffer.concat(blocks).equals(bytesOf(whole))).toBe(true);
        expect(Buffer.compare(fold.chain, whole.fold.chain)).toBe(0);
        expect(fold.serialise().equals(whole.fold.serialise())).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test('has a state that is the same after it was written and read', () => {
    fc.assert(
      fc.property(someLog, (entries) => {
        const bytes = foldOf(entries).fold.serialise();
        expect(Fold.restore(bytes, sha256).serialise().equals(bytes)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  test('balances at each WindowClose, and in the end nothing is open', () => {
    fc.assert(
      fc.property(someLog, (entries) => {
        const folded = foldOf(ended(entries));
        expectBalanced(folded);
        expect(folded.fold.openFlows).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  test('numbers its outputs without a gap, and chains them', () => {
    fc.assert(
      fc.property(someLog, (entries) => {
        let previous: Uint8Array = Buffer.alloc(16);
        for (const [index, output] of foldOf(ended(entries)).outputs.entries()) {
          expect(output.n).toBe(index + 1);
          const expected = sha256(encodeForChain(output, previous)).subarray(0, 16);
          expect(expected.equals(Buffer.from(output.chain))).toBe(true);
          previous = output.chain;
        }
      }),
      { numRuns: 50 },
    );
  });

  test('never lets the watermark go back, and keeps the order of its closes', () => {
    fc.assert(
      fc.property(someLog, (entries) => {
        const fold = new Fold(0, sha256);
        let highest = Number.NEGATIVE_INFINITY;
        let closedMs = Number.NEGATIVE_INFINITY;
        for (const record of records(entries)) {
          const { blocks } = fold.step(record);
          expect(fold.watermarkMs ?? Number.NEGATIVE_INFINITY).toBeGreaterThanOrEqual(highest);
          highest = fold.watermarkMs ?? highest;
          for (const { window_close: close } of blocks.flatMap(({ outputs }) => outputs)) {
            if (!close) continue;
            expect(close.window_end_ms).toBeGreaterThanOrEqual(closedMs);
            expect(close.window_end_ms).toBeLessThanOrEqual(highest);
            closedMs = close.window_end_ms;
          }
        }
      }),
      { numRuns: 50 },
    );
  });

  test('gives out what a naive accounting of the accepted batches gives, per group', () => {
    fc.assert(
      fc.property(someStreams, someConfig, (drafts, config) => {
        const streams = streamsOf(drafts);
        const folded = foldOf(ended([beginning(config), ...streams.flat()]));
        expect(sums(folded)).toEqual(naive(streams.flat()));
      }),
      { numRuns: 60 },
    );
  });

  test('conserves the totals in whichever order the collectors come', () => {
    fc.assert(
      fc.property(someStreams, someConfig, fc.array(fc.nat({ max: 2 }), { minLength: 30, maxLength: 30 }), (drafts, config, picks) => {
        const streams = streamsOf(drafts);
        const left = streams.map((stream) => [...stream]);
        const mixed: NarBatch[] = [];
        for (const pick of picks) {
          const next = left[pick % left.length]!.shift();
          if (next) mixed.push(next);
        }
        mixed.push(...left.flat());
        expect(sums(foldOf(ended([beginning(config), ...mixed])))).toEqual(sums(foldOf(ended([beginning(config), ...streams.flat()]))));
      }),
      { numRuns: 50 },
    );
  });
});

type Sums = Record<string, { flows: number; bytes: bigint; packets: bigint; scaled: bigint }>;

/** Usage and adjustments together, per group, over all windows. */
function sums({ aggregates }: Folded): Sums {
  const result: Sums = {};
  for (const aggregate of aggregates) {
    result[groupOf(aggregate)] ??= { flows: 0, bytes: 0n, packets: 0n, scaled: 0n };
    const sum = result[groupOf(aggregate)]!;
    sum.flows += aggregate.flows;
    sum.bytes += aggregate.bytes;
    sum.packets += aggregate.packets;
    sum.scaled += aggregate.scaled_bytes;
  }
  return result;
}

/** Shares no code with core. */
function naive(batches: readonly NarBatch[]): Sums {
  const last: Record<string, number> = {};
  const result: Sums = {};
  for (const { collector, incarnation, sequence, nars } of batches) {
    const stream = `${collector} ${incarnation}`;
    if (sequence !== (last[stream] ?? 0) + 1) continue;
    last[stream] = sequence;
    for (const { src_addr, dst_addr, bytes, packets, sampling_rate } of nars) {
      const account = (address: Uint8Array) => (address.length === 16 ? 'gamma' : address[1] === 1 ? 'beta' : 'acme');
      const key = `${account(src_addr)}>${account(dst_addr)}`;
      result[key] ??= { flows: 0, bytes: 0n, packets: 0n, scaled: 0n };
      const sum = result[key]!;
      const product = BigInt(bytes) * BigInt(sampling_rate);
      sum.flows++;
      sum.bytes += BigInt(bytes);
      sum.packets += BigInt(packets);
      sum.scaled += sampling_rate > 0 && product < 2n ** 53n ? product : BigInt(bytes);
    }
  }
  return result;
}
