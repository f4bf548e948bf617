/**
 * Five-minute samples, from which percentiles are billed: integer bytes per account, in and out apart, UTC-aligned.
 * A window divides 300 s, so each aggregate belongs to one sample.
 */
import type { Aggregate } from '../../schemas/types.ts';
import { type Counters, noCounters } from './counters.ts';

/** Month borders fall on sample borders in every time zone. */
export const sampleMs = 300_000;

/** out: the account is the source of the traffic; in: its destination. */
export type Direction = 'in' | 'out';

export interface SampleDelta extends Counters {
  readonly account: string;
  readonly direction: Direction;
  /** Unix time in ms, a multiple of 300000. */
  readonly startMs: number;
  scaledBytes: bigint;
  scaledPackets: bigint;
}

/** By a key that is unique per account, direction and start. */
export type SampleDeltas = Map<string, SampleDelta>;

export function sampleStart(atMs: number): number {
  return Math.floor(atMs / sampleMs) * sampleMs;
}

/**
 * Traffic between two accounts counts for both, an aggregate without account fields for none, an adjustment in the sample of its own window.
 * `sign` -1 takes it off.
 */
export function addSamples(deltas: SampleDeltas, aggregate: Aggregate, sign: 1 | -1 = 1): void {
  const startMs = sampleStart(aggregate.window_start_ms);
  for (const { name, value } of aggregate.group) {
    if (name === 'src_account') addSample(deltas, aggregate, value, 'out', startMs, sign);
    else if (name === 'dst_account') addSample(deltas, aggregate, value, 'in', startMs, sign);
  }
}

function addSample(deltas: SampleDeltas, aggregate: Aggregate, account: string, direction: Direction, startMs: number, sign: 1 | -1): void {
  const key = `${startMs} ${direction} ${account}`;
  let delta = deltas.get(key);
  if (!delta) {
    delta = { account, direction, startMs, ...noCounters(), scaledBytes: 0n, scaledPackets: 0n };
    deltas.set(key, delta);
  }
  delta.flows += sign * aggregate.flows;
  delta.bytes += BigInt(sign) * aggregate.bytes;
  delta.packets += BigInt(sign) * aggregate.packets;
  delta.scaledBytes += BigInt(sign) * aggregate.scaled_bytes;
  delta.scaledPackets += BigInt(sign) * aggregate.scaled_packets;
}
