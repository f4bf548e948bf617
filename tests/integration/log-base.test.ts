/**
 * The topic nars is deleted and made anew under load, twice: once with everything running, once with one aggregator dead. The command `base` lets
 * the new log begin with what was folded; nothing that was sent is lost but what is known to be, nothing is billed twice, and aggregates goes on.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Log } from '../../adapters/ports.ts';
import { Stack } from '../../infra/stack.ts';
import { replicas } from '../../schemas/topics.ts';
import { Load } from '../torture/load.ts';
import { balanceOf } from './balance.ts';
import { chainsOf, deleteTopic, eventually, openLog, readAggregates, readAll, readKeptOutputs } from './reading.ts';

const partitions = 2;
const minute = 60_000;

describe('nars is deleted and made anew', () => {
  let stack: Stack;
  let log: Log;
  let load: Load;

  beforeAll(async () => {
    const env = { FLOWLEDGER_AGGREGATE_WINDOW: '1s', FLOWLEDGER_AGGREGATE_LATENESS: '500ms', FLOWLEDGER_AGGREGATE_SNAPSHOT_EVERY: '100' };
    stack = await Stack.start({ partitions, env });
    log = openLog(stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string);
    load = new Load({ protocol: 'v5', to: stack.listen(), flowsPerSecond: 2_000, exporters: 2, keys: 200, seed: 1, from: '127.3.0.1' });
    await emitsOn([0, 0]);
  }, 3 * minute);

  afterAll(async () => {
    await load?.stop().catch(() => undefined);
    await log?.close();
    await stack?.stop();
  }, minute);

  const emitted = () => Promise.all(Array.from({ length: partitions }, async (_, partition) => (await readAggregates(log, partition)).length));
  const emitsOn = (before: readonly number[]) =>
    eventually(emitted, (now) => now.every((n, partition) => n > (before[partition] as number) + 10), minute);

  async function replaceNars(): Promise<void> {
    const former = await log.topicId('nars');
    await deleteTopic(stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string, 'nars');
    const made = await stack.command('topics');
    expect(made.code).toBe(1);
    expect(made.stderr).toContain('flowledger base');
    expect(await log.topicId('nars')).not.toBe(former);
  }

  test(
    'with everything running: no process is started anew',
    async () => {
      const pids = replicas.map((replica) => stack.pid(`aggregator-${replica}`));
      await replaceNars();
      const shown = await stack.command('base');
      expect(shown).toMatchObject({ code: 0, stderr: '' });
      expect(shown.stdout).toContain('Nothing was written');
      for (let partition = 0; partition < partitions; partition++) {
        const keys = (await readAll(log, 'nars', partition, 'raw')).map(({ key }) => key?.toString());
        expect(keys).not.toContain('~admin');
      }
      const before = await emitted();
      const written = await stack.command('base', '--yes');
      expect(written).toMatchObject({ code: 0, stderr: '' });
      expect(written.stdout.match(/acknowledged by both/g)).toHaveLength(partitions);
      await emitsOn(before);
      expect(replicas.map((replica) => stack.pid(`aggregator-${replica}`))).toEqual(pids);
      expect((await stack.command('base', '--yes')).stdout.match(/has its base already/g)).toHaveLength(partitions);
    },
    3 * minute,
  );

  test(
    'with one aggregator dead: it takes the other one up when it is back',
    async () => {
      await stack.kill('aggregator-b');
      await replaceNars();
      const before = await emitted();
      const written = await stack.command('base', '--yes', '--timeout', '12');
      expect(written.code).toBe(1);
      expect(written.stdout).toContain('Aggregator b does not run');
      expect(written.stderr.match(/not acknowledged by aggregator b/g)).toHaveLength(partitions);
      await emitsOn(before);
      await stack.startService('aggregator-b');
      await stack.ready('aggregator-b');
    },
    3 * minute,
  );

  test(
    'sent = billed + what is known to be lost, A = B, and the chain of aggregates is unbroken',
    async () => {
      const sent = await load.stop();
      const audit = await balanceOf(stack);
      expect(audit.divergence).toBe(0);
      expect(audit.doubts).toBe(0);
      expect(audit.totals.billed_flows + audit.totals.lost_on_wire_flows + audit.totals.lost_flows).toBe(sent.flows);
      expect(audit.totals.billed_flows).toBeGreaterThan(0.99 * sent.flows);
      for (let partition = 0; partition < partitions; partition++) {
        const all = await readAggregates(log, partition);
        expect(all.map(({ n }) => n)).toEqual(all.map((_, i) => i + 1));
        const caughtUp = (replica: 'a' | 'b') =>
          eventually(
            () => readKeptOutputs(log, replica, partition),
            (outputs) => (outputs.at(-1)?.n ?? 0) >= all.length,
            minute,
          );
        for (const replica of replicas) expect(chainsOf(await caughtUp(replica)).slice(0, all.length)).toEqual(chainsOf(all));
      }
    },
    3 * minute,
  );
});
