import { describe, expect, test } from '@jest/globals';
import { Agreements, newestAgreed, obsoleteSnapshots, records, StandingSnapshots } from '../../../core/judge/agreement.ts';
import type { Agreement, SnapshotChunk } from '../../../schemas/types.ts';

const chain = Buffer.alloc(16, 1);

function chunk(offset: number, change: Partial<SnapshotChunk> = {}): SnapshotChunk {
  const record_digest = Buffer.alloc(32);
  const digest = Buffer.alloc(32, offset);
  return {
    partition: 0,
    topic_id: 'log',
    offset,
    n: offset * 2,
    chain,
    record_digest,
    chunk: 0,
    chunks: 1,
    digest,
    bytes: Buffer.alloc(0),
    ...change,
  };
}

/** Snapshots of one chunk each, in the order in which they were written. */
function standing(...chunks: SnapshotChunk[]): StandingSnapshots {
  const snapshots = new StandingSnapshots();
  for (const [place, one] of chunks.entries()) snapshots.take(`0/${one.topic_id}/${one.offset}`, one.chunk, one, place);
  return snapshots;
}

const offsetOf = (a: StandingSnapshots, b: StandingSnapshots) => newestAgreed({ a, b }, 'log')?.a.offset ?? null;

describe('what stands', () => {
  test('a snapshot is whole when all its chunks are there, in whichever order they came', () => {
    const snapshots = standing(chunk(10, { chunk: 1, chunks: 2 }));
    expect(snapshots.whole('log')).toEqual([]);
    expect(snapshots.newest('log')).toBe(0);
    snapshots.take('0/log/10', 0, chunk(10, { chunks: 2 }), 7);
    expect(snapshots.whole('log')).toMatchObject([{ offset: 10, n: 20, places: [7, 0] }]);
    expect(snapshots.newest('log')).toBe(10);
  });

  test('a tombstone takes a chunk away, and chunks of another state begin anew', () => {
    const snapshots = standing(chunk(10, { chunks: 2 }), chunk(10, { chunk: 1, chunks: 2 }));
    expect(snapshots.newest('log')).toBe(10);
    snapshots.take('0/log/10', 0, null, 2);
    expect(snapshots.newest('log')).toBe(0);
    snapshots.take('0/log/10', 0, chunk(10, { chunks: 2, digest: Buffer.alloc(32, 99) }), 3);
    expect(snapshots.newest('log')).toBe(0);
  });

  test('of another log nothing counts', () => {
    expect(standing(chunk(10, { topic_id: 'former' }), chunk(5)).newest('log')).toBe(5);
  });

  test('what is kept is bounded (I13): the youngest written stay', () => {
    const snapshots = standing(...Array.from({ length: 200 }, (_, i) => chunk(i + 1)));
    expect(snapshots.whole('log')).toHaveLength(64);
    expect(snapshots.newest('log')).toBe(200);
  });
});

describe('what both agree on', () => {
  test('is the newest that both hold', () => {
    expect(offsetOf(standing(chunk(10), chunk(20), chunk(30)), standing(chunk(10), chunk(20)))).toBe(20);
    expect(offsetOf(standing(chunk(30)), standing(chunk(10), chunk(20)))).toBeNull();
    expect(offsetOf(standing(), standing())).toBeNull();
  });

  test.each([
    ['digest', { digest: Buffer.alloc(32, 99) }],
    ['n', { n: 1 }],
    ['chain', { chain: Buffer.alloc(16, 9) }],
    ['topic id', { topic_id: 'other' }],
  ])('not where the %s differs', (_name, change) => {
    expect(offsetOf(standing(chunk(10), chunk(20)), standing(chunk(10), chunk(20, change)))).toBe(10);
  });

  test('is recorded with everything by which it is told', () => {
    const found = newestAgreed({ a: standing(chunk(10)), b: standing(chunk(10)) }, 'log')!.a;
    const agreement: Agreement = { partition: 0, topic_id: 'log', offset: 10, n: 20, chain, digest: Buffer.alloc(32, 10), at_ms: 0 };
    expect(records(agreement, found)).toBe(true);
    for (const change of [{ topic_id: 'other' }, { offset: 9 }, { n: 1 }, { chain: Buffer.alloc(16) }, { digest: Buffer.alloc(32) }]) {
      expect(records({ ...agreement, ...change }, found)).toBe(false);
    }
    expect(records(null, found)).toBe(false);
  });
});

describe('agreements in log order', () => {
  const agreement = (offset: number, topic_id = 'log', partition = 0): Agreement => {
    return { partition, topic_id, offset, n: 0, chain, digest: chain, at_ms: 0 };
  };

  test('the highest offset of a log counts, and another log begins anew', () => {
    const agreements = new Agreements();
    for (const one of [agreement(10), agreement(30), agreement(20), agreement(5, 'log', 1)]) agreements.apply(one);
    expect(agreements.of(0, 'log')?.offset).toBe(30);
    expect(agreements.of(1, 'log')?.offset).toBe(5);
    expect(agreements.of(0, 'other')).toBeNull();
    agreements.apply(agreement(3, 'other'));
    expect(agreements.of(0, 'other')?.offset).toBe(3);
    expect(agreements.of(0, 'log')).toBeNull();
  });

  const marks = (...names: [string, number][]) =>
    names.map(([topicId, offset]) => [`${topicId}/${offset}`, { topicId, offset }] as const satisfies [string, object]);

  test('the newest three and the agreed one stay, however far the other replica is behind (G8)', () => {
    const all = marks(['log', 10], ['log', 20], ['log', 30], ['log', 40], ['log', 50]);
    expect(obsoleteSnapshots(all, 'log', null)).toEqual(['log/20', 'log/10']);
    expect(obsoleteSnapshots(all, 'log', agreement(10))).toEqual(['log/20']);
    expect(obsoleteSnapshots(all, 'log', agreement(40))).toEqual(['log/30', 'log/20', 'log/10']);
  });

  test('those of a former log stay until there is an agreement in the present one', () => {
    const all = marks(['former', 900], ['former', 800], ['log', 10]);
    expect(obsoleteSnapshots(all, 'log', null)).toEqual([]);
    expect(obsoleteSnapshots(all, 'log', agreement(900, 'former'))).toEqual([]);
    expect(obsoleteSnapshots(all, 'log', agreement(10))).toEqual(['former/900', 'former/800']);
  });
});
