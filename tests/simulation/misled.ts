/**
 * I17, where feeds follow one replica without waiting for the other: what is published although it is wrong, until it is corrected; and that then
 * all records, added up by somebody who knows nothing of corrections, are what the fold gives.
 */

import type { LogRecord } from '../../adapters/ports.ts';
import { outputCodec } from '../../schemas/codec.ts';
import type { Output } from '../../schemas/types.ts';
import { BalanceSums, chainAfter, type PartitionHistory } from './checkers.ts';

export class Misled {
  corrections = 0;
  /** Behind what is right, in order of n. */
  #wrong: Output[] = [];
  #correction: Output[] = [];
  /** Of every wrong output that was ever published, n and chain. */
  readonly #ever = new Set<string>();
  readonly #sums = new Map<string, bigint>();

  /** It was published, whether it is right or not. */
  wasPublished(n: number, chain: Uint8Array): boolean {
    return this.#ever.has(placeOf(n, chain));
  }

  /** Returns what a reader who knows of corrections has got now that is right; or what is wrong. */
  take(history: PartitionHistory, record: LogRecord, mayBeWrong: boolean): LogRecord[] | string {
    const output = outputCodec.decode(record.value!);
    addTo(this.#sums, output);
    if (output.correction && history.promised === 'one history') return this.#correctUnknown(history, output) ?? [];
    if (output.correction) return this.#correct(history, record, output);
    if (this.#correction.length > 0) return `a correction breaks off after ${this.#correction.length} records`;
    const isRight = record.value!.equals(history.reference.outputs[output.n - 1] ?? Buffer.alloc(0));
    if (this.#wrong.length === 0 && (isRight || !mayBeWrong || history.wrongness.outputs === 0)) return [record];
    return this.#mislead(history, output) ?? [];
  }

  #mislead(history: PartitionHistory, output: Output): string | null {
    const n = history.emitted.length + this.#wrong.length + 1;
    if (output.n !== n) return `aggregates has n ${output.n} where ${n} is due`;
    const right = history.emitted.at(-1);
    const before = this.#wrong.at(-1)?.chain ?? (right ? outputCodec.decode(right).chain : Buffer.alloc(16));
    if (!chainAfter(output, before).equals(output.chain)) return `aggregates ${n} does not continue the chain of ${n - 1}: two histories are mixed`;
    this.#wrong.push(output);
    this.#ever.add(placeOf(n, output.chain));
    return null;
  }

  #correct(history: PartitionHistory, record: LogRecord, output: Output): LogRecord[] | string {
    const { index, count, from_n, last_n, retracts } = output.correction!;
    const expected = { index: this.#correction.length + 1, from_n: history.emitted.length + 1, last_n: history.emitted.length + this.#wrong.length };
    if (index !== expected.index || from_n !== expected.from_n || last_n !== expected.last_n)
      return `a correction has record ${index}, of ${from_n} to ${last_n}; due is ${JSON.stringify(expected)}`;
    const right = history.reference.outputs[output.n - 1];
    if (!retracts && !right?.equals(outputCodec.encode({ ...output, correction: null })))
      return `a correction states ${output.n}, and not as the fold gives it`;
    this.#correction.push(output);
    if (index < count) return [];
    this.#correction = [];
    this.#wrong = [];
    this.corrections++;
    const outputs = history.reference.outputs.slice(0, last_n);
    const sums = new Map<string, bigint>();
    for (const bytes of outputs) addTo(sums, outputCodec.decode(bytes));
    if (text(sums) !== text(this.#sums))
      return `after a correction of ${from_n} to ${last_n} all records come to ${text(this.#sums)}, not ${text(sums)}`;
    return outputs.slice(from_n - 1).map((value) => ({ ...record, value }));
  }

  /** Of a log that was replaced without a base nobody knows what is right: what comes out is one history all the same, and adds up. */
  #correctUnknown(history: PartitionHistory, output: Output): string | null {
    const { index, count, from_n, last_n, chain } = output.correction!;
    if (index !== this.#correction.length + 1 || last_n !== history.emitted.length)
      return `a correction of ${from_n} to ${last_n} comes at ${history.emitted.length}`;
    this.#correction.push(output);
    if (index < count) return null;
    const stated = new Map(this.#correction.filter(({ correction }) => !correction!.retracts).map((one) => [one.n, { ...one, correction: null }]));
    this.#correction = [];
    this.corrections++;
    history.balance = new BalanceSums();
    for (let n = 1; n <= last_n; n++) {
      const before = n > 1 ? outputCodec.decode(history.emitted[n - 2]!).chain : Buffer.alloc(16);
      const found = stated.get(n) ?? outputCodec.decode(history.emitted[n - 1]!);
      const right = n < from_n ? found : { ...found, chain: chainAfter(found, before) };
      if (stated.has(n) && !Buffer.from(found.chain).equals(right.chain))
        return `a correction states ${n} with a chain that ${n - 1} does not lead to`;
      history.emitted[n - 1] = outputCodec.encode(right);
      const wrong = history.balance.take(right, null, (offset) => offset);
      if (wrong) return wrong;
    }
    const last = outputCodec.decode(history.emitted.at(-1)!).chain;
    return Buffer.from(last).equals(Buffer.from(chain)) ? null : `a correction of ${from_n} to ${last_n} does not lead to the chain that it names`;
  }
}

function placeOf(n: number, chain: Uint8Array): string {
  return `${n} ${Buffer.from(chain).toString('hex')}`;
}

/** Flows and bytes in one number. */
function addTo(sums: Map<string, bigint>, { aggregate }: Output): void {
  if (!aggregate) return;
  const key = `${aggregate.window_start_ms} ${aggregate.group.map(({ value }) => value).join('>')}`;
  const sum = (sums.get(key) ?? 0n) + (BigInt(aggregate.flows) << 64n) + aggregate.bytes;
  if (sum === 0n) sums.delete(key);
  else sums.set(key, sum);
}

function text(sums: ReadonlyMap<string, bigint>): string {
  return JSON.stringify([...sums].map(([key, sum]) => `${key}: ${sum}`).sort());
}
