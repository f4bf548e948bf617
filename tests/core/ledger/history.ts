/** Outputs of a partition as a fold would write them, from plain figures; and a reference ledger that only adds up. */
import { sha256 } from '../../../adapters/digest.ts';
import { encodeForChain } from '../../../schemas/codec.ts';
import type { Aggregate, ExporterBalance, Output, WindowClose } from '../../../schemas/types.ts';

export const windowMs = 60_000;

export interface Usage {
  readonly src: string;
  readonly dst: string;
  readonly flows: number;
  readonly bytes: bigint;
  /** Start of its window; the open one where it is left out. */
  readonly windowStartMs?: number;
}

export interface Flows {
  readonly flows: number;
  readonly bytes: bigint;
}

export interface CloseFigures {
  readonly windows?: number;
  readonly collectors?: readonly string[];
  readonly rejected?: number;
  readonly lost?: Flows;
  readonly open?: Flows;
  readonly lostOnWireFlows?: number;
  readonly doubts?: number;
}

const noFlows: Flows = { flows: 0, bytes: 0n };

/** A partition's history. Packets are always twice the flows, and scaled counters ten times the raw ones. */
export class History {
  readonly partition: number;
  readonly outputs: Output[] = [];
  windowStartMs: number;
  #chain: Uint8Array = Buffer.alloc(16);
  #sinceClose: Aggregate[] = [];
  #open: Flows = noFlows;

  constructor(partition = 0, startMs = 1_700_000_100_000) {
    this.partition = partition;
    this.windowStartMs = startMs;
  }

  usage(usage: Usage): this {
    return this.#aggregate('usage', usage);
  }

  adjustment(usage: Usage): this {
    return this.#aggregate('adjustment', usage);
  }

  #aggregate(kind: string, { src, dst, flows, bytes, windowStartMs = this.windowStartMs }: Usage): this {
    const aggregate: Aggregate = {
      kind,
      window_start_ms: windowStartMs,
      window_end_ms: windowStartMs + windowMs,
      group: [
        { name: 'src_account', value: src },
        { name: 'dst_account', value: dst },
      ],
      flows,
      bytes,
      packets: 2n * BigInt(flows),
      scaled_bytes: 10n * bytes,
      scaled_packets: 20n * BigInt(flows),
    };
    this.#sinceClose.push(aggregate);
    return this.append({ aggregate, window_close: null });
  }

  /** Closes the open window, or a run of them; decoded is made to fit. `change` falsifies the close. */
  close(figures: CloseFigures = {}, change: Partial<WindowClose> = {}): this {
    const { windows = 1, lost = noFlows, open = noFlows, rejected = 0 } = figures;
    const usage = this.#sum('usage');
    const adjustment = this.#sum('adjustment');
    const close: WindowClose = {
      window_start_ms: this.windowStartMs,
      window_end_ms: this.windowStartMs + windows * windowMs,
      window_ms: windowMs,
      watermark_ms: this.windowStartMs + windows * windowMs,
      nars_offset: this.outputs.length,
      fold_config_version: 1,
      usage_aggregates: usage.aggregates,
      usage_flows: usage.flows,
      usage_bytes: usage.bytes,
      usage_packets: 2n * BigInt(usage.flows),
      adjustment_aggregates: adjustment.aggregates,
      adjustment_flows: adjustment.flows,
      adjustment_bytes: adjustment.bytes,
      adjustment_packets: 2n * BigInt(adjustment.flows),
      open_flows: open.flows,
      open_bytes: open.bytes,
      open_packets: 2n * BigInt(open.flows),
      collectors: [...(figures.collectors ?? ['east'])],
      lost_on_wire_flows: figures.lostOnWireFlows ?? 0,
      lost_on_wire_datagrams: 0,
      lost_flows: lost.flows,
      clamped_flows: 0,
      unsampled_flows: 0,
      doubts: figures.doubts ?? 0,
      exporters: [this.#exporter(usage, adjustment, rejected, lost, open, figures.lostOnWireFlows ?? 0)],
      ...change,
    };
    this.windowStartMs += windows * windowMs;
    this.#sinceClose = [];
    this.#open = open;
    return this.append({ aggregate: null, window_close: close });
  }

  #sum(kind: string): Flows & { aggregates: number } {
    const of = this.#sinceClose.filter((aggregate) => aggregate.kind === kind);
    const bytes = of.reduce((total, aggregate) => total + aggregate.bytes, 0n);
    return { aggregates: of.length, flows: of.reduce((total, aggregate) => total + aggregate.flows, 0), bytes };
  }

  #exporter(usage: Flows, adjustment: Flows, rejected: number, lost: Flows, open: Flows, lostOnWireFlows: number): ExporterBalance {
    const flows = usage.flows + adjustment.flows + rejected + lost.flows + open.flows - this.#open.flows;
    const packets = usage.flows + adjustment.flows + lost.flows + open.flows - this.#open.flows;
    return {
      sampler_address: '192.0.2.1',
      observation_domain_id: 7,
      protocol: 'ipfix',
      received_datagrams: 3,
      undecodable_datagrams: 1,
      duplicate_datagrams: 0,
      lost_on_wire_flows: lostOnWireFlows,
      lost_on_wire_datagrams: 0,
      undecodable_flows: 0,
      decoded_flows: flows,
      decoded_bytes: usage.bytes + adjustment.bytes + lost.bytes + open.bytes - this.#open.bytes,
      decoded_packets: 2n * BigInt(packets),
      aggregated_flows: usage.flows,
      aggregated_bytes: usage.bytes,
      aggregated_packets: 2n * BigInt(usage.flows),
      late_flows: adjustment.flows,
      late_bytes: adjustment.bytes,
      late_packets: 2n * BigInt(adjustment.flows),
      rejected_flows: rejected,
      rejected_bytes: 0n,
      rejected_packets: 0n,
      lost_flows: lost.flows,
      lost_bytes: lost.bytes,
      lost_packets: 2n * BigInt(lost.flows),
    };
  }

  append(content: Pick<Output, 'aggregate' | 'window_close'>): this {
    const output: Output = { partition: this.partition, n: this.outputs.length + 1, chain: Buffer.alloc(16), ...content, correction: null };
    output.chain = sha256(encodeForChain(output, this.#chain)).subarray(0, 16);
    this.#chain = output.chain;
    this.outputs.push(output);
    return this;
  }
}
