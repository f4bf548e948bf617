/**
 * A second, naive accounting: reads the nars log as DESIGN 3.1 words it, flow by flow, and shares no code with core. Slow and simple on purpose.
 */
import type { LogRecord } from '../../adapters/ports.ts';
import { narBatchCodec } from '../../schemas/codec.ts';
import { adminCollector } from '../../schemas/topics.ts';
import type { FoldConfig, Nar, NarBatch } from '../../schemas/types.ts';
import { addTotals, type Close, ExpectedCloses, noTotals, type Totals } from './expected-closes.ts';

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
  /** A configuration that this release does not know came: nothing is folded from there on. */
  #isOver = false;
  readonly #closes = new ExpectedCloses((nar) => this.#accountsOf(nar));
  /** What the outputs must say, and were not held against it yet. */
  expected: Close[] = [];

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
    const twice = this.#isOver ? [] : this.#accept(narBatchCodec.decode(record.value!), record);
    this.#totals[record.offset] = { ...this.total };
    return twice;
  }

  /** The partition's watermark; null before the first. */
  get watermarkMs(): number | null {
    return this.#closes.watermarkMs;
  }

  #accept(batch: NarBatch, record: LogRecord): number[] {
    const isAdmin = batch.collector === adminCollector;
    if (isAdmin ? !this.#based && !batch.base : !this.#based || !this.#config) return [];
    const streams = this.#accepted.get(batch.collector) ?? new Map<string, Accepted[]>();
    this.#accepted.set(batch.collector, streams);
    const stream = streams.get(batch.incarnation) ?? [];
    const last = stream.at(-1)?.through ?? 0;
    if (batch.sequence <= last) this.duplicates++;
    if (batch.sequence > last + 1) this.gaps++;
    if (batch.sequence !== last + 1) return [];
    if (isAdmin) this.#administer(batch);
    if (this.#isOver) return [];
    streams.set(batch.incarnation, stream);
    const isTombstone = batch.nars.length === 0 && batch.losses.length > 0;
    stream.push({ offset: record.offset, sequence: batch.sequence, through: batch.through, isTombstone });
    if (this.#config) this.expected.push(...this.#closes.take(batch, record, this.#config));
    return this.#count(batch);
  }

  #administer({ base, fold_config: config }: NarBatch): void {
    if (config && config.version === (this.#config?.version ?? 0) + 1) {
      this.#isOver = config.fold_version !== 1;
      if (this.#isOver) return;
      this.#config = config;
      this.#accounts.clear();
    }
    this.#based ||= base !== null;
  }

  #count(batch: NarBatch): number[] {
    const twice: number[] = [];
    for (const nar of batch.nars) {
      const id = flowId(nar);
      const times = (this.flows.get(id) ?? 0) + 1;
      this.flows.set(id, times);
      if (times > 1) twice.push(id);
      const accounts = this.#accountsOf(nar);
      const usage = this.usage.get(accounts) ?? noTotals();
      this.usage.set(accounts, usage);
      const one = { flows: 1, bytes: BigInt(nar.bytes), packets: BigInt(nar.packets) };
      addTotals(usage, one);
      addTotals(this.total, one);
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

  #accountsOf(nar: Nar): string {
    return `${this.#account(nar.src_addr)}>${this.#account(nar.dst_addr)}`;
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
