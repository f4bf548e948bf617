/** The chain of a partition's outputs: a digest of the whole history up to n, so that two histories that once differed differ for ever. */
import { encodeForChain } from '../../schemas/codec.ts';
import type { Output } from '../../schemas/types.ts';

/** SHA-256. */
export type Digest = (bytes: Uint8Array) => Uint8Array;

export const chainBytes = 16;

/** Before the first output. */
export const emptyChain: Uint8Array = Buffer.alloc(chainBytes);

export function chainOf(output: Output, previousChain: Uint8Array, digest: Digest): Uint8Array {
  return digest(encodeForChain(output, previousChain)).subarray(0, chainBytes);
}

export function sameChain(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}

export function chainText(chain: Uint8Array): string {
  const buffer = Buffer.isBuffer(chain) ? chain : Buffer.from(chain.buffer, chain.byteOffset, chain.byteLength);
  return buffer.toString('hex');
}
