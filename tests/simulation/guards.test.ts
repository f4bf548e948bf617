/** The simulation bites: with one guard of the protocol switched off, some history soon goes wrong, and the checkers say how. */
import { describe, expect, test } from '@jest/globals';
import { Incarnations } from '../../core/aggregate/live.ts';
import { ReadBack } from '../../core/aggregate/read-back.ts';
import { Stream } from '../../core/buffer/stream.ts';
import { Comparison } from '../../core/feed/comparison.ts';
import { FeedPartition } from '../../core/feed/partition.ts';
import { type RawRecord, TailScan } from '../../core/feed/tail.ts';
import { Trial } from '../../core/judge/trial.ts';
import { Decoder } from '../../core/wire/decoder.ts';
import { otherReplica, type Replica } from '../../schemas/topics.ts';
import { drawScenario } from './scenario.ts';
import { World } from './world.ts';

const seedsMax = 40;
const faultyMs = 60_000;

/** The first violation that any seed shows. */
async function firstViolation(prepare?: (world: World) => void, isMeant: (seed: number) => boolean = () => true): Promise<string> {
  for (let seed = 1, runs = 0; runs < seedsMax; seed++) {
    if (!isMeant(seed)) continue;
    runs++;
    const { violations } = await new World({ seed, faultyMs, ...(prepare ? { prepare } : {}) }).run();
    if (violations[0]) return violations[0];
  }
  return 'none';
}

/** With another method or getter in place of a class's own. */
async function withPatch(owner: object, name: string, patch: PropertyDescriptor, action: () => Promise<string>): Promise<string> {
  const original = Object.getOwnPropertyDescriptor(owner, name);
  if (!original) throw new Error(`there is no ${name} to switch off`);
  Object.defineProperty(owner, name, { configurable: true, ...patch });
  try {
    return await action();
  } finally {
    Object.defineProperty(owner, name, original);
  }
}

describe('a guard switched off', () => {
  test('trimming what only one replica has acknowledged', async () => {
    const settled = {
      get(this: Stream) {
        return Math.min(Math.max(this.acknowledged.a, this.acknowledged.b), this.last);
      },
    };
    expect(await withPatch(Stream.prototype, 'settled', settled, () => firstViolation())).toMatch('I2');
  }, 120_000);

  test('never finding a batch missing', async () => {
    expect(await withPatch(Stream.prototype, 'judge', { value: () => false }, () => firstViolation())).toMatch('I14');
  }, 120_000);

  test('folding whatever comes', async () => {
    const last = { value: () => Number.NaN };
    expect(await withPatch(Incarnations.prototype, 'last', last, () => firstViolation())).not.toBe('none');
  }, 120_000);

  test("taking the client's word that outputs are written", async () => {
    type Sent = typeof ReadBack.prototype.sent;
    const sent = Object.getOwnPropertyDescriptor(ReadBack.prototype, 'sent')?.value as Sent;
    const trusting = {
      value(this: ReadBack, ...[blocks, endOffset, nowMs]: Parameters<Sent>) {
        sent.call(this, blocks, endOffset, nowMs);
        if (endOffset !== null) for (const { bytes } of blocks) this.take(bytes, nowMs);
      },
    };
    expect(await withPatch(ReadBack.prototype, 'sent', trusting, () => firstViolation())).toMatch('I3');
  }, 120_000);

  test('taking aborted records for the tail of aggregates', async () => {
    const take = Object.getOwnPropertyDescriptor(TailScan.prototype, 'take')?.value as (this: TailScan, record: RawRecord) => void;
    const trusting = {
      value(this: TailScan, record: RawRecord) {
        take.call(this, record);
        if (!record.marker) take.call(this, { ...record, marker: 'commit' });
      },
    };
    expect(await withPatch(TailScan.prototype, 'take', trusting, () => firstViolation())).not.toBe('none');
  }, 120_000);

  test('not fencing the older of two feeds', async () => {
    const unfenced = (world: World) => {
      const open = world.broker.openProducer.bind(world.broker);
      const producers = new Map<string, ReturnType<typeof open>>();
      world.broker.openProducer = (id) => {
        const producer = producers.get(id) ?? open(id);
        const { current } = producer.producer;
        if (current) world.broker.endTransaction(current, current.state === 'decided' ? 'commit' : 'abort');
        producers.set(id, producer);
        return producer;
      };
    };
    expect(await firstViolation(unfenced)).toMatch('I6');
  }, 120_000);

  test('forgetting where the exporters stood', async () => {
    expect(await withPatch(Decoder.prototype, 'restore', { value: () => undefined }, () => firstViolation())).toMatch('I14');
  }, 120_000);

  test('cutting outputs that only one replica has', async () => {
    const hasty = {
      value(this: FeedPartition) {
        const { a, b } = this.outputs;
        const [ofA, ofB] = [a.keepFrom(a.lastN ?? 0), b.keepFrom(b.lastN ?? 0)];
        return ofA === null || ofB === null ? null : { n: Math.max(a.lastN ?? 0, b.lastN ?? 0), a: ofA, b: ofB };
      },
    };
    expect(await withPatch(FeedPartition.prototype, 'cuttable', hasty, () => firstViolation())).toMatch('I18');
  }, 120_000);

  describe('with memory that is flipped', () => {
    const flipsOnly = (seed: number) => drawScenario(seed, faultyMs).strikes.some(({ fault }) => fault === 'flip');

    test('not comparing the replicas', async () => {
      const note = { value: () => undefined };
      expect(await withPatch(Comparison.prototype, 'note', note, () => firstViolation(undefined, flipsOnly))).toMatch('I6');
    }, 300_000);

    test('accusing whoever it is', async () => {
      const finding = Object.getOwnPropertyDescriptor(Trial.prototype, 'finding')?.value as typeof Trial.prototype.finding;
      const unjust = {
        value(this: Trial, replica: Replica) {
          return finding.call(this, otherReplica(replica));
        },
      };
      expect(await withPatch(Trial.prototype, 'finding', unjust, () => firstViolation(undefined, flipsOnly))).toMatch('I15');
    }, 300_000);

    test('a feed that goes on as if nothing had been judged', async () => {
      const judge = { value: () => undefined };
      expect(await withPatch(FeedPartition.prototype, 'judge', judge, () => firstViolation(undefined, flipsOnly))).toMatch('I14');
    }, 300_000);
  });
});
