/** The real loops of everybody whom a wrong replica concerns, on a broker in memory: what one of them has folded is changed in its memory. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { runningSha256, sha256 } from '../../adapters/digest.ts';
import type { Ledger } from '../../adapters/ledger.ts';
import { openLedger } from '../../adapters/ledger-sqlite.ts';
import type { Logger, LogRecord } from '../../adapters/ports.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import { readSeam } from '../../core/feed/seam.ts';
import { enter, newBooking } from '../../core/ledger/book.ts';
import { healthCodec, narBatchCodec, outputBlockCodec, outputCodec, snapshotChunkCodec, verdictCodec } from '../../schemas/codec.ts';
import { otherReplica, outputTopic, type Replica, replicas, snapshotTopic, topics } from '../../schemas/topics.ts';
import type { FoldConfig, Health, NarBatch, Output, SnapshotChunk, Verdict } from '../../schemas/types.ts';
import { Accounting } from '../../services/accounting/accounting.ts';
import { Aggregator } from '../../services/aggregator/aggregator.ts';
import { Feed } from '../../services/feed/feed.ts';
import { Judge } from '../../services/judge/judge.ts';
import { Watchdog } from '../../services/watchdog/watchdog.ts';
import { batch, beginning, nar, second, standard } from '../core/aggregate/log-of-batches.ts';
import { flip } from '../flip.ts';
import { ModelClock, ProcessHandle } from '../simulation/model-clock.ts';
import { ModelBroker } from '../simulation/model-log.ts';

const config: FoldConfig = { ...standard, window_ms: second, lateness_ms: 0, live_within_ms: 60 * second, snapshot_every: 10 };

interface Started {
  readonly process: ProcessHandle;
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

let clock: ModelClock;
let broker: ModelBroker;
let logged: string[];
let sequence: number;
let aggregators: Partial<Record<Replica, Aggregator>>;
let processes: Map<string, Started>;

function begin(seed: number): void {
  clock = new ModelClock(seed);
  broker = new ModelBroker(clock, 1);
  logged = [];
  sequence = 0;
  aggregators = {};
  processes = new Map();
  send(beginning(config));
}

beforeEach(() => begin(1));

type Parts = Pick<ConstructorParameters<typeof Judge>[0], 'log' | 'clock' | 'logger' | 'digest'>;

function start(name: string, run: (parts: Parts, signal: AbortSignal) => Promise<void>): void {
  const process = new ProcessHandle(clock, name);
  const stop = new AbortController();
  const quiet = () => undefined;
  const note = (facts: object, message: string) => logged.push(`${name}: ${message} ${JSON.stringify(facts)}`);
  const logger: Logger = { debug: quiet, info: quiet, warn: note, error: note };
  const ended = run({ log: broker.connect(process), clock: process.clock, logger, digest: sha256 }, stop.signal);
  ended.catch((error) => logged.push(`${name} ended: ${error.stack}`));
  processes.set(name, { process, stop, ended });
}

function startAggregator(replica: Replica): void {
  const settings = { ack_interval: 100, ack_repeat: 1_000, snapshot_idle: 5_000, health_interval: 200 };
  start(replica, (parts, signal) => {
    const aggregator = new Aggregator({ ...parts, replica, settings });
    aggregators[replica] = aggregator;
    return aggregator.run(signal);
  });
}

function startJudge(id = 'judge-1'): void {
  const settings = { id, interval: 1_000, history: 3_600_000, held_after: 60_000, disk_size: 0, health_interval: 250 };
  start(id, (parts, signal) => new Judge({ ...parts, runningDigest: runningSha256, settings }).run(signal));
}

function startFeed(id: string, emit: 'elected' | 'agreed'): void {
  const settings = {
    id,
    emit,
    agree_within: 5_000,
    transaction_outputs_max: 2_000,
    standby_after: 3_000,
    history: 3_600_000,
    health_interval: 250,
  };
  start(id, (parts, signal) => new Feed({ ...parts, settings }).run(signal));
}

function startAll(emit: 'elected' | 'agreed' = 'agreed'): void {
  for (const replica of replicas) startAggregator(replica);
  start('watchdog', (parts, signal) =>
    new Watchdog({ ...parts, settings: { id: 'watchdog-1', silent_after: 1_000, stalled_after: 10_000, suspicion_quorum: 1 } }).run(signal),
  );
  startFeed('feed-1', emit);
  startJudge();
}

function kill(name: string): void {
  processes.get(name)!.process.kill();
  processes.get(name)!.stop.abort();
}

function send(entry: NarBatch): void {
  broker.append(broker.partition('nars', entry.partition), [{ key: Buffer.from(entry.collector), value: narBatchCodec.encode(entry) }], null);
}

const pass = (ms: number) => clock.run(clock.now() + ms);

/** A flow every 300 ms for so long. */
async function traffic(ms: number): Promise<void> {
  for (const untilMs = clock.now() + ms; clock.now() < untilMs; await pass(300)) {
    const now = clock.now();
    send(batch({ collector: 'c1', sequence: ++sequence, watermark_ms: now, nars: [nar({ time_flow_end_ms: now, time_received_ms: now })] }));
  }
}

function flipIn(replica: Replica): void {
  flip(aggregators[replica]!.partitions[0]!.running!.fold, () => logged.push(`${replica} is flipped`));
}

const recordsOf = (topic: string): LogRecord[] => [...broker.partition(topic, 0).committed(broker.partition(topic, 0).startOffset)];
const verdicts = (): Verdict[] => recordsOf('verdicts').map(({ value }) => verdictCodec.decode(value!));
const emitted = () => recordsOf('aggregates').map(({ value }) => value!);

/** Blocks of the replica's topic, from the head that is there on. */
const blocks = (replica: Replica) => recordsOf(outputTopic(replica).name).map(({ value }) => outputBlockCodec.decode(value!));

/** What one fold of the whole log gives. */
function reference(): Buffer[] {
  const fold = new Fold(0, sha256);
  return [...broker.partition('nars', 0).entries].flatMap(({ record }) =>
    fold.step(record).blocks.flatMap(({ outputs }) => outputs.map((output) => outputCodec.encode(output))),
  );
}

function lastHealth(role: string, id: string): Health {
  return recordsOf('health')
    .map(({ value }) => healthCodec.decode(value!))
    .findLast((health) => health.role === role && health.id === id)!;
}

/** The snapshots that stand, in one chunk each: each is the state of one fold of the log. */
function expectSnapshotsRight(replica: Replica): void {
  const held = new Map<string, SnapshotChunk>();
  for (const { key, value } of recordsOf(snapshotTopic(replica).name)) {
    if (value) held.set(key!.toString(), snapshotChunkCodec.decode(value));
    else held.delete(key!.toString());
  }
  const fold = new Fold(0, sha256);
  let right = 0;
  for (const { record } of broker.partition('nars', 0).entries) {
    fold.step(record);
    for (const { offset, bytes } of held.values()) if (offset === fold.nextOffset && fold.serialise().equals(bytes)) right++;
  }
  expect(right).toBeGreaterThan(0);
  expect(right).toBe(held.size);
}

/** From its first output on, every record of the replica's topic continues or repeats the reference, and it ends with it. */
function expectClean(replica: Replica): void {
  const expected = reference();
  let next = 0;
  for (const { outputs } of blocks(replica)) {
    for (const output of outputs) {
      next = next || output.n;
      expect(outputCodec.encode(output).equals(expected[output.n - 1]!)).toBe(true);
      if (output.n === next) next++;
    }
  }
  expect(next).toBeGreaterThan(expected.length - 3);
}

function expectAggregatesRight(): void {
  const expected = reference();
  const found = emitted();
  expect(found.length).toBeGreaterThan(expected.length - 3);
  expect(found.every((value, i) => value.equals(expected[i]!))).toBe(true);
}

async function expectHealed(wrong: Replica): Promise<void> {
  await traffic(12_000);
  await pass(2_000);
  const sound = otherReplica(wrong);
  const said = verdicts();
  expect(said.map(({ replica, epoch, state }) => ({ replica, epoch, state }))).toEqual([
    { replica: wrong, epoch: 1, state: 'quarantined' },
    { replica: wrong, epoch: 2, state: 'repaired' },
  ]);
  expect(said[0]).toMatchObject({ sound, begins: -1 });
  expect(said[1]!.begins).toBe(broker.partition(outputTopic(wrong).name, 0).startOffset);
  expectAggregatesRight();
  for (const replica of replicas) expectClean(replica);
  const feed = lastHealth('feed', 'feed-1');
  expect(feed).toMatchObject({ ready: true, reasons: [], partitions: [{ state: 'running' }] });
  // Where it had emitted of the wrong one, it says up to where: before its first wrong output.
  const { detail } = feed.partitions[0]!;
  if (detail !== '') {
    const seam = readSeam(detail);
    expect(seam).toMatchObject({ from: wrong, to: sound });
    expect(seam!.n).toBeLessThan(said[0]!.n);
  }
  for (const replica of replicas)
    expect(lastHealth('aggregator', replica)).toMatchObject({ ready: true, reasons: [], partitions: [{ state: 'running' }] });
  for (const replica of replicas) expectSnapshotsRight(replica);
}

describe('a replica whose memory is flipped', () => {
  test.each([
    ['b', 'agreed', 5_000],
    ['a', 'agreed', 5_000],
    ['b', 'elected', 5_000],
    // Before there is a snapshot that both hold.
    ['b', 'agreed', 500],
    ['a', 'agreed', 500],
  ] as const)('%s, with emit: %s, after %i ms: held, judged, quarantined, gone on with the other, repaired', async (wrong, emit, afterMs) => {
    startAll(emit);
    await traffic(afterMs);
    flipIn(wrong);
    await expectHealed(wrong);
    expect(logged.join('\n')).toContain('nothing is emitted any more');
  });

  test('is judged once by two judges that say the same', async () => {
    startAll();
    startJudge('judge-2');
    await traffic(5_000);
    flipIn('b');
    await traffic(12_000);
    await pass(2_000);
    expect(new Set(verdicts().map(({ epoch, state }) => `${epoch} ${state}`))).toEqual(new Set(['1 quarantined', '2 repaired']));
    expectAggregatesRight();
    expectClean('b');
  });

  test('acknowledges nothing and writes no snapshot until it is repaired, while what is billed goes on without it', async () => {
    startAll();
    await traffic(5_000);
    const said: { what: string; atMs: number }[] = [];
    broker.onAppend = (topic, _partition, { key, value }) => {
      const note = (what: string) => said.push({ what, atMs: clock.now() });
      if (topic === topics.verdicts.name) note(verdictCodec.decode(value!).state);
      else if (topic === topics.acks.name && key?.toString().startsWith('b/')) note('ack');
      else if (topic === snapshotTopic('b').name && value) note('snapshot');
    };
    // Its word that it is repaired is swallowed (K1), again and again.
    const { append } = broker;
    broker.append = (log, messages, transaction) => {
      const isRepaired = log.topic === topics.verdicts.name && messages.some(({ value }) => verdictCodec.decode(value!).state === 'repaired');
      return isRepaired ? log.endOffset : append.call(broker, log, messages, transaction);
    };
    flipIn('b');
    while (verdicts().length === 0) await traffic(300);
    const emittedThen = emitted().length;
    await traffic(4_000);
    expect(verdicts()).toHaveLength(1);
    expect(emitted().length).toBeGreaterThan(emittedThen + 4);
    expect(lastHealth('feed', 'feed-1').partitions[0]).toMatchObject({ state: 'running', detail: expect.stringContaining('b is in quarantine') });
    expect(lastHealth('aggregator', 'b')).toMatchObject({ ready: false, partitions: [{ state: 'quarantined' }] });
    broker.append = append;
    await traffic(6_000);
    const at = (what: string) => said.find((one) => one.what === what)!.atMs;
    // But for what was on its way.
    const between = said.filter(({ atMs }) => atMs > at('quarantined') + 20 && atMs < at('repaired')).map(({ what }) => what);
    expect(between).toEqual([]);
    const after = said.filter(({ atMs }) => atMs > at('repaired') && atMs < at('repaired') + 5_000).map(({ what }) => what);
    expect(after).toContain('ack');
    expect(after).toContain('snapshot');
    expectAggregatesRight();
  });

  test('keeps none of the snapshots that it wrote when it was wrong, and begins with none of them', async () => {
    startAll();
    await traffic(5_000);
    kill('judge-1');
    flipIn('b');
    await traffic(9_000);
    expect(() => expectSnapshotsRight('b')).toThrow();
    startJudge('judge-2');
    for (let i = 0; i < 20 && verdicts().at(-1)?.state !== 'repaired'; i++) await pass(300);
    expect(verdicts().map(({ state }) => state)).toEqual(['quarantined', 'repaired']);
    expectSnapshotsRight('b');
    await traffic(6_000);
    await pass(2_000);
    expect(verdicts()).toHaveLength(2);
    expectAggregatesRight();
    expectClean('b');
  });

  test('is repaired although it is killed again and again in the middle of it', async () => {
    for (let seed = 1; seed <= 8; seed++) {
      begin(seed);
      startAll();
      await traffic(3_000 + 500 * seed);
      flipIn('b');
      while (verdicts().length === 0) await traffic(300);
      for (let i = 0; i < 6; i++) {
        await pass(clock.chance.integer(1, 60));
        kill('b');
        await pass(clock.chance.integer(1, 300));
        startAggregator('b');
      }
      await traffic(15_000);
      await pass(2_000);
      expect({
        seed,
        verdicts: verdicts()
          .map(({ state }) => state)
          .at(-1),
      }).toEqual({ seed, verdicts: 'repaired' });
      expectAggregatesRight();
      expectClean('b');
    }
  }, 60_000);

  test('of which a process goes on that does not know of its verdict: what it writes late is taken by nobody', async () => {
    startAll();
    await traffic(5_000);
    flipIn('b');
    while (!logged.includes('b is flipped')) await traffic(300);
    // It stands still before its window closes, and another one takes its place, with the state of before.
    const zombie = processes.get('b')!.process;
    await traffic(1_500);
    zombie.pause();
    startAggregator('b');
    await traffic(6_000);
    zombie.resume();
    await traffic(15_000);
    await pass(2_000);
    expect(verdicts().at(-1)?.state ?? 'repaired').toBe('repaired');
    expect(verdicts().every(({ replica }) => replica === 'b')).toBe(true);
    expectAggregatesRight();
    expect(lastHealth('feed', 'feed-1').partitions[0]?.state).toBe('running');
  });
});

test('two that are both wrong are both quarantined, and each repairs itself from what they held alike before', async () => {
  startAll();
  await traffic(5_000);
  kill('judge-1');
  flipIn('b');
  await traffic(2_000);
  flipIn('a');
  await traffic(4_000);
  startJudge('judge-2');
  await traffic(15_000);
  await pass(2_000);
  const said = verdicts();
  expect(said.map(({ replica, state }) => `${replica} ${state}`).sort()).toEqual(['a quarantined', 'a repaired', 'b quarantined', 'b repaired']);
  expect(said.every(({ sound }) => sound === '')).toBe(true);
  expectAggregatesRight();
  for (const replica of replicas) {
    expectClean(replica);
    expectSnapshotsRight(replica);
  }
  expect(lastHealth('feed', 'feed-1').partitions[0]).toMatchObject({ state: 'running', detail: '' });
});

describe('what was emitted wrong already', () => {
  /** What a ledger says that is given these outputs. */
  function ledgerOf(outputs: readonly Output[]): Ledger {
    const ledger = openLedger(':memory:');
    const booking = newBooking(ledger.open('id', 1)[0]!.book);
    for (const output of outputs) expect(enter(booking, output, sha256)).toBeNull();
    ledger.write([{ booking, nextOffset: 0 }]);
    return ledger;
  }

  /** Of all records, as whoever only adds them up has them; what comes to nothing is left out. */
  function sums(outputs: readonly Output[]): Map<string, bigint> {
    const sum = new Map<string, bigint>();
    for (const { aggregate } of outputs) {
      if (!aggregate) continue;
      const key = JSON.stringify([aggregate.window_start_ms, aggregate.group]);
      sum.set(key, (sum.get(key) ?? 0n) + aggregate.bytes + BigInt(aggregate.flows) * 2n ** 40n);
    }
    for (const [key, bytes] of sum) if (bytes === 0n) sum.delete(key);
    return sum;
  }

  function expectCorrected(ledger: Ledger): void {
    const outputs = emitted().map((value) => outputCodec.decode(value));
    const right = reference()
      .map((value) => outputCodec.decode(value))
      .slice(0, outputs.findLast(({ correction }) => !correction)!.n);
    expect(sums(outputs)).toEqual(sums(right));
    const asIfRight = ledgerOf(right).view();
    const view = ledger.view();
    const ever = { fromMs: null, toMs: null };
    expect(view.usage(['window', 'src_account', 'dst_account', 'kind'], ever)).toEqual(
      asIfRight.usage(['window', 'src_account', 'dst_account', 'kind'], ever),
    );
    expect(view.accountUsage(true, ever)).toEqual(asIfRight.accountUsage(true, ever));
    expect(view.audit()).toEqual(asIfRight.audit());
    expect(view.unclosedWindows(ever)).toBe(0);
    for (const { n, chain } of right) expect(Buffer.from(view.chainAt(0, n)!).equals(chain)).toBe(true);
  }

  function startAccounting(): Ledger {
    const ledger = openLedger(':memory:');
    start('accounting', (parts, signal) => new Accounting({ ...parts, ledger }).run(signal));
    return ledger;
  }

  test.each([
    ['a, by the other one when it is back', 1, false],
    ['a, by the other one when it is back, while the feed is killed again and again', 12, true],
  ])(
    '%s: taken back and put right, and the ledger is as if it had never been',
    async (_case, seeds, isKilled) => {
      for (let seed = 1; seed <= seeds; seed++) {
        begin(seed);
        startAll('elected');
        startFeed('feed-2', 'elected');
        const ledger = startAccounting();
        await traffic(5_000);
        kill('b');
        flipIn('a');
        await traffic(4_000);
        const wrongFrom = emitted().findIndex((value, i) => !value.equals(reference()[i]!));
        expect(wrongFrom).toBeGreaterThan(0);
        startAggregator('b');
        for (let i = 0; isKilled && i < 12; i++) {
          await traffic(clock.chance.integer(100, 900));
          kill('feed-1');
          if (clock.chance.happens(0.5)) kill('accounting');
          await pass(clock.chance.integer(1, 200));
          startFeed('feed-1', 'elected');
          if (processes.get('accounting')!.stop.signal.aborted)
            start('accounting', (parts, signal) => new Accounting({ ...parts, ledger }).run(signal));
        }
        await traffic(20_000);
        await pass(2_000);
        expect(verdicts().map(({ replica, state, n }) => `${replica} ${state} ${n}`)).toEqual([
          `a quarantined ${wrongFrom + 1}`,
          `a repaired ${wrongFrom + 1}`,
        ]);
        expectCorrected(ledger);
        expect(ledger.view().corrections()).toEqual([{ partition: 0, fromN: wrongFrom + 1, lastN: expect.any(Number), records: expect.any(Number) }]);
        for (const id of ['feed-1', 'feed-2']) expect(lastHealth('feed', id)).toMatchObject({ ready: true, reasons: [] });
        expect(emitted().length).toBeGreaterThan(reference().length - 3);
        for (const replica of replicas) expectClean(replica);
      }
    },
    120_000,
  );

  test('by both, so that there is nobody else: by the first that is repaired', async () => {
    startAll('elected');
    const ledger = startAccounting();
    await traffic(5_000);
    kill('b');
    flipIn('a');
    await traffic(3_000);
    kill('judge-1');
    startAggregator('b');
    await traffic(600);
    flipIn('b');
    await traffic(4_000);
    startJudge('judge-2');
    await traffic(25_000);
    await pass(2_000);
    expect(verdicts().filter(({ state }) => state === 'repaired').length).toBeGreaterThan(0);
    expectCorrected(ledger);
    expect(lastHealth('feed', 'feed-1').partitions[0]).toMatchObject({ state: 'running' });
  });

  test('that is not there any more stays held, and says why', async () => {
    startAll('elected');
    await traffic(5_000);
    kill('b');
    flipIn('a');
    await traffic(4_000);
    const aggregates = broker.partition('aggregates', 0);
    aggregates.startOffset = [...aggregates.committed()].at(-1)!.offset;
    startAggregator('b');
    await traffic(15_000);
    const standing = emitted().length;
    await traffic(10_000);
    expect(emitted()).toHaveLength(standing);
    expect(lastHealth('feed', 'feed-1').partitions[0]).toMatchObject({
      state: 'held',
      detail: expect.stringMatching(/cannot be corrected: outputs .* do not all stand in aggregates/),
    });
  });
});

test('a replica that finds another history in its own topic asks for judgment, and is repaired', async () => {
  startAll();
  await traffic(5_000);
  kill('b');
  await traffic(600);
  // What a disk, or a hand, may do: the next block of b with another content.
  const next = blocks('a').find(({ first_n }) => first_n > (blocks('b').at(-1)?.outputs.at(-1)?.n ?? 0))!;
  const [output] = next.outputs as [(typeof next.outputs)[number]];
  const wrong = { ...next, outputs: [{ ...output, chain: Buffer.alloc(16, 7) }] };
  broker.append(broker.partition(outputTopic('b').name, 0), [{ key: Buffer.from('0'), value: outputBlockCodec.encode(wrong) }], null);
  startAggregator('b');
  await traffic(15_000);
  await pass(2_000);
  expect(verdicts().map(({ replica, state }) => `${replica} ${state}`)).toEqual(['b quarantined', 'b repaired']);
  expectAggregatesRight();
  expectClean('b');
});
