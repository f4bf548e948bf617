/**
 * Whether an output continues what the ledger holds of its partition.
 * I11: n = last + 1 is booked, n <= last was booked before and is dropped; and what is booked is the history of one fold.
 */
import type { Output } from '../../schemas/types.ts';
import { chainOf, chainText, type Digest, sameChain } from '../aggregate/chain.ts';

/** Why a partition is not booked any further. The ledger never goes on over one of these by itself. */
export interface LedgerFault {
  readonly code: 'gap' | 'chain' | 'partition' | 'undecodable' | 'unknown_schema' | 'correction';
  readonly partition: number;
  /** Of the output at fault; of undecodable records, the n that was expected there. */
  readonly n: number;
  /** What was found, in words and figures, and what to do. */
  readonly message: string;
}

export type Verdict = 'next' | 'booked_before' | LedgerFault;

/** Where a ledger stands in a partition. */
export interface Standing {
  readonly partition: number;
  /** Of the last output booked; 0 before the first. */
  readonly n: number;
  /** 16 octets; zeros before the first output. */
  readonly chain: Uint8Array;
  /** What output n was published with, before it was corrected; null where it was not. */
  readonly replacedChain: Uint8Array | null;
}

/** Of an output upon a ledger that stands there. */
export function judge({ partition, n: last, chain, replacedChain }: Standing, output: Output, digest: Digest): Verdict {
  const { n } = output;
  if (output.partition !== partition) {
    return fault('partition', partition, n, `names partition ${output.partition}: what wrote it is not a feed; see "flowledger topics"`);
  }
  if (n < last) return 'booked_before';
  if (n === last) {
    if (sameChain(output.chain, chain) || (replacedChain && sameChain(output.chain, replacedChain))) return 'booked_before';
    const found = `was booked with chain ${chainText(chain)} and comes again with chain ${chainText(output.chain)}`;
    return fault('chain', partition, n, `${found}: ${chainRemedy}`);
  }
  if (n > last + 1) {
    const remedy = 'do not cut topic aggregates before it is booked; restore its records, or book into a new ledger file from its first record';
    return fault('gap', partition, n, `follows n ${last} in topic aggregates: ${n - last - 1} outputs are missing. ${remedy}`);
  }
  const expected = chainOf(output, chain, digest).chain;
  if (sameChain(output.chain, expected)) return 'next';
  return fault(
    'chain',
    partition,
    n,
    `has chain ${chainText(output.chain)}, and what is booked is continued by ${chainText(expected)}: ${chainRemedy}`,
  );
}

const chainRemedy = 'two histories of this partition exist; "flowledger audit" shows which replica the ledger agrees with';

export function fault(code: LedgerFault['code'], partition: number, n: number, what: string): LedgerFault {
  return { code, partition, n, message: `partition ${partition}, output n ${n} ${what}` };
}
