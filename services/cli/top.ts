/** `flowledger top`: how everything goes, once a second, on a terminal; once and as plain lines where there is none. */
import type { Command } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import { type Log, LogFault } from '../../adapters/ports.ts';
import { readServiceMetrics } from '../../adapters/service-metrics.ts';
import type { Config } from '../config.ts';
import { interruption } from './interruption.ts';
import { settingsOf } from './settings.ts';
import { SystemWatch } from './system-watch.ts';
import { renderTop, type TopState } from './top-view.ts';

const frameMs = 1_000;
const widthWithoutTerminal = 120;
const [home, clearLine, clearBelow, hideCursor, showCursor] = ['\x1b[H', '\x1b[K', '\x1b[J', '\x1b[?25l', '\x1b[?25h'];
const controlC = '\x03';

export function registerTop(program: Command): void {
  program
    .command('top')
    .description(
      'Exporters, collectors, aggregators, feed and accounting with rates, lag and alarms, each second; q or Ctrl-C ends it. It changes nothing. ' +
        'Lag of collectors is what the broker has not confirmed, of the others what they have not taken yet.',
    )
    .option('--once', 'plain lines, once; also where the output is no terminal')
    .addHelpText('after', '\nExamples:\n  $ flowledger top\n  $ flowledger top --once | grep FL')
    .action(async (options: { once?: boolean }, command: Command) => {
      const { config } = settingsOf(command);
      const log = openKafka(config.kafka, openLogger('top', 'silent'), systemClock);
      try {
        await (options.once || !process.stdout.isTTY ? once(log, config) : live(log, config));
      } finally {
        await log.close();
      }
    });
}

/** Two frames, since a rate needs two reports. @throws LogFault */
async function once(log: Log, config: Config): Promise<void> {
  const watch = await SystemWatch.open(log, systemClock);
  try {
    for (let frame = 0; frame < 2; frame++) await watch.follow(systemClock.now() + frameMs);
    const lines = renderTop(await stateOf(watch, config, ''), { columns: widthWithoutTerminal, rows: Number.POSITIVE_INFINITY });
    process.stdout.write(`${lines.map((line) => line.trimEnd()).join('\n')}\n`);
  } finally {
    await watch.close();
  }
}

/** While the broker does not answer, the last picture stays, and says so. @throws LogFault where it never has */
async function live(log: Log, config: Config): Promise<void> {
  const watch = await SystemWatch.open(log, systemClock);
  const ended = interruption();
  const quit = new AbortController();
  const onKey = (key: Buffer) => {
    if (key.includes('q') || key.includes(controlC)) quit.abort();
  };
  const { stdin, stdout } = process;
  if (stdin.isTTY) stdin.setRawMode(true).resume().on('data', onKey);
  stdout.write(hideCursor + home + clearBelow);
  try {
    await draw(watch, config, AbortSignal.any([ended, quit.signal]));
  } finally {
    if (stdin.isTTY) stdin.off('data', onKey).setRawMode(false).pause();
    stdout.write(`${showCursor}\n`);
    await watch.close();
  }
}

async function draw(watch: SystemWatch, config: Config, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    let problem = '';
    try {
      await watch.follow(systemClock.now() + frameMs, signal);
    } catch (error) {
      if (!(error instanceof LogFault)) throw error;
      problem = 'the broker does not answer';
      await systemClock.sleep(frameMs, signal);
      await watch.openAgain();
    }
    if (signal.aborted) return;
    const { columns, rows } = process.stdout;
    // A line break behind the last line would scroll the first one away.
    const lines = renderTop(await stateOf(watch, config, problem), { columns, rows });
    process.stdout.write(home + lines.map((line) => line + clearLine).join('\r\n') + clearBelow);
  }
}

async function stateOf(watch: SystemWatch, config: Config, problem: string): Promise<TopState> {
  const samples = await readServiceMetrics(config.accounting.http);
  const imbalances = samples?.filter(({ name }) => name === 'flowledger_ledger_imbalance_flows');
  return { ...watch.state(), problem, imbalanceFlows: imbalances ? imbalances.reduce((sum, { value }) => sum + Math.abs(value), 0) : null };
}
