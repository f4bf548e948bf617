import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { killProcess, lastLines, readPidFile, startProcess, stopByPidFile, writePidFile } from '../../infra/processes.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'flowledger-processes-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

const shell = (script: string) => startProcess({ command: 'sh', args: ['-c', script], logFile: join(dir, 'log', 'shell.log'), detached: false });

test('a process is found again by its file, and not any more when it has ended', async () => {
  const file = join(dir, 'run', 'one.pid');
  const { pid } = await shell('sleep 60');
  writePidFile(file, pid);
  expect(readPidFile(file)).toBe(pid);
  await killProcess(pid);
  expect(readPidFile(file)).toBeUndefined();
  expect(await stopByPidFile(file, 1000)).toBe('not running');
  expect(existsSync(file)).toBe(false);
});

test('a process that is another one by now is left alone', async () => {
  const file = join(dir, 'run', 'other.pid');
  const { pid } = await shell('sleep 60');
  writePidFile(file, pid);
  for (const changed of [{ started: '1' }, { boot: 'another' }]) {
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...changed }));
    expect(await stopByPidFile(file, 1000)).toBe('not running');
    expect(process.kill(pid, 0)).toBe(true);
    writePidFile(file, pid);
  }
  writeFileSync(file, '{"pid": ');
  expect(readPidFile(file)).toBeUndefined();
  await killProcess(pid);
});

test('a process stops at SIGTERM, or is killed when the time is over', async () => {
  const file = join(dir, 'run', 'stop.pid');
  writePidFile(file, (await shell('sleep 60')).pid);
  expect(await stopByPidFile(file, 5000)).toBe('stopped');
  const deaf = await shell('trap "" TERM; echo ready; while :; do sleep 1; done');
  while (!lastLines(join(dir, 'log', 'shell.log'), 1).includes('ready')) await new Promise((resolve) => setTimeout(resolve, 20));
  writePidFile(file, deaf.pid);
  expect(await stopByPidFile(file, 300)).toBe('killed');
});

test('a command that does not exist is an error that names it', async () => {
  const start = startProcess({ command: 'no-such-command', args: [], logFile: join(dir, 'log', 'none.log'), detached: true });
  await expect(start).rejects.toThrow('no-such-command cannot be started');
});
