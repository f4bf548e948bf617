/** The whole system on this machine as separate processes, under a handle that starts, kills, pauses and asks each. For demo, tests, benches. */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort, type LocalKafka, startKafka } from './local-kafka.ts';
import { type LocalRedis, startRedis } from './local-redis.ts';
import { killProcess, lastLines, startProcess, stopProcess } from './processes.ts';

const program = fileURLToPath(new URL('../bin/flowledger', import.meta.url));
const runFile = promisify(execFile);
/** Long enough for a loaded two-core machine. */
const readyWithinMs = 60_000;
const stopWithinMs = 20_000;

export interface StackOptions {
  /** Nothing: a new directory, removed at the end. */
  readonly dir?: string;
  readonly collectors?: number;
  readonly partitions?: number;
  /** Configuration keys as environment variables, for every process. */
  readonly env?: Readonly<Record<string, string>>;
  readonly progress?: (line: string) => void;
}

/** A service as it stands in commands: what follows `bin/flowledger`, and what it has of its own. */
interface ServiceSpec {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly httpPort: number;
}

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Stack {
  readonly dir: string;
  readonly #temporary: boolean;
  readonly #options: StackOptions;
  readonly #services = new Map<string, ServiceSpec>();
  readonly #pids = new Map<string, number>();
  readonly #listen = new Map<string, string>();
  #kafka: LocalKafka | null = null;
  #redis: LocalRedis | null = null;
  #env: Record<string, string> = {};

  private constructor(options: StackOptions) {
    this.#options = options;
    this.#temporary = !options.dir;
    this.dir = options.dir ?? mkdtempSync(join(tmpdir(), 'flowledger-'));
    mkdirSync(this.dir, { recursive: true });
  }

  /** Broker, Redis, topics and every service, all ready. @throws Error naming what did not start */
  static async start(options: StackOptions = {}): Promise<Stack> {
    const stack = new Stack(options);
    try {
      await stack.startBackends();
      await stack.#define();
      await Promise.all([...stack.#services.keys()].map((name) => stack.startService(name)));
      await Promise.all([...stack.#services.keys()].map((name) => stack.ready(name)));
      return stack;
    } catch (error) {
      await stack.stop();
      throw error;
    }
  }

  /** Broker, Redis and topics only. */
  static async startWithoutServices(options: StackOptions = {}): Promise<Stack> {
    const stack = new Stack(options);
    try {
      await stack.startBackends();
      await stack.#define();
      return stack;
    } catch (error) {
      await stack.stop();
      throw error;
    }
  }

  get services(): readonly string[] {
    return [...this.#services.keys()];
  }

  /** HOST:PORT where a collector takes exports. */
  listen(collector = 'collector-1'): string {
    return this.#listen.get(collector) as string;
  }

  get env(): Readonly<Record<string, string>> {
    return this.#env;
  }

  get ledger(): string {
    return this.#env['FLOWLEDGER_ACCOUNTING_LEDGER'] as string;
  }

  async startBackends(): Promise<void> {
    const { progress, partitions = 4 } = this.#options;
    const told = progress ? { progress } : {};
    const [kafka, redis] = await Promise.all([
      startKafka({ dir: join(this.dir, 'kafka'), ...told }),
      startRedis({ dir: join(this.dir, 'redis'), ...told }),
    ]);
    this.#kafka = kafka;
    this.#redis = redis;
    this.#env = {
      FLOWLEDGER_KAFKA_BROKERS: kafka.broker,
      FLOWLEDGER_REDIS_URL: `redis://127.0.0.1:${redis.port}`,
      FLOWLEDGER_TOPICS_PARTITIONS: String(partitions),
      FLOWLEDGER_ACCOUNTING_LEDGER: join(this.dir, 'ledger.sqlite'),
      ...this.#options.env,
    };
    const { code, stderr, stdout } = await this.command('topics');
    if (code !== 0) throw new Error(`the topics could not be made:\n${stdout}${stderr}`);
  }

  async #define(): Promise<void> {
    for (let i = 1; i <= (this.#options.collectors ?? 1); i++) {
      const name = `collector-${i}`;
      const listen = `127.0.0.1:${await freeUdpPort()}`;
      this.#listen.set(name, listen);
      await this.#add(name, ['collector'], 'COLLECTOR_HTTP', { FLOWLEDGER_COLLECTOR_NAME: name, FLOWLEDGER_COLLECTOR_LISTEN: listen });
    }
    await this.#add('aggregator-a', ['aggregator', '--replica', 'a'], 'AGGREGATOR_HTTP_A');
    await this.#add('aggregator-b', ['aggregator', '--replica', 'b'], 'AGGREGATOR_HTTP_B');
    await this.#add('watchdog', ['watchdog'], 'WATCHDOG_HTTP');
    await this.#add('feed', ['feed'], 'FEED_HTTP');
    await this.#add('judge', ['judge'], 'JUDGE_HTTP');
    await this.#add('accounting', ['accounting'], 'ACCOUNTING_HTTP');
  }

  async #add(name: string, args: readonly string[], http: string, env: Readonly<Record<string, string>> = {}): Promise<void> {
    const httpPort = await freePort();
    this.#services.set(name, { args, httpPort, env: { ...env, [`FLOWLEDGER_${http}`]: `127.0.0.1:${httpPort}` } });
  }

  async startService(name: string): Promise<void> {
    const service = this.#service(name);
    const env = { ...this.#env, ...service.env };
    const child = await startProcess({ command: program, args: service.args, env, logFile: this.logFile(name), detached: false });
    this.#pids.set(name, child.pid);
  }

  pid(name: string): number {
    const pid = this.#pids.get(name);
    if (pid === undefined) throw new Error(`${name} does not run`);
    return pid;
  }

  logFile(name: string): string {
    return join(this.dir, 'log', `${name}.log`);
  }

  /** Resolves when the service says that it does its work. @throws Error with its last words */
  async ready(name: string): Promise<void> {
    const url = `http://127.0.0.1:${this.#service(name).httpPort}/readyz`;
    let last = 'no answer';
    for (const end = Date.now() + readyWithinMs; Date.now() < end; await delay(50)) {
      try {
        const response = await fetch(url);
        if (response.ok) return;
        last = await response.text();
      } catch (error) {
        last = (error as Error).message;
      }
    }
    throw new Error(`${name} is not ready (${last}); the end of its log:\n${lastLines(this.logFile(name), 15)}`);
  }

  /** The service's metrics: the sum over all labels of each name. */
  async metrics(name: string): Promise<Map<string, number>> {
    const text = await (await fetch(`http://127.0.0.1:${this.#service(name).httpPort}/metrics`)).text();
    const sums = new Map<string, number>();
    for (const line of text.split('\n')) {
      const match = /^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)$/.exec(line);
      if (match) sums.set(match[1] as string, (sums.get(match[1] as string) ?? 0) + Number(match[2]));
    }
    return sums;
  }

  /** SIGKILL: what a crash does. */
  async kill(name: string): Promise<void> {
    await killProcess(this.pid(name));
    this.#pids.delete(name);
  }

  async stopService(name: string): Promise<void> {
    await stopProcess(this.pid(name), stopWithinMs);
    this.#pids.delete(name);
  }

  signal(name: string, signal: NodeJS.Signals): void {
    process.kill(this.pid(name), signal);
  }

  async killRedis(): Promise<void> {
    await this.#redis?.kill();
  }

  async startRedis(): Promise<void> {
    this.#redis = await startRedis({ dir: join(this.dir, 'redis'), port: Number(new URL(this.#env['FLOWLEDGER_REDIS_URL'] as string).port) });
  }

  async killKafka(): Promise<void> {
    await this.#kafka?.kill();
  }

  async startKafka(): Promise<void> {
    const { port = 0, controllerPort = 0 } = this.#kafka ?? {};
    this.#kafka = await startKafka({ dir: join(this.dir, 'kafka'), port, controllerPort });
  }

  /** Runs a command of the program to its end, with this stack's configuration. */
  async command(...args: string[]): Promise<CommandResult> {
    try {
      const { stdout, stderr } = await runFile(program, args, { env: { ...process.env, ...this.#env }, maxBuffer: 256 * 1024 * 1024 });
      return { code: 0, stdout, stderr };
    } catch (error) {
      const { code, stdout = '', stderr = String(error) } = error as { code?: number; stdout?: string; stderr?: string };
      return { code: typeof code === 'number' ? code : 1, stdout, stderr };
    }
  }

  /** Stops everything, services first. */
  async stop(): Promise<void> {
    await Promise.all([...this.#pids.keys()].map((name) => this.stopService(name)));
    await Promise.all([this.#kafka?.stop(), this.#redis?.stop()]);
    if (this.#temporary) rmSync(this.dir, { recursive: true, force: true });
  }

  #service(name: string): ServiceSpec {
    const service = this.#services.get(name);
    if (!service) throw new Error(`${name} is not a service of this stack: ${this.services.join(', ')}`);
    return service;
  }
}

function freeUdpPort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.once('error', reject);
    socket.bind(0, '127.0.0.1', () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}
