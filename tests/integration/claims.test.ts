/** What the system promises, each promise a test on real processes, a real broker and a real Redis. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Log } from '../../adapters/ports.ts';
import { Stack, type StackOptions } from '../../infra/stack.ts';
import { chainsOf, eventually, openLog, readAggregates, readElections, readHealth, readOutputs } from './reading.ts';

const minute = 60_000;
const quickWindows = { FLOWLEDGER_AGGREGATE_WINDOW: '1s', FLOWLEDGER_AGGREGATE_LATENESS: '1s', FLOWLEDGER_AGGREGATE_LIVE_WITHIN: '5s' };
const never = '1h';

let stack: Stack;
let log: Log;

async function start(options: StackOptions & { services?: boolean } = {}): Promise<void> {
  const all = { partitions: 2, ...options, env: { ...quickWindows, ...options.env } };
  stack = options.services === false ? await Stack.startWithoutServices(all) : await Stack.start(all);
  log = openLog(stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string);
}

afterEach(async () => {
  await log?.close();
  await stack?.stop();
}, minute);

async function send(flows: number, options = ''): Promise<{ flows: number; bytes: number; packets: number }> {
  const args = `generate --protocol v5 --to ${stack.listen()} --rate 10000 --flows ${flows} --exporters 2 --keys 50 --seed 7 ${options}`;
  const { code, stdout, stderr } = await stack.command(...args.trim().split(/\s+/));
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout.trim().split('\n').at(-1) as string);
}

const copy = async () => (await readHealth(log)).get('collector/collector-1')?.copy;
const leader = async () => (await readElections(log, 0)).at(-1)?.leader;
const audit = async () => JSON.parse((await stack.command('audit', '--json', '--wait', '60s')).stdout);
const narsEnd = async () => (await log.bounds('nars', 0)).endOffset + (await log.bounds('nars', 1)).endOffset;

describe('claims', () => {
  test(
    'local copies are discarded only after both aggregators acknowledged, and on success they are removed',
    async () => {
      await start();
      stack.signal('aggregator-b', 'SIGSTOP');
      const { flows } = await send(5000);
      await eventually(copy, (held) => held?.unacknowledged_a_nars === 0 && held.unacknowledged_b_nars >= flows);
      await delay(2000);
      expect((await copy())?.nars).toBeGreaterThanOrEqual(flows);
      stack.signal('aggregator-b', 'SIGCONT');
      await eventually(copy, (held) => held?.nars === 0);
      expect(await audit()).toMatchObject({ complete: true, imbalance: { flows: 0, bytes: 0, packets: 0 }, totals: { billed_flows: flows } });
    },
    3 * minute,
  );

  test(
    'one aggregator away: collecting and storing go on, and it is sent what it missed',
    async () => {
      await start();
      await send(1000);
      await stack.kill('aggregator-b');
      const { flows } = await send(20_000);
      await eventually(copy, (held) => (held?.unacknowledged_b_nars ?? 0) >= flows && held?.unacknowledged_a_nars === 0);
      const during = JSON.parse((await stack.command('audit', '--json')).stdout);
      const buffered = during.exporters.map((exporter: { buffered_flows: number }) => exporter.buffered_flows);
      expect(buffered).toHaveLength(2);
      expect(Math.min(...buffered)).toBeGreaterThan(flows / 3);
      expect(during.totals.buffered_flows).toBe(buffered[0] + buffered[1] + during.totals.buffered_unnamed_flows);
      expect(during.totals.buffered_unnamed_flows).toBe(0);
      await stack.startService('aggregator-b');
      await eventually(copy, (held) => held?.nars === 0, minute);
      const result = await audit();
      expect(result).toMatchObject({ complete: true, divergence: 0, totals: { billed_flows: flows + 1000, lost_flows: 0 } });
      for (const partition of [0, 1]) {
        const [a, b] = [await readOutputs(log, 'a', partition), await readOutputs(log, 'b', partition)];
        const both = Math.min(a.length, b.length);
        expect(both).toBeGreaterThan(3);
        expect(chainsOf(b.slice(0, both))).toEqual(chainsOf(a.slice(0, both)));
      }
    },
    3 * minute,
  );

  test(
    "no acknowledgment: the collector's suspicion makes the other's reports feed accounting",
    async () => {
      await start({ env: { FLOWLEDGER_WATCHDOG_SILENT_AFTER: never, FLOWLEDGER_WATCHDOG_STALLED_AFTER: never } });
      await send(1000);
      const first = await eventually(leader, Boolean);
      stack.signal(`aggregator-${first}`, 'SIGSTOP');
      const { flows } = await send(20_000);
      await eventually(leader, (now) => now !== first);
      expect((await readElections(log, 0)).at(-1)?.reason).toBe('suspected');
      const before = (await readAggregates(log, 0)).length;
      await eventually(
        async () => (await readAggregates(log, 0)).length,
        (length) => length > before,
      );
      stack.signal(`aggregator-${first}`, 'SIGCONT');
      expect(await audit()).toMatchObject({ complete: true, imbalance: { flows: 0 }, totals: { billed_flows: flows + 1000 } });
    },
    3 * minute,
  );

  test(
    "the watchdog's own detection makes the other's reports feed accounting",
    async () => {
      await start({ env: { FLOWLEDGER_COLLECTOR_SUSPICION_AFTER: never } });
      await send(1000);
      const first = await eventually(leader, Boolean);
      const killedMs = Date.now();
      await stack.kill(`aggregator-${first}`);
      await eventually(leader, (now) => now !== first);
      const election = (await readElections(log, 0)).at(-1);
      expect(election?.reason).toBe('silent');
      const { flows } = await send(5000);
      const outputs = await eventually(
        () => readAggregates(log, 0),
        (all) => all.some(({ window_close: close }) => (close?.watermark_ms ?? 0) > killedMs),
      );
      expect(outputs.map(({ n }) => n)).toEqual(outputs.map((_, i) => i + 1));
      await stack.startService(`aggregator-${first}`);
      expect(await audit()).toMatchObject({ complete: true, imbalance: { flows: 0 }, totals: { billed_flows: flows + 1000 } });
    },
    3 * minute,
  );

  test(
    'transfer only when the other side is determined to be available',
    async () => {
      await start({ services: false, env: { FLOWLEDGER_COLLECTOR_TRANSFER_GATE: 'aggregator' } });
      const before = await narsEnd();
      await stack.startService('collector-1');
      await eventually(
        async () => (await stack.metrics('collector-1').catch(() => new Map())).size,
        (size) => size > 0,
      );
      const { flows } = await send(5000);
      await eventually(copy, (held) => (held?.nars ?? 0) >= flows);
      await delay(2000);
      expect(await narsEnd()).toBe(before);
      for (const name of stack.services.filter((service) => service !== 'collector-1')) await stack.startService(name);
      await eventually(copy, (held) => held?.nars === 0, minute);
      expect(await narsEnd()).toBeGreaterThan(before);
      expect(await audit()).toMatchObject({ complete: true, totals: { billed_flows: flows } });
    },
    3 * minute,
  );

  test(
    'a collector starts and collects while the broker is away, while Redis is away, and while both are',
    async () => {
      await start({ services: false });
      const restart = async (cut: 'kafka' | 'redis' | 'both') => {
        if (cut !== 'redis') await stack.kill('kafka');
        if (cut !== 'kafka') await stack.kill('redis');
        await stack.startService('collector-1');
        const decoded = async () =>
          (await stack.metrics('collector-1').catch(() => new Map<string, number>())).get('flowledger_collector_decoded_flows_total');
        await eventually(decoded, (flows) => flows === 0);
        const { flows } = await send(3000, `--from 127.0.${cut.length}.1`);
        await eventually(decoded, (seen) => seen === flows);
        if (cut !== 'redis') await stack.startBackend('kafka');
        if (cut !== 'kafka') await stack.startBackend('redis');
        await stack.ready('collector-1');
        await stack.stopService('collector-1');
        return flows;
      };
      const sent = (await restart('kafka')) + (await restart('redis')) + (await restart('both'));
      for (const name of stack.services) await stack.startService(name);
      await Promise.all(stack.services.map((name) => stack.ready(name)));
      expect(await audit()).toMatchObject({
        complete: true,
        imbalance: { flows: 0, bytes: 0, packets: 0 },
        totals: { billed_flows: sent, lost_flows: 0 },
      });
    },
    4 * minute,
  );

  test(
    'aggregates summarise across exporters',
    async () => {
      const accounts = '[{"prefix":"0.0.0.0/0","account":"everybody"}]';
      await start({ env: { FLOWLEDGER_AGGREGATE_ACCOUNTS: accounts } });
      const sent = await send(6000, '--exporters 3');
      expect(await audit()).toMatchObject({
        complete: true,
        totals: { billed_flows: sent.flows, billed_bytes: sent.bytes, billed_packets: sent.packets },
      });
      const outputs = [...(await readAggregates(log, 0)), ...(await readAggregates(log, 1))];
      const exporters = new Set(outputs.flatMap(({ window_close: close }) => close?.exporters.map((exporter) => exporter.sampler_address) ?? []));
      expect(exporters.size).toBe(3);
      const aggregates = outputs.flatMap(({ aggregate }) => aggregate ?? []);
      expect(new Set(aggregates.map(({ group }) => group.map(({ value }) => value).join(' ')))).toEqual(new Set(['everybody everybody']));
      expect(aggregates.reduce((sum, { bytes }) => sum + bytes, 0n)).toBe(BigInt(sent.bytes));
      // One aggregate a window and partition, whatever the number of exporters.
      const windows = aggregates.filter(({ kind }) => kind === 'usage').map(({ window_start_ms }) => window_start_ms);
      expect(windows.length).toBeLessThanOrEqual(2 * new Set(windows).size);
    },
    3 * minute,
  );
});
