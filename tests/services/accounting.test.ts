/** The real loop on a broker in memory. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../adapters/digest.ts';
import type { Ledger } from '../../adapters/ledger.ts';
import { openLedger } from '../../adapters/ledger-sqlite.ts';
import type { Log, Logger } from '../../adapters/ports.ts';
import { healthCodec, outputCodec } from '../../schemas/codec.ts';
import type { Health, Output } from '../../schemas/types.ts';
import { Accounting } from '../../services/accounting/accounting.ts';
import { auditUntilComplete } from '../../services/cli/audit.ts';
import { newestHealth } from '../../services/cli/health-records.ts';
import { History } from '../core/ledger/history.ts';
import { ModelClock, ProcessHandle } from '../simulation/model-clock.ts';
import { ModelBroker } from '../simulation/model-log.ts';

const always = { fromMs: null, toMs: null };
const usage = { src: 'acme', dst: 'globex', flows: 2, bytes: 100n };
let clock: ModelClock;
let broker: ModelBroker;
let ledger: Ledger;
let errors: string[];

beforeEach(() => {
  clock = new ModelClock(7);
  broker = new ModelBroker(clock, 2);
  ledger = openLedger(':memory:');
  errors = [];
});

function append(outputs: readonly Output[]): void {
  for (const output of outputs) {
    const log = broker.partition('aggregates', output.partition);
    broker.append(log, [{ key: null, value: outputCodec.encode(output) }], null);
  }
}

function start(signal = new AbortController().signal): { accounting: Accounting; process: ProcessHandle; ended: Promise<void> } {
  const process = new ProcessHandle(clock, 'accounting');
  const quiet = () => undefined;
  const logger: Logger = { debug: quiet, info: quiet, warn: quiet, error: (_facts, message) => errors.push(message) };
  const accounting = new Accounting({ log: broker.connect(process), ledger, clock: process.clock, logger, digest: sha256 });
  return { accounting, process, ended: accounting.run(signal) };
}

const pass = (ms: number) => clock.run(clock.now() + ms);
const books = () => ledger.open(broker.topic('aggregates').id, 2).map(({ book }) => book.n);

/** Lets time pass until a call is answered. */
async function answered<T>(call: (log: Log) => Promise<T>): Promise<T> {
  let result: { value: T } | null = null;
  const done = call(broker.connect()).then((value) => {
    result = { value };
  });
  await clock.runUntil(() => result !== null, clock.now() + 60_000);
  await done;
  return result!.value;
}

async function health(): Promise<Health> {
  const records = await answered((log) => newestHealth(log, clock));
  return records.find(({ role }) => role === 'accounting')!;
}

describe('accounting', () => {
  test('books all partitions, and says so in health and to the broker', async () => {
    append(new History(0).usage(usage).close().usage(usage).close().outputs);
    append(new History(1).close().outputs);
    start();
    await pass(3_000);
    expect(books()).toEqual([4, 1]);
    expect(ledger.view().usage([], always)[0]).toMatchObject({ flows: 4n, bytes: 200n });
    expect(await health()).toMatchObject({ ready: true, reasons: [], partitions: [{ n: 4, lag_ms: 0, state: 'running' }, { n: 1 }] });
    expect(broker.groupOffset('flowledger-accounting', 'aggregates', 0)).toBe(4);
  });

  test('books what is more than one transaction holds', async () => {
    const history = new History(0);
    for (let i = 0; i < 5_200; i++) history.usage(usage);
    append(history.close().outputs);
    append(new History(1).usage(usage).close().outputs);
    const { accounting } = start();
    await pass(20_000);
    expect(books()).toEqual([5_201, 2]);
    expect(accounting.writes).toBeGreaterThan(1);
    expect(ledger.view().usage([], always)[0]).toMatchObject({ flows: 10_402n });
  });

  test('goes on where the ledger stands after it is killed at any moment', async () => {
    const history = new History(0);
    const expected = { flows: 0n, bytes: 0n };
    for (let round = 0; round < 25; round++) {
      const { process } = start();
      const before = history.outputs.length;
      for (let window = 0; window < 3; window++)
        history
          .usage(usage)
          .usage({ ...usage, src: `peer ${round}` })
          .close();
      append(history.outputs.slice(before));
      expected.flows += 12n;
      expected.bytes += 600n;
      await pass(clock.chance.integer(0, 400));
      process.kill();
    }
    start();
    await pass(2_000);
    expect(books()).toEqual([history.outputs.length, 0]);
    expect(ledger.view().usage([], always)[0]).toMatchObject(expected);
    expect(ledger.unclosedWindows()).toEqual([]);
  });

  test('drops what is written to aggregates again, also by a feed that started anew', async () => {
    const { outputs } = new History(0).usage(usage).close().usage(usage).close();
    append(outputs.slice(0, 3));
    append(outputs.slice(1));
    append(outputs);
    const { accounting } = start();
    await pass(2_000);
    expect(books()).toEqual([4, 0]);
    expect(accounting.partitions[0]).toMatchObject({ repeated: 6, fault: null });
    expect(ledger.view().usage([], always)[0]).toMatchObject({ flows: 4n });
  });

  test.each([
    ['a gap', (outputs: Output[]) => [outputs[0]!, outputs[2]!], 'follows n 1 in topic aggregates'],
    ['another history', (outputs: Output[]) => [outputs[0]!, { ...outputs[1]!, chain: Buffer.alloc(16, 1) }], 'has chain 0101'],
  ])('stops a partition at %s, says why, and books the others', async (_case, falsify, reason) => {
    append(falsify(new History(0).usage(usage).close().close().outputs));
    append(new History(1).usage(usage).close().outputs);
    start();
    await pass(2_000);
    expect(books()).toEqual([1, 2]);
    const offsets = ledger.open(broker.topic('aggregates').id, 2).map(({ nextOffset }) => nextOffset);
    expect(offsets).toEqual([1, 2]);
    const report = await health();
    expect(report).toMatchObject({
      ready: false,
      partitions: [
        { n: 1, state: 'stopped' },
        { n: 2, state: 'running' },
      ],
    });
    expect(report.partitions[0]!.detail).toContain(reason);
    expect(errors).toEqual(['partition is not booked any further']);
    const audited = await answered((log) => auditUntilComplete(ledger.view(), log, clock, 0));
    expect(audited).toMatchObject({ divergence: 1, complete: false });
  });

  test('raises an alarm for a window that does not add up, and goes on', async () => {
    append(new History(0).usage(usage).close({}, { usage_bytes: 1n }).usage(usage).close().outputs);
    const { accounting } = start();
    await pass(2_000);
    expect(books()).toEqual([4, 0]);
    expect(errors).toEqual(['window does not add up and is not closed']);
    expect(accounting.readiness().reasons).toEqual(['partition 0: 1 windows do not add up; see "flowledger audit"']);
  });

  test('waits while the broker is away, and for topics that are not there yet', async () => {
    broker.away(20_000);
    append(new History(0).usage(usage).close().outputs);
    const { accounting } = start();
    await pass(5_000);
    expect(accounting.readiness()).toMatchObject({ ready: false, reasons: [expect.stringContaining('cannot be read')] });
    await pass(20_000);
    expect(books()).toEqual([2, 0]);
    expect(accounting.readiness()).toEqual({ ready: true, reasons: [] });
  });

  test('reads a topic that was re-created from its start, and drops what it has', async () => {
    const history = new History(0).usage(usage).close();
    append(history.outputs);
    const { process } = start();
    await pass(2_000);
    process.kill();
    broker.createTopic('aggregates', 2);
    append(history.usage(usage).close().outputs);
    start();
    await pass(2_000);
    expect(books()).toEqual([4, 0]);
  });

  test('does not go on over records that were cut before they were booked', async () => {
    const history = new History(0).usage(usage).close();
    append(history.outputs);
    const { process } = start();
    await pass(2_000);
    process.kill();
    append(history.usage(usage).close().outputs.slice(2));
    broker.deleteRecords('aggregates', 0, 3);
    const { accounting } = start();
    await pass(3_000);
    expect(accounting.partitions[0]!.fault).toMatchObject({ code: 'gap', partition: 0, n: 4 });
    expect(books()).toEqual([2, 0]);
  });

  test('says at a clean stop that it stops', async () => {
    const stop = new AbortController();
    const { ended } = start(stop.signal);
    await pass(1_000);
    stop.abort();
    await pass(1_000);
    await ended;
    expect(await health()).toMatchObject({ stopping: true });
  });

  test('of two that run with one ledger at most one books an output', async () => {
    const history = new History(0);
    const first = start();
    first.ended.catch(() => undefined);
    const second = start();
    second.ended.catch(() => undefined);
    for (let window = 0; window < 20; window++) {
      append(history.usage(usage).close().outputs.slice(-2));
      await pass(clock.chance.integer(0, 300));
    }
    start();
    await pass(2_000);
    expect(books()).toEqual([40, 0]);
    expect(ledger.view().usage([], always)[0]).toMatchObject({ flows: 40n });
  });
});

test('health of the services is the newest record of each', async () => {
  const record = { incarnation: 'i', started_ms: 0, ready: true, stopping: false, reasons: [], partitions: [], suspicions: [], copy: null };
  for (let i = 0; i < 5; i++) {
    const value = healthCodec.encode({ ...record, role: 'feed', id: `feed-${i % 2}`, at_ms: i });
    broker.append(broker.partition('health', 0), [{ key: null, value }], null);
  }
  broker.append(broker.partition('health', 0), [{ key: null, value: Buffer.from('noise') }], null);
  const records = await answered((log) => newestHealth(log, clock));
  expect(records.map(({ id, at_ms }) => [id, at_ms])).toEqual([
    ['feed-0', 4],
    ['feed-1', 3],
  ]);
});
