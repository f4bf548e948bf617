/**
 * Closes the windows that the watermark has passed. Of each, in order: at the first of a call all adjustments that wait, its usage in key order,
 * its WindowClose. Windows without usage that follow one another are closed by one WindowClose that spans them.
 */
import type { FoldConfig, WindowClose } from '../../schemas/types.ts';
import type { Balance } from './balance.ts';
import type { Outputs } from './outputs.ts';
import { Coverage, inKeyOrder, type Window, windowStart } from './window.ts';
import type { Windows } from './windows.ts';

export interface Closing {
  readonly windows: Windows;
  readonly balance: Balance;
  readonly outputs: Outputs;
  readonly config: FoldConfig;
  readonly watermarkMs: number;
  /** In nars, of the record that closes them. */
  readonly offset: number;
  readonly doubts: () => number;
  readonly heardIn: (startMs: number, endMs: number) => string[];
}

/** Aggregates given out since the last WindowClose. */
interface Given {
  aggregates: number;
  flows: number;
  bytes: bigint;
  packets: bigint;
}

const nothingGiven = (): Given => ({ aggregates: 0, flows: 0, bytes: 0n, packets: 0n });

interface Span {
  readonly startMs: number;
  readonly endMs: number;
  readonly windowMs: number;
}

export function closeWindows(closing: Closing): void {
  const { windows, watermarkMs, config } = closing;
  const horizonMs = windowStart(watermarkMs, config.window_ms);
  const due = windows.due(watermarkMs);
  let closedMs = windows.closedThroughMs as number;
  if (horizonMs <= closedMs && !due.some((window) => window.hasUsage)) return;
  const coverage = new Coverage();
  let adjustments: Given = giveOutLate(closing, coverage);
  const close = (span: Span, usage: Given) => {
    closedMs = Math.max(closedMs, span.endMs);
    windows.closedThroughMs = closedMs;
    closing.outputs.close(windowClose(closing, span, usage, adjustments, coverage));
    adjustments = nothingGiven();
    coverage.clear();
  };
  for (const window of due) {
    const { startMs, endMs, hasUsage } = window;
    if (hasUsage && startMs > closedMs) close({ startMs: closedMs, endMs: startMs, windowMs: config.window_ms }, nothingGiven());
    coverage.add(window.coverage);
    windows.remove(window);
    if (!hasUsage) continue;
    const usage = nothingGiven();
    giveOut(closing, window, 'usage', usage);
    close({ startMs, endMs, windowMs: endMs - startMs }, usage);
  }
  if (horizonMs > closedMs) close({ startMs: closedMs, endMs: horizonMs, windowMs: config.window_ms }, nothingGiven());
  // Left only after a change of the window's length: a window that overlaps one already closed.
  else if (!coverage.isEmpty) windows.coverageAt(closedMs).coverage.add(coverage);
}

/** What is clamped or unsampled in them counts for the window that is closed next. */
function giveOutLate(closing: Closing, coverage: Coverage): Given {
  const given = nothingGiven();
  for (const window of closing.windows.takeLate()) {
    coverage.add(window.coverage);
    giveOut(closing, window, 'adjustment', given);
  }
  return given;
}

/** In key order. */
function giveOut({ outputs, balance, windows }: Closing, window: Window, kind: 'usage' | 'adjustment', given: Given): void {
  balance.giveOut(window, kind === 'usage' ? 'aggregated' : 'late');
  for (const { fields, usage } of inKeyOrder(window.groups)) {
    const { raw, scaled } = usage;
    const { flows, bytes, packets } = raw;
    const { bytes: scaled_bytes, packets: scaled_packets } = scaled;
    const { startMs: window_start_ms, endMs: window_end_ms } = window;
    outputs.aggregate({ kind, window_start_ms, window_end_ms, group: [...fields], flows, bytes, packets, scaled_bytes, scaled_packets });
    windows.givenOut(scaled_bytes, scaled_packets);
    given.aggregates++;
    given.flows += flows;
    given.bytes += bytes;
    given.packets += packets;
  }
  // Groups remember where their last flow was added, and would keep the whole window alive.
  window.groups.clear();
  window.exporters.clear();
}

function windowClose(closing: Closing, { startMs, endMs, windowMs }: Span, usage: Given, adjustments: Given, coverage: Coverage): WindowClose {
  const open = closing.windows.open();
  return {
    window_start_ms: startMs,
    window_end_ms: endMs,
    window_ms: windowMs,
    watermark_ms: closing.watermarkMs,
    nars_offset: closing.offset,
    fold_config_version: closing.config.version,
    usage_aggregates: usage.aggregates,
    usage_flows: usage.flows,
    usage_bytes: usage.bytes,
    usage_packets: usage.packets,
    adjustment_aggregates: adjustments.aggregates,
    adjustment_flows: adjustments.flows,
    adjustment_bytes: adjustments.bytes,
    adjustment_packets: adjustments.packets,
    open_flows: open.flows,
    open_bytes: open.bytes,
    open_packets: open.packets,
    collectors: closing.heardIn(startMs, endMs),
    lost_on_wire_flows: coverage.lostOnWireFlows,
    lost_on_wire_datagrams: coverage.lostOnWireDatagrams,
    lost_flows: coverage.lostFlows,
    clamped_flows: coverage.clampedFlows,
    unsampled_flows: coverage.unsampledFlows,
    doubts: closing.doubts(),
    exporters: closing.balance.take(),
  };
}
