import { describe, expect, test } from '@jest/globals';
import { isContiguous } from '../../services/cli/drill.ts';
import { historyOf } from '../core/feed/outputs.ts';

const history = historyOf(20);

describe('what a drill says of the outputs around its seam', () => {
  test('each n is one more than the last, and each chain is computed', () => {
    expect(isContiguous(history)).toBe(true);
    expect(isContiguous(history.slice(7, 12))).toBe(true);
    expect(isContiguous([])).toBe(true);
  });

  test('a gap, a repeat, another history and a chain that is not of its content are told', () => {
    const other = historyOf(20, 5);
    expect(isContiguous([...history.slice(0, 5), ...history.slice(6)])).toBe(false);
    expect(isContiguous([...history.slice(0, 5), ...history.slice(4)])).toBe(false);
    expect(isContiguous([...history.slice(0, 9), ...other.slice(9)])).toBe(false);
    const forged = { ...history[9]!, chain: Buffer.alloc(16, 1) };
    expect(isContiguous([...history.slice(0, 9), forged])).toBe(false);
  });
});
