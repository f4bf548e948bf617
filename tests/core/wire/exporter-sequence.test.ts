import { describe, expect, test } from '@jest/globals';
import { ExporterSequence } from '../../../core/wire/exporter-sequence.ts';

/** A sequence that is fed with [first unit, units] and, unless told, distinct datagrams one ms after the other. */
function following(sequence = new ExporterSequence()) {
  let exportMs = 1_000_000;
  let signature = 0;
  const take = (from: number, units: number, facts: { exportMs?: number; bootMs?: number; signature?: number } = {}) => {
    exportMs = facts.exportMs ?? exportMs;
    const arrival = { sequence: from >>> 0, exportMs, bootMs: facts.bootMs ?? Number.NaN, signature: facts.signature ?? ++signature };
    const isNew = sequence.arrive(arrival);
    return isNew ? { unsettled: sequence.settle(units, 0) } : undefined;
  };
  return { sequence, take };
}

describe('loss', () => {
  test('is what lies between the expected and the seen number', () => {
    const { sequence, take } = following();
    take(100, 10);
    take(110, 10);
    take(127, 10);
    expect(sequence.lost).toBe(7);
  });

  test('is nothing at the first datagram, and nothing when the number wraps at 2^32', () => {
    const { sequence, take } = following();
    take(2 ** 32 - 15, 10);
    take(2 ** 32 - 5, 10);
    take(5, 10);
    expect(sequence.lost).toBe(0);
  });

  test('over the wrap counts like any other', () => {
    const { sequence, take } = following();
    take(2 ** 32 - 5, 3);
    take(4, 1);
    expect(sequence.lost).toBe(6);
  });

  test('goes down again when a late datagram fills its gap', () => {
    const { sequence, take } = following();
    take(0, 10);
    take(30, 10);
    sequence.lost = 0;
    take(10, 10);
    expect(sequence.lost).toBe(-10);
    take(20, 10);
    expect(sequence.lost).toBe(-20);
    take(40, 10);
    expect(sequence.lost).toBe(-20);
    expect(sequence.restarts).toBe(0);
  });

  test('goes down once only for a late datagram that comes twice', () => {
    const { sequence, take } = following();
    take(0, 10);
    take(20, 10);
    take(10, 10, { signature: 77 });
    expect(take(10, 10, { signature: 77 })).toBeUndefined();
    expect(sequence.lost).toBe(0);
  });
});

describe('a duplicate', () => {
  test('is told by its number and its octets', () => {
    const { take } = following();
    take(0, 10, { signature: 1 });
    take(10, 10, { signature: 2 });
    expect(take(0, 10, { signature: 1 })).toBeUndefined();
    expect(take(0, 10, { signature: 3 })).toBeDefined();
  });
});

describe('a restart', () => {
  test('is told by an exporter that began later, and is no loss', () => {
    const { sequence, take } = following();
    take(1_000, 10, { bootMs: 0 });
    take(5_000, 10, { bootMs: 60_000, exportMs: 1_060_000 });
    take(5_010, 10, { bootMs: 60_000 });
    expect(sequence.lost).toBe(0);
    expect(sequence.restarts).toBe(1);
  });

  test('is not what the wrap of the uptime after 49.7 days looks like', () => {
    const { sequence, take } = following();
    take(1_000, 10, { bootMs: 0 });
    take(1_015, 10, { bootMs: 2 ** 32, exportMs: 1_000_100 });
    expect(sequence.lost).toBe(5);
    expect(sequence.restarts).toBe(0);
  });

  test('is told by a lower number exported later', () => {
    const { sequence, take } = following();
    take(1_000, 10, { exportMs: 1_000 });
    take(0, 10, { exportMs: 2_000 });
    take(12, 10, { exportMs: 2_000 });
    expect(sequence.restarts).toBe(1);
    expect(sequence.lost).toBe(2);
  });

  test('within one second is believed when the next datagram continues it', () => {
    const { sequence, take } = following();
    take(1_000, 10);
    take(0, 10);
    take(10, 10);
    take(25, 10);
    expect(sequence.restarts).toBe(1);
    expect(sequence.lost).toBe(5);
  });

  test('is told by a jump that nothing could count in the time', () => {
    const { sequence, take } = following();
    take(0, 10);
    take(1_500_000_000, 10);
    expect(sequence.lost).toBe(0);
    expect(sequence.restarts).toBe(1);
  });
});

test('an exporter that always sends the same number never shows a loss', () => {
  const { sequence, take } = following();
  for (let i = 0; i < 100; i++) expect(take(0, 10)).toBeDefined();
  expect(sequence.lost).toBe(0);
});

describe('records of sets without a template', () => {
  function waiting() {
    const sequence = new ExporterSequence();
    sequence.arrive({ sequence: 0, exportMs: 0, bootMs: Number.NaN, signature: 1 });
    const unsettled = sequence.settle(2, 20)!;
    const then = (from: number) => {
      sequence.arrive({ sequence: from, exportMs: 0, bootMs: Number.NaN, signature: 100 + from });
      sequence.settle(1, 0);
    };
    return { sequence, unsettled, then };
  }

  test('are not lost on the wire', () => {
    const { sequence, unsettled, then } = waiting();
    then(7);
    sequence.resolve(unsettled, 5, true);
    expect([sequence.lost, sequence.undecodable]).toEqual([0, 0]);
  });

  test('are told apart from a loss when the template comes', () => {
    const { sequence, unsettled, then } = waiting();
    then(10);
    expect(sequence.lost).toBe(0);
    sequence.resolve(unsettled, 5, true);
    expect([sequence.lost, sequence.undecodable]).toEqual([3, 0]);
  });

  test('are undecodable when it does not', () => {
    const { sequence, unsettled, then } = waiting();
    then(7);
    sequence.resolve(unsettled, 0, false);
    expect([sequence.lost, sequence.undecodable]).toEqual([0, 5]);
  });

  test('may be given up before the next datagram tells how many they were', () => {
    const { sequence, unsettled, then } = waiting();
    sequence.resolve(unsettled, 0, false);
    then(7);
    expect([sequence.lost, sequence.undecodable]).toEqual([0, 5]);
  });

  test('may be decoded before the next datagram comes', () => {
    const { sequence, unsettled, then } = waiting();
    sequence.resolve(unsettled, 5, true);
    then(8);
    expect([sequence.lost, sequence.undecodable]).toEqual([1, 0]);
  });

  test('are never more than their octets can hold: the rest is lost', () => {
    const { sequence, unsettled, then } = waiting();
    then(100);
    sequence.resolve(unsettled, 0, false);
    expect([sequence.lost, sequence.undecodable]).toEqual([78, 20]);
  });
});

describe('a stored position', () => {
  function restored(position: string) {
    const sequence = new ExporterSequence();
    expect(sequence.restore(position)).toBe(true);
    return following(sequence);
  }

  test('makes the first datagram after a crash tell the exact loss', () => {
    const before = following();
    before.take(0, 10);
    const position = before.sequence.position();
    before.take(10, 10);
    const after = restored(position);
    after.take(37, 10);
    expect(after.sequence.lost).toBe(27);
  });

  test('still knows the gaps, so that a late datagram fills one', () => {
    const before = following();
    before.take(0, 10);
    before.take(20, 10);
    const after = restored(before.sequence.position());
    after.take(10, 10);
    after.take(30, 10);
    expect(after.sequence.lost).toBe(-10);
  });

  test('counts what still waited for a template as undecodable', () => {
    const before = new ExporterSequence();
    before.arrive({ sequence: 0, exportMs: 0, bootMs: Number.NaN, signature: 1 });
    before.settle(2, 20);
    const open = before.position();
    before.arrive({ sequence: 7, exportMs: 0, bootMs: Number.NaN, signature: 2 });
    before.settle(1, 0);
    const attributed = before.position();
    const first = restored(open);
    first.take(7, 1);
    expect([first.sequence.lost, first.sequence.undecodable]).toEqual([0, 5]);
    const second = restored(attributed);
    second.take(8, 1);
    expect([second.sequence.lost, second.sequence.undecodable]).toEqual([0, 5]);
  });
});
