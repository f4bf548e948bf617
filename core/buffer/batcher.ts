/**
 * NARs become batches: one open batch per partition, cut by count, by size, and all at once at each flush, so that the exporters' positions taken at
 * that moment are those reached by exactly the NARs in the flush and before it (I12).
 */
import { narBatchCodec } from '../../schemas/codec.ts';
import { messageBytesMax } from '../../schemas/topics.ts';
import type { ExporterReport, Loss, Nar, NarBatch } from '../../schemas/types.ts';
import type { Holding } from './holdings.ts';
import { encodeBatch, narBytesMax, writeNar } from './nar-writer.ts';
import { emptyBatch, type LossReason, lostNars, tombstone, unknownLoss } from './tombstone.ts';

/** Whose NARs they are; the same object for the same exporter, observation domain and protocol. */
export interface ExporterIdentity {
  /** Tells it from all others. */
  readonly key: string;
  readonly samplerAddress: string;
  readonly observationDomainId: number;
  readonly protocol: string;
}

/** A batch with its number, as it goes to the store and to Kafka. */
export interface CutBatch {
  readonly partition: number;
  readonly sequence: number;
  readonly goodbye: boolean;
  readonly watermarkMs: number;
  /** NARs in it, and NARs that it reports lost. */
  readonly nars: number;
  /** Of these, those that it reports lost. */
  readonly lost: number;
  /** Whose these NARs are, the lost ones included. */
  readonly holdings: readonly Holding[];
  readonly value: Uint8Array;
  /** Its tombstone, encoded. */
  readonly totals: Uint8Array;
}

export interface BatcherOptions {
  readonly collector: string;
  readonly partitions: number;
  readonly narsMax: number;
}

/** Upper bound of an encoded report together with a Loss. */
const exporterBytesMax = 384;
const frameBytesMax = 1024;
/** Room for encoded NARs that a partition begins with. */
const narsBytesAtFirst = 16 * 1024;

/** A sum up to here takes another flow and stays an Avro long. */
const totalMax = 2n ** 62n;

interface OpenExporter {
  readonly report: ExporterReport;
  readonly index: number;
  /** Bytes and packets below 2^53 that are not in the report's totals yet. */
  bytes: number;
  packets: number;
}

interface OpenLoss {
  readonly loss: Loss;
  bytes: number;
  packets: number;
}

interface OpenBatch {
  /** NARs in `encoded`. */
  count: number;
  encoded: Uint8Array;
  encodedBytes: number;
  exporters: Map<string, OpenExporter>;
  /** The exporter of the last NAR: exports come in datagrams, so the next one is most likely its too. */
  identity: ExporterIdentity | null;
  exporter: OpenExporter | null;
  losses: Map<string, OpenLoss>;
  /** Upper bound of what all but the NARs take. */
  size: number;
}

export class Batcher {
  readonly #options: BatcherOptions;
  readonly #open: OpenBatch[];
  readonly #last: number[];
  #incarnation = '';
  #volatile = false;
  #cut: CutBatch[] = [];
  #openNars = 0;
  #cutBytes = 0;
  #refusing: LossReason | null = null;
  #now = 0;
  /** NARs that were counted as lost on arrival. */
  refusedNars = 0;

  constructor(options: BatcherOptions) {
    this.#options = options;
    this.#open = Array.from({ length: options.partitions }, () => newBatch(new Uint8Array(narsBytesAtFirst)));
    this.#last = new Array(options.partitions).fill(0);
  }

  /** Batches are numbered from the given ends on, under this incarnation; those that are cut and not taken yet are numbered anew. */
  number(incarnation: string, isVolatile: boolean, ends: readonly number[]): void {
    this.#incarnation = incarnation;
    this.#volatile = isVolatile;
    for (let partition = 0; partition < this.#last.length; partition++) this.#last[partition] = ends[partition] ?? 0;
    const waiting = this.#cut;
    this.#cut = [];
    this.#cutBytes = 0;
    for (const cut of waiting) this.#put(cutBatch(this.#renumbered(cut)));
  }

  /** Batches whose flush was refused get new numbers, under the incarnation that is in force. They come before all that is cut after them. */
  again(batches: readonly CutBatch[], incarnation: string, isVolatile: boolean, ends: readonly number[]): void {
    this.#cut = [...batches, ...this.#cut];
    this.number(incarnation, isVolatile, ends);
  }

  /** I13: from now on NARs are not kept, they are counted as lost for this reason. null: they are kept again. */
  refuse(reason: LossReason | null): void {
    this.#refusing = reason;
  }

  get refusing(): LossReason | null {
    return this.#refusing;
  }

  /** NARs that are in no batch that was taken. */
  get pendingNars(): number {
    return this.#openNars + this.#cut.reduce((nars, cut) => nars + cut.nars, 0);
  }

  /** What they occupy, roughly. */
  get pendingBytes(): number {
    return this.#open.reduce((bytes, open) => bytes + open.encodedBytes, this.#cutBytes);
  }

  /** The clock, for the watermark of batches that are cut because they are full. */
  at(nowMs: number): void {
    this.#now = nowMs;
  }

  /** Nothing of the NAR is kept but its bytes. */
  add(nar: Nar, exporter: ExporterIdentity, partition: number): void {
    const batch = this.#open[partition] as OpenBatch;
    if (this.#refusing) {
      this.#refuse(batch, this.#refusing, nar, exporter);
      return;
    }
    let open = batch.exporter;
    if (open === null || batch.identity !== exporter) {
      open = openExporter(batch, exporter);
      batch.identity = exporter;
      batch.exporter = open;
    }
    if (batch.encoded.length - batch.encodedBytes < narBytesMax) batch.encoded = grown(batch.encoded);
    batch.encodedBytes = writeNar(batch.encoded, batch.encodedBytes, nar, open.index);
    batch.count++;
    this.#openNars++;
    open.report.decoded_flows++;
    let isWeighty = false;
    if (open.bytes > Number.MAX_SAFE_INTEGER - nar.bytes || open.packets > Number.MAX_SAFE_INTEGER - nar.packets) isWeighty = carry(open);
    open.bytes += nar.bytes;
    open.packets += nar.packets;
    if (batch.count >= this.#options.narsMax || isFull(batch) || isWeighty) this.#close(partition, this.#now, false);
  }

  /**
   * Everything added so far, in batches; `ticks` are partitions that get an empty batch where they have nothing to say.
   * Each report goes into one batch, that of its exporter's home partition. A volatile incarnation says no goodbye here: it would end the doubt, and
   * the next process would start from positions in the store that are older than what was sent from memory.
   */
  take(nowMs: number, reports: readonly ExporterReport[], ticks: readonly number[], goodbye = false): CutBatch[] {
    this.#now = nowMs;
    for (const report of reports) this.#report(report);
    for (let partition = 0; partition < this.#open.length; partition++) {
      const batch = this.#open[partition] as OpenBatch;
      const says = batch.count > 0 || batch.exporters.size > 0 || batch.losses.size > 0;
      if (says || goodbye || (ticks.includes(partition) && !this.#cut.some((cut) => cut.partition === partition)))
        this.#close(partition, nowMs, goodbye && !this.#volatile);
    }
    const cut = this.#cut;
    this.#cut = [];
    this.#cutBytes = 0;
    return cut;
  }

  /** Something may be missing of which nobody knows how much: the balance is to show a doubt, not a zero. */
  doubt(reason: LossReason = 'store_lost'): void {
    (this.#open[0] as OpenBatch).losses.set(reason, { loss: unknownLoss(reason), bytes: 0, packets: 0 });
  }

  #refuse(batch: OpenBatch, reason: LossReason, nar: Nar, exporter: ExporterIdentity): void {
    let open = batch.losses.get(exporter.key);
    if (!open) {
      const { samplerAddress: sampler_address, observationDomainId: observation_domain_id, protocol } = exporter;
      const loss = { reason, sampler_address, observation_domain_id, protocol, nars: 0, bytes: 0n, packets: 0n, unknown: false };
      open = { loss, bytes: 0, packets: 0 };
      batch.losses.set(exporter.key, open);
      batch.size += exporterBytesMax;
    }
    open.loss.nars++;
    this.refusedNars++;
    if (open.bytes > Number.MAX_SAFE_INTEGER - nar.bytes || open.packets > Number.MAX_SAFE_INTEGER - nar.packets) settleLoss(open);
    open.bytes += nar.bytes;
    open.packets += nar.packets;
    if (isFull(batch)) this.#close(this.#open.indexOf(batch), this.#now, false);
  }

  #report(report: ExporterReport): void {
    const partition = homePartition(report, this.#open.length);
    if (isFull(this.#open[partition] as OpenBatch)) this.#close(partition, this.#now, false);
    const batch = this.#open[partition] as OpenBatch;
    const { sampler_address: samplerAddress, observation_domain_id: observationDomainId, protocol } = report;
    const open = openExporter(batch, { key: keyOf(report), samplerAddress, observationDomainId, protocol });
    const total = open.report;
    total.received_datagrams += report.received_datagrams;
    total.undecodable_datagrams += report.undecodable_datagrams;
    total.duplicate_datagrams += report.duplicate_datagrams;
    total.lost_on_wire_flows += report.lost_on_wire_flows;
    total.lost_on_wire_datagrams += report.lost_on_wire_datagrams;
    total.undecodable_flows += report.undecodable_flows;
    total.decoded_flows += report.decoded_flows;
    total.decoded_bytes += report.decoded_bytes;
    total.decoded_packets += report.decoded_packets;
    total.rejected_flows += report.rejected_flows;
  }

  #close(partition: number, nowMs: number, goodbye: boolean): void {
    const open = this.#open[partition] as OpenBatch;
    this.#open[partition] = newBatch(open.encoded);
    this.#openNars -= open.count;
    for (const exporter of open.exporters.values()) carry(exporter);
    for (const loss of open.losses.values()) settleLoss(loss);
    const identity = { ...this.#identity(partition), goodbye };
    const batch = {
      ...emptyBatch(identity, nowMs),
      exporters: Array.from(open.exporters.values(), (exporter) => exporter.report),
      losses: Array.from(open.losses.values(), ({ loss }) => loss),
    };
    this.#put(cutOf(batch, encodeBatch(batch, open.encoded.subarray(0, open.encodedBytes), open.count), open.count));
  }

  #identity(partition: number) {
    const sequence = (this.#last[partition] ?? 0) + 1;
    this.#last[partition] = sequence;
    return { collector: this.#options.collector, incarnation: this.#incarnation, partition, sequence, volatile: this.#volatile };
  }

  #renumbered(cut: CutBatch): NarBatch {
    const identity = this.#identity(cut.partition);
    return { ...narBatchCodec.decode(cut.value), ...identity, through: identity.sequence, goodbye: cut.goodbye && !this.#volatile };
  }

  #put(cut: CutBatch): void {
    this.#cut.push(cut);
    this.#cutBytes += cut.value.length;
  }
}

export function cutBatch(batch: NarBatch): CutBatch {
  return cutOf(batch, narBatchCodec.encode(batch), batch.nars.length);
}

/** @throws Error when the batch is larger than the topic takes: the bounds above are wrong then. */
function cutOf(batch: NarBatch, value: Uint8Array, nars: number): CutBatch {
  if (value.length >= messageBytesMax) throw new Error(`a batch of ${nars} NARs has ${value.length} bytes`);
  const stone = tombstone(batch, 'released');
  const totals = narBatchCodec.encode(stone);
  const { partition, sequence, goodbye, watermark_ms: watermarkMs } = batch;
  const lost = lostNars(batch.losses);
  return { partition, sequence, goodbye, watermarkMs, nars: nars + lost, lost, holdings: stone.losses, value, totals };
}

/** The same batch with its NARs refused: what is stored of it is the Loss. */
export function refusedBatch(cut: CutBatch, reason: LossReason): CutBatch {
  return cutBatch(tombstone(narBatchCodec.decode(cut.value), reason));
}

/** The partition whose batches carry an exporter's datagram counts. */
export function homePartition(report: ExporterReport, partitions: number): number {
  const key = keyOf(report);
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193) >>> 0;
  return hash % partitions;
}

/** The key that the decoder gives the exporter. */
function keyOf(report: ExporterReport): string {
  return `${report.sampler_address}|${report.observation_domain_id}|${report.protocol}`;
}

/** The buffer of the batch before serves again: a batch that is closed has a copy. */
function newBatch(encoded: Uint8Array): OpenBatch {
  return { count: 0, encoded, encodedBytes: 0, exporters: new Map(), identity: null, exporter: null, losses: new Map(), size: frameBytesMax };
}

function isFull(batch: OpenBatch): boolean {
  return batch.size + batch.encodedBytes > messageBytesMax - frameBytesMax;
}

function grown(encoded: Uint8Array): Uint8Array {
  const larger = new Uint8Array(2 * encoded.length);
  larger.set(encoded);
  return larger;
}

function openExporter(batch: OpenBatch, exporter: ExporterIdentity): OpenExporter {
  const known = batch.exporters.get(exporter.key);
  if (known) return known;
  const { samplerAddress: sampler_address, observationDomainId: observation_domain_id, protocol } = exporter;
  const report: ExporterReport = {
    sampler_address,
    observation_domain_id,
    protocol,
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
  };
  const open = { report, index: batch.exporters.size, bytes: 0, packets: 0 };
  batch.exporters.set(exporter.key, open);
  batch.size += exporterBytesMax;
  return open;
}

/** @returns whether the sums are so large that the batch must end, since a sum is an Avro long */
function carry(open: OpenExporter): boolean {
  const { report } = open;
  report.decoded_bytes += BigInt(open.bytes);
  report.decoded_packets += BigInt(open.packets);
  open.bytes = 0;
  open.packets = 0;
  return report.decoded_bytes > totalMax || report.decoded_packets > totalMax;
}

/** Absurd counters count as far as an Avro long can carry their sum. */
function settleLoss(open: OpenLoss): void {
  const { loss } = open;
  loss.bytes = smaller(totalMax, loss.bytes + BigInt(open.bytes));
  loss.packets = smaller(totalMax, loss.packets + BigInt(open.packets));
  open.bytes = 0;
  open.packets = 0;
}

function smaller(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}
