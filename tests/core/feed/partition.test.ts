import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../adapters/digest.ts';
import { comparedOutputsMax } from '../../../core/feed/comparison.ts';
import { correctionOf } from '../../../core/feed/correction.ts';
import { type FeedOptions, FeedPartition, type Step } from '../../../core/feed/partition.ts';
import { decodeOutput, emptyTail, type Tail } from '../../../core/feed/tail.ts';
import { type Replica, replicas } from '../../../schemas/topics.ts';
import type { Output, Verdict } from '../../../schemas/types.ts';
import { verdict } from '../judge/verdict.ts';
import { blockOf, hex, historyOf } from './outputs.ts';

const history = historyOf(40);
const other = historyOf(40, 5);

const options: FeedOptions = {
  emit: 'elected',
  agreeWithinMs: 10_000,
  transactionOutputsMax: 10,
  transactionBytesMax: 1_000_000,
  standbyAfterMs: 3_000,
  chance: () => 0.5,
};

function tailAt(n: number, source = history): Tail {
  return n === 0 ? emptyTail : { n, chain: source[n - 1]!.chain, offset: n - 1, watermarkMs: 0 };
}

/** One partition with its logs beside it. */
class Scene {
  readonly feed: FeedPartition;
  nowMs = 1_000_000;
  /** What a committed reader has of aggregates. */
  readonly aggregates: Output[];
  #offsets = { a: 0, b: 0 };

  /** Active at the tail, both topics being read; what they hold at the start is up to `ends`. */
  constructor(changed: Partial<FeedOptions> = {}, tail = tailAt(0), ends = { a: 0, b: 0 }) {
    this.feed = new FeedPartition(0, { ...options, ...changed }, sha256);
    this.aggregates = history.slice(0, tail.n);
    expect(this.feed.next(this.nowMs)).toEqual({ do: 'open' });
    this.feed.open(tail, this.nowMs);
    for (const replica of replicas) {
      expect(this.feed.next(this.nowMs)).toEqual({ do: 'place', replica, fromStart: false });
      this.feed.placed(replica, true, ends[replica]);
      this.feed.outputs[replica].readTo(0);
    }
  }

  elect(leader: Replica): this {
    this.feed.elect(leader);
    return this;
  }

  gets(replica: Replica, firstN: number, lastN: number, source = history): this {
    this.feed.take(replica, blockOf(source, firstN, lastN), this.#offsets[replica]++, this.nowMs);
    return this;
  }

  judges(replica: Replica, facts: Partial<Verdict> = {}): this {
    this.feed.judge(replica, verdict({ replica, ...facts }), this.nowMs);
    return this;
  }

  /** The partition's writer is opened again, and the topics are read from their starts. */
  opens(n: number, source = history): this {
    while (this.next().do === 'wait') this.later(10);
    expect(this.next()).toEqual({ do: 'open' });
    this.feed.open(tailAt(n, source), this.nowMs);
    return this;
  }

  later(ms: number): this {
    this.nowMs += ms;
    return this;
  }

  next(): Step {
    return this.feed.next(this.nowMs);
  }

  /** Numbers of the outputs that are to be emitted now. */
  emits(): number[] {
    const step = this.next();
    return step.do === 'emit' ? step.messages.map(({ value }) => decodeOutput(value)!.n) : [];
  }

  readsBack(...outputs: Output[]): this {
    for (const output of outputs) this.feed.follow(output, this.aggregates.push(output) - 1, this.nowMs);
    return this;
  }

  get phase() {
    return this.feed.phase.name;
  }
}

describe('an active feed', () => {
  test('waits for the first election', () => {
    const scene = new Scene().gets('a', 1, 3).gets('b', 1, 3);
    expect(scene.emits()).toEqual([]);
    expect(scene.feed.describe()).toContain('election');
    expect(scene.elect('b').emits()).toEqual([1, 2, 3]);
  });

  test("emits the leader's outputs as they come, without the other", () => {
    const scene = new Scene().elect('a').gets('a', 1, 3);
    expect(scene.emits()).toEqual([1, 2, 3]);
  });

  test('writes one message for each output, keyed by its group', () => {
    const step = new Scene().elect('a').gets('a', 1, 1).next();
    if (step.do !== 'emit') throw new Error(step.do);
    expect(step.messages.map(({ key }) => key.toString())).toEqual(['src_account=acme-1;dst_account=unassigned']);
    expect(decodeOutput(step.messages[0]!.value)).toEqual(history[0]);
  });

  test('begins no second transaction before the first is read back', () => {
    const scene = new Scene({ transactionOutputsMax: 2 }).elect('a').gets('a', 1, 5);
    expect(scene.emits()).toEqual([1, 2]);
    expect(scene.readsBack(history[0]!).emits()).toEqual([]);
    expect(scene.readsBack(history[1]!).emits()).toEqual([3, 4]);
    expect([scene.feed.emitted, scene.feed.transactions]).toEqual([2, 1]);
  });

  test('cuts a transaction by bytes, but never to nothing', () => {
    const scene = new Scene({ transactionBytesMax: 1 }).elect('a').gets('a', 1, 5);
    expect(scene.emits()).toEqual([1]);
  });

  test('opens another writer when a transaction that succeeded is not read back', () => {
    const scene = new Scene().elect('a').gets('a', 1, 2);
    scene.emits();
    expect(scene.later(5_000).next()).toEqual({ do: 'wait' });
    scene.later(1).next();
    expect(scene.later(100).next()).toEqual({ do: 'open' });
    scene.feed.open(tailAt(0), scene.nowMs);
    expect(scene.emits()).toEqual([1, 2]);
  });

  test('opens another writer when aggregates has a gap', () => {
    const scene = new Scene().elect('a').gets('a', 1, 3);
    scene.emits();
    scene.readsBack(history[1]!);
    expect(scene.later(100).next()).toEqual({ do: 'open' });
    expect(scene.feed.tail?.n).toBe(0);
  });

  test('goes on at the other one after an election, without gap or repeat', () => {
    const scene = new Scene().elect('a').gets('a', 1, 3).gets('b', 1, 6);
    scene.emits();
    scene.readsBack(...history.slice(0, 3)).elect('b');
    expect(scene.emits()).toEqual([4, 5, 6]);
  });

  test('waits for a leader that does not have the next output yet', () => {
    const scene = new Scene({}, tailAt(4)).elect('b').gets('a', 1, 9).gets('b', 1, 3);
    expect(scene.emits()).toEqual([]);
    expect(scene.gets('b', 4, 5).emits()).toEqual([5]);
  });

  test('reads the replicas again when the tail turns out to be before what it thought', () => {
    const scene = new Scene().elect('a').gets('a', 1, 3);
    scene.emits();
    scene.readsBack(...history.slice(0, 3));
    scene.feed.fail(false, scene.nowMs);
    expect(scene.later(100).next()).toEqual({ do: 'open' });
    scene.feed.open(tailAt(1), scene.nowMs);
    expect(scene.next()).toEqual({ do: 'place', replica: 'a', fromStart: false });
  });

  test('tries again after a fault, later each time', () => {
    const scene = new Scene();
    const waits: number[] = [];
    for (let i = 0; i < 4; i++) {
      scene.feed.fail(false, scene.nowMs);
      const failedMs = scene.nowMs;
      while (scene.next().do === 'wait') scene.later(1);
      waits.push(scene.nowMs - failedMs);
    }
    expect(waits).toEqual([38, 75, 150, 300]);
  });
});

describe('aggregates has lost its end', () => {
  test('what the leader has no more is not waited for in silence', () => {
    const scene = new Scene({}, tailAt(5)).elect('a').gets('a', 10, 12).gets('b', 10, 12);
    expect(scene.emits()).toEqual([]);
    scene.later(9_000).next();
    expect(scene.feed.isStarved).toBe(false);
    scene.later(1_000).next();
    expect(scene.feed.isStarved).toBe(true);
    expect(scene.feed.describe()).toContain('aggregates ends with n 5, and what is left of aggregates.a begins with n 10');
  });

  test('what was swallowed, and is written again, is waited for', () => {
    const scene = new Scene({}, tailAt(5)).elect('a').gets('a', 10, 12);
    scene.next();
    expect(scene.later(20_000).gets('a', 6, 9).emits()).toEqual([6, 7, 8, 9, 10, 11, 12]);
    expect(scene.feed.isStarved).toBe(false);
  });
});

describe('two histories', () => {
  test('a replica that differs at an n that is not emitted yet holds the partition before it is', () => {
    const scene = new Scene().elect('a').gets('b', 1, 6, other).gets('a', 1, 6);
    expect(scene.emits()).toEqual([]);
    expect(scene.feed.phase).toEqual({
      name: 'held',
      divergence: { n: 5, between: ['a', 'b'], chains: [hex(history[4]!.chain), hex(other[4]!.chain)] },
    });
    expect(scene.feed.describe()).toBe(`held: a and b differ at n 5: chain ${hex(history[4]!.chain)} and chain ${hex(other[4]!.chain)}`);
  });

  test('a replica that differs at an n that was emitted holds the partition from there on', () => {
    const scene = new Scene().elect('a').gets('a', 1, 9);
    scene.emits();
    scene
      .readsBack(...history.slice(0, 9))
      .gets('a', 10, 12)
      .gets('b', 1, 6, other);
    expect(scene.phase).toBe('held');
    expect(scene.emits()).toEqual([]);
  });

  test('a new leader that does not continue what was emitted is never mixed in', () => {
    // It was behind for so long that nothing of it was compared with what was emitted: only the tail tells.
    const scene = new Scene({}, tailAt(8)).elect('b').gets('b', 9, 12, other);
    expect(scene.phase).toBe('held');
    expect(scene.emits()).toEqual([]);
  });

  test('a difference that was too long ago to be compared still shows when the leader is to be continued', () => {
    const long = historyOf(2 * comparedOutputsMax);
    const scene = new Scene({ transactionOutputsMax: 2 * comparedOutputsMax }).elect('a').readsBack(...long.slice(0, 1));
    for (let n = 1; n < long.length; n += 500) scene.gets('a', n, Math.min(n + 499, long.length), long);
    expect(scene.phase).toBe('standby');
    scene.readsBack(historyOf(2, 2)[1]!);
    while (scene.next().do === 'wait') scene.later(1_000);
    scene.feed.open({ ...tailAt(2, historyOf(2, 2)) }, scene.nowMs);
    expect(scene.phase).toBe('active');
    expect(scene.emits()).toEqual([]);
    expect(scene.feed.phase).toMatchObject({ name: 'held', divergence: { n: 2, between: ['a', 'aggregates'] } });
  });

  test('an election does not end it, nor a fault, nor a record of another feed, nor time', () => {
    const scene = new Scene().elect('a').gets('b', 1, 6, other).gets('a', 1, 6).elect('b');
    scene.feed.fail(true, scene.nowMs);
    scene.readsBack(history[0]!);
    scene.feed.open(tailAt(1), scene.nowMs);
    for (let i = 0; i < 100; i++) expect(scene.later(1_000).next()).toEqual({ do: 'wait' });
    expect(scene.phase).toBe('held');
    expect(scene.feed.positions()).toEqual({ a: null, b: null, aggregates: null });
  });

  test('a feed that starts finds the difference before it emits, whichever topic it reads first', () => {
    const scene = new Scene({}, tailAt(4), { a: 9, b: 9 }).elect('a').gets('a', 1, 9);
    expect(scene.emits()).toEqual([]);
    scene.gets('b', 1, 9, other);
    expect(scene.phase).toBe('held');
  });

  test('a feed that starts goes on without the other once its topic is read to where it ended', () => {
    const scene = new Scene({}, tailAt(4), { a: 9, b: 9 }).elect('a').gets('a', 1, 9).gets('b', 1, 6);
    expect(scene.emits()).toEqual([5, 6]);
    scene.readsBack(history[4]!, history[5]!).feed.outputs.b.readTo(9);
    expect(scene.emits()).toEqual([7, 8, 9]);
  });
});

describe('a verdict', () => {
  const held = () => new Scene().elect('a').gets('b', 1, 6, other).gets('a', 1, 6);

  test('lets a held partition go on with the sound leader, which waits for nobody', () => {
    for (const emit of ['elected', 'agreed'] as const) {
      const scene = new Scene({ emit }).elect('a').gets('b', 1, 6, other).gets('a', 1, 6);
      expect(scene.phase).toBe('held');
      expect(scene.judges('b').opens(0).emits()).toEqual([1, 2, 3, 4, 5, 6]);
    }
  });

  test('on the leader: nothing of it is emitted any more, and the other goes on after its election', () => {
    const scene = held().judges('a').opens(0);
    expect(scene.emits()).toEqual([]);
    expect(scene.elect('b').gets('b', 7, 8, other).emits()).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('bars the replica: what it still writes is neither read nor compared', () => {
    const scene = held().judges('b').opens(0).gets('b', 7, 9, other).gets('a', 7, 9);
    expect(scene.phase).toBe('active');
    expect(scene.feed.outputs.b).toMatchObject({ barred: true, lastN: null });
    scene.feed.forget(scene.nowMs);
    expect(scene.feed.outputs.b.barred).toBe(true);
  });

  test('that comes before the feed has found the difference keeps it from holding at all', () => {
    const scene = new Scene().elect('a').gets('b', 1, 6, other).judges('b').gets('a', 1, 6);
    expect(scene.emits()).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('is taken once, however often it is told', () => {
    const scene = held().judges('b').opens(0).judges('b').judges('b');
    expect(scene.phase).toBe('active');
    scene.judges('b', { epoch: 2, state: 'repaired', begins: 40 });
    expect(scene.next()).toEqual({ do: 'place', replica: 'b', fromStart: true });
    scene.feed.placed('b', true, 0);
    scene.feed.outputs.b.readTo(0);
    scene.judges('b', { epoch: 2, state: 'repaired', begins: 40 });
    expect(scene.next().do).toBe('emit');
  });

  test('does not let a partition go on when aggregates has something of the wrong history, and says so', () => {
    const scene = new Scene().elect('b').gets('b', 1, 6, other);
    scene.emits();
    scene.readsBack(...other.slice(0, 6)).gets('a', 1, 7);
    expect(scene.phase).toBe('held');
    scene.judges('b').elect('a');
    expect(scene.feed.phase).toMatchObject({ name: 'held', divergence: { n: 5, between: ['a', 'aggregates'] } });
    expect(scene.feed.describe()).toContain('was emitted although it is wrong: it is being corrected');
    expect(scene.later(100_000).emits()).toEqual([]);
  });

  test('a feed that starts when aggregates ends with the wrong history never emits the right one behind it', () => {
    const scene = new Scene({}, tailAt(6, other)).judges('b').elect('a').gets('a', 1, 9);
    expect(scene.emits()).toEqual([]);
    expect(scene.feed.describe()).toContain('was emitted although it is wrong: it is being corrected');
    const replacements = [{ replica: 'a', tail: { n: 6 }, verdict: { replica: 'b', n: 5 } }];
    expect(scene.next()).toMatchObject({ do: 'correct', replacements });
  });

  test('is not corrected before the sound one has come as far as what was emitted', () => {
    const scene = new Scene({}, tailAt(6, other)).judges('b').elect('a').gets('a', 1, 5);
    expect(scene.feed.next(scene.nowMs)).toEqual({ do: 'wait' });
    scene.gets('a', 6, 6);
    expect(scene.feed.next(scene.nowMs)).toMatchObject({ do: 'correct' });
    scene.feed.notCorrected('it is not there', scene.nowMs);
    expect(scene.feed.describe()).toContain('cannot be corrected: it is not there');
    expect([scene.next().do, scene.later(10_000).next().do]).toEqual(['wait', 'correct']);
  });

  test('a feed that follows takes a correction as a whole, and then the right history goes on', () => {
    const scene = new Scene({}, tailAt(6, other))
      .judges('b', { given_chain: other[4]!.chain, judged_chain: history[4]!.chain })
      .elect('a')
      .gets('a', 1, 9);
    const step = scene.feed.next(scene.nowMs);
    if (step.do !== 'correct') throw new Error(`${step.do} instead of a correction`);
    const records = correctionOf(other.slice(4, 6), history.slice(4, 6), step.replacements[0]!);
    for (const [i, record] of records.slice(0, -1).entries()) scene.feed.follow(record, 6 + i, scene.nowMs);
    expect(scene.feed.tail).toMatchObject({ n: 6, chain: other[5]!.chain });
    scene.feed.follow(records.at(-1)!, 5 + records.length, scene.nowMs);
    expect(scene.feed.tail).toMatchObject({ n: 6, chain: history[5]!.chain, offset: 5 + records.length });
    expect(scene.feed.phase.name).toBe('standby');
    scene.feed.follow(history[6]!, 6 + records.length, scene.nowMs);
    expect(scene.feed.tail).toMatchObject({ n: 7 });
    expect(scene.feed.corrections).toBe(1);
  });

  test('a replica that was repaired is read from its clean beginning, and compared again', () => {
    const repaired = () => {
      const scene = held().judges('b').opens(0).judges('b', { epoch: 2, state: 'repaired', begins: 40 });
      expect(scene.next()).toEqual({ do: 'place', replica: 'b', fromStart: true });
      scene.feed.placed('b', true, 0);
      scene.feed.outputs.b.readTo(0);
      return scene.gets('b', 1, 6);
    };
    const scene = repaired();
    expect(scene.emits()).toEqual([1, 2, 3, 4, 5, 6]);
    scene
      .readsBack(...history.slice(0, 6))
      .gets('b', 7, 8)
      .gets('a', 7, 8);
    expect(scene.emits()).toEqual([7, 8]);
    // The second fault is found like the first.
    const again = historyOf(40, 9);
    scene.gets('b', 9, 9, again).gets('a', 9, 9);
    expect(scene.feed.phase).toMatchObject({ name: 'held', divergence: { n: 9 } });
  });

  test('what a process that does not know of the repair still writes is dropped', () => {
    const scene = held().judges('b').opens(0).judges('b', { epoch: 2, state: 'repaired', begins: 40 });
    scene.next();
    scene.feed.placed('b', true, 0);
    scene.gets('b', 1, 6).gets('b', 5, 5, other).gets('b', 6, 8, other).gets('b', 7, 9, other).gets('b', 9, 9, other);
    expect(scene.phase).toBe('active');
    expect(scene.feed.outputs.b).toMatchObject({ lastN: 6, foreign: 2, invalid: 0 });
    scene.gets('b', 7, 8).gets('a', 7, 9);
    expect(scene.phase).toBe('active');
    expect(scene.feed.outputs.b).toMatchObject({ lastN: 8, foreign: 3 });
  });
});

describe('emit: agreed', () => {
  test('waits until both have an output', () => {
    const scene = new Scene({ emit: 'agreed' }).elect('a').gets('a', 1, 5);
    expect(scene.emits()).toEqual([]);
    expect(scene.gets('b', 1, 3).emits()).toEqual([1, 2, 3]);
  });

  test('goes on with the leader when the other does not come in time', () => {
    const scene = new Scene({ emit: 'agreed' }).elect('a').gets('a', 1, 5);
    expect(scene.later(9_999).emits()).toEqual([]);
    expect(scene.later(1).emits()).toEqual([1, 2, 3, 4, 5]);
  });

  test('emits nothing that the other contradicts', () => {
    const scene = new Scene({ emit: 'agreed' }).elect('a').gets('a', 1, 9).gets('b', 1, 9, other);
    expect(scene.later(60_000).emits()).toEqual([]);
    expect(scene.phase).toBe('held');
  });
});

describe('a feed that was fenced', () => {
  const fenced = (changed: Partial<FeedOptions> = {}) => {
    const scene = new Scene(changed).elect('a').gets('a', 1, 2);
    scene.emits();
    scene.feed.fail(true, scene.nowMs);
    return scene;
  };

  test('stands by and does not fence back', () => {
    const scene = fenced();
    expect(scene.phase).toBe('standby');
    expect(scene.next()).toEqual({ do: 'wait' });
  });

  test('takes over when n does not move though the leader has more', () => {
    const scene = fenced();
    scene.next();
    expect(scene.later(2_999).next()).toEqual({ do: 'wait' });
    expect(scene.later(1).next()).toEqual({ do: 'open' });
    scene.feed.open(tailAt(0), scene.nowMs);
    expect(scene.feed.takeOvers).toBe(1);
    expect(scene.emits()).toEqual([1, 2]);
  });

  test('leaves it to the other as long as n moves', () => {
    const scene = fenced().gets('a', 3, 30);
    for (let n = 1; n <= 20; n++) {
      expect(scene.later(2_000).next()).toEqual({ do: 'wait' });
      scene.readsBack(history[n - 1]!);
    }
    expect(scene.phase).toBe('standby');
  });

  test('has patience from when there is something to emit, not from when n last moved', () => {
    const scene = fenced().readsBack(history[0]!, history[1]!);
    scene.next();
    scene.later(3_600_000).next();
    scene.gets('a', 3, 3);
    expect(scene.next()).toEqual({ do: 'wait' });
    expect(scene.later(2_999).next()).toEqual({ do: 'wait' });
    expect(scene.later(1).next()).toEqual({ do: 'open' });
  });

  test('knows it without an error, from a record that it did not write', () => {
    const scene = new Scene().elect('a').readsBack(history[0]!);
    expect(scene.phase).toBe('standby');
    scene.feed.fail(false, scene.nowMs);
    expect(scene.phase).toBe('standby');
  });

  test('is more patient after each take-over that did not last, and no more so after one that did', () => {
    const scene = fenced();
    const patience: number[] = [];
    for (let i = 0; i < 6; i++) {
      patience.push(scene.feed.patienceMs);
      while (scene.next().do === 'wait') scene.later(10);
      scene.feed.open(tailAt(0), scene.nowMs);
      scene.feed.fail(true, scene.later(100).nowMs);
    }
    expect(patience).toEqual([3_000, 4_500, 7_500, 13_500, 25_500, 25_500]);
    while (scene.next().do === 'wait') scene.later(10);
    scene.feed.open(tailAt(0), scene.nowMs);
    scene.feed.fail(true, scene.later(600_000).nowMs);
    expect(scene.feed.patienceMs).toBe(3_000);
  });

  test('is more patient where opening a writer takes long: whoever takes over needs as long', () => {
    const scene = fenced();
    while (scene.next().do === 'wait') scene.later(10);
    scene.feed.open(tailAt(0), scene.later(5_000).nowMs);
    scene.feed.fail(true, scene.later(600_000).nowMs);
    expect(scene.feed.patienceMs).toBe(15_000);
    for (let i = 0; i < 3; i++) {
      while (scene.next().do === 'wait') scene.later(10);
      scene.feed.open(tailAt(0), scene.nowMs);
      scene.feed.fail(true, scene.later(600_000).nowMs);
    }
    expect(scene.feed.patienceMs).toBe(3_000);
  });

  test('opening again after a fault is a take-over as well: two that fence each other so become patient, too', () => {
    const scene = new Scene().elect('a').gets('a', 1, 2);
    const patience: number[] = [];
    for (let i = 0; i < 4; i++) {
      scene.feed.fail(false, scene.nowMs);
      while (scene.next().do === 'wait') scene.later(10);
      scene.feed.open(tailAt(0), scene.nowMs);
      scene.feed.fail(true, scene.later(100).nowMs);
      patience.push(scene.feed.patienceMs);
      while (scene.next().do === 'wait') scene.later(10);
      scene.feed.open(tailAt(0), scene.nowMs);
    }
    expect(patience).toEqual([4_500, 7_500, 13_500, 25_500]);
  });

  test('does not take over a partition that is held', () => {
    const scene = fenced().gets('a', 3, 6).gets('b', 1, 6, other);
    expect(scene.later(60_000).next()).toEqual({ do: 'wait' });
    expect(scene.phase).toBe('held');
  });
});

test('a later start reads again what both have and what was compared, not all', () => {
  const scene = new Scene().elect('a').gets('a', 1, 3).gets('a', 4, 6).gets('b', 1, 2).gets('b', 3, 5);
  scene.emits();
  scene.readsBack(...history.slice(0, 6));
  // Both have 5, which is in the second block of each.
  expect(scene.feed.positions()).toEqual({ a: 1, b: 1, aggregates: 5 });
});

describe('what is not needed any more', () => {
  const compared = () => new Scene().elect('a').gets('a', 1, 4).gets('a', 5, 6).gets('b', 1, 6);

  test('lies before the highest n that is emitted and that both have (G2)', () => {
    const scene = compared();
    expect(scene.feed.cuttable()).toBeNull();
    scene.emits();
    scene.readsBack(...history.slice(0, 6));
    // The client may still say that it was not committed.
    expect(scene.feed.cuttable()).toBeNull();
    scene.next();
    expect(scene.feed.cuttable()).toEqual({ n: 6, a: 1, b: 0 });
  });

  test('is not what was read of a transaction that was aborted all the same (K8)', () => {
    const scene = new Scene({ transactionOutputsMax: 2 }).elect('a').gets('a', 1, 2).gets('a', 3, 4).gets('b', 1, 4);
    expect(scene.emits()).toEqual([1, 2]);
    expect(scene.readsBack(...history.slice(0, 2)).emits()).toEqual([3, 4]);
    scene.readsBack(...history.slice(2, 4)).feed.fail(false, scene.nowMs);
    scene.opens(2);
    for (const replica of replicas) {
      expect(scene.next()).toMatchObject({ do: 'place', replica });
      scene.feed.placed(replica, true, 2);
    }
    scene.feed.take('a', blockOf(history, 1, 2), 0, scene.nowMs);
    scene.feed.take('b', blockOf(history, 1, 4), 0, scene.nowMs);
    scene.feed.take('a', blockOf(history, 3, 4), 1, scene.nowMs);
    expect(scene.feed.tail?.n).toBe(2);
    expect(scene.feed.cuttable()).toEqual({ n: 2, a: 0, b: 0 });
  });

  test('one that is behind keeps both', () => {
    const scene = new Scene().elect('a').gets('b', 1, 2).gets('a', 1, 4).gets('a', 5, 6);
    scene.emits();
    scene.readsBack(...history.slice(0, 6)).next();
    expect(scene.feed.cuttable()).toEqual({ n: 2, a: 0, b: 0 });
    scene.gets('b', 3, 5);
    expect(scene.feed.cuttable()).toEqual({ n: 5, a: 1, b: 1 });
  });

  test('is not known to a feed that stands by, nor of a partition that is held', () => {
    const scene = compared();
    scene.emits();
    scene.readsBack(...history.slice(0, 6)).gets('b', 5, 7, other);
    expect(scene.phase).toBe('held');
    expect(scene.feed.cuttable()).toBeNull();
    const fenced = compared();
    fenced.emits();
    fenced.readsBack(...history.slice(0, 6)).feed.fail(true, fenced.nowMs);
    expect(fenced.phase).toBe('standby');
    expect(fenced.feed.cuttable()).toBeNull();
  });
});

describe('the seam between two leaders', () => {
  test('is where the first output of the other one was written, whatever was under way at the election', () => {
    const scene = new Scene().elect('a').gets('a', 1, 5).gets('b', 1, 3);
    expect(scene.emits()).toEqual([1, 2, 3, 4, 5]);
    scene.elect('b').readsBack(...history.slice(0, 5));
    expect(scene.feed.seam).toBeNull();
    scene.gets('b', 4, 7);
    expect(scene.emits()).toEqual([6, 7]);
    expect(scene.feed.seam).toEqual({ from: 'a', to: 'b', n: 5 });
  });

  test('there is none while both elections are of one replica, nor after a transaction that comes to nothing', () => {
    const scene = new Scene().elect('a').gets('a', 1, 4).gets('b', 1, 4);
    expect(scene.emits()).toEqual([1, 2, 3, 4]);
    scene
      .readsBack(...history.slice(0, 4))
      .elect('b')
      .elect('a')
      .gets('a', 5, 5)
      .gets('b', 5, 5);
    expect(scene.emits()).toEqual([5]);
    expect(scene.feed.seam).toBeNull();
  });
});
