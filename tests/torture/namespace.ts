/** Runs a cell in a network namespace of its own: this program again, with a loopback device that nobody else has. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installTools } from './ordinary-consumer.ts';

const program = fileURLToPath(new URL('torture.ts', import.meta.url));
const marker = 'TORTURE_NAMESPACE';

export const isInNamespace = () => process.env[marker] === 'yes';

/** @returns the cell's result as the inner program wrote it. @throws Error when it wrote none */
export async function runInNamespace<Result>(name: string): Promise<Result> {
  // Inside there is no way to a repository.
  await installTools();
  const dir = mkdtempSync(join(tmpdir(), 'flowledger-namespace-'));
  const file = join(dir, 'result.json');
  const inner = [process.execPath, ...process.execArgv, program, '--cell', name, '--json', file];
  const script = 'ip link set lo up && exec "$@"';
  const child = spawn('unshare', ['--net', 'sh', '-c', script, 'sh', ...inner], {
    env: { ...process.env, [marker]: 'yes' },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    return (JSON.parse(readFileSync(file, 'utf8')) as { cells: Result[] }).cells[0] as Result;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
