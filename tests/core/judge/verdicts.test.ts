import { describe, expect, test } from '@jest/globals';
import { Verdicts } from '../../../core/judge/verdicts.ts';
import { verdict } from './verdict.ts';

describe('verdicts in log order', () => {
  test('a higher epoch counts, a lower one does not', () => {
    const verdicts = new Verdicts();
    expect(verdicts.isQuarantined(0, 'b')).toBe(false);
    expect(verdicts.apply(verdict({ epoch: 2, state: 'repaired' }))).toBe(true);
    expect(verdicts.apply(verdict({ epoch: 1 }))).toBe(false);
    expect(verdicts.isQuarantined(0, 'b')).toBe(false);
    expect(verdicts.apply(verdict({ epoch: 3 }))).toBe(true);
    expect(verdicts.isQuarantined(0, 'b')).toBe(true);
  });

  test('of two with one epoch the last counts', () => {
    const verdicts = new Verdicts();
    verdicts.apply(verdict({ epoch: 2, state: 'repaired', begins: 10 }));
    verdicts.apply(verdict({ epoch: 2, state: 'repaired', begins: 20 }));
    expect(verdicts.last(0, 'b')?.begins).toBe(20);
  });

  test('each replica of each partition is judged by itself', () => {
    const verdicts = new Verdicts();
    verdicts.apply(verdict({ replica: 'a', partition: 1 }));
    expect([verdicts.isQuarantined(1, 'a'), verdicts.isQuarantined(1, 'b'), verdicts.isQuarantined(0, 'a')]).toEqual([true, false, false]);
    expect(verdicts.apply(verdict({ replica: 'c' }))).toBe(false);
    expect(verdicts.quarantined().map(({ partition, replica }) => `${partition}/${replica}`)).toEqual(['1/a']);
  });
});
