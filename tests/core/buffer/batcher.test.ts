import { describe, expect, test } from '@jest/globals';
import { Batcher, type CutBatch, cutBatch, homePartition, refusedBatch } from '../../../core/buffer/batcher.ts';
import { emptyBatch, tombstone, unknownTombstone, withReason } from '../../../core/buffer/tombstone.ts';
import { narBatchCodec } from '../../../schemas/codec.ts';
import { messageBytesMax } from '../../../schemas/topics.ts';
import type { ExporterReport, Nar } from '../../../schemas/types.ts';

/** The largest that the codec takes. */
const counterMax = 2 ** 53 - 2;
const address = (last: number) => Buffer.from([192, 0, 2, last]);
const exporter = (text: string) => ({ key: `${text}|7|ipfix`, samplerAddress: text, observationDomainId: 7, protocol: 'ipfix' });
const e1 = exporter('198.51.100.1');
const e2 = exporter('198.51.100.2');

function nar(bytes: number, packets = 1): Nar {
  return {
    exporter: 99,
    src_addr: address(1),
    dst_addr: address(2),
    src_port: 1,
    dst_port: 2,
    proto: 6,
    bytes,
    packets,
    tcp_flags: 0,
    ip_tos: 0,
    in_if: 1,
    out_if: 2,
    src_as: 0,
    dst_as: 0,
    src_net: 0,
    dst_net: 0,
    next_hop: Buffer.alloc(0),
    details: null,
    flow_direction: 255,
    sampling_rate: 1,
    time_flow_start_ms: 1,
    time_flow_end_ms: 2,
    time_received_ms: 3,
  };
}

function report(sampler_address: string, counts: Partial<ExporterReport> = {}): ExporterReport {
  return {
    sampler_address,
    observation_domain_id: 7,
    protocol: 'ipfix',
    received_datagrams: 0,
    undecodable_datagrams: 0,
    duplicate_datagrams: 0,
    lost_on_wire_flows: 0,
    lost_on_wire_datagrams: 0,
    undecodable_flows: 0,
    decoded_flows: 0,
    decoded_bytes: 0n,
    decoded_packets: 0n,
    rejected_flows: 0,
    ...counts,
  };
}

function batcherOf(narsMax = 1000, partitions = 2): Batcher {
  const batcher = new Batcher({ collector: 'c', partitions, narsMax });
  batcher.number('i', false, new Array(partitions).fill(0));
  return batcher;
}

const decoded = (cut: readonly CutBatch[]) => cut.map(({ value }) => narBatchCodec.decode(value));

describe('batches', () => {
  test('say whose NARs they are: those they hold and those they report lost, but not those that were rejected', () => {
    const batcher = batcherOf(1000, 1);
    batcher.add(nar(10), e1, 0);
    batcher.add(nar(20), e2, 0);
    batcher.add(nar(30), e1, 0);
    batcher.refuse('store_full');
    batcher.add(nar(40), e1, 0);
    const [cut] = batcher.take(1000, [report('198.51.100.3', { decoded_flows: 2, rejected_flows: 2 })], []);
    const sums = new Map<string, number>();
    for (const { sampler_address, nars } of cut?.holdings ?? []) sums.set(sampler_address, (sums.get(sampler_address) ?? 0) + nars);
    expect(sums).toEqual(
      new Map([
        ['198.51.100.1', 3],
        ['198.51.100.2', 1],
      ]),
    );
    expect(cut?.nars).toBe(4);
    const refused = refusedBatch(cut!, 'store_full');
    expect(refused.holdings.reduce((nars, holding) => nars + holding.nars, 0)).toBe(4);
  });

  test('are cut by count, numbered per partition, and hold each NAR with its exporter', () => {
    const batcher = batcherOf(2);
    for (const [bytes, from, partition] of [
      [10, e1, 0],
      [20, e2, 0],
      [30, e1, 0],
      [40, e2, 1],
    ] as const) {
      batcher.add(nar(bytes), from, partition);
    }
    const batches = decoded(batcher.take(1000, [], []));
    expect(batches.map(({ partition, sequence, through, watermark_ms }) => [partition, sequence, through, watermark_ms])).toEqual([
      [0, 1, 1, 0],
      [0, 2, 2, 1000],
      [1, 1, 1, 1000],
    ]);
    const who = batches.map(({ nars, exporters }) => nars.map((one) => [one.bytes, exporters[one.exporter]?.sampler_address]));
    expect(who).toEqual([
      [
        [10, e1.samplerAddress],
        [20, e2.samplerAddress],
      ],
      [[30, e1.samplerAddress]],
      [[40, e2.samplerAddress]],
    ]);
    expect(batches[0]?.exporters.map(({ decoded_flows, decoded_bytes }) => [decoded_flows, decoded_bytes])).toEqual([
      [1, 10n],
      [1, 20n],
    ]);
    expect(batcher.pendingNars).toBe(0);
  });

  test('stay below the size that the topic takes, however large the NARs', () => {
    const batcher = batcherOf(10_000, 1);
    const wide = { src_addr: Buffer.alloc(16, 255), dst_addr: Buffer.alloc(16, 255), next_hop: Buffer.alloc(16, 255) };
    const big = counterMax;
    const long = { in_if: big, out_if: big, src_as: big, dst_as: big, sampling_rate: big, time_flow_start_ms: big, time_flow_end_ms: big };
    const most = { ...wide, ...long, src_port: 65535, dst_port: 65535, proto: 255, tcp_flags: 65535, ip_tos: 255, src_net: 128, dst_net: 128 };
    for (let i = 0; i < 12_000; i++) batcher.add({ ...nar(big, big), ...most, time_received_ms: big }, exporter(`2001:db8::${i.toString(16)}`), 0);
    const cut = batcher.take(1000, [], []);
    expect(cut.reduce((nars, batch) => nars + batch.nars, 0)).toBe(12_000);
    expect(Math.max(...cut.map(({ value }) => value.length))).toBeLessThan(messageBytesMax);
    expect(Math.max(...cut.map(({ totals }) => totals.length))).toBeLessThan(messageBytesMax);
    const total = decoded(cut).flatMap(({ exporters }) => exporters.map(({ decoded_bytes }) => decoded_bytes));
    expect(total.reduce((sum, bytes) => sum + bytes, 0n)).toBe(12_000n * BigInt(big));
  });

  test('end before the sum of absurd counters, taken or refused, outgrows what can be written', () => {
    const batcher = batcherOf(10_000, 1);
    for (let i = 0; i < 5_000; i++) batcher.add(nar(counterMax, counterMax), e1, 0);
    const cut = batcher.take(1000, [], []);
    expect(cut.reduce((nars, batch) => nars + batch.nars, 0)).toBe(5_000);
    expect(cut.length).toBeLessThan(20);
    batcher.refuse('memory_full');
    for (let i = 0; i < 5_000; i++) batcher.add(nar(counterMax, counterMax), e1, 0);
    const [refused] = decoded(batcher.take(1000, [], []));
    expect(refused?.losses).toMatchObject([{ nars: 5_000, bytes: 2n ** 62n, packets: 2n ** 62n }]);
  });

  test('carry each report once, in the home partition of its exporter, also where there are no NARs', () => {
    const batcher = batcherOf(1000, 4);
    const own = report(e1.samplerAddress, { received_datagrams: 3, lost_on_wire_flows: 2, rejected_flows: 1, decoded_flows: 1 });
    const home = homePartition(own, 4);
    batcher.add(nar(10), e1, (home + 1) % 4);
    const batches = decoded(batcher.take(1000, [own], []));
    expect(batches.map(({ partition }) => partition).sort()).toEqual([home, (home + 1) % 4].sort());
    const reports = batches.flatMap(({ exporters }) => exporters);
    expect(reports.reduce((sum, one) => sum + one.received_datagrams, 0)).toBe(3);
    expect(reports.reduce((sum, one) => sum + one.decoded_flows, 0)).toBe(2);
  });

  test('are empty where a tick is due and nothing was said', () => {
    const batcher = batcherOf();
    batcher.add(nar(10), e1, 0);
    const batches = decoded(batcher.take(1000, [], [0, 1]));
    expect(batches.map(({ partition, nars }) => [partition, nars.length])).toEqual([
      [0, 1],
      [1, 0],
    ]);
    expect(batcher.take(1000, [], [])).toEqual([]);
  });

  test('say goodbye in every partition at the end', () => {
    const batcher = batcherOf();
    batcher.add(nar(10), e1, 0);
    expect(batcher.take(1000, [], [], true).map(({ partition, goodbye }) => [partition, goodbye])).toEqual([
      [0, true],
      [1, true],
    ]);
  });

  test('that could not be stored come again under the new numbers, before all that came later', () => {
    const batcher = batcherOf(1);
    batcher.add(nar(10), e1, 0);
    const refused = batcher.take(1000, [], []);
    batcher.add(nar(20), e1, 0);
    batcher.again(refused, 'j', true, [5, 0]);
    const batches = decoded(batcher.take(2000, [], []));
    expect(batches.map(({ incarnation, sequence, through, volatile, nars }) => [incarnation, sequence, through, volatile, nars[0]?.bytes])).toEqual([
      ['j', 6, 6, true, 10],
      ['j', 7, 7, true, 20],
    ]);
  });

  test('hold Losses in place of NARs while these are refused', () => {
    const batcher = batcherOf();
    batcher.refuse('store_full');
    batcher.add(nar(10, 1), e1, 0);
    batcher.add(nar(counterMax, 2), e1, 0);
    batcher.refuse(null);
    batcher.add(nar(5), e1, 0);
    const [batch] = decoded(batcher.take(1000, [], []));
    const loss = { reason: 'store_full', sampler_address: e1.samplerAddress, observation_domain_id: 7, protocol: 'ipfix', unknown: false };
    expect(batch?.losses).toEqual([{ ...loss, nars: 2, bytes: BigInt(counterMax) + 10n, packets: 3n }]);
    expect(batch?.exporters.map(({ decoded_flows, decoded_bytes }) => [decoded_flows, decoded_bytes])).toEqual([[1, 5n]]);
    expect(batcher.refusedNars).toBe(2);
  });
});

describe('a tombstone', () => {
  const exporters = [
    report('x', { received_datagrams: 4, decoded_flows: 3, decoded_bytes: 30n, decoded_packets: 6n, rejected_flows: 1 }),
    report('y', { decoded_flows: 1, decoded_bytes: 7n, decoded_packets: 1n }),
  ];
  const nars = [nar(10), nar(20), { ...nar(7), exporter: 1 }];
  const frame = emptyBatch({ collector: 'c', incarnation: 'i', partition: 1, sequence: 5, volatile: false, goodbye: true }, 1000);
  const batch = { ...frame, exporters, nars };

  test('keeps number, flags and datagram counts, and puts an exact Loss in place of the NARs', () => {
    const stone = tombstone(batch, 'released');
    expect(stone).toMatchObject({ sequence: 5, through: 5, goodbye: true, watermark_ms: 1000, nars: [] });
    expect(stone.exporters).toEqual([report('x', { received_datagrams: 4, decoded_flows: 1, rejected_flows: 1 })]);
    expect(stone.losses.map(({ sampler_address, nars: lost, bytes, packets }) => [sampler_address, lost, bytes, packets])).toEqual([
      ['x', 2, 30n, 6n],
      ['y', 1, 7n, 1n],
    ]);
  });

  test('of a batch that holds Losses keeps these with their reason', () => {
    const refused = narBatchCodec.decode(refusedBatch(cutBatch(batch), 'store_full').value);
    const kept = withReason(tombstone(refused, 'released'), 'store_lost');
    expect(kept.losses.map(({ reason }) => reason)).toEqual(['store_full', 'store_full']);
    expect(withReason(tombstone(batch, 'released'), 'store_lost').losses.map(({ reason }) => reason)).toEqual(['store_lost', 'store_lost']);
  });

  test('of what nobody holds is a doubt, and stands for all of it', () => {
    const identity = { collector: 'c', incarnation: 'i', partition: 0, sequence: 3, through: 9, volatile: false, goodbye: false, nars: 12 };
    const stone = narBatchCodec.decode(narBatchCodec.encode(unknownTombstone(identity)));
    expect(stone).toMatchObject({ sequence: 3, through: 9, watermark_ms: 0, losses: [{ reason: 'store_lost', nars: 12, unknown: true }] });
  });
});
