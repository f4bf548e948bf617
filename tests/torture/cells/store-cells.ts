/** Stores that refuse, end, or forget. */
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Cell, type Fault, require } from '../cell.ts';
import { type Field, stateOf } from '../field.ts';

const runFile = promisify(execFile);
const diskBytes = 96 * 1024 * 1024;

export const storeCells: readonly Cell[] = [
  {
    name: 'redis-maxmemory',
    about: 'a Redis is at maxmemory: it refuses to write',
    settleWithinMs: 60_000,
    fault: atMaxmemory,
  },
  {
    name: 'redis-disk-full',
    about: 'the disk under a Redis is full: with appendfsync always it ends itself',
    settleWithinMs: 60_000,
    lacks: async () => (process.getuid?.() === 0 ? '' : 'mounting a small tmpfs takes root'),
    fault: diskFull,
  },
  {
    name: 'redis-emptied',
    about: 'a Redis is emptied under a living collector: what was only in it is gone, and the ledger must say so',
    settleWithinMs: 60_000,
    allows: 'doubt',
    fault: emptied,
  },
];

async function atMaxmemory(field: Field): Promise<Fault> {
  const refused = async () => Number(/errorstat_OOM:count=(\d+)/.exec(await field.redis('redis-1', 'info', 'errorstats'))?.[1] ?? 0);
  const before = await refused();
  await field.redis('redis-1', 'config', 'set', 'maxmemory', '1mb');
  return {
    holdMs: 10_000,
    happened: async () => {
      const count = (await refused()) - before;
      require(count > 0, 'Redis refused nothing');
      return `maxmemory of redis-1 set to 1 MB for 10 s: ${count} commands refused with OOM`;
    },
    heal: async () => void (await field.redis('redis-1', 'config', 'set', 'maxmemory', '0')),
  };
}

/** Its directory moves to a small file system, which is then filled. */
async function diskFull(field: Field): Promise<Fault> {
  const { stack } = field;
  const dir = join(stack.dir, 'redis-2');
  const kept = mkdtempSync(join(tmpdir(), 'flowledger-redis-'));
  await stack.stopService('redis-2');
  cpSync(dir, kept, { recursive: true });
  await runFile('mount', ['-t', 'tmpfs', '-o', `size=${diskBytes},mode=700`, 'tmpfs', dir]);
  cpSync(kept, dir, { recursive: true });
  await stack.startBackend('redis-2');
  const pid = stack.pid('redis-2');
  await delay(2000);
  const { bavail, bsize } = statfsSync(dir);
  writeFileSync(join(dir, 'filler'), Buffer.alloc(Math.max(0, bavail * bsize - 64 * 1024)));
  return {
    holdMs: 8000,
    happened: async () => {
      const free = statfsSync(dir);
      require(stateOf(pid) === '', `Redis still runs, ${free.bavail * free.bsize} bytes are left`);
      return `the file system of redis-2 filled to ${free.bavail * free.bsize} free bytes: Redis (process ${pid}) ended itself`;
    },
    heal: async () => {
      rmSync(join(dir, 'filler'));
      await stack.startBackend('redis-2');
      await delay(3000);
      await stack.stopService('redis-2');
      rmSync(kept, { recursive: true });
      cpSync(dir, kept, { recursive: true });
      await runFile('umount', [dir]);
      cpSync(kept, dir, { recursive: true, force: true });
      rmSync(kept, { recursive: true });
      await stack.startBackend('redis-2');
    },
  };
}

async function emptied(field: Field): Promise<Fault> {
  const before = Number(await field.redis('redis-1', 'dbsize'));
  await field.redis('redis-1', 'flushall');
  return {
    holdMs: 5000,
    happened: async () => {
      require(before > 0, 'there was nothing in it');
      const mismatches = (await field.stack.metrics('collector-1')).get('flowledger_collector_store_mismatches_total') ?? 0;
      require(mismatches > 0, 'the collector did not notice');
      return `FLUSHALL of redis-1 with ${before} keys; the collector noticed ${mismatches} times that its store does not end where it left it`;
    },
    heal: async () => undefined,
  };
}
