/**
 * What the outputs of a partition must say, computed a second time: every accepted flow is kept by itself, with the window that DESIGN 3.3 gives it,
 * and summed up anew when its window closes. No code of the fold is used; slow and simple on purpose.
 */
import { adminCollector } from '../../schemas/topics.ts';
import type { FoldConfig, Nar, NarBatch } from '../../schemas/types.ts';

export interface Totals {
  flows: number;
  bytes: bigint;
  packets: bigint;
}

export const noTotals = (): Totals => ({ flows: 0, bytes: 0n, packets: 0n });

export function addTotals(sum: Totals, more: Totals): void {
  sum.flows += more.flows;
  sum.bytes += more.bytes;
  sum.packets += more.packets;
}

interface Span {
  readonly startMs: number;
  readonly endMs: number;
}

/** A flow, or what of it lies in one window. */
interface Share extends Span, Totals {
  readonly accounts: string;
  readonly exporter: string;
  readonly isLate: boolean;
}

/** Counts for a window what is not usage. */
interface Remark extends Span {
  readonly isLate: boolean;
  readonly lostOnWire: number;
  readonly lost: number;
  readonly clamped: number;
}

/** A WindowClose and the aggregates before it. */
export interface Close extends Span {
  readonly windowMs: number;
  readonly watermarkMs: number;
  readonly offset: number;
  readonly version: number;
  /** By accounts. */
  readonly usage: ReadonlyMap<string, Totals>;
  /** By window and accounts. */
  readonly adjustments: ReadonlyMap<string, Totals>;
  readonly open: Totals;
  readonly collectors: readonly string[];
  readonly lostOnWire: number;
  readonly lost: number;
  readonly clamped: number;
  readonly doubts: number;
  /** Given out since the last close, by exporter. */
  readonly givenOut: ReadonlyMap<string, Totals>;
}

interface Life {
  readonly collector: string;
  firstMs: number;
  highestMs: number;
  goodbye: boolean;
  volatile: boolean;
}

export class ExpectedCloses {
  watermarkMs: number | null = null;
  readonly #accountsOf: (nar: Nar) => string;
  readonly #lives = new Map<string, Life>();
  #closedMs: number | null = null;
  #shares: Share[] = [];
  #remarks: Remark[] = [];
  #unknownLosses = 0;

  constructor(accountsOf: (nar: Nar) => string) {
    this.#accountsOf = accountsOf;
  }

  /** An accepted batch. @returns what is closed by it */
  take(batch: NarBatch, { offset, appendedMs }: { offset: number; appendedMs: number }, config: FoldConfig): Close[] {
    const heardMs = Math.min(batch.watermark_ms, appendedMs);
    this.#live(batch, heardMs - config.lateness_ms);
    const allowedMs = this.#allowed(config);
    const isFirst = this.#closedMs === null;
    if (allowedMs !== null) this.watermarkMs = Math.max(this.watermarkMs ?? allowedMs, allowedMs);
    if (isFirst && this.watermarkMs !== null) {
      this.#closedMs = Math.min(floorTo(this.watermarkMs, config.window_ms), ...this.#shares.map(({ startMs }) => startMs));
      for (const { startMs } of this.#remarks) this.#closedMs = Math.min(this.#closedMs, startMs);
    }
    for (const nar of batch.nars) this.#add(nar, exporterOf(batch, nar), config);
    this.#report(batch, heardMs, config);
    return this.watermarkMs === null ? [] : this.#close(offset, this.watermarkMs, config);
  }

  #live({ collector, incarnation, goodbye, volatile }: NarBatch, ownMs: number): void {
    if (collector === adminCollector) return;
    const name = `${collector}/${incarnation}`;
    const life = this.#lives.get(name) ?? { collector, firstMs: ownMs, highestMs: ownMs, goodbye: false, volatile: false };
    this.#lives.set(name, life);
    life.highestMs = Math.max(life.highestMs, ownMs);
    life.goodbye = goodbye;
    life.volatile ||= volatile;
  }

  /** Live: no goodbye since its last batch, and not too far behind the highest of those. */
  #isLive(life: Life, config: FoldConfig): boolean {
    const highestMs = Math.max(...[...this.#lives.values()].filter(({ goodbye }) => !goodbye).map((one) => one.highestMs));
    return !life.goodbye && life.highestMs >= highestMs - config.live_within_ms;
  }

  #allowed(config: FoldConfig): number | null {
    const live = [...this.#lives.values()].filter((life) => this.#isLive(life, config));
    return live.length === 0 ? null : Math.min(...live.map(({ highestMs }) => highestMs));
  }

  #add(nar: Nar, exporter: string, config: FoldConfig): void {
    const lowMs = nar.time_received_ms - config.past_ms_max;
    const highMs = nar.time_received_ms + config.future_ms_max;
    const endMs = Math.min(highMs, Math.max(lowMs, nar.time_flow_end_ms));
    const last = this.#windowOf(endMs, config);
    if (endMs !== nar.time_flow_end_ms) this.#remarks.push({ ...last, lostOnWire: 0, lost: 0, clamped: 1 });
    const startMs = config.spread ? Math.max(nar.time_flow_start_ms, endMs - config.past_ms_max) : endMs;
    const accounts = this.#accountsOf(nar);
    const weights: { window: Span & { isLate: boolean }; ms: number }[] = [];
    for (let ms = floorTo(Math.min(startMs, endMs), config.window_ms); ms <= endMs; ms += config.window_ms) {
      const window = this.#windowOf(ms, config);
      weights.push({ window, ms: Math.min(endMs + 1, window.endMs) - Math.max(Math.min(startMs, endMs), window.startMs) });
    }
    const bytes = divided(
      nar.bytes,
      weights.map(({ ms }) => ms),
    );
    const packets = divided(
      nar.packets,
      weights.map(({ ms }) => ms),
    );
    for (const [index, { window }] of weights.entries()) {
      const share = { flows: index === weights.length - 1 ? 1 : 0, bytes: bytes[index]!, packets: packets[index]! };
      if (share.flows > 0 || share.bytes > 0n || share.packets > 0n) this.#shares.push({ ...window, ...share, accounts, exporter });
    }
  }

  #windowOf(atMs: number, { window_ms: windowMs }: FoldConfig) {
    const startMs = floorTo(atMs, windowMs);
    return { startMs, endMs: startMs + windowMs, isLate: this.#closedMs !== null && startMs + windowMs <= this.#closedMs };
  }

  #report(batch: NarBatch, heardMs: number, config: FoldConfig): void {
    if (batch.exporters.length === 0 && batch.losses.length === 0) return;
    const window = this.#windowOf(Math.max(heardMs, this.#closedMs ?? heardMs), config);
    const lostOnWire = batch.exporters.reduce((sum, report) => sum + report.lost_on_wire_flows, 0);
    const lost = batch.losses.reduce((sum, loss) => sum + loss.nars, 0);
    this.#unknownLosses += batch.losses.filter(({ unknown }) => unknown).length;
    this.#remarks.push({ ...window, isLate: false, lostOnWire, lost, clamped: 0 });
  }

  #close(offset: number, watermarkMs: number, config: FoldConfig): Close[] {
    const windowMs = config.window_ms;
    const horizonMs = floorTo(watermarkMs, windowMs);
    const isDue = ({ endMs, isLate }: { endMs: number; isLate: boolean }) => !isLate && endMs <= watermarkMs;
    if (horizonMs <= this.#closedMs! && !this.#shares.some(isDue)) return [];
    const closes: Close[] = [];
    let late = this.#takeShares(({ isLate }) => isLate);
    let remarks = this.#takeRemarks(({ isLate }) => isLate);
    const close = (span: Span, ofMs: number, usage: readonly Share[]) => {
      this.#closedMs = Math.max(this.#closedMs!, span.endMs);
      closes.push(this.#closeOf(span, ofMs, usage, late, remarks, { offset, watermarkMs, config }));
      late = [];
      remarks = [];
    };
    for (const span of this.#spansDue(isDue)) {
      const isOf = (one: Span & { isLate: boolean }) => !one.isLate && one.startMs === span.startMs && one.endMs === span.endMs;
      const hasUsage = this.#shares.some(isOf);
      if (hasUsage && span.startMs > this.#closedMs!) close({ startMs: this.#closedMs!, endMs: span.startMs }, windowMs, []);
      remarks.push(...this.#takeRemarks(isOf));
      if (hasUsage) close(span, span.endMs - span.startMs, this.#takeShares(isOf));
    }
    if (horizonMs > this.#closedMs!) close({ startMs: this.#closedMs!, endMs: horizonMs }, windowMs, []);
    else for (const remark of remarks) this.#remarks.push({ ...remark, ...this.#windowOf(this.#closedMs!, config), isLate: false });
    return closes;
  }
  #spansDue(isDue: (one: Span & { isLate: boolean }) => boolean): Span[] {
    const spans = new Map<string, Span>();
    for (const { startMs, endMs, isLate } of [...this.#shares, ...this.#remarks]) {
      if (isDue({ startMs, endMs, isLate })) spans.set(`${startMs}-${endMs}`, { startMs, endMs });
    }
    return [...spans.values()].sort((one, other) => one.endMs - other.endMs || one.startMs - other.startMs);
  }

  #takeShares(which: (share: Share) => boolean): Share[] {
    const taken = this.#shares.filter(which);
    this.#shares = this.#shares.filter((share) => !which(share));
    return taken;
  }

  #takeRemarks(which: (remark: Remark) => boolean): Remark[] {
    const taken = this.#remarks.filter(which);
    this.#remarks = this.#remarks.filter((remark) => !which(remark));
    return taken;
  }

  #closeOf(span: Span, windowMs: number, usage: readonly Share[], late: readonly Share[], remarks: readonly Remark[], at: At): Close {
    const { offset, watermarkMs, config } = at;
    const lives = [...this.#lives.values()];
    const heard = lives.filter(({ firstMs, highestMs }) => firstMs < span.endMs && highestMs > span.startMs).map(({ collector }) => collector);
    const gone = lives.filter((life) => life.volatile && !life.goodbye && !this.#isLive(life, config));
    return {
      ...span,
      windowMs,
      watermarkMs,
      offset,
      version: config.version,
      usage: sumBy(usage, ({ accounts }) => accounts),
      adjustments: sumBy(late, ({ startMs, endMs, accounts }) => `${startMs}-${endMs} ${accounts}`),
      open: sumBy(this.#shares, () => '').get('') ?? noTotals(),
      collectors: [...new Set(heard)].sort(),
      lostOnWire: remarks.reduce((sum, remark) => sum + remark.lostOnWire, 0),
      lost: remarks.reduce((sum, remark) => sum + remark.lost, 0),
      clamped: remarks.reduce((sum, remark) => sum + remark.clamped, 0),
      doubts: this.#unknownLosses + gone.length,
      givenOut: sumBy([...usage, ...late], ({ exporter }) => exporter),
    };
  }
}

interface At {
  readonly offset: number;
  readonly watermarkMs: number;
  readonly config: FoldConfig;
}

function sumBy(shares: readonly Share[], keyOf: (share: Share) => string): Map<string, Totals> {
  const sums = new Map<string, Totals>();
  for (const share of shares) {
    const sum = sums.get(keyOf(share)) ?? noTotals();
    addTotals(sum, share);
    sums.set(keyOf(share), sum);
  }
  return sums;
}

function exporterOf(batch: NarBatch, nar: Nar): string {
  const { sampler_address, observation_domain_id, protocol } = batch.exporters[nar.exporter]!;
  return `${sampler_address}|${observation_domain_id}|${protocol}`;
}

function floorTo(ms: number, step: number): number {
  return Math.floor(ms / step) * step;
}

/** Whole shares by weight; what rounding leaves goes to the largest remainders, the earlier first. */
function divided(amount: number, weights: readonly number[]): bigint[] {
  const total = BigInt(weights.reduce((sum, weight) => sum + weight, 0));
  const parts = weights.map((weight, index) => ({
    index,
    share: (BigInt(amount) * BigInt(weight)) / total,
    rest: (BigInt(amount) * BigInt(weight)) % total,
  }));
  let left = BigInt(amount) - parts.reduce((sum, { share }) => sum + share, 0n);
  for (const part of [...parts].sort((one, other) => Number(other.rest - one.rest) || one.index - other.index)) {
    if (left-- > 0n) part.share++;
  }
  return parts.map(({ share }) => share);
}
