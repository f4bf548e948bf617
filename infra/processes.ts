/** Processes that outlive the command which starts them: found again by a file, and stopped only when they are still the same process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface StartOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Gets what the process writes to its two outputs, after what is in it already. */
  readonly logFile: string;
  /** False: the process is killed when the one that started it has ended, however that ended. */
  readonly detached: boolean;
}

/** A process in a group of its own, so that a Ctrl-C in the terminal does not reach it. @throws Error when the command cannot be started. */
export async function startProcess(options: StartOptions): Promise<ChildProcess & { readonly pid: number }> {
  mkdirSync(dirname(options.logFile), { recursive: true });
  const log = openSync(options.logFile, 'a', 0o600);
  const child = spawn(options.command, [...options.args], {
    detached: true,
    stdio: ['ignore', log, log],
    ...(options.cwd ? { cwd: options.cwd } : {}),
    env: { ...process.env, ...options.env },
  });
  closeSync(log);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => reject(new Error(`${options.command} cannot be started: ${error.message}`, { cause: error })));
  });
  child.unref();
  const pid = child.pid as number;
  if (!options.detached) killWhenGone(process.pid, pid);
  return child as ChildProcess & { readonly pid: number };
}

/** A test that is killed cannot clean up after itself, so a shell watches both processes. */
function killWhenGone(parent: number, pid: number): void {
  const script = 'while kill -0 "$1" 2>/dev/null && kill -0 "$2" 2>/dev/null; do sleep 1; done; kill -9 "$2" 2>/dev/null';
  spawn('sh', ['-c', script, 'sh', String(parent), String(pid)], { detached: true, stdio: 'ignore' }).unref();
}

interface Identity {
  readonly pid: number;
  /** With the boot, tells this process from a later one with the same number. */
  readonly started: string;
  readonly boot: string;
}

function bootId(): string {
  const file = '/proc/sys/kernel/random/boot_id';
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : '';
}

/** Notes a running process in a file. */
export function writePidFile(file: string, pid: number): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify({ pid, started: startOf(pid), boot: bootId() } satisfies Identity)}\n`);
}

/** The process that the file notes, when it still runs. */
export function readPidFile(file: string): number | undefined {
  if (!existsSync(file)) return undefined;
  try {
    const { pid, started, boot } = JSON.parse(readFileSync(file, 'utf8')) as Identity;
    return started !== '' && boot === bootId() && startOf(pid) === started ? pid : undefined;
  } catch {
    // A file that was half written notes nothing that could safely be stopped.
    return undefined;
  }
}

/** Stops the process that the file notes, if it is still that one: SIGTERM, and SIGKILL after the time given. Says what it came to. */
export async function stopByPidFile(file: string, graceMs: number): Promise<'stopped' | 'killed' | 'not running'> {
  const pid = readPidFile(file);
  const outcome = pid === undefined ? 'not running' : await stopProcess(pid, graceMs);
  rmSync(file, { force: true });
  return outcome;
}

export async function stopProcess(pid: number, graceMs: number): Promise<'stopped' | 'killed'> {
  const started = startOf(pid);
  const gone = () => startOf(pid) !== started || started === '';
  signal(pid, 'SIGTERM');
  for (const end = Date.now() + graceMs; Date.now() < end; await delay(25)) if (gone()) return 'stopped';
  signal(pid, 'SIGKILL');
  while (!gone()) await delay(25);
  return 'killed';
}

export async function killProcess(pid: number): Promise<void> {
  const started = startOf(pid);
  signal(pid, 'SIGKILL');
  while (started !== '' && startOf(pid) === started) await delay(5);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** When a process started, in the system's own terms; '' when it does not run (a zombie does not). */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (state === 'Z' || state === 'X') return '';
    return fields[18] ?? '';
  } catch {
    // No such process, or no /proc on this system: then whether it runs is all that can be told.
    return existsSync('/proc/self/stat') || !runs(pid) ? '' : 'running';
  }
}

function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** The last lines of a log, for a message that says why something did not start. */
export function lastLines(file: string, count: number): string {
  if (!existsSync(file)) return '';
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).join('\n');
}
