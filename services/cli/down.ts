/** Stops what `up` has started, and forgets the data where that is asked for. */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Command } from 'commander';
import { readPidFile, stopByPidFile } from '../../infra/processes.ts';
import { backends, pidFile } from './background.ts';
import { type Settings, settingsOf } from './settings.ts';

/** A collector flushes and an aggregator writes its snapshots in this time. */
const graceMs = 15_000;

export function registerDown(program: Command): void {
  program
    .command('down')
    .description('Stops the services, the broker and the Redis that up has started; nothing else.')
    .option('--wipe', 'forget the data as well: the local broker, the local Redis, the ledger')
    .addHelpText('after', '\nExample:\n  $ flowledger down --wipe')
    .action(async (options: { wipe?: boolean }, command: Command) => {
      await down(settingsOf(command), options.wipe ?? false);
    });
}

async function down(settings: Settings, wipe: boolean): Promise<void> {
  const directory = join(settings.stateDir, 'run');
  const names = existsSync(directory) ? readdirSync(directory).flatMap((file) => (file.endsWith('.pid') ? [file.slice(0, -4)] : [])) : [];
  const own = (name: string) => (backends as readonly string[]).includes(name);
  // The services need broker and Redis for a graceful stop, so these go last.
  for (const group of [names.filter((name) => !own(name)), names.filter(own)]) {
    await Promise.all(
      group.map(async (name) => {
        const pid = readPidFile(pidFile(settings, name));
        const outcome = await stopByPidFile(pidFile(settings, name), graceMs);
        process.stdout.write(`${name.padEnd(14)} ${outcome}${pid === undefined ? '' : ` (pid ${pid})`}\n`);
      }),
    );
  }
  if (names.length === 0) process.stdout.write(`nothing was started from ${settings.stateDir}\n`);
  if (wipe) forget(settings);
}

/** Only what lies in the state directory's own places, and the ledger. */
function forget(settings: Settings): void {
  const { ledger } = settings.config.accounting;
  if (!existsSync(join(settings.stateDir, 'kafka'))) process.stdout.write('the broker was not started by up, so its topics are kept\n');
  const places = [...backends, 'log', 'run'].map((name) => join(settings.stateDir, name)).filter((place) => existsSync(place));
  // The database has companions whose names begin with its own.
  const directory = dirname(ledger);
  const ledgerFiles = existsSync(directory) ? readdirSync(directory).filter((name) => name.startsWith(basename(ledger))) : [];
  for (const place of [...places, ...ledgerFiles.map((name) => join(directory, name))]) {
    rmSync(place, { recursive: true, force: true });
    process.stdout.write(`removed        ${place}\n`);
  }
}
