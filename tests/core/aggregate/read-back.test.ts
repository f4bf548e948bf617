import { describe, expect, test } from '@jest/globals';
import { NotDeterministic, noPosition, ReadBack } from '../../../core/aggregate/read-back.ts';
import { outputBlockCodec } from '../../../schemas/codec.ts';
import type { OutputBlock } from '../../../schemas/types.ts';
import { beginning, foldOf, minute, t0, tick } from './log-of-batches.ts';

/** Blocks of one output each, n 1 to 6. */
const { blocks } = foldOf([beginning(), ...Array.from({ length: 7 }, (_, i) => tick(i + 1, t0 + i * minute))]);
const bytesOf = (block: OutputBlock) => outputBlockCodec.encode(block);
const block = (n: number) => blocks[n - 1]!;
const otherOf = (n: number) => bytesOf({ ...block(n), outputs: [{ ...block(n).outputs[0]!, chain: Buffer.alloc(16, 9) }] });
const positionAt = (n: number) => ({ n, chain: block(n).outputs[0]!.chain });

function folded(upTo: number): ReadBack {
  const readBack = new ReadBack(0, noPosition, noPosition);
  for (let n = 1; n <= upTo; n++) readBack.add(block(n));
  return readBack;
}

const sendAll = (readBack: ReadBack, endOffset: number | null) => {
  const unsent = readBack.unsent(1 << 20);
  readBack.sent(unsent, endOffset, 0);
  return unsent.map(({ firstN }) => firstN);
};

describe('what was written', () => {
  test('is kept until it was read back in order of n; what comes twice is dropped', () => {
    const readBack = folded(3);
    expect(sendAll(readBack, 3)).toEqual([1, 2, 3]);
    for (const n of [1, 1, 3, 2, 1]) readBack.take(bytesOf(block(n)), 0);
    expect(readBack.n).toBe(2);
    expect(readBack.isComplete).toBe(false);
    readBack.take(bytesOf(block(3)), 0);
    expect(readBack.isComplete).toBe(true);
    expect(readBack.unreadBytes).toBe(0);
  });

  test('is missing when the reader is past it, or it has not come for too long; then it is written again from the first missing n', () => {
    const readBack = folded(3);
    sendAll(readBack, 3);
    readBack.take(bytesOf(block(1)), 100);
    readBack.take(bytesOf(block(3)), 100);
    expect(readBack.isMissing(2, 200, 1000)).toBe(false);
    expect(readBack.isMissing(3, 200, 1000)).toBe(true);
    expect(readBack.isMissing(2, 1100, 1000)).toBe(true);
    expect(sendAll(readBack, null)).toEqual([]);
    expect(readBack.resend()).toBe(2);
    expect(sendAll(readBack, 5)).toEqual([2, 3]);
  });

  test('is given out in calls of limited size', () => {
    expect(
      folded(4)
        .unsent(1)
        .map(({ firstN }) => firstN),
    ).toEqual([1]);
  });
});

describe('what stands in the topic and was not folded yet', () => {
  test('is not written again, and is compared with the fold when that comes there', () => {
    const readBack = new ReadBack(0, noPosition, noPosition);
    for (const n of [1, 2, 3]) readBack.take(bytesOf(block(n)), 0);
    for (const n of [1, 2, 3, 4]) readBack.add(block(n));
    expect(readBack.unsent(1 << 20).map(({ firstN }) => firstN)).toEqual([4]);
  });

  test('with another chain is found out', () => {
    const readBack = new ReadBack(0, noPosition, noPosition);
    readBack.take(otherOf(1), 0);
    expect(() => readBack.add(block(1))).toThrow(NotDeterministic);
    const folding = folded(2);
    expect(() => folding.take(otherOf(1), 0)).toThrow(NotDeterministic);
    const behind = new ReadBack(0, positionAt(2), positionAt(2));
    expect(() => behind.take(otherOf(2), 0)).toThrow(NotDeterministic);
  });

  test('may begin anywhere where the head was cut', () => {
    const readBack = new ReadBack(0, null, positionAt(4));
    for (const n of [3, 4, 5]) readBack.take(bytesOf(block(n)), 0);
    expect(readBack.n).toBe(5);
  });

  test('that no schema can decode, or of another partition, is counted', () => {
    const readBack = folded(1);
    for (const value of [null, Buffer.from('x'), bytesOf({ ...block(1), partition: 5 })]) readBack.take(value, 0);
    expect([readBack.n, readBack.undecodable]).toEqual([0, 3]);
  });
});

describe('another history in the own topic', () => {
  /** The blocks from n on as a fold would write them that differs at n. */
  const wrongFrom = (n: number) => [otherOf(n), bytesOf({ ...block(n + 1), previous_chain: Buffer.alloc(16, 9) })] as const;

  test('is found out where it contradicts the tail, or does not continue it', () => {
    for (const value of wrongFrom(3)) {
      const readBack = new ReadBack(0, positionAt(3), positionAt(3));
      expect(() => readBack.take(value, 0)).toThrow(NotDeterministic);
    }
  });

  test('is found out also beyond something that is missing, once the fold comes there', () => {
    const known = folded(5);
    sendAll(known, 5);
    known.take(bytesOf(block(1)), 0);
    expect(() => known.take(otherOf(4), 0)).toThrow(NotDeterministic);
    const ahead = new ReadBack(0, positionAt(1), positionAt(1));
    ahead.take(otherOf(4), 0);
    expect(ahead.n).toBe(1);
    for (const n of [2, 3]) ahead.add(block(n));
    expect(() => ahead.add(block(4))).toThrow(NotDeterministic);
  });

  test('is dropped once this replica was repaired: a process that does not know of it has written it', () => {
    const readBack = new ReadBack(0, positionAt(3), positionAt(3));
    readBack.isRepaired = true;
    for (const value of [...wrongFrom(3), otherOf(2), otherOf(5)]) readBack.take(value, 0);
    expect([readBack.n, readBack.foreign]).toEqual([3, 2]);
    for (const n of [4, 5, 6]) readBack.add(block(n));
    for (const n of [4, 5]) readBack.take(bytesOf(block(n)), 0);
    expect(readBack.n).toBe(5);
  });
});

describe('what only the other has (F7)', () => {
  test('is copied in order, byte for byte, up to the n of the snapshot', () => {
    const readBack = new ReadBack(0, noPosition, positionAt(4));
    readBack.take(bytesOf(block(1)), 0);
    expect([1, 3, 2, 2, 4, 3].map((n) => readBack.copy(bytesOf(block(n))))).toEqual([false, false, true, false, false, true]);
    expect(readBack.copy(bytesOf(block(4)))).toBe(true);
    expect(readBack.knownN).toBe(4);
    readBack.add(block(5));
    expect(sendAll(readBack, 5)).toEqual([2, 3, 4, 5]);
  });

  test('must continue what is here, and end with the snapshot', () => {
    const here = new ReadBack(0, { n: 1, chain: Buffer.alloc(16, 7) }, positionAt(4));
    expect(() => here.copy(bytesOf(block(2)))).toThrow(NotDeterministic);
    const there = new ReadBack(0, positionAt(3), positionAt(4));
    expect(() => there.copy(otherOf(4))).toThrow(NotDeterministic);
  });

  test('passes over what a repaired one wrote before', () => {
    const readBack = new ReadBack(0, positionAt(1), positionAt(4));
    expect(readBack.copy(bytesOf({ ...block(2), previous_chain: Buffer.alloc(16, 9) }), true)).toBe(false);
    expect([2, 3].map((n) => readBack.copy(bytesOf(block(n)), true))).toEqual([true, true]);
    expect(readBack.copy(otherOf(4), true)).toBe(false);
    expect(readBack.copy(bytesOf(block(4)), true)).toBe(true);
  });
});
