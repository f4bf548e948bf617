/** `flowledger drill`: a fail-over on purpose, under whatever load there is, and what it looked like in topic aggregates. */
import { type Command, InvalidArgumentError } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { sha256 } from '../../adapters/digest.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { LedgerError, type LedgerView } from '../../adapters/ledger.ts';
import { openLedgerView } from '../../adapters/ledger-sqlite.ts';
import { openLogger } from '../../adapters/logger.ts';
import type { Clock, Log } from '../../adapters/ports.ts';
import { chainOf, chainText, sameChain } from '../../core/aggregate/chain.ts';
import { decideDrill, type Proposal, type Refusal } from '../../core/elect/decide.ts';
import { Elections } from '../../core/elect/elections.ts';
import { Hearing } from '../../core/elect/hearing.ts';
import { readSeam, type Seam } from '../../core/feed/seam.ts';
import { Verdicts } from '../../core/judge/verdicts.ts';
import { electionCodec, healthCodec, outputCodec, verdictCodec } from '../../schemas/codec.ts';
import { type Replica, topics } from '../../schemas/topics.ts';
import type { Output } from '../../schemas/types.ts';
import type { Config } from '../config.ts';
import { decodedOrNull } from '../log-records.ts';
import { auditUntilComplete } from './audit.ts';
import { recordsOf } from './fold-config.ts';
import { settingsOf } from './settings.ts';
import { grouped, renderTable } from './table.ts';

/** Long enough to hear every service several times. */
const listenMs = 2_000;
const bookedWithinMs = 30_000;
const againMs = 100;

interface Options {
  readonly partition?: number;
  readonly yes?: boolean;
  readonly json?: boolean;
  readonly timeout: number;
}

export function registerDrill(program: Command): void {
  program
    .command('drill')
    .description(
      'A fail-over on purpose: elects the other aggregator of each partition, waits until outputs of it are in topic aggregates, and shows the ' +
        'seam. Shows what it would do; with --yes it does it. Nothing is done where the other one is not eligible. Exit code 1 where it was ' +
        'refused, did not come to an end, or something was not as it must be.',
    )
    .option('--partition <n>', 'only this one (default: all)', readWhole)
    .option('--yes', 'do it')
    .option('--json', 'one JSON object; its fields are in docs/JSON.md')
    .option('--timeout <seconds>', 'how long to wait for outputs of the other one: more than aggregate.window', readWhole, 180)
    .addHelpText('after', '\nExamples:\n  $ flowledger drill\n  $ flowledger drill --yes --json')
    .action(async (options: Options, command: Command) => {
      process.exitCode = await drill(options, settingsOf(command).config);
    });
}

function readWhole(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('A whole number is expected.');
  return Number(text);
}

/** One partition's fail-over as it was seen in the log. Times are append times, Unix time in ms. */
export interface SeenSeam {
  readonly partition: number;
  readonly epoch: number;
  readonly from: Replica;
  readonly to: Replica;
  /** n of the last output of `from`, and of the first of `to`. */
  readonly last_n: number;
  readonly first_n: number;
  readonly chain: string;
  /** From the election to the first output of `to`, and between the last of the one and the first of the other. */
  readonly election_to_first_ms: number;
  readonly gap_ms: number;
  /** Outputs that were looked at: from before the election to behind the seam. */
  readonly outputs: number;
  /** Each n one more than the last, each chain computed from the one before. */
  readonly contiguous: boolean;
}

interface Report {
  readonly at_ms: number;
  readonly done: boolean;
  readonly refused: readonly Refusal[];
  readonly partitions: readonly SeenSeam[];
  /** Partitions of which no seam was seen in time. */
  readonly missing: readonly number[];
  /** null where there is no ledger here, or nothing was done. */
  readonly balance: { readonly imbalances: readonly string[]; readonly divergences: readonly string[]; readonly booked: boolean } | null;
}

async function drill(options: Options, config: Config): Promise<number> {
  const clock = systemClock;
  const log = openKafka(config.kafka, openLogger('drill', config.log.level), clock);
  const say = (line: string) => process.stderr.write(`${line}\n`);
  try {
    const count = await log.partitionCount(topics.nars.name);
    if (options.partition !== undefined && options.partition >= count)
      throw new Error(`nars has ${count} partitions, none is number ${options.partition}`);
    const asked = options.partition === undefined ? Array.from({ length: count }, (_, partition) => partition) : [options.partition];
    const decisions = await decideAll(log, clock, config.watchdog, asked);
    const refused = decisions.filter((one): one is Refusal => 'refusal' in one);
    const proposals = decisions.filter((one): one is Proposal => !('refusal' in one));
    let report: Report = { at_ms: clock.now(), done: false, refused, partitions: [], missing: [], balance: null };
    if (refused.length === 0 && options.yes) {
      say(`electing ${proposals.map(({ partition, leader }) => `${leader} for partition ${partition}`).join(', ')}; waiting for the seams`);
      report = { ...report, ...(await carryOut(log, clock, config.accounting.ledger, proposals, options.timeout * 1000)) };
    }
    process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : renderDrill(report, proposals));
    return exitCodeOf(report);
  } finally {
    await log.close();
  }
}

function exitCodeOf({ refused, partitions, missing, balance }: Report): number {
  const isBalanced = balance === null || (balance.booked && balance.imbalances.length + balance.divergences.length === 0);
  const isSound = isBalanced && partitions.every(({ contiguous }) => contiguous);
  return refused.length > 0 || missing.length > 0 || !isSound ? 1 : 0;
}

/** Listens as a watchdog does, so that the same is known as when it elects. @throws LogFault */
export async function decideAll(log: Log, clock: Clock, settings: Config['watchdog'], asked: readonly number[]): Promise<(Proposal | Refusal)[]> {
  const [hearing, elections, verdicts] = [new Hearing(), new Elections(), new Verdicts()];
  for await (const { value, appendedMs } of recordsOf(log, topics.elections.name, 0, 0)) {
    const election = decodedOrNull(electionCodec, value);
    if (election) elections.apply(election, appendedMs);
  }
  for await (const { value } of recordsOf(log, topics.verdicts.name, 0, 0)) {
    const verdict = decodedOrNull(verdictCodec, value);
    if (verdict) verdicts.apply(verdict);
  }
  const { name } = topics.health;
  const listeningSinceMs = clock.now();
  const reader = log.reader('raw');
  try {
    reader.assign(name, 0, (await log.bounds(name, 0)).endOffset);
    while (clock.now() - listeningSinceMs < listenMs) {
      for (const { records } of await reader.poll(againMs)) {
        for (const { value } of records) {
          const health = decodedOrNull(healthCodec, value);
          if (health) hearing.hear(health, clock.now());
        }
      }
    }
  } finally {
    await reader.close();
  }
  const partitions = await log.partitionCount(topics.nars.name);
  const { silent_after: silentAfterMs, stalled_after: stalledAfterMs, suspicion_quorum: suspicionQuorum } = settings;
  const heard = { partitions, hearing, elections, verdicts, listeningSinceMs };
  return asked.map((partition) => decideDrill(heard, { silentAfterMs, stalledAfterMs, suspicionQuorum }, partition, clock.now()));
}

type Outcome = Pick<Report, 'done' | 'partitions' | 'missing' | 'balance'>;

/** Elects, and waits for the seams for so long. @throws LogFault */
export async function carryOut(log: Log, clock: Clock, ledger: string, proposals: readonly Proposal[], withinMs: number): Promise<Outcome> {
  const watch = await SeamWatch.open(log, proposals);
  try {
    const electedMs = await elect(log, clock, proposals);
    const endMs = clock.now() + withinMs;
    while (!watch.complete && clock.now() < endMs) await watch.look();
    const partitions = proposals.flatMap((proposal) => watch.seen(proposal, electedMs.get(proposal.partition) ?? null) ?? []);
    const missing = proposals.map(({ partition }) => partition).filter((partition) => !partitions.some((one) => one.partition === partition));
    return { done: true, partitions, missing, balance: await balanceAfter(log, clock, ledger, partitions) };
  } finally {
    await watch.close();
  }
}

/** Writes the elections and reads them back. @returns when each was appended. @throws Error where another election came first */
async function elect(log: Log, clock: Clock, proposals: readonly Proposal[]): Promise<Map<number, number>> {
  const author = `drill-${clock.unique()}`;
  const writer = log.writer();
  try {
    const messages = proposals.map((proposal) => ({
      key: Buffer.from(String(proposal.partition)),
      value: electionCodec.encode({ ...proposal, watchdog: author, at_ms: clock.now() }),
    }));
    const first = await writer.append(topics.elections.name, 0, messages);
    const appended = new Map<number, number>();
    for await (const { value, appendedMs } of recordsOf(log, topics.elections.name, 0, first)) {
      const election = decodedOrNull(electionCodec, value);
      if (election?.watchdog === author) appended.set(election.partition, appendedMs);
    }
    const gone = proposals.filter(({ partition }) => !appended.has(partition)).map(({ partition }) => partition);
    if (gone.length > 0) throw new Error(`the elections of partitions ${gone.join(', ')} cannot be read back: see flowledger status`);
    return appended;
  } finally {
    await writer.close();
  }
}

interface SeenOutput {
  readonly output: Output;
  readonly appendedMs: number;
}

/** Follows topic aggregates from before the election on, and what the feed says of its seams. */
class SeamWatch {
  readonly #reader: ReturnType<Log['reader']>;
  readonly #outputs = new Map<number, SeenOutput[]>();
  readonly #seams = new Map<number, Seam>();
  readonly #proposals: readonly Proposal[];

  private constructor(reader: ReturnType<Log['reader']>, proposals: readonly Proposal[]) {
    this.#reader = reader;
    this.#proposals = proposals;
  }

  static async open(log: Log, proposals: readonly Proposal[]): Promise<SeamWatch> {
    const watch = new SeamWatch(log.reader('committed'), proposals);
    const health = await log.bounds(topics.health.name, 0);
    watch.#reader.assign(topics.health.name, 0, health.endOffset);
    for (const { partition } of proposals) {
      const { startOffset, endOffset } = await log.bounds(topics.aggregates.name, partition);
      // The last output before the election is needed for the chain; a transaction ends with a marker.
      watch.#reader.assign(topics.aggregates.name, partition, Math.max(startOffset, endOffset - 3));
      watch.#outputs.set(partition, []);
    }
    return watch;
  }

  get complete(): boolean {
    return this.#proposals.every(({ partition }) => this.#around(partition) !== null);
  }

  async look(): Promise<void> {
    for (const { topic, partition, records } of await this.#reader.poll(againMs)) {
      for (const { value, appendedMs } of records) {
        if (topic === topics.health.name) this.#hear(value);
        else {
          const output = decodedOrNull(outputCodec, value);
          if (output && !output.correction) this.#outputs.get(partition)?.push({ output, appendedMs });
        }
      }
    }
  }

  #hear(value: Uint8Array | null): void {
    const health = decodedOrNull(healthCodec, value);
    if (health?.role !== 'feed') return;
    for (const { partition, detail } of health.partitions) {
      const seam = readSeam(detail);
      const proposal = this.#proposals.find((one) => one.partition === partition);
      const firstN = this.#outputs.get(partition)?.[0]?.output.n ?? Number.POSITIVE_INFINITY;
      // One of an earlier fail-over lies before what is followed here.
      if (seam && proposal && seam.to === proposal.leader && seam.n >= firstN) this.#seams.set(partition, seam);
    }
  }

  /** The outputs on both sides of the seam. */
  #around(partition: number): { readonly last: SeenOutput; readonly first: SeenOutput } | null {
    const seam = this.#seams.get(partition);
    const outputs = this.#outputs.get(partition) ?? [];
    const at = outputs.findIndex(({ output }) => output.n === seam?.n);
    const [last, first] = at < 0 ? [] : [outputs[at], outputs[at + 1]];
    return last && first ? { last, first } : null;
  }

  seen({ partition, epoch, previous, leader }: Proposal, electedMs: number | null): SeenSeam | null {
    const around = this.#around(partition);
    if (!around || electedMs === null) return null;
    const { last, first } = around;
    const outputs = this.#outputs.get(partition) ?? [];
    return {
      partition,
      epoch,
      from: previous as Replica,
      to: leader,
      last_n: last.output.n,
      first_n: first.output.n,
      chain: chainText(first.output.chain),
      election_to_first_ms: first.appendedMs - electedMs,
      gap_ms: first.appendedMs - last.appendedMs,
      outputs: outputs.length,
      contiguous: isContiguous(outputs.map(({ output }) => output)),
    };
  }

  close(): Promise<void> {
    return this.#reader.close();
  }
}

/** Each n is one more than the one before, and each chain is what the outputs' content gives. */
export function isContiguous(outputs: readonly Output[]): boolean {
  return outputs.every((output, at) => {
    const before = outputs[at - 1];
    return !before || (output.n === before.n + 1 && sameChain(output.chain, chainOf(output, before.chain, sha256).chain));
  });
}

/** Once the ledger has booked the first output behind each seam. */
async function balanceAfter(log: Log, clock: Clock, ledger: string, seams: readonly SeenSeam[]): Promise<Report['balance']> {
  let view: LedgerView;
  try {
    view = openLedgerView(ledger);
  } catch (error) {
    if (error instanceof LedgerError) return null;
    throw error;
  }
  try {
    const isBooked = () => seams.every(({ partition, first_n, chain }) => chainText(view.chainAt(partition, first_n) ?? Buffer.alloc(0)) === chain);
    for (const endMs = clock.now() + bookedWithinMs; !isBooked() && clock.now() < endMs; ) await clock.sleep(againMs);
    const { imbalances, divergences } = await auditUntilComplete(view, log, clock, 0);
    return { imbalances, divergences, booked: isBooked() };
  } finally {
    view.close();
  }
}

function renderDrill({ done, refused, partitions, missing, balance }: Report, proposals: readonly Proposal[]): string {
  if (refused.length > 0) {
    const lines = refused.map(({ partition, refusal }) => `partition ${partition}: ${refusal}`);
    return `${lines.join('\n')}\n\nNothing was done.\n`;
  }
  if (!done) {
    const lines = proposals.map(({ partition, previous, leader, evidence }) => `partition ${partition}: ${previous} -> ${leader} (${evidence})`);
    return `${lines.join('\n')}\n\nNothing was done; flowledger drill --yes does it.\n`;
  }
  const titles = ['partition', 'epoch', 'last', 'n', 'first', 'n ', 'gap ms', 'after election ms', 'n and chain'];
  const rows = partitions.map((seam) => [
    String(seam.partition),
    String(seam.epoch),
    `${seam.from}:`,
    grouped(seam.last_n),
    `${seam.to}:`,
    grouped(seam.first_n),
    grouped(seam.gap_ms),
    grouped(seam.election_to_first_ms),
    seam.contiguous ? 'contiguous' : 'BROKEN',
  ]);
  const table = renderTable(
    titles.map((title) => ({ title, figures: !['last', 'first', 'n and chain'].includes(title) })),
    rows,
  );
  return table + missing.map((partition) => `partition ${partition}: no output of the other one came in time\n`).join('') + balanceText(balance);
}

function balanceText(balance: Report['balance']): string {
  if (!balance) return 'balance: there is no ledger here; run "flowledger audit" where accounting runs\n';
  const { imbalances, divergences, booked } = balance;
  if (imbalances.length + divergences.length > 0)
    return `balance: NOT SOUND\n${[...imbalances, ...divergences].map((what) => `  ${what}\n`).join('')}`;
  return `balance: everything decoded is billed, rejected, lost or open; no difference is known${booked ? '' : ' (the seam is not booked yet)'}\n`;
}
