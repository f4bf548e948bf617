/** The topics of a real broker: created, found wanting, put right; and how a log begins. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { systemClock } from '../../adapters/clock.ts';
import { KafkaAdmin } from '../../adapters/kafka-admin.ts';
import type { Log } from '../../adapters/ports.ts';
import { type LocalKafka, startKafka } from '../../infra/local-kafka.ts';
import { ackCodec, narBatchCodec } from '../../schemas/codec.ts';
import { ackPartition, adminCollector, allTopics, replicas } from '../../schemas/topics.ts';
import { applyFoldConfig, ReplacedLog, recordsOf } from '../../services/cli/fold-config.ts';
import { type Finding, prepareTopics } from '../../services/cli/topics.ts';
import { type Config, loadConfig } from '../../services/config.ts';
import { openLog, quiet, readAll } from './reading.ts';

let dir: string;
let kafka: LocalKafka;
let log: Log;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'flowledger-topics-'));
  kafka = await startKafka({ dir });
  log = openLog(kafka.broker);
}, 120_000);

afterAll(async () => {
  await log?.close();
  await kafka?.stop();
  rmSync(dir, { recursive: true });
}, 30_000);

/** Each prefix is a system of its own on the one broker. */
function configOf(prefix: string, env: Record<string, string> = {}): Config {
  return loadConfig({
    env: { FLOWLEDGER_KAFKA_BROKERS: kafka.broker, FLOWLEDGER_KAFKA_TOPIC_PREFIX: prefix, FLOWLEDGER_TOPICS_PARTITIONS: '2', ...env },
  });
}

async function prepare(config: Config, fix = false): Promise<{ findings: Finding[]; said: string[] }> {
  const said: string[] = [];
  const findings = await prepareTopics(config, { fix, say: (line) => said.push(line) });
  return { findings, said };
}

async function batches(topic: string, partition: number) {
  return (await readAll(log, topic, partition, 'raw')).map(({ value }) => narBatchCodec.decode(value as Buffer));
}

describe('a new system', () => {
  test('has every topic with its settings, and a base and the first configuration in each partition; the second time nothing is done', async () => {
    const config = configOf('new.', { FLOWLEDGER_AGGREGATE_WINDOW: '10s' });
    const { findings, said } = await prepare(config);
    expect(findings).toEqual([]);
    expect(said.filter((line) => line.startsWith('created'))).toHaveLength(allTopics.length);
    for (const partition of [0, 1]) {
      const [first, ...rest] = await batches('new.nars', partition);
      expect(rest).toEqual([]);
      expect(first).toMatchObject({ collector: adminCollector, partition, sequence: 1, through: 1, base: { snapshot: null } });
      expect(first?.fold_config).toMatchObject({ version: 1, partitions: 2, window_ms: 10_000, group_by: ['src_account', 'dst_account'] });
    }
    expect(await prepare(config)).toEqual({ findings: [], said: [`${allTopics.length} of ${allTopics.length} topics are as they must be`] });
    expect(await batches('new.nars', 0)).toHaveLength(1);
  }, 60_000);

  test('what a collector has written before the base stays before it', async () => {
    const config = configOf('early.');
    const admin = new KafkaAdmin(config.kafka, quiet);
    await admin.create([{ name: 'nars', partitions: 1, replication: 1, settings: {} }]);
    const writer = log.writer();
    const tick = { ...((await batches('new.nars', 0))[0] as object), collector: 'c', base: null, fold_config: null } as never;
    await writer.append('early.nars', 0, [{ key: Buffer.from('c'), value: narBatchCodec.encode(tick) }]);
    await writer.close();
    await admin.close();
    await prepare(configOf('early.', { FLOWLEDGER_TOPICS_PARTITIONS: '1' }));
    expect((await batches('early.nars', 0)).map(({ base }) => base !== null)).toEqual([false, true]);
  }, 60_000);
});

describe('a system that is not as it must be', () => {
  test('each difference is named with its reason, and --fix sets it without touching other settings', async () => {
    const config = configOf('wrong.');
    await prepare(config);
    const admin = new KafkaAdmin(config.kafka, quiet);
    await admin.alter('nars', { 'retention.ms': '1000', 'unclean.leader.election.enable': 'true', 'segment.ms': '61000' });
    await admin.alter('acks', { 'cleanup.policy': 'delete', 'message.timestamp.type': 'CreateTime' });
    await admin.alter('health', { 'retention.ms': '7200000', 'max.message.bytes': '8388608' });
    const { findings, said } = await prepare(config);
    expect(findings.map(({ topic, setting, found, grave }) => [topic, setting, found, grave])).toEqual([
      ['nars', 'retention.ms', '1000', true],
      ['nars', 'unclean.leader.election.enable', 'true', true],
      ['acks', 'cleanup.policy', 'delete', true],
      ['acks', 'message.timestamp.type', 'CreateTime', true],
      ['health', 'retention.ms', '7200000', false],
    ]);
    expect(said[0]).toBe(
      'DANGER    nars retention.ms is 1000, needed is -1: time retention would delete records that no replica has in a snapshot yet',
    );
    expect((await prepare(config, true)).findings).toEqual([]);
    expect((await admin.describe(['nars'])).get('nars')?.settings['segment.ms']).toBe('61000');
    await admin.close();
  }, 60_000);

  test('a number of partitions that differs cannot be set right', async () => {
    const { findings } = await prepare(configOf('new.', { FLOWLEDGER_TOPICS_PARTITIONS: '3' }), true);
    expect(new Set(findings.map(({ setting, found, needed }) => `${setting} ${found} ${needed}`))).toEqual(new Set(['partitions 2 3']));
    expect(findings.map(({ topic }) => topic)).toContain('nars');
  }, 60_000);

  test('a log that replaces another one gets no empty base', async () => {
    const config = configOf('replaced.');
    const admin = new KafkaAdmin(config.kafka, quiet);
    await admin.create(['nars', 'aggregates', 'aggregates.a', 'aggregates.b'].map((name) => ({ name, partitions: 1, replication: 1, settings: {} })));
    const writer = log.writer();
    await writer.append('replaced.aggregates.b', 0, [{ key: null, value: Buffer.from('an output') }]);
    await Promise.all([writer.close(), admin.close()]);
    await expect(prepare(configOf('replaced.', { FLOWLEDGER_TOPICS_PARTITIONS: '1' }))).rejects.toThrow(ReplacedLog);
    expect(await readAll(log, 'replaced.nars', 0, 'raw')).toEqual([]);
  }, 60_000);
});

describe('config apply', () => {
  const aggregate = () => loadConfig({ env: { FLOWLEDGER_AGGREGATE_WINDOW: '5s' } }).aggregate;

  test('writes the next version to every partition, again where it was folded past and not accepted, until both acknowledge it', async () => {
    // The log port without a prefix sees the topics of the system without one.
    await prepare(configOf(''));
    const topicId = await log.topicId('nars');
    const stopped = new AbortController();
    const replicasAtWork = acknowledge(topicId, stopped.signal);
    const applied = await applyFoldConfig(log, systemClock, aggregate(), 20_000);
    stopped.abort();
    await replicasAtWork;
    expect(applied).toEqual({ version: 2, partitions: 2, missing: [] });
    for (const partition of [0, 1]) {
      const written = (await batches('nars', partition)).filter(({ fold_config }) => fold_config?.version === 2);
      // The first one was lost on the way to the folds.
      expect(written.length).toBeGreaterThanOrEqual(2);
      expect(new Set(written.map(({ incarnation, sequence }) => `${incarnation}/${sequence}`)).size).toBe(1);
      expect(written[0]).toMatchObject({ base: null, fold_config: { window_ms: 5000 } });
    }
  }, 60_000);

  test('says which replica has not acknowledged in time; the version after an unacknowledged one is the next', async () => {
    const { version, missing } = await applyFoldConfig(log, systemClock, aggregate(), 0);
    expect(version).toBe(3);
    expect(missing).toHaveLength(4);
    expect((await applyFoldConfig(log, systemClock, aggregate(), 0)).version).toBe(4);
  }, 60_000);

  test('a partition that an earlier command left out gets every version, since the fold takes none but the next', async () => {
    const [left] = (await batches('nars', 0)).slice(-1);
    const writer = log.writer();
    const lone = { ...left, incarnation: 'config-5-lone', fold_config: { ...left?.fold_config, version: 5 } } as never;
    await writer.append('nars', 0, [{ key: Buffer.from(adminCollector), value: narBatchCodec.encode(lone) }]);
    await writer.close();
    expect((await applyFoldConfig(log, systemClock, aggregate(), 0)).version).toBe(6);
    const versions = async (partition: number) => (await batches('nars', partition)).map(({ fold_config }) => fold_config?.version);
    expect((await versions(0)).slice(-2)).toEqual([5, 6]);
    expect((await versions(1)).slice(-2)).toEqual([5, 6]);
  }, 60_000);

  test('what no fold would take is not written', async () => {
    const before = (await log.bounds('nars', 0)).endOffset;
    const unknown = loadConfig({ env: { FLOWLEDGER_AGGREGATE_GROUP_BY: 'src_adr' } }).aggregate;
    await expect(applyFoldConfig(log, systemClock, unknown, 0)).rejects.toThrow(/nothing was written: .*src_adr/);
    expect((await log.bounds('nars', 0)).endOffset).toBe(before);
  }, 60_000);

  /** Two replicas that overlook the first entry of each partition and acknowledge the second. */
  async function acknowledge(topicId: string, signal: AbortSignal): Promise<void> {
    const writer = log.writer();
    while (!signal.aborted) {
      for (const partition of [0, 1]) {
        const entries = [];
        let end = 0;
        for await (const { offset, value } of recordsOf(log, 'nars', partition, 0)) {
          const batch = narBatchCodec.decode(value as Buffer);
          if (batch.fold_config?.version === 2) entries.push(batch);
          end = offset + 1;
        }
        const sequences = entries.length >= 2 ? [{ incarnation: entries[0]?.incarnation as string, sequence: 1 }] : [];
        for (const replica of replicas) {
          const ack = { replica, collector: adminCollector, partition, topic_id: topicId, folded_offset: end, sequences, at_ms: Date.now() };
          await writer.append('acks', ackPartition(adminCollector), [
            { key: Buffer.from(`${replica}/~admin/${partition}`), value: ackCodec.encode(ack) },
          ]);
        }
      }
    }
    await writer.close();
  }
});
