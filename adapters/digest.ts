/** SHA-256, for core, which imports nothing of node. */
import { createHash, hash } from 'node:crypto';

export function sha256(bytes: Uint8Array): Buffer {
  return hash('sha256', bytes, 'buffer');
}

/** A digest of bytes that come in pieces. */
export interface RunningDigest {
  add(bytes: Uint8Array): void;
  end(): Uint8Array;
}

export function runningSha256(): RunningDigest {
  const running = createHash('sha256');
  return { add: (bytes) => void running.update(bytes), end: () => running.digest() };
}
