/**
 * Wrong, not just dead: under load one counter in the memory of an aggregator is flipped, of the one that does not lead, then of the one that leads.
 * Each time the difference is seen, the partition is held, a third fold of the log judges, the right one is quarantined, accounting goes on from the
 * other, and the wrong one is repaired; nothing wrong ever reaches aggregates.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../adapters/digest.ts';
import type { Log } from '../../adapters/ports.ts';
import { Fold } from '../../core/aggregate/fold.ts';
import type { Stack } from '../../infra/stack.ts';
import { otherReplica, type Replica, replicas } from '../../schemas/topics.ts';
import type { Output, Verdict } from '../../schemas/types.ts';
import type { Load } from '../torture/load.ts';
import { startFlippedStack } from './flipped-stack.ts';
import { chainsOf, eventually, readAggregates, readAll, readElections, readHealth, readOutputs, readVerdicts } from './reading.ts';

const partitions = 2;
const minute = 60_000;

describe('an aggregator whose memory is flipped under load', () => {
  let stack: Stack;
  let log: Log;
  let load: Load;

  beforeAll(async () => {
    ({ stack, log, load } = await startFlippedStack(partitions, 'agreed'));
  }, 3 * minute);

  afterAll(async () => {
    await log?.close();
    await stack?.stop();
  }, minute);

  const leaderOf = async (partition: number) => (await readElections(log, partition)).at(-1)?.leader as Replica;
  const emittedN = async (partition: number) => (await readAggregates(log, partition)).length;

  async function flipAndHeal(replica: Replica): Promise<Verdict> {
    const before = (await readVerdicts(log)).length;
    stack.signal(`aggregator-${replica}`, 'SIGUSR2');
    const since = async () => (await readVerdicts(log)).slice(before);
    const verdicts = await eventually(since, (all) => all.at(-1)?.state === 'repaired', minute);
    expect(verdicts.map((verdict) => `${verdict.replica} ${verdict.state}`)).toEqual([`${replica} quarantined`, `${replica} repaired`]);
    const [quarantined] = verdicts as [Verdict];
    expect(quarantined).toMatchObject({ sound: otherReplica(replica), author: 'judge-1' });
    expect(readFileSync(stack.logFile('feed'), 'utf8')).toContain(`differ at n ${quarantined.n}`);
    const { partition } = quarantined;
    const n = await emittedN(partition);
    await eventually(
      () => emittedN(partition),
      (now) => now > Math.max(n, quarantined.n),
      minute,
    );
    const stateOf = async () => (await readHealth(log)).get(`aggregator/${replica}`)?.partitions.map(({ state }) => state);
    await eventually(stateOf, (states) => states?.every((state) => state === 'running') === true, minute);
    return quarantined;
  }

  test(
    'the one that does not lead',
    async () => {
      const replica = otherReplica(await leaderOf(0));
      const { partition } = await flipAndHeal(replica);
      expect((await readElections(log, partition)).at(-1)?.reason).not.toBe('quarantined');
    },
    2 * minute,
  );

  test(
    'the one that leads: the other is elected in its place',
    async () => {
      const replica = await leaderOf(0);
      const { partition } = await flipAndHeal(replica);
      expect((await readElections(log, partition)).at(-1)).toMatchObject({ reason: 'quarantined', leader: otherReplica(replica), previous: replica });
    },
    2 * minute,
  );

  test(
    'then the ledger equals what was sent, A equals B, and aggregates is what a fold of the log gives',
    async () => {
      const sent = await load.stop();
      const { code, stdout } = await stack.command('audit', '--json', '--wait', '60s');
      const audit = JSON.parse(stdout);
      expect({ code, complete: audit.complete, divergences: audit.divergences }).toEqual({ code: 0, complete: true, divergences: [] });
      expect(audit.totals).toMatchObject({ billed_flows: sent.flows, billed_bytes: sent.bytes, lost_flows: 0, lost_on_wire_flows: 0 });
      for (let partition = 0; partition < partitions; partition++) {
        const emitted = await readAggregates(log, partition);
        expect(chainsOf(emitted)).toEqual(chainsOf(await foldOf(partition)).slice(0, emitted.length));
        for (const replica of replicas) {
          const outputs = await eventually(
            () => readOutputs(log, replica, partition),
            ({ length }) => length >= emitted.length,
          );
          expect(chainsOf(outputs).slice(0, emitted.length)).toEqual(chainsOf(emitted));
        }
      }
    },
    3 * minute,
  );

  async function foldOf(partition: number): Promise<Output[]> {
    const fold = new Fold(partition, sha256);
    return (await readAll(log, 'nars', partition, 'raw')).flatMap((record) => fold.step(record).blocks.flatMap(({ outputs }) => outputs));
  }
});
