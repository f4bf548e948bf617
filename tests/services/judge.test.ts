/** The real loops of both aggregators and of a judge on a broker in memory. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { runningSha256, sha256 } from '../../adapters/digest.ts';
import type { Logger, LogRecord } from '../../adapters/ports.ts';
import { agreementCodec, healthCodec, narBatchCodec, snapshotChunkCodec } from '../../schemas/codec.ts';
import { type Replica, replicas, snapshotTopic, topics } from '../../schemas/topics.ts';
import type { Agreement, FoldConfig, NarBatch } from '../../schemas/types.ts';
import { Aggregator } from '../../services/aggregator/aggregator.ts';
import { Judge, type JudgeSettings } from '../../services/judge/judge.ts';
import { batch, beginning, nar, second, standard } from '../core/aggregate/log-of-batches.ts';
import { ModelClock, ProcessHandle } from '../simulation/model-clock.ts';
import { ModelBroker } from '../simulation/model-log.ts';

const config: FoldConfig = { ...standard, window_ms: second, lateness_ms: 0, live_within_ms: 60 * second, snapshot_every: 10 };
const standardSettings: JudgeSettings = {
  id: 'judge-1',
  interval: 500,
  history: 0,
  held_after: 5_000,
  disk_size: 0,
  health_interval: 250,
};
const quiet: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

let clock: ModelClock;
let broker: ModelBroker;
let sequence: number;

beforeEach(() => {
  clock = new ModelClock(1);
  broker = new ModelBroker(clock, 1);
  sequence = 0;
  send(beginning(config));
});

function send(entry: NarBatch): void {
  broker.append(broker.partition('nars', entry.partition), [{ key: Buffer.from(entry.collector), value: narBatchCodec.encode(entry) }], null);
}

function startAggregator(replica: Replica): ProcessHandle {
  const process = new ProcessHandle(clock, replica);
  const settings = { ack_interval: 100, ack_repeat: 1_000, snapshot_idle: 60_000, health_interval: 200 };
  const parts = { replica, log: broker.connect(process), clock: process.clock, logger: quiet, digest: sha256, settings };
  new Aggregator(parts).run(new AbortController().signal).catch(() => undefined);
  return process;
}

function startJudge(change: Partial<JudgeSettings> = {}): Judge {
  const process = new ProcessHandle(clock, 'judge');
  const settings = { ...standardSettings, ...change };
  const judge = new Judge({
    log: broker.connect(process),
    clock: process.clock,
    logger: quiet,
    digest: sha256,
    runningDigest: runningSha256,
    settings,
  });
  judge.run(new AbortController().signal).catch(() => undefined);
  return judge;
}

const pass = (ms: number) => clock.run(clock.now() + ms);

/** A flow every 300 ms for so long. */
async function traffic(ms: number): Promise<void> {
  for (const untilMs = clock.now() + ms; clock.now() < untilMs; await pass(300)) {
    const now = clock.now();
    const nars = [nar({ time_flow_end_ms: now, time_received_ms: now })];
    send(batch({ collector: 'c1', partition: 0, sequence: ++sequence, watermark_ms: now, nars }));
  }
}

const recordsOf = (topic: string): LogRecord[] => [...broker.partition(topic, 0).committed()];
const agreements = (): Agreement[] => recordsOf(topics.agreements.name).map(({ value }) => agreementCodec.decode(value!));
const narsStart = () => broker.partition('nars', 0).startOffset;

/** Offsets of the snapshots that stand in a replica's topic. */
function snapshots(replica: Replica): number[] {
  const held = new Map<string, number>();
  for (const { key, value } of recordsOf(snapshotTopic(replica).name)) {
    if (value) held.set(key!.toString(), snapshotChunkCodec.decode(value).offset);
    else held.delete(key!.toString());
  }
  return [...new Set(held.values())].sort((a, b) => a - b);
}

describe('the judge', () => {
  test('records what both hold, and cuts nars up to the record before it', async () => {
    for (const replica of replicas) startAggregator(replica);
    const judge = startJudge();
    await traffic(20_000);
    const last = agreements().at(-1)!;
    expect(last).toMatchObject({ partition: 0, topic_id: broker.topic('nars').id });
    for (const replica of replicas) expect(snapshots(replica)).toContain(last.offset);
    expect(last.offset).toBeGreaterThan(40);
    expect(narsStart()).toBe(last.offset - 1);
    expect(judge.heads[0]?.holdings).toEqual([]);
    expect(judge.readiness()).toEqual({ ready: true, reasons: [] });
  });

  test('two at a time do no harm', async () => {
    for (const replica of replicas) startAggregator(replica);
    startJudge();
    startJudge({ id: 'judge-2', interval: 700 });
    await traffic(20_000);
    const offsets = agreements().map(({ offset }) => offset);
    expect(offsets).toEqual([...offsets].sort((a, b) => a - b));
    expect(narsStart()).toBe(offsets.at(-1)! - 1);
  });

  test('cuts nothing that is younger than the history', async () => {
    for (const replica of replicas) startAggregator(replica);
    startJudge({ history: 8_000 });
    await traffic(20_000);
    const [first] = recordsOf('nars').filter(({ offset }) => offset >= narsStart());
    expect(narsStart()).toBeGreaterThan(10);
    expect(clock.now() - first!.appendedMs).toBeGreaterThanOrEqual(7_000);
    expect(narsStart()).toBeLessThan(agreements().at(-1)!.offset - 10);
  });

  test('a replica that is away holds the head back, its snapshots stay few, and the alarm names it', async () => {
    const processes = replicas.map(startAggregator);
    const judge = startJudge();
    await traffic(8_000);
    processes[1]!.kill();
    await pass(1_000);
    const agreed = agreements().at(-1)!.offset;
    await traffic(30_000);
    expect(agreements().at(-1)!.offset).toBe(agreed);
    expect(narsStart()).toBe(agreed - 1);
    expect(snapshots('a')).toHaveLength(4);
    expect(snapshots('a')).toContain(agreed);
    expect(judge.heads[0]?.holdings).toMatchObject([{ replica: 'b', offset: agreed }]);
    expect(judge.readiness().reasons).toEqual([expect.stringMatching(/aggregator b holds the head of nars\/0 back since .*start it/)]);
    const health = recordsOf('health').map(({ value }) => healthCodec.decode(value!));
    expect(health.findLast(({ role }) => role === 'judge')?.reasons).toHaveLength(1);
    startAggregator('b');
    await traffic(5_000);
    expect(agreements().at(-1)!.offset).toBeGreaterThan(agreed + 50);
    expect(judge.readiness().reasons).toEqual([]);
  });

  test('a snapshot whose state is not what its chunks say is not agreed on', async () => {
    for (const replica of replicas) startAggregator(replica);
    await traffic(10_000);
    const newest = snapshots('a').at(-1)!;
    for (const replica of replicas) {
      const topic = broker.partition(snapshotTopic(replica).name, 0);
      const { key, value } = recordsOf(topic.topic).findLast((record) => record.value && snapshotChunkCodec.decode(record.value).offset === newest)!;
      const chunk = snapshotChunkCodec.decode(value!);
      chunk.bytes[10]! ^= 1;
      broker.append(topic, [{ key, value: snapshotChunkCodec.encode(chunk) }], null);
    }
    const judge = startJudge();
    await pass(2_000);
    expect(agreements().map(({ offset }) => offset)).toEqual([newest - config.snapshot_every]);
    expect(judge.heads[0]?.counters.untrueSnapshots).toBe(2);
    expect(narsStart()).toBe(newest - config.snapshot_every - 1);
  });

  test('nothing is cut on the strength of an agreement in a log that was replaced', async () => {
    for (const replica of replicas) startAggregator(replica);
    startJudge({ history: 3_600_000 });
    await traffic(10_000);
    expect(agreements().length).toBeGreaterThan(0);
    expect(narsStart()).toBe(0);
    const entries = recordsOf('nars');
    broker.createTopic('nars', 1);
    for (const { key, value } of entries) broker.append(broker.partition('nars', 0), [{ key, value }], null);
    startJudge({ id: 'judge-2' });
    await pass(5_000);
    expect(narsStart()).toBe(0);
  });
});

describe('a snapshot', () => {
  test('is written again until it is read back', async () => {
    const { append } = broker;
    let swallowed = 0;
    const topicOf = (log: { topic: string }) => log.topic;
    broker.append = function (log, messages, transaction) {
      if (topicOf(log) === snapshotTopic('a').name && swallowed < 2) {
        swallowed++;
        return log.endOffset;
      }
      return append.call(this, log, messages, transaction);
    };
    startAggregator('a');
    await traffic(5_000);
    expect(swallowed).toBe(2);
    expect(snapshots('a').at(0)).toBe(config.snapshot_every);
  });
});
