import { expect, test } from '@jest/globals';
import { DiskGrowth } from '../../../core/judge/disk.ts';

const minute = 60_000;

function grown(bytesPerMinute: number, minutes: number, usableBytes: number | null = 1_000): DiskGrowth {
  const growth = new DiskGrowth();
  for (let i = 0; i <= minutes; i++) growth.take([{ name: '1:/data', logBytes: i * bytesPerMinute, usableBytes }], i * minute);
  return growth;
}

test('what is free, at the growth so far', () => {
  expect(grown(100, 10).fullInMs('1:/data')).toBe(10 * minute);
  expect(grown(100, 10).soonestFullMs).toBe(10 * minute);
});

test('the last hour counts, not what was before it', () => {
  const growth = grown(100, 10);
  for (let i = 0; i <= 70; i++) growth.take([{ name: '1:/data', logBytes: 1_000 + i, usableBytes: 700 }], (100 + i) * minute);
  expect(growth.fullInMs('1:/data')).toBe(700 * minute);
});

test('not known without growth, without a size, after too short a time, or of a disk that is gone', () => {
  expect(grown(0, 10).fullInMs('1:/data')).toBeNull();
  expect(grown(100, 10, null).fullInMs('1:/data')).toBeNull();
  expect(grown(100, 0).fullInMs('1:/data')).toBeNull();
  const gone = grown(100, 10);
  gone.take([], 11 * minute);
  expect(gone.sizes).toEqual([]);
  expect(gone.soonestFullMs).toBeNull();
});
