/** Transactions whose end is not answered or comes late, restarts, timeouts, and calls at the same time: K6, K7, P1 to P4, KAFKA-17754. */
import { systemClock } from '../../adapters/clock.ts';
import { LogFault } from '../../adapters/ports.ts';
import {
  addOffsetsToTxnKey,
  addPartitionsToTxnKey,
  endTxnKey,
  initProducerIdKey,
  readInitProducerId,
  txnOffsetCommitKey,
} from '../integration/kafka-frames.ts';
import { swallow } from '../integration/response-proxy.ts';
import type { BareClient } from './bare.ts';
import { type Case, type Seen, said, text } from './case.ts';
import { accessTopic, outcomeOf, type Setting, until } from './setting.ts';

const settledWithinMs = 15_000;
/** A pause of the process, or of the broker, should not abort what it does. */
const transactionTimeoutMsMin = 10_000;

const kindOf = (error: unknown) => (error instanceof LogFault ? error.kind : String(error));

const endUnanswered: Case = {
  id: 'K6',
  about: 'After a commit that was not answered the producer can neither abort nor begin again.',
  use: 'transactions',
  async bare(setting, client) {
    const topic = await setting.topic();
    const producer = await client.transactional(`k6-${client.name}`, 'few');
    const transaction = await producer.begin();
    await transaction.send(topic, 0, 'one');
    const [proxy] = setting.proxies;
    const before = proxy.meddled;
    setting.meddle(swallow(endTxnKey));
    const committed = await outcomeOf(transaction.commit(), settledWithinMs);
    if (proxy.meddled === before) throw new Error('the fault did not happen');
    setting.calm();
    const aborted = await outcomeOf(transaction.abort(), settledWithinMs);
    const begun = await outcomeOf(
      producer.begin().then((next) => next.send(topic, 0, 'two').then(() => next.commit())),
      settledWithinMs,
    );
    await producer.close().catch(() => undefined);
    const values = await setting.values(topic, 0, 'committed');
    const facts = `commit: ${committed}, abort: ${aborted}, next transaction: ${begun}; read_committed: ${said(values)}`;
    return { defect: aborted !== 'done' && begun !== 'done', facts };
  },
  async guarded(setting, log) {
    const topic = await setting.topic();
    const writer = log.transactionalWriter(`k6-${topic}`);
    await writer.open();
    await writer.commit(topic, 0, [text('one')]);
    setting.meddle(swallow(endTxnKey));
    const fault = await writer.commit(topic, 0, [text('two')]).then(() => 'done', kindOf);
    setting.calm();
    const again = await writer.commit(topic, 0, [text('never')]).then(() => 'done', kindOf);
    const next = log.transactionalWriter(`k6-${topic}`);
    await next.open();
    await next.commit(topic, 0, [text('three')]);
    await Promise.all([writer.close(), next.close()]);
    const values = await setting.values(topic, 0, 'committed');
    const isRight = ['one two three', 'one three'].includes(values.join(' '));
    return {
      defect: fault !== 'unknown' || again !== 'unknown' || !isRight,
      facts: `commit: ${fault}, again: ${again}; read_committed: ${said(values)}`,
    };
  },
};

const lateEnd: Case = {
  id: 'T1',
  about: "A commit that is late, and was repeated meanwhile, ends the producer's next transaction (KAFKA-17754).",
  use: 'transactions',
  async bare(setting, client) {
    const topic = await setting.topic();
    const producer = await client.transactional(`t1-${client.name}`, 'default');
    const transaction = await producer.begin();
    await transaction.send(topic, 0, 'one');
    const [proxy] = setting.proxies;
    proxy.detention = { apiKey: endTxnKey, cut: true };
    const commit = transaction.commit();
    const committed = outcomeOf(commit, settledWithinMs);
    await until('the commit is on its way', () => proxy.detained > 0);
    proxy.detention = null;
    let next = 'not tried';
    let aborted = 'not tried';
    if ((await committed) === 'done') {
      const second = await producer.begin();
      next = await outcomeOf(second.send(topic, 0, 'two'), settledWithinMs);
      proxy.release();
      await systemClock.sleep(500);
      aborted = await outcomeOf(second.abort(), settledWithinMs);
    } else next = await outcomeOf(producer.begin(), settledWithinMs);
    await producer.close().catch(() => undefined);
    const values = await setting.values(topic, 0, 'committed');
    const facts = `commit: ${await committed}, next transaction: ${next}, its abort: ${aborted}; read_committed: ${said(values)}`;
    return { defect: values.includes('two'), facts };
  },
  async guarded(setting, log) {
    const topic = await setting.topic();
    const writer = log.transactionalWriter(`t1-${topic}`);
    await writer.open();
    const [proxy] = setting.proxies;
    proxy.detention = { apiKey: endTxnKey, cut: true };
    const fault = await writer.commit(topic, 0, [text('one')]).then(() => 'done', kindOf);
    if (proxy.detained === 0) throw new Error('the fault did not happen');
    proxy.detention = null;
    const next = log.transactionalWriter(`t1-${topic}`);
    await next.open();
    proxy.detention = { apiKey: endTxnKey, cut: true };
    const own = await next.commit(topic, 0, [text('two')]).then(() => 'done', kindOf);
    proxy.detention = null;
    // The late end arrives while the next transaction is open; the one of that arrives when another writer has come.
    proxy.release(1);
    await systemClock.sleep(300);
    const heir = log.transactionalWriter(`t1-${topic}`);
    await heir.open();
    await heir.commit(topic, 0, [text('three')]);
    proxy.release();
    await systemClock.sleep(300);
    await Promise.all([writer.close(), next.close(), heir.close()]);
    const values = await setting.values(topic, 0, 'committed');
    return { defect: values.join(' ') !== 'three', facts: `commits: ${fault}, ${own}, then done; read_committed: ${said(values)}` };
  },
};

const restart: Case = {
  id: 'P1',
  about: 'A restarted producer of the same transactional id is fenced by its own past.',
  use: 'transactions',
  async bare(setting, client) {
    const topic = await setting.topic();
    const first = await client.transactional(`p1-${client.name}`, 'few');
    const transaction = await first.begin();
    await transaction.send(topic, 0, 'one');
    await transaction.commit();
    await first.close();
    const second = await client.transactional(`p1-${client.name}`, 'few');
    let message = '';
    const begun = await outcomeOf(
      second.begin().then(
        (next) => next.send(topic, 0, 'two').then(() => next.commit()),
        (error: Error) => {
          message = causeOf(error);
          throw error;
        },
      ),
      settledWithinMs,
    );
    await second.close().catch(() => undefined);
    const values = await setting.values(topic, 0, 'committed');
    const facts = `after the restart: ${begun}${message ? ` (${message})` : ''}; read_committed: ${said(values)}`;
    return { defect: begun !== 'done', facts };
  },
  async guarded(setting, log) {
    const topic = await setting.topic();
    for (const value of ['one', 'two', 'three']) {
      const writer = log.transactionalWriter(`p1-${topic}`);
      await writer.open();
      await writer.commit(topic, 0, [text(value)]);
      await writer.close();
    }
    const values = await setting.values(topic, 0, 'committed');
    return { defect: values.join(' ') !== 'one two three', facts: `two restarts; read_committed: ${said(values)}` };
  },
};

/** The broker's word for it, however deep it lies. */
function causeOf(error: unknown): string {
  const { apiId, type, errors, cause, message } = error as { apiId?: string; type?: string; errors?: unknown[]; cause?: unknown; message?: string };
  return apiId ?? type ?? (errors?.[0] ? causeOf(errors[0]) : cause ? causeOf(cause) : String(message));
}

function timeoutAsked(setting: Setting, since: number): Seen {
  const asked = setting.asked(since).filter(({ apiKey }) => apiKey === initProducerIdKey);
  const [first] = asked.map(({ head }) => readInitProducerId(head));
  const timeoutMs = first?.transactionTimeoutMs ?? 0;
  return { defect: timeoutMs < transactionTimeoutMsMin, facts: `the broker is asked for ${timeoutMs} ms` };
}

const timeouts: Case = {
  id: 'P2',
  about: "A transaction's timeout is that of a request: a pause of a few seconds aborts it.",
  use: 'transactions',
  async bare(setting, client) {
    const since = setting.askedSoFar;
    const producer = await client.transactional(`p2-${client.name}`, 'few');
    const transaction = await producer.begin();
    await transaction.abort().catch(() => undefined);
    await producer.close();
    return timeoutAsked(setting, since);
  },
  async guarded(setting, log) {
    const since = setting.askedSoFar;
    const writer = log.transactionalWriter(`p2-${await setting.topic()}`);
    await writer.open();
    await writer.close();
    return timeoutAsked(setting, since);
  },
};

/** Versions from 4 on are the brokers' own. */
const brokersVersion = 4;

function versionsAsked(setting: Setting, since: number): Seen {
  const asked = setting.asked(since).filter(({ apiKey }) => apiKey === addPartitionsToTxnKey);
  const versions = [...new Set(asked.map(({ apiVersion }) => apiVersion))];
  if (versions.length === 0) throw new Error('nothing was asked');
  return { defect: versions.some((version) => version >= brokersVersion), facts: `AddPartitionsToTxn is asked in version ${versions.join(', ')}` };
}

async function oneTransaction(client: BareClient, topic: string): Promise<Seen> {
  const producer = await client.transactional(`p3-${client.name}`, 'few');
  let message = '';
  const commit = async () => {
    const transaction = await producer.begin();
    await transaction.send(topic, 0, 'one');
    await transaction.commit();
  };
  const transaction = commit().catch((error: unknown) => {
    message = ` (${causeOf(error)})`;
    throw error;
  });
  const answer = await outcomeOf(transaction, settledWithinMs);
  await producer.close().catch(() => undefined);
  return { defect: answer !== 'done', facts: `a transaction of a user with all rights but those of the cluster: ${answer}${message}` };
}

const brokersRequest: Case = {
  id: 'P3',
  about: "The brokers' own form of AddPartitionsToTxn (version 4 and later) is used: under access control, clients are refused it.",
  use: 'transactions',
  async bare(setting, client) {
    const since = setting.askedSoFar;
    await oneTransaction(client, await setting.topic());
    const { facts } = versionsAsked(setting, since);
    const seen = await setting.withAccessControl('user', (broker) => oneTransaction(client.as('user', broker), accessTopic));
    return { defect: seen.defect, facts: `${facts}; ${seen.facts}` };
  },
  async guarded(setting, log) {
    const topic = await setting.topic();
    const since = setting.askedSoFar;
    const writer = log.transactionalWriter(`p3-${topic}`);
    await writer.open();
    await writer.commit(topic, 0, [text('one')]);
    await writer.close();
    return versionsAsked(setting, since);
  },
};

const concurrentCalls: Case = {
  id: 'P4a',
  about: 'Of two sends at once in one transaction, to two partitions, one is not a part of it.',
  use: 'transactions',
  async bare(setting, client) {
    const topic = await setting.topic(2);
    const producer = await client.transactional(`p4a-${client.name}`, 'few');
    const transaction = await producer.begin();
    const sends = await Promise.all([0, 1].map((partition) => outcomeOf(transaction.send(topic, partition, `v${partition}`), settledWithinMs)));
    const committed = await outcomeOf(transaction.commit(), settledWithinMs);
    await producer.close().catch(() => undefined);
    const read = [await setting.values(topic, 0, 'committed'), await setting.values(topic, 1, 'committed')].map(said);
    const facts = `sends: ${sends.join(', ')}, commit: ${committed}; read_committed: ${read.join(' | ')}`;
    return { defect: sends.includes('refused') || read.join(' | ') !== 'v0 | v1', facts };
  },
  async guarded(setting, log) {
    const topic = await setting.topic(2);
    const writers = [0, 1].map((partition) => log.transactionalWriter(`p4a-${topic}-${partition}`));
    await Promise.all(writers.map((writer) => writer.open()));
    await Promise.all(writers.map((writer, partition) => writer.commit(topic, partition, [text(`v${partition}`)])));
    await Promise.all(writers.map((writer) => writer.close()));
    const read = [await setting.values(topic, 0, 'committed'), await setting.values(topic, 1, 'committed')].map(said);
    return { defect: read.join(' | ') !== 'v0 | v1', facts: `one partition a transaction; read_committed: ${read.join(' | ')}` };
  },
};

/** No member of a group, and no position in a transaction: what goes wrong with them cannot. */
async function withoutGroup(setting: Setting, log: Parameters<Case['guarded']>[1]): Promise<Seen> {
  const topic = await setting.topic();
  const since = setting.askedSoFar;
  const writer = log.transactionalWriter(`k7-${topic}`);
  await writer.open();
  await writer.commit(topic, 0, [text('one')]);
  await writer.close();
  await log.commitOffset(`k7-${topic}`, topic, 0, 7);
  const reader = log.reader('committed');
  reader.assign(topic, 0, 0);
  const read: number[] = [];
  for (const end = Date.now() + 5000; read.length === 0 && Date.now() < end; ) {
    for (const { records } of await reader.poll(250)) read.push(...records.map(({ offset }) => offset));
  }
  await reader.close();
  const strange = setting.asked(since).filter(({ apiKey }) => [addOffsetsToTxnKey, txnOffsetCommitKey].includes(apiKey));
  const facts = `no offset in a transaction; position noted 7, read from where the caller said: offset ${read[0]}`;
  return { defect: strange.length > 0 || read[0] !== 0, facts };
}

async function offsetsInTransaction(setting: Setting, client: BareClient): Promise<Seen> {
  const topic = await setting.topic();
  const group = `k7a-${client.name}`;
  const producer = await client.transactional(`k7a-${client.name}`, 'few');
  const noted: number[] = [];
  const before = await producer.begin();
  await before.send(topic, 0, 'one');
  await before.noteOffset(group, topic, 5, null);
  await before.commit();
  const transaction = await producer.begin();
  await transaction.send(topic, 0, 'two');
  await transaction.noteOffset(group, topic, 9, null);
  noted.push(await client.position(group, topic, 0));
  await transaction.commit();
  await systemClock.sleep(500);
  noted.push(await client.position(group, topic, 0));
  await producer.close();
  const facts = `position noted 5, then 9 in a transaction: while it is open a consumer would start from ${noted[0]}, afterwards from ${noted[1]}`;
  return { defect: noted[0] === 5, facts };
}

async function offsetsOfAZombie(setting: Setting, client: BareClient): Promise<Seen> {
  const topic = await setting.topic();
  const group = `k7b-${client.name}`;
  const member = client.deliveries(topic, group, 4000);
  await systemClock.sleep(4000);
  const producer = await client.transactional(`k7b-${client.name}`, 'few');
  const transaction = await producer.begin();
  await transaction.send(topic, 0, 'one');
  const noted = await outcomeOf(transaction.noteOffset(group, topic, 9, { memberId: 'gone', generationId: 1 }), settledWithinMs);
  const committed = noted === 'done' ? await outcomeOf(transaction.commit(), settledWithinMs) : 'not tried';
  await producer.close().catch(() => undefined);
  await member;
  return { defect: committed === 'done', facts: `while the group has a member, the position of one who is none: ${noted}, commit: ${committed}` };
}

async function concurrentOffsets(setting: Setting, client: BareClient): Promise<Seen> {
  const topics = [await setting.topic(), await setting.topic()];
  const group = `p4b-${client.name}`;
  const producer = await client.transactional(`p4b-${client.name}`, 'few');
  const transaction = await producer.begin();
  await transaction.send(topics[0] as string, 0, 'one');
  await transaction.noteOffset(group, topics[0] as string, 1, null);
  const noted = await Promise.all(topics.map((topic, i) => outcomeOf(transaction.noteOffset(group, topic, 5 + i, null), settledWithinMs)));
  const committed = await outcomeOf(transaction.commit(), settledWithinMs);
  await systemClock.sleep(500);
  const found = await Promise.all(topics.map((topic) => client.position(group, topic, 0)));
  await producer.close().catch(() => undefined);
  const isWrong = noted.every((answer) => answer === 'done') && found.join() !== '5,6';
  return { defect: isWrong, facts: `positions 5 and 6 at once: ${noted.join(', ')}, commit: ${committed}; found afterwards: ${found.join(' and ')}` };
}

const groupCase = (id: string, about: string, use: Case['use'], bare: Case['bare']): Case => ({ id, about, use, bare, guarded: withoutGroup });

export const transactionCases: readonly Case[] = [
  endUnanswered,
  lateEnd,
  restart,
  timeouts,
  brokersRequest,
  concurrentCalls,
  groupCase('P4b', 'Of two positions put into a transaction at once, one is dropped, and said to be there.', 'groups', concurrentOffsets),
  groupCase(
    'K7a',
    'A consumer that restarts while a transaction ends starts from the old position, and is not told.',
    'groups',
    offsetsInTransaction,
  ),
  groupCase('K7b', 'Who lost its partitions still moves their positions within a transaction.', 'groups', offsetsOfAZombie),
];
