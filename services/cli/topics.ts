/** Creates the topics, or verifies that they are as the system needs them, and begins the logs. */
import type { Command } from 'commander';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { KafkaAdmin, type NewTopic, type TopicState } from '../../adapters/kafka-admin.ts';
import { openLogger } from '../../adapters/logger.ts';
import { LogFault } from '../../adapters/ports.ts';
import { allTopics, type Topic } from '../../schemas/topics.ts';
import type { Config } from '../config.ts';
import { beginLogs } from './fold-config.ts';
import { settingsOf } from './settings.ts';

const knownWithinMs = 15_000;
const askAgainMs = 200;

export function registerTopics(program: Command): void {
  program
    .command('topics')
    .description(
      'Creates the topics that are missing, verifies the settings of those that are there, and writes the base entry and the first ' +
        'configuration of the fold into a new log. Exit code 1 when a difference can lose or distort records.',
    )
    .option('--fix', 'set the settings that differ')
    .addHelpText('after', '\nExample:\n  $ flowledger topics --fix')
    .action(async (options: { fix?: boolean }, command) => {
      const { config } = settingsOf(command);
      const findings = await prepareTopics(config, { fix: options.fix ?? false, say: (line) => process.stdout.write(`${line}\n`) });
      process.exitCode = findings.some((finding) => finding.grave) ? 1 : 0;
    });
}

export interface Finding {
  readonly topic: string;
  readonly setting: string;
  readonly found: string;
  readonly needed: string;
  readonly why: string;
  /** Records can be lost or distorted; else it only costs comfort or redundancy. */
  readonly grave: boolean;
}

/** @returns what differs and was not put right. @throws LogFault, ReplacedLog, or the admin client's error */
export async function prepareTopics(config: Config, options: { fix: boolean; say: (line: string) => void }): Promise<Finding[]> {
  const { fix, say } = options;
  const logger = openLogger('topics', config.log.level);
  const admin = new KafkaAdmin(config.kafka, logger);
  const log = openKafka(config.kafka, logger, systemClock);
  try {
    const names = allTopics.map((topic) => topic.name);
    const before = await admin.describe(names);
    const missing = allTopics.filter((topic) => !before.has(topic.name));
    await onceKnown(() => admin.create(missing.map((topic) => newTopic(topic, config))));
    for (const topic of missing) say(`created   ${topic.name}`);
    let findings = compareAll(await onceKnown(() => admin.describe(names)), config);
    if (fix) {
      for (const [name, changes] of changesOf(findings)) await admin.alter(name, changes);
      const after = compareAll(await admin.describe(names), config);
      for (const finding of findings)
        if (!after.some((left) => sameSetting(left, finding))) say(`set       ${finding.topic} ${finding.setting}=${finding.needed}`);
      findings = after;
    }
    for (const finding of findings) say(describe(finding));
    const begun = await onceKnown(() => beginLogs(log, systemClock, config.aggregate));
    if (begun.length > 0) say(`begun     nars, partitions ${begun.join(', ')}: base entry and configuration 1 of the fold`);
    const good = allTopics.filter((topic) => !findings.some((finding) => finding.topic === topic.name)).length;
    say(
      `${good} of ${allTopics.length} topics are as they must be` +
        (findings.length > 0 && !fix ? '; flowledger topics --fix sets what can be set' : ''),
    );
    return findings;
  } finally {
    await Promise.all([admin.close(), log.close()]);
  }
}

/** What one broker has made, another may hear of later: it then says that there is no such topic, or that it is not ready. */
async function onceKnown<Result>(action: () => Promise<Result>): Promise<Result> {
  const end = systemClock.now() + knownWithinMs;
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof LogFault) || !['missing', 'unavailable'].includes(error.kind) || systemClock.now() >= end) throw error;
      await systemClock.sleep(askAgainMs);
    }
  }
}

/** All in-sync replicas must have a record before it counts, and more than one of them where there is more than one. */
function minInsyncReplicas(replication: number): number {
  return Math.min(2, replication);
}

function newTopic(topic: Topic, config: Config): NewTopic {
  const { partitions, replication } = config.topics;
  const settings = Object.fromEntries(Object.entries(topic.settings).map(([name, { value }]) => [name, value]));
  return {
    name: topic.name,
    partitions: topic.partitions === 'nars' ? partitions : topic.partitions,
    replication,
    settings: { ...settings, 'min.insync.replicas': String(minInsyncReplicas(replication)) },
  };
}

export function compareAll(states: ReadonlyMap<string, TopicState>, config: Config): Finding[] {
  return allTopics.flatMap((topic) => {
    const state = states.get(topic.name);
    return state ? compareTopic(topic, state, config) : [];
  });
}

/** What differs between the topic as it is and as it must be. */
export function compareTopic(topic: Topic, state: TopicState, config: Config): Finding[] {
  const findings: Finding[] = [];
  const add = (setting: string, found: string, needed: string, why: string, grave: boolean) =>
    findings.push({ topic: topic.name, setting, found, needed, why, grave });
  const needed = newTopic(topic, config);
  if (state.partitions !== needed.partitions) {
    const why = 'the number of partitions is fixed once records are in them, since keys would move; set topics.partitions to what is found';
    add('partitions', String(state.partitions), String(needed.partitions), why, true);
  }
  if (state.replication < needed.replication) {
    add('replication', String(state.replication), String(needed.replication), 'fewer brokers than configured hold a copy', false);
  }
  for (const [setting, { value, why }] of Object.entries(topic.settings)) {
    const found = state.settings[setting] ?? 'not set';
    if (!satisfies(setting, found, value)) add(setting, found, value, why, isGrave(topic, setting));
  }
  const insync = state.settings['min.insync.replicas'] ?? '1';
  const insyncNeeded = minInsyncReplicas(state.replication);
  if (Number(insync) < insyncNeeded) {
    add(
      'min.insync.replicas',
      insync,
      String(insyncNeeded),
      'a record that a single broker holds counts as written, and is gone with its disk',
      true,
    );
  }
  if (Number(insync) > state.replication) {
    add('min.insync.replicas', insync, String(insyncNeeded), 'more copies are asked for than exist, so nothing can be written', true);
  }
  return findings;
}

function satisfies(setting: string, found: string, needed: string): boolean {
  if (setting === 'max.message.bytes') return Number(found) >= Number(needed);
  return found === needed;
}

/** Only the reports' retention is a matter of taste. */
function isGrave(topic: Topic, setting: string): boolean {
  return !(topic.name === 'health' && setting === 'retention.ms');
}

function changesOf(findings: readonly Finding[]): Map<string, Record<string, string>> {
  const changes = new Map<string, Record<string, string>>();
  for (const { topic, setting, needed } of findings) {
    if (setting === 'partitions' || setting === 'replication') continue;
    changes.set(topic, { ...changes.get(topic), [setting]: needed });
  }
  return changes;
}

function sameSetting(a: Finding, b: Finding): boolean {
  return a.topic === b.topic && a.setting === b.setting;
}

function describe({ topic, setting, found, needed, why, grave }: Finding): string {
  return `${grave ? 'DANGER   ' : 'differs  '} ${topic} ${setting} is ${found}, needed is ${needed}: ${why}`;
}
