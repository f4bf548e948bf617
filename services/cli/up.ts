/** Starts the whole system on this machine, in the background. */
import { mkdirSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Command, InvalidArgumentError } from 'commander';
import { writeAddress } from '../../adapters/config-values.ts';
import { answers, startKafka } from '../../infra/local-kafka.ts';
import { pings, startRedis } from '../../infra/local-redis.ts';
import { lastLines, readPidFile, startProcess, writePidFile } from '../../infra/processes.ts';
import { type BackgroundService, backgroundServices, isLoopback, logFile, pidFile } from './background.ts';
import { type Settings, settingsOf } from './settings.ts';
import { renderTable } from './table.ts';
import { prepareTopics } from './topics.ts';

const program = fileURLToPath(new URL('main.ts', import.meta.url));

export function registerUp(root: Command): void {
  root
    .command('up')
    .description(
      'Starts a local broker and a local Redis where the configured ones are on this machine and do not run, creates the topics, and starts ' +
        'every service in the background. Returns when all are ready. What runs already is left as it is.',
    )
    .option('--collectors <n>', 'how many collectors; each further one listens 1000 ports higher', readCount, 1)
    .option('--timeout <seconds>', 'how long a service may take to become ready', readCount, 60)
    .addHelpText('after', '\nExample:\n  $ flowledger up --collectors 2')
    .action(async (options: { collectors: number; timeout: number }, command: Command) => {
      process.exitCode = (await up(settingsOf(command), options)) ? 0 : 1;
    });
}

function readCount(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('A whole number from 1 on is expected.');
  return Number(text);
}

/** One line of the table. */
interface Started {
  readonly name: string;
  readonly url: string;
  readonly pid: string;
  readonly ready: string;
  /** Why it is not ready; empty when it is. */
  readonly fault: string;
}

async function up(settings: Settings, options: { collectors: number; timeout: number }): Promise<boolean> {
  mkdirSync(settings.stateDir, { recursive: true, mode: 0o700 });
  const backends = await Promise.all([upKafka(settings), upRedis(settings)]);
  if (report(backends)) return false;
  await prepareTopics(settings.config, { fix: false, say: tell });
  const services = backgroundServices(settings.config, options.collectors);
  const started = await Promise.all(services.map((service) => upService(settings, service, options.timeout * 1000)));
  process.stdout.write(
    renderTable(
      ['service', 'address', 'pid', 'ready in'].map((title) => ({ title })),
      [...backends, ...started].map(({ name, url, pid, ready }) => [name, url, pid, ready]),
    ),
  );
  if (report(started)) return false;
  const [listen] = settings.config.collector.listen;
  const to = listen ? writeAddress({ ...listen, host: listen.host === '0.0.0.0' ? '127.0.0.1' : listen.host }) : '127.0.0.1:2055';
  process.stdout.write(
    `\nExporters send to the collector's ports (${settings.config.collector.listen.map(writeAddress).join(', ')}). What to type next:\n`,
  );
  process.stdout.write(`  flowledger generate --protocol v5 --to ${to} --flows 10000 --rate 5000\n  flowledger status\n  flowledger audit\n`);
  return true;
}

/** Progress goes to stderr; stdout is the table. */
function tell(line: string): void {
  process.stderr.write(`${line}\n`);
}

function report(started: readonly Started[]): boolean {
  const faulty = started.filter(({ fault }) => fault !== '');
  for (const { name, fault } of faulty) process.stderr.write(`\n${name} is not ready: ${fault}\n`);
  return faulty.length > 0;
}

async function upKafka(settings: Settings): Promise<Started> {
  const { brokers } = settings.config.kafka;
  const began = Date.now();
  const [broker] = brokers;
  if (!broker) return failed('kafka', '', 'kafka.brokers names no broker');
  const url = brokers.map(writeAddress).join(',');
  const file = pidFile(settings, 'kafka');
  for (const candidate of brokers) {
    if (await answers(candidate, () => true)) return { name: 'kafka', url, pid: String(readPidFile(file) ?? '-'), ready: 'running', fault: '' };
  }
  if (brokers.length > 1 || !isLoopback(broker.host)) {
    return failed(
      'kafka',
      url,
      `no broker answers at ${url} (kafka.brokers). Start it; only a single broker on this machine is started by flowledger`,
    );
  }
  try {
    const dir = resolve(settings.stateDir, 'kafka');
    const kafka = await startKafka({ dir, port: broker.port, detached: true, progress: tell });
    writePidFile(file, kafka.pid);
    return { name: 'kafka', url, pid: String(kafka.pid), ready: since(began), fault: '' };
  } catch (error) {
    return failed('kafka', url, (error as Error).message);
  }
}

async function upRedis(settings: Settings): Promise<Started> {
  const began = Date.now();
  const { hostname, port: portText, protocol } = new URL(settings.config.redis.url);
  const host = hostname.replace(/^\[|\]$/g, '');
  const port = Number(portText || 6379);
  const url = writeAddress({ host, port });
  const file = pidFile(settings, 'redis');
  // Behind TLS there is nothing to look at before the handshake; the collector tells when it cannot use it.
  if (protocol === 'rediss:') return { name: 'redis', url, pid: '-', ready: 'not asked', fault: '' };
  if (await pings(host, port, () => true)) return { name: 'redis', url, pid: String(readPidFile(file) ?? '-'), ready: 'running', fault: '' };
  if (!isLoopback(host))
    return failed('redis', url, `Redis does not answer at ${url} (redis.url). Start it; only one on this machine is started by flowledger`);
  try {
    const redis = await startRedis({ dir: resolve(settings.stateDir, 'redis'), port, detached: true, progress: tell });
    writePidFile(file, redis.pid);
    return { name: 'redis', url, pid: String(redis.pid), ready: since(began), fault: '' };
  } catch (error) {
    return failed('redis', url, (error as Error).message);
  }
}

async function upService(settings: Settings, service: BackgroundService, withinMs: number): Promise<Started> {
  const { name, args, env, http } = service;
  const began = Date.now();
  const url = `http://${writeAddress(http)}`;
  const file = pidFile(settings, name);
  const running = readPidFile(file);
  if (running === undefined && (await readiness(url)) !== undefined) {
    return failed(name, url, `something that up has not started answers at ${url} already; stop it, or give ${name} another address`);
  }
  const pid = running ?? (await start(settings, name, args, env));
  if (running === undefined) writePidFile(file, pid);
  let last: string | undefined;
  for (const end = began + withinMs; Date.now() < end; await delay(100)) {
    last = await readiness(url);
    if (last === '') return { name, url, pid: String(pid), ready: running === undefined ? since(began) : 'running', fault: '' };
    if (readPidFile(file) === undefined) {
      rmSync(file, { force: true });
      return failed(name, url, `it has ended${lastWords(settings, name)}`);
    }
  }
  return failed(name, url, `${last ?? 'no answer'} after ${since(began)}${lastWords(settings, name)}`);
}

/** The end of a service's log, each line by its message alone. */
function lastWords(settings: Settings, name: string): string {
  const file = logFile(settings, name);
  const lines = lastLines(file, 8)
    .split('\n')
    .map((line) => {
      try {
        const { msg, err, reasons } = JSON.parse(line) as { msg?: string; err?: { message?: string }; reasons?: readonly string[] };
        return [msg, err?.message, ...(reasons ?? [])].filter((part) => part !== undefined).join(': ');
      } catch {
        // What is not a log record was said by the runtime itself.
        return line;
      }
    });
  return `; the last lines of ${file}:\n  ${lines.join('\n  ')}`;
}

async function start(settings: Settings, name: string, args: readonly string[], env: Readonly<Record<string, string>>): Promise<number> {
  const { file } = settings.sources;
  const options = [...(file ? ['--config', resolve(file)] : []), '--state', settings.stateDir];
  const nodeArgs = ['--disable-warning=ExperimentalWarning', program, ...options, ...args];
  const child = await startProcess({ command: process.execPath, args: nodeArgs, env, logFile: logFile(settings, name), detached: true });
  return child.pid;
}

/** '' when the service is ready, else its reasons; undefined when nobody answers. */
async function readiness(url: string): Promise<string | undefined> {
  try {
    const response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(2000) });
    if (response.ok) return '';
    const { reasons } = (await response.json()) as { reasons?: readonly string[] };
    return reasons?.join('; ') || `answers ${response.status}`;
  } catch {
    // Not listening yet, or not any more: the process file tells which.
    return undefined;
  }
}

function failed(name: string, url: string, fault: string): Started {
  return { name, url, pid: '-', ready: 'NO', fault };
}

function since(began: number): string {
  return `${((Date.now() - began) / 1000).toFixed(1)} s`;
}
