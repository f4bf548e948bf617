/** `flowledger doctor`: looks at everything that must be right before and while records are counted, and changes nothing. */
import { readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { type BrokerAbility, KafkaAdmin } from '../../adapters/kafka-admin.ts';
import { LedgerError } from '../../adapters/ledger.ts';
import { openLedgerView } from '../../adapters/ledger-sqlite.ts';
import { openLogger } from '../../adapters/logger.ts';
import { type Log, LogFault } from '../../adapters/ports.ts';
import { inspectRedis } from '../../adapters/redis-store.ts';
import { readServiceMetrics } from '../../adapters/service-metrics.ts';
import { StoreFault } from '../../adapters/store.ts';
import {
  ackCodec,
  agreementCodec,
  type Codec,
  electionCodec,
  healthCodec,
  narBatchCodec,
  outputBlockCodec,
  outputCodec,
  snapshotChunkCodec,
  UndecodableRecord,
  UnknownSchema,
  verdictCodec,
} from '../../schemas/codec.ts';
import { allTopics, outputTopic, replicas, snapshotTopic, topics } from '../../schemas/topics.ts';
import type { NarBatch } from '../../schemas/types.ts';
import type { Config } from '../config.ts';
import { decodedOrNull, recordsOfSpans, type Span } from '../log-records.ts';
import {
  brokerFindings,
  clockFindings,
  copyFindings,
  diskFindings,
  type ExporterFacts,
  exporterFindings,
  type Finding,
  finding,
  ledgerDiskFindings,
  redisFindings,
  type SchemaFact,
  schemaFindings,
  socketFindings,
  statusFindings,
  topicFindings,
} from './diagnosis.ts';
import { newestHealthRecords } from './health-records.ts';
import { settingsOf } from './settings.ts';
import { readStatus } from './status.ts';
import { compareAll } from './topics.ts';

/** A clock that is looked at for so long has been appended to several times by any service that runs. */
const listenMs = 1_500;
/** Of each partition of nars: some seconds of a busy system, an hour of an idle one. */
const batchesLately = 50;

export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description(
      'Checks broker, topics, disks, Redis, clocks, socket buffers, schemas, services, partitions and exporters. It changes nothing. ' +
        'Each finding has a code, which flowledger errors explains. Exit code 1 when one of them is an error.',
    )
    .option('--json', 'one JSON object; its fields are in docs/JSON.md')
    .addHelpText('after', '\nExamples:\n  $ flowledger doctor\n  $ flowledger errors FL203')
    .action(async (options: { json?: boolean }, command: Command) => {
      const report = await examine(settingsOf(command).config);
      process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : renderReport(report));
      process.exitCode = report.errors > 0 ? 1 : 0;
    });
}

/** One thing that was looked at. */
export interface Check {
  readonly name: string;
  /** What it is like, in a few words; of one that could not be looked at, why. */
  readonly seen: string;
  readonly done: boolean;
  readonly findings: readonly Finding[];
}

export interface DoctorReport {
  readonly at_ms: number;
  readonly errors: number;
  readonly warnings: number;
  readonly checks: readonly Check[];
}

type Seen = readonly [seen: string, findings: readonly Finding[]];

async function examine(config: Config): Promise<DoctorReport> {
  const logger = openLogger('doctor', 'silent');
  const admin = new KafkaAdmin(config.kafka, logger, 1);
  const log = openKafka(config.kafka, logger, systemClock);
  try {
    const abilities = await admin.abilities().catch((error: unknown) => faultIn(error));
    const brokerThere = !(abilities instanceof LogFault);
    const checks: Check[] = [checkBroker(abilities)];
    const ask = async (name: string, look: () => Promise<Seen>) => {
      checks.push(brokerThere ? await check(name, look) : { name, seen: 'the broker cannot be reached', done: false, findings: [] });
    };
    await ask('topics', () => lookAtTopics(admin, config));
    await ask('disks', () => lookAtDisks(log));
    await ask('clocks', () => lookAtClocks(log, config));
    await ask('schemas', () => lookAtSchemas(log));
    await ask('services', () => lookAtServices(log));
    await ask('exporters', () => lookAtExporters(log));
    checks.push(await check('redis', () => lookAtRedis(config)));
    checks.push(await check('sockets', () => lookAtSockets(config)));
    checks.push(await check('ledger', () => lookAtLedger(config)));
    const count = (severity: string) => checks.flatMap(({ findings }) => findings).filter((one) => one.severity === severity).length;
    return { at_ms: systemClock.now(), errors: count('error'), warnings: count('warning'), checks };
  } finally {
    await Promise.all([admin.close(), log.close()]);
  }
}

function faultIn(error: unknown): LogFault {
  if (error instanceof LogFault) return error;
  throw error;
}

/** A fault of the log, or a record of a newer release, is not the end of the examination: what depends on it was not looked at, and that is said. */
async function check(name: string, look: () => Promise<Seen>): Promise<Check> {
  try {
    const [seen, findings] = await look();
    return { name, seen, done: true, findings };
  } catch (error) {
    if (!(error instanceof LogFault || error instanceof UnknownSchema)) throw error;
    return { name, seen: error.message, done: false, findings: [] };
  }
}

function checkBroker(abilities: readonly BrokerAbility[] | LogFault): Check {
  if (abilities instanceof LogFault) return { name: 'broker', seen: 'none answers', done: true, findings: [finding('FL101', abilities.message)] };
  const seen = abilities.map(({ broker, release }) => `${broker}: Apache Kafka ${release ? `${release} or later` : 'older than 2.7'}`).join(', ');
  return { name: 'broker', seen, done: true, findings: brokerFindings(abilities) };
}

async function lookAtTopics(admin: KafkaAdmin, config: Config): Promise<Seen> {
  const names = allTopics.map(({ name }) => name);
  const states = await admin.describe(names);
  return [`${states.size} of ${names.length} are there`, topicFindings(names, new Set(states.keys()), compareAll(states, config))];
}

async function lookAtDisks(log: Log): Promise<Seen> {
  const disks = await log.disks();
  return [`${disks.length} directories of logs`, diskFindings(disks)];
}

/** The least delay of several appends is nearest to the truth. */
async function lookAtClocks(log: Log, config: Config): Promise<Seen> {
  const { name } = topics.health;
  const reader = log.reader('raw');
  let aheadMs: number | null = null;
  try {
    reader.assign(name, 0, (await log.bounds(name, 0)).endOffset);
    for (const endMs = systemClock.now() + listenMs; systemClock.now() < endMs; ) {
      for (const { records } of await reader.poll(100)) {
        const last = records.at(-1);
        if (last) aheadMs = Math.max(aheadMs ?? Number.NEGATIVE_INFINITY, last.appendedMs - systemClock.now());
      }
    }
  } finally {
    await reader.close();
  }
  const records = await newestHealthRecords(log, systemClock);
  const seen = aheadMs === null ? 'no service reports, so the clock of the broker was not seen' : `the broker's is within ${Math.abs(aheadMs)} ms`;
  return [seen, clockFindings(aheadMs, records, config.aggregate.future_max)];
}

const codecs: readonly (readonly [topic: string, codec: Codec<unknown>])[] = [
  [topics.nars.name, narBatchCodec],
  [topics.acks.name, ackCodec],
  [topics.health.name, healthCodec],
  [topics.elections.name, electionCodec],
  [topics.agreements.name, agreementCodec],
  [topics.verdicts.name, verdictCodec],
  [topics.aggregates.name, outputCodec],
  ...replicas.flatMap((replica) => [
    [outputTopic(replica).name, outputBlockCodec] as const,
    [snapshotTopic(replica).name, snapshotChunkCodec] as const,
  ]),
];

/** Of every partition the newest record, since that is the one that the newest writer wrote. @throws LogFault */
export async function lookAtSchemas(log: Log): Promise<Seen> {
  // A transaction ends with a marker, which is no record.
  const spans = (await Promise.all(codecs.map(([topic]) => newestOf(log, topic, 3)))).flat();
  const newest = new Map<Span, Uint8Array>();
  for await (const { span, record } of recordsOfSpans(log, spans)) if (record.value) newest.set(span, record.value);
  const codecOf = new Map(codecs);
  const facts = [...newest].flatMap(([{ topic, partition }, value]) => schemaFact(`${topic}/${partition}`, codecOf.get(topic)!, value) ?? []);
  return [`the newest records of ${newest.size} partitions`, schemaFindings(facts)];
}

/** The last so many offsets of each partition. */
async function newestOf(log: Log, topic: string, count: number): Promise<Span[]> {
  const spans: Span[] = [];
  for (let partition = 0, partitions = await log.partitionCount(topic); partition < partitions; partition++) {
    const { startOffset, endOffset } = await log.bounds(topic, partition);
    spans.push({ topic, partition, fromOffset: Math.max(startOffset, endOffset - count), toOffset: endOffset });
  }
  return spans;
}

function schemaFact(place: string, codec: Codec<unknown>, value: Uint8Array): SchemaFact | null {
  try {
    codec.decode(value);
    return null;
  } catch (error) {
    if (error instanceof UnknownSchema) return { place, problem: 'unknown', message: error.message };
    if (error instanceof UndecodableRecord) return { place, problem: 'undecodable', message: error.message };
    throw error;
  }
}

async function lookAtServices(log: Log): Promise<Seen> {
  const [status, records] = [await readStatus(log), await newestHealthRecords(log, systemClock)];
  const up = status.services.filter((service) => service.up).length;
  return [
    `${up} services are up, ${status.partitions.length} partitions`,
    [...statusFindings(status), ...copyFindings(records.map(({ health }) => health))],
  ];
}

/** What the newest batches say of their exporters. @throws LogFault */
export async function lookAtExporters(log: Log): Promise<Seen> {
  const exporters = new Map<string, ExporterFacts>();
  for await (const { record } of recordsOfSpans(log, await newestOf(log, topics.nars.name, batchesLately))) {
    const batch = batchIn(record.value);
    if (batch) noteExporters(exporters, batch);
  }
  return [`${exporters.size} were heard lately`, exporterFindings([...exporters.values()])];
}

/** null for one of a schema that is not known, too: the check of the schemas tells it. */
function batchIn(value: Uint8Array | null): NarBatch | null {
  try {
    return decodedOrNull(narBatchCodec, value);
  } catch (error) {
    if (error instanceof UnknownSchema) return null;
    throw error;
  }
}

function noteExporters(exporters: Map<string, ExporterFacts>, batch: NarBatch): void {
  batch.exporters.forEach((report, index) => {
    const name = `${report.sampler_address} domain ${report.observation_domain_id} (${report.protocol})`;
    const nars = batch.nars.filter(({ exporter }) => exporter === index);
    const before = exporters.get(name);
    exporters.set(name, {
      name,
      nars: (before?.nars ?? 0) + nars.length,
      unsampledNars: (before?.unsampledNars ?? 0) + nars.filter(({ sampling_rate }) => sampling_rate === 0).length,
      undecodableDatagrams: (before?.undecodableDatagrams ?? 0) + report.undecodable_datagrams,
      lostOnWireFlows: (before?.lostOnWireFlows ?? 0) + report.lost_on_wire_flows,
      lostOnWireDatagrams: (before?.lostOnWireDatagrams ?? 0) + report.lost_on_wire_datagrams,
    });
  });
}

async function lookAtRedis(config: Config): Promise<Seen> {
  try {
    const inspection = await inspectRedis(config.redis.url, config.collector.store_max);
    return [`version ${inspection.version}`, redisFindings(inspection)];
  } catch (error) {
    if (!(error instanceof StoreFault)) throw error;
    return ['it does not answer', [finding('FL201', error.message)]];
  }
}

async function lookAtSockets(config: Config): Promise<Seen> {
  const samples = await readServiceMetrics(config.collector.http);
  const drops = samples?.filter(({ name }) => name === 'flowledger_collector_kernel_dropped_datagrams_total');
  const waitingSets = samples?.find(({ name }) => name === 'flowledger_collector_waiting_sets')?.value ?? 0;
  const grantedBytes = rmemMax();
  const facts = {
    grantedBytes,
    neededBytes: config.collector.receive_buffer,
    droppedDatagrams: drops ? new Map(drops.map(({ labels, value }) => [labels['listen'] ?? '', value])) : null,
    waitingSets,
  };
  const granted = grantedBytes === null ? 'the kernel does not tell' : `net.core.rmem_max is ${grantedBytes}`;
  return [`${granted}; ${samples ? 'the collector answers' : 'no collector answers at collector.http'}`, socketFindings(facts)];
}

/** Linux has it; other systems bound a socket's buffer otherwise. */
function rmemMax(): number | null {
  try {
    return Number(readFileSync('/proc/sys/net/core/rmem_max', 'utf8'));
  } catch {
    return null;
  }
}

async function lookAtLedger(config: Config): Promise<Seen> {
  const { ledger } = config.accounting;
  try {
    openLedgerView(ledger).close();
  } catch (error) {
    if (!(error instanceof LedgerError)) throw error;
    return ['not read', [finding('FL801', error.message)]];
  }
  const { bavail, blocks, bsize } = await statfs(dirname(ledger));
  return [ledger, ledgerDiskFindings(ledger, bavail * bsize, blocks * bsize)];
}

function renderReport({ checks, errors, warnings }: DoctorReport): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = checks.flatMap(({ name, seen, done, findings }) => [
    `${name.padEnd(width)}  ${done ? (findings.length === 0 ? 'good' : '') : 'not checked'}${findings.length === 0 ? `: ${seen}` : seen}`,
    ...findings.flatMap(({ code, severity, title, found, remedy }) => [`  ${code} ${severity}: ${title}: ${found}`, `    -> ${remedy}`]),
  ]);
  return `${lines.join('\n')}\n\n${errors} errors, ${warnings} warnings${errors + warnings > 0 ? '; flowledger errors CODE explains each' : ''}\n`;
}
