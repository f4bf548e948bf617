import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Verdicts } from '../../core/judge/verdicts.ts';
import type { Election, Health, LocalCopy, PartitionHealth } from '../../schemas/types.ts';
import { finding, statusFindings } from '../../services/cli/diagnosis.ts';
import { ratesBetween } from '../../services/cli/rates.ts';
import { statusOf } from '../../services/cli/status.ts';
import { renderTop, short, type TopState } from '../../services/cli/top-view.ts';

const nowMs = Date.UTC(2026, 10, 24, 19, 30, 5);
const terminal = { columns: 80, rows: 24 };
const all = { columns: 80, rows: Number.POSITIVE_INFINITY };

function part(partition: number, facts: Partial<PartitionHealth> = {}): PartitionHealth {
  const preset = { next_offset: 1000, end_offset: 1000, lag_ms: 0, n: 8412, chain: Buffer.alloc(16), watermark_ms: nowMs - 65_000, open_flows: 0 };
  return { partition, ...preset, state: 'running', detail: '', ...facts };
}

function report(role: string, id: string, facts: Partial<Health> = {}): Health {
  const preset = { incarnation: `${id}-1`, at_ms: nowMs, started_ms: 0, ready: true, stopping: false, reasons: [], partitions: [], suspicions: [] };
  return { role, id, ...preset, copy: null, ...facts };
}

function copyOf(facts: Partial<LocalCopy> = {}): LocalCopy {
  const counts = { batches: 1, nars: 0, bytes: 0, bytes_max: 1_000_000, unconfirmed_nars: 0, unacknowledged_a_nars: 0, unacknowledged_b_nars: 0 };
  const figures = { oldest_ms: 0, received_datagrams: 0, decoded_flows: 0, pending_nars: 0, exporters: [] };
  return { store: 'redis', durable: true, ...counts, ...figures, ...facts };
}

function system(partitions: number, collectors: number, changed: (reports: Health[]) => Health[] = (reports) => reports): TopState {
  const parts = (facts: Partial<PartitionHealth> = {}) => Array.from({ length: partitions }, (_, partition) => part(partition, facts));
  const copy = copyOf({ nars: 5021, unconfirmed_nars: 120, unacknowledged_a_nars: 4000, unacknowledged_b_nars: 5021, oldest_ms: nowMs - 340 });
  const exporters = [{ sampler_address: '192.0.2.1', observation_domain_id: 0, protocol: 'ipfix', nars: 5021 }];
  const records = changed([
    ...Array.from({ length: collectors }, (_, at) => report('collector', `collector-${at + 1}`, { copy: { ...copy, exporters } })),
    report('aggregator', 'a', { partitions: parts() }),
    report('aggregator', 'b', { partitions: parts({ next_offset: 997, lag_ms: 150 }) }),
    report('watchdog', 'watchdog-1'),
    report('feed', 'feed-1', { partitions: parts({ next_offset: 8413, end_offset: 8413 }) }),
    report('judge', 'judge-1'),
    report('accounting', 'accounting', { partitions: parts({ next_offset: 9, end_offset: 9 }) }),
  ]);
  const elections = new Map(
    Array.from({ length: partitions }, (_, partition) => {
      const election = {
        partition,
        epoch: 1,
        leader: partition === 1 ? 'b' : 'a',
        previous: '',
        reason: 'initial',
        evidence: '',
        watchdog: '',
        at_ms: 0,
      };
      return [partition, election satisfies Election] as const;
    }),
  );
  const status = statusOf({ records, elections, verdicts: new Verdicts(), partitionCount: partitions }, nowMs);
  const flowing = new Map(status.collectors.map(({ collector }) => [collector, { datagrams: 671, flows: 20_123.4 }]));
  const rates = { collectors: flowing, folded: { a: 41, b: 40 }, emitted: 12, booked: null };
  return { status, records, rates, imbalanceFlows: 0, alarms: statusFindings(status), problem: '' };
}

describe('the picture', () => {
  test('of a sound system at 80x24', () => {
    expect(renderTop(system(4, 1), terminal)).toEqual([
      'flowledger  2026-11-24 19:30:05Z                                         q quits',
      'Balanced; billed up to 19:29:00Z, 65.0 s ago; a leads 3, b leads 1 of 4.',
      '',
      'stage         up     rate  per second  lag  lag s',
      'exporters     1       671  datagrams',
      'collectors    yes  20,123  flows       120    0.3',
      'aggregator a  yes      41  records       0    0.0',
      'aggregator b  yes      40  records      12    0.1',
      'feed          yes      12  outputs       0    0.0',
      'accounting    yes       -  outputs       0    0.0',
      '',
      'collector    flows/s  buffered  not by a  not by b  oldest  store',
      'collector-1   20,123     5,021     4,000     5,021   0.3 s  redis',
      '',
      'part  led  a lag  a s    a n  b lag  b s    b n  fed n  watermark',
      '   0  a        0  0.0  8,412      3  0.1  8,412  8,412  19:29:00Z',
      '   1  b        0  0.0  8,412      3  0.1  8,412  8,412  19:29:00Z',
      '   2  a        0  0.0  8,412      3  0.1  8,412  8,412  19:29:00Z',
      '   3  a        0  0.0  8,412      3  0.1  8,412  8,412  19:29:00Z',
    ]);
  });

  test('fits 80x24 with 64 partitions, ten collectors and everything wrong, and names the worst', () => {
    const state = system(64, 10, (reports) =>
      reports
        .filter(({ role }) => role !== 'judge')
        .map((one) => {
          if (one.role === 'feed') return { ...one, partitions: one.partitions.map((at) => (at.partition === 40 ? { ...at, state: 'held' } : at)) };
          if (one.id === 'b') return { ...one, at_ms: nowMs - 4000 };
          return one.id === 'collector-9' ? { ...one, copy: copyOf({ store: 'memory', durable: false, nars: 123_456_789 }) } : one;
        }),
    );
    const lines = renderTop({ ...state, imbalanceFlows: 3 }, terminal);
    expect(lines).toHaveLength(24);
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(80);
    expect(lines[1]).toBe('3 ERRORS. IMBALANCE of 3 flows; billed up to 19:29:00Z, 65.0 s ago; a leads 63..');
    const text = lines.join('\n');
    expect(text).toMatch(/^collector-9 +20,123 +123\.5M .* memory NOT DURABLE$/m);
    expect(text).toContain('7 more, with less');
    expect(text).toMatch(/^aggregator b +NO /m);
    // Held is worst, then comes what has the same trouble everywhere.
    expect(text).toMatch(/^ +40 +a .* DOWN .* HELD /m);
    expect(text).toMatch(/^\d+ more, no worse$/m);
    expect(text).toContain('FL601 ERROR: aggregator b: silent for 4 s');
    expect(text).toContain('FL612 ERROR: partition 40 is held by the feed at n 8412');
    expect(text).toContain('FL601 ERROR: judge: not heard of lately');
  });

  test('fits any size, in ASCII, whatever there is', () => {
    fc.assert(
      fc.property(
        fc.nat({ max: 130 }),
        fc.nat({ max: 12 }),
        fc.integer({ min: 20, max: 200 }),
        fc.integer({ min: 1, max: 60 }),
        (parts, some, columns, rows) => {
          const alarms = Array.from({ length: some }, (_, at) => finding('FL603', `service ${at}`));
          const lines = renderTop({ ...system(parts, some), alarms }, { columns, rows });
          expect(lines.length).toBeLessThanOrEqual(rows);
          for (const line of lines) {
            expect(line.length).toBeLessThanOrEqual(columns);
            expect(line).toMatch(/^[ -~]*$/);
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test('has everything where there is no end of lines', () => {
    const lines = renderTop(system(64, 10), all);
    expect(lines.filter((line) => /^collector-\d/.test(line))).toHaveLength(10);
    expect(lines.filter((line) => /^ *\d+ +[ab] /.test(line))).toHaveLength(64);
  });

  test('says what it does not know, and when it is old', () => {
    const empty = system(1, 0, () => []);
    const text = renderTop({ ...empty, imbalanceFlows: null, problem: 'the broker does not answer' }, terminal).join('\n');
    expect(text).toContain('STALE: the broker does not answer');
    expect(text).toContain('Balance not known here; nothing billed yet;');
    expect(text).toMatch(/^exporters +- /m);
    expect(text).toMatch(/^accounting +NO /m);
  });

  test('figures have seven columns at most', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 99_999_949_999 }), (value) => expect(short(value).length).toBeLessThanOrEqual(7)));
    expect([99_999, 100_000, 999_949, 999_950, 999_949_999, 1_500_000_000].map(short)).toEqual([
      '99,999',
      '100.0k',
      '999.9k',
      '1.0M',
      '999.9M',
      '1.5G',
    ]);
  });
});

describe('rates', () => {
  const at = (atMs: number, next_offset: number, n: number, incarnation = 'i') => ({
    at_ms: atMs,
    incarnation,
    partitions: [part(0, { next_offset, n }), part(1, { next_offset, n })],
  });
  const reports = (...list: Health[]) => new Map(list.map((one) => [`${one.role}/${one.id}`, one]));

  test("are differences by the services' own clocks", () => {
    const before = reports(
      report('aggregator', 'a', at(1000, 10, 5)),
      report('feed', 'one', at(1000, 1, 5)),
      report('feed', 'two', at(1000, 1, 5)),
      report('collector', 'c', { at_ms: 1000, copy: copyOf({ received_datagrams: 10, decoded_flows: 300 }) }),
    );
    const now = reports(
      report('aggregator', 'a', at(3000, 20, 6)),
      report('feed', 'one', at(3000, 1, 9)),
      report('feed', 'two', at(3000, 1, 7)),
      report('collector', 'c', { at_ms: 3000, copy: copyOf({ received_datagrams: 30, decoded_flows: 900 }) }),
      report('collector', 'new', { at_ms: 3000, copy: copyOf({ decoded_flows: 900 }) }),
    );
    expect(ratesBetween(before, now)).toEqual({
      collectors: new Map([['c', { datagrams: 10, flows: 300 }]]),
      folded: { a: 10, b: null },
      emitted: 4,
      booked: null,
    });
  });

  test('of a new process, or of one report, are not known', () => {
    const rate = (before: Health, now: Health) => ratesBetween(reports(before), reports(now)).folded.a;
    expect(rate(report('aggregator', 'a', at(1000, 10, 5)), report('aggregator', 'a', at(3000, 20, 6, 'other')))).toBeNull();
    expect(rate(report('aggregator', 'a', at(1000, 10, 5)), report('aggregator', 'a', at(1000, 10, 5)))).toBeNull();
  });
});
