/** A real Redis on this machine that keeps what it was told: every write on disk before the answer, nothing evicted, loopback only. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort, MissingTool, requireFreePort, run } from './local-kafka.ts';
import { killProcess, lastLines, startProcess, stopProcess } from './processes.ts';

type Progress = (line: string) => void;

const remedy = 'Install it (Debian, Ubuntu: apt-get install redis-server; Fedora: dnf install redis; macOS: brew install redis), or set redis.url.';

/** Looks for redis-server on PATH; where it is missing and this user may install packages, installs it. @throws MissingTool */
export async function installRedis(progress: Progress = () => {}): Promise<void> {
  if (await succeeds('redis-server', ['--version'])) return;
  const root = process.getuid?.() === 0;
  const prefix = root ? [] : ['sudo', '-n'];
  if (!(await succeeds('apt-get', ['--version'])) || !(root || (await succeeds('sudo', ['-n', 'true'])))) {
    throw new MissingTool(`redis-server was not found, and this user cannot install packages here. ${remedy}`);
  }
  for (const step of [['update'], ['install', '-y', '--no-install-recommends', 'redis-server']]) {
    progress(`installing Redis: apt-get ${step[0]}`);
    const [command = 'apt-get', ...args] = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-q', ...step];
    const { code, output } = await run(command, args, (line) => progress(`installing Redis: ${line.trim().slice(0, 80)}`));
    if (code !== 0 && step[0] === 'install') {
      throw new MissingTool(
        `redis-server was not found, and apt-get could not install it. ${remedy}\n${output.trim().split('\n').slice(-5).join('\n')}`,
      );
    }
  }
}

async function succeeds(command: string, args: readonly string[]): Promise<boolean> {
  return run(command, args, () => {}).then(
    ({ code }) => code === 0,
    () => false,
  );
}

export interface RedisOptions {
  /** Holds the data, the settings and the log; a server started on it again has its data. */
  readonly dir: string;
  /** 0 or nothing: a free port. */
  readonly port?: number;
  /** True: the server outlives this process. */
  readonly detached?: boolean;
  readonly progress?: Progress;
}

export interface LocalRedis {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<void>;
  /** SIGKILL: what a crash does. */
  kill(): Promise<void>;
}

/** Writes the settings of a server. @returns their file, and its port */
export async function prepareRedis(options: RedisOptions): Promise<{ settings: string; port: number }> {
  const { dir, port = await freePort() } = options;
  await requireFreePort(port, 'the local Redis');
  const settings = join(dir, 'redis.conf');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  writeFileSync(settings, redisConf(dir, port), { mode: 0o600 });
  return { settings, port };
}

/** Resolves when the server answers PING, its data loaded. @throws MissingTool, or Error with the end of the server's log */
export async function startRedis(options: RedisOptions): Promise<LocalRedis> {
  await installRedis(options.progress);
  const { dir, detached = false } = options;
  const { settings, port } = await prepareRedis(options);
  const logFile = join(dir, 'redis.log');
  const child = await startProcess({ command: 'redis-server', args: [settings], cwd: dir, logFile, detached });
  let ended = false;
  child.once('exit', () => {
    ended = true;
  });
  if (!(await pings('127.0.0.1', port, () => ended))) {
    if (!ended) await killProcess(child.pid);
    throw new Error(`Redis did not start on 127.0.0.1:${port}; the end of ${logFile}:\n${lastLines(logFile, 15)}`);
  }
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    pid: child.pid,
    stop: async () => void (await stopProcess(child.pid, 15_000)),
    kill: () => killProcess(child.pid),
  };
}

/** Whether something answers there as Redis does (a demand for a password is an answer, loading is not) within the time given. */
export async function pings(host: string, port: number, giveUp: () => boolean, withinMs = 30_000): Promise<boolean> {
  const end = Date.now() + withinMs;
  do {
    const answer = await ping(host, port);
    if (answer.startsWith('+PONG') || answer.startsWith('-NOAUTH')) return true;
    await delay(20);
  } while (Date.now() < end && !giveUp());
  return false;
}

function ping(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 1000 }, () => socket.write('PING\r\n'));
    const done = (answer: string) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('data', (data) => done(data.toString('latin1')));
    socket.once('error', () => done(''));
    socket.once('timeout', () => done(''));
    socket.once('close', () => done(''));
  });
}

/** Every setting that is not the server's default has its reason. */
function redisConf(dir: string, port: number): string {
  return `# Written at every start by infra/local-redis.ts.
port ${port}
bind 127.0.0.1
protected-mode yes
dir "${dir}"
daemonize no
# A batch is in the local copy only when it is on disk; one fsync for each flush is cheap.
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
# The append-only file is the copy; a snapshot beside it would only cost a fork.
save ""
# A full store must refuse, never forget.
maxmemory-policy noeviction
loglevel notice
`;
}
