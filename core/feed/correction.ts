/**
 * What is emitted where something wrong was emitted before (DESIGN 3.5): nothing published is rewritten, so what was wrong is taken back, and what is
 * right is stated, in records that add up for whoever sums all of them, and by which the ledger comes to hold the right history to the octet.
 *
 * It begins with the first output that a verdict says the wrong replica gave, and needs all of the following, up to the tail of aggregates, from one
 * whose outputs are those of the fresh fold.
 */
import { encodeForChain } from '../../schemas/codec.ts';
import type { Replica } from '../../schemas/topics.ts';
import type { Aggregate, ExporterBalance, Output, Verdict, WindowClose } from '../../schemas/types.ts';
import { emptyChain, sameChain } from '../aggregate/chain.ts';
import type { Tail } from './tail.ts';

/** What aggregates is to be corrected by, and from where on. */
export interface Replacement {
  /** Whose outputs are right. */
  readonly replica: Replica;
  readonly verdict: Verdict;
  readonly tail: Tail;
}

/** Outputs of one history that are looked at: beyond it memory would not be bounded. */
export const correctedOutputsMax = 100_000;
/** One transaction must not outlast its time at the broker. */
const recordsMax = 50_000;

/** Why a partition stays held; the message says what is to be done. */
export class Uncorrectable extends Error {}

/**
 * Both histories from the verdict's n up to the tail's, in order of n, as they stand in the log; returns the records in the order in which they are
 * to stand in aggregates. @throws Uncorrectable where they are not what the verdict says, or too many
 */
export function correctionOf(wrong: readonly Output[], right: readonly Output[], { verdict, tail, replica }: Replacement): Output[] {
  const count = tail.n - verdict.n + 1;
  const [first, last] = [wrong[0], right.at(-1)];
  if (!first || !last || wrong.length !== count || right.length !== count) {
    throw new Uncorrectable(`outputs ${verdict.n} to ${tail.n} do not all stand in aggregates and in aggregates.${replica}: ${restoring}`);
  }
  if (!sameChain(first.chain, verdict.given_chain) || !sameChain(right[0]!.chain, verdict.judged_chain)) {
    throw new Uncorrectable(
      `what was emitted as output ${verdict.n} is not what the verdict found wrong, or ${replica} differs from it: ${restoring}`,
    );
  }
  const records: { readonly output: Output; readonly retracts: boolean }[] = [];
  for (const [i, published] of wrong.entries()) {
    const stated = right[i]!;
    if (!isSame(published, stated)) records.push({ output: retraction(published), retracts: true }, { output: stated, retracts: false });
  }
  if (records.length > recordsMax) throw new Uncorrectable(`${records.length} records would be needed, ${recordsMax} are allowed: ${restoring}`);
  const range = { from_n: verdict.n, last_n: tail.n, replaced_chain: asBuffer(tail.chain), chain: asBuffer(last.chain) };
  return records.map(({ output, retracts }, i) => ({ ...output, correction: { retracts, index: i + 1, count: records.length, ...range } }));
}

const restoring = 'the partition stays held until aggregates and the ledger are restored as they were before';

/** A close is stated again even where it is right, since the ledger compares what comes before it with it. */
function isSame(one: Output, other: Output): boolean {
  return one.aggregate !== null && other.aggregate !== null && encodeForChain(one, emptyChain).equals(encodeForChain(other, emptyChain));
}

function retraction(output: Output): Output {
  const { aggregate, window_close } = output;
  return { ...output, aggregate: aggregate && negatedAggregate(aggregate), window_close: window_close && negatedClose(window_close) };
}

function negatedAggregate(aggregate: Aggregate): Aggregate {
  return { ...aggregate, ...negated(aggregate, ['flows', 'bytes', 'packets', 'scaled_bytes', 'scaled_packets']) };
}

/** Its times, and what stood at that point, stay as they were. */
function negatedClose(close: WindowClose): WindowClose {
  return { ...close, ...negated(close, closeSums), exporters: close.exporters.map(negatedExporter) };
}

const closeSums = [
  'usage_aggregates',
  'usage_flows',
  'usage_bytes',
  'usage_packets',
  'adjustment_aggregates',
  'adjustment_flows',
  'adjustment_bytes',
  'adjustment_packets',
  'lost_on_wire_flows',
  'lost_on_wire_datagrams',
  'lost_flows',
  'clamped_flows',
  'unsampled_flows',
] as const;

function negatedExporter({ sampler_address, observation_domain_id, protocol, ...sums }: ExporterBalance): ExporterBalance {
  const names = Object.keys(sums) as (keyof typeof sums)[];
  return { sampler_address, observation_domain_id, protocol, ...sums, ...negated(sums, names) };
}

/** Less than nothing rather than -0. */
function negated<T, K extends keyof T>(record: T, names: readonly K[]): Pick<T, K> {
  const changed = {} as Record<K, unknown>;
  for (const name of names) {
    const value = record[name];
    changed[name] = typeof value === 'bigint' ? -value : 0 - (value as number);
  }
  return changed as Pick<T, K>;
}

/** The codec wants Buffers. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
