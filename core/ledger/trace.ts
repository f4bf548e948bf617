/** Which output a flow of the log went into: the rules of the fold (A2, I9), followed for one flow without folding all others. */

import type { FoldConfig, GroupField, NarBatch, Output, WindowClose } from '../../schemas/types.ts';
import { groupKey } from '../aggregate/group-key.ts';
import { windowStart } from '../aggregate/window.ts';

/** What the fold did with a batch, as far as the part of the log tells that was read: A2. */
export type BatchOutcome = 'accepted' | 'duplicate' | 'gap';

/** Follows the batches of a partition in log order; of each incarnation the first one that is seen is taken for accepted. */
export class BatchOutcomes {
  readonly #through = new Map<string, number>();

  outcome({ collector, incarnation, sequence, through }: Pick<NarBatch, 'collector' | 'incarnation' | 'sequence' | 'through'>): BatchOutcome {
    const name = `${collector}/${incarnation}`;
    const last = this.#through.get(name) ?? sequence - 1;
    if (sequence <= last) return 'duplicate';
    if (sequence > last + 1) return 'gap';
    this.#through.set(name, through);
    return 'accepted';
  }
}

export interface FlowTimes {
  readonly endMs: number;
  readonly receivedMs: number;
  /** Of its batch, by the broker. */
  readonly appendedMs: number;
}

/** Start of the window in which a flow counts, Unix time in ms, and whether its end was out of bounds and clamped. */
export function windowOfFlow(times: FlowTimes, config: Pick<FoldConfig, 'past_ms_max' | 'future_ms_max' | 'window_ms'>) {
  const receivedMs = Math.min(times.receivedMs, times.appendedMs);
  const [firstMs, lastMs] = [receivedMs - config.past_ms_max, receivedMs + config.future_ms_max];
  const isClamped = times.endMs < firstMs || times.endMs > lastMs;
  const endMs = isClamped ? (times.endMs < receivedMs ? firstMs : lastMs) : times.endMs;
  return { startMs: windowStart(endMs, config.window_ms), clamped: isClamped };
}

/** Where a flow stands in the log. */
export interface FlowPlace {
  /** In nars. */
  readonly offset: number;
  /** Of the window in which it counts. */
  readonly windowStartMs: number;
  readonly group: readonly GroupField[];
}

export type Route =
  /** Its window is not closed yet. */
  | { readonly kind: 'open' }
  | { readonly kind: 'usage' | 'adjustment'; readonly output: Output; readonly close: WindowClose }
  /** Its window was closed, and no output has its group: it was grouped by another configuration, or rejected. */
  | { readonly kind: 'absent'; readonly close: WindowClose };

/**
 * Follows topic aggregates of the flow's partition from the flow's append on, in order. A window is closed by the record at nars_offset, which is
 * folded before; so the first close at or behind the flow's own offset tells whether its window was closed before it came.
 */
export class RouteSearch {
  readonly #place: FlowPlace;
  readonly #key: string;
  #found: { kind: 'usage' | 'adjustment'; output: Output } | null = null;
  #route: Route = { kind: 'open' };

  constructor(place: FlowPlace) {
    this.#place = place;
    this.#key = groupKey(place.group);
  }

  get route(): Route {
    return this.#route;
  }

  /** Says whether the search is over. */
  take(output: Output): boolean {
    if (this.#route.kind !== 'open') return true;
    if (output.correction) return false;
    const { aggregate, window_close: close } = output;
    if (aggregate && aggregate.window_start_ms === this.#place.windowStartMs && groupKey(aggregate.group) === this.#key) {
      this.#found = { kind: aggregate.kind === 'adjustment' ? 'adjustment' : 'usage', output };
    }
    if (!close) return false;
    const isLate = close.window_start_ms > this.#place.windowStartMs;
    const isItsOwn = !isLate && close.window_end_ms > this.#place.windowStartMs;
    const counts = close.nars_offset >= this.#place.offset && (isLate || isItsOwn);
    if (counts) this.#route = this.#found ? { ...this.#found, close } : { kind: 'absent', close };
    this.#found = null;
    return counts;
  }
}
