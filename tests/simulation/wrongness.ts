/**
 * I15: a replica whose memory was changed is judged, and no other; and what it says when it is repaired is true.
 * Each check returns what is wrong, or nothing.
 */
import { outputBlockCodec, outputCodec, verdictCodec } from '../../schemas/codec.ts';
import { outputTopic, type Replica } from '../../schemas/topics.ts';
import type { OutputBlock, Verdict } from '../../schemas/types.ts';
import type { PartitionHistory } from './checkers.ts';
import type { ModelBroker } from './model-log.ts';

interface Flip {
  readonly replica: Replica;
  /** The process still folds with the state that was changed. */
  readonly isAtWork: () => boolean;
}

/** What was on its way when a process ended still arrives within this. */
const lateMs = 20_000;

/** What was changed in the memory of the processes of one partition. */
export class Wrongness {
  /** Outputs that are not those of the reference fold. */
  outputs = 0;
  quarantines = 0;
  repairs = 0;
  readonly verdicts = new Map<Replica, Verdict>();
  /** Replicas that are not repaired since they were flipped. */
  readonly #unrepaired = new Set<Replica>();
  /** Those that were flipped since they were put into quarantine: what they repair may be wrong anew. */
  readonly #flippedInRepair = new Set<Replica>();
  readonly #flips: Flip[] = [];
  readonly #lastMs = new Map<Replica, number>();
  #nowMs: () => number = () => 0;

  flip(flip: Flip, nowMs: () => number): void {
    this.#nowMs = nowMs;
    this.#flips.push(flip);
    this.#unrepaired.add(flip.replica);
    this.#flippedInRepair.add(flip.replica);
  }

  wasFlipped(replica: Replica): boolean {
    return this.#flips.some((flip) => flip.replica === replica);
  }

  /** From the flip until it is repaired, and as long as a process that does not know of it goes on. */
  isWrong(replica: Replica): boolean {
    if (!this.wasFlipped(replica)) return false;
    const isAtWork = this.#flips.some((flip) => flip.replica === replica && flip.isAtWork());
    if (isAtWork || this.#unrepaired.has(replica)) this.#lastMs.set(replica, this.#nowMs());
    return this.#nowMs() - (this.#lastMs.get(replica) ?? Number.NEGATIVE_INFINITY) <= lateMs;
  }

  /** Of two with one epoch the last counts. */
  take(verdict: Verdict): boolean {
    const replica = verdict.replica as Replica;
    const lastEpoch = this.verdicts.get(replica)?.epoch ?? 0;
    if (verdict.epoch < lastEpoch) return false;
    this.isWrong(replica);
    this.verdicts.set(replica, verdict);
    if (verdict.state === 'quarantined' && verdict.epoch > lastEpoch) this.#flippedInRepair.delete(replica);
    else if (verdict.state === 'repaired' && !this.wasFlippedInRepair(replica)) this.#unrepaired.delete(replica);
    return true;
  }

  wasFlippedInRepair(replica: Replica): boolean {
    return this.#flippedInRepair.has(replica);
  }

  get quarantined(): Verdict[] {
    return [...this.verdicts.values()].filter(({ state }) => state === 'quarantined');
  }
}

/** A verdict that counts. */
export function judgesTruly(broker: ModelBroker, history: PartitionHistory, value: Buffer): string | null {
  const verdict = verdictCodec.decode(value);
  const { wrongness, reference } = history;
  if (!wrongness.take(verdict)) return null;
  const replica = verdict.replica as Replica;
  if (verdict.state === 'repaired') {
    wrongness.repairs++;
    return wrongness.wasFlippedInRepair(replica) ? null : standsRepaired(broker, history, verdict);
  }
  wrongness.quarantines++;
  if (!wrongness.wasFlipped(replica)) return `${replica} is sound, and is put into quarantine: ${verdict.evidence}`;
  const expected = reference.outputs[verdict.n - 1];
  const judged = verdict.judged_chain.length === 0 || (expected && Buffer.compare(outputCodec.decode(expected).chain, verdict.judged_chain) === 0);
  return judged ? null : `the judge gives another chain to n ${verdict.n} than the fold: ${verdict.evidence}`;
}

/** Its topic begins with what is right, and whoever reads it in order gets nothing else, up to what was wrong and beyond it. */
function standsRepaired(broker: ModelBroker, history: PartitionHistory, { partition, replica, begins, n }: Verdict): string | null {
  const log = broker.partition(outputTopic(replica as Replica).name, partition);
  if (log.startOffset < begins) return `${replica} is repaired, and its topic begins at ${log.startOffset}, before ${begins}`;
  const records = log.entries.slice(log.startOffset).map(({ record }) => outputBlockCodec.decode(record.value!));
  const read = readInOrder(records, history);
  if (read.wrongN > 0) return `${replica} is repaired, and its output ${read.wrongN} is wrong`;
  if (read.lastN < n) return `${replica} is repaired, and its topic ends at n ${read.lastN}, ${n} was wrong`;
  if (read.firstN > history.emitted.length + 1)
    return `${replica} is repaired, and begins at n ${read.firstN}, ${history.emitted.length} are emitted`;
  const view = history.views[replica as Replica];
  view.ahead.clear();
  view.outputs.splice(0, view.outputs.length, ...history.reference.outputs.slice(0, read.lastN));
  return null;
}

/** What stands before something that is missing is taken when that comes. */
function readInOrder(blocks: readonly OutputBlock[], history: PartitionHistory): { firstN: number; lastN: number; wrongN: number } {
  const waiting = new Map<number, Buffer[]>();
  let firstN = 0;
  let lastN = 0;
  for (const output of blocks.flatMap(({ outputs }) => outputs)) {
    if (firstN === 0) {
      firstN = output.n;
      lastN = output.n - 1;
    }
    if (output.n > lastN) waiting.set(output.n, [...(waiting.get(output.n) ?? []), outputCodec.encode(output)]);
    for (let next = waiting.get(lastN + 1); next; next = waiting.get(lastN + 1)) {
      waiting.delete(++lastN);
      if (next.some((bytes) => !history.reference.outputs[lastN - 1]?.equals(bytes))) return { firstN, lastN, wrongN: lastN };
    }
  }
  return { firstN, lastN, wrongN: 0 };
}
