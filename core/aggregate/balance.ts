/** What was accepted and given out since the last WindowClose, per exporter (DESIGN 3.7). */
import type { ExporterBalance, ExporterReport, Loss } from '../../schemas/types.ts';
import type { Totals } from './sums.ts';
import { compareExporters, type ExporterName, exporterKey, type Window } from './window.ts';

/** Beside what is held at most, which is 2^62, it leaves decoded below 2^63. */
const lostMax = 2n ** 61n;

export class Balance {
  readonly #exporters = new Map<string, ExporterBalance>();

  static restore(entries: readonly ExporterBalance[]): Balance {
    const balance = new Balance();
    for (const entry of entries) balance.#exporters.set(exporterKey(entry), { ...entry });
    return balance;
  }

  /** Sorted by address, observation domain and protocol. */
  entries(): ExporterBalance[] {
    return [...this.#exporters.values()].sort(compareExporters).map((entry) => ({ ...entry }));
  }

  /** As entries; the next count begins at zero. */
  take(): ExporterBalance[] {
    const entries = [...this.#exporters.values()].sort(compareExporters);
    this.#exporters.clear();
    return entries;
  }

  report(report: ExporterReport): void {
    const entry = this.#of(report);
    entry.received_datagrams += report.received_datagrams;
    entry.undecodable_datagrams += report.undecodable_datagrams;
    entry.duplicate_datagrams += report.duplicate_datagrams;
    entry.lost_on_wire_flows += report.lost_on_wire_flows;
    entry.lost_on_wire_datagrams += report.lost_on_wire_datagrams;
    entry.undecodable_flows += report.undecodable_flows;
    entry.decoded_flows += report.decoded_flows;
    entry.decoded_bytes += report.decoded_bytes;
    entry.decoded_packets += report.decoded_packets;
    entry.rejected_flows += report.rejected_flows;
  }

  /** Flows that a report counts as decoded and the fold does not take; as everything that is rejected they count without bytes and packets. */
  reject(name: ExporterName, totals: Totals): void {
    const entry = this.#of(name);
    entry.rejected_flows += totals.flows;
    entry.decoded_bytes -= totals.bytes;
    entry.decoded_packets -= totals.packets;
  }

  /** What is lost was decoded before; the reports do not count it. Absurd counters count as far as an output can carry their sum. */
  loss(loss: Loss): void {
    const entry = this.#of(loss);
    const bytes = smaller(loss.bytes, lostMax - entry.lost_bytes);
    const packets = smaller(loss.packets, lostMax - entry.lost_packets);
    entry.decoded_flows += loss.nars;
    entry.decoded_bytes += bytes;
    entry.decoded_packets += packets;
    entry.lost_flows += loss.nars;
    entry.lost_bytes += bytes;
    entry.lost_packets += packets;
  }

  giveOut(window: Window, as: 'aggregated' | 'late'): void {
    for (const { name, totals } of window.exporters.values()) {
      const entry = this.#of(name);
      entry[`${as}_flows`] += totals.flows;
      entry[`${as}_bytes`] += totals.bytes;
      entry[`${as}_packets`] += totals.packets;
    }
  }

  #of(name: ExporterName): ExporterBalance {
    const key = exporterKey(name);
    const known = this.#exporters.get(key);
    if (known) return known;
    const entry = nothingOf(name);
    this.#exporters.set(key, entry);
    return entry;
  }
}

function smaller(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}

function nothingOf({ sampler_address, observation_domain_id, protocol }: ExporterName): ExporterBalance {
  return {
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
    aggregated_flows: 0,
    aggregated_bytes: 0n,
    aggregated_packets: 0n,
    late_flows: 0,
    late_bytes: 0n,
    late_packets: 0n,
    rejected_flows: 0,
    rejected_bytes: 0n,
    rejected_packets: 0n,
    lost_flows: 0,
    lost_bytes: 0n,
    lost_packets: 0n,
  };
}
