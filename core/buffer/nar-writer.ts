/**
 * Avro for NARs, written as they come: the one thing that is done per flow and not per batch. A NAR is bytes as soon as it is in a batch, so that
 * nothing of it is left to collect. The bytes are those that the codec writes, which a test holds; the schema's order of fields is repeated here.
 */
import { narBatchCodec } from '../../schemas/codec.ts';
import type { Nar, NarBatch, NarDetails } from '../../schemas/types.ts';

/** Upper bounds of encoded details, which have nothing longer than 32 octets, and of an encoded NAR: every number at its longest. */
const detailsBytesMax = 7 * 33 + 10 * 8;
export const narBytesMax = 3 * 17 + 19 * 8 + 1 + detailsBytesMax;

/** The numbers of a NAR on their way: writing them in one loop is twice as fast as a call for each. */
const numbers = new Float64Array(13);

/** Writes a NAR of the exporter with this index; there must be room for narBytesMax. Returns the position behind it. */
export function writeNar(into: Uint8Array, start: number, nar: Nar, exporter: number): number {
  let at = writeLong(into, start, exporter);
  at = writeBytes(into, at, nar.src_addr);
  at = writeBytes(into, at, nar.dst_addr);
  numbers[0] = nar.src_port;
  numbers[1] = nar.dst_port;
  numbers[2] = nar.proto;
  numbers[3] = nar.bytes;
  numbers[4] = nar.packets;
  numbers[5] = nar.tcp_flags;
  numbers[6] = nar.ip_tos;
  numbers[7] = nar.in_if;
  numbers[8] = nar.out_if;
  numbers[9] = nar.src_as;
  numbers[10] = nar.dst_as;
  numbers[11] = nar.src_net;
  numbers[12] = nar.dst_net;
  at = writeNumbers(into, at, 13);
  at = writeBytes(into, at, nar.next_hop);
  numbers[0] = nar.flow_direction;
  numbers[1] = nar.sampling_rate;
  numbers[2] = nar.time_flow_start_ms;
  numbers[3] = nar.time_flow_end_ms;
  numbers[4] = nar.time_received_ms;
  at = writeNumbers(into, at, 5);
  if (nar.details !== null) return writeDetails(into, at, nar.details);
  // The union's branch for null.
  into[at] = 0;
  return at + 1;
}

function writeDetails(into: Uint8Array, start: number, details: NarDetails): number {
  let at = start;
  into[at++] = 2;
  at = writeBytes(into, at, details.src_mac);
  at = writeBytes(into, at, details.dst_mac);
  at = writeBytes(into, at, details.mpls_labels);
  at = writeBytes(into, at, details.nat_src_addr);
  at = writeBytes(into, at, details.nat_dst_addr);
  at = writeBytes(into, at, details.bgp_next_hop);
  at = writeBytes(into, at, details.application_id);
  numbers[0] = details.src_vlan;
  numbers[1] = details.dst_vlan;
  numbers[2] = details.customer_vlan;
  numbers[3] = details.nat_src_port;
  numbers[4] = details.nat_dst_port;
  numbers[5] = details.icmp_type;
  numbers[6] = details.icmp_code;
  numbers[7] = details.ingress_vrf;
  numbers[8] = details.egress_vrf;
  numbers[9] = details.forwarding_status;
  return writeNumbers(into, at, 10);
}

function writeNumbers(into: Uint8Array, start: number, count: number): number {
  let at = start;
  for (let i = 0; i < count; i++) {
    const value = numbers[i] as number;
    let rest = value >= 0 && value < 0x4000_0000 ? value << 1 : -1;
    // Large, or below 0.
    if (rest < 0) {
      at = writeLong(into, at, value);
      continue;
    }
    while (rest > 0x7f) {
      into[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    into[at++] = rest;
  }
  return at;
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
  let rest: number;
  if (value >= 0 && value < 0x4000_0000) rest = value << 1;
  else {
    const amount = value >= 0 ? value : -value - 1;
    // Twice the value would pass 2^53: its lowest 27 bits and the sign make the first four octets. A remainder by % would cost a call.
    rest = Math.floor(amount / 0x800_0000);
    const low = (amount - rest * 0x800_0000) * 2 + (value >= 0 ? 0 : 1);
    if (rest > 0) {
      into[at] = (low & 0x7f) | 0x80;
      into[at + 1] = ((low >>> 7) & 0x7f) | 0x80;
      into[at + 2] = ((low >>> 14) & 0x7f) | 0x80;
      into[at + 3] = ((low >>> 21) & 0x7f) | 0x80;
      at += 4;
    } else rest = low;
  }
  while (rest > 0x7f) {
    into[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  into[at++] = rest;
  return at;
}

/** The length of an address takes one octet. */
function writeBytes(into: Uint8Array, start: number, bytes: Uint8Array): number {
  const { length } = bytes;
  let at = length < 64 ? start : writeLong(into, start, length);
  if (length < 64) into[at++] = length << 1;
  for (let i = 0; i < length; i++) into[at++] = bytes[i] as number;
  return at;
}
