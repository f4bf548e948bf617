import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ConfigError } from '../../adapters/config.ts';
import { duration, size } from '../../adapters/config-values.ts';
import { describeEffectiveConfig, loadConfig } from '../../services/config.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'flowledger-config-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

function fileOf(text: string): string {
  const file = join(dir, 'flowledger.yaml');
  writeFileSync(file, text);
  return file;
}

/** The faults that are reported, the directory taken off. */
function faultsOf(sources: Parameters<typeof loadConfig>[0]): readonly string[] {
  try {
    loadConfig(sources);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.map((fault) => fault.replace(`${dir}/`, ''));
    throw error;
  }
  return [];
}

describe('where a value comes from', () => {
  test('without anything, the defaults', () => {
    const config = loadConfig({});
    expect(config.kafka.brokers).toEqual([{ host: '127.0.0.1', port: 9092 }]);
    expect(config.aggregate).toMatchObject({ window: 60_000, lateness: 30_000, group_by: ['src_account', 'dst_account'], spread: false });
    expect(config.collector).toMatchObject({
      store_max: 1024 ** 3,
      suspicion_after: 1500,
      listen: [{ host: '0.0.0.0', port: 2055 }, { port: 4739 }],
    });
  });

  test('the file, over it the environment, over it the command line', () => {
    const file = fileOf('aggregate:\n  window: 10s\n  lateness: 5s\nkafka:\n  client_id: mine\n');
    const env = { FLOWLEDGER_AGGREGATE_LATENESS: '7s', FLOWLEDGER_AGGREGATOR_REPLICA: 'a' };
    const config = loadConfig({ file, env, overrides: { 'aggregator.replica': 'b' } });
    expect(config.aggregate).toMatchObject({ window: 10_000, lateness: 7000 });
    expect(config.kafka.client_id).toBe('mine');
    expect(config.aggregator.replica).toBe('b');
  });

  test('sampling rates are of prefixes or of single exporters', () => {
    const file = fileOf(
      'collector:\n  sampling:\n    - {prefix: 198.51.100.0/24, rate: 1000}\n    - 2001:db8::1=50\n    - {prefix: 192.0.2.1, rate: 7}\n',
    );
    expect(loadConfig({ file }).collector.sampling).toEqual([
      { prefix: '198.51.100.0/24', rate: 1000 },
      { prefix: '2001:db8::1/128', rate: 50 },
      { prefix: '192.0.2.1/32', rate: 7 },
    ]);
    for (const wrong of ['198.51.100.0/33=10', '198.51.100.0/24=0', '198.51.100.0/24=4294967296', '198.51.100.0/24=1.5', '198.51.100.0/24', 'x=1']) {
      const faults = faultsOf({ file: fileOf(`collector:\n  sampling: [10.0.0.0/8=5, "${wrong}"]\n`) });
      expect(faults).toHaveLength(1);
      expect(faults[0]).toMatch(/^flowledger.yaml:2:\d+ collector\.sampling\[1\]: .*is not accepted; accepted is a prefix or an address, and a rate/);
    }
  });

  test('lists are comma separated or JSON in an environment variable, IPv6 addresses included', () => {
    const env = {
      FLOWLEDGER_COLLECTOR_LISTEN: '[::]:2055, 127.0.0.1:4739',
      FLOWLEDGER_AGGREGATE_GROUP_BY: '["proto"]',
      FLOWLEDGER_AGGREGATE_ACCOUNTS: '198.51.100.0/24=acme,2001:db8::/32=globex',
    };
    const { collector, aggregate } = loadConfig({ env });
    expect(collector.listen).toEqual([
      { host: '::', port: 2055 },
      { host: '127.0.0.1', port: 4739 },
    ]);
    expect(aggregate.group_by).toEqual(['proto']);
    expect(aggregate.accounts).toEqual([
      { prefix: '198.51.100.0/24', account: 'acme' },
      { prefix: '2001:db8::/32', account: 'globex' },
    ]);
    const json = { FLOWLEDGER_AGGREGATE_ACCOUNTS: '[{"prefix":"10.0.0.0/8","account":"campus"}]' };
    expect(loadConfig({ env: json }).aggregate.accounts).toEqual([{ prefix: '10.0.0.0/8', account: 'campus' }]);
  });

  test('the variables that Kubernetes sets for a service of this name are not meant for us', () => {
    const env = {
      FLOWLEDGER_COLLECTOR_SERVICE_HOST: '10.0.0.1',
      FLOWLEDGER_COLLECTOR_PORT: 'udp://10.0.0.1:2055',
      FLOWLEDGER_COLLECTOR_PORT_2055_UDP_ADDR: '10.0.0.1',
      FLOWLEDGER_COLLECTOR_SERVICE_PORT_NETFLOW: '2055',
    };
    expect(faultsOf({ env })).toEqual([]);
  });

  test('infra/flowledger.yaml shows every key, each at its default', () => {
    const file = fileURLToPath(new URL('../../infra/flowledger.yaml', import.meta.url));
    expect(loadConfig({ file })).toEqual(loadConfig({}));
    const shown = new Set(
      readFileSync(file, 'utf8')
        .match(/^ {2}(?:# )?[a-z_]+(?=:)/gm)
        ?.map((line) => line.replace(/[ #]/g, '')),
    );
    expect(
      Object.values(loadConfig({}))
        .flatMap((section) => Object.keys(section))
        .filter((key) => !shown.has(key)),
    ).toEqual([]);
  });
});

describe('faults', () => {
  test('every one is reported, with where it stands, what was found, and what is accepted', () => {
    const file = fileOf('aggregate:\n  windw: 10s\n  window: 7s\n  group_by: [src_account, 5*]\ncolector:\n  name: x\nkafka:\n  client_id:\n');
    const env = { FLOWLEDGER_COLLECTOR_STORE_MAX: '3', FLOWLEDGER_KAFKA_BROKRS: 'x' };
    expect(faultsOf({ file, env, overrides: { 'aggregator.replica': 'c' } })).toEqual([
      'flowledger.yaml:2:3 aggregate.windw: unknown key; did you mean "window"?',
      'flowledger.yaml:5:1 colector: unknown section; did you mean "collector"?',
      'environment variable FLOWLEDGER_KAFKA_BROKRS kafka.brokrs: unknown key; did you mean "brokers"?',
      'flowledger.yaml:8:3 kafka.client_id: has no value; accepted is text',
      'flowledger.yaml:3:3 aggregate.window: "7s" is not accepted; accepted is a duration that divides 5m, such as 1s, 10s, 60s or 5m',
      'flowledger.yaml:4:3 aggregate.group_by[1]: "5*" is not accepted; accepted is a field name such as src_account or dst_port',
      'environment variable FLOWLEDGER_COLLECTOR_STORE_MAX collector.store_max: "3" is not accepted; ' +
        'accepted is a size such as 64KiB, 32MiB or 1GiB, at least 1MiB',
      'command line aggregator.replica: "c" is not accepted; accepted is one of a, b',
    ]);
  });

  test('TLS without its files names each key that lacks', () => {
    const env = { FLOWLEDGER_COLLECTOR_LISTEN_TLS: '0.0.0.0:4740', FLOWLEDGER_COLLECTOR_TLS_KEY: '/etc/flowledger/key.pem' };
    const faults = ['tls_certificate', 'tls_authorities'].map(
      (key) => `collector.${key}: has no value; collector.listen_tls needs a file in PEM there`,
    );
    expect(faultsOf({ env })).toEqual(faults);
    expect(() => describeEffectiveConfig({ env })).toThrow(ConfigError);
    expect(faultsOf({ env: { FLOWLEDGER_COLLECTOR_LISTEN_TCP: '0.0.0.0' } })).toEqual([
      expect.stringContaining('collector.listen_tcp[0]: "0.0.0.0"'),
    ]);
  });

  test('prefixes of exporters are taken as networks or addresses, and at least one must be allowed', () => {
    const accepted = 'accepted is a prefix such as 198.51.100.0/24, 2001:db8::/32 or 192.0.2.1';
    const env = { FLOWLEDGER_COLLECTOR_EXPORTERS_ALLOW: '192.0.2.1, 2001:db8::/32', FLOWLEDGER_COLLECTOR_EXPORTERS_KNOWN: '10.0.0.0/33,core-1' };
    expect(faultsOf({ env })).toEqual([
      `environment variable FLOWLEDGER_COLLECTOR_EXPORTERS_KNOWN collector.exporters_known[0]: "10.0.0.0/33" is not accepted; ${accepted}`,
      `environment variable FLOWLEDGER_COLLECTOR_EXPORTERS_KNOWN collector.exporters_known[1]: "core-1" is not accepted; ${accepted}`,
    ]);
    expect(loadConfig({ env: { ...env, FLOWLEDGER_COLLECTOR_EXPORTERS_KNOWN: '' } }).collector.exporters_allow).toEqual([
      '192.0.2.1/32',
      '2001:db8::/32',
    ]);
    expect(faultsOf({ file: fileOf('collector:\n  exporters_allow: []\n') })).toEqual([
      'flowledger.yaml:2:3 collector.exporters_allow: [] is not accepted; accepted is at least one prefix, such as 198.51.100.0/24',
    ]);
  });

  test.each([
    ['aggregate: [1]\n', "flowledger.yaml:1:1 aggregate: keys are expected below a section's name"],
    ['- a\n', 'flowledger.yaml:1:1: sections are expected'],
    ['aggregate:\n  window: 10s\n  window: 10s\n', 'flowledger.yaml:3:3 not YAML: Map keys must be unique'],
    [
      'collector:\n  http: {a: 1}\n',
      'flowledger.yaml:2:3 collector.http: {"a":1} is not accepted; accepted is an address such as 127.0.0.1:9101 or [::1]:9101',
    ],
    [
      'aggregate:\n  accounts: [{prefix: 10.0.0.0/33, account: a}]\n',
      expect.stringContaining('aggregate.accounts[0]: {"prefix":"10.0.0.0/33","account":"a"}'),
    ],
  ])('%j', (text, fault) => {
    expect(faultsOf({ file: fileOf(text) })).toEqual([fault]);
  });

  test('an empty file, an empty section and a file that is not there', () => {
    expect(faultsOf({ file: fileOf('') })).toEqual([]);
    expect(faultsOf({ file: fileOf('kafka:\n') })).toEqual([]);
    expect(faultsOf({ file: join(dir, 'none.yaml') })).toEqual([expect.stringContaining('none.yaml: cannot be read')]);
  });
});

describe('the effective configuration', () => {
  test('reads back as what it describes, and says what is not a default', () => {
    const sources = {
      env: { FLOWLEDGER_AGGREGATE_WINDOW: '90s', FLOWLEDGER_COLLECTOR_LISTEN: '[::1]:2055', FLOWLEDGER_COLLECTOR_STORE_MAX: '1536KiB' },
    };
    expect(() => loadConfig(sources)).toThrow(ConfigError);
    const good = { env: { ...sources.env, FLOWLEDGER_AGGREGATE_WINDOW: '100s' } };
    const text = describeEffectiveConfig(good);
    expect(text).toContain('  window: 100s  # environment variable FLOWLEDGER_AGGREGATE_WINDOW');
    expect(text).toContain('  store_max: 1536KiB  #');
    expect(loadConfig({ file: fileOf(text) })).toEqual(loadConfig(good));
  });

  test('keeps a password to itself', () => {
    const env = { FLOWLEDGER_REDIS_URL: 'redis://user:secret@redis.example:6379' };
    expect(loadConfig({ env }).redis.url).toContain('secret');
    expect(describeEffectiveConfig({ env })).toContain('url: redis://user:***@redis.example:6379');
  });
});

test.each([
  ['500ms', 500],
  ['1.5s', 1500],
  ['5m', 300_000],
  ['1h', 3_600_000],
  ['0', 0],
])('duration %s', (text, ms) => {
  expect(duration('1s').parse(text)).toBe(ms);
});

test.each(['', '5', 'm', '-1s', '1.0001ms', '1s2', ' 1 s'])('no duration: %j', (text) => {
  expect(duration('1s').safeParse(text).success).toBe(false);
});

test.each([
  ['64KiB', 65_536],
  ['1.5MiB', 1_572_864],
  ['7B', 7],
  ['0', 0],
])('size %s', (text, bytes) => {
  expect(size('1B').parse(text)).toBe(bytes);
});
