/**
 * `make bench`: in one run, on generated traffic, through a real broker and a real Redis: the CPU microseconds per flow of a collector from UDP to
 * Kafka-confirmed with its local copy on, those of an aggregator per NAR, and the bytes per flow in the log. CPU time is the kernel's account of
 * each process (all threads, user and system), so that it depends little on what else runs; others still take their part of the caches, which costs
 * up to a quarter more.
 *
 * Two rates: at the lower one a collector takes a tenth of a core, and much of the cost per flow is that of waking up for a datagram, of a flush and
 * of a request, of which there are so many a second whatever they carry; the higher one shows what a flow itself costs. Both processes are warmed up
 * first, since they run for months and a compiler's work is done within a minute. What they spend when nothing arrives is measured and taken off;
 * it is shown, too, since it is a cost that somebody pays.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Stack } from '../../infra/stack.ts';

const { values } = parseArgs({
  options: {
    flows: { type: 'string', default: '1000000' },
    rate: { type: 'string', default: '50000,150000' },
    protocol: { type: 'string', default: 'v5,v9,ipfix' },
    json: { type: 'boolean' },
  },
});
const flows = Number(values.flows);
/** So many flows, at the first rate, before anything is measured. */
const warmUpFlows = 600_000;
const idleSeconds = 8;
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
  /** Flows per second. */
  readonly rate: number;
  readonly flows: number;
  readonly lost_flows: number;
  readonly collector_us_per_flow: number;
  readonly aggregator_us_per_nar: number;
  readonly log_bytes_per_flow: number;
  readonly collector_idle_ms_per_s: number;
  readonly aggregator_idle_ms_per_s: number;
  readonly collector_peak_mb: number;
  readonly aggregator_peak_mb: number;
}

/** Of collector and aggregator. */
type Pair = readonly [collector: number, aggregator: number];

class Bench {
  readonly #stack: Stack;
  readonly #protocol: string;
  readonly #pids: Pair;

  private constructor(stack: Stack, protocol: string, pids: Pair) {
    this.#stack = stack;
    this.#protocol = protocol;
    this.#pids = pids;
  }

  static async run(protocol: string, rates: readonly number[]): Promise<Row[]> {
    const stack = await Stack.startWithoutServices({ partitions: 4 });
    try {
      const names = ['collector-1', 'aggregator-a'];
      for (const name of names) await stack.startService(name);
      for (const name of names) await stack.ready(name);
      const bench = new Bench(stack, protocol, names.map((name) => stack.pid(name)) as unknown as Pair);
      say(`${protocol}: warming up`);
      await bench.#load(warmUpFlows, rates[0] as number);
      const idle = await bench.#idle();
      const rows: Row[] = [];
      for (const rate of rates) rows.push(await bench.#measure(rate, idle));
      return rows;
    } finally {
      await stack.stop();
    }
  }

  #spent(): Pair {
    return [cpuSeconds(this.#pids[0]), cpuSeconds(this.#pids[1])];
  }

  /** CPU seconds per second when nothing arrives. */
  async #idle(): Promise<Pair> {
    const before = this.#spent();
    await delay(idleSeconds * 1000);
    return less(this.#spent(), before, [0, 0], 0).map((seconds) => seconds / idleSeconds) as unknown as Pair;
  }

  async #metric(service: string, name: string): Promise<number> {
    return (await this.#stack.metrics(service)).get(name) ?? 0;
  }

  /** Sends flows and waits until all that arrived is confirmed and folded. Returns how many were sent. */
  async #load(count: number, rate: number): Promise<number> {
    const args = `--protocol ${this.#protocol} --to ${this.#stack.listen()} --rate ${rate} --flows ${count} --exporters 4 --keys 10000 --seed 1`;
    const load = await this.#stack.command('generate', ...args.split(' '));
    if (load.code !== 0) throw new Error(load.stderr);
    const { flows: sent } = JSON.parse(load.stdout.trim().split('\n').at(-1) as string) as { flows: number };
    const waiting = async () =>
      (await this.#metric('collector-1', 'flowledger_collector_unconfirmed_nars')) +
      (await this.#metric('collector-1', 'flowledger_collector_pending_nars'));
    await until(async () => (await waiting()) === 0, 'the collector');
    const decoded = await this.#decoded();
    await until(async () => (await this.#metric('aggregator-a', 'flowledger_aggregator_nars_total')) >= decoded, 'the aggregator');
    return sent;
  }

  #decoded(): Promise<number> {
    return this.#metric('collector-1', 'flowledger_collector_decoded_flows_total');
  }

  async #measure(rate: number, idle: Pair): Promise<Row> {
    say(`${this.#protocol}: ${flows} flows at ${rate}/s`);
    const [decodedBefore, bytesBefore, before, startedMs] = [await this.#decoded(), narsBytes(this.#stack), this.#spent(), Date.now()];
    const sent = await this.#load(flows, rate);
    const [collector, aggregator] = less(this.#spent(), before, idle, (Date.now() - startedMs) / 1000);
    const decoded = (await this.#decoded()) - decodedBefore;
    return {
      protocol: this.#protocol,
      rate,
      flows: decoded,
      lost_flows: sent - decoded,
      collector_us_per_flow: (collector * 1e6) / decoded,
      aggregator_us_per_nar: (aggregator * 1e6) / decoded,
      log_bytes_per_flow: (narsBytes(this.#stack) - bytesBefore) / decoded,
      collector_idle_ms_per_s: idle[0] * 1000,
      aggregator_idle_ms_per_s: idle[1] * 1000,
      collector_peak_mb: peakMegabytes(this.#pids[0]),
      aggregator_peak_mb: peakMegabytes(this.#pids[1]),
    };
  }
}

function less(now: Pair, before: Pair, idle: Pair, seconds: number): Pair {
  return [now[0] - before[0] - idle[0] * seconds, now[1] - before[1] - idle[1] * seconds];
}

function print(rows: readonly Row[]): void {
  process.stdout.write(`${cpus()[0]?.model}, ${cpus().length} cores, Node ${process.version}\n`);
  process.stdout.write(
    'protocol  flows/s     flows   lost  collector us/flow  aggregator us/NAR  log bytes/flow  idle ms/s  peak MB (collector, aggregator)\n',
  );
  for (const row of rows) {
    const digits = (value: number, places: number, width: number) => value.toFixed(places).padStart(width);
    const counts = `${row.protocol.padEnd(8)} ${digits(row.rate, 0, 8)} ${digits(row.flows, 0, 9)} ${digits(row.lost_flows, 0, 6)}`;
    const cost = `${digits(row.collector_us_per_flow, 2, 17)}  ${digits(row.aggregator_us_per_nar, 2, 17)}  ${digits(row.log_bytes_per_flow, 1, 14)}`;
    const idle = `${digits(row.collector_idle_ms_per_s, 0, 5)} ${digits(row.aggregator_idle_ms_per_s, 0, 3)}`;
    process.stdout.write(`${counts}  ${cost}  ${idle}  ${digits(row.collector_peak_mb, 0, 7)} ${digits(row.aggregator_peak_mb, 0, 5)}\n`);
  }
}

const rows: Row[] = [];
for (const protocol of values.protocol.split(',')) rows.push(...(await Bench.run(protocol, values.rate.split(',').map(Number))));
if (values.json) process.stdout.write(`${JSON.stringify(rows)}\n`);
else print(rows);
