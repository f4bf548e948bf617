import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { readSeam, seamText } from '../../../core/feed/seam.ts';

describe('the words of a seam', () => {
  test('are read as they are written', () => {
    fc.assert(
      fc.property(fc.boolean(), fc.nat(), (forth, n) => {
        const seam = { from: forth ? 'a' : 'b', to: forth ? 'b' : 'a', n } as const;
        expect(readSeam(seamText(seam))).toEqual(seam);
      }),
    );
  });

  test('of anything else nothing is concluded', () => {
    for (const text of ['', 'a up to n 7, b from n 9 on', 'a up to n 7, a from n 8 on', 'held: a up to n 7, b from n 8 on']) {
      expect(readSeam(text)).toBeNull();
    }
  });
});
