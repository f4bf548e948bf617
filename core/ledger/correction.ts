/**
 * What the ledger does with a correction: from its first n on the partition is booked anew, as if the right outputs had been published at once.
 * I11: the history that comes out must reach the chain which the correction names, so that not an octet of it is taken on trust.
 */
import type { Output, WindowClose } from '../../schemas/types.ts';
import { chainOf, type Digest, sameChain } from '../aggregate/chain.ts';
import { type Book, type Booking, enter, newBooking } from './book.ts';
import { fault, type LedgerFault } from './continuity.ts';

/** All records of one correction. */
export interface WholeCorrection {
  readonly partition: number;
  readonly fromN: number;
  readonly lastN: number;
  readonly replacedChain: Uint8Array;
  readonly chain: Uint8Array;
  /** As they were published, sums negated. */
  readonly retracted: readonly Output[];
  /** By n, as the fold gives them. */
  readonly stated: ReadonlyMap<number, Output>;
}

/** The records of a correction that were read so far; they stand one behind the other. */
export class CorrectionRecords {
  /** In topic aggregates, of the first one: reading goes on there after a stop. */
  readonly offset: number;
  readonly #outputs: Output[] = [];

  constructor(offset: number) {
    this.offset = offset;
  }

  /** Returns the whole once it is there. */
  take(output: Output): WholeCorrection | LedgerFault | null {
    const { correction, partition, n } = output;
    if (correction?.index !== this.#outputs.length + 1) {
      const found = correction ? `record ${correction.index} of ${correction.count}` : 'an ordinary output';
      return fault('correction', partition, n, `is ${found} where record ${this.#outputs.length + 1} of a correction must follow: ${remedy}`);
    }
    this.#outputs.push(output);
    return correction.index < correction.count ? null : wholeOf(this.#outputs);
  }
}

const remedy = 'only a feed may write to topic aggregates';

function wholeOf(outputs: readonly Output[]): WholeCorrection {
  const { partition, correction } = outputs[0]!;
  const { from_n, last_n, replaced_chain, chain } = correction!;
  const stated = outputs.filter((output) => !output.correction!.retracts);
  return {
    partition,
    fromN: from_n,
    lastN: last_n,
    replacedChain: replaced_chain,
    chain,
    retracted: outputs.filter((output) => output.correction!.retracts),
    stated: new Map(stated.map((output) => [output.n, { ...output, correction: null }])),
  };
}

/** Whether it is about what the book holds. */
export function judgeCorrection(book: Book, { partition, lastN, replacedChain, chain }: WholeCorrection): 'next' | 'booked_before' | LedgerFault {
  if (lastN < book.n || (lastN === book.n && sameChain(book.chain, chain))) return 'booked_before';
  if (lastN > book.n) return fault('gap', partition, lastN, `is corrected, and the ledger stands at n ${book.n}: outputs are missing before it`);
  if (sameChain(book.chain, replacedChain)) return 'next';
  return fault('chain', partition, lastN, 'is corrected in another history than the one that is booked; see "flowledger audit"');
}

/** The closes that are taken back. */
export function retractedCloses({ retracted }: WholeCorrection): { readonly n: number; readonly close: WindowClose }[] {
  return retracted.flatMap(({ n, window_close: close }) => (close ? [{ n, close }] : []));
}

/** Upon the book before its first n. `kept`: the aggregates booked since, by n; those that it does not name are right. */
export function rebook(book: Book, correction: WholeCorrection, kept: ReadonlyMap<number, Output>, digest: Digest): Booking | LedgerFault {
  const { partition, fromN, lastN, stated } = correction;
  const booking = newBooking(book);
  for (let n = fromN; n <= lastN; n++) {
    const known = stated.get(n) ?? kept.get(n);
    if (!known) return fault('correction', partition, n, `is neither stated by the correction of ${fromN} to ${lastN} nor booked: ${remedy}`);
    const output = stated.has(n) ? known : { ...known, chain: chainOf(known, booking.book.chain, digest).chain };
    const found = enter(booking, output, digest);
    if (found) return found;
  }
  if (!sameChain(booking.book.chain, correction.chain)) {
    return fault('correction', partition, lastN, `does not get the chain that the correction of ${fromN} to ${lastN} names: ${remedy}`);
  }
  booking.book.replacedChain = correction.replacedChain;
  return booking;
}
