/** Blocks as they are read from a replica's output topic. */
import { outputBlockCodec, UndecodableRecord } from '../../schemas/codec.ts';
import type { OutputBlock } from '../../schemas/types.ts';

/** Null for what is none, or is of another partition where one is named. @throws UnknownSchema */
export function decodeBlock(value: Uint8Array | null, partition?: number): OutputBlock | null {
  try {
    const block = value && outputBlockCodec.decode(value);
    return block && (partition === undefined || block.partition === partition) ? block : null;
  } catch (error) {
    if (error instanceof UndecodableRecord) return null;
    throw error;
  }
}
