/**
 * What was judged of each replica, from the verdicts in log order.
 *
 * I15. A verdict counts only with a higher epoch than the last on the same replica; of two with one epoch the last counts, since the topic is
 * compacted. A quarantined replica is read, followed and copied from by nobody until it is repaired.
 */
import { type Replica, replicas } from '../../schemas/topics.ts';
import type { Verdict } from '../../schemas/types.ts';

export class Verdicts {
  readonly #last = new Map<string, Verdict>();

  /** Says whether it counts. */
  apply(verdict: Verdict): boolean {
    if (!replicas.some((replica) => replica === verdict.replica)) return false;
    const key = keyOf(verdict.partition, verdict.replica);
    if (verdict.epoch < (this.#last.get(key)?.epoch ?? 0)) return false;
    this.#last.set(key, verdict);
    return true;
  }

  /** null where the replica was never judged. */
  last(partition: number, replica: Replica): Verdict | null {
    return this.#last.get(keyOf(partition, replica)) ?? null;
  }

  isQuarantined(partition: number, replica: Replica): boolean {
    return this.last(partition, replica)?.state === 'quarantined';
  }

  /** Those of all partitions that are in quarantine now. */
  quarantined(): Verdict[] {
    return [...this.#last.values()].filter(({ state }) => state === 'quarantined');
  }

  /** All that count now. */
  standing(): Verdict[] {
    return [...this.#last.values()];
  }
}

/** Of the record in topic verdicts. */
export function keyOf(partition: number, replica: string): string {
  return `${partition}/${replica}`;
}
