import { describe, expect, test } from '@jest/globals';
import { type Candidate, type HeldOutputs, standingOf, successor } from '../../../core/judge/succession.ts';

const tail = { n: 10, chain: 'ten' };
const held = (chains: Record<number, string>, first = { n: 0, chain: '' }): HeldOutputs => ({
  first,
  lastN: 20,
  chains: new Map(Object.entries(chains).map(([n, chain]) => [Number(n), chain])),
});

describe('a snapshot and the tail of aggregates', () => {
  test('at the same n the chain tells', () => {
    expect(standingOf({ n: 10, chain: 'ten' }, tail, [])).toBe('continues');
    expect(standingOf({ n: 10, chain: 'other' }, tail, [])).toBe('another_history');
    expect(standingOf({ n: 9, chain: 'nine' }, tail, [])).toBe('behind');
  });

  test('ahead of it one of the output topics tells', () => {
    const ahead = { n: 12, chain: 'twelve' };
    expect(standingOf(ahead, tail, [held({}), held({ 10: 'ten', 12: 'twelve' })])).toBe('continues');
    expect(standingOf(ahead, tail, [held({ 10: 'other', 12: 'twelve' })])).toBe('another_history');
    expect(standingOf(ahead, tail, [held({ 10: 'ten', 12: 'other' })])).toBe('unproven');
    expect(standingOf(ahead, tail, [held({ 12: 'twelve' })])).toBe('unproven');
  });

  test('before the first output a topic that begins at the beginning tells', () => {
    const none = { n: 0, chain: '' };
    expect(standingOf({ n: 0, chain: '' }, none, [])).toBe('continues');
    expect(standingOf({ n: 2, chain: 'two' }, none, [held({ 2: 'two' })])).toBe('continues');
    expect(standingOf({ n: 2, chain: 'two' }, none, [held({ 2: 'two' }, { n: 1, chain: 'one' })])).toBe('unproven');
  });
});

describe('the successor', () => {
  const candidate = (change: Partial<Candidate>): Candidate => ({ replica: 'a', topicId: 'x', offset: 1, n: 10, chain: '', progress: 1, ...change });

  test('is the one furthest ahead that continues the tail', () => {
    const chosen = candidate({ n: 12, replica: 'b' });
    const weighed = [
      { candidate: candidate({ n: 11 }), standing: 'continues' as const },
      { candidate: chosen, standing: 'continues' as const },
      { candidate: candidate({ n: 13 }), standing: 'another_history' as const },
      { candidate: candidate({ n: 14 }), standing: 'unproven' as const },
    ];
    expect(successor(weighed)).toBe(chosen);
    expect(successor(weighed.slice(2))).toBeNull();
  });

  test('of one n the one that has accepted more, of whichever log', () => {
    const chosen = candidate({ topicId: 'y', offset: 3, progress: 9 });
    const weighed = [candidate({ offset: 900, progress: 5 }), chosen].map((one) => ({ candidate: one, standing: 'continues' as const }));
    expect(successor(weighed)).toBe(chosen);
  });
});
