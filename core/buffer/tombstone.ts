/** What a batch becomes when its NARs cannot travel: the same number in the log, the same datagram counts, and a Loss in place of the NARs. */
import type { ExporterReport, Loss, NarBatch } from '../../schemas/types.ts';

export type LossReason = 'store_full' | 'memory_full' | 'store_lost' | 'released' | 'refused_by_broker' | 'volatile_ended' | 'session_lost';

/**
 * The batch without its NARs: each exporter's NARs are a Loss with exact totals, its reports count only what was rejected as decoded (the fold counts
 * each Loss as decoded and as lost). Losses that the batch carries already stay.
 */
export function tombstone(batch: NarBatch, reason: LossReason): NarBatch {
  const losses: Loss[] = [...batch.losses];
  const exporters: ExporterReport[] = [];
  for (const report of batch.exporters) {
    const nars = report.decoded_flows - report.rejected_flows;
    if (nars > 0) {
      losses.push({
        reason,
        sampler_address: report.sampler_address,
        observation_domain_id: report.observation_domain_id,
        protocol: report.protocol,
        nars,
        bytes: report.decoded_bytes,
        packets: report.decoded_packets,
        unknown: false,
      });
    }
    if (says(report)) exporters.push({ ...report, decoded_flows: report.rejected_flows, decoded_bytes: 0n, decoded_packets: 0n });
  }
  return { ...batch, exporters, losses, nars: [] };
}

/** A tombstone is kept with the reason it most likely will be sent for; what was lost for another reason before stays as it is. */
export function withReason(kept: NarBatch, reason: LossReason): NarBatch {
  return { ...kept, losses: kept.losses.map((loss) => (loss.reason === 'released' ? { ...loss, reason } : loss)) };
}

export interface Unheld {
  readonly collector: string;
  readonly incarnation: string;
  readonly partition: number;
  readonly sequence: number;
  readonly through: number;
  readonly volatile: boolean;
  readonly goodbye: boolean;
  /** As far as they are known. */
  readonly nars: number;
}

/** Stands for sequences of which nothing is held any more. Its watermark is 0: it says nothing about time. */
export function unknownTombstone(unheld: Unheld): NarBatch {
  const { nars, ...identity } = unheld;
  return { ...emptyBatch(identity, 0), losses: [unknownLoss('store_lost', nars)] };
}

/** Of a size that is not known, but for what is known of its NARs: a doubt in the balance. */
export function unknownLoss(reason: LossReason, nars = 0): Loss {
  return { reason, sampler_address: '', observation_domain_id: 0, protocol: '', nars, bytes: 0n, packets: 0n, unknown: true };
}

export interface BatchIdentity {
  readonly collector: string;
  readonly incarnation: string;
  readonly partition: number;
  readonly sequence: number;
  readonly volatile: boolean;
  readonly goodbye: boolean;
  /** The sequence itself where it is not given. */
  readonly through?: number;
}

/** A tick, a goodbye, or the frame of a tombstone. */
export function emptyBatch(identity: BatchIdentity, watermarkMs: number): NarBatch {
  return {
    through: identity.sequence,
    ...identity,
    watermark_ms: watermarkMs,
    exporters: [],
    losses: [],
    fold_config: null,
    base: null,
    nars: [],
  };
}

export function lostNars(losses: readonly Loss[]): number {
  let nars = 0;
  for (const loss of losses) nars += loss.nars;
  return nars;
}

function says(report: ExporterReport): boolean {
  return (
    report.received_datagrams !== 0 ||
    report.undecodable_datagrams !== 0 ||
    report.duplicate_datagrams !== 0 ||
    report.lost_on_wire_flows !== 0 ||
    report.lost_on_wire_datagrams !== 0 ||
    report.undecodable_flows !== 0 ||
    report.rejected_flows !== 0
  );
}
