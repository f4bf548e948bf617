/**
 * Heads are cut for good, by the judge and by the feed, and everything that is killed afterwards goes on from what is left: also with one replica's
 * snapshots wiped. The ledger then equals what was sent, and both replicas tell one history.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Log } from '../../adapters/ports.ts';
import { Stack } from '../../infra/stack.ts';
import { outputTopic, replicas, topics } from '../../schemas/topics.ts';
import { Load } from '../torture/load.ts';
import { balanceOf } from './balance.ts';
import { chainsOf, deleteTopic, eventually, openLog, readAggregates, readKeptOutputs } from './reading.ts';

const partitions = 2;
const minute = 60_000;

describe('heads that are cut', () => {
  let stack: Stack;
  let log: Log;
  let load: Load;
  let broker: string;

  beforeAll(async () => {
    const fold = { FLOWLEDGER_AGGREGATE_WINDOW: '1s', FLOWLEDGER_AGGREGATE_LATENESS: '500ms', FLOWLEDGER_AGGREGATE_SNAPSHOT_EVERY: '20' };
    const cutting = { FLOWLEDGER_JUDGE_INTERVAL: '500ms', FLOWLEDGER_JUDGE_HISTORY: '0', FLOWLEDGER_FEED_HISTORY: '1s' };
    stack = await Stack.start({ partitions, env: { ...fold, ...cutting } });
    broker = stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string;
    log = openLog(broker);
    load = new Load({ protocol: 'v5', to: stack.listen(), flowsPerSecond: 2_000, exporters: 2, keys: 200, seed: 1, from: '127.2.0.1' });
  }, 3 * minute);

  afterAll(async () => {
    await load?.stop().catch(() => undefined);
    await log?.close();
    await stack?.stop();
  }, minute);

  async function starts(): Promise<number[]> {
    const names = [topics.nars.name, ...replicas.map((replica) => outputTopic(replica).name)];
    const bounds = names.flatMap((name) => Array.from({ length: partitions }, (_, partition) => log.bounds(name, partition)));
    return (await Promise.all(bounds)).map(({ startOffset }) => startOffset);
  }

  const cutBeyond = (before: readonly number[]) => eventually(starts, (now) => now.every((start, i) => start > (before[i] as number)), minute);

  const killed = ['aggregator-a', 'aggregator-b', 'feed', 'judge'];

  async function restart(): Promise<void> {
    for (const name of killed) await stack.startService(name);
    for (const name of killed) await stack.ready(name);
  }

  test(
    'move on while everything runs, and nobody is blamed',
    async () => {
      await cutBeyond(await cutBeyond([0, 0, 0, 0, 0, 0]));
      const metrics = await stack.metrics('judge');
      expect(metrics.get('flowledger_judge_head_held_seconds')).toBe(0);
      expect(metrics.get('flowledger_judge_cut_records_total')).toBeGreaterThan(0);
      expect(metrics.get('flowledger_judge_disk_usable_bytes')).toBeGreaterThan(0);
    },
    2 * minute,
  );

  test(
    'are where both replicas, feed and judge begin again after kill -9',
    async () => {
      const before = await starts();
      for (const name of killed) await stack.kill(name);
      await delay(1_000);
      await restart();
      await cutBeyond(before);
    },
    2 * minute,
  );

  test(
    "are where a replica begins again whose snapshots and outputs were wiped: with the other's",
    async () => {
      for (const name of killed) await stack.kill(name);
      for (const name of ['snapshots.b', 'aggregates.b']) await deleteTopic(broker, name);
      const { code, stdout, stderr } = await stack.command('topics');
      expect({ code, stdout: code ? stdout : '', stderr: code ? stderr : '' }).toEqual({ code: 0, stdout: '', stderr: '' });
      const before = await starts();
      await restart();
      await cutBeyond(before);
    },
    2 * minute,
  );

  test(
    'take nothing from the ledger: billed = sent, A = B, and aggregates is whole',
    async () => {
      const sent = await load.stop();
      const audit = await balanceOf(stack);
      expect(audit.totals.lost_flows).toBe(0);
      expect(audit.totals.billed_flows + audit.totals.lost_on_wire_flows).toBe(sent.flows);
      expect(audit.totals.lost_on_wire_flows).toBeLessThan(sent.flows / 100);
      for (let partition = 0; partition < partitions; partition++) {
        const emitted = await readAggregates(log, partition);
        expect(emitted.map(({ n }) => n)).toEqual(emitted.map((_, i) => i + 1));
        for (const replica of replicas) {
          const kept = await readKeptOutputs(log, replica, partition);
          const common = kept.filter(({ n }) => n <= emitted.length);
          expect(common.length).toBeGreaterThan(0);
          expect(kept[0]?.n).toBeGreaterThan(1);
          expect(chainsOf(common)).toEqual(chainsOf(emitted.slice((common[0]?.n as number) - 1, common.at(-1)?.n)));
        }
      }
    },
    2 * minute,
  );
});
