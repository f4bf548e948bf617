/** Whether the other side is there to take batches: the broker, and where it is asked for, also an aggregator that lives. */

export type TransferGate = 'broker' | 'aggregator';

/** An aggregator says how it is several times a second; after so long without a word it does not count. */
const heardWithinMs = 3_000;

export class Gate {
  readonly #kind: TransferGate;
  readonly #heardMs = new Map<string, number>();
  /** The broker answered, and its topic is as it should be. */
  brokerThere = false;

  constructor(kind: TransferGate) {
    this.#kind = kind;
  }

  heard(aggregator: string, stopping: boolean, nowMs: number): void {
    if (stopping) this.#heardMs.delete(aggregator);
    else this.#heardMs.set(aggregator, nowMs);
  }

  isOpen(nowMs: number): boolean {
    return this.brokerThere && (this.#kind === 'broker' || this.aggregatorThere(nowMs));
  }

  aggregatorThere(nowMs: number): boolean {
    for (const heardMs of this.#heardMs.values()) if (nowMs - heardMs <= heardWithinMs) return true;
    return false;
  }
}
