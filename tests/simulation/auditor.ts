/**
 * A second, naive accounting: reads the nars log as DESIGN 3.1 words it, flow by flow, and shares no code with core. Slow and simple on purpose.
 */
import type { LogRecord } from '../../adapters/ports.ts';
import { narBatchCodec } from '../../schemas/codec.ts';
import { adminCollector } from '../../schemas/topics.ts';
import type { FoldConfig, Nar, NarBatch } from '../../schemas/types.ts';

export interface Totals {
  flows: number;
  bytes: bigint;
  packets: bigint;
}

const noTotals = (): Totals => ({ flows: 0, bytes: 0n, packets: 0n });

interface Accepted {
  readonly offset: number;
  readonly sequence: number;
  readonly through: number;
  /** It stands for what is lost, and says so. */
  readonly isTombstone: boolean;
}

/** One partition of nars. */
export class PartitionAuditor {
  /** How often each flow, by its number, was accepted. */
  readonly flows = new Map<number, number>();
  /** By source account and destination account. */
  readonly usage = new Map<string, Totals>();
  readonly total = noTotals();
  readonly lost = noTotals();
  lostOnWire = 0;
  doubts = 0;
  duplicates = 0;
  gaps = 0;
  /** By collector, then by incarnation. */
  readonly #accepted = new Map<string, Map<string, Accepted[]>>();
  /** By offset: of all that was accepted up to and with that record. */
  readonly #totals: Totals[] = [];
  readonly #accounts = new Map<string, string>();
  readonly #records: LogRecord[] = [];
  #based = false;
  #config: FoldConfig | null = null;

  /** What it would be with the records before this offset alone. */
  upTo(offset: number): PartitionAuditor {
    const auditor = new PartitionAuditor();
    for (const record of this.#records) if (record.offset < offset) auditor.take(record);
    return auditor;
  }

  /** The last sequence accepted of an incarnation, whosever it is; 0 before the first. */
  lastOf(incarnation: string): number {
    for (const streams of this.#accepted.values()) {
      const last = streams.get(incarnation)?.at(-1);
      if (last) return last.through;
    }
    return 0;
  }

  /** Takes the records of the partition in order; returns the flows that are accepted twice now. */
  take(record: LogRecord): number[] {
    this.#records.push(record);
    const twice = this.#accept(narBatchCodec.decode(record.value!), record.offset);
    this.#totals[record.offset] = { ...this.total };
    return twice;
  }

  #accept(batch: NarBatch, offset: number): number[] {
    if (batch.collector === adminCollector && batch.base) this.#based = true;
    if (batch.fold_config) this.#config = batch.fold_config;
    if (!this.#based) return [];
    const streams = this.#accepted.get(batch.collector) ?? new Map<string, Accepted[]>();
    this.#accepted.set(batch.collector, streams);
    const stream = streams.get(batch.incarnation) ?? [];
    const last = stream.at(-1)?.through ?? 0;
    if (batch.sequence <= last) this.duplicates++;
    if (batch.sequence > last + 1) this.gaps++;
    if (batch.sequence !== last + 1) return [];
    streams.set(batch.incarnation, stream);
    const isTombstone = batch.nars.length === 0 && batch.losses.length > 0;
    stream.push({ offset, sequence: batch.sequence, through: batch.through, isTombstone });
    return this.#count(batch);
  }

  #count(batch: NarBatch): number[] {
    const twice: number[] = [];
    for (const nar of batch.nars) {
      const id = flowId(nar);
      const times = (this.flows.get(id) ?? 0) + 1;
      this.flows.set(id, times);
      if (times > 1) twice.push(id);
      const accounts = `${this.#account(nar.src_addr)}>${this.#account(nar.dst_addr)}`;
      const usage = this.usage.get(accounts) ?? noTotals();
      this.usage.set(accounts, usage);
      for (const sum of [usage, this.total]) {
        sum.flows += 1;
        sum.bytes += BigInt(nar.bytes);
        sum.packets += BigInt(nar.packets);
      }
    }
    for (const exporter of batch.exporters) this.lostOnWire += exporter.lost_on_wire_flows;
    for (const loss of batch.losses) {
      this.lost.flows += loss.nars;
      this.lost.bytes += loss.bytes;
      this.lost.packets += loss.packets;
      if (loss.unknown) this.doubts++;
    }
    return twice;
  }

  /** What an acknowledgment of this offset must say of a collector's incarnations. */
  sequencesAt(offset: number, collector: string): Map<string, number> {
    const sequences = new Map<string, number>();
    for (const [incarnation, accepted] of this.#accepted.get(collector) ?? []) {
      const before = accepted.findLast((one) => one.offset < offset);
      if (before) sequences.set(incarnation, before.through);
    }
    return sequences;
  }

  /** Whether what was accepted of this incarnation under this number is the Loss of a batch. */
  isReportedLost(incarnation: string, sequence: number): boolean {
    for (const streams of this.#accepted.values()) {
      const batch = streams.get(incarnation)?.find((one) => one.sequence <= sequence && sequence <= one.through);
      if (batch?.isTombstone) return true;
    }
    return false;
  }

  /** What was accepted up to and with the record at this offset. */
  totalAt(offset: number): Totals {
    return this.#totals[offset] ?? noTotals();
  }

  /** The account of the longest prefix that matches; 'unassigned' without one. */
  #account(address: Uint8Array): string {
    const name = address.join('.');
    const known = this.#accounts.get(name) ?? this.#longestMatch(address);
    this.#accounts.set(name, known);
    return known;
  }

  #longestMatch(address: Uint8Array): string {
    const bits = [...address].map((octet) => octet.toString(2).padStart(8, '0')).join('');
    let best = { length: -1, account: 'unassigned' };
    for (const { prefix, account } of this.#config?.accounts ?? []) {
      const [network, length] = prefix.split('/') as [string, string];
      const head = network
        .split('.')
        .map((octet) => Number(octet).toString(2).padStart(8, '0'))
        .join('')
        .slice(0, Number(length));
      if (bits.startsWith(head) && Number(length) > best.length) best = { length: Number(length), account };
    }
    return best.account;
  }
}

/** The number that a ModelExporter gave the flow. */
export function flowId(nar: Nar): number {
  return Buffer.from(nar.next_hop).readUInt32BE(0);
}

/** The numbers of the flows in an encoded batch. */
export function flowIdsOf(value: Uint8Array): number[] {
  return narBatchCodec.decode(value).nars.map(flowId);
}
