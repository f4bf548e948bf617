/** What was heard on topic health, as far as an election depends on it. All times are the listener's own. */
import { type Replica, replicas } from '../../schemas/topics.ts';
import type { Health, PartitionHealth } from '../../schemas/types.ts';

/** One partition of an aggregator, and since when it has been so. */
export interface PartitionHeard {
  readonly health: PartitionHealth;
  /** When next_offset last moved. */
  readonly offsetMovedMs: number;
  /** When n last moved. */
  readonly nMovedMs: number;
  /** Since when its n has been below the feed's; null while it is not. */
  readonly behindFeedSinceMs: number | null;
  /** Since when it has been starting; null while it is not. */
  readonly startingSinceMs: number | null;
}

export interface ReplicaHeard {
  readonly incarnation: string;
  readonly heardMs: number;
  /** The longest pause between two of its reports, older ones counting less and less: how slowly it speaks at present. */
  readonly pauseMs: number;
  readonly stopping: boolean;
  readonly partitions: ReadonlyMap<number, PartitionHeard>;
}

/** The furthest that any feed says it has emitted. */
export interface FeedHeard {
  readonly n: number;
  readonly chain: Uint8Array;
  readonly held: boolean;
}

export interface SuspicionHeard {
  readonly collector: string;
  readonly sinceMs: number;
  readonly heardMs: number;
}

/** What a pause counts after the next report, as a share of what it counted before: after seven reports half of it. */
const pauseDecay = 0.9;

export class Hearing {
  readonly #replicas = new Map<Replica, ReplicaHeard>();
  readonly #feed = new Map<number, FeedHeard>();
  readonly #collectors = new Map<string, { readonly heardMs: number; readonly suspicions: Health['suspicions'] }>();

  hear(health: Health, heardMs: number): void {
    if (health.role === 'aggregator') this.#hearAggregator(health, heardMs);
    else if (health.role === 'feed') this.#hearFeed(health);
    else if (health.role === 'collector') this.#collectors.set(health.id, { heardMs, suspicions: health.suspicions });
  }

  replica(replica: Replica): ReplicaHeard | null {
    return this.#replicas.get(replica) ?? null;
  }

  partition(replica: Replica, partition: number): PartitionHeard | null {
    return this.#replicas.get(replica)?.partitions.get(partition) ?? null;
  }

  feed(partition: number): FeedHeard | null {
    return this.#feed.get(partition) ?? null;
  }

  /** Collectors that suspect the replica for this partition, those aside that were not heard since then. */
  suspicions(replica: Replica, partition: number, heardSinceMs: number): SuspicionHeard[] {
    const found: SuspicionHeard[] = [];
    for (const [collector, { heardMs, suspicions }] of this.#collectors) {
      if (heardMs < heardSinceMs) continue;
      const suspicion = suspicions.find((one) => one.replica === replica && one.partition === partition);
      if (suspicion) found.push({ collector, sinceMs: suspicion.since_ms, heardMs });
    }
    return found;
  }

  #hearAggregator(health: Health, heardMs: number): void {
    const replica = replicas.find((name) => name === health.id);
    if (!replica) return;
    const before = this.#replicas.get(replica);
    const same = before?.incarnation === health.incarnation ? before.partitions : null;
    const partitions = new Map<number, PartitionHeard>();
    for (const part of health.partitions) {
      partitions.set(part.partition, this.#compare(part, same?.get(part.partition), heardMs));
    }
    const pauseMs = before && same ? Math.max(heardMs - before.heardMs, before.pauseMs * pauseDecay) : 0;
    this.#replicas.set(replica, { incarnation: health.incarnation, heardMs, pauseMs, stopping: health.stopping, partitions });
  }

  #compare(health: PartitionHealth, before: PartitionHeard | undefined, heardMs: number): PartitionHeard {
    const behindFeed = health.n < (this.#feed.get(health.partition)?.n ?? 0);
    return {
      health,
      offsetMovedMs: before && before.health.next_offset === health.next_offset ? before.offsetMovedMs : heardMs,
      nMovedMs: before && before.health.n === health.n ? before.nMovedMs : heardMs,
      behindFeedSinceMs: behindFeed ? (before?.behindFeedSinceMs ?? heardMs) : null,
      startingSinceMs: health.state === 'starting' ? (before?.startingSinceMs ?? heardMs) : null,
    };
  }

  #hearFeed(health: Health): void {
    for (const { partition, n, chain, state } of health.partitions) {
      const before = this.#feed.get(partition);
      if (!before || n >= before.n) this.#feed.set(partition, { n, chain, held: state === 'held' });
    }
  }
}
