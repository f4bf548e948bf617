import { describe, expect, test } from '@jest/globals';
import { type Coverage, completeness, cover, touchedSamples } from '../../../core/ledger/coverage.ts';
import { addSamples, type SampleDeltas, sampleStart } from '../../../core/ledger/samples.ts';
import type { Aggregate, WindowClose } from '../../../schemas/types.ts';
import { type CloseFigures, History, windowMs } from './history.ts';

const bucket = sampleStart(1_700_000_100_000);

function samplesOf(...aggregates: Aggregate[]) {
  const deltas: SampleDeltas = new Map();
  for (const aggregate of aggregates) addSamples(deltas, aggregate);
  return [...deltas.values()].map(({ account, direction, startMs, bytes, scaledBytes }) => [account, direction, startMs, bytes, scaledBytes]);
}

function aggregateOf(windowStartMs: number, bytes: bigint): Aggregate {
  return new History(0, windowStartMs).usage({ src: 'acme', dst: 'globex', flows: 1, bytes }).outputs[0]!.aggregate!;
}

function closeOf(windowStartMs: number, figures: CloseFigures = {}): WindowClose {
  return new History(0, windowStartMs).close(figures).outputs[0]!.window_close!;
}

function coverAll(closes: readonly WindowClose[], closed = true): Coverage {
  return closes.reduce<Coverage | null>((before, close) => cover(before, bucket, close, closed), null)!;
}

const fiveCloses = (figures: CloseFigures = {}) => [0, 1, 2, 3, 4].map((i) => closeOf(bucket + i * windowMs, i === 2 ? figures : {}));

describe('samples', () => {
  test('start at multiples of 300 s of Unix time', () => {
    expect(bucket % 300_000).toBe(0);
    expect(sampleStart(bucket + 299_999)).toBe(bucket);
    expect(sampleStart(bucket + 300_000)).toBe(bucket + 300_000);
  });

  test('count traffic between accounts out of the one and into the other, in the sample of its window', () => {
    const last = bucket + 4 * windowMs;
    expect(samplesOf(aggregateOf(bucket, 5n), aggregateOf(last, 7n), aggregateOf(bucket + 300_000, 9n))).toEqual([
      ['acme', 'out', bucket, 12n, 120n],
      ['globex', 'in', bucket, 12n, 120n],
      ['acme', 'out', bucket + 300_000, 9n, 90n],
      ['globex', 'in', bucket + 300_000, 9n, 90n],
    ]);
  });

  test('count traffic within an account both ways', () => {
    const within = { ...aggregateOf(bucket, 5n), group: ['src_account', 'dst_account'].map((name) => ({ name, value: 'acme' })) };
    expect(samplesOf(within).map(([account, direction, , bytes]) => [account, direction, bytes])).toEqual([
      ['acme', 'out', 5n],
      ['acme', 'in', 5n],
    ]);
  });

  test('are not made of aggregates without account fields', () => {
    expect(samplesOf({ ...aggregateOf(bucket, 5n), group: [{ name: 'dst_port', value: '443' }] })).toEqual([]);
  });
});

describe('a sample', () => {
  test('is complete, and zero without traffic, when all of its windows are closed in all partitions and nothing is missing', () => {
    const part = coverAll(fiveCloses());
    expect(completeness([part, part], 2)).toMatchObject({ complete: true, reasons: [], collectors: ['east'] });
  });

  const incomplete: [string, CloseFigures, string][] = [
    ['flows were lost on the wire', { lostOnWireFlows: 30 }, 'lost on the wire: 30 flows'],
    ['flows were lost', { lost: { flows: 4, bytes: 40n } }, 'lost: 4 flows'],
    ['a loss of unknown size stands', { doubts: 1 }, 'losses of unknown size: 1'],
    ['nobody was heard for a window', { collectors: [] }, 'no collector heard: 60 s'],
    ['a collector was not heard for a window', { collectors: ['east', 'west'] }, 'heard during a part only: west'],
  ];
  test.each(incomplete)('is a gap when %s', (_case, figures, reason) => {
    const result = completeness([coverAll(fiveCloses(figures))], 1);
    expect(result.complete).toBe(false);
    expect(result.reasons).toContain(reason);
  });

  test('is a gap while a window of one partition is not closed', () => {
    const all = coverAll(fiveCloses());
    const four = coverAll(fiveCloses().slice(0, 4));
    expect(completeness([all, four], 2).reasons).toEqual(['windows not closed yet, or from before the first: 60 s of 600 s over all partitions']);
    expect(completeness([all], 2).complete).toBe(false);
    expect(completeness([], 2).complete).toBe(false);
  });

  test('is a gap when the sums of a window do not agree', () => {
    expect(completeness([coverAll(fiveCloses(), false)], 1).reasons).toEqual(['windows whose sums do not agree: 300 s']);
  });

  test('is not a gap when a late datagram filled the gap on the wire', () => {
    const closes = [...fiveCloses().slice(0, 3), closeOf(bucket, { lostOnWireFlows: 30 }), closeOf(bucket, { lostOnWireFlows: -30 })];
    expect(completeness([coverAll(closes)], 1).complete).toBe(true);
  });
});

describe('a run of windows without usage', () => {
  test('covers every sample that it lies in, and of the first and last its own part', () => {
    const run = closeOf(bucket + 4 * windowMs, { windows: 7 });
    expect(touchedSamples(run)).toEqual([bucket, bucket + 300_000, bucket + 600_000]);
    expect(touchedSamples(run).map((start) => cover(null, start, run, true).coveredMs)).toEqual([60_000, 300_000, 60_000]);
  });

  test('of years covers the newest samples only', () => {
    const starts = touchedSamples(closeOf(0, { windows: 20_000_000 }));
    expect(starts.length).toBe(10_000);
    expect(starts.at(-1)).toBe(20_000_000 * windowMs - 300_000);
  });
});
