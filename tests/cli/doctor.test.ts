import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { decodeApiVersions, missingApis, releaseOf } from '../../adapters/kafka/api-versions.ts';
import { parseMetrics } from '../../adapters/service-metrics.ts';
import type { Health } from '../../schemas/types.ts';
import {
  brokerFindings,
  clockFindings,
  copyFindings,
  diskFindings,
  exporterFindings,
  ledgerDiskFindings,
  redisFindings,
  schemaFindings,
  socketFindings,
  statusFindings,
  topicFindings,
} from '../../services/cli/diagnosis.ts';
import { errorCodes } from '../../services/cli/error-codes.ts';
import { errorsPage, explanation } from '../../services/cli/errors.ts';
import type { Status } from '../../services/cli/status.ts';

const root = join(import.meta.dirname, '../..');
const codesOf = (findings: readonly { code: string }[]) => findings.map(({ code }) => code);

describe('codes', () => {
  test('docs/ERRORS.md is what the data say (make errors writes it)', () => {
    expect(readFileSync(join(root, 'docs/ERRORS.md'), 'utf8')).toBe(errorsPage());
  });

  test('every code stands once in the data, each that is used is there, and each that is there is used', () => {
    const data = readFileSync(join(root, 'services/cli/error-codes.ts'), 'utf8');
    const declared = [...data.matchAll(/^ {2}(FL\d{3}): \{/gm)].map(([, code]) => code as string);
    expect(new Set(declared).size).toBe(declared.length);
    expect(declared).toEqual(Object.keys(errorCodes));
    expect(declared).toEqual([...declared].sort());
    const used = readdirSync(join(root, 'services'), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') && !file.endsWith('error-codes.ts') && !file.endsWith('errors.ts'))
      .flatMap((file) => [...readFileSync(join(root, 'services', file), 'utf8').matchAll(/'(FL\d{3})'/g)].map(([, code]) => code as string));
    expect([...new Set(used)].sort()).toEqual(declared);
  });

  test('an explanation has symptom, meaning and remedy; a code that there is not is an error that names the list', () => {
    expect(explanation('fl203')).toMatch(/^FL203 \(error\): .*\n\nSymptom .*\nMeaning .*\nWhat to do {2}CONFIG SET appendfsync always/);
    expect(() => explanation('FL999')).toThrow('there is no code FL999: flowledger errors lists them');
  });
});

describe('findings', () => {
  test('a broker that does not take what we ask', () => {
    const ranges = new Map([
      [0, { min: 3, max: 9 }],
      [1, { min: 4, max: 12 }],
      [3, { min: 0, max: 12 }],
      [21, { min: 0, max: 2 }],
      [35, { min: 1, max: 4 }],
    ]);
    expect(missingApis(ranges)).toEqual(['Fetch 13 (it takes 4 to 12)']);
    expect(missingApis(new Map())).toHaveLength(5);
    expect(releaseOf(ranges)).toBe('2.7');
    const findings = brokerFindings([{ broker: '1', release: '2.7', missing: missingApis(ranges) }]);
    expect(findings).toMatchObject([
      { code: 'FL102', severity: 'error', found: 'broker 1 (Apache Kafka 2.7 or later) does not take Fetch 13 (it takes 4 to 12)' },
    ]);
  });

  test("the broker's answer is decoded, and its fault is thrown", () => {
    const payload = Buffer.from('0000 00000002 0001 0004 0011 0000 0003 000b'.replaceAll(' ', ''), 'hex');
    expect([...decodeApiVersions(payload)]).toEqual([
      [1, { min: 4, max: 17 }],
      [0, { min: 3, max: 11 }],
    ]);
    expect(() => decodeApiVersions(Buffer.from('002300000000', 'hex'))).toThrow();
  });

  test('topics: missing, dangerous, merely different, and a wrong number of partitions', () => {
    const difference = { topic: 'nars', setting: 'retention.ms', found: '1', needed: '-1', why: 'because', grave: true };
    const findings = topicFindings(['nars', 'acks'], new Set(['nars']), [
      difference,
      { ...difference, topic: 'health', grave: false },
      { ...difference, setting: 'partitions', found: '8', needed: '4' },
    ]);
    expect(codesOf(findings)).toEqual(['FL111', 'FL112', 'FL113', 'FL114']);
    expect(findings[3]?.remedy).toBe('set topics.partitions to 8');
  });

  test('disks by what is free', () => {
    const disk = { broker: '1', path: '/data', logBytes: 1, totalBytes: 100 };
    const free = (usableBytes: number) => codesOf(diskFindings([{ ...disk, usableBytes }]));
    expect([free(9), free(10), free(24), free(25)]).toEqual([['FL121'], ['FL122'], ['FL122'], []]);
    expect(codesOf(diskFindings([{ ...disk, totalBytes: null, usableBytes: null }]))).toEqual(['FL123']);
    expect([codesOf(ledgerDiskFindings('ledger', 9, 100)), codesOf(ledgerDiskFindings('ledger', 10, 100))]).toEqual([['FL802'], []]);
  });

  test('Redis: each setting has its code; its version and its last write count', () => {
    const sound = { version: '7.0.15', doubts: [], lastWrite: 'ok' };
    expect(redisFindings(sound)).toEqual([]);
    const doubt = { setting: 'appendfsync', found: 'everysec', needed: 'always', cost: 'a second' } as const;
    expect(codesOf(redisFindings({ ...sound, doubts: [doubt, { ...doubt, setting: 'maxmemory' }] }))).toEqual(['FL203', 'FL206']);
    expect(codesOf(redisFindings({ version: '6.0.16', doubts: null, lastWrite: 'err' }))).toEqual(['FL209', 'FL208', 'FL207']);
    expect(codesOf(redisFindings({ ...sound, version: '6.2.0' }))).toEqual([]);
  });

  test('clocks: a second is tolerated, and a collector that is a minute behind gives flows wrong times', () => {
    const record = (role: string, at_ms: number) => ({ health: { role, id: 'x', at_ms } as Health, appendedMs: 100_000 });
    expect(clockFindings(1000, [record('feed', 99_000), record('collector', 101_000)], 60_000)).toEqual([]);
    expect(codesOf(clockFindings(-1001, [record('feed', 98_999), record('collector', 101_001)], 60_000))).toEqual(['FL301', 'FL302', 'FL302']);
    expect(clockFindings(null, [record('collector', 39_999)], 60_000)).toMatchObject([
      { code: 'FL303', found: "that of collector x is 60001 ms behind the broker's" },
    ]);
  });

  test('sockets: what the kernel grants, what it dropped, what waits', () => {
    const facts = { grantedBytes: 212_992, neededBytes: 33_554_432, droppedDatagrams: new Map([['0.0.0.0:2055', 3]]), waitingSets: 1 };
    const findings = socketFindings(facts);
    expect(codesOf(findings)).toEqual(['FL401', 'FL402', 'FL704']);
    expect(findings[0]?.remedy).toContain('net.core.rmem_max=33554432');
    expect(socketFindings({ grantedBytes: null, neededBytes: 1, droppedDatagrams: null, waitingSets: 0 })).toEqual([]);
  });

  test('metrics are read as services write them', () => {
    const text = '# HELP a b\na_total{listen="0.0.0.0:2055",odd="a\\"b"} 12\nb 3\n\nnot a line of it\n';
    expect(parseMetrics(text)).toEqual([
      { name: 'a_total', labels: { listen: '0.0.0.0:2055', odd: 'a"b' }, value: 12 },
      { name: 'b', labels: {}, value: 3 },
    ]);
  });

  test('records of a newer release, and of strangers', () => {
    const place = 'nars/0';
    expect(
      codesOf(
        schemaFindings([
          { place, problem: 'unknown', message: 'id 99' },
          { place, problem: 'undecodable', message: 'short' },
        ]),
      ),
    ).toEqual(['FL501', 'FL502']);
  });

  test('services and partitions', () => {
    const service = { role: 'feed', id: 'feed-1', up: true, ready: true, age_ms: 1, started_ms: 1, reasons: [] as string[] };
    const replica = { up: true, state: 'running', lag_records: 0, lag_ms: 0, n: 1, watermark_ms: 1, verdict: null };
    const sound: Status = {
      at_ms: 0,
      healthy: true,
      services: [service],
      partitions: [
        {
          partition: 0,
          leader: 'a',
          epoch: 1,
          replicas: { a: replica, b: replica },
          feed: { state: 'running', n: 1 },
          accounting: { state: 'running', n: 1 },
        },
      ],
      collectors: [],
    };
    expect(statusFindings(sound)).toEqual([]);
    const [partition] = sound.partitions;
    const verdict = { state: 'quarantined', epoch: 1, n: 7, sound: 'a', at_ms: 1, evidence: 'seen' };
    const bad: Status = {
      ...sound,
      services: [
        { ...service, up: false, reasons: ['stopped'] },
        { ...service, ready: false },
        { ...service, reasons: ['a doubt'] },
      ],
      partitions: [
        {
          ...partition!,
          leader: null,
          feed: { state: 'held', n: 3 },
          replicas: { a: { ...replica, state: 'disputed', lag_ms: 30_001 }, b: { ...replica, verdict } },
        },
      ],
    };
    expect(codesOf(statusFindings(bad))).toEqual(['FL601', 'FL602', 'FL603', 'FL611', 'FL612', 'FL614', 'FL615', 'FL613']);
  });

  test('a local copy at four fifths of its bound', () => {
    const copy = (bytes: number) => [{ id: 'c', copy: { bytes, bytes_max: 100, store: 'redis' } } as Health];
    expect([codesOf(copyFindings(copy(79))), codesOf(copyFindings(copy(80)))]).toEqual([[], ['FL616']]);
  });

  test('exporters by what their batches say', () => {
    const sound = { name: 'e', nars: 9, unsampledNars: 0, undecodableDatagrams: 0, lostOnWireFlows: 0, lostOnWireDatagrams: 0 };
    expect(exporterFindings([sound])).toEqual([]);
    expect(codesOf(exporterFindings([{ ...sound, unsampledNars: 9, undecodableDatagrams: 1, lostOnWireDatagrams: 1 }]))).toEqual([
      'FL701',
      'FL702',
      'FL703',
    ]);
  });
});
