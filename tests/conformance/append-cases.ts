/** Appends whose answers are lost, late, doubled or wrong: K1 to K5, K10, P5, P6, and what a network does to answers. */
import { setTimeout as delay } from 'node:timers/promises';
import { notLeaderError, produceKey, withProduceErrors } from '../integration/kafka-frames.ts';
import { type Meddling, swallow } from '../integration/response-proxy.ts';
import type { BareClient, Tries } from './bare.ts';
import { type Case, type Seen, said, text } from './case.ts';
import { failOnce, outcomeOf, type Setting, until } from './setting.ts';

const settledWithinMs = 20_000;
const unknownProducerIdError = 59;
const words = (count: number) => Array.from({ length: count }, (_, i) => `w${i}`);
const copies = (values: readonly string[], value: string) => values.filter((one) => one === value).length;

/** Every way of appending one word to a partition: the bare client's, or the port's. */
interface Appender {
  append(topic: string, partition: number, value: string): Promise<unknown>;
  close(): Promise<void>;
}

/** K1, R1, R2 and the like: some words in a row under a fault, whatever each append says; then what the log has. */
async function inARow(setting: Setting, appender: Appender, steps: readonly { value: string; meddling: Meddling | null }[]) {
  const topic = await setting.topic();
  const [proxy] = setting.proxies;
  const answers: string[] = [];
  for (const { value, meddling } of steps) {
    const before = proxy.meddled;
    setting.meddle(meddling);
    answers.push(await outcomeOf(appender.append(topic, 0, value), settledWithinMs));
    if (meddling && proxy.meddled === before) throw new Error('the fault did not happen');
    setting.calm();
  }
  await appender.close();
  return { answers, values: await setting.values(topic) };
}

async function lostAnswer(setting: Setting, appender: Appender): Promise<Seen> {
  const steps = [
    { value: 'before', meddling: null },
    { value: 'unanswered', meddling: swallow(produceKey) },
    { value: 'after', meddling: null },
  ];
  const { answers, values } = await inARow(setting, appender, steps);
  const isSilent = answers[2] === 'done' && !values.includes('after');
  return { defect: isSilent, facts: `appends: ${answers.join(', ')}; the log has: ${said(values)}` };
}

/** The meddling at the first Produce response alone. */
function onFirst(meddling: Meddling): Meddling {
  let isDone = false;
  return (exchange, response) => {
    if (exchange.apiKey !== produceKey || isDone) return [response];
    isDone = true;
    return meddling(exchange, response);
  };
}

const repeated: Meddling = (exchange, response) => (exchange.apiKey === produceKey ? [response, response] : [response]);
const late: Meddling = async (_exchange, response) => {
  await delay(1200);
  return [response];
};

async function strangeAnswers(setting: Setting, appender: Appender, meddling: Meddling): Promise<Seen> {
  const steps = words(4).map((value, i) => ({ value, meddling: i === 1 ? meddling : null }));
  const { answers, values } = await inARow(setting, appender, steps);
  const wrong = steps.filter(({ value }, i) => copies(values, value) > 1 || (answers[i] === 'done' && copies(values, value) === 0));
  return { defect: wrong.length > 0, facts: `appends: ${answers.join(', ')}; the log has: ${said(values)}` };
}

/** K2: the answer of one node is an error, that of the other is on its way; the partitions are led by one node each. */
async function acrossNodes(setting: Setting, send: (topic: string) => Promise<unknown>): Promise<Seen> {
  const topic = await setting.topic(2);
  setting.showNodes((partition) => partition + 1);
  const refusing = failOnce(notLeaderError);
  let delayed = 0;
  setting.meddle(async (exchange, response) => {
    const [part] = exchange.produced;
    if (part?.partition === 0) return refusing(exchange, response);
    if (part && delayed++ === 0) await delay(1500);
    return [response];
  });
  const answer = await outcomeOf(send(topic), settledWithinMs);
  if (refusing.failed.size === 0 || delayed === 0) throw new Error('the fault did not happen');
  const [first, second] = [await setting.values(topic, 0), await setting.values(topic, 1)];
  return { defect: first.length > 1 || second.length > 1, facts: `send: ${answer}; the partitions have: ${said(first)} | ${said(second)}` };
}

/** K3: a message, carried out and said not to be; the first of it in the log is where it was meant to be. */
async function repeatedElsewhere(setting: Setting, send: (topic: string) => Promise<unknown>): Promise<Seen> {
  const topic = await setting.topic(4);
  setting.meddle(onFirst(failOnce(notLeaderError)));
  const answer = await outcomeOf(send(topic), settledWithinMs);
  const parts = [];
  for (let partition = 0; partition < 4; partition++) parts.push((await setting.values(topic, partition)).length);
  const total = parts.reduce((sum, count) => sum + count, 0);
  return { defect: total > 1, facts: `one message (${answer}), records in the four partitions: ${parts.join(', ')}` };
}

/**
 * K4: the first append is on its way to a node that is slow; then another one leads, of which the client hears when an append to another partition
 * is refused.
 */
async function acrossALeaderMove(setting: Setting, appender: Appender): Promise<Seen> {
  const topic = await setting.topic(2);
  let leader = 1;
  setting.showNodes((partition) => (partition === 1 ? 2 : leader));
  const [slow] = setting.proxies;
  slow.detention = { apiKey: produceKey, cut: false };
  const first = appender.append(topic, 0, 'first');
  await until('the first append is on its way', () => slow.detained > 0);
  leader = 2;
  setting.meddle(onFirst(failOnce(notLeaderError)));
  await outcomeOf(appender.append(topic, 1, 'other'), settledWithinMs);
  const second = appender.append(topic, 0, 'second');
  await outcomeOf(second, 1000);
  slow.detention = null;
  slow.release();
  const answers = [await outcomeOf(first, settledWithinMs), await outcomeOf(second, settledWithinMs)];
  answers.push(await outcomeOf(appender.append(topic, 0, 'third'), settledWithinMs));
  await appender.close();
  const values = await setting.values(topic);
  const sent = ['first', 'second', 'third'];
  const isLost = sent.some((value, i) => answers[i] === 'done' && !values.includes(value));
  const isDoubled = sent.some((value) => copies(values, value) > 1);
  const isTurned = sent.filter((value) => values.includes(value)).join() !== [...new Set(values)].join();
  const facts = `first: ${answers[0]}, second: ${answers[1]}, then a third: ${answers[2]}; the log has: ${said(values)}`;
  return { defect: isLost || isDoubled || isTurned, facts };
}

/** What is missing, or only what is in another order. */
async function concurrent(setting: Setting, appender: Appender, wanted: 'all' | 'in order'): Promise<Seen> {
  const topic = await setting.topic();
  const all = words(50);
  const answers = await Promise.all(all.map((word) => outcomeOf(appender.append(topic, 0, word), settledWithinMs)));
  await appender.close();
  const values = await setting.values(topic);
  const missing = all.filter((word, i) => answers[i] === 'done' && copies(values, word) !== 1);
  const inOrder = values.join() === all.join();
  const facts = `50 at once: ${answers.filter((answer) => answer === 'done').length} done, ${new Set(values).size} in the log, ${
    inOrder ? 'in order' : 'not in order'
  }`;
  return { defect: missing.length > 0 || (wanted === 'in order' && !inOrder), facts };
}

async function lostProducerState(setting: Setting, appender: Appender): Promise<Seen> {
  const topic = await setting.topic();
  await appender.append(topic, 0, 'before');
  const refusing = failOnce(unknownProducerIdError);
  // Once: a producer of a new identity finds no such answer.
  setting.meddle(onFirst(refusing));
  const answer = await outcomeOf(appender.append(topic, 0, 'once'), settledWithinMs);
  if (refusing.failed.size === 0) throw new Error('the fault did not happen');
  await appender.close();
  const values = await setting.values(topic);
  return { defect: answer === 'done' && copies(values, 'once') > 1, facts: `append: ${answer}; the log has: ${said(values)}` };
}

/** An error code that Kafka may yet come to have. */
async function unknownError(setting: Setting, appender: Appender, errorCode: number): Promise<Seen> {
  const topic = await setting.topic();
  let crashed: Error | null = null;
  const note = (error: Error) => {
    crashed = error;
  };
  process.on('uncaughtException', note);
  let meddled = 0;
  setting.meddle((exchange, response) => {
    if (exchange.apiKey !== produceKey || meddled++ > 0) return [response];
    return [withProduceErrors(exchange.apiVersion, response, () => errorCode)];
  });
  let message = '';
  const append = appender.append(topic, 0, 'unknown').catch((error: Error) => {
    message = error.message.replaceAll('\n', ' ');
    throw error;
  });
  const answer = await outcomeOf(append, settledWithinMs);
  setting.calm();
  const after = await outcomeOf(appender.append(topic, 0, 'after'), settledWithinMs);
  process.off('uncaughtException', note);
  if (meddled === 0) throw new Error('the fault did not happen');
  await appender.close();
  const values = await setting.values(topic);
  const told = `${message ? ` ("${message.slice(0, 90)}")` : ''}${crashed ? `, uncaught: ${crashed}` : ''}`;
  const facts = `append: ${answer}${told}; next: ${after}; the log has: ${said(values)}`;
  return { defect: crashed !== null || answer === 'open' || after !== 'done' || !values.includes('after'), facts };
}

const bareAppender = async (...[client, tries, options]: [BareClient, Tries, object?]): Promise<Appender> => {
  const producer = await client.producer(tries, options);
  return { append: (topic, partition, value) => producer.send(topic, partition, [value]), close: () => producer.close().catch(() => undefined) };
};

const portAppender = (log: Parameters<Case['guarded']>[1]): Appender => {
  const writer = log.writer();
  return { append: (topic, partition, value) => writer.append(topic, partition, [text(value)]), close: () => writer.close() };
};

/** The same steps for both. */
const same = (id: string, about: string, tries: Tries, steps: (setting: Setting, appender: Appender) => Promise<Seen>, options?: object): Case => ({
  id,
  about,
  use: 'appends',
  bare: async (setting, client) => steps(setting, await bareAppender(client, tries, options)),
  guarded: (setting, log) => steps(setting, portAppender(log)),
});

/** K5, P6: nothing is answered. */
async function unanswered(setting: Setting, appender: Appender): Promise<Seen> {
  const topic = await setting.topic();
  const before = setting.askedSoFar;
  setting.meddle(swallow(produceKey));
  const startedMs = Date.now();
  const append = appender.append(topic, 0, 'unanswered');
  const answer = await outcomeOf(append, settledWithinMs);
  const tookMs = Date.now() - startedMs;
  const requests = setting.asked(before).filter(({ apiKey }) => apiKey === produceKey).length;
  if (requests === 0) throw new Error('the fault did not happen');
  setting.calm();
  await outcomeOf(append, settledWithinMs);
  await appender.close();
  const facts = answer === 'open' ? `still open after ${settledWithinMs / 1000} s and ${requests} requests` : `${answer} after ${tookMs} ms`;
  return { defect: answer === 'open', facts };
}

export const appendCases: readonly Case[] = [
  same('K1', 'A batch after one whose answer was lost is dropped by the broker as a repeat, and said to be appended.', 'default', lostAnswer),
  {
    id: 'K2',
    about: 'One send to several nodes: when one refuses, the other is sent its part again under a new number, and has it twice.',
    use: 'appends',
    async bare(setting, client) {
      const producer = await client.producer('default', { requestTimeoutMs: 5000 });
      const across = new Map([
        [0, 'x'],
        [1, 'y'],
      ]);
      const seen = await acrossNodes(setting, (topic) => producer.sendAcross(topic, across));
      await producer.close();
      return seen;
    },
    async guarded(setting, log) {
      const writer = log.writer();
      const seen = await acrossNodes(setting, (topic) =>
        Promise.allSettled([writer.append(topic, 0, [text('x')]), writer.append(topic, 1, [text('y')])]),
      );
      await writer.close();
      return seen;
    },
  },
  {
    id: 'K3',
    about: 'A message without a partition is sent again to another partition, and is in both.',
    use: 'appends',
    async bare(setting, client) {
      const producer = await client.producer('default');
      const seen = await repeatedElsewhere(setting, (topic) => producer.send(topic, null, ['m']));
      await producer.close();
      return seen;
    },
    async guarded(setting, log) {
      const writer = log.writer();
      const seen = await repeatedElsewhere(setting, (topic) => writer.append(topic, 2, [text('m')]));
      await writer.close();
      return seen;
    },
  },
  same(
    'K4a',
    'Two sends to one partition across a move of its leader: turned round, doubled, or lost and said to be appended.',
    'few',
    acrossALeaderMove,
    {
      requestTimeoutMs: 5000,
    },
  ),
  same('K5', 'While the broker does not answer, a send hangs without end.', 'default', unanswered),
  same('K10a', 'At an error code newer than the client, it crashes, hangs, or loses the next batch.', 'few', (setting, appender) =>
    unknownError(setting, appender, 499),
  ),
  same('K4b', 'Sends to one partition that are made at once are appended in another order.', 'default', (setting, appender) =>
    concurrent(setting, appender, 'in order'),
  ),
  same('P5a', 'Of sends to one partition that are made at once some are dropped, and said to be appended.', 'default', (setting, appender) =>
    concurrent(setting, appender, 'all'),
  ),
  same(
    'P5b',
    'After lost producer state the client sends again under another identity: twice in the log, said to be appended.',
    'default',
    lostProducerState,
  ),
  same('P6', 'One retry is asked for, and it tries without end.', 'one', unanswered),
  same('R1', 'An answer that comes twice is taken for that of another request.', 'default', (setting, appender) =>
    strangeAnswers(setting, appender, onFirst(repeated)),
  ),
  same(
    'R2',
    'An answer that comes after its time is taken for that of another request, or the repeat doubles the record.',
    'default',
    (setting, appender) => strangeAnswers(setting, appender, onFirst(late)),
  ),
];
