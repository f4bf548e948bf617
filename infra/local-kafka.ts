/** A real Apache Kafka on this machine, from Maven's jars: a node of KRaft, alone or of a cluster; loopback only. For demo, tests and development. */
import { spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Address } from '../adapters/config-values.ts';
import { KafkaAdmin } from '../adapters/kafka-admin.ts';
import { killProcess, lastLines, startProcess, stopProcess } from './processes.ts';

const repository = fileURLToPath(new URL('..', import.meta.url));
const pom = fileURLToPath(new URL('kafka/pom.xml', import.meta.url));
const kafkaVersion = /<kafka\.version>([^<]+)</.exec(readFileSync(pom, 'utf8'))?.[1] ?? 'unknown';
const home = join(repository, '.flowledger', `kafka-${kafkaVersion}`);

/** A part that this machine lacks; the message names the remedy. */
export class MissingTool extends Error {}

type Progress = (line: string) => void;

/**
 * Fetches the broker's jars (about 45 MB) where they are not there yet. An interrupted download goes on where it was, since Maven keeps what it has.
 * Several may run at a time: each copies into a directory of its own, and the first one's is taken.
 * @returns the directory of the jars. @throws MissingTool, or Error with Maven's last words
 */
export async function installKafka(progress: Progress = () => {}): Promise<string> {
  const libs = join(home, 'libs');
  if (existsSync(libs)) return libs;
  await requireTool(
    'java',
    ['-version'],
    'Java 17 or later is needed to run the local Kafka (Debian, Ubuntu: apt-get install openjdk-17-jre-headless)',
  );
  await requireTool('mvn', ['-version'], 'Maven is needed to fetch the local Kafka (Debian, Ubuntu: apt-get install maven)');
  const partial = join(home, `libs.${process.pid}`);
  mkdirSync(partial, { recursive: true });
  progress(`fetching Kafka ${kafkaVersion}`);
  let files = 0;
  let megabytes = 0;
  const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${partial}`];
  const { code, output } = await run('mvn', ['-B', '-f', pom, ...goal], (line) => {
    const done = /Downloaded.*\.jar \(([\d.]+) ([kM])B/.exec(line);
    if (!done) return;
    files++;
    megabytes += Number(done[1]) / (done[2] === 'k' ? 1000 : 1);
    progress(`fetching Kafka ${kafkaVersion}: ${files} files, ${megabytes.toFixed(1)} MB`);
  });
  if (code !== 0) {
    rmSync(partial, { recursive: true, force: true });
    const errors = output.split('\n').filter((line) => line.includes('ERROR'));
    throw new Error(`Maven could not fetch Kafka ${kafkaVersion}; it goes on from there when run again.\n${errors.slice(0, 5).join('\n')}`);
  }
  try {
    renameSync(partial, libs);
  } catch {
    // Another process was first.
    rmSync(partial, { recursive: true, force: true });
  }
  progress(`Kafka ${kafkaVersion}: ${readdirSync(libs).length} jars in place`);
  return libs;
}

async function requireTool(command: string, args: readonly string[], remedy: string): Promise<void> {
  const { code } = await run(command, args, () => {}).catch(() => ({ code: -1 }));
  if (code !== 0) throw new MissingTool(`${command} was not found. ${remedy}`);
}

/** Runs a command to its end; each line of its output is told as it comes. */
export function run(command: string, args: readonly string[], onLine: Progress): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let line = '';
    const take = (chunk: Buffer) => {
      output += chunk;
      const lines = (line + chunk).split('\n');
      line = lines.pop() as string;
      for (const whole of lines) onLine(whole);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? -1, output }));
  });
}

/** A listener beside the broker's own, for a party that reaches the broker by a way of its own. */
export interface Listener {
  readonly name: string;
  readonly port: number;
  /** What those who ask there are told to connect to. */
  readonly advertisedPort: number;
}

/** Which node of which cluster a broker is; each is broker and controller. */
export interface Membership {
  readonly nodeId: number;
  readonly clusterId: string;
  /** The controllers' ports by node id. */
  readonly voters: ReadonlyMap<number, number>;
}

/** Under this name a listener serves the other brokers instead of clients. */
export const brokersListener = 'BROKERS';

export interface KafkaOptions {
  /** Holds the data, the settings and the log; a broker started on it again finds its topics. */
  readonly dir: string;
  /** 0 or nothing: a free port. */
  readonly port?: number;
  readonly controllerPort?: number;
  /** What clients are told to connect to, where something stands in between. */
  readonly advertisedPort?: number;
  /** Nothing: a cluster of its own. */
  readonly membership?: Membership;
  readonly listeners?: readonly Listener[];
  /** Further lines of server.properties; the last one of a name counts. */
  readonly settings?: readonly string[];
  /** True: the broker outlives this process. */
  readonly detached?: boolean;
  readonly progress?: Progress;
}

export interface LocalKafka {
  /** HOST:PORT for clients. */
  readonly broker: string;
  readonly port: number;
  readonly controllerPort: number;
  readonly pid: number;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<void>;
  /** SIGKILL: what a crash does. */
  kill(): Promise<void>;
}

/** Writes the settings of a broker and formats its storage where that was not done yet. @returns java's arguments that run it, and its ports */
export async function prepareKafka(options: KafkaOptions): Promise<{ command: string[]; port: number; controllerPort: number }> {
  const libs = await installKafka(options.progress);
  const { dir, port = await freePort(), controllerPort = await freePort() } = options;
  const { membership = { nodeId: 1, clusterId: newClusterId(), voters: new Map([[1, controllerPort]]) } } = options;
  const own = { name: 'PLAINTEXT', port, advertisedPort: options.advertisedPort ?? port };
  await requireFreePort(port, 'the local Kafka');
  await requireFreePort(controllerPort, "the local Kafka's controller");
  const settings = join(dir, 'server.properties');
  mkdirSync(dir, { recursive: true });
  const lines = [serverProperties(dir, controllerPort, membership, [own, ...(options.listeners ?? [])]), ...(options.settings ?? [])];
  writeFileSync(settings, [...lines, ''].join('\n'));
  const classPath = join(libs, '*');
  if (!existsSync(join(dir, 'data', 'meta.properties'))) {
    const { code, output } = await run(
      'java',
      [...toolOptions, '-cp', classPath, 'kafka.tools.StorageTool', 'format', '-t', membership.clusterId, '-c', settings],
      () => {},
    );
    if (code !== 0) throw new Error(`Kafka's storage could not be formatted in ${dir}:\n${output.trim()}`);
  }
  return { command: [...brokerOptions, '-cp', classPath, 'kafka.Kafka', settings], port, controllerPort };
}

/** Resolves when a client gets metadata. @throws MissingTool, or Error with the end of the broker's log */
export async function startKafka(options: KafkaOptions): Promise<LocalKafka> {
  const { dir, detached = false } = options;
  const { command, port, controllerPort } = await prepareKafka(options);
  const logFile = join(dir, 'kafka.log');
  const child = await startProcess({
    command: 'java',
    args: command,
    cwd: dir,
    logFile,
    detached,
  });
  let ended = false;
  child.once('exit', () => {
    ended = true;
  });
  const broker = `127.0.0.1:${port}`;
  if (!(await answers({ host: '127.0.0.1', port }, () => ended))) {
    if (!ended) await killProcess(child.pid);
    throw new Error(`Kafka did not start on ${broker}; the end of ${logFile}:\n${lastLines(logFile, 15)}`);
  }
  return {
    broker,
    port,
    controllerPort,
    pid: child.pid,
    stop: async () => void (await stopProcess(child.pid, 20_000)),
    kill: () => killProcess(child.pid),
  };
}

export function newClusterId(): string {
  return randomBytes(16).toString('base64url').replace(/^-/, 'A');
}

/** Whether a broker answers there within the time given. */
export async function answers(broker: Address, giveUp: () => boolean, withinMs = 90_000): Promise<boolean> {
  const config = { brokers: [broker], client_id: 'flowledger-probe', topic_prefix: '', request_timeout: 2000 };
  const silent = { debug() {}, info() {}, warn() {}, error() {} };
  const end = Date.now() + withinMs;
  do {
    const admin = new KafkaAdmin(config, silent, 0);
    const reached = await admin.reachable();
    await admin.close();
    if (reached) return true;
    await delay(100);
  } while (Date.now() < end && !giveUp());
  return false;
}

/**
 * A TCP port on the loopback address that nobody listened on a moment ago. Below those that the system gives to outgoing connections, where there is
 * room: what is killed and started again must not find its port taken by somebody who tried to reach it.
 */
export async function freePort(): Promise<number> {
  const below = firstOutgoingPort();
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = below > lowestPort ? randomInt(lowestPort, below) : 0;
    const bound = await listenOnce(port).catch(() => 0);
    if (bound > 0) return bound;
  }
  return listenOnce(0);
}

const lowestPort = 10_240;

function firstOutgoingPort(): number {
  const file = '/proc/sys/net/ipv4/ip_local_port_range';
  return existsSync(file) ? Number.parseInt(readFileSync(file, 'utf8'), 10) : 0;
}

function listenOnce(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

/** @throws Error when something listens there already: what answers would not be what is started. */
export function requireFreePort(port: number, use: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error) => reject(new Error(`port ${port} cannot be used for ${use}: ${error.message}`)));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve()));
  });
}

/** One-shot tools are done before a better compiler would pay. */
const toolOptions = ['-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-Xshare:auto'];
const logging = 'org.slf4j.simpleLogger';
const brokerOptions = [
  '-Xms128m',
  '-Xmx512m',
  // On the one or two cores of a small machine a parallel collector only takes the broker's time.
  '-XX:+UseSerialGC',
  '-XX:+ExitOnOutOfMemoryError',
  '-Djava.awt.headless=true',
  `-D${logging}.defaultLogLevel=warn`,
  `-D${logging}.showDateTime=true`,
  `-D${logging}.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ`,
];

/** Every setting that is not the broker's default has its reason. */
function serverProperties(dir: string, controllerPort: number, membership: Membership, listeners: readonly Listener[]): string {
  const { nodeId, voters } = membership;
  const each = (write: (listener: Listener) => string) => listeners.map(write).join(',');
  const interBroker = listeners.find(({ name }) => name === brokersListener)?.name ?? 'PLAINTEXT';
  const replication = Math.min(3, voters.size);
  const insync = Math.min(2, replication);
  return `# Written at every start by infra/local-kafka.ts.
process.roles=broker,controller
node.id=${nodeId}
controller.quorum.voters=${[...voters].map(([id, port]) => `${id}@127.0.0.1:${port}`).join(',')}
listeners=${each(({ name, port }) => `${name}://127.0.0.1:${port}`)},CONTROLLER://127.0.0.1:${controllerPort}
advertised.listeners=${each(({ name, advertisedPort }) => `${name}://127.0.0.1:${advertisedPort}`)}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,${each(({ name }) => `${name}:PLAINTEXT`)}
controller.listener.names=CONTROLLER
inter.broker.listener.name=${interBroker}
log.dirs=${join(dir, 'data')}

# A misspelt topic must be an error.
auto.create.topics.enable=false
# Batches and output blocks are cut at 1 MiB; topics ask for 4 MiB.
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
# As many copies as there are nodes, up to three; what two of three have is written.
default.replication.factor=${replication}
min.insync.replicas=${insync}
offsets.topic.replication.factor=${replication}
transaction.state.log.replication.factor=${replication}
transaction.state.log.min.isr=${insync}
share.coordinator.state.topic.replication.factor=${replication}
share.coordinator.state.topic.min.isr=${insync}
# The first use of a group or a transaction creates these; the default of 50 partitions each takes seconds.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1
# Nobody else is coming to join a group.
group.initial.rebalance.delay.ms=0
# A killed broker that is started again must wait until its former session has ended.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
# The heap is small.
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
background.threads=4
`;
}
