import { describe, expect, test } from '@jest/globals';
import { cutBefore, type HeadFacts, holdings } from '../../../core/judge/head.ts';

describe('cutting', () => {
  test('the record before the agreed snapshot stays (G6), and so does the history', () => {
    expect(cutBefore(100, 1000)).toBe(99);
    expect(cutBefore(100, 40)).toBe(40);
    expect(cutBefore(0, 1000)).toBe(0);
  });
});

describe('who holds the head back', () => {
  const facts: HeadFacts = { agreedOffset: 100, endOffset: 500, newest: { a: 400, b: 100 }, uncoveredMs: 1_000 };

  test('the one whose snapshots stay behind', () => {
    expect(holdings(facts, 5_000, 6_000)).toEqual([{ replica: 'b', sinceMs: 1_000, offset: 100, otherOffset: 400 }]);
  });

  test('both where neither writes any, or where they do not agree', () => {
    expect(holdings({ ...facts, newest: { a: 100, b: 100 } }, 5_000, 6_000).map(({ replica }) => replica)).toEqual(['a', 'b']);
    expect(holdings({ ...facts, newest: { a: 400, b: 400 } }, 5_000, 6_000).map(({ replica }) => replica)).toEqual(['a', 'b']);
  });

  test('nobody before the time is over, or where there is nothing to cut', () => {
    expect(holdings(facts, 5_000, 5_999)).toEqual([]);
    expect(holdings({ ...facts, endOffset: 100, uncoveredMs: null }, 5_000, 60_000)).toEqual([]);
  });
});
