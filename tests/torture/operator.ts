/** What an operator with too many rights does to topics. */
import { setTimeout as delay } from 'node:timers/promises';
import kafkajs, { type Admin } from 'kafkajs';
import { require } from './cell.ts';
import type { Field } from './field.ts';

export async function administer<Result>(field: Field, action: (admin: Admin) => Promise<Result>): Promise<Result> {
  const admin = new kafkajs.Kafka({ brokers: field.brokers.split(','), clientId: 'operator', logLevel: kafkajs.logLevel.NOTHING }).admin();
  await admin.connect();
  try {
    return await action(admin);
  } finally {
    await admin.disconnect();
  }
}

/** Deletes topics and makes them anew. @returns what proves it */
export async function remakeTopics(field: Field, names: readonly string[]): Promise<() => Promise<string>> {
  const idsBefore = await Promise.all(names.map((name) => field.log.topicId(name)));
  await administer(field, (admin) => admin.deleteTopics({ topics: [...names], timeout: 10_000 }));
  await delay(1000);
  const { code, stdout, stderr } = await field.stack.command('topics');
  if (code !== 0) throw new Error(`the topics could not be made again: ${stdout}${stderr}`);
  const idsAfter = await Promise.all(names.map((name) => field.log.topicId(name)));
  return async () => {
    for (const [i, name] of names.entries()) require(idsBefore[i] !== idsAfter[i], `${name} is the same topic`);
    return names.map((name, i) => `${name} has id ${idsAfter[i]}, had ${idsBefore[i]}`).join('; ');
  };
}
