/**
 * The base entry of a log that replaces another one (DESIGN 3.8): what is there of the former log, what the new one is to begin with and why, and
 * then the writing. Order of the effects: an output topic that goes on beyond the base is cut back and said to be repaired, the base entry is
 * written, and both replicas acknowledge it.
 */
import type { Clock, Log } from '../../adapters/ports.ts';
import { chainText, type Digest, emptyChain } from '../../core/aggregate/chain.ts';
import { decodeBlock } from '../../core/aggregate/output-block.ts';
import { TailScan } from '../../core/feed/tail.ts';
import { type Candidate, type HeldOutputs, type OutputPoint, type Standing, standingOf, successor } from '../../core/judge/succession.ts';
import { Verdicts } from '../../core/judge/verdicts.ts';
import { foldStateCodec, narBatchCodec, verdictCodec } from '../../schemas/codec.ts';
import { adminCollector, outputTopic, type Replica, replicas, topics } from '../../schemas/topics.ts';
import type { FoldConfig, Verdict } from '../../schemas/types.ts';
import { resetOutputs } from '../aggregator/repair.ts';
import { BaseSearch } from '../beginning.ts';
import { recordsBetween } from '../log-records.ts';
import { readSnapshots } from '../snapshots.ts';
import { acknowledges, adminAcks, adminBatch, incarnationOf, recordsOf } from './fold-config.ts';
import { newestHealth } from './health-records.ts';

/** Read of the end of aggregates: more than one transaction. */
const tailRecords = 20_000;
/** A service that has said nothing for longer is not up. */
const silentAfterMs = 3_000;
const againMs = 250;

export interface SuccessionParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly digest: Digest;
}

/** A candidate, how it stands to the tail, and the configuration in force in it. */
interface Weighed {
  readonly candidate: Candidate;
  readonly standing: Standing;
  readonly config: FoldConfig | null;
}

export interface Succession {
  readonly partition: number;
  readonly topicId: string;
  readonly tail: OutputPoint;
  readonly weighed: readonly Weighed[];
  readonly chosen: Candidate;
  readonly config: FoldConfig | null;
  /** Replicas whose output topics go on beyond the base, and up to which n. */
  readonly beyond: readonly { readonly replica: Replica; readonly lastN: number }[];
}

/** A log for which no base can be written; the message names the remedy. */
export class NoSuccession extends Error {}

/**
 * Waits until each replica that runs has written where it stood. Whether one runs is told by its reports coming in while this waits, never by the
 * time that they name: its clock may be minutes off, and what it has folded would be left out of the base (I19).
 * @returns the replicas that do not run. @throws NoSuccession when the time is over
 */
export async function awaitStop({ log, clock }: SuccessionParts, partition: number, withinMs: number): Promise<Replica[]> {
  const heard = new Map<string, { readonly saidMs: number; readonly atMs: number }>();
  for (const endMs = clock.now() + withinMs; ; await clock.sleep(againMs)) {
    const reports = (await newestHealth(log, clock)).filter(({ role, stopping }) => role === 'aggregator' && !stopping);
    for (const { id, at_ms: saidMs } of reports) if (heard.get(id)?.saidMs !== saidMs) heard.set(id, { saidMs, atMs: clock.now() });
    const up = reports.filter(({ id }) => clock.now() - (heard.get(id)?.atMs ?? 0) < silentAfterMs);
    const busy = up.filter(({ partitions }) => !partitions.some((at) => at.partition === partition && at.state === 'stopped'));
    if (busy.length === 0) return replicas.filter((replica) => !up.some(({ id }) => id === replica));
    if (clock.now() < endMs) continue;
    throw new NoSuccession(
      `aggregator ${busy.map(({ id }) => id).join(' and ')} has not ended the former log of nars/${partition} yet: wait until "flowledger status" ` +
        'says that it is stopped there, or stop it',
    );
  }
}

/** null where the partition has a base already. @throws NoSuccession, LogFault, UnknownSchema */
export async function planSuccession({ log, digest }: SuccessionParts, partition: number): Promise<Succession | null> {
  const topicId = await log.topicId(topics.nars.name);
  if (await isBegun(log, partition)) return null;
  const tail = await tailOf(log, digest, partition);
  const verdicts = await verdictsOf(log);
  const found: { candidate: Candidate; config: FoldConfig | null }[] = [];
  for (const replica of replicas) {
    if (!verdicts.isQuarantined(partition, replica)) found.push(...(await candidatesOf(log, digest, replica, partition, topicId)));
  }
  if (found.length === 0) {
    throw new NoSuccession(
      `there is no snapshot of a former log of nars/${partition}. Is it the first one? Then run "flowledger topics"; else restore the topics ` +
        'snapshots.a and snapshots.b from a backup',
    );
  }
  const asked = new Set([tail.n, ...found.map(({ candidate }) => candidate.n)]);
  const held: Record<Replica, HeldOutputs> = { a: await heldOutputs(log, 'a', partition, asked), b: await heldOutputs(log, 'b', partition, asked) };
  const weighed = found.map(({ candidate, config }) => ({ candidate, config, standing: standingOf(candidate, tail, [held.a, held.b]) }));
  const chosen = successor(weighed);
  if (!chosen) {
    const list = weighed.map(({ candidate, standing }) => `${candidate.replica} at n ${candidate.n}: ${wordsOf[standing]}`).join('; ');
    throw new NoSuccession(
      `aggregates/${partition} ends with n ${tail.n}, and no snapshot of the former log goes on from there (${list}). ` +
        'Start both aggregators once, so that each writes where it stood; or restore snapshots.a, snapshots.b or the former log from a backup',
    );
  }
  const config = weighed.find(({ candidate }) => candidate === chosen)?.config ?? null;
  const beyond = replicas
    .filter((replica) => held[replica].lastN > chosen.n && !verdicts.isQuarantined(partition, replica))
    .map((replica) => ({ replica, lastN: held[replica].lastN }));
  return { partition, topicId, tail, weighed, chosen, config, beyond };
}

/** A log whose head was cut had a base. @throws LogFault, UnknownSchema */
export async function isBegun(log: Log, partition: number): Promise<boolean> {
  const { startOffset } = await log.bounds(topics.nars.name, partition);
  return startOffset > 0 || (await new BaseSearch(log, partition).find()) !== null;
}

export const wordsOf: Readonly<Record<Standing, string>> = {
  continues: 'continues the tail',
  behind: 'behind the tail',
  another_history: 'tells another history than the tail',
  unproven: 'neither output topic shows that it continues the tail',
};

async function tailOf(log: Log, digest: Digest, partition: number): Promise<OutputPoint> {
  const { name } = topics.aggregates;
  const { startOffset, endOffset } = await log.bounds(name, partition);
  for (const from of [Math.max(startOffset, endOffset - tailRecords), startOffset]) {
    const scan = new TailScan(partition, digest);
    for await (const record of rawRecords(log, name, partition, from, endOffset)) scan.take(record);
    if (scan.tail) return { n: scan.tail.n, chain: chainText(scan.tail.chain) };
  }
  return { n: 0, chain: chainText(emptyChain) };
}

/** With the transactions' markers. */
async function* rawRecords(log: Log, topic: string, partition: number, from: number, endOffset: number) {
  if (from >= endOffset) return;
  const reader = log.reader('raw');
  reader.assign(topic, partition, from);
  try {
    for (let next = from; next < endOffset; ) {
      for (const { records, nextOffset } of await reader.poll(againMs)) {
        yield* records;
        next = nextOffset;
      }
    }
  } finally {
    await reader.close();
  }
}

async function verdictsOf(log: Log): Promise<Verdicts> {
  const verdicts = new Verdicts();
  for await (const { value } of recordsOf(log, topics.verdicts.name, 0, 0)) if (value) verdicts.apply(verdictCodec.decode(value));
  return verdicts;
}

/** Whole snapshots of every log but the present one. */
async function candidatesOf(log: Log, digest: Digest, replica: Replica, partition: number, topicId: string) {
  const { marks } = await readSnapshots(log, digest, replica, partition, topicId);
  const found: { candidate: Candidate; config: FoldConfig | null }[] = [];
  for (const former of new Set([...marks.values()].map((mark) => mark.topicId).filter((id) => id !== topicId))) {
    const { whole } = await readSnapshots(log, digest, replica, partition, former);
    for (const { offset, n, chain, state } of whole) {
      const { collectors, config } = foldStateCodec.decode(state);
      const progress = collectors.flatMap(({ incarnations }) => incarnations).reduce((sum, { sequence }) => sum + sequence, 0);
      found.push({ candidate: { replica, topicId: former, offset, n, chain: chainText(chain), progress }, config });
    }
  }
  return found;
}

/** As a reader of n = last + 1 finds them; `asked`: of which n the chains are kept. */
async function heldOutputs(log: Log, replica: Replica, partition: number, asked: ReadonlySet<number>): Promise<HeldOutputs> {
  const { name } = outputTopic(replica);
  const { startOffset, endOffset } = await log.bounds(name, partition);
  const chains = new Map<number, string>();
  let first: OutputPoint | null = null;
  let lastN = 0;
  for await (const { value } of recordsBetween(log, name, partition, startOffset, endOffset)) {
    const block = decodeBlock(value, partition);
    if (!block) continue;
    if (!first) {
      first = { n: block.first_n - 1, chain: chainText(block.previous_chain) };
      lastN = first.n;
      if (asked.has(first.n)) chains.set(first.n, first.chain);
    }
    for (const { n, chain } of block.outputs) {
      if (n !== lastN + 1) continue;
      lastN = n;
      if (asked.has(n)) chains.set(n, chainText(chain));
    }
  }
  return { first, lastN, chains };
}

/** Writes it and waits for the acknowledgments. @returns the replicas that have not acknowledged it in time. @throws NoSuccession, LogFault */
export async function writeSuccession(parts: SuccessionParts, succession: Succession, withinMs: number): Promise<Replica[]> {
  const { log, clock } = parts;
  const { partition, chosen, config, topicId } = succession;
  const writer = log.writer();
  try {
    const verdicts = await verdictsOf(log);
    for (const { replica, lastN } of succession.beyond) {
      const chain = Buffer.from(chosen.chain, 'hex');
      const verdict = resetVerdict(partition, replica, verdicts.last(partition, replica), chosen.n, lastN);
      await resetOutputs({ ...parts, replica }, writer, { n: chosen.n, chain }, verdict);
    }
    const incarnation = incarnationOf(config?.version ?? 1, clock);
    const { replica, topicId: topic_id, offset, n } = chosen;
    const snapshot = { replica, topic_id, offset, n, chain: Buffer.from(chosen.chain, 'hex') };
    const batch = adminBatch(partition, incarnation, clock, { base: { snapshot }, fold_config: config });
    if ((await log.topicId(topics.nars.name)) !== topicId) throw new NoSuccession('nars was re-created once more meanwhile: run this again');
    await writer.append(topics.nars.name, partition, [{ key: Buffer.from(adminCollector), value: narBatchCodec.encode(batch) }]);
    // A client's success is no proof that the record is there; and of two commands at a time the first in the log counts.
    const first = await new BaseSearch(log, partition).find();
    if (!first) throw new NoSuccession(`the base entry of nars/${partition} was written and cannot be read back; run this again`);
    if (narBatchCodec.decode(first.record.value as Buffer).incarnation !== incarnation) {
      throw new NoSuccession(
        `somebody else has written the base of nars/${partition} at the same time, and that one counts; run this again to see it`,
      );
    }
    return await awaitAcks(parts, partition, topicId, incarnation, withinMs);
  } finally {
    await writer.close();
  }
}

async function awaitAcks({ log, clock }: SuccessionParts, partition: number, topicId: string, incarnation: string, withinMs: number) {
  for (const endMs = clock.now() + withinMs; ; await clock.sleep(againMs)) {
    const acks = await adminAcks(log, topicId);
    const missing = replicas.filter((replica) => !acknowledges(acks.get(`${replica}/${partition}`), incarnation));
    if (missing.length === 0 || clock.now() >= endMs) return missing;
  }
}

/** Readers of the topic forget what they have of it, as after any other repair. */
function resetVerdict(partition: number, replica: Replica, last: Verdict | null, n: number, lastN: number): Verdict {
  return {
    partition,
    replica,
    epoch: (last?.epoch ?? 0) + 1,
    state: 'repaired',
    n: n + 1,
    given_chain: Buffer.alloc(0),
    judged_chain: Buffer.alloc(0),
    sound: '',
    begins: -1,
    evidence: `the log was replaced: its outputs ${n + 1} to ${lastN} were folded from what the new log's base does not have`,
    author: adminCollector,
    at_ms: 0,
  };
}
