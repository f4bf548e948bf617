import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { sha256 } from '../../../adapters/digest.ts';
import { Fold } from '../../../core/aggregate/fold.ts';
import type { Complaints } from '../../../core/judge/complaints.ts';
import { sentences, Trial } from '../../../core/judge/trial.ts';
import { foldStateCodec } from '../../../schemas/codec.ts';
import type { Replica } from '../../../schemas/topics.ts';
import type { NarBatch, OutputBlock } from '../../../schemas/types.ts';
import { batch, beginning, minute, nar, records, t0 } from '../aggregate/log-of-batches.ts';

/** A window a minute, with two groups in each. */
function logOf(minutes: number): NarBatch[] {
  const entries = [beginning()];
  for (let sequence = 1; sequence <= minutes; sequence++) {
    const endMs = t0 + sequence * minute;
    const nars = [
      nar({ time_flow_end_ms: endMs, time_received_ms: endMs }),
      nar({ time_flow_end_ms: endMs, src_port: 9, src_addr: Buffer.from([9, 9, 9, 9]) }),
    ];
    entries.push(batch({ sequence, watermark_ms: endMs, nars }));
  }
  return entries;
}

const log = records(logOf(30));

/** One bit of memory that is not what it was: one byte more for one group. */
function flipped(fold: Fold): Fold {
  const state = foldStateCodec.decode(fold.serialise());
  const [group] = state.open.flatMap(({ groups }) => groups);
  if (!group) throw new Error('nothing is open');
  group.bytes += 1n;
  return Fold.restore(foldStateCodec.encode(state), sha256);
}

/** What a replica writes whose state is flipped after so many records, its states after each record, and where its first wrong output is. */
function replica(flipAfter = Number.POSITIVE_INFINITY): { blocks: OutputBlock[]; states: Buffer[] } {
  let fold = new Fold(0, sha256);
  const states = [fold.serialise()];
  const blocks: OutputBlock[] = [];
  for (const [index, record] of log.entries()) {
    if (index === flipAfter) fold = flipped(fold);
    blocks.push(...fold.step(record).blocks);
    states.push(fold.serialise());
  }
  return { blocks, states };
}

const sound = replica();
const wrong = replica(12);
const firstWrong = sound.blocks.flatMap(({ outputs }) => outputs).findIndex(({ chain }, i) => !wrongChains()[i]?.equals(chain)) + 1;

function wrongChains(): Buffer[] {
  return wrong.blocks.flatMap(({ outputs }) => outputs.map(({ chain }) => Buffer.from(chain)));
}

function judge(topics: Record<Replica, readonly OutputBlock[]>, begins = 0, toOffset = log.length): Trial {
  const trial = new Trial(Fold.restore(sound.states[begins]!, sha256), sha256);
  let next = begins;
  const at = { a: 0, b: 0 };
  for (let want = trial.wants(); want !== null; want = trial.wants()) {
    if (want === 'nars') {
      if (next < toOffset) trial.takeNars(log[next++]!);
      else trial.endNars();
      continue;
    }
    const block = topics[want][at[want]++];
    if (block) trial.takeBlock(want, block);
    else trial.end(want);
  }
  return trial;
}

const quiet: Complaints = { held: true, disputed: [], barred: [], words: [] };

describe('a trial', () => {
  test('finds the first output of the replica whose state was flipped', () => {
    expect(firstWrong).toBeGreaterThan(20);
    const trial = judge({ a: sound.blocks, b: wrong.blocks });
    expect(trial.finding('a')).toBeNull();
    expect(trial.finding('b')).toMatchObject({ n: firstWrong });
    expect(sentences(trial, quiet)).toMatchObject([{ replica: 'b', n: firstWrong, sound: 'a', isConfirmed: true }]);
    expect(sentences(trial, quiet)[0]?.evidence).toContain(`of output ${firstWrong} b gave chain`);
  });

  test('is as right about a, and wherever it begins', () => {
    for (const begins of [0, 1, 7, 12]) {
      expect(sentences(judge({ a: wrong.blocks, b: sound.blocks }, begins), quiet)).toMatchObject([{ replica: 'a', n: firstWrong, sound: 'b' }]);
    }
  });

  test('folds no further than the outputs at hand', () => {
    const until = sound.blocks.filter(({ first_n }) => first_n < 20);
    const trial = judge({ a: until, b: until });
    expect(trial.n).toBe(until.flatMap(({ outputs }) => outputs).length);
    expect(trial.nextOffset).toBeLessThan(log.length);
  });

  test('finds nothing where nothing is wrong', () => {
    const trial = judge({ a: sound.blocks, b: sound.blocks.slice(0, -3) });
    expect(sentences(trial, quiet)).toEqual([]);
    expect(trial.agreedN('a')).toBeGreaterThan(trial.agreedN('b'));
  });

  test('of two that both differ, wherever each does, both are wrong, and neither is sound', () => {
    const other = replica(5);
    expect(sentences(judge({ a: wrong.blocks, b: other.blocks }), quiet)).toMatchObject([
      { replica: 'a', sound: null, isConfirmed: false },
      { replica: 'b', sound: null, isConfirmed: false },
    ]);
  });

  test('asks for a second trial where the other replica has not come so far', () => {
    const until = sound.blocks.filter(({ first_n, outputs }) => first_n + outputs.length <= firstWrong);
    expect(sentences(judge({ a: until, b: wrong.blocks }), quiet)).toMatchObject([{ replica: 'b', sound: 'a', isConfirmed: false }]);
  });

  test('concludes nothing from outputs that the log does not give yet', () => {
    expect(sentences(judge({ a: sound.blocks, b: wrong.blocks }, 0, 10), quiet)).toEqual([]);
  });

  test('judges a state that is wrong behind outputs that are right', () => {
    const trial = judge({ a: sound.blocks, b: sound.blocks });
    expect(sentences(trial, { ...quiet, held: false, disputed: ['b'] })).toMatchObject([{ replica: 'b', n: trial.n, given: null, sound: 'a' }]);
  });

  test('reads a topic that begins with a later output, its head being cut', () => {
    const cut = (blocks: readonly OutputBlock[], n: number) => blocks.filter(({ first_n }) => first_n >= n);
    expect(sentences(judge({ a: cut(sound.blocks, 9), b: cut(wrong.blocks, 6) }, 2), quiet)).toMatchObject([{ replica: 'b', n: firstWrong }]);
    // Where only what is behind the difference is left, what it continues tells.
    expect(sentences(judge({ a: sound.blocks, b: cut(wrong.blocks, firstWrong + 2) }), quiet)).toMatchObject([{ replica: 'b' }]);
  });

  test('passes over repeats, gaps, and blocks whose content does not give their chain', () => {
    const [one, two, three, ...rest] = sound.blocks as [OutputBlock, OutputBlock, OutputBlock];
    const broken = { ...two, outputs: two.outputs.map((output) => ({ ...output, aggregate: null })) };
    const topic = [one, three, one, broken, two, two, three, three, ...rest];
    const trial = judge({ a: topic, b: sound.blocks });
    expect([trial.finding('a'), trial.foreign('a')]).toEqual([null, null]);
    expect(trial.agreedN('a')).toBe(trial.n);
  });

  test('tells what is written beside the order from what is wrong in it', () => {
    const late = wrong.blocks.filter(({ first_n }) => first_n >= firstWrong);
    const trial = judge({ a: sound.blocks, b: [...sound.blocks, ...late] });
    expect(trial.finding('b')).toBeNull();
    expect(trial.foreign('b')).not.toBeNull();
    expect(sentences(trial, { ...quiet, held: false })).toEqual([]);
    expect(sentences(trial, quiet)).toMatchObject([{ replica: 'b', sound: 'a' }]);
    // A replica that is wrong in order is meant first.
    expect(sentences(judge({ a: wrong.blocks, b: [...sound.blocks, ...late] }), quiet)).toMatchObject([{ replica: 'a' }]);
  });

  test('whatever is flipped, whenever, and wherever it begins before: that replica and no other', () => {
    fc.assert(
      fc.property(fc.integer({ min: 3, max: 26 }), fc.integer({ min: 0, max: 26 }), fc.constantFrom<Replica>('a', 'b'), (flip, begins, name) => {
        fc.pre(begins <= flip);
        const topics = { a: sound.blocks, b: sound.blocks, [name]: replica(flip).blocks } as Record<Replica, OutputBlock[]>;
        expect(sentences(judge(topics, begins), quiet)).toMatchObject([{ replica: name, isConfirmed: true }]);
      }),
      { numRuns: 30 },
    );
  });
});
