import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../adapters/digest.ts';
import { Comparison } from '../../../core/feed/comparison.ts';
import { OutputHeads } from '../../../core/feed/output-heads.ts';
import { ReplicaOutputs } from '../../../core/feed/replica-outputs.ts';
import { emptyTail } from '../../../core/feed/tail.ts';
import { blockOf, historyOf } from './outputs.ts';

const history = historyOf(30);
const chain = (n: number) => history[n - 1]!.chain;

describe('the highest n that was compared', () => {
  test('is one of which a, b and aggregates said the same', () => {
    const comparison = new Comparison();
    for (const n of [1, 2, 3]) comparison.note('a', n, chain(n));
    for (const n of [1, 2]) comparison.note('b', n, chain(n));
    expect(comparison.agreedN).toBe(0);
    comparison.note('aggregates', 1, chain(1));
    expect(comparison.agreedN).toBe(1);
    for (const n of [2, 3]) comparison.note('aggregates', n, chain(n));
    expect(comparison.agreedN).toBe(2);
    comparison.note('b', 3, chain(4));
    expect(comparison.agreedN).toBe(2);
  });
});

describe('where a topic is kept from', () => {
  function reading(...blocks: [firstN: number, lastN: number][]): ReplicaOutputs {
    const outputs = new ReplicaOutputs('a', 0, sha256, new Comparison(), 1_000);
    outputs.placed(true, 1_000);
    for (const [offset, [firstN, lastN]] of blocks.entries()) outputs.take(blockOf(history, firstN, lastN), { offset, tail: emptyTail, nowMs: 0 });
    return outputs;
  }

  test('is the block that holds the n', () => {
    const outputs = reading([1, 5], [6, 6], [7, 9]);
    expect([1, 5, 6, 8, 9].map((n) => outputs.keepFrom(n))).toEqual([0, 0, 1, 2, 2]);
    expect(outputs.keepFrom(10)).toBeNull();
    expect(outputs.keepFrom(0)).toBeNull();
  });

  test('is before whatever of a higher n stands in front of it, taken or not', () => {
    expect(reading([1, 2], [5, 6], [3, 4], [7, 7]).keepFrom(4)).toBe(1);
    expect(reading([1, 2], [9, 9], [3, 4]).keepFrom(4)).toBe(1);
  });
});

describe('when a head is cut', () => {
  const place = (n: number) => ({ n, a: 10 * n, b: 20 * n });

  test('a place is used when it has been known for the history', () => {
    const heads = new OutputHeads(8_000);
    for (let second = 0; second <= 12; second++) heads.note(place(second + 1), 1_000 * second);
    expect(heads.due(7_999)).toBeNull();
    expect(heads.due(8_000)).toMatchObject(place(1));
    expect(heads.due(11_000)).toMatchObject(place(4));
    heads.cut(place(4));
    expect(heads.keptFromN).toBe(4);
    expect(heads.due(11_999)).toBeNull();
    expect(heads.due(12_000)).toMatchObject(place(5));
  });

  test('what is noted is bounded (I13), and is forgotten with the topic', () => {
    const heads = new OutputHeads(8_000);
    for (let ms = 0; ms < 8_000; ms += 10) heads.note(place(ms + 1), ms);
    const used = new Set(Array.from({ length: 8_000 }, (_, ms) => heads.due(8_000 + ms)?.n));
    expect(used.size).toBe(8);
    heads.forget();
    expect(heads.due(20_000)).toBeNull();
  });

  test('nothing is noted twice, nor where nothing is known', () => {
    const heads = new OutputHeads(0);
    heads.note(null, 0);
    expect(heads.due(0)).toBeNull();
    heads.note(place(3), 0);
    heads.cut(place(3));
    heads.note(place(3), 1);
    heads.note(place(2), 1);
    expect(heads.due(1)).toBeNull();
  });
});
