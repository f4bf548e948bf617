/**
 * The watchdog's decision: which partitions get another leader, from what was heard and nothing else.
 *
 * Because A and B write the same bytes, a needless election costs little, so suspicion may be quick; because the other may be far
 * behind, nobody is elected (I10) who has not at least what was fed. There is no fail-back: who leads stays until it is accused.
 */
import { otherReplica, type Replica, replicas } from '../../schemas/topics.ts';
import type { Election } from '../../schemas/types.ts';
import type { Verdicts } from '../judge/verdicts.ts';
import type { Elections } from './elections.ts';
import type { Hearing, ReplicaHeard } from './hearing.ts';

export interface ElectOptions {
  /** A replica that was not heard for longer is silent; one that speaks slowly at present gets up to `patienceMax` times as long. */
  readonly silentAfterMs: number;
  /** A replica that stands still for longer, while the other is ahead, is stalled. */
  readonly stalledAfterMs: number;
  /** As many collectors must suspect a replica. */
  readonly suspicionQuorum: number;
}

export interface Heard {
  readonly partitions: number;
  readonly hearing: Hearing;
  readonly elections: Elections;
  readonly verdicts: Verdicts;
  /** Since when health has been read without a break, up to its end; null while it is not. */
  readonly listeningSinceMs: number | null;
}

export type Reason = 'initial' | 'silent' | 'stalled' | 'suspected' | 'stopping' | 'stopped' | 'quarantined' | 'drill';

export type Proposal = Pick<Election, 'partition' | 'epoch' | 'previous' | 'evidence'> & { readonly leader: Replica; readonly reason: Reason };

interface Accusation {
  readonly reason: Reason;
  readonly evidence: string;
}

/** Elections to write now. None while nothing is heard: who hears nobody must accuse nobody. */
export function decide(heard: Heard, options: ElectOptions, nowMs: number): Proposal[] {
  if (heard.listeningSinceMs === null) return [];
  const proposals: Proposal[] = [];
  for (let partition = 0; partition < heard.partitions; partition++) {
    const proposal = new PartitionView(heard, options, partition, nowMs).decide();
    if (proposal) proposals.push(proposal);
  }
  return proposals;
}

/** Why there is no election of the other replica, in words. */
export interface Refusal {
  readonly partition: number;
  readonly refusal: string;
}

/** The election of the other replica though nobody accuses the leader, or why it cannot be: the rules are those of any other election. */
export function decideDrill(heard: Heard, options: ElectOptions, partition: number, nowMs: number): Proposal | Refusal {
  return new PartitionView(heard, options, partition, nowMs).drill();
}

/** Elections of one partition within this time make the next one wait. */
const restMemoryMs = 600_000;
const restMaxMs = 300_000;
/** After a suspicion the acknowledgments of the new leader must have had time to come. */
const softRestMs = 5_000;
/** Silence and a stop are facts, so the first of them are answered at once; a replica that blinks for longer costs a moment each time. */
const hardRestMs = 1_000;
const hardElectionsFree = 4;
/** Longer than that nobody waits for one that is known to be dead. */
const hardRestMaxMs = 5_000;
/** A replica is silent when it was not heard for so many times its longest pause lately: on a busy machine everybody speaks slowly. */
const pauseFactor = 2.5;
/** But one that slept is not to be waited for as long again. */
const patienceMax = 2;

/**
 * How long a partition's last election must be past before the next one, so that two replicas that are accused in turn do not flap.
 * Doubles with each election in the last ten minutes.
 */
export function restMs(reason: Reason, electionsLately: number): number {
  // A leader in quarantine is read by nobody: there is nothing to wait for.
  if (electionsLately === 0 || reason === 'quarantined') return 0;
  if (reason === 'suspected' || reason === 'stalled') return Math.min(restMaxMs, softRestMs * 2 ** (electionsLately - 1));
  return electionsLately < hardElectionsFree ? 0 : Math.min(hardRestMaxMs, hardRestMs * 2 ** (electionsLately - hardElectionsFree));
}

class PartitionView {
  readonly #heard: Heard;
  readonly #options: ElectOptions;
  readonly #partition: number;
  readonly #nowMs: number;

  constructor(heard: Heard, options: ElectOptions, partition: number, nowMs: number) {
    this.#heard = heard;
    this.#options = options;
    this.#partition = partition;
    this.#nowMs = nowMs;
  }

  decide(): Proposal | null {
    // A held partition is not fed whoever leads it, before it is judged; an election would only blur what the alarm says.
    if (this.#heard.hearing.feed(this.#partition)?.held && !replicas.some((replica) => this.#isQuarantined(replica))) return null;
    const last = this.#heard.elections.last(this.#partition);
    const leader = this.#heard.elections.leader(this.#partition);
    if (!last || !leader) return this.#first();
    const accusation = this.#accuse(leader);
    const other = otherReplica(leader);
    // Suspicions keep nobody from taking the place of one that cannot be followed at all.
    const isEligible = accusation?.reason === 'quarantined' ? this.#canLead(other) : this.#eligible(other);
    if (!accusation || !isEligible || this.#resting(accusation.reason)) return null;
    const evidence = `${accusation.evidence}; ${this.#standing(other)}`;
    return { partition: this.#partition, epoch: last.epoch + 1, leader: other, previous: leader, reason: accusation.reason, evidence };
  }

  drill(): Proposal | Refusal {
    const { elections, hearing } = this.#heard;
    const partition = this.#partition;
    const last = elections.last(partition);
    const leader = elections.leader(partition);
    if (!last || !leader) return { partition, refusal: 'there was no election yet: is a watchdog running?' };
    if (hearing.feed(partition)?.held) return { partition, refusal: 'it is held: see "flowledger audit"' };
    const other = otherReplica(leader);
    const refusal = this.#accuse(other)?.evidence ?? (this.#canLead(other) ? null : this.#notEligible(other));
    if (refusal !== null) return { partition, refusal: `${other} cannot take over from ${leader}: ${refusal}` };
    const evidence = `asked for by an operator; ${this.#standing(other)}`;
    return { partition, epoch: last.epoch + 1, leader: other, previous: leader, reason: 'drill', evidence };
  }

  #notEligible(replica: Replica): string {
    const part = this.#heard.hearing.partition(replica, this.#partition);
    if (!part) return `${replica} was not heard`;
    return part.health.state === 'running' ? this.#standing(replica) : `${replica} is ${part.health.state} ${part.health.detail}`.trim();
  }

  #first(): Proposal | null {
    const eligible = replicas.filter((replica) => this.#eligible(replica));
    const [one, other] = eligible;
    if (!one || (!other && !this.#listenedLongEnough())) return null;
    const leader = other && this.#n(other) > this.#n(one) ? other : one;
    return { partition: this.#partition, epoch: 1, leader, previous: '', reason: 'initial', evidence: this.#standing(leader) };
  }

  #resting(reason: Reason): boolean {
    const lately = this.#heard.elections.heardSince(this.#partition, this.#nowMs - restMemoryMs);
    const lastMs = lately.at(-1);
    return lastMs !== undefined && this.#nowMs - lastMs < restMs(reason, lately.length);
  }

  #eligible(replica: Replica): boolean {
    return this.#canLead(replica) && !this.#accuse(replica);
  }

  /** Heard lately, running, not in quarantine (I15), with at least what was fed and, where it stands there, the same history. */
  #canLead(replica: Replica): boolean {
    const { hearing } = this.#heard;
    const heard = hearing.replica(replica);
    const part = hearing.partition(replica, this.#partition);
    if (!heard || !part || this.#nowMs - heard.heardMs > this.#silentAfterMs(heard)) return false;
    if (part.health.state !== 'running' || this.#quarantine(replica) || this.#stop(replica)) return false;
    const feed = hearing.feed(this.#partition);
    if (!feed || part.health.n > feed.n) return true;
    return part.health.n === feed.n && Buffer.compare(part.health.chain, feed.chain) === 0;
  }

  #accuse(replica: Replica): Accusation | null {
    return this.#quarantine(replica) ?? this.#stop(replica) ?? this.#silence(replica) ?? this.#stall(replica) ?? this.#suspicion(replica);
  }

  #isQuarantined(replica: Replica): boolean {
    return this.#heard.verdicts.isQuarantined(this.#partition, replica);
  }

  #quarantine(replica: Replica): Accusation | null {
    if (!this.#isQuarantined(replica)) return null;
    const verdict = this.#heard.verdicts.last(this.#partition, replica);
    return { reason: 'quarantined', evidence: `${replica} is in quarantine from n ${verdict?.n} on: ${verdict?.evidence}` };
  }

  #stop(replica: Replica): Accusation | null {
    const heard = this.#heard.hearing.replica(replica);
    const part = this.#heard.hearing.partition(replica, this.#partition);
    if (heard?.stopping) return { reason: 'stopping', evidence: `${replica} says that it stops` };
    const isStopped = part?.health.state === 'stopped' || part?.health.state === 'disputed';
    if (part && isStopped) return { reason: 'stopped', evidence: `${replica} has stopped this partition: ${part.health.detail}` };
    return null;
  }

  #silence(replica: Replica): Accusation | null {
    if (!this.#listenedLongEnough()) return null;
    const heard = this.#heard.hearing.replica(replica);
    if (!heard) return { reason: 'silent', evidence: `${replica} was never heard` };
    const ageMs = this.#nowMs - heard.heardMs;
    if (ageMs <= this.#silentAfterMs(heard)) return null;
    return { reason: 'silent', evidence: `${replica} was last heard ${ageMs} ms ago` };
  }

  #silentAfterMs({ pauseMs }: ReplicaHeard): number {
    const { silentAfterMs } = this.#options;
    return Math.min(patienceMax * silentAfterMs, Math.max(silentAfterMs, pauseFactor * pauseMs));
  }

  /** It stands still though there is something to do, which the other shows by being ahead. */
  #stall(replica: Replica): Accusation | null {
    const { hearing } = this.#heard;
    const part = hearing.partition(replica, this.#partition);
    const other = hearing.partition(otherReplica(replica), this.#partition);
    if (!part || !other) return null;
    const [own, others] = [part.health, other.health];
    if (own.next_offset < own.end_offset && others.next_offset > own.next_offset && this.#standsTooLong(part.offsetMovedMs)) {
      const ahead = `of ${own.end_offset}, the other is at ${others.next_offset}`;
      return { reason: 'stalled', evidence: `${replica} has stood at offset ${own.next_offset} for ${this.#forMs(part.offsetMovedMs)}, ${ahead}` };
    }
    if (others.n > own.n && this.#standsTooLong(part.nMovedMs)) {
      return { reason: 'stalled', evidence: `${replica} has stood at n ${own.n} for ${this.#forMs(part.nMovedMs)}, the other is at n ${others.n}` };
    }
    if (part.behindFeedSinceMs !== null && this.#standsTooLong(part.behindFeedSinceMs)) {
      return { reason: 'stalled', evidence: `${replica} has been behind what is fed for ${this.#forMs(part.behindFeedSinceMs)}, at n ${own.n}` };
    }
    if (part.startingSinceMs !== null && this.#standsTooLong(part.startingSinceMs)) {
      return { reason: 'stalled', evidence: `${replica} has been starting for ${this.#forMs(part.startingSinceMs)}` };
    }
    return null;
  }

  /** A collector that is not heard any more accuses nobody. */
  #suspicion(replica: Replica): Accusation | null {
    const { silentAfterMs, suspicionQuorum } = this.#options;
    const suspicions = this.#heard.hearing.suspicions(replica, this.#partition, this.#nowMs - 2 * silentAfterMs);
    if (suspicions.length < suspicionQuorum) return null;
    const collectors = suspicions.map(({ collector }) => collector).sort();
    return { reason: 'suspected', evidence: `acknowledgments of ${replica} stay out at ${collectors.join(', ')}` };
  }

  #listenedLongEnough(): boolean {
    const sinceMs = this.#heard.listeningSinceMs;
    return sinceMs !== null && this.#nowMs - sinceMs > this.#options.silentAfterMs;
  }

  #standsTooLong(sinceMs: number): boolean {
    return this.#nowMs - sinceMs > this.#options.stalledAfterMs;
  }

  #forMs(sinceMs: number): string {
    return `${this.#nowMs - sinceMs} ms`;
  }

  #n(replica: Replica): number {
    return this.#heard.hearing.partition(replica, this.#partition)?.health.n ?? 0;
  }

  #standing(replica: Replica): string {
    const ageMs = this.#nowMs - (this.#heard.hearing.replica(replica)?.heardMs ?? this.#nowMs);
    const feed = this.#heard.hearing.feed(this.#partition);
    return `${replica} was heard ${ageMs} ms ago at n ${this.#n(replica)}, the feed ${feed ? `is at n ${feed.n}` : 'was not heard yet'}`;
  }
}
