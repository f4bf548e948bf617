/** Sums of flows, bytes and packets. Bytes and packets outgrow 2^53, flows do not. */

export interface Counters {
  flows: number;
  bytes: bigint;
  packets: bigint;
}

export function noCounters(): Counters {
  return { flows: 0, bytes: 0n, packets: 0n };
}

export function add(total: Counters, part: Counters): void {
  total.flows += part.flows;
  total.bytes += part.bytes;
  total.packets += part.packets;
}

export function difference(of: Counters, ...parts: Counters[]): Counters {
  const rest = { ...of };
  for (const part of parts) {
    rest.flows -= part.flows;
    rest.bytes -= part.bytes;
    rest.packets -= part.packets;
  }
  return rest;
}

export function isZero(counters: Counters): boolean {
  return counters.flows === 0 && counters.bytes === 0n && counters.packets === 0n;
}

export function describe(counters: Counters): string {
  return `${counters.flows} flows, ${counters.bytes} bytes, ${counters.packets} packets`;
}

/** A whole number for JSON: a number where it is exact (below 2^53), else a string of decimal digits. */
export function exact(value: bigint | number): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : String(value);
}
