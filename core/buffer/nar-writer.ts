/**
 * Avro for NARs, written as they come: the one thing that is done per flow and not per batch. A NAR is bytes as soon as it is in a batch, so that
 * nothing of it is left to collect. The bytes are those that the codec writes, which a test holds; the schema's order of fields is repeated here.
 */
import { narBatchCodec } from '../../schemas/codec.ts';
import type { Nar, NarBatch } from '../../schemas/types.ts';

/** Upper bound of an encoded NAR: three IPv6 addresses, every number at its longest. */
export const narBytesMax = 3 * 17 + 19 * 8;

/** Writes a NAR of the exporter with this index; there must be room for narBytesMax. Returns the position behind it. */
export function writeNar(into: Uint8Array, start: number, nar: Nar, exporter: number): number {
  let at = writeLong(into, start, exporter);
  at = writeBytes(into, at, nar.src_addr);
  at = writeBytes(into, at, nar.dst_addr);
  at = writeLong(into, at, nar.src_port);
  at = writeLong(into, at, nar.dst_port);
  at = writeLong(into, at, nar.proto);
  at = writeLong(into, at, nar.bytes);
  at = writeLong(into, at, nar.packets);
  at = writeLong(into, at, nar.tcp_flags);
  at = writeLong(into, at, nar.ip_tos);
  at = writeLong(into, at, nar.in_if);
  at = writeLong(into, at, nar.out_if);
  at = writeLong(into, at, nar.src_as);
  at = writeLong(into, at, nar.dst_as);
  at = writeLong(into, at, nar.src_net);
  at = writeLong(into, at, nar.dst_net);
  at = writeBytes(into, at, nar.next_hop);
  at = writeLong(into, at, nar.flow_direction);
  at = writeLong(into, at, nar.sampling_rate);
  at = writeLong(into, at, nar.time_flow_start_ms);
  at = writeLong(into, at, nar.time_flow_end_ms);
  return writeLong(into, at, nar.time_received_ms);
}

/** The batch with these NARs: they are the last field of the schema, so they take the place of the empty array at the end. */
export function encodeBatch(batch: NarBatch, nars: Uint8Array, count: number): Uint8Array {
  const frame = narBatchCodec.encode({ ...batch, nars: [] });
  if (count === 0) return frame;
  const header = new Uint8Array(countBytesMax);
  const headerEnd = writeLong(header, 0, count);
  const value = new Uint8Array(frame.length + headerEnd + nars.length);
  value.set(frame);
  value.set(header.subarray(0, headerEnd), frame.length - 1);
  value.set(nars, frame.length - 1 + headerEnd);
  return value;
}

const countBytesMax = 10;

/** Zigzag and 7 bits an octet, least significant first. Up to 2^30 in integer arithmetic, beyond it in two parts of less than 32 bits. */
function writeLong(into: Uint8Array, start: number, value: number): number {
  let at = start;
  if (value >= 0 && value < 0x4000_0000) {
    let rest = value << 1;
    while (rest > 0x7f) {
      into[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    into[at++] = rest;
    return at;
  }
  const zigzag = value >= 0 ? value : -value - 1;
  // Twice the value would pass 2^53: its lowest 27 bits and the sign make the first four octets. A remainder by % would cost a call.
  let high = Math.floor(zigzag / 0x800_0000);
  const low = (zigzag - high * 0x800_0000) * 2 + (value >= 0 ? 0 : 1);
  if (high === 0) {
    let rest = low;
    while (rest > 0x7f) {
      into[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    into[at++] = rest;
    return at;
  }
  into[at++] = (low & 0x7f) | 0x80;
  into[at++] = ((low >>> 7) & 0x7f) | 0x80;
  into[at++] = ((low >>> 14) & 0x7f) | 0x80;
  into[at++] = ((low >>> 21) & 0x7f) | 0x80;
  while (high > 0x7f) {
    into[at++] = (high & 0x7f) | 0x80;
    high >>>= 7;
  }
  into[at++] = high;
  return at;
}

function writeBytes(into: Uint8Array, start: number, bytes: Uint8Array): number {
  const { length } = bytes;
  let at = writeLong(into, start, length);
  for (let i = 0; i < length; i++) into[at++] = bytes[i] as number;
  return at;
}
