import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Elections } from '../../../core/elect/elections.ts';
import type { Election } from '../../../schemas/types.ts';

function election(epoch: number, leader: string, partition = 0): Election {
  return { partition, epoch, leader, previous: '', reason: 'silent', evidence: '', watchdog: 'w', at_ms: 0 };
}

describe('elections in log order', () => {
  test('a higher epoch counts, a lower one does not', () => {
    const elections = new Elections();
    expect(elections.leader(0)).toBeNull();
    expect(elections.apply(election(2, 'a'), 0)).toBe(true);
    expect(elections.apply(election(1, 'b'), 0)).toBe(false);
    expect(elections.leader(0)).toBe('a');
    expect(elections.apply(election(3, 'b'), 0)).toBe(true);
    expect(elections.leader(0)).toBe('b');
  });

  test('of two with one epoch the last counts', () => {
    const elections = new Elections();
    elections.apply(election(1, 'a'), 0);
    elections.apply(election(1, 'b'), 0);
    expect(elections.leader(0)).toBe('b');
  });

  test('what several watchdogs write at once is one election: they would rest twice as long after it', () => {
    const elections = new Elections();
    elections.apply(election(1, 'a'), 100);
    elections.apply(election(1, 'a'), 110);
    elections.apply(election(2, 'b'), 200);
    expect(elections.heardSince(0, 0)).toEqual([100, 200]);
  });

  test('nobody leads who is not a replica', () => {
    const elections = new Elections();
    expect(elections.apply(election(1, 'c'), 0)).toBe(false);
    expect(elections.leader(0)).toBeNull();
  });

  test('whoever reads the compacted topic later sees the same leader', () => {
    const log = fc.array(fc.tuple(fc.integer({ min: 1, max: 4 }), fc.constantFrom('a', 'b')), { maxLength: 20 });
    fc.assert(
      fc.property(log, fc.nat(), (written, seed) => {
        // Compaction may at any time have removed all but the last record of the key; a watchdog writes only last + 1 or repeats an epoch.
        let highest = 0;
        const records = written.map(([epoch, leader]) => {
          const next = Math.min(Math.max(epoch, highest), highest + 1);
          highest = Math.max(highest, next);
          return election(next, leader);
        });
        const early = new Elections();
        const late = new Elections();
        for (const record of records) early.apply(record, 0);
        for (const record of records.slice(Math.min(seed % (records.length + 1), Math.max(0, records.length - 1)))) late.apply(record, 0);
        expect(late.leader(0)).toBe(early.leader(0));
      }),
    );
  });
});
