/**
 * `make demo`: the main job on real input. Everything runs as a process of its own; real captures and a synthetic load come in over UDP; the
 * elected aggregator is killed in the middle; at the end stand the usage, the balance and the length of the fail-over.
 * Exits 0 only if the balance is zero and equals what was sent. --dir DIR keeps the logs and data there.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs, styleText } from 'node:util';
import { systemClock } from '../adapters/clock.ts';
import { openKafka } from '../adapters/kafka.ts';
import type { Log } from '../adapters/ports.ts';
import { electionCodec, healthCodec } from '../schemas/codec.ts';
import type { Election, Health } from '../schemas/types.ts';
import { Stack } from './stack.ts';

const { values } = parseArgs({
  options: { rate: { type: 'string', default: '10000' }, seconds: { type: 'string', default: '40' }, dir: { type: 'string' } },
});
const repository = fileURLToPath(new URL('..', import.meta.url));
const program = join(repository, 'bin', 'flowledger');
const captures = ['nf5-netgraph-freebsd', 'nf9-nprobe-16min', 'nf9-softflowd-graylog', 'ipfix-cesnet-3kB', 'ipfix-openbsd-pflow'];

/** Short windows, so that a fail-over and a window's way to the ledger can be watched. */
const demoEnv = {
  FLOWLEDGER_AGGREGATE_WINDOW: '1s',
  FLOWLEDGER_AGGREGATE_LATENESS: '2s',
  FLOWLEDGER_AGGREGATE_LIVE_WITHIN: '5s',
  // The captures are years old: their flows are booked at the time of their reception.
  FLOWLEDGER_AGGREGATE_PAST_MAX: '1s',
  FLOWLEDGER_AGGREGATE_ACCOUNTS: JSON.stringify([
    { prefix: '198.18.0.0/16', account: 'acme' },
    { prefix: '198.19.0.0/16', account: 'globex' },
    { prefix: '10.0.0.0/8', account: 'campus' },
    { prefix: '192.168.0.0/16', account: 'home' },
  ]),
};

interface Totals {
  flows: number;
  bytes: number;
  packets: number;
}

const startedMs = Date.now();
const seconds = () => ((Date.now() - startedMs) / 1000).toFixed(1).padStart(6);
const say = (line: string) => process.stdout.write(`${styleText('dim', seconds())}  ${line}\n`);
const bold = (text: string) => styleText('bold', text);

async function main(): Promise<number> {
  say(bold('starting Kafka, Redis, two collectors, aggregators a and b, watchdog, feed, judge and accounting'));
  const stack = await Stack.start({ collectors: 2, env: demoEnv, progress: say, ...(values.dir ? { dir: values.dir } : {}) });
  const broker = stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string;
  const [host = '', port = ''] = broker.split(':');
  const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
  const log = openKafka({ brokers: [{ host, port: Number(port) }], client_id: 'demo', topic_prefix: '', request_timeout: 5000 }, quiet, systemClock);
  const view = new View(log);
  const stopped = new AbortController();
  const watching = view.follow(stopped.signal);
  try {
    return await run(stack, view);
  } finally {
    view.stopPrinting();
    stopped.abort();
    await watching;
    await log.close();
    await stack.stop();
  }
}

async function run(stack: Stack, view: View): Promise<number> {
  const expected = sumOf(captures.map(expectedOf));
  say(bold(`replaying ${captures.length} captures of real exporters to ${stack.listen('collector-1')}`));
  for (const name of captures) {
    const { code, stderr } = await stack.command(
      'replay',
      join(repository, 'tests', 'captures', `${name}.pcap`),
      '--to',
      stack.listen('collector-1'),
      '--speed',
      '2000',
    );
    if (code !== 0) throw new Error(`replay of ${name}: ${stderr}`);
  }
  const flows = Number(values.rate) * Number(values.seconds);
  say(bold(`a synthetic load of ${values.rate} flows/s for ${values.seconds} s, IPFIX to collector-1 and NetFlow v5 to collector-2`));
  const loads = [generate('ipfix', stack.listen('collector-1'), flows / 2), generate('v5', stack.listen('collector-2'), flows / 2)];
  view.print();

  await delay(Number(values.seconds) * 400);
  const killed = view.leader();
  const killedMs = Date.now();
  say(bold(styleText('red', `kill -9 of aggregator ${killed}, the elected one`)));
  await stack.kill(`aggregator-${killed}`);
  const failover = await view.failedOver(killed, killedMs);
  say(
    bold(
      styleText(
        'green',
        `${failover.leader} elected after ${failover.electedMs} ms (${failover.reason}), first record fed from it after ${failover.fedMs} ms`,
      ),
    ),
  );
  await delay(5000);
  say(bold(`aggregator ${killed} is started again`));
  await stack.startService(`aggregator-${killed}`);

  const sent = sumOf([expected, ...(await Promise.all(loads))]);
  say(bold('everything is sent; waiting until it is booked'));
  const audited = await stack.command('audit', '--json', '--wait', '60s');
  view.stopPrinting();
  const usage = await stack.command('usage', '--by', 'src_account,dst_account');
  const balance = await stack.command('audit');
  process.stdout.write(`\n${usage.stdout}\n${balance.stdout}\n`);
  const { totals, imbalance, divergence, complete } = JSON.parse(audited.stdout);
  const checks: [string, boolean][] = [
    ['everything has arrived', complete],
    ['the balance is zero', imbalance.flows === 0 && imbalance.bytes === 0 && imbalance.packets === 0],
    ['A and B agree', divergence === 0],
    [`billed ${totals.billed_flows} flows = sent ${sent.flows}`, totals.billed_flows === sent.flows],
    [`billed ${totals.billed_bytes} bytes = sent ${sent.bytes}`, totals.billed_bytes === sent.bytes],
    [`billed ${totals.billed_packets} packets = sent ${sent.packets}`, totals.billed_packets === sent.packets],
  ];
  for (const [what, holds] of checks) process.stdout.write(`${holds ? styleText('green', 'yes') : styleText('red', 'NO ')}  ${what}\n`);
  process.stdout.write(`     fail-over: ${failover.fedMs} ms from the kill to the first record fed from ${failover.leader}\n`);
  return checks.every(([, holds]) => holds) ? 0 : 1;
}

/** What other decoders found in a capture. */
function expectedOf(name: string): Totals {
  const all = JSON.parse(readFileSync(join(repository, 'tests', 'captures', 'expected.json'), 'utf8'));
  const { records, octets, packets } = all[`${name}.pcap`];
  return { flows: records, bytes: octets, packets };
}

function sumOf(parts: readonly Totals[]): Totals {
  const sum = { flows: 0, bytes: 0, packets: 0 };
  for (const part of parts) {
    sum.flows += part.flows;
    sum.bytes += part.bytes;
    sum.packets += part.packets;
  }
  return sum;
}

function generate(protocol: string, to: string, flows: number): Promise<Totals> {
  const args = `generate --protocol ${protocol} --to ${to} --rate ${Number(values.rate) / 2} --flows ${flows} --exporters 3 --keys 1000 --seed 1`;
  const child = spawn(program, args.split(' '), { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve(JSON.parse(out.trim().split('\n').at(-1) as string)) : reject(new Error(`generate ended with ${code}`)),
    );
  });
}

interface Failover {
  readonly leader: string;
  readonly reason: string;
  readonly electedMs: number;
  readonly fedMs: number;
}

/** What the demo shows while it works, as the topics have it: health records, elections, and the times at which records reach `aggregates`. */
class View {
  readonly #log: Log;
  readonly #health = new Map<string, Health>();
  readonly #elections = new Map<number, Election>();
  readonly #fed: { readonly partition: number; readonly atMs: number }[] = [];
  #printing: NodeJS.Timeout | undefined;
  readonly #rates = new Map<string, readonly [atMs: number, count: number, rate: number]>();

  constructor(log: Log) {
    this.#log = log;
  }

  async follow(signal: AbortSignal): Promise<void> {
    const reader = this.#log.reader('committed');
    reader.assign('health', 0, (await this.#log.bounds('health', 0)).startOffset);
    reader.assign('elections', 0, 0);
    for (let partition = 0; partition < 4; partition++) reader.assign('aggregates', partition, 0);
    while (!signal.aborted) {
      for (const { topic, partition, records } of await reader.poll(200).catch(() => [])) {
        for (const { value, appendedMs } of records) {
          if (!value) continue;
          if (topic === 'aggregates') this.#fed.push({ partition, atMs: appendedMs });
          else if (topic === 'elections') this.#elections.set(electionCodec.decode(value).partition, electionCodec.decode(value));
          else this.#heard(healthCodec.decode(value));
        }
      }
    }
    await reader.close();
  }

  #heard(health: Health): void {
    this.#health.set(`${health.role}/${health.id}`, health);
  }

  leader(): string {
    return this.#elections.get(0)?.leader ?? 'a';
  }

  /** From the kill to the first record that the feed took from the other, by the broker's clock, for the slowest partition. */
  async failedOver(killed: string, killedMs: number): Promise<Failover> {
    const partitions = [...this.#elections.values()].filter(({ leader }) => leader === killed).map(({ partition }) => partition);
    for (const end = Date.now() + 30_000; Date.now() < end; await delay(50)) {
      const elections = partitions.map((partition) => this.#elections.get(partition) as Election);
      if (elections.some(({ leader }) => leader === killed)) continue;
      const fed = elections.map(({ partition, at_ms }) => this.#fed.find((record) => record.partition === partition && record.atMs >= at_ms)?.atMs);
      if (fed.some((atMs) => atMs === undefined)) continue;
      return {
        leader: elections[0]?.leader ?? '',
        reason: elections[0]?.reason ?? '',
        electedMs: Math.max(...elections.map(({ at_ms }) => at_ms)) - killedMs,
        fedMs: Math.max(...(fed as number[])) - killedMs,
      };
    }
    throw new Error('the other aggregator did not take over within 30 s');
  }

  /** One line per stage every two seconds. */
  print(): void {
    this.#printing = setInterval(() => {
      for (const line of this.#lines()) process.stdout.write(`        ${line}\n`);
      process.stdout.write('\n');
    }, 2000);
  }

  stopPrinting(): void {
    clearInterval(this.#printing);
  }

  #rate(key: string, count: number): string {
    const [thenMs, before, last] = this.#rates.get(key) ?? [0, count, 0];
    const rate = thenMs ? (Math.max(0, count - before) * 1000) / (Date.now() - thenMs) : last;
    this.#rates.set(key, [Date.now(), count, rate]);
    return Math.round(rate).toLocaleString('en').padStart(8);
  }

  #lines(): string[] {
    const lines: string[] = [];
    for (const [key, health] of [...this.#health].sort(([one], [other]) => stageOf(one) - stageOf(other) || one.localeCompare(other))) {
      const stale = Date.now() - health.at_ms > 1500 ? styleText('red', '  no sign of life') : '';
      const copy = health.copy;
      if (copy) {
        const missing = `unacknowledged a ${copy.unacknowledged_a_nars} b ${copy.unacknowledged_b_nars}`;
        const held = `copy ${copy.nars.toLocaleString('en')} NARs in ${copy.store}, ${missing}`;
        lines.push(`${key.padEnd(24)} ${this.#rate(key, copy.decoded_flows)} flows/s    ${held}${stale}`);
        continue;
      }
      const lag = health.partitions.reduce((sum, { end_offset, next_offset }) => sum + Math.max(0, end_offset - next_offset), 0);
      const n = health.partitions.reduce((sum, partition) => sum + partition.n, 0);
      const outputs = health.partitions.length > 0 ? `${this.#rate(key, n)} outputs/s  lag ${lag} records, n ${n}` : '';
      lines.push(`${key.padEnd(24)} ${outputs}${stale}`);
    }
    const leaders = [...this.#elections.values()].sort((one, other) => one.partition - other.partition);
    lines.push(`${'leader'.padEnd(24)} ${leaders.map(({ partition, leader, epoch }) => `${partition}:${leader} (epoch ${epoch})`).join('  ')}`);
    return lines;
  }
}

function stageOf(key: string): number {
  return ['collector', 'aggregator', 'watchdog', 'feed', 'judge', 'accounting'].indexOf(key.split('/')[0] as string);
}

process.exitCode = await main().catch((error: Error) => {
  process.stderr.write(`${styleText('red', 'the demo failed')}: ${error.message}\n`);
  return 1;
});
