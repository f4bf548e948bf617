/** `make conformance`: plays every case with every client, bare and behind the port, prints what was seen, and writes docs/CONFORMANCE.md. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { quiet } from '../integration/reading.ts';
import { appendCases } from './append-cases.ts';
import type { BareClient } from './bare.ts';
import { bareKafkajs, clientId } from './bare-kafkajs.ts';
import { barePlatformatic } from './bare-platformatic.ts';
import type { Case, PortLog, Seen } from './case.ts';
import { PlatformaticLog } from './platformatic-log.ts';
import { busyMember, idleConnection, readCases } from './read-cases.ts';
import { requestTimeoutMs, Setting } from './setting.ts';
import { type ClientResults, type Result, renderPage } from './table.ts';
import { transactionCases } from './transaction-cases.ts';

const page = fileURLToPath(new URL('../../docs/CONFORMANCE.md', import.meta.url));
const pom = fileURLToPath(new URL('../../infra/kafka/pom.xml', import.meta.url));
const caseWithinMs = 90_000;

interface Candidate {
  readonly client: BareClient;
  readonly openLog: () => PortLog;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { only: { type: 'string' } } });
  const only = values.only?.split(',');
  const setting = await Setting.open();
  try {
    const kafkajs = bareKafkajs(setting.broker, setting.dir);
    const config = { brokers: [setting.address], client_id: clientId, topic_prefix: '', request_timeout: requestTimeoutMs };
    const candidates: Candidate[] = [
      { client: kafkajs, openLog: () => openKafka(config, quiet, systemClock) },
      { client: barePlatformatic(setting.broker), openLog: () => new PlatformaticLog({ broker: setting.address, requestTimeoutMs }, systemClock) },
    ];
    const cases = [...appendCases, ...transactionCases, ...readCases(kafkajs), busyMember, idleConnection]
      .filter(({ id }) => !only || only.includes(id))
      .sort((one, other) => one.id.localeCompare(other.id, 'en', { numeric: true }));
    const clients: ClientResults[] = [];
    for (const candidate of candidates) clients.push(await play(setting, candidate, cases));
    if (!only) writeFileSync(page, renderPage(cases, clients, /<kafka\.version>([^<]+)</.exec(readFileSync(pom, 'utf8'))?.[1] ?? 'unknown'));
    // The product's own adapter, and every case of it, must hold; the rest is to know.
    const failed = [...(clients[0]?.guarded ?? [])].filter(([, result]) => 'error' in result || result.defect).map(([id]) => id);
    process.stdout.write(
      failed.length === 0 ? '\nevery guard of the adapter holds\n' : `\nguards of the adapter that do not hold: ${failed.join(', ')}\n`,
    );
    process.exitCode = failed.length === 0 ? 0 : 1;
  } finally {
    await setting.close();
  }
}

async function play(setting: Setting, { client, openLog }: Candidate, cases: readonly Case[]): Promise<ClientResults> {
  const bare = new Map<string, Result>();
  const guarded = new Map<string, Result>();
  for (const one of cases) {
    bare.set(one.id, await attempt(setting, () => one.bare(setting, client)));
    tell(one.id, client.name, 'bare', bare.get(one.id), 'reproduced', 'not reproduced');
    const log = openLog();
    guarded.set(one.id, await attempt(setting, () => one.guarded(setting, log)));
    tell(one.id, client.name, 'port', guarded.get(one.id), 'FAILS', 'holds');
    await log.close();
  }
  return { name: client.name, version: client.version, bare, guarded };
}

async function attempt(setting: Setting, play: () => Promise<Seen>): Promise<Result> {
  const late = new AbortController();
  try {
    const overdue = systemClock.sleep(caseWithinMs, late.signal).then((): Result => ({ error: `not done within ${caseWithinMs / 1000} s` }));
    return await Promise.race([play(), overdue]);
  } catch (error) {
    return { error: `could not be played: ${(error as Error).message}` };
  } finally {
    late.abort();
    setting.calm();
  }
}

function tell(id: string, name: string, how: string, result: Result | undefined, yes: string, no: string): void {
  const verdict = !result ? '' : 'error' in result ? `not played: ${result.error}` : `${result.defect ? yes : no}. ${result.facts}`;
  process.stdout.write(`${id.padEnd(5)} ${name.padEnd(20)} ${how.padEnd(5)} ${verdict}\n`);
}

// A client's promise that nobody waits for any more may still be rejected; it says nothing about the cases that follow.
process.on('unhandledRejection', () => undefined);
await main();
process.exit();
