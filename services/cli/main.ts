/** The command line. A command's module is loaded only when that command is asked for, so that --help is quick. */
import { Command, CommanderError } from 'commander';
import { ConfigError, configErrorExitCode } from '../../adapters/config.ts';

type Register = (program: Command) => void;

interface Entry {
  readonly summary: string;
  readonly load: () => Promise<Register>;
}

/** In the order in which a newcomer needs them. */
const commands: Readonly<Record<string, Entry>> = {
  up: { summary: 'start everything in the background', load: async () => (await import('./up.ts')).registerUp },
  status: { summary: 'how every service and partition is', load: async () => (await import('./status.ts')).registerStatus },
  top: { summary: 'the same, live, for a terminal', load: async () => (await import('./top.ts')).registerTop },
  generate: { summary: 'send a synthetic load with known totals', load: async () => (await import('./generate.ts')).registerGenerate },
  replay: { summary: 'send the exports of a capture', load: async () => (await import('./replay.ts')).registerReplay },
  usage: { summary: 'usage from the ledger', load: async () => (await import('./usage.ts')).registerUsage },
  audit: { summary: 'the balance, and whether the two aggregators agree', load: async () => (await import('./audit.ts')).registerAudit },
  doctor: { summary: 'what is wrong or about to be, and the remedy', load: async () => (await import('./doctor.ts')).registerDoctor },
  errors: { summary: 'what a code of doctor means', load: async () => (await import('./errors.ts')).registerErrors },
  drill: { summary: 'a fail-over on purpose, and its seam', load: async () => (await import('./drill.ts')).registerDrill },
  trace: { summary: 'what became of a flow', load: async () => (await import('./trace.ts')).registerTrace },
  down: { summary: 'stop what up has started', load: async () => (await import('./down.ts')).registerDown },
  decode: { summary: 'the network accounting records of a capture', load: async () => (await import('./decode.ts')).registerDecode },
  topics: { summary: 'create the topics, or verify their settings', load: async () => (await import('./topics.ts')).registerTopics },
  base: { summary: 'let a log that replaces another one begin', load: async () => (await import('./base-command.ts')).registerBase },
  config: { summary: 'show the configuration, put a new one into the log', load: async () => (await import('./config.ts')).registerConfig },
  collector: { summary: 'run a collector in the foreground', load: async () => (await import('./services.ts')).registerCollector },
  aggregator: { summary: 'run aggregator a or b in the foreground', load: async () => (await import('./services.ts')).registerAggregator },
  watchdog: { summary: 'run a watchdog in the foreground', load: async () => (await import('./services.ts')).registerWatchdog },
  feed: { summary: 'run the feed in the foreground', load: async () => (await import('./services.ts')).registerFeed },
  judge: { summary: 'run a judge in the foreground', load: async () => (await import('./services.ts')).registerJudge },
  accounting: { summary: 'run accounting in the foreground', load: async () => (await import('./services.ts')).registerAccounting },
};

/** Every exit code; docs/CLI.md says when each is used. */
const exitCodes = { usage: 64, failed: 1 };

async function main(argv: readonly string[]): Promise<void> {
  const program = new Command('flowledger');
  program
    .description('Network accounting that loses nothing, bills nothing twice, and can prove it.')
    .option('--config <file>', 'configuration file (default: FLOWLEDGER_CONFIG, else flowledger.yaml where it exists)')
    .option('--state <dir>', 'directory of the local state (default: FLOWLEDGER_STATE, else .flowledger)')
    .version('0.1.0')
    .showSuggestionAfterError()
    .showHelpAfterError('(flowledger --help lists the commands)')
    .addHelpText(
      'after',
      '\nExample:\n  $ flowledger up && flowledger generate --protocol ipfix --to 127.0.0.1:4739 --flows 10000 && flowledger audit',
    )
    .exitOverride();
  const asked = commandIn(argv);
  for (const [name, entry] of Object.entries(commands)) {
    if (name === asked) (await entry.load())(program);
    else program.command(name).description(entry.summary);
  }
  await program.parseAsync(argv, { from: 'user' });
}

/** The first word that is neither an option nor an option's value. */
function commandIn(argv: readonly string[]): string | undefined {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (word === 'help') return argv[i + 1];
    if (word === '--config' || word === '--state') i++;
    else if (!word.startsWith('-')) return word;
  }
  return undefined;
}

/** What a fault means to whoever started the command. */
function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage;
  if (error instanceof ConfigError) {
    process.stderr.write(`${error.message}\n`);
    return configErrorExitCode;
  }
  process.stderr.write(`flowledger: ${error instanceof Error ? error.message : String(error)}\n`);
  return exitCodes.failed;
}

// A reader that has seen enough, such as head, closes the pipe; that is no fault.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.exitCode = exitCodeOf(error);
}
