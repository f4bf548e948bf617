/** Which partitions are to be judged, from what the services say of themselves on topic health. All times are the listener's own. */
import { type Replica, replicas } from '../../schemas/topics.ts';
import type { Health, PartitionHealth } from '../../schemas/types.ts';
import { sameChain } from '../aggregate/chain.ts';
import type { Verdicts } from './verdicts.ts';

/** Whoever was not heard for so long complains of nothing. */
const staleAfterMs = 5_000;

/** What is complained of in a partition. */
export interface Complaints {
  /** A feed has found two histories, or the replicas say different chains of one n. */
  readonly held: boolean;
  /** These replicas say that their own fold and their own output topic differ. */
  readonly disputed: readonly Replica[];
  /** In quarantine already: not heard in the trial. */
  readonly barred: readonly Replica[];
  /** In words. */
  readonly words: readonly string[];
}

/** The last health record of each service. */
export class HealthHeard {
  readonly #last = new Map<string, { readonly health: Health; readonly heardMs: number }>();

  hear(health: Health, heardMs: number): void {
    this.#last.set(`${health.role}/${health.id}`, { health, heardMs });
  }

  /** Of aggregators and feeds, ascending. */
  partitions(): number[] {
    const numbers = [...this.#last.values()].flatMap(({ health }) => health.partitions.map(({ partition }) => partition));
    return [...new Set(numbers)].sort((one, other) => one - other);
  }

  /** What the services of a role say of the partition now. */
  of(role: string, partition: number, nowMs: number): { readonly id: string; readonly part: PartitionHealth }[] {
    return [...this.#last.values()].flatMap(({ health, heardMs }) => {
      if (health.role !== role || health.stopping || nowMs - heardMs > staleAfterMs) return [];
      return health.partitions.filter((part) => part.partition === partition).map((part) => ({ id: health.id, part }));
    });
  }
}

/** null where there is nothing to judge: nobody complains, or what is complained of was judged, and a trial could say nothing new. */
export function complaintsOf(heard: HealthHeard, verdicts: Verdicts, partition: number, nowMs: number): Complaints | null {
  const barred = replicas.filter((replica) => verdicts.isQuarantined(partition, replica));
  const aggregators = heard.of('aggregator', partition, nowMs);
  const disputes = aggregators.filter(({ id, part }) => part.state === 'disputed' && !barred.some((replica) => replica === id));
  const words = disputes.map(({ id, part }) => `${id} says: ${part.detail}`);
  const disputed = replicas.filter((replica) => disputes.some(({ id }) => id === replica));
  let held = false;
  if (barred.length === 0) {
    const [one, other] = aggregators;
    const differ = one && other && one.part.n > 0 && one.part.n === other.part.n && !sameChain(one.part.chain, other.part.chain);
    if (differ) words.push(`${one.id} and ${other.id} say different chains of n ${one.part.n}`);
    const feeds = heard.of('feed', partition, nowMs).filter(({ part }) => part.state === 'held');
    for (const { id, part } of feeds) words.push(`${id} says: ${part.detail}`);
    held = differ === true || feeds.length > 0;
  }
  return held || disputed.length > 0 ? { held, disputed, barred, words } : null;
}
