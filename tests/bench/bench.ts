/**
 * `make bench`: in one run, on generated traffic, through a real broker and a real Redis: the CPU microseconds per flow of a collector from UDP to
 * Kafka-confirmed with its local copy on, those of an aggregator per NAR, and the bytes per flow in the log. CPU time is the kernel's account of
 * each process (user and system), so it does not depend on what else runs; the idle cost of each process is measured first and taken off.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Stack } from '../../infra/stack.ts';

const { values } = parseArgs({
  options: { flows: { type: 'string', default: '1000000' }, rate: { type: 'string', default: '50000' }, json: { type: 'boolean' } },
});
const flows = Number(values.flows);
const say = (line: string) => process.stderr.write(`${line}\n`);

/** CPU seconds of a process so far; the kernel counts in hundredths. */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function peakMegabytes(pid: number): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** Bytes of the log segments of nars. */
function narsBytes(stack: Stack): number {
  const data = join(stack.dir, 'kafka', 'data');
  const segments = readdirSync(data).filter((name) => /^nars-\d+$/.test(name));
  return segments
    .flatMap((name) =>
      readdirSync(join(data, name))
        .filter((file) => file.endsWith('.log'))
        .map((file) => statSync(join(data, name, file)).size),
    )
    .reduce((sum, size) => sum + size, 0);
}

async function until(done: () => Promise<boolean>, what: string): Promise<void> {
  for (const end = Date.now() + 120_000; Date.now() < end; await delay(100)) if (await done()) return;
  throw new Error(`${what} did not come to an end within two minutes`);
}

interface Row {
  readonly protocol: string;
  readonly flows: number;
  readonly lost_flows: number;
  readonly collector_us_per_flow: number;
  readonly aggregator_us_per_nar: number;
  readonly log_bytes_per_flow: number;
  readonly collector_peak_mb: number;
  readonly aggregator_peak_mb: number;
}

async function measure(protocol: string): Promise<Row> {
  const stack = await Stack.startWithoutServices({ partitions: 4 });
  try {
    const names = ['collector-1', 'aggregator-a'];
    for (const name of names) await stack.startService(name);
    for (const name of names) await stack.ready(name);
    const [collector, aggregator] = names.map((name) => stack.pid(name)) as [number, number];
    const spent = () => [cpuSeconds(collector), cpuSeconds(aggregator)] as const;
    const idleFrom = spent();
    await delay(5000);
    const idlePerSecond = spent().map((now, i) => (now - (idleFrom[i] as number)) / 5);
    const [before, bytesBefore, startedMs] = [spent(), narsBytes(stack), Date.now()];
    const args = `--protocol ${protocol} --to ${stack.listen()} --rate ${values.rate} --flows ${flows} --exporters 4 --keys 10000 --seed 1`;
    const load = await stack.command('generate', ...args.split(' '));
    if (load.code !== 0) throw new Error(load.stderr);
    const sent = JSON.parse(load.stdout.trim().split('\n').at(-1) as string) as { flows: number };
    const metric = async (name: string, metricName: string) => (await stack.metrics(name)).get(metricName) ?? 0;
    const waiting = async () =>
      (await metric('collector-1', 'flowledger_collector_unconfirmed_nars')) + (await metric('collector-1', 'flowledger_collector_pending_nars'));
    await until(async () => (await waiting()) === 0, 'the collector');
    const decoded = await metric('collector-1', 'flowledger_collector_decoded_flows_total');
    await until(async () => (await metric('aggregator-a', 'flowledger_aggregator_nars_total')) >= decoded, 'the aggregator');
    const seconds = (Date.now() - startedMs) / 1000;
    const [collectorSeconds, aggregatorSeconds] = spent().map((now, i) => now - (before[i] as number) - (idlePerSecond[i] as number) * seconds) as [
      number,
      number,
    ];
    const bytes = narsBytes(stack) - bytesBefore;
    const row: Row = {
      protocol,
      flows: decoded,
      lost_flows: sent.flows - decoded,
      collector_us_per_flow: (collectorSeconds * 1e6) / decoded,
      aggregator_us_per_nar: (aggregatorSeconds * 1e6) / decoded,
      log_bytes_per_flow: bytes / decoded,
      collector_peak_mb: peakMegabytes(collector),
      aggregator_peak_mb: peakMegabytes(aggregator),
    };
    return row;
  } finally {
    await stack.stop();
  }
}

const rows: Row[] = [];
for (const protocol of ['v5', 'v9', 'ipfix']) {
  say(`${protocol}: ${flows} flows at ${values.rate}/s`);
  rows.push(await measure(protocol));
}
if (values.json) process.stdout.write(`${JSON.stringify(rows)}\n`);
else {
  const digits = (value: number, places: number) => value.toFixed(places).padStart(9);
  process.stdout.write(`${cpus()[0]?.model}, ${cpus().length} cores, Node ${process.version}\n`);
  process.stdout.write('protocol     flows   lost  collector us/flow  aggregator us/NAR  log bytes/flow  peak MB (collector, aggregator)\n');
  for (const row of rows) {
    const counts = `${row.protocol.padEnd(8)} ${String(row.flows).padStart(9)} ${String(row.lost_flows).padStart(6)}`;
    const [collector, aggregator] = [digits(row.collector_us_per_flow, 2), digits(row.aggregator_us_per_nar, 2)];
    const costs = `${collector}          ${aggregator}       ${digits(row.log_bytes_per_flow, 1)}`;
    process.stdout.write(`${counts}  ${costs}         ${digits(row.collector_peak_mb, 0)} ${digits(row.aggregator_peak_mb, 0)}\n`);
  }
}
