import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { sha256 } from '../../../adapters/digest.ts';
import { Comparison } from '../../../core/feed/comparison.ts';
import { ReplicaOutputs } from '../../../core/feed/replica-outputs.ts';
import { emptyTail, type Tail } from '../../../core/feed/tail.ts';
import type { OutputBlock } from '../../../schemas/types.ts';
import { blockOf, historyOf } from './outputs.ts';

const history = historyOf(60);
const other = historyOf(60, 8);

function track(keptMax = 1_000) {
  const comparison = new Comparison();
  const outputs = new ReplicaOutputs('a', 0, sha256, comparison, keptMax);
  outputs.placed(true, 1_000);
  let offset = 0;
  const take = (block: OutputBlock, at = offset++, tail: Tail = emptyTail) => outputs.take(block, { offset: at, tail, nowMs: 0 });
  return { comparison, outputs, take };
}

function tailAt(n: number): Tail {
  return { ...emptyTail, n, chain: history[n - 1]!.chain };
}

describe('the outputs of a replica', () => {
  test('are taken in order, each once', () => {
    const { outputs, take, comparison } = track();
    expect(take(blockOf(history, 1, 5))).toBe('taken');
    expect(take(blockOf(history, 3, 8))).toBe('taken');
    expect(take(blockOf(history, 1, 4))).toBe('taken');
    expect(outputs.lastN).toBe(8);
    expect(outputs.repeated).toBe(7);
    expect(outputs.item(8)?.output).toEqual(history[7]);
    expect(comparison.divergence).toBeNull();
  });

  test('behind a gap wait until what was swallowed is written again', () => {
    const { outputs, take } = track();
    take(blockOf(history, 1, 5));
    expect(take(blockOf(history, 8, 9))).toBe('waits');
    expect(take(blockOf(history, 10, 12))).toBe('waits');
    expect(outputs.lastN).toBe(5);
    take(blockOf(history, 6, 7));
    expect(outputs.lastN).toBe(12);
  });

  test('whose content does not give their chain are as good as missing', () => {
    const { outputs, take } = track();
    take(blockOf(history, 1, 5));
    const block = blockOf(history, 6, 7);
    const [first, second] = block.outputs;
    const forged = { ...first!, aggregate: { ...first!.aggregate!, bytes: 1n } };
    expect(take({ ...block, outputs: [forged, second!] })).toBe('invalid');
    expect(outputs.lastN).toBe(5);
    expect(outputs.invalid).toBe(1);
    take(block);
    expect(outputs.lastN).toBe(7);
  });

  test('of another partition, or not contiguous, are not taken', () => {
    const { outputs, take } = track();
    expect(take(blockOf(historyOf(3, undefined, 1), 1, 3))).toBe('invalid');
    const block = blockOf(history, 1, 3);
    expect(take({ ...block, outputs: [block.outputs[0]!, block.outputs[2]!] })).toBe('invalid');
    expect(take({ ...block, outputs: [] })).toBe('invalid');
    expect(outputs.lastN).toBeNull();
  });

  test('that tell two histories are found out', () => {
    const { comparison, take } = track();
    take(blockOf(history, 1, 10));
    take(blockOf(other, 6, 9));
    expect(comparison.divergence).toMatchObject({ n: 8, between: ['a', 'a'] });
  });

  test('are dropped once they are emitted, and what was emitted before is not kept', () => {
    const { outputs, take } = track();
    take(blockOf(history, 1, 10), 0, tailAt(4));
    expect(outputs.item(4)).toBeUndefined();
    expect(outputs.item(5)?.output.n).toBe(5);
    outputs.drop(7);
    expect(outputs.item(7)).toBeUndefined();
    expect(outputs.item(8)?.output.n).toBe(8);
    expect(outputs.continues(7)).toBe(true);
    expect(outputs.continues(10)).toBe(true);
    expect(outputs.continues(6)).toBe(false);
  });

  test('are read from the start when the noted position was too late', () => {
    const { outputs, take } = track();
    outputs.displace(false);
    expect([outputs.unplaced, outputs.fromStart]).toEqual([true, false]);
    outputs.placed(false, 1_000);
    take(blockOf(history, 7, 9), 5, tailAt(5));
    expect([outputs.unplaced, outputs.fromStart]).toEqual([true, true]);
    outputs.placed(true, 1_000);
    take(blockOf(history, 1, 6), 0, tailAt(5));
    expect(outputs.lastN).toBe(6);
  });

  test('are caught up when all that was there at the start was read', () => {
    const { outputs } = track();
    outputs.readTo(999);
    expect(outputs.caughtUp).toBe(false);
    outputs.readTo(1_000);
    expect(outputs.caughtUp).toBe(true);
  });

  test('say at which offset a later start finds them again', () => {
    const { outputs, take } = track();
    take(blockOf(history, 1, 5), 10);
    take(blockOf(history, 6, 9), 11);
    take(blockOf(history, 2, 4), 12);
    take(blockOf(history, 10, 12), 13);
    expect([outputs.noteAt(0), outputs.noteAt(5), outputs.noteAt(9), outputs.noteAt(12)]).toEqual([null, 10, 11, 13]);
  });
});

describe('what is kept is bounded', () => {
  test('reading pauses when enough is kept, and goes on where it stopped', () => {
    const { outputs, take } = track(10);
    take(blockOf(history, 1, 6), 0);
    take(blockOf(history, 7, 12), 1);
    expect(take(blockOf(history, 13, 18), 2)).toBe('paused');
    expect(take(blockOf(history, 19, 24), 3)).toBe('paused');
    expect(outputs.resume()).toBeNull();
    outputs.readTo(2_000);
    expect(outputs.caughtUp).toBe(false);
    outputs.drop(7);
    expect(outputs.resume()).toBe(2);
    expect(take(blockOf(history, 13, 18), 2)).toBe('taken');
  });

  test('what found no room behind a gap is read again when the gap is closed', () => {
    const { outputs, take } = track(10);
    take(blockOf(history, 1, 3), 0);
    take(blockOf(history, 6, 9), 1);
    take(blockOf(history, 10, 15), 2);
    take(blockOf(history, 16, 20), 3);
    take(blockOf(history, 21, 22), 4);
    outputs.drop(3);
    take(blockOf(history, 4, 5), 5);
    expect([outputs.lastN, outputs.paused]).toEqual([15, true]);
    outputs.drop(15);
    expect(outputs.resume()).toBe(3);
    take(blockOf(history, 16, 20), 3);
    take(blockOf(history, 21, 22), 4);
    expect(outputs.lastN).toBe(22);
  });

  test('whatever gaps, repeats and bounds there are, reading on as told yields everything in order', () => {
    // A topic in which each block comes at least once, in any order, some twice; the last pass is in order, as after a replica's restart.
    const cuts = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(cuts, fc.array(fc.nat()), fc.integer({ min: 1, max: 20 }), (lengths, picks, keptMax) => {
        const blocks: OutputBlock[] = [];
        let n = 1;
        for (const length of lengths) {
          if (n + length > 60) break;
          blocks.push(blockOf(history, n, n + length - 1));
          n += length;
        }
        const topic = [...picks.map((pick) => blocks[pick % blocks.length]!), ...blocks];
        const { outputs } = track(keptMax);
        let expected = 1;
        let reads = 0;
        for (let offset = 0; offset < topic.length && reads < 100_000; reads++) {
          const taken = outputs.take(topic[offset]!, { offset, tail: emptyTail, nowMs: 0 });
          if (taken !== 'paused') offset++;
          for (let item = outputs.item(expected); item; item = outputs.item(expected)) {
            expect(item.output).toEqual(history[expected - 1]);
            outputs.drop(expected++);
          }
          offset = outputs.resume() ?? offset;
        }
        expect(expected).toBe(n);
      }),
    );
  });
});
