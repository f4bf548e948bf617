/** Which partition a flow belongs to: all observations of one flow, by whichever device, meet in one partition. */
import type { Nar } from '../../schemas/types.ts';

/** Changing the hash moves flows between logs in the middle of a window: golden values pin it. */
function mix(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = (k << 15) | (k >>> 17);
  let h = hash ^ Math.imul(k, 0x1b873593);
  h = (h << 13) | (h >>> 19);
  return (Math.imul(h, 5) + 0xe6546b64) | 0;
}

function mixAddress(hash: number, address: Uint8Array): number {
  let h = mix(hash, address.length);
  for (let at = 0; at + 4 <= address.length; at += 4) {
    h = mix(h, (address[at]! << 24) | (address[at + 1]! << 16) | (address[at + 2]! << 8) | address[at + 3]!);
  }
  return h;
}

/** MurmurHash3 (32 bit) over addresses, ports and protocol, modulo the number of partitions. */
export function partitionOf(nar: Nar, partitions: number): number {
  let h = mixAddress(mixAddress(0, nar.src_addr), nar.dst_addr);
  h = mix(h, (nar.src_port << 16) | nar.dst_port);
  h = mix(h, nar.proto);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return ((h ^ (h >>> 16)) >>> 0) % partitions;
}
