/** Records of aborted transactions that reach readers of committed ones (K8), members that are busy (K9), and idle connections (K10). */
import { joinGroupKey } from '../integration/kafka-frames.ts';
import type { BareClient, BareTransaction } from './bare.ts';
import { nameOf } from './bare-kafkajs.ts';
import { type Case, type Seen, said, text } from './case.ts';
import type { Setting } from './setting.ts';

/** More than a fetch takes at once. */
const largeBytes = 900_000;
const endValue = 'end';

/** Transactions as they lie in the log: who writes what, in which order, and how each ends. */
type Step =
  | { readonly by: 1 | 2; readonly write: string; readonly bytes?: number; readonly key?: Buffer }
  | { readonly by: 1 | 2; readonly end: 'abort' | 'commit' };

interface Layout {
  readonly id: string;
  readonly about: string;
  readonly steps: readonly Step[];
  /** Where reading begins. */
  readonly from: number;
}

const layouts: readonly Layout[] = [
  {
    id: 'K8a',
    about: 'Aborted records are delivered: two transactions that began before the position, both aborted.',
    steps: [
      { by: 1, write: 'p' },
      { by: 2, write: 'q' },
      { by: 2, write: 'r' },
      { by: 2, write: 's' },
      { by: 1, write: 't' },
      { by: 1, end: 'abort' },
      { by: 2, end: 'abort' },
    ],
    from: 2,
  },
  {
    id: 'K8b',
    about: 'Aborted records are delivered: the transaction that began first is aborted last.',
    steps: [
      { by: 1, write: 'p' },
      { by: 2, write: 'q' },
      { by: 2, end: 'abort' },
      { by: 1, write: 'r' },
      { by: 1, end: 'abort' },
    ],
    from: 0,
  },
  {
    id: 'K8c',
    about: 'Aborted records are delivered: a key of four zero octets is taken for an abort marker.',
    steps: [
      { by: 1, write: 'p', key: Buffer.alloc(4) },
      { by: 1, write: 'q' },
      { by: 1, end: 'abort' },
    ],
    from: 0,
  },
  {
    id: 'K8d',
    about: 'Aborted records are delivered: one producer, two aborted transactions in one fetch.',
    steps: [
      { by: 1, write: 'p' },
      { by: 1, end: 'abort' },
      { by: 1, write: 'q' },
      { by: 1, end: 'abort' },
    ],
    from: 0,
  },
  {
    id: 'K8e',
    about: 'Aborted records are delivered: the abort marker lies beyond what was fetched.',
    steps: [...['p', 'q', 'r', 's', 't', 'u', 'v'].map((write) => ({ by: 1 as const, write, bytes: largeBytes })), { by: 1, end: 'abort' }],
    from: 0,
  },
];

/** Written by a client whose writing is not in question here. */
async function lay(setting: Setting, author: BareClient, { id, steps }: Layout): Promise<string> {
  const topic = await setting.topic();
  const producers = await Promise.all([1, 2].map((by) => author.transactional(`${id}-${topic}-${by}`, 'few')));
  const open = new Map<number, BareTransaction>();
  for (const step of steps) {
    const transaction = open.get(step.by) ?? (await (producers[step.by - 1] as (typeof producers)[number]).begin());
    open.set(step.by, transaction);
    if ('write' in step) {
      await transaction.send(topic, 0, step.bytes ? `${step.write} ${'x'.repeat(step.bytes)}` : step.write, step.key);
      continue;
    }
    await (step.end === 'abort' ? transaction.abort() : transaction.commit());
    open.delete(step.by);
  }
  await Promise.all(producers.map((producer) => producer.close()));
  const plain = await author.producer('few');
  await plain.send(topic, 0, [endValue]);
  await plain.close();
  return topic;
}

async function readThrough(log: Parameters<Case['guarded']>[1], topic: string, from: number): Promise<string[]> {
  const reader = log.reader('committed');
  reader.assign(topic, 0, from);
  const values: string[] = [];
  for (const end = Date.now() + 20_000; values.at(-1) !== endValue && Date.now() < end; ) {
    for (const { records } of await reader.poll(250)) values.push(...records.map(({ value }) => nameOf(value)));
  }
  await reader.close();
  return values;
}

function leak(values: readonly string[]): Seen {
  if (!values.includes(endValue)) throw new Error('the reader did not come to the end of the log');
  const leaked = values.filter((value) => value !== endValue);
  return { defect: leaked.length > 0, facts: `delivered of what was aborted: ${said(leaked)}` };
}

/** The layouts are written by kafkajs, whatever client reads. */
export function readCases(author: BareClient): Case[] {
  return layouts.map((layout) => ({
    id: layout.id,
    about: layout.about,
    use: 'committed reads' as const,
    bare: async (setting, client) => leak(await client.consume(await lay(setting, author, layout), layout.from, endValue)),
    guarded: async (setting, log) => leak(await readThrough(log, await lay(setting, author, layout), layout.from)),
  }));
}

const workMs = 9_000;

export const busyMember: Case = {
  id: 'K9',
  about: 'A member of a group that is busy for longer than its session or a rebalance allows loses its partition, and the message comes again.',
  use: 'groups',
  async bare(setting, client) {
    const topic = await setting.topic();
    const producer = await client.producer('few');
    await producer.send(topic, 0, ['one']);
    await producer.close();
    const times = await client.deliveries(topic, `k9-${client.name}`, workMs);
    return { defect: times > 1, facts: `one message, ${workMs / 1000} s of work, a second member joins: delivered ${times} times` };
  },
  async guarded(setting, log) {
    const topic = await setting.topic();
    const since = setting.askedSoFar;
    const writer = log.writer();
    await writer.append(topic, 0, [text('one'), text(endValue)]);
    await writer.close();
    const values = await readThrough(log, topic, 0);
    const joins = setting.asked(since).filter(({ apiKey }) => apiKey === joinGroupKey).length;
    return { defect: joins > 0 || values.join(' ') !== `one ${endValue}`, facts: `read by position, group requests: ${joins}` };
  },
};

const idleMs = 1_000;

async function timersWhileIdle(): Promise<Seen> {
  let timers = 0;
  const scheduled = globalThis.setTimeout;
  globalThis.setTimeout = ((...args: Parameters<typeof setTimeout>) => {
    if ((args[1] ?? 0) <= 1) timers++;
    return scheduled(...args);
  }) as typeof setTimeout;
  await new Promise((resolve) => scheduled(resolve, idleMs));
  globalThis.setTimeout = scheduled;
  return { defect: timers > 50, facts: `timers of 1 ms or less in ${idleMs / 1000} s of an idle connection: ${timers}` };
}

export const idleConnection: Case = {
  id: 'K10b',
  about: 'An idle connection wakes up every millisecond.',
  use: 'idle',
  async bare(setting, client) {
    const producer = await client.producer('few');
    await producer.send(await setting.topic(), 0, ['one']);
    const seen = await timersWhileIdle();
    await producer.close();
    return seen;
  },
  async guarded(setting, log) {
    const topic = await setting.topic();
    const writer = log.writer();
    await writer.append(topic, 0, [text('one')]);
    const seen = await timersWhileIdle();
    await writer.close();
    return seen;
  },
};
