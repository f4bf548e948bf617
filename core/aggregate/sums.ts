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

/** A sum in an output is an Avro long, so it must stay below 2^63; half of that leaves room for what is lost beside what is given out. */
const heldMax = 2n ** 62n;
/** So far from the bound no single flow can pass it. */
const nearHeldMax = heldMax - 2n ** 54n;

/**
 * Bytes and packets, corrected for sampling, of all flows that are in no output yet. Bounded, so that an exporter that claims absurd counters cannot
 * make a sum that no output can carry. Whether a flow fits depends on the exact sums alone, hence is the same in every replica.
 */
export class Held {
  #bytes = 0;
  #packets = 0;
  #movedBytes = 0n;
  #movedPackets = 0n;
  #isNear = false;

  /** Adds a flow's scaled counters, each below 2^53. @returns false, and adds nothing, where they do not fit */
  add(bytes: number, packets: number): boolean {
    const sumBytes = this.#bytes + bytes;
    const sumPackets = this.#packets + packets;
    if (sumBytes > Number.MAX_SAFE_INTEGER || sumPackets > Number.MAX_SAFE_INTEGER || this.#isNear) return this.#addExactly(bytes, packets);
    this.#bytes = sumBytes;
    this.#packets = sumPackets;
    return true;
  }

  /** Of what a snapshot holds, or, negative, of what is given out. */
  addTotals(bytes: bigint, packets: bigint): void {
    this.#move(bytes, packets);
  }

  #addExactly(bytes: number, packets: number): boolean {
    this.#move(0n, 0n);
    if (this.#movedBytes + BigInt(bytes) > heldMax || this.#movedPackets + BigInt(packets) > heldMax) return false;
    this.#move(BigInt(bytes), BigInt(packets));
    return true;
  }

  #move(bytes: bigint, packets: bigint): void {
    this.#movedBytes += BigInt(this.#bytes) + bytes;
    this.#movedPackets += BigInt(this.#packets) + packets;
    this.#bytes = 0;
    this.#packets = 0;
    this.#isNear = this.#movedBytes > nearHeldMax || this.#movedPackets > nearHeldMax;
  }
}
