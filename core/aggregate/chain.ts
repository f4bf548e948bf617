/** The chain of a partition's outputs: a digest of its whole history up to n, so that two histories that once differed differ for ever. */
import { encodeForChain } from '../../schemas/codec.ts';
import type { Output } from '../../schemas/types.ts';

/** SHA-256. */
export type Digest = (bytes: Uint8Array) => Uint8Array;

export const chainBytes = 16;

/** Before the first output. */
export const emptyChain: Uint8Array = Buffer.alloc(chainBytes);

export interface Chained {
  readonly chain: Uint8Array;
  /** Encoded size of the output, which its chain does not change, in bytes. */
  readonly bytes: number;
}

export function chainOf(output: Output, previousChain: Uint8Array, digest: Digest): Chained {
  const encoded = encodeForChain(output, previousChain);
  // A copy, since a view would keep the whole digest alive in every output.
  return { chain: Buffer.from(digest(encoded).subarray(0, chainBytes)), bytes: encoded.length };
}

export function sameChain(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}

export function chainText(chain: Uint8Array): string {
  return Buffer.from(chain.buffer, chain.byteOffset, chain.byteLength).toString('hex');
}
