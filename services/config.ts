/** The whole configuration: what all services share, and each service's own section. */
import { ConfigError, type ConfigSources, describeConfig, readConfig } from '../adapters/config.ts';
import { accountPrefixes, addresses, choice, count, duration, flag, type SectionOf, section, text, texts, url } from '../adapters/config-values.ts';
import { accountingConfig } from './accounting/config.ts';
import { aggregatorConfig } from './aggregator/config.ts';
import { collectorConfig, collectorFaults } from './collector/config.ts';
import { feedConfig } from './feed/config.ts';
import { judgeConfig } from './judge/config.ts';
import { watchdogConfig } from './watchdog/config.ts';

const kafkaConfig = section({
  brokers: addresses(['127.0.0.1:9092']),
  client_id: text('flowledger', /./, 'text'),
  /** Put before every topic's name, so that several systems can share a broker. */
  topic_prefix: text('', /^[A-Za-z0-9._-]{0,100}$/, 'letters, digits, dots, hyphens and underscores'),
  request_timeout: duration('5s', { min: '100ms', max: '5m' }),
});

const redisConfig = section({
  url: url('redis://127.0.0.1:6379', ['redis:', 'rediss:']),
  key_prefix: text('flowledger', /./, 'text'),
});

const topicsConfig = section({
  /** Of nars and everything that follows it; fixed once the topics exist. */
  partitions: count(4, { min: 1, max: 1024 }),
  replication: count(1, { min: 1, max: 9 }),
});

/** The longest period that every window must divide, in ms: the ledger's five-minute samples. */
const sampleMs = 300_000;

const aggregateConfig = section({
  window: duration('60s', { min: '1s', max: '5m' }).refine((ms) => sampleMs % ms === 0, 'a duration that divides 5m, such as 1s, 10s, 60s or 5m'),
  lateness: duration('30s', { max: '1d' }),
  live_within: duration('60s', { min: '1s' }),
  past_max: duration('1h'),
  future_max: duration('60s'),
  snapshot_every: count(2000, { min: 1 }),
  group_by: texts(['src_account', 'dst_account'], /^[a-z][a-z0-9_]*$/, 'a field name such as src_account or dst_port'),
  sampling: choice(['scaled', 'raw'], 'scaled'),
  spread: flag(false),
  deduplication: choice(['none'], 'none'),
  accounts: accountPrefixes(),
});

const logConfig = section({ level: choice(['debug', 'info', 'warn', 'error'], 'info') });

const sections = {
  kafka: kafkaConfig,
  redis: redisConfig,
  topics: topicsConfig,
  aggregate: aggregateConfig,
  collector: collectorConfig,
  aggregator: aggregatorConfig,
  watchdog: watchdogConfig,
  feed: feedConfig,
  judge: judgeConfig,
  accounting: accountingConfig,
  log: logConfig,
};

/** Durations are ms, sizes bytes, addresses {host, port}. */
export type Config = { readonly [Name in keyof typeof sections]: Readonly<SectionOf<(typeof sections)[Name]>> };

export type KafkaConfig = Config['kafka'];
export type RedisConfig = Config['redis'];
export type AggregateConfig = Config['aggregate'];

/** @throws ConfigError with one line for every fault: where it stands, what was found, what is accepted. */
export function loadConfig(sources: ConfigSources): Config {
  const config = readConfig(sections, sources);
  const faults = collectorFaults(config.collector);
  if (faults.length > 0) throw new ConfigError(faults);
  return config;
}

/** The effective configuration as YAML, each key that is not at its default with where it came from. @throws ConfigError */
export function describeEffectiveConfig(sources: ConfigSources): string {
  loadConfig(sources);
  return describeConfig(sections, sources);
}
