/** What an operator runs against a living system: each command on real processes, a real broker and a real Redis. */
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { KafkaAdmin } from '../../adapters/kafka-admin.ts';
import type { Log } from '../../adapters/ports.ts';
import { addressText } from '../../core/nar/address.ts';
import { Stack } from '../../infra/stack.ts';
import { electionCodec, narBatchCodec } from '../../schemas/codec.ts';
import type { Nar } from '../../schemas/types.ts';
import { balanceOf } from './balance.ts';
import { openLog, quiet, readAggregates, readAll } from './reading.ts';

const minute = 60_000;
const partitions = 2;
const quickWindows = { FLOWLEDGER_AGGREGATE_WINDOW: '1s', FLOWLEDGER_AGGREGATE_LATENESS: '1s', FLOWLEDGER_AGGREGATE_LIVE_WITHIN: '5s' };

let stack: Stack;
let log: Log;

beforeAll(async () => {
  stack = await Stack.start({ partitions, env: quickWindows });
  log = openLog(stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string);
}, 3 * minute);

afterAll(async () => {
  await log?.close();
  await stack?.stop();
}, minute);

async function generate(flows: number, options = ''): Promise<void> {
  const args = `generate --protocol v5 --to ${stack.listen()} --rate 5000 --flows ${flows} --exporters 2 --keys 50 --seed 7 ${options}`;
  const { code, stderr } = await stack.command(...args.trim().split(/\s+/));
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
}

describe('doctor', () => {
  const doctor = async () => {
    const { code, stdout, stderr } = await stack.command('doctor', '--json');
    expect(stderr).toBe('');
    const report = JSON.parse(stdout);
    const findings = report.checks.flatMap((check: { findings: object[] }) => check.findings) as { code: string; found: string; severity: string }[];
    const errors = findings.filter(({ severity }) => severity === 'error').map(({ code: name, found }) => `${name} ${found}`);
    return { code, report, findings, errors };
  };
  const codes = (findings: readonly { code: string }[]) => findings.map(({ code }) => code);

  test(
    'a sound system has no errors, and names the exporters whose sampling is not known',
    async () => {
      await generate(2000);
      await delay(2000);
      const { code, report, findings, errors } = await doctor();
      expect({ errors, code }).toEqual({ errors: [], code: 0 });
      expect(report.checks.filter(({ done }: { done: boolean }) => !done)).toEqual([]);
      expect(report.checks.map(({ name }: { name: string }) => name)).toEqual(
        'broker topics disks clocks schemas services exporters redis sockets ledger'.split(' '),
      );
      expect(report.checks[0].seen).toMatch(/^1: Apache Kafka [34]\.\d/);
      const unsampled = findings.filter(({ code: name }) => name === 'FL702').map(({ found }) => found.split(' ')[0]);
      expect(unsampled.sort()).toEqual(['127.0.1.1', '127.0.1.2']);
    },
    2 * minute,
  );

  test(
    'what is wrong is named: a topic that expires, a Redis that lies, a service that is down, a foreign record',
    async () => {
      const [host, port] = (stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string).split(':') as [string, string];
      const admin = new KafkaAdmin({ brokers: [{ host, port: Number(port) }], client_id: 'test', topic_prefix: '', request_timeout: 5000 }, quiet);
      const redis = new Redis(stack.env['FLOWLEDGER_REDIS_URL'] as string);
      const writer = log.writer();
      try {
        await admin.alter('nars', { 'retention.ms': '3600000' });
        await redis.config('SET', 'appendfsync', 'everysec');
        await redis.config('SET', 'maxmemory-policy', 'allkeys-lru');
        await writer.append('elections', 0, [{ key: Buffer.from('none'), value: Buffer.from('none of ours') }]);
        await stack.kill('judge');
        await delay(3500);
        const { code, findings } = await doctor();
        expect(code).toBe(1);
        expect(codes(findings)).toEqual(expect.arrayContaining(['FL112', 'FL203', 'FL205', 'FL502', 'FL601']));
        expect(findings.find(({ code: name }) => name === 'FL601')?.found).toMatch(/^judge judge-1: silent for \d+ s$/);
        expect(findings.find(({ code: name }) => name === 'FL112')?.found).toMatch(/^nars: retention.ms is 3600000, needed is -1/);
        const text = await stack.command('doctor');
        expect(text.stdout).toContain('FL203 error: Redis confirms before it is on disk: appendfsync is everysec, needed is always');
      } finally {
        await writer.close();
        await admin.alter('nars', { 'retention.ms': '-1' });
        await redis.config('SET', 'appendfsync', 'always');
        await redis.config('SET', 'maxmemory-policy', 'noeviction');
        redis.disconnect();
        await admin.close();
        await stack.startService('judge');
        await stack.ready('judge');
      }
    },
    2 * minute,
  );

  test(
    'without a broker and without Redis it says so, and what it could not look at',
    async () => {
      const { code, stdout } = await stack.commandWith(
        { FLOWLEDGER_KAFKA_BROKERS: '127.0.0.1:1', FLOWLEDGER_REDIS_URL: 'redis://127.0.0.1:1' },
        'doctor',
        '--json',
      );
      const report = JSON.parse(stdout);
      expect(code).toBe(1);
      expect(codes(report.checks.flatMap((check: { findings: object[] }) => check.findings))).toEqual(expect.arrayContaining(['FL101', 'FL201']));
      expect(report.checks.filter(({ done }: { done: boolean }) => !done).map(({ name }: { name: string }) => name)).toEqual(
        'topics disks clocks schemas services exporters'.split(' '),
      );
    },
    minute,
  );
});

describe('top', () => {
  test(
    'without a terminal it prints plain lines, once, with rates and with the balance that accounting tells',
    async () => {
      const load = generate(20_000);
      await delay(1000);
      const accounting = new URL(stack.url('accounting')).host;
      const { code, stdout, stderr } = await stack.commandWith({ FLOWLEDGER_ACCOUNTING_HTTP: accounting }, 'top');
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(/^[ -~\n]*$/);
      expect(stdout).toMatch(/^Balanced; billed up to \d\d:\d\d:\d\dZ, [\d.]+ s ago; .* leads .* of 2\.$/m);
      expect(stdout).toMatch(/^collectors +yes +[\d,]+ +flows /m);
      for (const partition of [0, 1]) expect(stdout).toMatch(new RegExp(`^ +${partition} +[ab] +[\\d,]+ +`, 'm'));
      const flows = Number(/^collectors +yes +([\d,]+) /m.exec(stdout)?.[1]?.replaceAll(',', ''));
      expect(flows).toBeGreaterThan(1000);
      await load;
    },
    2 * minute,
  );
});

describe('drill', () => {
  const drill = async (...options: string[]) => {
    const { code, stdout, stderr } = await stack.command('drill', ...options);
    return { code, stdout, stderr };
  };
  const leaders = async (): Promise<string[]> =>
    JSON.parse((await stack.command('status', '--json')).stdout).partitions.map(({ leader }: { leader: string }) => leader);

  test(
    'under load the other one takes over: n and chain go on, and the balance is exact',
    async () => {
      const load = generate(60_000);
      await delay(3000);
      const before = await leaders();
      const planned = await drill();
      expect(planned.code).toBe(0);
      expect(planned.stdout).toContain('Nothing was done; flowledger drill --yes does it.');
      expect(await leaders()).toEqual(before);
      const { code, stdout } = await drill('--yes', '--json');
      const report = JSON.parse(stdout);
      expect({ ...report, partitions: [], at_ms: 0 }).toEqual({
        at_ms: 0,
        done: true,
        refused: [],
        missing: [],
        partitions: [],
        balance: { imbalances: [], divergences: [], booked: true },
      });
      expect(code).toBe(0);
      const after = await leaders();
      for (const seam of report.partitions) {
        expect(seam).toMatchObject({ from: before[seam.partition], to: after[seam.partition], first_n: seam.last_n + 1, contiguous: true });
        expect(seam.to).not.toBe(seam.from);
        expect(seam.outputs).toBeGreaterThanOrEqual(2);
        expect(seam.gap_ms).toBeGreaterThanOrEqual(0);
      }
      const elections = (await readAll(log, 'elections', 0, 'raw')).filter(({ key }) => key?.toString() === '0');
      expect(electionCodec.decode(elections.at(-1)?.value as Buffer)).toMatchObject({
        reason: 'drill',
        evidence: expect.stringContaining('asked for by an operator'),
      });
      await load;
      expect((await balanceOf(stack)).totals.lost_flows).toBe(0);
      const outputs = await readAggregates(log, 0);
      expect(outputs.map(({ n }) => n)).toEqual(outputs.map((_, at) => at + 1));
    },
    3 * minute,
  );

  test(
    'it is refused while the other one is away, and nothing is done',
    async () => {
      const before = await leaders();
      const away = before[0] === 'a' ? 'b' : 'a';
      await stack.kill(`aggregator-${away}`);
      const { code, stdout } = await drill('--yes', '--partition', '0');
      expect(code).toBe(1);
      expect(stdout).toContain(`partition 0: ${away} cannot take over from ${before[0]}: ${away} was never heard`);
      expect(stdout).toContain('Nothing was done.');
      expect((await leaders())[0]).toBe(before[0]);
      await stack.startService(`aggregator-${away}`);
      await stack.ready(`aggregator-${away}`);
    },
    2 * minute,
  );
});

describe('trace', () => {
  const trace = async (src: string, dst: string, ...options: string[]) => {
    const { code, stdout, stderr } = await stack.command('trace', '--src', src, '--dst', dst, '--json', ...options);
    expect(stderr).toBe('');
    return { code, report: JSON.parse(stdout) };
  };

  interface Traced {
    readonly batch: { readonly partition: number; readonly offset: number };
    readonly nar: { readonly src_port: number; readonly time_flow_end_ms: number; readonly bytes: number };
  }
  const newestNar = async (partition: number) => {
    const records = await readAll(log, 'nars', partition, 'committed');
    const batches = records.map(({ value, offset }) => ({ offset, batch: narBatchCodec.decode(value as Buffer) }));
    const newest = batches.findLast(({ batch }) => batch.nars.length > 0)!;
    return { ...newest, nar: newest.batch.nars.at(-1)! };
  };
  const isOf = (flow: Traced, offset: number, nar: Nar) =>
    flow.batch.partition === 1 &&
    flow.batch.offset === offset &&
    flow.nar.src_port === nar.src_port &&
    flow.nar.time_flow_end_ms === nar.time_flow_end_ms &&
    flow.nar.bytes === nar.bytes;

  test(
    'a flow is followed from its batch to its row in the ledger',
    async () => {
      await generate(500);
      await balanceOf(stack);
      const { offset, batch, nar } = await newestNar(1);
      const { code, report } = await trace(addressText(nar.src_addr), addressText(nar.dst_addr), '--limit', '1000');
      expect(code).toBe(0);
      const flow = report.flows.find((one: Traced) => isOf(one, offset, nar));
      expect(flow).toMatchObject({
        verdict: 'billed',
        nar: { bytes: expect.any(Number), protocol: 'netflow_v5' },
        batch: { collector: 'collector-1', incarnation: batch.incarnation, sequence: batch.sequence, acknowledged_by: ['a', 'b'] },
        output: { kind: 'usage' },
        booked: true,
      });
      // The row that it names is one of that window and group, in accounting's topic as well.
      const output = (await readAggregates(log, 1)).find(({ n }) => n === flow.output.n);
      expect(output?.aggregate).toMatchObject({ kind: 'usage', window_start_ms: flow.window.start_ms });
      expect(nar.time_flow_end_ms).toBeGreaterThanOrEqual(flow.window.start_ms);
      expect(nar.time_flow_end_ms).toBeLessThan(flow.window.end_ms);
      const text = await stack.command('trace', '--src', addressText(nar.src_addr), '--dst', addressText(nar.dst_addr));
      expect(text.stdout).toMatch(/^BILLED: it is in the ledger/);
    },
    2 * minute,
  );

  test(
    'one whose window was closed when it came is in an adjustment of it',
    async () => {
      const capture = fileURLToPath(new URL('../captures/nf5-softflowd.pcap', import.meta.url));
      const { code: sent, stderr } = await stack.command('replay', capture, '--to', stack.listen());
      expect({ sent, stderr: sent ? stderr : '' }).toEqual({ sent: 0, stderr: '' });
      await balanceOf(stack);
      const { offset, nar } = await newestNar(1);
      const { report } = await trace(addressText(nar.src_addr), addressText(nar.dst_addr), '--limit', '1000');
      const flow = report.flows.find((one: Traced) => isOf(one, offset, nar));
      // Its end is years before its reception, so it counts an hour before that.
      expect(flow).toMatchObject({ verdict: 'adjusted', window: { clamped: true }, output: { kind: 'adjustment' }, booked: true });
      expect(flow.batch.appended_ms - flow.window.end_ms).toBeGreaterThan(3_590_000);
      const output = (await readAggregates(log, 1)).find(({ n }) => n === flow.output.n);
      expect(output?.aggregate).toMatchObject({ kind: 'adjustment', window_start_ms: flow.window.start_ms });
    },
    2 * minute,
  );

  test(
    'one that is not in the log: said so, with what was lost at that time',
    async () => {
      const { code, report } = await trace('192.0.2.1', '192.0.2.2');
      expect({ code, found: report.found, flows: report.flows }).toEqual({ code: 1, found: 0, flows: [] });
    },
    minute,
  );
});
