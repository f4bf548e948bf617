/**
 * A partition of nars over all the topics of that name that there were: what both replicas have folded is one history, told in one run of offsets,
 * in which the records of a new log stand behind what its base names (DESIGN 3.8).
 */
import type { LogRecord } from '../../adapters/ports.ts';
import { narBatchCodec } from '../../schemas/codec.ts';
import { adminCollector } from '../../schemas/topics.ts';
import type { SnapshotName } from '../../schemas/types.ts';

interface Era {
  readonly topicId: string;
  /** What is added to an offset of this log; null before its base. */
  shift: number | null;
  /** The last n of the logs before it. */
  baseN: number;
}

export class LogEras {
  readonly #eras: Era[] = [];
  /** Outputs that were written and lead nowhere, by n: the base was behind them. */
  readonly #dropped = new Map<number, Buffer[]>();

  constructor(topicId: string) {
    this.#eras.push({ topicId, shift: 0, baseN: 0 });
  }

  get current(): Era {
    return this.#eras.at(-1)!;
  }

  of(topicId: string): Era | undefined {
    return this.#eras.find((era) => era.topicId === topicId);
  }

  replace(topicId: string): void {
    this.#eras.push({ topicId, shift: null, baseN: 0 });
  }

  /** Where in the whole history a record stands which an output of that n names. */
  placeOf(n: number, offset: number): number {
    const era = this.#eras.findLast(({ shift, baseN }) => shift !== null && n > baseN)!;
    return offset + era.shift!;
  }

  drop(fromN: number, outputs: readonly Buffer[]): void {
    for (const [index, output] of outputs.entries()) this.#dropped.set(fromN + index, [...(this.#dropped.get(fromN + index) ?? []), output]);
  }

  isDropped(n: number, output: Buffer): boolean {
    return this.#dropped.get(n)?.some((one) => one.equals(output)) ?? false;
  }
}

/** What the log's base names, where the record is one that may be the first. */
export function namedByBase(record: LogRecord): SnapshotName | null {
  const { collector, sequence, base } = narBatchCodec.decode(record.value!);
  return collector === adminCollector && sequence === 1 ? (base?.snapshot ?? null) : null;
}
