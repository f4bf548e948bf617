/**
 * Who leads each partition, from the elections in log order.
 *
 * I10. An election counts only with a higher epoch than the last; of two with one epoch the last counts, since the topic is compacted
 * and of those two only the last can be seen by whoever reads it later.
 */
import { type Replica, replicas } from '../../schemas/topics.ts';
import type { Election } from '../../schemas/types.ts';

/** As many as the growth of the rest between elections can tell apart. */
const heardMax = 64;

export class Elections {
  readonly #last = new Map<number, Election>();
  readonly #heardMs = new Map<number, number[]>();

  /** Says whether it counts. `heardMs` is the listener's time when it was read; of one that was read late, when it was written. */
  apply(election: Election, heardMs: number): boolean {
    const { partition, epoch, reason } = election;
    const lastEpoch = this.#last.get(partition)?.epoch ?? 0;
    if (!isReplica(election.leader) || epoch < lastEpoch) return false;
    this.#last.set(partition, election);
    // What several watchdogs wrote at once is one election. After a drill nobody was at fault, so the next election need not wait.
    if (reason !== 'initial' && reason !== 'drill' && epoch > lastEpoch)
      this.#heardMs.set(partition, [...(this.#heardMs.get(partition) ?? []), heardMs].slice(-heardMax));
    return true;
  }

  last(partition: number): Election | null {
    return this.#last.get(partition) ?? null;
  }

  leader(partition: number): Replica | null {
    const leader = this.#last.get(partition)?.leader;
    return leader !== undefined && isReplica(leader) ? leader : null;
  }

  /** When the partition's elections since then were heard, the initial one and drills aside, each epoch once, in log order. */
  heardSince(partition: number, sinceMs: number): number[] {
    return (this.#heardMs.get(partition) ?? []).filter((heardMs) => heardMs >= sinceMs);
  }
}

function isReplica(name: string): name is Replica {
  return (replicas as readonly string[]).includes(name);
}
