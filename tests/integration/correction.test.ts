/**
 * What is emitted of a wrong replica while nobody is there to contradict it: under load the aggregator that does not lead is killed, and one counter
 * in the memory of the other is flipped. When the first is back, what was published is taken back and put right, and billing ends with what was sent.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Log } from '../../adapters/ports.ts';
import type { Stack } from '../../infra/stack.ts';
import { otherReplica, type Replica } from '../../schemas/topics.ts';
import type { Load } from '../torture/load.ts';
import { startFlippedStack } from './flipped-stack.ts';
import { eventually, readAggregates, readElections, readVerdicts } from './reading.ts';

const partitions = 2;
const minute = 60_000;

describe('outputs of a wrong aggregator that were emitted', () => {
  let stack: Stack;
  let log: Log;
  let load: Load;

  beforeAll(async () => {
    ({ stack, log, load } = await startFlippedStack(partitions, 'elected'));
  }, 3 * minute);

  afterAll(async () => {
    await log?.close();
    await stack?.stop();
  }, minute);

  const emitted = async () => (await Promise.all([0, 1].map((partition) => readAggregates(log, partition)))).flat();

  test(
    'are taken back and put right: the ledger, and the sum of all records, are what was sent',
    async () => {
      const wrong = (await readElections(log, 0)).at(-1)?.leader as Replica;
      const away = otherReplica(wrong);
      await stack.kill(`aggregator-${away}`);
      // Whatever that one led is led by the wrong one now.
      const leads = async () =>
        (await Promise.all([0, 1].map((partition) => readElections(log, partition)))).every((all) => all.at(-1)?.leader === wrong);
      await eventually(leads, (all) => all, minute);
      stack.signal(`aggregator-${wrong}`, 'SIGUSR2');
      await eventually(
        async () => readFileSync(stack.logFile(`aggregator-${wrong}`), 'utf8'),
        (text) => text.includes('one counter was flipped'),
        minute,
      );
      const before = (await emitted()).length;
      await eventually(
        async () => (await emitted()).length,
        (now) => now > 2 * before,
        minute,
      );
      await stack.startService(`aggregator-${away}`);
      const corrections = async () => (await emitted()).filter(({ correction }) => correction);
      const records = await eventually(corrections, ({ length }) => length > 0, minute);
      expect(records.at(-1)?.correction).toMatchObject({ index: records.length, count: records.length });
      const verdicts = await eventually(
        () => readVerdicts(log),
        (all) => all.at(-1)?.state === 'repaired',
        minute,
      );
      expect(verdicts.map(({ replica, state }) => `${replica} ${state}`)).toEqual([`${wrong} quarantined`, `${wrong} repaired`]);
      const sent = await load.stop();
      const { code, stdout } = await stack.command('audit', '--json', '--wait', '60s');
      const audit = JSON.parse(stdout);
      expect({ code, complete: audit.complete, divergences: audit.divergences }).toEqual({ code: 0, complete: true, divergences: [] });
      expect(audit.totals).toMatchObject({ billed_flows: sent.flows, billed_bytes: sent.bytes, lost_flows: 0, lost_on_wire_flows: 0 });
      const [{ from_n }] = verdicts.map(({ n }) => ({ from_n: n })) as [{ from_n: number }];
      expect(audit.corrections).toEqual([{ partition: records[0]!.partition, from_n, last_n: expect.any(Number), records: records.length }]);
      const total = (await emitted()).reduce((sum, { aggregate }) => sum + (aggregate?.flows ?? 0), 0);
      expect(total).toBe(sent.flows);
    },
    5 * minute,
  );
});
