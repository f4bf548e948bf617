import { describe, expect, test } from '@jest/globals';
import { decide, decideDrill, type ElectOptions, type Heard, restMs } from '../../../core/elect/decide.ts';
import { Elections } from '../../../core/elect/elections.ts';
import { Hearing } from '../../../core/elect/hearing.ts';
import { Verdicts } from '../../../core/judge/verdicts.ts';
import type { Replica } from '../../../schemas/topics.ts';
import type { Election, Health, PartitionHealth, Verdict } from '../../../schemas/types.ts';
import { verdict } from '../judge/verdict.ts';

const options: ElectOptions = { silentAfterMs: 1_000, stalledAfterMs: 10_000, suspicionQuorum: 1 };
const startMs = 1_700_000_000_000;
const chain = Buffer.alloc(16, 7);

function part(facts: Partial<PartitionHealth> = {}): PartitionHealth {
  const preset = { partition: 0, next_offset: 100, end_offset: 100, lag_ms: 0, n: 50, chain, watermark_ms: 0, open_flows: 0 };
  return { ...preset, state: 'running', detail: '', ...facts };
}

function health(role: string, id: string, facts: Partial<Health> = {}): Health {
  const preset = { incarnation: `${id}-1`, at_ms: 0, started_ms: 0, ready: true, stopping: false, reasons: [], suspicions: [], copy: null };
  return { role, id, ...preset, partitions: [part()], ...facts };
}

function election(facts: Partial<Election> = {}): Election {
  return { partition: 0, epoch: 1, leader: 'a', previous: '', reason: 'initial', evidence: '', watchdog: 'w', at_ms: 0, ...facts };
}

/** One partition, both replicas heard now and equal, a leading, listening for long. */
class Scene {
  readonly hearing = new Hearing();
  readonly elections = new Elections();
  readonly verdicts = new Verdicts();
  nowMs = startMs;
  listeningSinceMs: number | null = startMs - 60_000;

  constructor(first: Election | null = election()) {
    if (first) this.elections.apply(first, startMs - 60_000);
    this.a().b().feed();
  }

  a(facts: Partial<PartitionHealth> = {}, of: Partial<Health> = {}): this {
    this.hearing.hear(health('aggregator', 'a', { partitions: [part(facts)], ...of }), this.nowMs);
    return this;
  }
  b(facts: Partial<PartitionHealth> = {}, of: Partial<Health> = {}): this {
    this.hearing.hear(health('aggregator', 'b', { partitions: [part(facts)], ...of }), this.nowMs);
    return this;
  }
  feed(facts: Partial<PartitionHealth> = {}): this {
    this.hearing.hear(health('feed', 'feed-1', { partitions: [part(facts)] }), this.nowMs);
    return this;
  }
  suspects(collector: string, ...names: string[]): this {
    const suspicions = names.map((replica) => ({ replica, partition: 0, since_ms: this.nowMs - 1_500 }));
    this.hearing.hear(health('collector', collector, { suspicions, partitions: [] }), this.nowMs);
    return this;
  }
  judges(replica: Replica, facts: Partial<Verdict> = {}): this {
    this.verdicts.apply(verdict({ replica, ...facts }));
    return this;
  }
  later(ms: number): this {
    this.nowMs += ms;
    return this;
  }
  decide(changed: Partial<ElectOptions> = {}) {
    const { hearing, elections, verdicts, listeningSinceMs } = this;
    const heard: Heard = { partitions: 1, hearing, elections, verdicts, listeningSinceMs };
    return decide(heard, { ...options, ...changed }, this.nowMs);
  }
  drill() {
    const { hearing, elections, verdicts, listeningSinceMs } = this;
    return decideDrill({ partitions: 1, hearing, elections, verdicts, listeningSinceMs }, options, 0, this.nowMs);
  }
  /** Carries out what is decided, as the log would. */
  elect() {
    const decided = this.decide();
    for (const proposal of decided) this.elections.apply(election(proposal), this.nowMs);
    return decided;
  }
}

describe('the first election of a partition', () => {
  test('takes a when both are heard and equally far', () => {
    expect(new Scene(null).decide()).toMatchObject([{ partition: 0, epoch: 1, leader: 'a', previous: '', reason: 'initial' }]);
  });

  test('takes the one that is further', () => {
    expect(new Scene(null).b({ n: 51 }).decide()).toMatchObject([{ leader: 'b', reason: 'initial' }]);
  });

  test('waits for the second replica no longer than the first may be silent', () => {
    const scene = new Scene(null).later(5_000).b();
    scene.listeningSinceMs = scene.nowMs - 500;
    expect(scene.decide()).toEqual([]);
    scene.listeningSinceMs = scene.nowMs - 1_001;
    expect(scene.decide()).toMatchObject([{ leader: 'b' }]);
  });

  test('waits while none is running', () => {
    expect(new Scene(null).a({ state: 'starting' }).b({ state: 'stopped' }).decide()).toEqual([]);
  });
});

describe('the leader is accused', () => {
  test('nothing is elected while all is well', () => {
    expect(new Scene().decide()).toEqual([]);
  });

  test('a silent leader is replaced by the eligible other', () => {
    const scene = new Scene().later(1_001).b();
    expect(scene.decide()).toMatchObject([{ epoch: 2, leader: 'b', previous: 'a', reason: 'silent' }]);
    expect(scene.decide()[0]?.evidence).toContain('a was last heard 1001 ms ago');
  });

  test('a leader that is silent for no longer than allowed stays', () => {
    expect(new Scene().later(1_000).b().decide()).toEqual([]);
  });

  test('a leader that speaks slowly lately gets more time, though not without end, and less again when it speaks as before', () => {
    const speaking = (everyMs: number, forMs: number, scene = new Scene()) => {
      for (let ms = 0; ms < forMs; ms += everyMs) scene.later(everyMs).a().b();
      return scene;
    };
    expect(speaking(100, 5_000).later(1_001).b().decide()).toMatchObject([{ reason: 'silent' }]);
    const slow = speaking(600, 5_000);
    expect(slow.later(1_500).b().decide()).toEqual([]);
    expect(slow.later(1).b().decide()).toMatchObject([{ reason: 'silent' }]);
    const slept = speaking(100, 1_000).later(9_000).a().b();
    expect(slept.later(2_000).b().decide()).toEqual([]);
    expect(slept.later(1).b().decide()).toMatchObject([{ reason: 'silent' }]);
    expect(speaking(100, 3_000, speaking(900, 1_800)).later(1_001).b().decide()).toMatchObject([{ reason: 'silent' }]);
  });

  test('a leader that was never heard is silent', () => {
    const scene = new Scene(null);
    scene.elections.apply(election(), scene.nowMs);
    const unheard = {
      partitions: 1,
      hearing: new Hearing(),
      elections: scene.elections,
      verdicts: new Verdicts(),
      listeningSinceMs: scene.nowMs - 2_000,
    };
    unheard.hearing.hear(health('aggregator', 'b'), scene.nowMs);
    expect(decide(unheard, options, scene.nowMs)).toMatchObject([
      { leader: 'b', reason: 'silent', evidence: expect.stringContaining('never heard') },
    ]);
  });

  test('a leader that stops cleanly is replaced at once', () => {
    expect(new Scene().a({}, { stopping: true }).decide()).toMatchObject([{ leader: 'b', reason: 'stopping' }]);
  });

  test('a leader that has stopped the partition is replaced at once', () => {
    expect(new Scene().a({ state: 'stopped', detail: 'nars was re-created' }).decide()).toMatchObject([
      { leader: 'b', reason: 'stopped', evidence: expect.stringContaining('nars was re-created') },
    ]);
  });

  test('a leader that stands still while the other goes on is stalled', () => {
    const scene = new Scene().a({ next_offset: 90 });
    for (let ms = 0; ms < 10_100; ms += 100) scene.later(100).a({ next_offset: 90 }).b();
    expect(scene.decide()).toMatchObject([{ leader: 'b', reason: 'stalled', evidence: expect.stringContaining('offset 90') }]);
  });

  test('a leader that goes on, however slowly, is not stalled', () => {
    const scene = new Scene();
    for (let i = 0; i < 40; i++)
      scene
        .later(900)
        .a({ next_offset: 50 + Math.floor(i / 10) })
        .b();
    expect(scene.decide()).toEqual([]);
  });

  test('two that stand at the same place are not stalled: there is nothing to gain', () => {
    const scene = new Scene();
    for (let i = 0; i < 40; i++) scene.later(900).a({ next_offset: 50 }).b({ next_offset: 50 });
    expect(scene.decide()).toEqual([]);
  });

  test('a leader whose outputs do not reach its topic is stalled, though it folds on', () => {
    const scene = new Scene();
    for (let i = 0; i < 20; i++)
      scene
        .later(600)
        .a({ n: 50, next_offset: 100 + i })
        .b({ n: 51 + i, next_offset: 100 + i });
    expect(scene.decide()).toMatchObject([{ leader: 'b', reason: 'stalled', evidence: expect.stringContaining('n 50') }]);
  });

  test('a leader that lost its state and folds all again keeps the feed waiting no longer than a stalled one', () => {
    const scene = new Scene();
    for (let i = 0; i < 20; i++) scene.later(600).a({ n: i, next_offset: i }, { incarnation: 'a-2' }).b();
    expect(scene.decide()).toMatchObject([{ leader: 'b', reason: 'stalled', evidence: expect.stringContaining('behind what is fed') }]);
  });

  test('a leader that starts for ever is stalled', () => {
    const scene = new Scene();
    for (let i = 0; i < 20; i++) scene.later(600).a({ state: 'starting' }, { incarnation: 'a-2' }).b();
    expect(scene.decide()).toMatchObject([{ leader: 'b', reason: 'stalled', evidence: expect.stringContaining('starting') }]);
  });

  test("a collector's suspicion makes the other one the leader", () => {
    expect(new Scene().suspects('c1', 'a').decide()).toMatchObject([
      { leader: 'b', reason: 'suspected', evidence: expect.stringContaining('stay out at c1') },
    ]);
  });

  test('as many collectors must suspect it as are asked for', () => {
    const scene = new Scene().suspects('c1', 'a');
    expect(scene.decide({ suspicionQuorum: 2 })).toEqual([]);
    expect(scene.suspects('c2', 'a').decide({ suspicionQuorum: 2 })).toMatchObject([{ leader: 'b', reason: 'suspected' }]);
  });

  test('a suspicion that is withdrawn, or of the other replica, accuses nobody', () => {
    expect(new Scene().suspects('c1', 'a').suspects('c1').decide()).toEqual([]);
    expect(new Scene().suspects('c1', 'b').decide()).toEqual([]);
  });

  test('a collector that is not heard any more accuses nobody', () => {
    expect(new Scene().suspects('c1', 'a').later(2_001).a().b().decide()).toEqual([]);
  });
});

describe('who is not elected', () => {
  const silentLeader = () => new Scene().later(1_001);

  test('nobody is elected that is behind the feed', () => {
    expect(silentLeader().b({ n: 49 }).decide()).toEqual([]);
  });

  test('nobody is elected that stands where the feed stands with another history', () => {
    expect(
      silentLeader()
        .b({ chain: Buffer.alloc(16, 8) })
        .decide(),
    ).toEqual([]);
  });

  test('nobody is elected that is silent, too', () => {
    expect(silentLeader().decide()).toEqual([]);
  });

  test('nobody is elected that is not running the partition', () => {
    expect(silentLeader().b({ state: 'starting' }).decide()).toEqual([]);
    expect(silentLeader().b({ state: 'stopped' }).decide()).toEqual([]);
    expect(silentLeader().b({ partition: 1 }).decide()).toEqual([]);
  });

  test('nobody is elected that stops', () => {
    expect(silentLeader().b({}, { stopping: true }).decide()).toEqual([]);
  });

  test('of two that are suspected neither is elected', () => {
    expect(new Scene().suspects('c1', 'a').suspects('c2', 'b').decide()).toEqual([]);
  });

  test('nobody is elected for a partition that is held', () => {
    expect(silentLeader().b().feed({ state: 'held' }).decide()).toEqual([]);
  });
});

describe('quarantine', () => {
  test('a leader in quarantine is replaced at once, though the partition is held and the last election was just now', () => {
    const scene = new Scene().later(1_001).b();
    scene.elect();
    scene.later(100).a().b().feed({ state: 'held' });
    expect(scene.judges('b').decide()).toMatchObject([{ epoch: 3, leader: 'a', previous: 'b', reason: 'quarantined' }]);
    expect(scene.decide()[0]?.evidence).toContain('b is in quarantine from n 5 on: compared');
  });

  test('a replica in quarantine is not elected, however healthy it says it is', () => {
    expect(new Scene().later(1_001).b().judges('b').decide()).toEqual([]);
    expect(new Scene(null).judges('a').b().decide()).toMatchObject([{ leader: 'b', reason: 'initial' }]);
  });

  test('one that was repaired is eligible again', () => {
    const scene = new Scene().judges('b').judges('b', { epoch: 2, state: 'repaired', begins: 7 });
    expect(scene.later(1_001).b().decide()).toMatchObject([{ leader: 'b', reason: 'silent' }]);
  });

  test('the sound one leads although acknowledgments of it stay out, but not while it is behind, silent or stopped', () => {
    const scene = () => new Scene().judges('a');
    expect(scene().suspects('c1', 'b').decide()).toMatchObject([{ leader: 'b', reason: 'quarantined' }]);
    expect(scene().b({ n: 49 }).decide()).toEqual([]);
    expect(scene().b({ state: 'disputed' }).decide()).toEqual([]);
    expect(scene().b({}, { stopping: true }).decide()).toEqual([]);
    expect(scene().later(1_001).decide()).toEqual([]);
  });

  test('of two in quarantine neither leads', () => {
    expect(new Scene().judges('a').judges('b').decide()).toEqual([]);
  });

  test('a leader that differs from its own outputs is replaced at once', () => {
    expect(new Scene().a({ state: 'disputed', detail: 'output 51' }).decide()).toMatchObject([{ leader: 'b', reason: 'stopped' }]);
  });
});

describe('who does not listen accuses nobody', () => {
  test('nothing is decided while health cannot be read', () => {
    const scene = new Scene().a({}, { stopping: true });
    scene.listeningSinceMs = null;
    expect(scene.decide()).toEqual([]);
  });

  test('silence counts only after listening for as long', () => {
    const scene = new Scene().later(60_000).b();
    scene.listeningSinceMs = scene.nowMs - 1_000;
    expect(scene.decide()).toEqual([]);
    scene.listeningSinceMs = scene.nowMs - 1_001;
    expect(scene.decide()).toMatchObject([{ leader: 'b', reason: 'silent' }]);
  });

  test('what a replica says of itself counts at once', () => {
    const scene = new Scene().a({}, { stopping: true });
    scene.listeningSinceMs = scene.nowMs;
    expect(scene.decide()).toMatchObject([{ reason: 'stopping' }]);
  });
});

describe('two accused in turn do not flap', () => {
  test('a leader that came back does not lead again by itself', () => {
    const scene = new Scene().later(1_001).b();
    scene.elect();
    for (let i = 0; i < 100; i++) expect(scene.later(200).a({ n: 60 }).b({ n: 60 }).elect()).toEqual([]);
    expect(scene.elections.leader(0)).toBe('b');
  });

  test('suspicions that go to and fro elect ever more seldom', () => {
    const scene = new Scene();
    const at: number[] = [];
    for (let ms = 0; ms < 120_000; ms += 100) {
      scene.later(100).a().b();
      scene.suspects('c1', scene.elections.leader(0)!);
      if (scene.elect().length > 0) at.push(scene.nowMs);
    }
    const between = at.slice(1).map((one, i) => one - at[i]!);
    expect(between).toEqual([5_000, 10_000, 20_000, 40_000]);
  });

  test('the death of the new leader is answered at once, even soon after an election', () => {
    const scene = new Scene();
    for (let ms = 0; ms < 1_100; ms += 100) scene.later(100).b();
    expect(scene.elect()).toMatchObject([{ leader: 'b' }]);
    for (let ms = 0; ms < 1_100; ms += 100) scene.later(100).a();
    expect(scene.elect()).toMatchObject([{ leader: 'a', previous: 'b', epoch: 3, reason: 'silent' }]);
  });

  test('the rest grows: between suspicions up to five minutes, for one that is known to be dead no longer than some seconds', () => {
    expect([0, 1, 2, 3, 20].map((lately) => restMs('suspected', lately))).toEqual([0, 5_000, 10_000, 20_000, 300_000]);
    expect([0, 1, 3, 4, 5, 40].map((lately) => restMs('silent', lately))).toEqual([0, 0, 0, 1_000, 2_000, 5_000]);
  });
});

test('a partition is decided by itself: another leader, another n, another accusation', () => {
  const scene = new Scene();
  scene.elections.apply(election({ partition: 1, leader: 'b' }), scene.nowMs);
  const stoppedIn1 = [part(), part({ partition: 1, state: 'stopped' })];
  scene.hearing.hear(health('aggregator', 'b', { partitions: stoppedIn1 }), scene.nowMs);
  scene.hearing.hear(health('aggregator', 'a', { partitions: [part(), part({ partition: 1 })] }), scene.nowMs);
  const { hearing, elections, verdicts, listeningSinceMs } = scene;
  const heard = { partitions: 2, hearing, elections, verdicts, listeningSinceMs };
  expect(decide(heard, options, scene.nowMs)).toMatchObject([{ partition: 1, leader: 'a', previous: 'b', reason: 'stopped' }]);
});

describe('a drill', () => {
  test('elects the other one though nobody accuses the leader', () => {
    expect(new Scene().decide()).toEqual([]);
    expect(new Scene().drill()).toEqual({
      partition: 0,
      epoch: 2,
      leader: 'b',
      previous: 'a',
      reason: 'drill',
      evidence: 'asked for by an operator; b was heard 0 ms ago at n 50, the feed is at n 50',
    });
  });

  test('is refused by the rules of any other election, and says why', () => {
    const refusal = (scene: Scene) => (scene.drill() as { refusal?: string }).refusal;
    expect(refusal(new Scene(null))).toMatch(/^there was no election yet/);
    expect(refusal(new Scene().feed({ state: 'held' }))).toMatch(/^it is held/);
    expect(refusal(new Scene().b({ n: 49 }))).toBe('b cannot take over from a: b was heard 0 ms ago at n 49, the feed is at n 50');
    expect(refusal(new Scene().b({ chain: Buffer.alloc(16, 9) }))).toMatch(/^b cannot take over from a/);
    expect(refusal(new Scene().b({ state: 'starting' }))).toBe('b cannot take over from a: b is starting');
    expect(refusal(new Scene().b({}, { stopping: true }))).toBe('b cannot take over from a: b says that it stops');
    expect(refusal(new Scene().later(1_001).a())).toBe('b cannot take over from a: b was last heard 1001 ms ago');
    expect(refusal(new Scene().judges('b'))).toMatch(/^b cannot take over from a: b is in quarantine/);
    expect(refusal(new Scene().suspects('c', 'b'))).toMatch(/^b cannot take over from a: acknowledgments of b stay out at c/);
  });

  test('lets no later election wait', () => {
    const scene = new Scene();
    for (const leader of ['b', 'a'] as const) {
      const epoch = (scene.elections.last(0)?.epoch ?? 0) + 1;
      scene.elections.apply(election({ epoch, leader, reason: 'drill' }), scene.nowMs);
    }
    expect(scene.elections.heardSince(0, 0)).toEqual([]);
    expect(scene.suspects('c', 'a').decide()).toMatchObject([{ leader: 'b', reason: 'suspected' }]);
  });
});
