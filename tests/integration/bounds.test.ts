/** Everything away for long: memory and store stay within their bounds, and what does not fit is known to the flow. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Log } from '../../adapters/ports.ts';
import { Stack } from '../../infra/stack.ts';
import { chainsOf, eventually, openLog, readAggregates, readHealth, readOutputs } from './reading.ts';

const minute = 60_000;
const mebibyte = 1024 * 1024;
const quickWindows = { FLOWLEDGER_AGGREGATE_WINDOW: '1s', FLOWLEDGER_AGGREGATE_LATENESS: '1s', FLOWLEDGER_AGGREGATE_LIVE_WITHIN: '5s' };

let stack: Stack;
let log: Log;

async function start(env: Readonly<Record<string, string>>): Promise<void> {
  stack = await Stack.start({ partitions: 2, env: { ...quickWindows, ...env } });
  log = openLog(stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string);
}

afterEach(async () => {
  await log?.close();
  await stack?.stop();
}, minute);

interface Sent {
  readonly flows: number;
  readonly bytes: number;
  readonly packets: number;
}

async function send(flows: number, rate: number, from: string): Promise<Sent> {
  const args = `generate --protocol v5 --to ${stack.listen()} --rate ${rate} --flows ${flows} --exporters 2 --keys 500 --seed 7 --from ${from}`;
  const { code, stdout, stderr } = await stack.command(...args.split(' '));
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout.trim().split('\n').at(-1) as string);
}

const sumOf = (...parts: readonly Sent[]): Sent =>
  parts.reduce((sum, { flows, bytes, packets }) => ({ flows: sum.flows + flows, bytes: sum.bytes + bytes, packets: sum.packets + packets }));

const metric = async (name: string) => (await stack.metrics('collector-1')).get(name) ?? 0;
const decoded = (flows: number) =>
  eventually(
    () => metric('flowledger_collector_decoded_flows_total'),
    (seen) => seen === flows,
  );
const copy = async () => (await readHealth(log)).get('collector/collector-1')?.copy;
const audit = async () => JSON.parse((await stack.command('audit', '--json', '--wait', '90s')).stdout);

/** Resident memory of a collector now, in bytes. */
const residentBytes = () => 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${stack.pid('collector-1')}/status`, 'utf8'))?.[1]);

/** Sent = billed + lost, in flows, bytes and packets, and the balance adds up. */
function accountsForAll(result: { totals: Record<string, number>; imbalance: object; complete: boolean }, sent: Sent): void {
  const { totals } = result;
  const known = (what: keyof Sent) => (totals[`billed_${what}`] as number) + (totals[`lost_${what}`] as number);
  expect({ complete: result.complete, imbalance: result.imbalance }).toEqual({ complete: true, imbalance: { flows: 0, bytes: 0, packets: 0 } });
  expect({ flows: known('flows'), bytes: known('bytes'), packets: known('packets') }).toEqual({
    flows: sent.flows,
    bytes: sent.bytes,
    packets: sent.packets,
  });
}

describe('bounds', () => {
  test(
    'store and broker away for long: memory stays within its bound, and the ledger shows what was lost, by exporter and window',
    async () => {
      await start({ FLOWLEDGER_COLLECTOR_MEMORY_MAX: '2MiB', FLOWLEDGER_COLLECTOR_STORE_RESERVE: '1MiB' });
      const before = await send(2_000, 2_000, '127.0.1.1');
      await stack.kill('redis');
      await stack.kill('kafka');
      const filling = await send(150_000, 20_000, '127.0.2.1');
      await decoded(before.flows + filling.flows);
      expect(await metric('flowledger_collector_refused_nars_total')).toBeGreaterThan(filling.flows / 2);
      const fullBytes = residentBytes();
      const more = await send(300_000, 30_000, '127.0.3.1');
      await decoded(before.flows + filling.flows + more.flows);
      expect(await metric('flowledger_collector_copy_bytes')).toBeLessThanOrEqual(3 * mebibyte);
      // Twice as much again leaves nothing behind but what the heap has not collected yet.
      expect(residentBytes() - fullBytes).toBeLessThan(64 * mebibyte);
      await Promise.all([stack.startBackend('redis'), stack.startBackend('kafka')]);
      await Promise.all(stack.services.map((name) => stack.ready(name)));
      const result = await audit();
      accountsForAll(result, sumOf(before, filling, more));
      const lost = result.totals.lost_flows;
      expect(lost).toBe(await metric('flowledger_collector_refused_nars_total'));
      const ofExporters = result.exporters.filter(({ lost_flows }: { lost_flows: number }) => lost_flows > 0);
      expect(new Set(ofExporters.map(({ exporter }: { exporter: string }) => exporter))).toEqual(
        new Set(['127.0.2.1', '127.0.2.2', '127.0.3.1', '127.0.3.2']),
      );
      const closes = [...(await readAggregates(log, 0)), ...(await readAggregates(log, 1))].flatMap(({ window_close: close }) => close ?? []);
      expect(closes.reduce((sum, { lost_flows }) => sum + lost_flows, 0)).toBe(lost);
      expect(closes.filter(({ lost_flows }) => lost_flows > 0).length).toBeGreaterThan(1);
    },
    4 * minute,
  );

  test(
    'the store at its bound: what the broker confirmed is released first, and only then are NARs refused',
    async () => {
      await start({ FLOWLEDGER_COLLECTOR_STORE_MAX: '2MiB', FLOWLEDGER_COLLECTOR_STORE_RESERVE: '512KiB' });
      await stack.kill('aggregator-b');
      const released = await send(100_000, 20_000, '127.0.1.1');
      await decoded(released.flows);
      await eventually(
        () => metric('flowledger_collector_unconfirmed_nars'),
        (nars) => nars === 0,
      );
      expect(await metric('flowledger_collector_released_nars_total')).toBeGreaterThan(0);
      expect(await metric('flowledger_collector_refused_nars_total')).toBe(0);
      await stack.kill('kafka');
      const refused = await send(100_000, 20_000, '127.0.2.1');
      await decoded(released.flows + refused.flows);
      const lost = await metric('flowledger_collector_refused_nars_total');
      expect(lost).toBeGreaterThan(0);
      expect(await metric('flowledger_collector_copy_bytes')).toBeLessThanOrEqual(2 * mebibyte);
      await stack.startBackend('kafka');
      await stack.startService('aggregator-b');
      await Promise.all(stack.services.map((name) => stack.ready(name)));
      const result = await audit();
      accountsForAll(result, sumOf(released, refused));
      // What was released was in the log, so that nothing but what was refused is lost.
      expect(result.totals.lost_flows).toBe(lost);
    },
    4 * minute,
  );

  test(
    'a backlog: the replica that returns catches up while the other goes on, and its history is that of one that was never away',
    async () => {
      await start({});
      await send(2_000, 2_000, '127.0.1.1');
      await stack.kill('aggregator-b');
      const missed = await send(400_000, 40_000, '127.0.2.1');
      await decoded(missed.flows + 2_000);
      await stack.startService('aggregator-b');
      const during = send(40_000, 5_000, '127.0.3.1');
      // The other is not starved: what comes now is acknowledged by it while the one that returns still catches up.
      await eventually(copy, (held) => (held?.unacknowledged_b_nars ?? 0) > 0 && (held?.unacknowledged_a_nars ?? 1) < 5_000);
      const sent = sumOf(await during, missed);
      await eventually(copy, (held) => held?.nars === 0, minute);
      const result = await audit();
      expect(result).toMatchObject({ complete: true, divergence: 0, imbalance: { flows: 0, bytes: 0, packets: 0 } });
      expect(result.totals.billed_flows).toBe(sent.flows + 2_000);
      await delay(2_000);
      for (const partition of [0, 1]) {
        const [a, b] = [await readOutputs(log, 'a', partition), await readOutputs(log, 'b', partition)];
        const both = Math.min(a.length, b.length);
        expect(both).toBeGreaterThan(10);
        expect(chainsOf(b.slice(0, both))).toEqual(chainsOf(a.slice(0, both)));
      }
    },
    4 * minute,
  );
});
