/** The real loop of the aggregators on a broker in memory. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../adapters/digest.ts';
import type { Logger, LogRecord } from '../../adapters/ports.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import { ackCodec, healthCodec, narBatchCodec, outputBlockCodec, snapshotChunkCodec } from '../../schemas/codec.ts';
import { adminCollector, outputTopic, type Replica, replicas, snapshotTopic, topics } from '../../schemas/topics.ts';
import type { Ack, FoldConfig, Health, NarBatch } from '../../schemas/types.ts';
import { Aggregator } from '../../services/aggregator/aggregator.ts';
import { batch, beginning, nar, second, standard, tick } from '../core/aggregate/log-of-batches.ts';
import { ModelClock, ProcessHandle } from '../simulation/model-clock.ts';
import { ModelBroker } from '../simulation/model-log.ts';

const settings = { ack_interval: 100, ack_repeat: 1_000, snapshot_idle: 5_000, health_interval: 200 };
const config: FoldConfig = { ...standard, window_ms: second, lateness_ms: 0, live_within_ms: 60 * second, snapshot_every: 10 };

let clock: ModelClock;
let broker: ModelBroker;
let logged: string[];

function begin(seed = 1, partitions = 1): void {
  clock = new ModelClock(seed);
  broker = new ModelBroker(clock, partitions);
  logged = [];
  for (let partition = 0; partition < partitions; partition++) send({ ...beginning(config), partition });
}

beforeEach(() => begin());

interface Started {
  readonly aggregator: Aggregator;
  readonly process: ProcessHandle;
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

function start(replica: Replica): Started {
  const process = new ProcessHandle(clock, replica);
  const stop = new AbortController();
  const quiet = () => undefined;
  const note = (facts: object, message: string) => logged.push(`${replica}: ${message} ${JSON.stringify(facts)}`);
  const logger: Logger = { debug: quiet, info: quiet, warn: quiet, error: note };
  const aggregator = new Aggregator({ replica, log: broker.connect(process), clock: process.clock, logger, digest: sha256, settings });
  return { aggregator, process, stop, ended: aggregator.run(stop.signal) };
}

function send(entry: NarBatch): void {
  broker.append(broker.partition('nars', entry.partition), [{ key: Buffer.from(entry.collector), value: narBatchCodec.encode(entry) }], null);
}

let sequences: Record<string, number> = {};
beforeEach(() => {
  sequences = {};
});

/** A collector's next batch, with one flow of now. */
function sendNext(collector = 'c1', partition = 0, change: Partial<NarBatch> = {}): void {
  const name = `${collector}/${partition}`;
  sequences[name] = (sequences[name] ?? 0) + 1;
  const now = clock.now();
  const nars = [nar({ time_flow_end_ms: now, time_received_ms: now })];
  send(batch({ collector, partition, sequence: sequences[name], watermark_ms: now, nars, ...change }));
}

const pass = (ms: number) => clock.run(clock.now() + ms);

/** A flow every 300 ms for so long. */
async function traffic(ms: number, partitions = [0]): Promise<void> {
  for (const untilMs = clock.now() + ms; clock.now() < untilMs; await pass(300)) for (const partition of partitions) sendNext('c1', partition);
}

const recordsOf = (topic: string, partition = 0): LogRecord[] => [...broker.partition(topic, partition).committed()];

/** What a reader that keeps n = last + 1 and drops the rest has read. */
function readable(replica: Replica, partition = 0): Buffer[] {
  const chains: Buffer[] = [];
  for (const { value } of recordsOf(outputTopic(replica).name, partition)) {
    for (const { n, chain } of outputBlockCodec.decode(value!).outputs) if (n === chains.length + 1) chains.push(Buffer.from(chain));
  }
  return chains;
}

/** The chains that one fold of the whole log gives, and n after each offset. */
function reference(partition = 0): { chains: Buffer[]; nAfter: number[] } {
  const fold = new Fold(partition, sha256);
  const chains: Buffer[] = [];
  const nAfter: number[] = [];
  for (const entry of recordsOf('nars', partition)) {
    for (const { outputs } of fold.step(entry).blocks) for (const { chain } of outputs) chains.push(Buffer.from(chain));
    nAfter.push(fold.n);
  }
  return { chains, nAfter };
}

function acks(replica: Replica): Ack[] {
  return Array.from({ length: topics.acks.partitions }, (_, partition) => recordsOf('acks', partition))
    .flat()
    .sort((a, b) => a.appendedMs - b.appendedMs)
    .map(({ value }) => ackCodec.decode(value!))
    .filter((ack) => ack.replica === replica);
}

const lastAck = (replica: Replica, collector = 'c1', partition = 0) =>
  acks(replica).findLast((ack) => ack.collector === collector && ack.partition === partition);

function snapshots(replica: Replica, partition = 0): number[] {
  const held = new Map<string, number>();
  for (const { key, value } of recordsOf(snapshotTopic(replica).name, partition)) {
    if (value) held.set(key!.toString(), snapshotChunkCodec.decode(value).offset);
    else held.delete(key!.toString());
  }
  return [...new Set(held.values())].sort((a, b) => a - b);
}

function lastHealth(replica: Replica): Health {
  const all = recordsOf('health').map(({ value }) => healthCodec.decode(value!));
  return all.findLast(({ id }) => id === replica)!;
}

const end = (partition = 0) => broker.partition('nars', partition).endOffset;

/** Every Ack, when it enters the log, only names what is readable in the own output topic. */
function watchAcks(): string[] {
  const violations: string[] = [];
  const folds = new Map<number, { fold: Fold; nAfter: number[] }>();
  const found = new Map<string, number>();
  const foldOn = (partition: number): number[] => {
    const known = folds.get(partition) ?? { fold: new Fold(partition, sha256), nAfter: [] };
    folds.set(partition, known);
    for (const { record } of broker.partition('nars', partition).entries.slice(known.nAfter.length)) {
      known.fold.step(record);
      known.nAfter.push(known.fold.n);
    }
    return known.nAfter;
  };
  broker.onAppend = (topic, partition, { value }) => {
    if (topic.startsWith('aggregates.')) {
      const name = `${topic}/${partition}`;
      for (const { n } of outputBlockCodec.decode(value!).outputs) if (n === (found.get(name) ?? 0) + 1) found.set(name, n);
    }
    if (topic !== 'acks') return;
    const ack = ackCodec.decode(value!);
    const due = foldOn(ack.partition)[ack.folded_offset - 1] ?? 0;
    const readableN = found.get(`aggregates.${ack.replica}/${ack.partition}`) ?? 0;
    if (readableN < due) violations.push(`${ack.replica} acknowledged offset ${ack.folded_offset}, which is n ${due}, with n ${readableN} readable`);
  };
  return violations;
}

function expectComplete(replica: Replica, partition = 0): void {
  const { chains } = reference(partition);
  const found = readable(replica, partition);
  expect(found.length).toBe(chains.length);
  expect(Buffer.concat(found).equals(Buffer.concat(chains))).toBe(true);
}

describe('an aggregator', () => {
  test('folds, writes, snapshots and acknowledges; a and b write the same bytes', async () => {
    start('a');
    start('b');
    await traffic(10_000);
    await pass(1_000);
    for (const replica of replicas) {
      expectComplete(replica);
      expect(lastAck(replica)).toMatchObject({
        topic_id: broker.topic('nars').id,
        folded_offset: end(),
        sequences: [{ sequence: sequences['c1/0'] }],
      });
      expect(lastAck(replica, adminCollector)?.sequences).toEqual([{ incarnation: 'v1', sequence: 1 }]);
      expect(broker.groupOffset(`flowledger-aggregator-${replica}`, 'nars', 0)).toBe(end());
    }
    expect(readable('a').length).toBeGreaterThan(10);
    const [a, b] = replicas.map((replica) => recordsOf(outputTopic(replica).name).map(({ value }) => value!));
    expect(Buffer.concat(a!).equals(Buffer.concat(b!))).toBe(true);
    expect(snapshots('a')).toEqual(snapshots('b'));
    expect(lastHealth('a')).toMatchObject({ ready: true, reasons: [], stopping: false });
    expect(lastHealth('a').partitions[0]).toMatchObject({
      next_offset: end(),
      end_offset: end(),
      lag_ms: 0,
      n: readable('a').length,
      state: 'running',
    });
  });

  test('keeps the newest three snapshots, at offsets that the fold decides', async () => {
    start('a');
    await traffic(20_000);
    const held = snapshots('a');
    expect(held).toHaveLength(3);
    for (const offset of held) expect(offset % config.snapshot_every).toBe(0);
  });

  test('takes a snapshot of a partition that falls idle', async () => {
    start('a');
    await traffic(1_000);
    await pass(settings.snapshot_idle + 2_000);
    expect(snapshots('a')).toEqual([end()]);
  });

  test('acknowledges nothing before the base (G7)', async () => {
    begin(2, 1);
    broker.createTopic('nars', 1);
    start('a');
    await traffic(2_000);
    expect(acks('a')).toEqual([]);
    expect(lastHealth('a').reasons[0]).toContain('flowledger topics');
    send(beginning(config));
    sequences = {};
    await traffic(2_000);
    expect(lastAck('a')).toMatchObject({ sequences: [{ sequence: sequences['c1/0'] }] });
    expect(lastHealth('a').ready).toBe(true);
  });

  test('acknowledges gaps, naming what it has (F4, G1), and repeats itself while idle', async () => {
    start('a');
    send(tick(5, clock.now(), { collector: 'c7' }));
    await pass(1_000);
    expect(lastAck('a', 'c7')).toMatchObject({ folded_offset: 2, sequences: [] });
    const count = acks('a').length;
    await pass(5_000);
    expect(acks('a').length).toBeGreaterThanOrEqual(count + 2 * 4);
  });

  test('stops cleanly: outputs, snapshot, Ack, and a last word', async () => {
    const { stop, ended } = start('a');
    await traffic(4_000);
    const endOffset = end();
    stop.abort();
    await pass(3_000);
    await ended;
    expect(lastAck('a')?.folded_offset).toBe(endOffset);
    expect(snapshots('a').at(-1)).toBe(endOffset);
    expect(lastHealth('a')).toMatchObject({ stopping: true, ready: false });
    expectComplete('a');
  });
});

describe('a restart', () => {
  test('goes on from the newest snapshot, writes nothing again that stands there, and acknowledges at once', async () => {
    const first = start('a');
    await traffic(8_000);
    first.process.kill();
    await pass(1_000);
    const written = recordsOf('aggregates.a').length;
    const acknowledged = acks('a').length;
    start('a');
    await pass(2_000);
    expect(recordsOf('aggregates.a').length).toBe(written);
    expect(acks('a').length).toBeGreaterThan(acknowledged);
    await traffic(5_000);
    await pass(1_000);
    expectComplete('a');
  });

  test('after every snapshot was lost folds from the beginning, to the same outputs', async () => {
    const first = start('a');
    await traffic(6_000);
    first.process.kill();
    broker.createTopic('snapshots.a', 1);
    start('a');
    await traffic(3_000);
    await pass(1_000);
    expectComplete('a');
    expect(recordsOf('aggregates.a').flatMap(({ value }) => outputBlockCodec.decode(value!).outputs)).toHaveLength(readable('a').length);
  });

  test("without a snapshot of its own, the log's head cut, takes the other's and copies the outputs that it lacks (F7)", async () => {
    const violations = watchAcks();
    start('b');
    const first = start('a');
    await traffic(3_000);
    first.process.kill();
    await traffic(10_000);
    broker.createTopic('snapshots.a', 1);
    const lacking = readable('b').length - readable('a').length;
    expect(lacking).toBeGreaterThan(5);
    broker.deleteRecords('nars', 0, snapshots('b')[0]! - 1);
    start('a');
    await traffic(3_000);
    await pass(2_000);
    expect(Buffer.concat(readable('a')).equals(Buffer.concat(readable('b')))).toBe(true);
    expect(lastAck('a')?.folded_offset).toBe(end());
    expect(violations).toEqual([]);
  });

  test('with nothing to begin with stops the partition and says what to do', async () => {
    await traffic(3_000);
    broker.deleteRecords('nars', 0, 5);
    start('a');
    await pass(1_000);
    expect(lastHealth('a').partitions[0]).toMatchObject({ state: 'stopped' });
    expect(lastHealth('a').reasons[0]).toMatch(/begins at offset 5.*backup/);
  });

  test('goes on where the head was cut at the record before its snapshot (G6)', async () => {
    const first = start('a');
    await traffic(8_000);
    first.process.kill();
    broker.deleteRecords('nars', 0, snapshots('a').at(-1)!);
    start('a');
    await traffic(2_000);
    await pass(1_000);
    expect(lastAck('a')?.folded_offset).toBe(end());
  });
});

describe('outputs that a client called written and that are not there', () => {
  test('are written again while running, and nothing is acknowledged before (F6)', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      begin(seed);
      sequences = {};
      const violations = watchAcks();
      start('a');
      Object.assign(broker.faults, { swallowed: 0.3, unknownLost: 0.05, repeated: 0.1 });
      await traffic(8_000);
      Object.assign(broker.faults, { swallowed: 0, unknownLost: 0, repeated: 0 });
      // An Ack that comes twice comes again within 15 s, and would be the last one for a moment.
      await pass(17_000);
      expect(violations).toEqual([]);
      expectComplete('a');
      expect(lastAck('a')?.folded_offset).toBe(end());
    }
  });
});

describe('a log that is not the one that was folded', () => {
  test('created anew while running: that partition stops, and says so', async () => {
    start('a');
    await traffic(4_000);
    broker.createTopic('nars', 1);
    await pass(8_000);
    expect(lastHealth('a').partitions[0]).toMatchObject({ state: 'stopped' });
    expect(lastHealth('a').reasons[0]).toMatch(/not the log that was folded any more.*flowledger base/);
    expect(logged[0]).toContain('partition stopped');
  });

  test('created anew, and grown as long, between a subscription and its first records: nothing of it is folded', async () => {
    const first = start('a');
    await traffic(6_000);
    await pass(2_000);
    first.process.kill();
    const before = broker.partition('aggregates.a', 0).endOffset;
    const second = start('a');
    await clock.runUntil(() => second.aggregator.partitions[0]?.isRunning === true, clock.now() + 10_000);
    const folded = second.aggregator.partitions[0]!.running!.fold.nextOffset;
    expect(folded).toBeGreaterThan(0);
    broker.createTopic('nars', 1);
    send(beginning(config));
    for (let count = 0; count < folded + 20; count++) sendNext('c1', 0);
    await pass(10_000);
    expect(lastHealth('a').partitions[0]).toMatchObject({ state: 'stopped', next_offset: folded });
    expect(broker.partition('aggregates.a', 0).endOffset).toBe(before);
  });

  test('created anew while away: that partition stops at the start', async () => {
    const first = start('a');
    await traffic(5_000);
    first.process.kill();
    broker.createTopic('nars', 1);
    send(beginning(config));
    start('a');
    await pass(2_000);
    expect(lastHealth('a').reasons[0]).toMatch(/not the log that was folded/);
    expect(lastHealth('a').partitions[0]).toMatchObject({ state: 'stopped' });
  });

  test('with another last record, or an end before it: that partition stops, the others go on', async () => {
    begin(3, 2);
    const first = start('a');
    await traffic(5_000, [0, 1]);
    first.process.kill();
    const { entries } = broker.partition('nars', 0);
    const [last] = snapshots('a').slice(-1);
    const entry = entries[last! - 1]!;
    entries[last! - 1] = { ...entry, record: { ...entry.record, value: narBatchCodec.encode(tick(77, 5)) } };
    start('a');
    await traffic(3_000, [1]);
    await pass(1_000);
    expect(lastHealth('a').partitions.map(({ state }) => state)).toEqual(['stopped', 'running']);
    expectComplete('a', 1);
  });

  test('an output of this n with another chain stops the partition: two folds of one log differ', async () => {
    begin(4, 2);
    start('a');
    await traffic(3_000, [0, 1]);
    const value = recordsOf('aggregates.a').at(-1)!.value!;
    const block = outputBlockCodec.decode(value);
    const n = readable('a').length + 1;
    const foreign = { ...block, first_n: n, outputs: [{ ...block.outputs[0]!, n, chain: Buffer.alloc(16, 1) }] };
    broker.append(broker.partition('aggregates.a', 0), [{ key: Buffer.from('0'), value: outputBlockCodec.encode(foreign) }], null);
    await traffic(3_000, [0, 1]);
    await pass(500);
    expect(lastHealth('a').partitions.map(({ state }) => state)).toEqual(['disputed', 'running']);
    expect(lastHealth('a').reasons[0]).toContain('two folds of one log differ');
  });
});

test('a configuration that needs a newer release stops the partition after what was folded is acknowledged', async () => {
  start('a');
  await traffic(3_000);
  const offset = end();
  send(batch({ collector: adminCollector, incarnation: 'v2', fold_config: { ...config, version: 2, fold_version: 9 } }));
  await traffic(3_000);
  expect(lastHealth('a').partitions[0]).toMatchObject({ state: 'stopped', next_offset: offset });
  expect(lastHealth('a').reasons[0]).toContain('upgrade');
  expect(lastAck('a')?.folded_offset).toBe(offset);
  expect(snapshots('a').at(-1)).toBe(offset);
});

describe('whatever happens', () => {
  test('the outputs of both are those of one fold of the log, and no Ack is ahead of them', async () => {
    for (let seed = 1; seed <= 25; seed++) {
      begin(seed, 2);
      sequences = {};
      const violations = watchAcks();
      const faults = {
        unavailable: 0.03,
        unknownAppended: 0.03,
        unknownLost: 0.03,
        unknownLate: 0.03,
        swallowed: 0.03,
        repeated: 0.03,
        readFault: 0.03,
      };
      Object.assign(broker.faults, faults);
      let running: Started[] = replicas.map(start);
      for (let round = 0; round < 12; round++) {
        await traffic(clock.chance.integer(300, 2_500), [0, 1]);
        if (clock.chance.happens(0.2)) broker.away(clock.chance.integer(100, 3_000));
        const index = clock.chance.integer(0, running.length - 1);
        const victim = running[index]!;
        const what = clock.chance.integer(0, 3);
        if (what === 0) victim.process.kill();
        if (what === 1) victim.stop.abort();
        if (what === 2) {
          // A zombie: it stands still, another takes its place, and it goes on for a while.
          victim.process.pause();
          clock.after(2_000, () => victim.process.resume());
          clock.after(6_000, () => victim.process.kill());
        }
        if (what !== 3) running[index] = start(replicas[index]!);
      }
      Object.assign(broker.faults, Object.fromEntries(Object.keys(faults).map((name) => [name, 0])));
      await traffic(2_000, [0, 1]);
      await pass(20_000);
      running = [];
      expect(violations).toEqual([]);
      expect(logged).toEqual([]);
      for (const replica of replicas) {
        for (const partition of [0, 1]) {
          expectComplete(replica, partition);
          expect(lastAck(replica, 'c1', partition)?.folded_offset).toBe(end(partition));
        }
      }
    }
  }, 120_000);
});
