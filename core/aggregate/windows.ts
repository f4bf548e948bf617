/**
 * The windows of a partition: open ones, and closed ones for which adjustments wait.
 *
 * I9. A window is closed when its end is at or before closedThroughMs. A flow of a closed window is added to the adjustments of that window,
 * any other to the open window, so every accepted flow is in exactly one of them.
 */
import type { ExporterReport, GroupState, WindowState } from '../../schemas/types.ts';
import { type Group, groupKey } from './group-key.ts';
import { type NarColumns, numberAt } from './nar-columns.ts';
import type { Settings } from './settings.ts';
import { Held, Totals, type Usage } from './sums.ts';
import {
  compareExporters,
  compareWindows,
  type ExporterName,
  exporterKey,
  inKeyOrder,
  overlaps,
  shares,
  Window,
  type WindowGroup,
  windowStart,
} from './window.ts';

/** An exporter of one batch, with where its last flow was added. */
interface BatchExporter {
  readonly key: string;
  readonly report: ExporterReport;
  window: Window | null;
  totals: Totals | null;
  rejected: Totals | null;
}

/** A flow that is longer than its window. */
interface SpreadFlow {
  readonly startMs: number;
  readonly endMs: number;
  readonly bytes: number;
  readonly packets: number;
  readonly factor: number;
}

const [bytesAt, packetsAt, rateAt] = [numberAt('bytes'), numberAt('packets'), numberAt('sampling_rate')];
const [startAt, endAt, receivedAt] = [numberAt('time_flow_start_ms'), numberAt('time_flow_end_ms'), numberAt('time_received_ms')];

/** Flows of an exporter that were not taken, since what is held already leaves no room for their counters. */
export interface Rejected {
  readonly report: ExporterReport;
  readonly totals: Totals;
}

/** Flows, bytes and packets that were accepted and are in no output yet. */
export interface Open {
  flows: number;
  bytes: bigint;
  packets: bigint;
}

export class Windows {
  /** Null before the first watermark: then no window is closed. */
  closedThroughMs: number | null = null;
  /** By start; windows of the present configuration's length. */
  #open = new Map<number, Window>();
  #late = new Map<number, Window>();
  /** Windows of the lengths of former configurations, which flows are no longer added to. */
  #formerOpen: Window[] = [];
  #formerLate: Window[] = [];
  #windowMs = 0;
  readonly #held = new Held();

  static restore(closedThroughMs: number | null, open: readonly WindowState[], late: readonly WindowState[], windowMs: number): Windows {
    const windows = new Windows();
    windows.closedThroughMs = closedThroughMs;
    windows.#formerOpen = open.map(restoreWindow);
    windows.#formerLate = late.map(restoreWindow);
    for (const { groups } of [...open, ...late]) for (const group of groups) windows.#held.addTotals(group.scaled_bytes, group.scaled_packets);
    windows.adopt(windowMs);
    return windows;
  }

  /** From now on flows are added to windows of this length. Windows that are open close when the watermark passes their own end. */
  adopt(windowMs: number): void {
    const open = [...this.#open.values(), ...this.#formerOpen];
    const late = [...this.#late.values(), ...this.#formerLate];
    const isPresent = (window: Window) => window.endMs - window.startMs === windowMs;
    this.#windowMs = windowMs;
    this.#open = new Map(open.filter(isPresent).map((window) => [window.startMs, window]));
    this.#late = new Map(late.filter(isPresent).map((window) => [window.startMs, window]));
    this.#formerOpen = open.filter((window) => !isPresent(window));
    this.#formerLate = late.filter((window) => !isPresent(window));
  }

  /**
   * Adds the flows of a batch, which were received at most at its append time: a collector's clock that is ahead would put them into windows that
   * close in hours. Every exporter is an index into reports. @returns what was not taken, by exporter
   */
  add(nars: NarColumns, reports: readonly ExporterReport[], settings: Settings, appendedMs: number): Rejected[] {
    const { config, keys, scaled } = settings;
    const { past_ms_max: pastMs, future_ms_max: futureMs, spread } = config;
    const exporters = reports.map((report): BatchExporter => ({ key: exporterKey(report), report, window: null, totals: null, rejected: null }));
    let window: Window | null = null;
    const { numbers } = nars;
    const [allBytes, allPackets, rates] = [numbers[bytesAt], numbers[packetsAt], numbers[rateAt]] as [Float64Array, Float64Array, Float64Array];
    const [starts, ends, receptions] = [numbers[startAt], numbers[endAt], numbers[receivedAt]] as [Float64Array, Float64Array, Float64Array];
    for (let index = 0; index < nars.count; index++) {
      const exporter = exporters[nars.exporter[index] as number] as BatchExporter;
      const group = keys.groupOf(nars, index, exporter.report);
      const receivedMs = Math.min(receptions[index] as number, appendedMs);
      let endMs = ends[index] as number;
      const inBounds = endMs >= receivedMs - pastMs && endMs <= receivedMs + futureMs;
      if (!inBounds) endMs = endMs < receivedMs ? receivedMs - pastMs : receivedMs + futureMs;
      if (window === null || endMs < window.startMs || endMs >= window.endMs) window = this.#windowAt(windowStart(endMs, this.#windowMs));
      const [bytes, packets, rate] = [allBytes[index] as number, allPackets[index] as number, rates[index] as number];
      // A product of 2^53 or more is as implausible as such a counter; the flow then counts as exported, as one whose rate is not known.
      const sampled = scaled && rate > 0 && bytes * rate <= Number.MAX_SAFE_INTEGER && packets * rate <= Number.MAX_SAFE_INTEGER;
      const factor = sampled ? rate : 1;
      if (!this.#held.add(bytes * factor, packets * factor)) {
        exporter.rejected ??= new Totals();
        exporter.rejected.add(1, bytes, packets);
        continue;
      }
      if (!inBounds) window.coverage.clampedFlows++;
      if (scaled && !sampled) window.coverage.unsampledFlows++;
      const startMs = starts[index] as number;
      if (spread && startMs < window.startMs) {
        this.#spread(group, exporter, { startMs: Math.max(startMs, endMs - pastMs), endMs, bytes, packets, factor });
      } else addTo(window, group, exporter, 1, bytes, packets, factor);
    }
    return exporters.flatMap(({ report, rejected }) => (rejected ? { report, totals: rejected } : []));
  }

  /** They are in an output now. */
  givenOut(scaledBytes: bigint, scaledPackets: bigint): void {
    this.#held.addTotals(-scaledBytes, -scaledPackets);
  }

  /** The window that a batch's coverage counts for: that of the time, or the first open one if that is closed. */
  coverageAt(atMs: number): Window {
    return this.#openAt(windowStart(Math.max(atMs, this.closedThroughMs ?? atMs), this.#windowMs));
  }

  /** Begins to close windows at the first watermark; nothing that is open already is skipped. */
  begin(watermarkMs: number): void {
    let from = windowStart(watermarkMs, this.#windowMs);
    for (const { startMs } of this.#allOpen()) if (startMs < from) from = startMs;
    this.closedThroughMs = from;
  }

  /** The open windows that end at or before the watermark, in order of their ends. */
  due(watermarkMs: number): Window[] {
    return this.#allOpen()
      .filter((window) => window.endMs <= watermarkMs)
      .sort(compareWindows);
  }

  /** Takes out an open window. */
  remove(window: Window): void {
    if (this.#open.get(window.startMs) === window) this.#open.delete(window.startMs);
    else this.#formerOpen = this.#formerOpen.filter((other) => other !== window);
  }

  /** Takes out all adjustments. */
  takeLate(): Window[] {
    const late = [...this.#late.values(), ...this.#formerLate].sort(compareWindows);
    this.#late.clear();
    this.#formerLate = [];
    return late;
  }

  open(): Open {
    const open = { flows: 0, bytes: 0n, packets: 0n };
    for (const window of [...this.#allOpen(), ...this.#late.values(), ...this.#formerLate]) {
      for (const { totals } of window.exporters.values()) {
        open.flows += totals.flows;
        open.bytes += totals.bytes;
        open.packets += totals.packets;
      }
    }
    return open;
  }

  /** Sorted. */
  state(): { open: WindowState[]; late: WindowState[] } {
    const open = this.#allOpen().sort(compareWindows);
    const late = [...this.#late.values(), ...this.#formerLate].sort(compareWindows);
    return { open: open.map(windowState), late: late.map(windowState) };
  }

  #allOpen(): Window[] {
    return [...this.#open.values(), ...this.#formerOpen];
  }

  #windowAt(startMs: number): Window {
    const isClosed = this.closedThroughMs !== null && startMs + this.#windowMs <= this.closedThroughMs;
    return isClosed ? this.#lateAt(startMs) : this.#openAt(startMs);
  }

  #openAt(startMs: number): Window {
    const window = this.#open.get(startMs) ?? new Window(startMs, startMs + this.#windowMs);
    this.#open.set(startMs, window);
    return window;
  }

  #lateAt(startMs: number): Window {
    const window = this.#late.get(startMs) ?? new Window(startMs, startMs + this.#windowMs);
    this.#late.set(startMs, window);
    return window;
  }

  /** The flow counts in the window of its end; its bytes and packets in each that it spans. */
  #spread(group: Group, exporter: BatchExporter, { startMs, endMs, factor, ...flow }: SpreadFlow): void {
    const parts = overlaps(startMs, endMs, this.#windowMs);
    const weights = parts.map(({ ms }) => ms);
    const bytes = shares(flow.bytes, weights);
    const packets = shares(flow.packets, weights);
    for (const [index, { windowStartMs }] of parts.entries()) {
      const flows = index === parts.length - 1 ? 1 : 0;
      const partBytes = bytes[index] as number;
      const partPackets = packets[index] as number;
      if (flows + partBytes + partPackets === 0) continue;
      addTo(this.#windowAt(windowStartMs), group, exporter, flows, partBytes, partPackets, factor);
    }
  }
}

function addTo(window: Window, group: Group, exporter: BatchExporter, flows: number, bytes: number, packets: number, factor: number): void {
  let usage = group.usage;
  if (group.window !== window || usage === null) {
    usage = window.usageOf(group.key, group.fields);
    group.window = window;
    group.usage = usage;
  }
  usage.raw.add(flows, bytes, packets);
  usage.scaled.add(flows, bytes * factor, packets * factor);
  let totals = exporter.totals;
  if (exporter.window !== window || totals === null) {
    totals = window.totalsOf(exporter.key, nameOf(exporter.report));
    exporter.window = window;
    exporter.totals = totals;
  }
  totals.add(flows, bytes, packets);
}

/** A copy, since the report keeps its whole batch alive. */
function nameOf({ sampler_address, observation_domain_id, protocol }: ExporterName): ExporterName {
  return { sampler_address, observation_domain_id, protocol };
}

function windowState(window: Window): WindowState {
  const { coverage } = window;
  return {
    start_ms: window.startMs,
    end_ms: window.endMs,
    groups: inKeyOrder(window.groups).map(groupState),
    exporters: [...window.exporters.values()]
      .sort((a, b) => compareExporters(a.name, b.name))
      .map(({ name, totals }) => ({ ...name, flows: totals.flows, bytes: totals.bytes, packets: totals.packets })),
    lost_on_wire_flows: coverage.lostOnWireFlows,
    lost_on_wire_datagrams: coverage.lostOnWireDatagrams,
    lost_flows: coverage.lostFlows,
    clamped_flows: coverage.clampedFlows,
    unsampled_flows: coverage.unsampledFlows,
  };
}

function groupState({ fields, usage }: WindowGroup): GroupState {
  const { raw, scaled } = usage;
  return {
    group: [...fields],
    flows: raw.flows,
    bytes: raw.bytes,
    packets: raw.packets,
    scaled_bytes: scaled.bytes,
    scaled_packets: scaled.packets,
  };
}

function restoreWindow(state: WindowState): Window {
  const window = new Window(state.start_ms, state.end_ms);
  for (const { group, flows, bytes, packets, scaled_bytes, scaled_packets } of state.groups) {
    const usage: Usage = window.usageOf(groupKey(group), group);
    usage.raw.addTotals({ flows, bytes, packets });
    usage.scaled.addTotals({ flows, bytes: scaled_bytes, packets: scaled_packets });
  }
  for (const exporter of state.exporters) window.totalsOf(exporterKey(exporter), nameOf(exporter)).addTotals(exporter);
  const { coverage } = window;
  coverage.lostOnWireFlows = state.lost_on_wire_flows;
  coverage.lostOnWireDatagrams = state.lost_on_wire_datagrams;
  coverage.lostFlows = state.lost_flows;
  coverage.clampedFlows = state.clamped_flows;
  coverage.unsampledFlows = state.unsampled_flows;
  return window;
}
