import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../adapters/digest.ts';
import { messageOf } from '../../../core/feed/message.ts';
import { TailScan } from '../../../core/feed/tail.ts';
import { historyOf } from './outputs.ts';

const history = historyOf(20);
const other = historyOf(20, 3);

/** Written as `p1:3` (producer p1 writes output 3), `p1:commit`, `p1:abort`. */
function scan(...log: string[]): TailScan {
  const found = new TailScan(0, sha256);
  log.forEach((entry, offset) => {
    const [producerId = '', what = ''] = entry.split(':');
    const marker = what === 'commit' || what === 'abort' ? what : null;
    const source = what.endsWith("'") ? other : history;
    const value = marker ? null : messageOf(source[Number.parseInt(what, 10) - 1]!).value;
    found.take({ offset, value, producerId, marker });
  });
  return found;
}

describe('the tail of aggregates', () => {
  test('is the last record that a commit marker follows', () => {
    expect(scan('p:1', 'p:2', 'p:commit', 'p:3').tail).toMatchObject({ n: 2, offset: 1 });
    expect(scan().tail).toBeNull();
    expect(scan('p:1').tail).toBeNull();
  });

  test('is not an aborted record, whoever aborted it', () => {
    expect(scan('p:1', 'p:commit', 'p:2', 'p:abort').tail).toMatchObject({ n: 1, offset: 0 });
    expect(scan('p:1', 'p:commit', 'p:2', 'p:3', 'p:abort', 'p:2', 'p:commit').tail).toMatchObject({ n: 2, offset: 5 });
  });

  test('keeps apart two producers whose records lie between each other', () => {
    expect(scan('p:1', 'p:commit', 'p:2', 'q:2', 'q:3', 'p:abort', 'q:commit').tail).toMatchObject({ n: 3, offset: 4 });
  });

  test('is not moved by a record that came twice, or over a gap, or of another history', () => {
    const found = scan('p:1', 'p:2', 'p:3', 'p:commit', 'p:1', 'p:2', 'p:commit', 'p:5', 'p:commit', "p:4'", 'p:commit');
    expect(found.tail).toMatchObject({ n: 3, offset: 2 });
    expect(found.outOfLine).toBe(4);
    expect(scan('p:1', 'p:commit', 'p:3', 'p:commit', 'p:2', 'p:3', 'p:commit').tail).toMatchObject({ n: 3, offset: 5 });
  });

  test('is found from any record on, and the first one that was read is told', () => {
    expect(scan('p:7', 'p:8', 'p:commit')).toMatchObject({ tail: { n: 8 }, firstOffset: 0 });
    expect(scan('p:7', 'p:abort', 'p:8', 'p:commit')).toMatchObject({ tail: { n: 8 }, firstOffset: 2 });
  });

  test('is not a record outside of a transaction, nor one that no schema can decode', () => {
    const found = scan('p:1', 'p:commit', ':2');
    found.take({ offset: 3, value: Buffer.from('x'), producerId: 'p', marker: null });
    found.take({ offset: 4, value: null, producerId: 'p', marker: 'commit' });
    expect(found.tail).toMatchObject({ n: 1 });
  });
});
