/** The services in the foreground: each runs until SIGTERM or SIGINT, then stops gracefully. */
import type { Command } from 'commander';
import { openLogger } from '../../adapters/logger.ts';
import { type Config, describeEffectiveConfig } from '../config.ts';
import { settingsOf } from './settings.ts';

type Run = (config: Config, signal: AbortSignal) => Promise<void>;

export function registerCollector(program: Command): void {
  service(program, 'collector', 'Receives exports, keeps a local copy, forwards network accounting records.').action((_options, command) =>
    serve(command, 'collector', async () => (await import('../collector/main.ts')).runCollector),
  );
}

export function registerAggregator(program: Command): void {
  service(program, 'aggregator', 'Folds the log into usage aggregates, as replica a or b.', ' --replica a')
    .option('--replica <a|b>', 'which of the two (default: aggregator.replica)')
    .action((options: { replica?: string }, command) =>
      serve(
        command,
        'aggregator',
        async () => {
          const { runAggregator } = await import('../aggregator/main.ts');
          return (config, signal) => runAggregator(config, config.aggregator.replica, signal);
        },
        options.replica === undefined ? {} : { 'aggregator.replica': options.replica },
      ),
    );
}

export function registerWatchdog(program: Command): void {
  service(program, 'watchdog', 'Detects an error of one aggregator and elects the other.').action((_options, command) =>
    serve(command, 'watchdog', async () => (await import('../watchdog/main.ts')).runWatchdog),
  );
}

export function registerFeed(program: Command): void {
  service(program, 'feed', "Copies the elected aggregator's outputs to the topic that accounting reads.").action((_options, command) =>
    serve(command, 'feed', async () => (await import('../feed/main.ts')).runFeed),
  );
}

export function registerJudge(program: Command): void {
  service(program, 'judge', 'Says what both aggregators agree on, and cuts what is not needed any more.').action((_options, command) =>
    serve(command, 'judge', async () => (await import('../judge/main.ts')).runJudge),
  );
}

export function registerAccounting(program: Command): void {
  service(program, 'accounting', 'Books usage in the ledger.').action((_options, command) =>
    serve(command, 'accounting', async () => (await import('../accounting/main.ts')).runAccounting),
  );
}

function service(program: Command, name: string, description: string, exampleArguments = ''): Command {
  return program
    .command(name)
    .description(`${description}\nRuns in the foreground; SIGTERM or SIGINT stops it gracefully.`)
    .option('--check', 'print the effective configuration and exit')
    .addHelpText('after', `\nExample:\n  $ FLOWLEDGER_LOG_LEVEL=debug flowledger ${name}${exampleArguments}`);
}

async function serve(command: Command, name: string, load: () => Promise<Run>, overrides: Readonly<Record<string, string>> = {}): Promise<void> {
  const { config, sources } = settingsOf(command, overrides);
  if (command.opts<{ check?: boolean }>().check) {
    process.stdout.write(describeEffectiveConfig(sources));
    return;
  }
  const stopping = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopping.abort());
  const die = (error: unknown) => {
    openLogger(name, config.log.level).error({ err: error }, 'unexpected error, the service ends');
    process.exit(1);
  };
  process.once('unhandledRejection', die);
  process.once('uncaughtException', die);
  try {
    const run = await load();
    await run(config, stopping.signal);
    process.exit(0);
  } catch (error) {
    die(error);
  }
}
