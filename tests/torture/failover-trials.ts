/**
 * `node tests/torture/failover-trials.ts --trials 50`: how long accounting waits when the elected aggregator dies, sleeps or is cut off under load,
 * from the fault to the first record that is fed from the other, for the slowest partition. Prints; asserts nothing.
 */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { otherReplica, type Replica } from '../../schemas/topics.ts';
import type { Fault } from './cell.ts';
import { cut, kill, pause } from './faults.ts';
import { Field, flowsPerSecond, partitions } from './field.ts';
import { remakeTopics } from './operator.ts';

const kinds = ['kill', 'pause', 'cut'] as const;
type Kind = (typeof kinds)[number];

const { values } = parseArgs({
  options: {
    trials: { type: 'string', default: '50' },
    kind: { type: 'string', multiple: true, default: [...kinds] },
    json: { type: 'string' },
    dir: { type: 'string' },
  },
});
const trialsWanted = Number(values.trials);

const startedMs = Date.now();
const say = (line: string) => process.stderr.write(`${((Date.now() - startedMs) / 1000).toFixed(0).padStart(5)} s  ${line}\n`);

/** The watchdog answers so many silences of a partition in ten minutes at once, and then begins to rest between them. */
const electionsAtOnce = 4;
const holdMs = 3_000;
const failedOverWithinMs = 60_000;
const currentWithinMs = 60_000;
/** Between trials, at random so that the fault meets every phase of windows and health. */
const restMs = () => 1500 + Math.random() * 1000;

interface Trial {
  readonly kind: Kind;
  /** Until the last election of the partitions concerned was in the log. */
  readonly electedMs: number;
  /** Until each of these partitions was fed something from the other. */
  readonly fedMs: number;
  readonly reasons: readonly string[];
}

async function inject(field: Field, kind: Kind, leader: Replica): Promise<Fault> {
  const name = `aggregator-${leader}`;
  if (kind === 'kill') return kill(field, [name], holdMs);
  return kind === 'pause' ? pause(field, name, holdMs) : cut(field, name, 'kafka', holdMs);
}

async function trial(field: Field, kind: Kind): Promise<Trial> {
  const { witness } = field;
  const leader = field.elected();
  const led = Array.from({ length: partitions }, (_, partition) => partition).filter((partition) => witness.leader(partition) === leader);
  const atMs = Date.now();
  const fault = await inject(field, kind, leader);
  try {
    const outcome = await failedOver(field, led, otherReplica(leader), atMs);
    await delay(Math.max(0, holdMs - (Date.now() - atMs)));
    await fault.happened();
    return { kind, ...outcome };
  } finally {
    await fault.heal();
  }
}

async function failedOver(field: Field, led: readonly number[], other: Replica, atMs: number) {
  const { witness } = field;
  for (const end = Date.now() + failedOverWithinMs; Date.now() < end; await delay(10)) {
    const elections = led.map((partition) =>
      witness.elections.find(({ election, atMs: electedMs }) => election.partition === partition && election.leader === other && electedMs > atMs),
    );
    const fed = elections.map((heard, i) => heard && witness.fedSince(heard.atMs).find(({ partition }) => partition === led[i])?.atMs);
    if (fed.some((fedMs) => fedMs === undefined)) continue;
    return {
      electedMs: Math.max(...elections.map((heard) => heard?.atMs as number)) - atMs,
      fedMs: Math.max(...(fed as number[])) - atMs,
      reasons: [...new Set(elections.map((heard) => heard?.election.reason as string))],
    };
  }
  throw new Error(`no fail-over of partitions ${led} to ${other} within ${failedOverWithinMs / 1000} s`);
}

/** Elections that nobody remembers do not make the watchdogs rest. */
async function forgetElections(field: Field): Promise<void> {
  const names = field.stack.services.filter((name) => /^(watchdog|feed)/.test(name));
  await Promise.all(names.map((name) => field.stack.stopService(name)));
  await remakeTopics(field, ['elections']);
  field.witness.replaced('elections');
  await Promise.all(names.map((name) => field.stack.startService(name)));
  await Promise.all(names.map((name) => field.stack.ready(name)));
}

function share(sorted: readonly number[], of: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(of * sorted.length) - 1)] as number;
}

function line(kind: string, trials: readonly Trial[]): string {
  const figures = (read: (one: Trial) => number) => {
    const sorted = trials.map(read).sort((one, two) => one - two);
    return [0, 0.5, 0.95, 1].map((of) => String(of === 0 ? sorted[0] : share(sorted, of)).padStart(7)).join('');
  };
  return `${kind.padEnd(8)} ${String(trials.length).padStart(6)}  ${figures(({ fedMs }) => fedMs)}  ${figures(({ electedMs }) => electedMs)}`;
}

const field = await Field.start(values.dir ? { dir: values.dir } : {});
const trials: Trial[] = [];
try {
  field.startLoad();
  for (let i = 0; i < trialsWanted; i++) {
    if (i > 0 && i % electionsAtOnce === 0) await forgetElections(field);
    if ((await field.current(currentWithinMs)) === null) throw new Error('what is fed is not current before the next trial');
    await field.allReady();
    await delay(restMs());
    const kind = values.kind[i % values.kind.length] as Kind;
    const one = await trial(field, kind);
    trials.push(one);
    say(`${String(i + 1).padStart(3)} ${kind.padEnd(6)} elected after ${one.electedMs} ms (${one.reasons.join(', ')}), fed after ${one.fedMs} ms`);
  }
} finally {
  await field.stop();
}
process.stdout.write(`${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.version}; ${flowsPerSecond.toLocaleString('en')} flows/s\n`);
process.stdout.write('fault    trials  fed after, ms: min, median, p95, max  elected after, ms: the same\n');
for (const kind of values.kind)
  process.stdout.write(
    `${line(
      kind,
      trials.filter((one) => one.kind === kind),
    )}\n`,
  );
process.stdout.write(`${line('all', trials)}\n`);
if (values.json) writeFileSync(values.json, `${JSON.stringify(trials)}\n`);
