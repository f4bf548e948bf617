/** A tumbling window and what it has summed up; and the integer shares of a flow that spans several. */
import type { GroupField } from '../../schemas/types.ts';
import { Totals, Usage } from './sums.ts';

export interface ExporterName {
  readonly sampler_address: string;
  readonly observation_domain_id: number;
  readonly protocol: string;
}

export interface WindowGroup {
  readonly fields: readonly GroupField[];
  readonly usage: Usage;
}

export interface WindowExporter {
  readonly name: ExporterName;
  readonly totals: Totals;
}

/** What is known of a window beside its usage. */
export class Coverage {
  lostOnWireFlows = 0;
  lostOnWireDatagrams = 0;
  lostFlows = 0;
  clampedFlows = 0;
  unsampledFlows = 0;

  add(other: Coverage): void {
    this.lostOnWireFlows += other.lostOnWireFlows;
    this.lostOnWireDatagrams += other.lostOnWireDatagrams;
    this.lostFlows += other.lostFlows;
    this.clampedFlows += other.clampedFlows;
    this.unsampledFlows += other.unsampledFlows;
  }

  clear(): void {
    this.lostOnWireFlows = 0;
    this.lostOnWireDatagrams = 0;
    this.lostFlows = 0;
    this.clampedFlows = 0;
    this.unsampledFlows = 0;
  }

  get isEmpty(): boolean {
    const { lostOnWireFlows, lostOnWireDatagrams, lostFlows, clampedFlows, unsampledFlows } = this;
    return lostOnWireFlows === 0 && lostOnWireDatagrams === 0 && lostFlows === 0 && clampedFlows === 0 && unsampledFlows === 0;
  }
}

/** Either open, or closed and collecting adjustments. */
export class Window {
  /** Unix time in ms; the end is not in the window. */
  readonly startMs: number;
  readonly endMs: number;
  readonly coverage = new Coverage();
  /** By the group's key. */
  readonly groups = new Map<string, WindowGroup>();
  /** By exporterKey. */
  readonly exporters = new Map<string, WindowExporter>();

  constructor(startMs: number, endMs: number) {
    this.startMs = startMs;
    this.endMs = endMs;
  }

  get hasUsage(): boolean {
    return this.groups.size > 0;
  }

  usageOf(key: string, fields: readonly GroupField[]): Usage {
    const group = this.groups.get(key) ?? { fields, usage: new Usage() };
    this.groups.set(key, group);
    return group.usage;
  }

  totalsOf(key: string, name: ExporterName): Totals {
    const exporter = this.exporters.get(key) ?? { name, totals: new Totals() };
    this.exporters.set(key, exporter);
    return exporter.totals;
  }
}

export function exporterKey({ sampler_address, observation_domain_id, protocol }: ExporterName): string {
  return `${sampler_address}|${observation_domain_id}|${protocol}`;
}

export function compareExporters(a: ExporterName, b: ExporterName): number {
  return (
    compareText(a.sampler_address, b.sampler_address) || a.observation_domain_id - b.observation_domain_id || compareText(a.protocol, b.protocol)
  );
}

/** By UTF-16 code units, which no locale changes. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function compareWindows(a: Window, b: Window): number {
  return a.endMs - b.endMs || a.startMs - b.startMs;
}

/** Entries of a map with text keys, in the order of the outputs. */
export function inKeyOrder<Value>(map: ReadonlyMap<string, Value>): Value[] {
  return [...map].sort(([a], [b]) => compareText(a, b)).map(([, value]) => value);
}

export function windowStart(atMs: number, windowMs: number): number {
  return Math.floor(atMs / windowMs) * windowMs;
}

/** How many ms of a flow lie in each window that it spans; both its first and its last ms count. */
export function overlaps(startMs: number, endMs: number, windowMs: number): { readonly windowStartMs: number; readonly ms: number }[] {
  const parts: { windowStartMs: number; ms: number }[] = [];
  for (let from = windowStart(startMs, windowMs); from <= endMs; from += windowMs) {
    parts.push({ windowStartMs: from, ms: Math.min(endMs + 1, from + windowMs) - Math.max(startMs, from) });
  }
  return parts;
}

/** Integer shares of an amount by weight (ms), which add up to it: the largest remainders get one more, the earlier of equal ones first. */
export function shares(amount: number, weights: readonly number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const parts = weights.map((weight, index) => {
    // The product passes 2^53 only for huge flows, which are rare enough for a bigint.
    if (amount * weight <= Number.MAX_SAFE_INTEGER) {
      const share = Math.floor((amount * weight) / total);
      return { index, share, rest: amount * weight - share * total };
    }
    const product = BigInt(amount) * BigInt(weight);
    return { index, share: Number(product / BigInt(total)), rest: Number(product % BigInt(total)) };
  });
  const result = parts.map(({ share }) => share);
  const left = amount - result.reduce((sum, share) => sum + share, 0);
  parts.sort((a, b) => b.rest - a.rest || a.index - b.index);
  for (const { index } of parts.slice(0, left)) result[index] = (result[index] as number) + 1;
  return result;
}
