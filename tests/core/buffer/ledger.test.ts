import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Ledger } from '../../../core/buffer/ledger.ts';
import { CopyModel, type SendOutcome } from './copy-model.ts';

type Step = (model: CopyModel) => void;

const outcomes: SendOutcome[] = ['appended', 'answer lost', 'swallowed', 'lost'];
const accept: Step = (model) => model.accept();
const harmless: Step[] = [
  accept,
  accept,
  accept,
  (model) => model.send(1),
  (model) => model.send(2),
  (model) => model.send(5),
  (model) => model.answer('appended'),
  (model) => model.answer('appended'),
  (model) => model.fold('a'),
  (model) => model.fold('b'),
  (model) => {
    model.fold('a');
    model.ack('a');
  },
  (model) => {
    model.fold('b');
    model.ack('b');
  },
  (model) => model.ack('a'),
  (model) => model.ack('b'),
  (model) => model.settle(),
  (model) => model.look(),
  (model) => model.learnLogEnd(),
  (model) => model.tick(),
];
const lies: Step[] = outcomes.map((outcome) => (model: CopyModel) => model.answer(outcome));
const crash: Step = (model) => model.crash();
const refold: Step = (model) => {
  model.folded.a = 0;
};
const away: Step[] = [
  (model) => {
    model.isAway = true;
  },
  (model) => model.back(),
];
const storeLoses: Step[] = [(model) => model.wipe(), (model) => model.goBack()];

function run(steps: readonly Step[], bound: number, mayLose: boolean): string[] {
  const model = new CopyModel(bound);
  for (const step of steps) step(model);
  model.calm();
  return model.audit(mayLose);
}

function holds(steps: readonly Step[], bound = 1e9, mayLose = false): void {
  const choices = fc.array(fc.nat(steps.length - 1), { maxLength: 150, size: 'max' });
  const walk = (picks: number[]) =>
    expect(
      run(
        picks.map((pick) => steps[pick] as Step),
        bound,
        mayLose,
      ),
    ).toEqual([]);
  fc.assert(fc.property(choices, walk), { numRuns: Number(process.env['RUNS'] ?? 300) });
}

describe('everything accepted is in the log exactly once, and nothing is trimmed that both replicas have not acknowledged', () => {
  test('without faults', () => holds(harmless));
  test('with appends that are unknown, lost, or confirmed without being done, and replicas that fold again', () =>
    holds([...harmless, ...lies, refold]));
  test('with crashes of the collector', () => holds([...harmless, ...lies, crash, refold]));
  test('with the store away', () => holds([...harmless, ...lies, ...away]));
  test('with the store away and crashes', () => holds([...harmless, ...lies, ...away, crash]));
  test('with a store at its bound: a loss is reported, never silent', () => holds([...harmless, ...lies, crash], 3, true));
  test('with a store that loses its tail or everything: what it lost may be missing, nothing else, and nothing twice', () =>
    holds([...harmless, ...lies, crash, ...storeLoses], 1e9, true));
  test('with all of it', () => holds([...harmless, ...lies, crash, refold, ...away, ...storeLoses], 3, true));
});

const bytes = new Uint8Array(10);
const batch = (sequence: number, nars = 1) => ({
  partition: 0,
  sequence,
  goodbye: false,
  watermarkMs: sequence,
  nars,
  holdings: [],
  value: bytes,
  totals: bytes,
});
const limits = { messagesMax: 10, bytesMax: 1e6, storeThere: true };

function ledgerWith(count: number): Ledger {
  const ledger = new Ledger({ partitions: 1, suspicionAfterMs: 1500, cacheBytesMax: 1e6 });
  ledger.topic('t');
  ledger.hearing(0);
  const stream = ledger.open('i', 0, false);
  for (let sequence = 1; sequence <= count; sequence++) ledger.keep(stream, batch(sequence), 'store', 0);
  return ledger;
}

function send(ledger: Ledger, baseOffset: number, nowMs = 0): number {
  const plan = ledger.plan(0, limits);
  if (!plan) return 0;
  ledger.sent(plan, baseOffset, nowMs);
  return plan.items.length;
}

function ack(ledger: Ledger, replica: 'a' | 'b', sequence: number, foldedOffset: number, nowMs = 0, topicId = 't'): void {
  ledger.ack({ replica, partition: 0, topicId, foldedOffset, sequences: new Map([['i', sequence]]) }, nowMs);
}

describe('go-back-N', () => {
  test('lag alone never sends again', () => {
    const ledger = ledgerWith(3);
    expect(send(ledger, 10)).toBe(3);
    ack(ledger, 'a', 1, 11);
    ack(ledger, 'b', 0, 10);
    expect(ledger.plan(0, limits)).toBeNull();
  });

  test('what one replica folded past without having it goes again, with all after it, once', () => {
    const ledger = ledgerWith(3);
    send(ledger, 10);
    ack(ledger, 'a', 1, 12);
    const plan = ledger.plan(0, limits);
    expect(plan?.items.map(({ sequence }) => sequence)).toEqual([2, 3]);
    ack(ledger, 'a', 1, 20);
    expect(ledger.plan(0, limits)).toBeNull();
    ledger.sent(plan!, 30, 0);
    ack(ledger, 'a', 1, 30);
    expect(ledger.plan(0, limits)).toBeNull();
    expect(ledger.counters.resends).toBe(1);
  });

  test("A's sequence is never held against B's offset", () => {
    const ledger = ledgerWith(1);
    send(ledger, 10);
    ack(ledger, 'a', 0, 5);
    ack(ledger, 'b', 1, 20);
    expect(ledger.plan(0, limits)).toBeNull();
  });

  test('an acknowledgment of another topic id says nothing about offsets', () => {
    const ledger = ledgerWith(1);
    send(ledger, 10);
    ack(ledger, 'a', 0, 100, 0, 'older');
    expect(ledger.plan(0, limits)).toBeNull();
  });

  test('a replaced topic makes unsent what both have not acknowledged', () => {
    const ledger = ledgerWith(3);
    send(ledger, 10);
    ack(ledger, 'a', 3, 13);
    ack(ledger, 'b', 1, 11);
    ledger.topic('u');
    expect(ledger.plan(0, limits)?.items.map(({ sequence }) => sequence)).toEqual([2, 3]);
  });

  test('a trimmed sequence that a replica misses is stood for by a tombstone of unknown size', () => {
    const ledger = ledgerWith(3);
    send(ledger, 10);
    ack(ledger, 'a', 2, 12);
    ack(ledger, 'b', 2, 12);
    ack(ledger, 'a', 0, 20);
    expect(ledger.plan(0, limits)?.items.map(({ sequence, through, from }) => [sequence, through, from])).toEqual([
      [1, 2, 'unheld'],
      [3, 3, 'store'],
    ]);
  });

  test('an incarnation that no Ack names stands at 0', () => {
    const ledger = ledgerWith(1);
    send(ledger, 10);
    ledger.ack({ replica: 'b', partition: 0, topicId: 't', foldedOffset: 11, sequences: new Map() }, 0);
    expect(ledger.plan(0, limits)?.items.length).toBe(1);
  });
});

describe('suspicion', () => {
  test('of the replica whose acknowledgments stay out, not of the other', () => {
    const ledger = ledgerWith(1);
    send(ledger, 10, 1000);
    ack(ledger, 'a', 1, 11, 1100);
    expect(ledger.suspicions(2499)).toEqual([]);
    expect(ledger.suspicions(2500)).toEqual([{ replica: 'b', partition: 0, sinceMs: 1000 }]);
    ack(ledger, 'b', 1, 11, 2600);
    expect(ledger.suspicions(9000)).toEqual([]);
  });

  test('not of one that lags and makes headway, but of one that repeats itself', () => {
    const ledger = ledgerWith(1);
    send(ledger, 10, 1000);
    ack(ledger, 'a', 1, 11, 1100);
    ack(ledger, 'b', 0, 5, 2400);
    expect(ledger.suspicions(3000)).toEqual([]);
    ack(ledger, 'b', 0, 5, 3900);
    expect(ledger.suspicions(3900)).toEqual([{ replica: 'b', partition: 0, sinceMs: 2400 }]);
  });

  test('not of anybody while the acknowledgments cannot be read', () => {
    const ledger = ledgerWith(1);
    send(ledger, 10, 1000);
    ledger.hearing(null);
    expect(ledger.suspicions(9000)).toEqual([]);
    ledger.hearing(9000);
    expect(ledger.suspicions(10_000)).toEqual([]);
    expect(ledger.suspicions(10_500).length).toBe(2);
  });
});

describe('release at the bound', () => {
  test('only what Kafka confirmed, from the oldest on', () => {
    const ledger = ledgerWith(3);
    const plan = ledger.plan(0, { ...limits, messagesMax: 2 })!;
    ledger.sent(plan, 10, 0);
    const before = ledger.bytes.store;
    const points = ledger.releasable('store', 1e6);
    expect(points.map(({ through }) => through)).toEqual([2]);
    for (const { stream, through } of points) ledger.released(stream, through, 'store');
    expect(before - ledger.bytes.store).toBe(20);
    ack(ledger, 'a', 0, 20);
    expect(ledger.plan(0, limits)?.items.map(({ from }) => from)).toEqual(['totals', 'totals', 'value']);
  });

  test('the bytes come back to zero when all is acknowledged', () => {
    const ledger = ledgerWith(3);
    send(ledger, 10);
    for (const { stream, through } of ledger.releasable('store', 1)) ledger.released(stream, through, 'store');
    ack(ledger, 'a', 3, 13);
    ack(ledger, 'b', 3, 13);
    expect(ledger.bytes).toEqual({ store: 0, memory: 0 });
  });
});
