import { describe, expect, test } from '@jest/globals';
import { type AuditFacts, auditExitCode, auditReport, type PartitionAccount } from '../../../core/ledger/audit.ts';
import type { Counters } from '../../../core/ledger/counters.ts';
import type { ExporterBalance, Health, LocalCopy, PartitionHealth } from '../../../schemas/types.ts';
import { History } from './history.ts';

const nowMs = 1_700_000_000_000;
const counters = (flows: number, bytes: bigint, packets = 0n): Counters => ({ flows, bytes, packets });
const chain = (octet: number) => Buffer.alloc(16, octet);

function account(change: Partial<PartitionAccount> = {}): PartitionAccount {
  return {
    partition: 0,
    n: 20,
    closeN: 20,
    balance: {
      decoded: counters(110, 2n ** 60n + 17n),
      aggregated: counters(90, 2n ** 60n),
      late: counters(5, 5n),
      rejected: counters(1, 0n),
      lost: counters(4, 2n),
    },
    open: counters(10, 10n),
    billed: counters(95, 2n ** 60n + 5n),
    doubts: 0,
    unclosedWindows: 0,
    ...change,
  };
}

const settled = account({ balance: { ...account().balance, decoded: counters(100, 2n ** 60n + 7n) }, open: counters(0, 0n) });

function partitionHealth(change: Partial<PartitionHealth> = {}): PartitionHealth {
  return {
    partition: 0,
    next_offset: 50,
    end_offset: 50,
    lag_ms: 0,
    n: 20,
    chain: chain(20),
    watermark_ms: nowMs,
    open_flows: 0,
    state: 'running',
    detail: '',
    ...change,
  };
}

const copy: LocalCopy = {
  store: 'redis',
  durable: true,
  batches: 1,
  nars: 0,
  bytes: 0,
  bytes_max: 1,
  unconfirmed_nars: 0,
  unacknowledged_a_nars: 0,
  unacknowledged_b_nars: 0,
  oldest_ms: 0,
  received_datagrams: 0,
  decoded_flows: 0,
  pending_nars: 0,
  exporters: [],
};

function health(role: string, id: string, change: Partial<Health> = {}): Health {
  const partitions = role === 'collector' ? [] : [partitionHealth()];
  const base = { role, id, incarnation: 'i', at_ms: nowMs - 200, started_ms: 0, ready: true, stopping: false, reasons: [], suspicions: [] };
  return { ...base, partitions, copy: role === 'collector' ? copy : null, ...change };
}

const allWell = [
  health('collector', 'east'),
  health('aggregator', 'a'),
  health('aggregator', 'b'),
  health('feed', 'feed-1'),
  health('accounting', 'accounting'),
];

function audit(change: Partial<AuditFacts> = {}, records: readonly Health[] = allWell) {
  return auditReport({
    corrections: [],
    partitions: [settled],
    exporters: [],
    health: { records, nowMs, problem: null },
    chainAt: (_partition, n) => chain(n),
    ...change,
  });
}

/** All is well, but for this service. */
function but(...changed: Health[]): Health[] {
  return allWell.map((record) => changed.find(({ role, id }) => role === record.role && id === record.id) ?? record);
}

describe('the balance', () => {
  test('is zero and complete when everything decoded is billed, rejected or lost', () => {
    const report = audit();
    expect(report).toMatchObject({ imbalance: { flows: 0, bytes: 0, packets: 0 }, imbalances: [], divergence: 0, complete: true, waiting_for: [] });
    expect(auditExitCode(report)).toBe(0);
  });

  test('prints numbers where they are exact and strings beyond 2^53', () => {
    const { totals } = audit();
    expect(totals).toMatchObject({ billed_flows: 95, billed_bytes: String(2n ** 60n + 5n), billed_packets: 0 });
  });

  test('shows what is decoded and neither billed nor accounted for', () => {
    const report = audit({ partitions: [account({ billed: counters(94, 2n ** 60n + 4n) })] });
    expect(report.imbalance).toEqual({ flows: 1, bytes: 1, packets: 0 });
    expect(report.imbalances).toEqual([
      'partition 0: decoded less billed, rejected, lost and open leaves 1 flows, 1 bytes, 0 packets',
      'partition 0: aggregated and late less billed leaves 1 flows, 1 bytes, 0 packets',
    ]);
    expect(auditExitCode(report)).toBe(1);
  });

  test('does not let two partitions make up for one another', () => {
    const more = account({ partition: 0, open: counters(11, 10n) });
    const less = account({ partition: 1, open: counters(9, 10n) });
    const report = audit({ partitions: [more, less] });
    expect(report.imbalance).toMatchObject({ flows: 0 });
    expect(auditExitCode(report)).toBe(1);
  });

  test('fails while a window is not closed because its sums disagree', () => {
    const report = audit({ partitions: [account({ unclosedWindows: 2 })] });
    expect(report.unclosed_windows).toBe(2);
    expect(auditExitCode(report)).toBe(1);
  });

  test('fails when more was given out for an exporter than was decoded of it', () => {
    const { exporters } = new History().close({ open: { flows: 2, bytes: 5n } }).outputs[0]!.window_close!;
    const exporter: ExporterBalance = { ...exporters[0]!, aggregated_flows: 3 };
    expect(audit({ exporters }).exporters[0]).toMatchObject({
      exporter: '192.0.2.1',
      observation_domain_id: 7,
      decoded_flows: 2,
      open_flows: 2,
      billed_flows: 0,
    });
    expect(auditExitCode(audit({ exporters: [exporter] }))).toBe(1);
  });

  test('has a doubt, and is no failure, where a loss has no known size', () => {
    const report = audit({ partitions: [{ ...settled, doubts: 1 }] });
    expect(report.doubts).toBe(1);
    expect(auditExitCode(report)).toBe(0);
  });
});

describe('divergence', () => {
  const other = { chain: chain(99) };
  const cases: [string, Health[], string][] = [
    [
      'the feed holds a partition',
      but(health('feed', 'feed-1', { partitions: [partitionHealth({ state: 'held', detail: 'n 21 differs' })] })),
      'held by feed',
    ],
    [
      'a replica differs from the ledger',
      but(health('aggregator', 'b', { partitions: [partitionHealth({ n: 19, ...other })] })),
      'aggregator b and the ledger',
    ],
    [
      'the replicas differ beyond the ledger',
      but(
        health('aggregator', 'a', { partitions: [partitionHealth({ n: 30 })] }),
        health('aggregator', 'b', { partitions: [partitionHealth({ n: 30, ...other })] }),
      ),
      'aggregator b and aggregator a have different outputs up to n 30',
    ],
    [
      'accounting refuses what comes',
      but(health('accounting', 'accounting', { partitions: [partitionHealth({ state: 'stopped', detail: 'gap' })] })),
      'not booked any further: gap',
    ],
  ];
  test.each(cases)('is found when %s', (_case, records, what) => {
    const report = audit({}, records);
    expect(report.divergence).toBe(1);
    expect(report.divergences[0]).toContain(what);
    expect(auditExitCode(report)).toBe(1);
  });

  test('is not found where one replica is merely behind', () => {
    expect(audit({}, but(health('aggregator', 'b', { partitions: [partitionHealth({ n: 3, chain: chain(3) })] }))).divergence).toBe(0);
  });
});

describe('an aggregator that was judged', () => {
  const quarantined = { state: 'quarantined', detail: 'in quarantine from n 12 on', n: 20, chain: chain(99) };

  test('is named, and what it says counts for nobody: what is billed comes from the other', () => {
    const report = audit({}, but(health('aggregator', 'b', { partitions: [partitionHealth(quarantined)] })));
    expect(report.quarantined).toEqual(['partition 0: aggregator b is in quarantine from n 12 on']);
    expect([report.divergence, report.complete, auditExitCode(report)]).toEqual([0, true, 0]);
  });

  test('is a divergence as long as it only asks for judgment', () => {
    const disputed = { state: 'disputed', detail: 'output 12 stands with another chain' };
    const report = audit({}, but(health('aggregator', 'b', { partitions: [partitionHealth(disputed)] })));
    expect(report.divergences).toEqual(['partition 0: aggregator b: output 12 stands with another chain']);
    expect(report.quarantined).toEqual([]);
  });

  test('is nobody from whom something is to be expected', () => {
    const both = ['a', 'b'].map((id) => health('aggregator', id, { partitions: [partitionHealth(quarantined)] }));
    expect(audit({}, but(...both)).waiting_for).toContain('partition 0: no aggregator is running on it');
  });
});

describe('what the collectors hold', () => {
  const holding = (sampler_address: string, nars: number) => ({ sampler_address, observation_domain_id: 7, protocol: 'ipfix', nars });
  const balance = {
    ...holding('198.51.100.1', 0),
    received_datagrams: 9,
    decoded_flows: 3,
    decoded_bytes: 4n,
    aggregated_flows: 3,
    aggregated_bytes: 4n,
  };
  const zeros = { undecodable_datagrams: 0, duplicate_datagrams: 0, lost_on_wire_flows: 0, lost_on_wire_datagrams: 0, undecodable_flows: 0 };
  const parts = {
    decoded_packets: 0n,
    aggregated_packets: 0n,
    late_flows: 0,
    late_bytes: 0n,
    late_packets: 0n,
    rejected_flows: 0,
    rejected_bytes: 0n,
  };
  const rest = { rejected_packets: 0n, lost_flows: 0, lost_bytes: 0n, lost_packets: 0n };
  const { nars: _nars, ...known } = { ...balance, ...zeros, ...parts, ...rest };
  const collectors = [
    health('collector', 'east', {
      copy: { ...copy, nars: 30, pending_nars: 2, exporters: [holding('198.51.100.1', 10), holding('198.51.100.2', 5)] },
    }),
    health('collector', 'west', { copy: { ...copy, nars: 4, exporters: [holding('198.51.100.1', 4)] } }),
  ];

  test('is shown by exporter, also where the ledger has nothing of it yet, and adds up with what has no name', () => {
    const { totals, exporters, imbalances } = audit({ exporters: [known] }, [...allWell.slice(1), ...collectors]);
    expect(totals).toMatchObject({ buffered_flows: 36, buffered_unnamed_flows: 17, decoded_flows: 3 });
    expect(exporters).toMatchObject([
      { exporter: '198.51.100.1', observation_domain_id: 7, protocol: 'ipfix', buffered_flows: 14, decoded_flows: 3, billed_flows: 3 },
      { exporter: '198.51.100.2', observation_domain_id: 7, protocol: 'ipfix', buffered_flows: 5, decoded_flows: 0, billed_bytes: 0, open_flows: 0 },
    ]);
    expect(Object.keys(exporters[1]!).sort()).toEqual(Object.keys(exporters[0]!).sort());
    expect(imbalances).toEqual([]);
  });

  test('is nothing of an exporter that no collector names', () => {
    expect(audit({ exporters: [known] }).exporters).toMatchObject([{ exporter: '198.51.100.1', buffered_flows: 0 }]);
  });
});

describe('complete is false while', () => {
  const withCopy = (change: Partial<LocalCopy>, more: Partial<Health> = {}) =>
    but(health('collector', 'east', { copy: { ...copy, ...change }, ...more }));
  const both = (change: Partial<PartitionHealth>) =>
    but(...['a', 'b'].map((id) => health('aggregator', id, { partitions: [partitionHealth(change)] })));
  const cases: [string, Partial<AuditFacts>, Health[], string][] = [
    ['flows are open', { partitions: [account()] }, allWell, '10 flows in windows that are open'],
    ['a window has begun', { partitions: [{ ...settled, n: 21 }] }, allWell, '1 outputs after the last close'],
    ['a collector has flows not in its store', {}, withCopy({ pending_nars: 3 }), 'collector east: 3 flows are not in the log yet'],
    ['the broker has not confirmed some', {}, withCopy({ unconfirmed_nars: 4 }), 'collector east: 4 flows are not in the log yet'],
    [
      'neither replica has acknowledged some',
      {},
      withCopy({ unacknowledged_a_nars: 2, unacknowledged_b_nars: 5 }),
      '2 flows are acknowledged by neither',
    ],
    ['a stopped collector left some in its store', {}, withCopy({ unconfirmed_nars: 4 }, { stopping: true }), 'start it again'],
    ['a collector is silent', {}, withCopy({}, { at_ms: nowMs - 20_000 }), 'collector east has been silent for 20 s'],
    ['no aggregator runs', {}, allWell.filter(({ role }) => role !== 'aggregator'), 'partition 0: no aggregator is running'],
    ['both aggregators are behind', {}, both({ next_offset: 40 }), '10 records are not folded yet'],
    ['the aggregators have flows open', {}, both({ open_flows: 7 }), '7 flows in windows that the aggregators have open'],
    ['outputs are not booked', {}, both({ n: 23 }), '3 outputs are not booked yet'],
    ['the ledger has nothing of a partition', { partitions: [] }, allWell, '20 outputs are not booked yet'],
    ['accounting is away', {}, allWell.filter(({ role }) => role !== 'accounting'), 'accounting is not running'],
    ['nobody can be asked', { health: { records: [], nowMs, problem: 'no broker' } }, [], 'not known: no broker'],
  ];
  test.each(cases)('%s', (_case, change, records, what) => {
    const report = audit(change, records);
    expect(report.complete).toBe(false);
    expect(report.waiting_for.join('; ')).toContain(what);
    expect(auditExitCode(report)).toBe(0);
  });

  test('but not because one of the two aggregators is away or behind', () => {
    const lone = allWell
      .filter(({ id }) => id !== 'b')
      .map((record) => (record.copy ? { ...record, copy: { ...copy, nars: 9, unacknowledged_b_nars: 9 } } : record));
    expect(audit({}, lone)).toMatchObject({ complete: true, totals: { buffered_flows: 9 } });
    expect(
      audit({}, but(health('aggregator', 'b', { partitions: [partitionHealth({ n: 3, chain: chain(3), next_offset: 9, open_flows: 5 })] }))).complete,
    ).toBe(true);
  });
});
