/** `flowledger base`: lets a log that replaces another one begin with what was folded of that. */
import { type Command, InvalidArgumentError } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { sha256 } from '../../adapters/digest.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import { type Replica, topics } from '../../schemas/topics.ts';
import { settingsOf } from './settings.ts';
import { awaitStop, isBegun, planSuccession, type Succession, type SuccessionParts, wordsOf, writeSuccession } from './succession.ts';
import { grouped, renderTable } from './table.ts';

interface Options {
  readonly partition?: number;
  readonly yes?: boolean;
  readonly timeout: number;
}

export function registerBase(program: Command): void {
  program
    .command('base')
    .description(
      'For a topic nars that was re-created: lets each of its partitions begin with the snapshot of the former log that continues what is ' +
        'published, among those the one furthest ahead. Shows what it would write and why; with --yes it writes that, and waits until both ' +
        'aggregators have acknowledged it. Exit code 1 where that cannot be done, or an acknowledgment is missing.',
    )
    .option('--partition <n>', 'only this one (default: all that have no base yet)', readWhole)
    .option('--yes', 'write it')
    .option('--timeout <seconds>', 'how long to wait for the aggregators', readWhole, 60)
    .addHelpText('after', '\nExample:\n  $ flowledger topics; flowledger base && flowledger base --yes')
    .action(async (options: Options, command: Command) => {
      process.exitCode = await base(options, command);
    });
}

function readWhole(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('A whole number is expected.');
  return Number(text);
}

async function base(options: Options, command: Command): Promise<number> {
  const { config } = settingsOf(command);
  const log = openKafka(config.kafka, openLogger('base', config.log.level), systemClock);
  const parts: SuccessionParts = { log, clock: systemClock, digest: sha256 };
  try {
    const count = await log.partitionCount(topics.nars.name);
    const asked = options.partition === undefined ? Array.from({ length: count }, (_, partition) => partition) : [options.partition];
    const plans: Succession[] = [];
    for (const partition of asked) {
      if (partition >= count) throw new Error(`nars has ${count} partitions, none is number ${partition}`);
      if (await isBegun(log, partition)) {
        process.stdout.write(`nars/${partition} has its base already\n`);
        continue;
      }
      const away = await awaitStop(parts, partition, options.timeout * 1000);
      const plan = await planSuccession(parts, partition);
      if (!plan) continue;
      process.stdout.write(describe(plan, away));
      plans.push(plan);
    }
    if (plans.length === 0) return 0;
    if (options.yes) return await write(parts, plans, options.timeout * 1000);
    process.stdout.write('\nNothing was written; flowledger base --yes does it.\n');
    return 0;
  } finally {
    await log.close();
  }
}

function describe({ partition, tail, weighed, chosen, beyond, topicId }: Succession, away: readonly Replica[]): string {
  const rows = weighed.map(({ candidate, standing }) => [
    candidate === chosen ? '->' : '',
    candidate.replica,
    candidate.topicId,
    grouped(candidate.offset),
    grouped(candidate.n),
    grouped(candidate.progress),
    wordsOf[standing],
  ]);
  const columns = ['', 'aggregator', 'former topic id', 'offset', 'n', 'batches', 'and aggregates'].map((title) => ({
    title,
    figures: ['offset', 'n', 'batches'].includes(title),
  }));
  const lines = [
    `nars/${partition} (topic id ${topicId}) has no base; aggregates/${partition} ends with n ${tail.n}. Snapshots of former logs:`,
    renderTable(columns, rows).trimEnd(),
    `It is to begin with the one of ${chosen.replica} at offset ${chosen.offset}: of those that continue the tail it is furthest ahead. ` +
      'Collectors send again what both aggregators have not acknowledged in the new log.',
    ...away.map((replica) => `Aggregator ${replica} does not run: what it folded behind its newest snapshot does not count.`),
    ...beyond.map(
      ({ replica, lastN }) => `aggregates.${replica} goes on to n ${lastN}, which the new log does not lead to: it is cut back to n ${chosen.n}.`,
    ),
  ];
  return `${lines.join('\n')}\n`;
}

async function write(parts: SuccessionParts, plans: readonly Succession[], withinMs: number): Promise<number> {
  let complete = true;
  for (const plan of plans) {
    const missing = await writeSuccession(parts, plan, withinMs);
    if (missing.length === 0) {
      process.stdout.write(`nars/${plan.partition} has its base, acknowledged by both aggregators\n`);
      continue;
    }
    complete = false;
    process.stderr.write(
      `nars/${plan.partition} has its base; within ${withinMs / 1000} s it was not acknowledged by aggregator ${missing.join(' and ')}. ` +
        'It takes effect when that one folds it; flowledger status tells whether it runs.\n',
    );
  }
  return complete ? 0 : 1;
}
