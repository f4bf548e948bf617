/**
 * Exact sums in plain numbers: every addend is a whole number up to 2^53 - 1, and a sum that would pass that bound is first moved
 * into a bigint, so the sum is exact and the hot path has no bigint.
 */

/** Flows, bytes and packets. */
export class Totals {
  flows = 0;
  #bytes = 0;
  #packets = 0;
  #movedBytes = 0n;
  #movedPackets = 0n;

  add(flows: number, bytes: number, packets: number): void {
    this.flows += flows;
    const sumBytes = this.#bytes + bytes;
    if (sumBytes <= Number.MAX_SAFE_INTEGER) this.#bytes = sumBytes;
    else {
      this.#movedBytes += BigInt(this.#bytes);
      this.#bytes = bytes;
    }
    const sumPackets = this.#packets + packets;
    if (sumPackets <= Number.MAX_SAFE_INTEGER) this.#packets = sumPackets;
    else {
      this.#movedPackets += BigInt(this.#packets);
      this.#packets = packets;
    }
  }

  addTotals(other: { readonly flows: number; readonly bytes: bigint; readonly packets: bigint }): void {
    this.flows += other.flows;
    this.#movedBytes += other.bytes;
    this.#movedPackets += other.packets;
  }

  get bytes(): bigint {
    return this.#movedBytes + BigInt(this.#bytes);
  }

  get packets(): bigint {
    return this.#movedPackets + BigInt(this.#packets);
  }
}

/** The usage of one group in one window: as exported, and corrected for sampling. */
export class Usage {
  readonly raw = new Totals();
  readonly scaled = new Totals();
}
