/**
 * What is known about a five-minute sample besides its sums, so that zero can be told from a gap: an account without traffic in a complete
 * sample used nothing; in an incomplete one nobody knows.
 * A sample is complete only when, in every partition, closed windows cover all of it, the same collectors were heard all the time, and
 * nothing is known to be lost or in doubt.
 */
import type { WindowClose } from '../../schemas/types.ts';
import { sampleMs, sampleStart } from './samples.ts';

/** Of one sample in one partition. */
export interface Coverage {
  /** Time of the sample that WindowCloses named, in ms of 300000. */
  readonly coveredMs: number;
  /** Of that, in windows that are closed. */
  readonly closedMs: number;
  /** Of that, in windows in which no collector was heard. */
  readonly unheardMs: number;
  /** Heard in any of the windows, and in all of them; sorted. */
  readonly collectors: readonly string[];
  readonly collectorsThroughout: readonly string[];
  readonly lostOnWireFlows: number;
  readonly lostOnWireDatagrams: number;
  readonly lostFlows: number;
  readonly clampedFlows: number;
  readonly unsampledFlows: number;
  /** The most that stood at any of the closes. */
  readonly doubts: number;
}

/** Of one sample over all partitions. */
export interface Completeness {
  readonly complete: boolean;
  /** Why not; empty when complete. */
  readonly reasons: readonly string[];
  readonly collectors: readonly string[];
  readonly lostOnWireFlows: number;
  readonly lostOnWireDatagrams: number;
  readonly lostFlows: number;
  readonly doubts: number;
}

/** What a WindowClose says of coverage. */
export type Covering = Pick<
  WindowClose,
  | 'window_start_ms'
  | 'window_end_ms'
  | 'collectors'
  | 'lost_on_wire_flows'
  | 'lost_on_wire_datagrams'
  | 'lost_flows'
  | 'clamped_flows'
  | 'unsampled_flows'
  | 'doubts'
>;

/** A run of windows without usage can be as long as the system stood still; samples further than this before its end stay incomplete. */
const samplesPerCloseMax = 10_000;

/** Starts of the samples that a close's windows lie in, ascending. */
export function touchedSamples(close: Covering): number[] {
  const last = sampleStart(close.window_end_ms - 1);
  const starts: number[] = [];
  for (let start = Math.max(sampleStart(close.window_start_ms), last - (samplesPerCloseMax - 1) * sampleMs); start <= last; start += sampleMs) {
    starts.push(start);
  }
  return starts;
}

/** What a close adds to the coverage of the sample at startMs. The losses of a run of windows count in each sample that the run lies in. */
export function cover(before: Coverage | null, startMs: number, close: Covering, closed: boolean): Coverage {
  const ms = Math.min(close.window_end_ms, startMs + sampleMs) - Math.max(close.window_start_ms, startMs);
  const heard = close.collectors;
  return {
    coveredMs: (before?.coveredMs ?? 0) + ms,
    closedMs: (before?.closedMs ?? 0) + (closed ? ms : 0),
    unheardMs: (before?.unheardMs ?? 0) + (heard.length === 0 ? ms : 0),
    collectors: union(before?.collectors ?? [], heard),
    collectorsThroughout: before ? before.collectorsThroughout.filter((name) => heard.includes(name)) : heard,
    lostOnWireFlows: (before?.lostOnWireFlows ?? 0) + close.lost_on_wire_flows,
    lostOnWireDatagrams: (before?.lostOnWireDatagrams ?? 0) + close.lost_on_wire_datagrams,
    lostFlows: (before?.lostFlows ?? 0) + close.lost_flows,
    clampedFlows: (before?.clampedFlows ?? 0) + close.clamped_flows,
    unsampledFlows: (before?.unsampledFlows ?? 0) + close.unsampled_flows,
    doubts: Math.max(before?.doubts ?? 0, close.doubts),
  };
}

/** `parts` has one entry for each partition in which anything of the sample is known. */
export function completeness(parts: readonly Coverage[], partitions: number): Completeness {
  const collectors = parts.reduce<readonly string[]>((names, part) => union(names, part.collectors), []);
  const partly = collectors.filter((name) => !parts.every((part) => part.collectorsThroughout.includes(name)));
  const sum = (of: (part: Coverage) => number) => parts.reduce((total, part) => total + of(part), 0);
  const whole = partitions * sampleMs;
  const lostOnWireFlows = sum((part) => part.lostOnWireFlows);
  const lostOnWireDatagrams = sum((part) => part.lostOnWireDatagrams);
  const lostFlows = sum((part) => part.lostFlows);
  const doubts = sum((part) => part.doubts);
  const unnamedMs = whole - sum((part) => part.coveredMs);
  const disagreeingMs = sum((part) => part.coveredMs - part.closedMs);
  const unheardMs = sum((part) => part.unheardMs);
  const reasons: string[] = [];
  if (unnamedMs > 0) reasons.push(`windows not closed yet, or from before the first: ${seconds(unnamedMs)} of ${seconds(whole)} over all partitions`);
  if (disagreeingMs > 0) reasons.push(`windows whose sums do not agree: ${seconds(disagreeingMs)}`);
  if (unheardMs > 0) reasons.push(`no collector heard: ${seconds(unheardMs)}`);
  if (partly.length > 0) reasons.push(`heard during a part only: ${partly.join(', ')}`);
  if (lostOnWireFlows > 0) reasons.push(`lost on the wire: ${lostOnWireFlows} flows`);
  if (lostOnWireDatagrams > 0) reasons.push(`lost on the wire: ${lostOnWireDatagrams} datagrams`);
  if (lostFlows > 0) reasons.push(`lost: ${lostFlows} flows`);
  if (doubts > 0) reasons.push(`losses of unknown size: ${doubts}`);
  return { complete: reasons.length === 0, reasons, collectors, lostOnWireFlows, lostOnWireDatagrams, lostFlows, doubts };
}

function union(a: readonly string[], b: readonly string[]): readonly string[] {
  if (a.length === b.length && a.every((name, index) => name === b[index])) return a;
  return [...new Set([...a, ...b])].sort();
}

function seconds(ms: number): string {
  return `${ms / 1000} s`;
}
