/** The system under torture: three brokers, a Redis for each collector, two of every service, load with known totals, and those who watch. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Log } from '../../adapters/ports.ts';
import { Stack, type StackOptions } from '../../infra/stack.ts';
import type { Replica } from '../../schemas/topics.ts';
import { openLog } from '../integration/reading.ts';
import { Load, type Sent, sumOf } from './load.ts';
import { Network } from './network.ts';
import { OrdinaryConsumer, runKafkaTool } from './ordinary-consumer.ts';
import { Witness } from './witness.ts';

const runFile = promisify(execFile);

export const partitions = 4;
export const flowsPerSecond = 20_000;
/** A window of 1 s and as much lateness: what is fed is never more than some seconds old while all is well. */
const env = {
  FLOWLEDGER_AGGREGATE_WINDOW: '1s',
  FLOWLEDGER_AGGREGATE_LATENESS: '1s',
  FLOWLEDGER_AGGREGATE_LIVE_WITHIN: '5s',
  FLOWLEDGER_AGGREGATE_GROUP_BY: 'src_account,dst_account,sampler_address',
  FLOWLEDGER_AGGREGATE_ACCOUNTS: '10.0.0.0/9=east,10.128.0.0/9=west,198.18.0.0/16=north,198.19.0.0/16=south',
  FLOWLEDGER_AGGREGATE_SNAPSHOT_EVERY: '500',
};
/** What is fed counts as current when its windows are closed up to so long ago. */
const currentWithinMs = 5_000;

const collectors = ['collector-1', 'collector-2'];
const replicas = ['aggregator-a', 'aggregator-b'];
/** The services that have links of their own. */
const parties = [...collectors, ...replicas, 'watchdog', 'watchdog-2', 'feed', 'feed-2', 'accounting', 'judge'];

/** The sums of an audit that a cell is judged by. */
export interface Balance {
  readonly billed: Sent;
  readonly lostOnWireFlows: number;
  readonly lost: Sent;
  readonly doubts: number;
}

export interface AuditAnswer {
  readonly complete: boolean;
  readonly waiting_for: readonly string[];
  readonly imbalance: { readonly flows: number; readonly bytes: number; readonly packets: number };
  readonly imbalances: readonly string[];
  readonly divergence: number;
  readonly divergences: readonly string[];
  readonly unclosed_windows: number;
  readonly doubts: number;
  readonly totals: Readonly<Record<string, number | string>>;
}

export class Field {
  readonly stack: Stack;
  readonly network: Network;
  readonly witness: Witness;
  readonly consumer: OrdinaryConsumer;
  readonly log: Log;
  #loads: Load[] = [];
  #loadNumber = 0;

  private constructor(stack: Stack, network: Network, consumer: OrdinaryConsumer) {
    this.stack = stack;
    this.network = network;
    this.consumer = consumer;
    this.log = openLog(this.brokers);
    this.witness = new Witness(openLog(this.brokers), partitions);
  }

  static async start(options: Pick<StackOptions, 'progress' | 'env' | 'dir' | 'backends'> = {}): Promise<Field> {
    const network = new Network(parties);
    const shape = { brokers: 3, collectors: 2, watchdogs: 2, feeds: 2, redis: 'own', partitions, routes: network } as const;
    try {
      const stack = await Stack.start({ ...shape, ...options, env: { ...env, ...options.env } });
      const field = new Field(stack, network, await OrdinaryConsumer.start(stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string));
      field.witness.start();
      return field;
    } catch (error) {
      await network.close();
      throw error;
    }
  }

  get brokers(): string {
    return this.stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#loads.map((load) => load.stop().catch(() => undefined)));
    this.network.restore();
    await Promise.all([this.witness.stop(), this.consumer.stop()]);
    await this.log.close();
    await this.stack.stop();
    await this.network.close();
  }

  /** NetFlow v5 to the one collector, IPFIX to the other, each half of the rate, from addresses that no load used before. */
  startLoad(rate = flowsPerSecond): void {
    const number = ++this.#loadNumber;
    const one = { flowsPerSecond: rate / 2, exporters: 3, keys: 2000 };
    this.#loads = [
      new Load({ ...one, protocol: 'v5', to: this.stack.listen('collector-1'), seed: 2 * number, from: `127.1.${number}.1` }),
      new Load({ ...one, protocol: 'ipfix', to: this.stack.listen('collector-2'), seed: 2 * number + 1, from: `127.2.${number}.1` }),
    ];
  }

  async stopLoad(): Promise<Sent> {
    const loads = this.#loads;
    this.#loads = [];
    return sumOf(await Promise.all(loads.map((load) => load.stop())));
  }

  /** Who leads partition 0, and so most likely all of them. */
  elected(): Replica {
    return this.witness.leader() ?? 'a';
  }

  /** The feed that emits now. */
  async activeFeed(): Promise<string> {
    const emitted = async (name: string) => (await this.stack.metrics(name)).get('flowledger_feed_emitted_total') ?? 0;
    const names = this.stack.services.filter((name) => name.startsWith('feed'));
    const before = await Promise.all(names.map(emitted));
    for (const end = Date.now() + 20_000; Date.now() < end; await delay(100)) {
      const now = await Promise.all(names.map(emitted));
      const more = now.map((count, i) => count - (before[i] as number));
      if (Math.max(...more) > 0) return names[more.indexOf(Math.max(...more))] as string;
    }
    throw new Error('no feed emits anything');
  }

  /** Resolves when A, B and what is fed are as good as up to date in each partition. @returns how long that took in ms; null when it did not */
  async current(withinMs: number): Promise<number | null> {
    const fromMs = Date.now();
    for (; Date.now() - fromMs < withinMs; await delay(50)) {
      if (this.witness.behindMs(Date.now()) < currentWithinMs) return Date.now() - fromMs;
    }
    return null;
  }

  /** Each service whose process is there says that it does its work. */
  async allReady(): Promise<void> {
    await Promise.all(this.stack.services.map((name) => this.stack.ready(name)));
  }

  async audit(waitSeconds: number): Promise<AuditAnswer> {
    const { stdout, stderr } = await this.stack.command('audit', '--json', '--wait', `${waitSeconds}s`);
    try {
      return JSON.parse(stdout) as AuditAnswer;
    } catch {
      throw new Error(`audit said nothing: ${stderr}`);
    }
  }

  /** Kafka's own words on who leads the controllers. */
  async controller(): Promise<string> {
    const output = await runKafkaTool('MetadataQuorumCommand', ['--bootstrap-server', this.brokers, 'describe', '--status']);
    const id = /LeaderId:\s+(\d+)/.exec(output)?.[1];
    if (!id) throw new Error(`the leader of the controllers is not known: ${output.slice(-500)}`);
    return `kafka-${id}`;
  }

  async redis(name: string, ...args: readonly string[]): Promise<string> {
    const { stdout } = await runFile('redis-cli', ['-p', String(this.stack.port(name)), ...args]);
    return stdout.trim();
  }
}

export function balanceOf({ totals, doubts }: AuditAnswer): Balance {
  const of = (stage: string) => ({
    datagrams: 0,
    flows: Number(totals[`${stage}_flows`]),
    bytes: Number(totals[`${stage}_bytes`]),
    packets: Number(totals[`${stage}_packets`]),
  });
  return { billed: of('billed'), lostOnWireFlows: Number(totals['lost_on_wire_flows']), lost: of('lost'), doubts };
}

/** R, S, T (stopped), ... as the system has it; '' when there is no such process. */
export function stateOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[0] as string;
  } catch {
    return '';
  }
}
