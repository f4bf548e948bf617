import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../adapters/digest.ts';
import { Fold, SnapshotNeeded } from '../../../core/aggregate/fold.ts';
import { UnknownFoldVersion } from '../../../core/aggregate/settings.ts';
import { narBatchCodec, UnknownSchema } from '../../../schemas/codec.ts';
import { adminCollector, messageBytesMax } from '../../../schemas/topics.ts';
import type { NarBatch } from '../../../schemas/types.ts';
import { batch, beginning, foldOf, groupOf, loss, minute, nar, records, report, second, standard, t0, tick } from './log-of-batches.ts';

const outcomes = (folded: ReturnType<typeof foldOf>) => folded.steps.map(({ outcome }) => outcome);

describe('what is folded of a log', () => {
  test('nothing before the first base entry, and nothing of it is known (G7)', () => {
    const folded = foldOf([tick(1, t0), beginning(), tick(2, t0), tick(1, t0), tick(2, t0)]);
    expect(outcomes(folded)).toEqual(['before_base', 'accepted', 'gap', 'accepted', 'accepted']);
    expect(folded.fold.sequences('c1')).toEqual([{ incarnation: 'i1', sequence: 2 }]);
  });

  test('nothing between the base and the first configuration', () => {
    const base = batch({ collector: adminCollector, base: { snapshot: null } });
    const config = batch({ collector: adminCollector, sequence: 2, fold_config: standard });
    const folded = foldOf([base, tick(1, t0), config, tick(1, t0)]);
    expect(outcomes(folded)).toEqual(['accepted', 'before_base', 'accepted', 'accepted']);
    expect(folded.fold.hasBase).toBe(true);
  });

  test('a later base entry is accepted and changes nothing', () => {
    const again = batch({ collector: adminCollector, incarnation: 'v2', base: { snapshot: null } });
    const folded = foldOf([beginning(), tick(1, t0), again]);
    expect(outcomes(folded)).toEqual(['accepted', 'accepted', 'accepted']);
    expect(folded.fold.sequences('c1')).toEqual([{ incarnation: 'i1', sequence: 1 }]);
  });

  describe('of a log that replaced another one', () => {
    const former = foldOf([
      beginning(),
      tick(1, t0),
      batch({ sequence: 2, watermark_ms: t0 + 5 * minute, nars: [nar()] }),
      tick(3, t0 + 6 * minute),
    ]).fold;
    const snapshot = { replica: 'a', topic_id: 'former', offset: former.nextOffset, n: former.n, chain: former.chain };
    const base = batch({ collector: adminCollector, incarnation: 'v2', base: { snapshot }, fold_config: standard });
    const record = (entry: NarBatch, offset: number) => ({ offset, appendedMs: t0 + 10 * minute, value: narBatchCodec.encode(entry) });

    test('n and chain go on, incarnations and windows are kept, offsets begin anew', () => {
      expect(former.n).toBeGreaterThan(0);
      const fold = Fold.onBase(record(base, 7), former.serialise(), sha256);
      expect(fold).toMatchObject({
        n: former.n,
        nextOffset: 8,
        hasBase: true,
        configVersion: 1,
        openFlows: former.openFlows,
        watermarkMs: former.watermarkMs,
      });
      expect(fold.chain).toEqual(former.chain);
      expect(fold.sequences('c1')).toEqual(former.sequences('c1'));
      expect(fold.sequences(adminCollector)).toContainEqual({ incarnation: 'v2', sequence: 1 });
      expect(fold.step(record(tick(3, t0), 8)).outcome).toBe('duplicate');
      expect(fold.step(record(batch({ collector: adminCollector, incarnation: 'v3', base: { snapshot: null } }), 9)).outcome).toBe('accepted');
      const { outcome, blocks } = fold.step(record(tick(4, t0 + 9 * minute), 10));
      expect(outcome).toBe('accepted');
      expect(blocks[0]?.first_n).toBe(former.n + 1);
      expect(fold.counts.ignored_configs).toBe(0);
    });

    test('is the same in both replicas, also after another restart', () => {
      const one = Fold.onBase(record(base, 7), former.serialise(), sha256);
      const other = Fold.restore(Fold.onBase(record(base, 7), former.serialise(), sha256).serialise(), sha256);
      for (const fold of [one, other]) fold.step(record(tick(4, t0 + 9 * minute), 8));
      expect(one.serialise()).toEqual(other.serialise());
    });

    test.each([
      ['n', { n: 99 }],
      ['chain', { chain: Buffer.alloc(16, 1) }],
      ['offset', { offset: 99 }],
    ])('a state of another %s is not taken', (_name, change) => {
      const other = batch({ ...base, base: { snapshot: { ...snapshot, ...change } } });
      expect(() => Fold.onBase(record(other, 7), former.serialise(), sha256)).toThrow(SnapshotNeeded);
    });

    test('nothing but such a base is taken', () => {
      for (const entry of [tick(1, t0), beginning()]) expect(() => Fold.onBase(record(entry, 0), former.serialise(), sha256)).toThrow(RangeError);
      expect(Fold.baseIn(record(base, 0), 0)).toEqual({ snapshot });
      expect(Fold.baseIn(record(tick(1, t0), 0), 0)).toBeNull();
    });
  });

  test('a base that names a snapshot stops the replica', () => {
    const snapshot = { replica: 'a', topic_id: 'x', offset: 1, n: 1, chain: Buffer.alloc(16) };
    const base = batch({ collector: adminCollector, base: { snapshot }, fold_config: standard });
    expect(() => foldOf([base])).toThrow(SnapshotNeeded);
  });

  test('the next sequence is accepted, a lower one is a duplicate, a higher one a gap of which nothing is taken', () => {
    const late = batch({ sequence: 4, watermark_ms: t0 + 9 * minute, nars: [nar()] });
    const folded = foldOf([beginning(), tick(1, t0), tick(2, t0), tick(1, t0), late, tick(3, t0)]);
    expect(outcomes(folded)).toEqual(['accepted', 'accepted', 'accepted', 'duplicate', 'gap', 'accepted']);
    expect(folded.fold.openFlows).toBe(0);
    expect(folded.fold.watermarkMs).toBe(t0 - 10 * second);
  });

  test('a gap takes no configuration', () => {
    const config = { ...standard, version: 2 };
    const folded = foldOf([beginning(), batch({ collector: adminCollector, incarnation: 'v2', sequence: 2, fold_config: config })]);
    expect(folded.fold.configVersion).toBe(1);
  });

  test('a collector of which nothing was accepted is known, so that it can be told so (G1)', () => {
    const { fold } = foldOf([beginning(), tick(2, t0, { collector: 'c9' })]);
    expect(fold.collectors()).toEqual(['c9', adminCollector]);
    expect(fold.sequences('c9')).toEqual([]);
  });

  test('a tombstone stands for all sequences up to through; whichever of it and the originals comes first counts (F3)', () => {
    const tombstone = batch({ sequence: 2, through: 4, losses: [loss({ reason: 'released' })] });
    const before = foldOf([beginning(), tick(1, t0), tombstone, tick(2, t0), tick(4, t0), tick(5, t0)]);
    expect(outcomes(before)).toEqual(['accepted', 'accepted', 'accepted', 'duplicate', 'duplicate', 'accepted']);
    const after = foldOf([beginning(), tick(1, t0), tick(2, t0), tombstone, tick(3, t0)]);
    expect(outcomes(after)).toEqual(['accepted', 'accepted', 'accepted', 'duplicate', 'accepted']);
  });

  test('bytes that no schema can decode, and batches that contradict themselves, are rejected and counted (F16)', () => {
    const good = narBatchCodec.encode(tick(1, t0));
    const entries = [
      { value: null },
      { value: Buffer.from('nonsense') },
      { value: good.subarray(0, good.length - 3) },
      tick(1, t0, { partition: 7 }),
      tick(2, t0, { through: 1 }),
      batch({ nars: [nar()], exporters: [] }),
      batch({ nars: [nar({ bytes: -1 })] }),
    ];
    const { fold, steps } = foldOf([beginning(), ...entries, tick(1, t0)]);
    expect(steps.slice(1, -1).every(({ outcome }) => outcome === 'rejected')).toBe(true);
    expect(fold.counts).toMatchObject({ rejected: entries.length, accepted: 2 });
  });

  test('a schema that is not known stops the replica where it stands', () => {
    const unknown = Buffer.concat([Buffer.from([0, 0, 0, 1, 1]), Buffer.alloc(20)]);
    const fold = new Fold(0, sha256);
    const [first, second_] = records([beginning(), { value: unknown }]);
    fold.step(first!);
    const before = fold.serialise();
    expect(() => fold.step(second_!)).toThrow(UnknownSchema);
    expect(fold.serialise().equals(before)).toBe(true);
  });

  test.each([{ fold_version: 2 }, { sampling: 'guessed' }, { deduplication: 'all' }, { group_by: ['moon_phase'] }])(
    'a configuration that needs a newer release stops the replica where it stands: %o',
    (change) => {
      const fold = new Fold(0, sha256);
      const [first, next] = records([
        beginning(),
        batch({ collector: adminCollector, incarnation: 'v2', fold_config: { ...standard, version: 2, ...change } }),
      ]);
      fold.step(first!);
      const before = fold.serialise();
      expect(() => fold.step(next!)).toThrow(UnknownFoldVersion);
      expect(fold.serialise().equals(before)).toBe(true);
    },
  );

  test('a configuration counts only with the next version, and only if it can be folded with', () => {
    const config = (incarnation: string, change: object) =>
      batch({ collector: adminCollector, incarnation, fold_config: { ...standard, version: 2, ...change } });
    const { fold } = foldOf([
      beginning(),
      config('x', { version: 3, fold_version: 99 }),
      config('y', { window_ms: 7 * second }),
      config('z', { accounts: [{ prefix: '10.0.0.0/99', account: 'a' }] }),
      config('u', { version: 1 }),
    ]);
    expect(fold.configVersion).toBe(1);
    expect(fold.counts.ignored_configs).toBe(4);
  });

  test('a configuration of anyone but the administration is not one', () => {
    const { fold } = foldOf([beginning(), tick(1, t0, { fold_config: { ...standard, version: 2 } })]);
    expect(fold.configVersion).toBe(1);
  });

  test('a snapshot is due at log offsets that the configuration divides', () => {
    const { steps } = foldOf([beginning(), ...Array.from({ length: 11 }, (_, i) => tick(i + 1, t0))]);
    expect(steps.flatMap(({ snapshotDue }, offset) => (snapshotDue ? [offset + 1] : []))).toEqual([5, 10]);
  });
});

describe('the watermark', () => {
  const watermarks = (entries: Parameters<typeof foldOf>[0]) => {
    const fold = new Fold(0, sha256);
    return records(entries).map((record) => {
      fold.step(record);
      return fold.watermarkMs === null ? null : (fold.watermarkMs - t0) / second;
    });
  };

  test('is the lowest of the live collectors, less the lateness', () => {
    expect(watermarks([beginning(), tick(1, t0), tick(1, t0 - 5 * second, { collector: 'c2' }), tick(2, t0 + minute)])).toEqual([
      null,
      -10,
      -10,
      -10,
    ]);
    expect(
      watermarks([beginning(), tick(1, t0), tick(1, t0, { collector: 'c2' }), tick(2, t0 + minute), tick(2, t0 + 30_000, { collector: 'c2' })]),
    ).toEqual([null, -10, -10, -10, 20]);
  });

  test('never goes back, whoever returns with an older one', () => {
    const entries = [beginning(), tick(1, t0 + minute), tick(1, t0, { collector: 'c2' }), tick(2, t0 + 30 * second, { collector: 'c2' })];
    expect(watermarks(entries)).toEqual([null, 50, 50, 50]);
  });

  test('a clock that is ahead counts as the append time (F11)', () => {
    expect(watermarks([beginning(), { batch: tick(1, t0 + 999 * minute), appendedMs: t0 + 20 * second }])).toEqual([null, 10]);
  });

  test('does not wait for one that fell behind by more than the limit, and waits again when it has caught up', () => {
    const c2 = { collector: 'c2' };
    const entries = [beginning(), tick(1, t0), tick(1, t0, c2), tick(2, t0 + 3 * minute), tick(2, t0 + 2 * minute, c2), tick(3, t0 + 4 * minute)];
    expect(watermarks(entries)).toEqual([null, -10, -10, 170, 170, 170]);
  });

  test('two that died together do not hold each other live (F11)', () => {
    const entries = [beginning(), tick(1, t0), tick(1, t0, { collector: 'c2' }), tick(1, t0, { collector: 'c3' }), tick(2, t0 + 3 * minute)];
    expect(watermarks(entries).at(-1)).toBe(170);
  });

  test('one that said goodbye neither holds the watermark nor counts as the furthest (G10)', () => {
    const far = tick(1, t0 + 9 * minute, { collector: 'c2', goodbye: true });
    expect(watermarks([beginning(), tick(1, t0), far, tick(2, t0 + second)])).toEqual([null, -10, -10, -9]);
    expect(watermarks([beginning(), tick(1, t0), tick(2, t0, { goodbye: true }), tick(1, t0 + minute, { collector: 'c2' })]).at(-1)).toBe(50);
  });

  test('stays where nobody is live', () => {
    expect(watermarks([beginning(), tick(1, t0), tick(2, t0 + 9 * minute, { goodbye: true })])).toEqual([null, -10, -10]);
  });

  test('a batch after the goodbye takes it back', () => {
    expect(watermarks([beginning(), tick(1, t0, { goodbye: true }), tick(2, t0 + minute)])).toEqual([null, null, 50]);
  });

  test('the administration has none', () => {
    expect(foldOf([beginning()]).fold.watermarkMs).toBeNull();
  });
});

describe('windows', () => {
  const at = (ms: number, changes = {}) => nar({ time_flow_end_ms: t0 + ms, ...changes });
  const closing = (sequence: number, ms: number) => tick(sequence, t0 + ms + standard.lateness_ms);

  test('close when the watermark passes their end: usage in key order, then the close', () => {
    const beta = { src_addr: Buffer.from([10, 1, 2, 3]), dst_addr: Buffer.from([8, 8, 8, 8]) };
    const nars = [at(1), at(2, beta), at(3)];
    const { outputs, closes } = foldOf([beginning(), batch({ watermark_ms: t0 + 15 * second, nars }), closing(2, minute)]);
    expect(outputs.map(({ n, aggregate }) => [n, aggregate && groupOf(aggregate), aggregate?.flows, aggregate?.bytes])).toEqual([
      [1, 'acme>beta', 2, 200n],
      [2, 'beta>unassigned', 1, 100n],
      [3, null, undefined, undefined],
    ]);
    expect(closes[0]).toMatchObject({
      window_start_ms: t0,
      window_end_ms: t0 + minute,
      watermark_ms: t0 + minute,
      nars_offset: 2,
      usage_aggregates: 2,
      usage_flows: 3,
      usage_bytes: 300n,
      open_flows: 0,
      collectors: ['c1'],
    });
  });

  test('a run of windows without usage is closed by one close that spans it', () => {
    const { closes, aggregates } = foldOf([
      beginning(),
      batch({ watermark_ms: t0 + 15 * second, nars: [at(3 * minute, { time_received_ms: t0 + 3 * minute })] }),
      closing(2, 6 * minute),
    ]);
    expect(aggregates).toHaveLength(1);
    const spans = closes.map((close) => [close.window_start_ms - t0, close.window_end_ms - t0, close.usage_flows]);
    expect(spans).toEqual([
      [0, 3 * minute, 0],
      [3 * minute, 4 * minute, 1],
      [4 * minute, 6 * minute, 0],
    ]);
    expect(closes.map(({ open_flows }) => open_flows)).toEqual([1, 0, 0]);
  });

  test('what comes after its window has closed is an adjustment, given out at the next close', () => {
    const { aggregates, closes } = foldOf([
      beginning(),
      batch({ watermark_ms: t0 + 15 * second, nars: [at(1)] }),
      closing(2, minute),
      batch({ sequence: 3, watermark_ms: t0 + 75 * second, nars: [at(2), at(minute)] }),
      closing(4, 2 * minute),
    ]);
    expect(aggregates.map(({ kind, window_start_ms }) => [kind, window_start_ms - t0])).toEqual([
      ['usage', 0],
      ['adjustment', 0],
      ['usage', minute],
    ]);
    expect(closes[1]).toMatchObject({ adjustment_aggregates: 1, adjustment_flows: 1, usage_flows: 1, open_flows: 0 });
    expect(closes[1]!.exporters[0]).toMatchObject({ decoded_flows: 2, aggregated_flows: 1, late_flows: 1 });
  });

  test('times out of bounds around the reception are clamped and counted', () => {
    const far = nar({ time_flow_end_ms: t0 + 500 * minute, time_received_ms: t0 + 10 * second });
    const old = nar({ time_flow_end_ms: 5, time_received_ms: t0 + 61 * minute });
    const { aggregates, closes } = foldOf([beginning(), batch({ watermark_ms: t0 + 15 * second, nars: [far, old] }), closing(2, 3 * minute)]);
    expect(aggregates.map(({ window_start_ms, flows }) => [window_start_ms - t0, flows])).toEqual([[minute, 2]]);
    expect(closes.map(({ clamped_flows }) => clamped_flows)).toEqual([0, 2, 0]);
  });

  test('flows of a collector whose clock is ahead are in the windows of their own time, as far as the append time tells', () => {
    const flows = [at(1, { time_received_ms: t0 + 600 * minute }), nar({ time_flow_end_ms: t0 + 600 * minute, time_received_ms: t0 + 600 * minute })];
    const ahead = { batch: batch({ watermark_ms: t0 + 600 * minute, nars: flows }), appendedMs: t0 + 2 * second };
    const { aggregates, closes } = foldOf([beginning(), ahead, closing(2, 3 * minute)]);
    expect(aggregates.map(({ window_start_ms, flows: count }) => [window_start_ms - t0, count])).toEqual([
      [0, 1],
      [minute, 1],
    ]);
    expect(closes.map(({ clamped_flows, open_flows }) => [clamped_flows, Number(open_flows)])).toEqual(expect.arrayContaining([[1, 0]]));
  });

  test('flows that came before the first watermark are closed with their own windows', () => {
    const only = batch({ watermark_ms: t0, goodbye: true, nars: [at(0), at(-5 * minute)] });
    const { closes, aggregates } = foldOf([beginning(), only, tick(1, t0 + 3 * minute, { collector: 'c2' })]);
    expect(aggregates.map(({ kind, window_start_ms }) => [kind, window_start_ms - t0])).toEqual([
      ['usage', -5 * minute],
      ['usage', 0],
    ]);
    expect(closes.map(({ window_start_ms, window_end_ms }) => [window_start_ms - t0, window_end_ms - t0])).toEqual([
      [-5 * minute, -4 * minute],
      [-4 * minute, 0],
      [0, minute],
      [minute, 2 * minute],
    ]);
  });

  test('the scaled totals are corrected for sampling where the rate is known', () => {
    const nars = [at(1, { sampling_rate: 1000 }), at(2, { sampling_rate: 0 })];
    const { aggregates, closes } = foldOf([beginning(), batch({ watermark_ms: t0 + 15 * second, nars }), closing(2, minute)]);
    expect(aggregates[0]).toMatchObject({ bytes: 200n, packets: 4n, scaled_bytes: 100_100n, scaled_packets: 2002n });
    expect(closes[0]!.unsampled_flows).toBe(1);
    const raw = foldOf([beginning({ ...standard, sampling: 'raw' }), batch({ watermark_ms: t0 + 15 * second, nars }), closing(2, minute)]);
    expect(raw.aggregates[0]).toMatchObject({ scaled_bytes: 200n });
    expect(raw.closes[0]!.unsampled_flows).toBe(0);
  });

  test('sums beyond 2^53 are exact', () => {
    const most = 2 ** 53 - 2;
    const nars = Array.from({ length: 5 }, () => at(1, { bytes: most, packets: most }));
    const { aggregates } = foldOf([beginning(), batch({ watermark_ms: t0 + 15 * second, nars }), closing(2, minute)]);
    expect(aggregates[0]).toMatchObject({ bytes: 5n * BigInt(most), packets: 5n * BigInt(most) });
  });

  test('absurd counters whose sums no output could carry are rejected, the same wherever the fold was restored', () => {
    const most = 2 ** 53 - 2;
    const absurd = (sequence: number) => {
      const nars = Array.from({ length: 200 }, () => at(1, { bytes: most, packets: most, sampling_rate: 1 }));
      return batch({ sequence, watermark_ms: t0 + 15 * second, nars, losses: [loss({ bytes: 2n ** 62n, packets: 2n ** 62n })] });
    };
    const entries = [beginning(), absurd(1), absurd(2), absurd(3), absurd(4), closing(5, minute)];
    const { aggregates, closes, fold } = foldOf(entries);
    // 2^62 / (2^53 - 2) is a little more than 512.
    expect(aggregates[0]).toMatchObject({ flows: 512, bytes: 512n * BigInt(most), packets: 512n * BigInt(most) });
    const [exporter] = closes[0]!.exporters;
    expect(exporter).toMatchObject({ decoded_flows: 828, aggregated_flows: 512, rejected_flows: 288, lost_flows: 28, lost_bytes: 2n ** 61n });
    expect(exporter!.decoded_bytes).toBe(exporter!.aggregated_bytes + exporter!.lost_bytes);
    const restored = Fold.restore(foldOf(entries.slice(0, 3)).fold.serialise(), sha256);
    for (const record of records(entries).slice(3)) restored.step(record);
    expect(restored.serialise()).toEqual(fold.serialise());
  });

  test('what was given out leaves room again', () => {
    const most = 2 ** 53 - 2;
    const nars = (minutes: number) => Array.from({ length: 600 }, () => nar({ bytes: most, time_flow_end_ms: t0 + minutes * minute }));
    const { aggregates } = foldOf([
      beginning(),
      batch({ watermark_ms: t0 + 15 * second, nars: nars(0) }),
      closing(2, minute),
      batch({ sequence: 3, watermark_ms: t0 + 75 * second, nars: nars(1) }),
      closing(4, 2 * minute),
    ]);
    expect(aggregates.map(({ flows }) => flows)).toEqual([512, 512]);
  });

  test('a long flow is spread in integer shares that add up; it counts as one in the window of its end', () => {
    const long = nar({ time_flow_start_ms: t0 + 30 * second, time_flow_end_ms: t0 + 2 * minute + 29_999, bytes: 1001, packets: 3 });
    const { aggregates } = foldOf([
      beginning({ ...standard, spread: true }),
      batch({ watermark_ms: t0 + 15 * second, nars: [long] }),
      closing(2, 3 * minute),
    ]);
    expect(aggregates.map(({ flows, bytes, packets }) => [flows, bytes, packets])).toEqual([
      [0, 250n, 1n],
      [0, 501n, 1n],
      [1, 250n, 1n],
    ]);
  });

  test('the part of a spread flow that falls into a closed window is an adjustment', () => {
    const long = nar({ time_flow_start_ms: t0, time_flow_end_ms: t0 + 2 * minute - 1, bytes: 10 });
    const { aggregates } = foldOf([
      beginning({ ...standard, spread: true }),
      tick(1, t0 + 15 * second),
      closing(2, minute),
      batch({ sequence: 3, watermark_ms: t0 + 75 * second, nars: [long] }),
      closing(4, 2 * minute),
    ]);
    expect(aggregates.map(({ kind, flows, bytes }) => [kind, flows, bytes])).toEqual([
      ['adjustment', 0, 5n],
      ['usage', 1, 5n],
    ]);
  });

  test('losses and rejected records are decoded and are not aggregated, and the balance adds up', () => {
    const nars = [at(1)];
    const exporters = [report(nars, 0, { rejected_flows: 2, lost_on_wire_flows: 5, lost_on_wire_datagrams: 1, received_datagrams: 9 })];
    const entry = batch({ watermark_ms: t0 + 15 * second, nars, exporters, losses: [loss()] });
    const { closes } = foldOf([beginning(), entry, closing(2, minute)]);
    expect(closes[0]).toMatchObject({ lost_flows: 7, lost_on_wire_flows: 5, lost_on_wire_datagrams: 1, doubts: 0 });
    expect(closes[0]!.exporters).toHaveLength(1);
    expect(closes[0]!.exporters[0]).toMatchObject({
      received_datagrams: 9,
      decoded_flows: 10,
      decoded_bytes: 800n,
      aggregated_flows: 1,
      rejected_flows: 2,
      lost_flows: 7,
      lost_bytes: 700n,
    });
  });

  test('a volatile incarnation that goes without a goodbye is a doubt, until it comes again or says goodbye (G9)', () => {
    const volatile = { collector: 'c2', volatile: true };
    const start = [beginning(), tick(1, t0 + 10 * second), tick(1, t0 + 10 * second, volatile)];
    const gone = [...start, tick(2, t0 + 5 * minute)];
    expect(foldOf(gone).closes.at(-1)!.doubts).toBe(1);
    const back = [...gone, tick(2, t0 + 5 * minute, volatile), tick(3, t0 + 6 * minute), tick(3, t0 + 6 * minute, volatile)];
    expect(foldOf(back).closes.at(-1)!.doubts).toBe(0);
    const ended = [...gone, tick(2, t0 + 10 * second, { ...volatile, goodbye: true }), tick(3, t0 + 6 * minute)];
    expect(foldOf(ended).closes.at(-1)!.doubts).toBe(0);
  });

  test('a Loss of unknown size is a doubt that stays', () => {
    const { closes } = foldOf([
      beginning(),
      batch({ watermark_ms: t0 + 10 * second, losses: [loss({ unknown: true, nars: 0, bytes: 0n, packets: 0n })] }),
      closing(2, minute),
      closing(3, 2 * minute),
    ]);
    expect(closes.map(({ doubts }) => doubts)).toEqual([1, 1]);
  });

  test('a change of the grouping counts from its offset on; a window under way has aggregates of both', () => {
    const config = { ...standard, version: 2, group_by: ['dst_port', 'sampler_address', 'src_addr'] };
    const { aggregates, closes } = foldOf([
      beginning(),
      batch({ watermark_ms: t0 + 15 * second, nars: [at(1)] }),
      batch({ collector: adminCollector, incarnation: 'v2', fold_config: config }),
      batch({ sequence: 2, watermark_ms: t0 + 16 * second, nars: [at(2)] }),
      closing(3, minute),
    ]);
    expect(aggregates.map(groupOf).sort()).toEqual(['2>192.0.2.1>10.0.0.1', 'acme>beta']);
    expect(closes[0]).toMatchObject({ usage_flows: 2, fold_config_version: 2 });
  });

  test('a change of the window length leaves the windows under way as they are', () => {
    const config = { ...standard, version: 2, window_ms: 20 * second };
    const { aggregates, closes, fold } = foldOf([
      beginning(),
      batch({ watermark_ms: t0 + 15 * second, nars: [at(1)] }),
      batch({ collector: adminCollector, incarnation: 'v2', fold_config: config }),
      batch({ sequence: 2, watermark_ms: t0 + 16 * second, nars: [at(2), at(30 * second)] }),
      closing(3, 40 * second),
      closing(4, minute),
    ]);
    const spans = aggregates.map(({ window_start_ms, window_end_ms, flows }) => [window_start_ms - t0, window_end_ms - t0, flows]);
    expect(spans).toEqual([
      [0, 20 * second, 1],
      [20 * second, 40 * second, 1],
      [0, minute, 1],
    ]);
    expect(closes.at(-1)!.open_flows).toBe(0);
    expect(fold.openFlows).toBe(0);
  });

  test('blocks have at most 500 outputs and less than the largest message, and never span two records', () => {
    const nars = Array.from({ length: 1200 }, (_, i) => at(1, { src_port: i }));
    const config = { ...standard, group_by: ['src_port'] };
    const { blocks } = foldOf([beginning(config), batch({ watermark_ms: t0 + 15 * second, nars }), closing(2, minute), closing(3, 2 * minute)]);
    expect(blocks.map(({ first_n, outputs }) => [first_n, outputs.length])).toEqual([
      [1, 500],
      [501, 500],
      [1001, 201],
      [1202, 1],
    ]);
    for (const [index, { previous_chain }] of blocks.entries()) {
      if (index > 0) expect(Buffer.compare(previous_chain, blocks[index - 1]!.outputs.at(-1)!.chain)).toBe(0);
    }
    const name = 'x'.repeat(40_000);
    const accounts = Array.from({ length: 60 }, (_, i) => ({ prefix: `10.0.${i}.0/24`, account: `${i}${name}` }));
    const wide = Array.from({ length: 60 }, (_, i) => at(1, { src_addr: Buffer.from([10, 0, i, 1]) }));
    const large = foldOf([
      beginning({ ...standard, group_by: ['src_account'], accounts }),
      batch({ watermark_ms: t0 + 15 * second, nars: wide }),
      closing(2, minute),
    ]);
    expect(large.blocks.length).toBeGreaterThan(2);
    for (const { outputs } of large.blocks) expect(outputs.length * 40_000).toBeLessThan(messageBytesMax);
  });
});
