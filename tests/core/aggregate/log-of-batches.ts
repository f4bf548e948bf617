/** Builds logs of NAR batches for the fold's tests, and reads what comes out. */
import { sha256 } from '../../../adapters/digest.ts';
import { Fold, type FoldRecord, type Step } from '../../../core/aggregate/fold.ts';
import { NarColumns } from '../../../core/aggregate/nar-columns.ts';
import { emptyBatch } from '../../../core/buffer/tombstone.ts';
import { decodeNarBatchFrame, narBatchCodec } from '../../../schemas/codec.ts';
import { adminCollector } from '../../../schemas/topics.ts';
import type { Aggregate, ExporterReport, FoldConfig, Loss, Nar, NarBatch, Output, OutputBlock, WindowClose } from '../../../schemas/types.ts';

export const second = 1000;
export const minute = 60 * second;
/** On the border of a window. */
export const t0 = 1_700_000_100_000 - (1_700_000_100_000 % (5 * minute));

export const standard: FoldConfig = {
  version: 1,
  fold_version: 1,
  partitions: 1,
  window_ms: minute,
  lateness_ms: 10 * second,
  live_within_ms: 2 * minute,
  past_ms_max: 60 * minute,
  future_ms_max: minute,
  snapshot_every: 5,
  group_by: ['src_account', 'dst_account'],
  sampling: 'scaled',
  spread: false,
  deduplication: 'none',
  accounts: [
    { prefix: '10.0.0.0/8', account: 'acme' },
    { prefix: '10.1.0.0/16', account: 'beta' },
    { prefix: '2001:db8::/32', account: 'gamma' },
  ],
};

export function nar(changes: Partial<Nar> = {}): Nar {
  const endMs = changes.time_flow_end_ms ?? t0;
  return {
    exporter: 0,
    src_addr: Buffer.from([10, 0, 0, 1]),
    dst_addr: Buffer.from([10, 1, 0, 1]),
    src_port: 1,
    dst_port: 2,
    proto: 6,
    bytes: 100,
    packets: 2,
    tcp_flags: 0,
    ip_tos: 0,
    in_if: 0,
    out_if: 0,
    src_as: 0,
    dst_as: 0,
    src_net: 0,
    dst_net: 0,
    next_hop: Buffer.alloc(0),
    details: null,
    flow_direction: 255,
    sampling_rate: 1,
    time_flow_start_ms: endMs,
    time_flow_end_ms: endMs,
    time_received_ms: endMs,
    ...changes,
  };
}

/** As the fold reads them. */
export function columnsOf(nars: Nar[]): NarColumns {
  const identity = { collector: 'c', incarnation: 'i', partition: 0, sequence: 1, volatile: false, goodbye: false };
  const value = narBatchCodec.encode({ ...emptyBatch(identity, t0), nars });
  const columns = new NarColumns();
  if (!columns.read(value, decodeNarBatchFrame(value).narsStart, 1 << 20, 8.64e15)) throw new Error('these are no NARs');
  return columns;
}

export function report(nars: readonly Nar[], index = 0, changes: Partial<ExporterReport> = {}): ExporterReport {
  const own = nars.filter(({ exporter }) => exporter === index);
  return {
    sampler_address: `192.0.2.${index + 1}`,
    observation_domain_id: 0,
    protocol: 'ipfix',
    received_datagrams: own.length,
    undecodable_datagrams: 0,
    duplicate_datagrams: 0,
    lost_on_wire_flows: 0,
    lost_on_wire_datagrams: 0,
    undecodable_flows: 0,
    decoded_flows: own.length + (changes.rejected_flows ?? 0),
    decoded_bytes: own.reduce((sum, { bytes }) => sum + BigInt(bytes), 0n),
    decoded_packets: own.reduce((sum, { packets }) => sum + BigInt(packets), 0n),
    rejected_flows: 0,
    ...changes,
  };
}

export function loss(changes: Partial<Loss> = {}): Loss {
  return {
    reason: 'store_full',
    sampler_address: '192.0.2.1',
    observation_domain_id: 0,
    protocol: 'ipfix',
    nars: 7,
    bytes: 700n,
    packets: 70n,
    unknown: false,
    ...changes,
  };
}

export function batch(changes: Partial<NarBatch> = {}): NarBatch {
  const nars = changes.nars ?? [];
  const exporters = [...new Set(nars.map(({ exporter }) => exporter))].sort().map((index) => report(nars, index));
  const sequence = changes.sequence ?? 1;
  return {
    collector: 'c1',
    incarnation: 'i1',
    partition: 0,
    sequence,
    through: sequence,
    watermark_ms: t0,
    volatile: false,
    goodbye: false,
    exporters,
    losses: [],
    fold_config: null,
    base: null,
    nars: [...nars],
    ...changes,
  };
}

/** What `topics` writes into a new log. */
export function beginning(config: FoldConfig = standard): NarBatch {
  return batch({ collector: adminCollector, incarnation: 'v1', base: { snapshot: null }, fold_config: config });
}

export type Entry = NarBatch | { readonly value: Uint8Array | null } | { readonly batch: NarBatch; readonly appendedMs: number };

/** Appended long after every watermark, unless an entry says when. */
export function records(entries: readonly Entry[]): FoldRecord[] {
  return entries.map((entry, offset) => {
    if ('value' in entry) return { offset, appendedMs: t0 + 1000 * minute, value: entry.value };
    if ('batch' in entry) return { offset, appendedMs: entry.appendedMs, value: narBatchCodec.encode(entry.batch) };
    return { offset, appendedMs: t0 + 1000 * minute, value: narBatchCodec.encode(entry) };
  });
}

export interface Folded {
  readonly fold: Fold;
  readonly steps: readonly Step[];
  readonly blocks: readonly OutputBlock[];
  readonly outputs: readonly Output[];
  readonly aggregates: readonly Aggregate[];
  readonly closes: readonly WindowClose[];
}

export function foldOf(entries: readonly Entry[], fold = new Fold(0, sha256)): Folded {
  const steps = records(entries).map((record) => fold.step(record));
  const blocks = steps.flatMap((step) => step.blocks);
  const outputs = blocks.flatMap((block) => block.outputs);
  const aggregates = outputs.flatMap(({ aggregate }) => (aggregate ? [aggregate] : []));
  const closes = outputs.flatMap(({ window_close: close }) => (close ? [close] : []));
  return { fold, steps, blocks, outputs, aggregates, closes };
}

/** A batch without NARs: what a collector with nothing to say sends. */
export function tick(sequence: number, watermarkMs: number, changes: Partial<NarBatch> = {}): NarBatch {
  return batch({ sequence, watermark_ms: watermarkMs, ...changes });
}

/** The group's values, joined. */
export function groupOf(aggregate: Aggregate): string {
  return aggregate.group.map(({ value }) => value).join('>');
}
