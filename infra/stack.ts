/** The whole system on this machine as separate processes, under a handle that starts, kills, pauses and asks each. For demo, tests, benches. */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort, type KafkaOptions, type Listener, newClusterId, startKafka } from './local-kafka.ts';
import { type RedisOptions, startRedis } from './local-redis.ts';
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
  /** Three are a cluster that keeps three copies of each record, two of which must be written. */
  readonly brokers?: 1 | 3;
  readonly watchdogs?: number;
  readonly feeds?: number;
  /** own: each collector has a Redis of its own, redis-1 for collector-1. */
  readonly redis?: 'shared' | 'own';
  readonly partitions?: number;
  /** Configuration keys as environment variables, for every process. */
  readonly env?: Readonly<Record<string, string>>;
  /** What starts brokers and Redis; nothing: they are processes of this machine. */
  readonly backends?: Backends;
  /** What lies between the parts; nothing: they reach each other directly. */
  readonly routes?: Routes;
  readonly progress?: (line: string) => void;
}

/** Starts brokers and Redis servers, on their directories and ports. */
export interface Backends {
  startKafka(options: KafkaOptions): Promise<RunningBackend>;
  startRedis(options: RedisOptions): Promise<RunningBackend>;
}

/** What an engine's pause does to a container: no process of it runs, and none is told. */
export interface Freezer {
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  isFrozen(): Promise<boolean>;
}

export interface RunningBackend {
  readonly pid: number;
  /** Of the container that it is in, if it is in one. */
  readonly freezer?: Freezer;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<void>;
  /** SIGKILL: what a crash does. */
  kill(): Promise<void>;
}

/** The ways by which services reach the backends, where something stands in between. */
export interface Routes {
  /** Of a broker, beside its own listener; asked once. */
  listeners(nodeId: number): Promise<readonly Listener[]>;
  /** Where a service finds its backends instead. Asked when all of these run. */
  env(service: string, redisPort: number): Promise<Readonly<Record<string, string>>>;
}

/** A service as it stands in commands: what follows `bin/flowledger`, and what it has of its own. */
interface ServiceSpec {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly httpPort: number;
}

/** A broker or a Redis; it keeps its ports and its data when it is started again. */
interface Backend {
  running: RunningBackend | null;
  readonly start: () => Promise<RunningBackend>;
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
  readonly #backends = new Map<string, Backend>();
  readonly #ports = new Map<string, number>();
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

  /** kafka or kafka-1, kafka-2, kafka-3; redis or redis-1, redis-2, ... */
  get backends(): readonly string[] {
    return [...this.#backends.keys()];
  }

  /** Where a broker or a Redis listens. */
  port(backend: string): number {
    const port = this.#ports.get(backend);
    if (port === undefined) throw new Error(`${backend} is not a backend of this stack: ${this.backends.join(', ')}`);
    return port;
  }

  async startBackends(): Promise<void> {
    const { partitions = 4, brokers = 1, collectors = 1, redis = 'shared' } = this.#options;
    const kafkas = await this.#defineKafka(brokers);
    for (let i = 1; i <= (redis === 'own' ? collectors : 1); i++) await this.#defineRedis(redis === 'own' ? `redis-${i}` : 'redis');
    await Promise.all(this.backends.map((name) => this.startBackend(name)));
    this.#env = {
      FLOWLEDGER_KAFKA_BROKERS: kafkas.map((name) => `127.0.0.1:${this.port(name)}`).join(','),
      FLOWLEDGER_REDIS_URL: `redis://127.0.0.1:${this.port(this.#redisOf(1))}`,
      FLOWLEDGER_TOPICS_PARTITIONS: String(partitions),
      FLOWLEDGER_TOPICS_REPLICATION: String(brokers),
      FLOWLEDGER_ACCOUNTING_LEDGER: join(this.dir, 'ledger.sqlite'),
      ...this.#options.env,
    };
    const { code, stderr, stdout } = await this.command('topics');
    if (code !== 0) throw new Error(`the topics could not be made:\n${stdout}${stderr}`);
  }

  async #defineKafka(brokers: number): Promise<string[]> {
    const nodeIds = Array.from({ length: brokers }, (_, i) => i + 1);
    const name = (nodeId: number) => (brokers === 1 ? 'kafka' : `kafka-${nodeId}`);
    const voters = new Map<number, number>();
    for (const nodeId of nodeIds) voters.set(nodeId, await freePort());
    const clusterId = newClusterId();
    for (const nodeId of nodeIds) {
      const port = await freePort();
      const listeners = (await this.#options.routes?.listeners(nodeId)) ?? [];
      const membership = { nodeId, clusterId, voters };
      const options = {
        dir: join(this.dir, name(nodeId)),
        port,
        controllerPort: voters.get(nodeId) as number,
        membership,
        listeners,
        ...this.#told(),
      };
      this.#ports.set(name(nodeId), port);
      this.#backends.set(name(nodeId), { running: null, start: () => this.#starting().startKafka(options) });
    }
    return nodeIds.map(name);
  }

  async #defineRedis(name: string): Promise<void> {
    const port = await freePort();
    this.#ports.set(name, port);
    this.#backends.set(name, { running: null, start: () => this.#starting().startRedis({ dir: join(this.dir, name), port, ...this.#told() }) });
  }

  #starting(): Backends {
    return this.#options.backends ?? { startKafka, startRedis };
  }

  #told(): Pick<StackOptions, 'progress'> {
    return this.#options.progress ? { progress: this.#options.progress } : {};
  }

  #redisOf(collector: number): string {
    return this.#options.redis === 'own' ? `redis-${collector}` : 'redis';
  }

  async #define(): Promise<void> {
    for (let i = 1; i <= (this.#options.collectors ?? 1); i++) {
      const name = `collector-${i}`;
      const listen = `127.0.0.1:${await freeUdpPort()}`;
      this.#listen.set(name, listen);
      const env = {
        FLOWLEDGER_COLLECTOR_NAME: name,
        FLOWLEDGER_COLLECTOR_LISTEN: listen,
        FLOWLEDGER_REDIS_URL: `redis://127.0.0.1:${this.port(this.#redisOf(i))}`,
      };
      await this.#add(name, ['collector'], 'COLLECTOR_HTTP', env, this.port(this.#redisOf(i)));
    }
    await this.#add('aggregator-a', ['aggregator', '--replica', 'a'], 'AGGREGATOR_HTTP_A');
    await this.#add('aggregator-b', ['aggregator', '--replica', 'b'], 'AGGREGATOR_HTTP_B');
    for (const [name, id] of numbered('watchdog', this.#options.watchdogs))
      await this.#add(name, ['watchdog'], 'WATCHDOG_HTTP', { FLOWLEDGER_WATCHDOG_ID: id });
    for (const [name, id] of numbered('feed', this.#options.feeds)) await this.#add(name, ['feed'], 'FEED_HTTP', { FLOWLEDGER_FEED_ID: id });
    await this.#add('judge', ['judge'], 'JUDGE_HTTP');
    await this.#add('accounting', ['accounting'], 'ACCOUNTING_HTTP');
  }

  async #add(name: string, args: readonly string[], http: string, env: Readonly<Record<string, string>> = {}, redisPort = 0): Promise<void> {
    const httpPort = await freePort();
    const routed = await this.#options.routes?.env(name, redisPort);
    this.#services.set(name, { args, httpPort, env: { ...env, ...routed, [`FLOWLEDGER_${http}`]: `127.0.0.1:${httpPort}` } });
  }

  /** With `env` for this life alone. */
  async startService(name: string, also: Readonly<Record<string, string>> = {}): Promise<void> {
    const service = this.#service(name);
    const env = { ...this.#env, ...service.env, ...also };
    const child = await startProcess({ command: program, args: service.args, env, logFile: this.logFile(name), detached: false });
    this.#pids.set(name, child.pid);
  }

  /** Of a service or a backend. */
  pid(name: string): number {
    const pid = this.#pids.get(name) ?? this.#backends.get(name)?.running?.pid;
    if (pid === undefined) throw new Error(`${name} does not run`);
    return pid;
  }

  /** Of the container that a backend is in; nothing where it is a process of this machine. */
  freezer(name: string): Freezer | undefined {
    return this.#backends.get(name)?.running?.freezer;
  }

  logFile(name: string): string {
    return join(this.dir, 'log', `${name}.log`);
  }

  /** Resolves when the service says that it does its work. @throws Error with its last words */
  async ready(name: string): Promise<void> {
    const url = `${this.url(name)}/readyz`;
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

  /** Where a service answers over HTTP. */
  url(name: string): string {
    return `http://127.0.0.1:${this.#service(name).httpPort}`;
  }

  /** The service's metrics: the sum over all labels of each name. */
  async metrics(name: string): Promise<Map<string, number>> {
    const text = await (await fetch(`${this.url(name)}/metrics`)).text();
    const sums = new Map<string, number>();
    for (const line of text.split('\n')) {
      const match = /^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)$/.exec(line);
      if (match) sums.set(match[1] as string, (sums.get(match[1] as string) ?? 0) + Number(match[2]));
    }
    return sums;
  }

  /** SIGKILL: what a crash does. */
  async kill(name: string): Promise<void> {
    const { running } = this.#backends.get(name) ?? {};
    await (running ? running.kill() : killProcess(this.pid(name)));
    this.#forget(name);
  }

  /** SIGTERM, and waits for the end. */
  async stopService(name: string): Promise<void> {
    const { running } = this.#backends.get(name) ?? {};
    await (running ? running.stop() : stopProcess(this.pid(name), stopWithinMs));
    this.#forget(name);
  }

  #forget(name: string): void {
    this.#pids.delete(name);
    const backend = this.#backends.get(name);
    if (backend) backend.running = null;
  }

  /** A broker or a Redis, on the data that it left. Resolves when it answers. */
  async startBackend(name: string): Promise<void> {
    const backend = this.#backends.get(name);
    if (!backend) throw new Error(`${name} is not a backend of this stack: ${this.backends.join(', ')}`);
    backend.running = await backend.start();
  }

  signal(name: string, signal: NodeJS.Signals): void {
    process.kill(this.pid(name), signal);
  }

  /** Runs a command of the program to its end, with this stack's configuration. */
  command(...args: string[]): Promise<CommandResult> {
    return this.commandWith({}, ...args);
  }

  /** As `command`; a variable without a value is taken out of the configuration. */
  async commandWith(also: Readonly<Record<string, string | undefined>>, ...args: string[]): Promise<CommandResult> {
    try {
      const { stdout, stderr } = await runFile(program, args, { env: { ...process.env, ...this.#env, ...also }, maxBuffer: 256 * 1024 * 1024 });
      return { code: 0, stdout, stderr };
    } catch (error) {
      const { code, stdout = '', stderr = String(error) } = error as { code?: number; stdout?: string; stderr?: string };
      return { code: typeof code === 'number' ? code : 1, stdout, stderr };
    }
  }

  /** Stops everything, services first. */
  async stop(): Promise<void> {
    await Promise.all([...this.#pids.keys()].map((name) => this.stopService(name)));
    await Promise.all([...this.#backends.values()].map(({ running }) => running?.stop()));
    if (this.#temporary) rmSync(this.dir, { recursive: true, force: true });
  }

  #service(name: string): ServiceSpec {
    const service = this.#services.get(name);
    if (!service) throw new Error(`${name} is not a service of this stack: ${this.services.join(', ')}`);
    return service;
  }
}

/** The first has no number in its name, so that a stack with one of a kind calls it by its kind. */
function numbered(kind: string, count = 1): [name: string, id: string][] {
  return Array.from({ length: count }, (_, i) => [i === 0 ? kind : `${kind}-${i + 1}`, `${kind}-${i + 1}`]);
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
