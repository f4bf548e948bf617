/** A log that replaces another one: the real loops of both aggregators, a feed and the administration command on a broker in memory. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { runningSha256, sha256 } from '../../adapters/digest.ts';
import type { Logger, LogRecord } from '../../adapters/ports.ts';
import { ackCodec, electionCodec, healthCodec, narBatchCodec, outputBlockCodec, outputCodec, snapshotChunkCodec } from '../../schemas/codec.ts';
import { outputTopic, type Replica, replicas, snapshotTopic, topics } from '../../schemas/topics.ts';
import type { FoldConfig, Health, NarBatch, Output } from '../../schemas/types.ts';
import { Aggregator } from '../../services/aggregator/aggregator.ts';
import { beginLogs } from '../../services/cli/fold-config.ts';
import { awaitStop, isBegun, planSuccession, type Succession, writeSuccession } from '../../services/cli/succession.ts';
import { loadConfig } from '../../services/config.ts';
import { Feed } from '../../services/feed/feed.ts';
import { Judge } from '../../services/judge/judge.ts';
import { batch, beginning, nar, second, standard } from '../core/aggregate/log-of-batches.ts';
import { ModelClock, ProcessHandle } from '../simulation/model-clock.ts';
import { ModelBroker } from '../simulation/model-log.ts';

const config: FoldConfig = { ...standard, window_ms: second, lateness_ms: 0, live_within_ms: 60 * second, snapshot_every: 10 };
const quiet: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

let clock: ModelClock;
let broker: ModelBroker;
let sequence: number;
let sent: Buffer[];

beforeEach(() => {
  clock = new ModelClock(1);
  broker = new ModelBroker(clock, 1);
  sequence = 0;
  sent = [];
  send(beginning(config));
  const election = { partition: 0, epoch: 1, leader: 'a', previous: '', reason: 'operator', evidence: '', watchdog: 'test', at_ms: 0 };
  broker.append(broker.partition('elections', 0), [{ key: Buffer.from('0'), value: electionCodec.encode(election) }], null);
});

function send(entry: NarBatch): void {
  const value = narBatchCodec.encode(entry);
  if (entry.collector === 'c1') sent.push(value);
  broker.append(broker.partition('nars', 0), [{ key: Buffer.from(entry.collector), value }], null);
}

/** As a collector does, which has kept everything that both have not acknowledged, and more. */
function sendAgain(from: number): void {
  for (const value of sent.slice(from - 1)) broker.append(broker.partition('nars', 0), [{ key: Buffer.from('c1'), value }], null);
}

function parts(name: string) {
  const process = new ProcessHandle(clock, name);
  return { process, log: broker.connect(process), clock: process.clock, logger: quiet, digest: sha256 };
}

function startAggregator(replica: Replica): ProcessHandle {
  const { process, ...rest } = parts(replica);
  const settings = { ack_interval: 100, ack_repeat: 1_000, snapshot_idle: 60_000, health_interval: 200 };
  new Aggregator({ ...rest, replica, settings }).run(new AbortController().signal).catch(() => undefined);
  return process;
}

function startFeed(): void {
  const { process: _process, ...rest } = parts('feed');
  const settings = {
    id: 'feed-1',
    emit: 'elected' as const,
    agree_within: 5_000,
    history: 2_000,
    transaction_outputs_max: 2_000,
    standby_after: 3_000,
    health_interval: 250,
  };
  new Feed({ ...rest, settings }).run(new AbortController().signal).catch(() => undefined);
}

function startJudge(): void {
  const { process: _process, ...rest } = parts('judge');
  const settings = { id: 'judge-1', interval: 500, history: 0, held_after: 60_000, disk_size: 0, health_interval: 250 };
  new Judge({ ...rest, runningDigest: runningSha256, settings }).run(new AbortController().signal).catch(() => undefined);
}

const pass = (ms: number) => clock.run(clock.now() + ms);

async function traffic(ms: number): Promise<void> {
  for (const untilMs = clock.now() + ms; clock.now() < untilMs; await pass(300)) {
    const now = clock.now();
    const nars = [nar({ time_flow_end_ms: now, time_received_ms: now })];
    send(batch({ collector: 'c1', partition: 0, sequence: ++sequence, watermark_ms: now, nars }));
  }
}

const recordsOf = (topic: string): LogRecord[] => [...broker.partition(topic, 0).committed()];
const emitted = (): Output[] => recordsOf(topics.aggregates.name).map(({ value }) => outputCodec.decode(value!));
const flows = (outputs: readonly Output[]) => outputs.reduce((sum, { aggregate }) => sum + (aggregate?.flows ?? 0), 0);
const health = (replica: Replica): Health =>
  recordsOf('health')
    .map(({ value }) => healthCodec.decode(value!))
    .findLast(({ id }) => id === replica)!;

function outputs(replica: Replica): Output[] {
  const read: Output[] = [];
  const { startOffset } = broker.partition(outputTopic(replica).name, 0);
  for (const { value, offset } of recordsOf(outputTopic(replica).name)) {
    if (offset < startOffset) continue;
    for (const output of outputBlockCodec.decode(value!).outputs) if (output.n === (read.at(-1)?.n ?? output.n - 1) + 1) read.push(output);
  }
  return read;
}

/** Runs a command of the administration while the world goes on. */
async function command<Result>(run: () => Promise<Result>, withinMs = 120_000): Promise<Result> {
  let over = false;
  const running = run().finally(() => {
    over = true;
  });
  running.catch(() => undefined);
  await clock.runUntil(() => over, clock.now() + withinMs);
  return running;
}

const admin = () => {
  const { process: _process, ...rest } = parts('admin');
  return rest;
};

const plan = () => command(async () => (await planSuccession(admin(), 0)) as Succession);
const write = (succession: Succession) => command(() => writeSuccession(admin(), succession, 30_000));
const replaceNars = () => broker.createTopic('nars', 1);

function expectOneHistory(): void {
  const all = emitted();
  expect(all.map(({ n }) => n)).toEqual(all.map((_, index) => index + 1));
  const chains = new Map(all.map(({ n, chain }) => [n, Buffer.from(chain).toString('hex')]));
  for (const replica of replicas) {
    for (const { n, chain } of outputs(replica))
      if (chains.has(n)) expect([replica, n, Buffer.from(chain).toString('hex')]).toEqual([replica, n, chains.get(n)]);
  }
}

describe('nars is re-created', () => {
  test('both write where they stood, stop, and go on from the base without a new process', async () => {
    for (const replica of replicas) startAggregator(replica);
    startFeed();
    startJudge();
    await traffic(10_000);
    const before = sequence;
    replaceNars();
    await pass(8_000);
    for (const replica of replicas) {
      expect(health(replica).partitions[0]).toMatchObject({ state: 'stopped' });
      expect(health(replica).reasons.join()).toContain('flowledger base');
    }
    expect(await command(() => awaitStop(admin(), 0, 1_000))).toEqual([]);
    const succession = await plan();
    expect(succession.tail.n).toBe(emitted().length);
    expect(succession.chosen.n).toBeGreaterThanOrEqual(succession.tail.n);
    expect(succession.beyond).toEqual([]);
    // What comes before the base is not folded, and is sent again.
    sendAgain(before - 2);
    expect(await write(succession)).toEqual([]);
    expect(await command(() => isBegun(broker.connect(), 0))).toBe(true);
    expect(await command(() => planSuccession(admin(), 0))).toBeNull();
    sendAgain(before - 2);
    await traffic(10_000);
    await pass(2_000);
    expectOneHistory();
    expect(flows(emitted())).toBeGreaterThan(sequence - 10);
    expect(outputs('a').at(-1)!.n).toBe(outputs('b').at(-1)!.n);
    const acks = Array.from({ length: topics.acks.partitions }, (_, partition) => [...broker.partition('acks', partition).committed()]).flat();
    const last = acks.map(({ value }) => ackCodec.decode(value!)).findLast(({ collector }) => collector === 'c1')!;
    expect(last.topic_id).toBe(broker.topic('nars').id);
    expect(last.sequences).toContainEqual({ incarnation: 'i1', sequence });
    // The former log's snapshots are gone once both hold one of the present log.
    for (const replica of replicas) {
      const held = new Map<string, string>();
      for (const { key, value } of recordsOf(snapshotTopic(replica).name)) {
        if (value) held.set(key!.toString(), snapshotChunkCodec.decode(value).topic_id);
        else held.delete(key!.toString());
      }
      expect([...new Set(held.values())]).toEqual([broker.topic('nars').id]);
    }
  });

  test('one that was away takes the other one up, outputs and all', async () => {
    const processes = replicas.map(startAggregator);
    startFeed();
    await traffic(8_000);
    processes[1]!.kill();
    await traffic(3_000);
    replaceNars();
    await pass(8_000);
    const succession = await plan();
    expect(succession.chosen.replica).toBe('a');
    expect(await command(() => writeSuccession(admin(), succession, 8_000))).toEqual(['b']);
    startAggregator('b');
    sendAgain(1);
    await traffic(8_000);
    await pass(2_000);
    expectOneHistory();
    expect(outputs('a').at(-1)!.n).toBe(outputs('b').at(-1)!.n);
    expect(flows(emitted())).toBeGreaterThan(sequence - 10);
  });

  test('one that runs is waited for whatever its clock says, one that died is not', async () => {
    const a = startAggregator('a');
    a.skewMs = -60_000;
    const b = startAggregator('b');
    await traffic(4_000);
    b.kill();
    await traffic(1_000);
    replaceNars();
    expect(await command(() => awaitStop(admin(), 0, 20_000))).toEqual(['b']);
    expect(health('a').partitions[0]).toMatchObject({ state: 'stopped' });
    const succession = await plan();
    expect(succession.chosen).toMatchObject({ replica: 'a', n: outputs('a').at(-1)!.n });
  });

  test('a replica whose outputs go on beyond the base forgets them, and so does the feed', async () => {
    const processes = replicas.map(startAggregator);
    startFeed();
    await traffic(8_000);
    // a stands still; b goes on, and dies with outputs that no snapshot covers.
    processes[0]!.pause();
    await traffic(2_500);
    processes[1]!.kill();
    replaceNars();
    processes[0]!.resume();
    await pass(8_000);
    const succession = await plan();
    const beyond = outputs('b').at(-1)!.n;
    expect(succession.beyond).toEqual([{ replica: 'b', lastN: beyond }]);
    expect(succession.chosen.n).toBeLessThan(beyond);
    await command(() => writeSuccession(admin(), succession, 1_000));
    expect(outputs('b').at(-1)!.n).toBe(succession.chosen.n);
    startAggregator('b');
    await traffic(3_000);
    sendAgain(1);
    await traffic(8_000);
    await pass(3_000);
    expectOneHistory();
    expect(outputs('a').at(-1)!.n).toBe(outputs('b').at(-1)!.n);
    expect(emitted().length).toBeGreaterThan(succession.chosen.n + 5);
    expect(
      recordsOf('health')
        .map(({ value }) => healthCodec.decode(value!))
        .findLast(({ role }) => role === 'feed')?.partitions[0]?.state,
    ).toBe('running');
  });

  test('no base is written where nothing goes on from what is published', async () => {
    const processes = replicas.map(startAggregator);
    startFeed();
    await traffic(8_000);
    for (const process of processes) process.kill();
    await pass(3_000);
    replaceNars();
    const newest = Math.max(...recordsOf(snapshotTopic('a').name).flatMap(({ value }) => (value ? [snapshotChunkCodec.decode(value).n] : [])));
    expect(newest).toBeLessThan(emitted().length);
    await expect(plan()).rejects.toThrow(/no snapshot of the former log goes on from there .*behind the tail/);
    expect(broker.partition('nars', 0).endOffset).toBe(0);
  });

  test('the topics command writes no empty base over what was folded, and names the remedy', async () => {
    for (const replica of replicas) startAggregator(replica);
    await traffic(4_000);
    for (const replica of replicas) broker.createTopic(outputTopic(replica).name, 1);
    replaceNars();
    const { aggregate } = loadConfig({});
    await expect(command(() => beginLogs(broker.connect(), admin().clock, aggregate))).rejects.toThrow('flowledger base');
    expect(broker.partition('nars', 0).endOffset).toBe(0);
  });
});
