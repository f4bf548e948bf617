/**
 * A third, fresh fold of a partition's log, held against what both replicas have written of it.
 *
 * T1. It begins with a state that both replicas hold alike, or with the empty state of a log that still has its beginning: never with what only
 *     one of them says.
 * T2. A topic is read as any reader reads it: n = last + 1, and only what continues the chain of what was taken. The first output taken that is not
 *     the fold's is the finding. What stands beside that order (a repeat, or what continues nothing) with another chain is foreign.
 *     The other topic is read to its end all the same: who is to be followed alone from now on must be right in all that it has written.
 * T3. (I13) What is kept does not grow with the log: the fold goes only as far as the outputs at hand, and the topic that is behind is read first.
 */
import { otherReplica, type Replica, replicas } from '../../schemas/topics.ts';
import type { OutputBlock } from '../../schemas/types.ts';
import { chainOf, chainText, type Digest, sameChain } from '../aggregate/chain.ts';
import type { Fold, FoldRecord } from '../aggregate/fold.ts';
import type { Position } from '../aggregate/read-back.ts';
import type { Complaints } from './complaints.ts';

/** The first output of a replica that is not the fold's. */
export interface Finding {
  readonly n: number;
  readonly given: Uint8Array;
  readonly judged: Uint8Array;
}

/** What a trial needs next; null when it is over. */
export type Want = 'nars' | Replica | null;

/** Chains of the fold that are kept behind what both have come to, for repeats. */
const judgedKept = 8192;

/** What one replica's topic says. */
interface Witness {
  last: Position | null;
  /** Waits for the fold to come so far. */
  pending: OutputBlock | null;
  ended: boolean;
  finding: Finding | null;
  foreign: Finding | null;
}

const newWitness = (): Witness => ({ last: null, pending: null, ended: false, finding: null, foreign: null });

export class Trial {
  readonly #fold: Fold;
  readonly #digest: Digest;
  /** Where the fold began. */
  readonly #begins: Position;
  readonly #judged = new Map<number, Uint8Array>();
  readonly #witnesses: Readonly<Record<Replica, Witness>> = { a: newWitness(), b: newWitness() };
  #narsEnded = false;

  /** The fold's state is the one that the trial begins with; it is used up. */
  constructor(fold: Fold, digest: Digest) {
    this.#fold = fold;
    this.#digest = digest;
    this.#begins = { n: fold.n, chain: fold.chain };
    this.#judged.set(fold.n, fold.chain);
  }

  /** Of the last output that the fold gave. */
  get n(): number {
    return this.#fold.n;
  }

  get nextOffset(): number {
    return this.#fold.nextOffset;
  }

  /** The first output of the replica, in order, that is not the fold's; null where there is none. */
  finding(replica: Replica): Finding | null {
    return this.#witnesses[replica].finding;
  }

  foreign(replica: Replica): Finding | null {
    return this.#witnesses[replica].foreign;
  }

  /** n up to which the replica's outputs are the fold's; 0 where none was compared. */
  agreedN(replica: Replica): number {
    const { last, finding } = this.#witnesses[replica];
    if (finding) return finding.n - 1;
    return Math.min(last?.n ?? 0, this.n);
  }

  wants(): Want {
    if (replicas.some((replica) => this.#witnesses[replica].pending)) return 'nars';
    const open = replicas.filter((replica) => !this.#isDone(replica));
    const lastN = (replica: Replica) => this.#witnesses[replica].last?.n ?? -1;
    return open.sort((one, other) => lastN(one) - lastN(other))[0] ?? null;
  }

  /** @throws UnknownSchema, UnknownFoldVersion, SnapshotNeeded */
  takeNars(record: FoldRecord): void {
    for (const block of this.#fold.step(record).blocks) for (const { n, chain } of block.outputs) this.#judged.set(n, chain);
    for (const replica of replicas) this.#takePending(replica);
    this.#forget();
  }

  /** The log has no more. */
  endNars(): void {
    this.#narsEnded = true;
    for (const replica of replicas) this.#takePending(replica);
  }

  takeBlock(replica: Replica, block: OutputBlock): void {
    const witness = this.#witnesses[replica];
    if (block.partition !== this.#fold.partition || block.outputs.length === 0) return;
    witness.pending = block;
    this.#takePending(replica);
  }

  /** The replica's topic has no more. */
  end(replica: Replica): void {
    this.#witnesses[replica].ended = true;
  }

  #isDone(replica: Replica): boolean {
    const { ended, finding, pending } = this.#witnesses[replica];
    return finding !== null || (ended && pending === null);
  }

  #takePending(replica: Replica): void {
    const witness = this.#witnesses[replica];
    const block = witness.pending;
    if (!block) return;
    const lastN = block.first_n + block.outputs.length - 1;
    if (lastN > this.n && !this.#narsEnded) return;
    witness.pending = null;
    this.#take(witness, block);
  }

  /** T2. */
  #take(witness: Witness, block: OutputBlock): void {
    witness.last ??= this.#beginning(witness, block);
    if (block.first_n > witness.last.n + 1) return; // written again later, with all that follows
    let previous = block.previous_chain;
    for (const { n, chain } of block.outputs) {
      if (witness.finding || n > this.n) return; // what the log does not give yet cannot be judged
      if (n <= witness.last.n) this.#compareBeside(witness, n, chain);
      else if (!sameChain(previous, witness.last.chain)) this.#noteForeign(witness, n, chain);
      else if (n > this.#begins.n && !this.#givesItsChain(block, n))
        return; // as good as missing
      else {
        this.#compare(witness, n, chain);
        witness.last = { n, chain };
      }
      previous = chain;
    }
  }

  #beginning(witness: Witness, { first_n, previous_chain }: OutputBlock): Position {
    this.#compare(witness, first_n - 1, previous_chain);
    return { n: first_n - 1, chain: previous_chain };
  }

  #givesItsChain({ first_n, previous_chain, outputs }: OutputBlock, n: number): boolean {
    const output = outputs[n - first_n];
    const before = outputs[n - first_n - 1]?.chain ?? previous_chain;
    return output !== undefined && output.n === n && sameChain(chainOf(output, before, this.#digest).chain, output.chain);
  }

  #compare(witness: Witness, n: number, given: Uint8Array): void {
    const judged = this.#judged.get(n);
    if (judged && !sameChain(judged, given)) witness.finding ??= { n, given, judged };
  }

  #compareBeside(witness: Witness, n: number, given: Uint8Array): void {
    const judged = this.#judged.get(n);
    if (judged && !sameChain(judged, given)) witness.foreign ??= { n, given, judged };
  }

  #noteForeign(witness: Witness, n: number, given: Uint8Array): void {
    const judged = this.#judged.get(n);
    if (judged) witness.foreign ??= { n, given, judged };
  }

  /** T3. */
  #forget(): void {
    const needed = replicas.filter((replica) => !this.#isDone(replica)).map((replica) => this.#witnesses[replica].last?.n ?? 0);
    const from = Math.min(this.n, ...needed) - judgedKept;
    for (const n of this.#judged.keys()) {
      if (n >= from) return; // in ascending order
      this.#judged.delete(n);
    }
  }
}

/** A replica that is to be put into quarantine. */
export interface Sentence {
  readonly replica: Replica;
  readonly n: number;
  /** null where its outputs are right, and its state is not. */
  readonly given: Uint8Array | null;
  readonly judged: Uint8Array;
  /** null where neither agrees with the fresh fold. */
  readonly sound: Replica | null;
  /** Two of three say the same; where that is not so, a second trial must. */
  readonly isConfirmed: boolean;
  readonly evidence: string;
}

/** What follows from a trial that is over. Nothing where no replica is wrong. */
export function sentences(trial: Trial, complaints: Complaints): Sentence[] {
  const found = replicas.filter((replica) => trial.finding(replica));
  if (found.length > 0) return found.map((replica) => ofFinding(trial, replica));
  if (complaints.disputed.length > 0) return complaints.disputed.map((replica) => ofState(trial, replica, complaints.disputed.length === 1));
  const foreign = complaints.held ? replicas.find((replica) => trial.foreign(replica)) : undefined;
  return foreign ? [ofForeign(trial, foreign)] : [];
}

function ofFinding(trial: Trial, replica: Replica): Sentence {
  const { n, given, judged } = trial.finding(replica) as Finding;
  const other = otherReplica(replica);
  const opposite = trial.finding(other);
  const agrees = !opposite && trial.agreedN(other) >= n;
  const said = `of output ${n} ${replica} gave chain ${chainText(given)}, the fresh fold of the log gives ${chainText(judged)}`;
  const others = agrees
    ? `, and so does ${other}`
    : opposite
      ? `, and ${other} differs from it at output ${opposite.n}`
      : `, ${other} has not come so far`;
  return { replica, n, given, judged, sound: opposite ? null : other, isConfirmed: agrees, evidence: `${said}${others}` };
}

function ofState(trial: Trial, replica: Replica, isAlone: boolean): Sentence {
  const n = trial.agreedN(replica);
  const said = `${replica} says that it folds something else`;
  const evidence = `its outputs up to ${n} are those of the fresh fold of the log, and ${said}: its state is wrong`;
  return { replica, n, given: null, judged: Buffer.alloc(0), sound: isAlone ? otherReplica(replica) : null, isConfirmed: true, evidence };
}

function ofForeign(trial: Trial, replica: Replica): Sentence {
  const { n, given, judged } = trial.foreign(replica) as Finding;
  const said = `${replica} has written output ${n} with two chains; the fresh fold of the log gives ${chainText(judged)}, not ${chainText(given)}`;
  return { replica, n, given, judged, sound: otherReplica(replica), isConfirmed: true, evidence: said };
}
