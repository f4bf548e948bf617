/** The configuration as it is, and the one that the aggregators fold with. */
import { type Command, InvalidArgumentError } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import { describeEffectiveConfig, loadConfig } from '../config.ts';
import { applyFoldConfig } from './fold-config.ts';
import { settingsOf } from './settings.ts';

export function registerConfig(program: Command): void {
  const config = program.command('config').description('Shows the configuration; puts a new configuration of the fold into the log.');
  config
    .command('show')
    .description('Prints the effective configuration, and where each value that is not a default came from.')
    .addHelpText('after', '\nExample:\n  $ FLOWLEDGER_AGGREGATE_WINDOW=10s flowledger config show')
    .action((_options, command: Command) => {
      process.stdout.write(describeEffectiveConfig(settingsOf(command).sources));
    });
  config
    .command('apply')
    .argument('<file>', 'a configuration file; its section aggregate is applied')
    .description(
      'Writes the section aggregate of a file into the log of every partition, as the next version, and waits until both aggregators ' +
        'have acknowledged it. It is in force from that record on, in both alike. Exit code 1 when an acknowledgment is missing.',
    )
    .option('--timeout <seconds>', 'how long to wait for the acknowledgments', readSeconds, 60)
    .addHelpText('after', '\nExample:\n  $ flowledger config apply flowledger.yaml')
    .action(async (file: string, options: { timeout: number }, command: Command) => {
      process.exitCode = await apply(file, options.timeout, command);
    });
}

function readSeconds(text: string): number {
  const seconds = Number(text);
  if (!(seconds >= 0)) throw new InvalidArgumentError('A number of seconds is expected.');
  return seconds;
}

async function apply(file: string, timeoutSeconds: number, command: Command): Promise<number> {
  const { config } = settingsOf(command);
  const { aggregate } = loadConfig({ file });
  const log = openKafka(config.kafka, openLogger('config', config.log.level), systemClock);
  try {
    const { version, partitions, missing } = await applyFoldConfig(log, systemClock, aggregate, timeoutSeconds * 1000);
    if (missing.length === 0) {
      process.stdout.write(`configuration ${version} is in force in all ${partitions} partitions, acknowledged by both aggregators\n`);
      return 0;
    }
    const places = missing.map(({ replica, partition }) => `${replica}/${partition}`).join(', ');
    process.stderr.write(
      `configuration ${version} is in the log of all ${partitions} partitions; within ${timeoutSeconds} s it was not acknowledged ` +
        `by (aggregator/partition): ${places}\n` +
        'It takes effect when that aggregator folds it; flowledger status tells whether it runs.\n',
    );
    return 1;
  } finally {
    await log.close();
  }
}
