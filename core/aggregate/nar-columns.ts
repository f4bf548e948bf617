/**
 * The NARs of a batch, read from its bytes into columns: the one thing that is done per NAR and not per batch before it is folded. No object is made
 * for a NAR, and the columns serve again for the next batch. What is read, and what is refused, is what the codec reads and refuses, which a test
 * holds; the schema's order of fields is repeated here, as in core/buffer/nar-writer.ts.
 */

import { type DetailNumberField, type DetailOctetField, detailNotSaid, detailNumberFields, detailOctetFields } from '../nar/details.ts';

/** The number fields of a NAR in the schema's order; `exporter` and the addresses are apart. */
export const numberFields = [
  ...(['src_port', 'dst_port', 'proto', 'bytes', 'packets', 'tcp_flags', 'ip_tos', 'in_if', 'out_if', 'src_as', 'dst_as', 'src_net'] as const),
  ...(['dst_net', 'flow_direction', 'sampling_rate', 'time_flow_start_ms', 'time_flow_end_ms', 'time_received_ms'] as const),
] as const;

export const addressFields = ['src_addr', 'dst_addr', 'next_hop'] as const;

export type NumberField = (typeof numberFields)[number];
export type AddressField = (typeof addressFields)[number];

/** Where a field is among the numbers. */
export function numberAt(field: NumberField): number {
  return numberFields.indexOf(field);
}

/** The exporter, and that there are no details, besides. */
const narBytesMin = 1 + addressFields.length + numberFields.length + 1;
const narsAtFirst = 64;
/** So many numbers come before next_hop; the other addresses come first. */
const beforeNextHop = numberAt('flow_direction');
const intFields: readonly NumberField[] = ['src_port', 'dst_port', 'proto', 'tcp_flags', 'ip_tos', 'src_net', 'dst_net', 'flow_direction'];
/** Longs, of which the codec reads only those that a number holds exactly. */
const isLong: readonly boolean[] = numberFields.map((field) => !intFields.includes(field));
const detailIsLong: readonly boolean[] = detailNumberFields.map((field) => field === 'ingress_vrf' || field === 'egress_vrf');
const [bytesAt, packetsAt, receivedAt] = [numberAt('bytes'), numberAt('packets'), numberAt('time_received_ms')];

/** Octets of one address, in the batch. */
interface AddressColumn {
  start: Int32Array;
  octets: Int32Array;
}

export class NarColumns {
  /** The batch; its addresses are read there. */
  bytes: Uint8Array = new Uint8Array(0);
  count = 0;
  /** Indices into the batch's exporters. */
  exporter: Int32Array = new Int32Array(narsAtFirst);
  /** In the order of numberFields. */
  readonly numbers: Float64Array[] = numberFields.map(() => new Float64Array(narsAtFirst));
  /** Where a NAR's details begin; -1 where it has none. They are read where a group asks for them. */
  details: Int32Array = new Int32Array(narsAtFirst);
  /** In the order of addressFields. */
  readonly addresses: readonly AddressColumn[] = addressFields.map(() => ({
    start: new Int32Array(narsAtFirst),
    octets: new Int32Array(narsAtFirst),
  }));

  /**
   * Reads the array of NARs that begins at `start` and reaches to the end of the batch, which names so many exporters. False where the codec would
   * not read it, or where a NAR says what none can say: no exporter of the batch, counters below 0, a time of reception beyond timeMsMax (ms). The
   * columns are of no meaning then.
   */
  read(batch: Uint8Array, start: number, exporters: number, timeMsMax: number): boolean {
    this.bytes = batch;
    this.count = 0;
    for (let at = start; ; ) {
      let block = readLong(batch, at);
      at = behind;
      if (block < 0) {
        // Its size follows, which says nothing new.
        block = -block;
        readLong(batch, at);
        at = behind;
      }
      if (!block) return at === batch.length;
      if (block > (batch.length - at) / narBytesMin) return false;
      this.#makeRoom(this.count + block);
      for (; block > 0; block--) {
        at = this.#readNar(at);
        if (at > batch.length || !this.#isWellFormed(exporters, timeMsMax)) return false;
        this.count++;
      }
    }
  }

  #makeRoom(count: number): void {
    if (count <= this.exporter.length) return;
    const room = Math.max(count, 2 * this.exporter.length);
    this.exporter = enlarged(this.exporter, room);
    this.details = enlarged(this.details, room);
    for (const address of this.addresses) {
      address.start = enlarged(address.start, room);
      address.octets = enlarged(address.octets, room);
    }
    for (const [index, column] of this.numbers.entries()) {
      const larger = new Float64Array(room);
      larger.set(column);
      this.numbers[index] = larger;
    }
  }

  /** The NAR becomes the one behind the last. Returns the position behind it; unread where it is not to be read. */
  #readNar(start: number): number {
    const exporter = readLong(this.bytes, start);
    // Anything that is no index at all.
    this.exporter[this.count] = exporter >= 0 && exporter < 0x7fff_ffff ? exporter : -1;
    const at = this.#readAddress(1, this.#readAddress(0, behind));
    const nextHop = this.#readNumbers(0, beforeNextHop, at);
    const end = this.#readNumbers(beforeNextHop, numberFields.length, this.#readAddress(2, nextHop));
    if (this.bytes[end] !== 0) return this.#skipDetails(end);
    this.details[this.count] = -1;
    return end + 1;
  }

  /** The union's branch, and behind it the details. */
  #skipDetails(start: number): number {
    const { bytes, count } = this;
    const branch = readLong(bytes, start);
    this.details[count] = branch === 1 ? behind : -1;
    let at = behind;
    if (branch === 0) return at;
    if (branch !== 1) return unread;
    for (let field = 0; field < detailOctetFields.length; field++) {
      const length = readLong(bytes, at);
      if (!(length >= 0 && length <= bytes.length - behind)) return unread;
      at = behind + length;
    }
    for (const isLong of detailIsLong) {
      const value = readLong(bytes, at);
      if (isLong && !isExact(value)) return unread;
      at = behind;
    }
    return at;
  }

  /** Octets of a detail: an empty part of the batch where it is not said. */
  detailOctets(index: number, field: DetailOctetField): Uint8Array {
    const start = this.details[index] as number;
    if (start < 0) return this.bytes.subarray(0, 0);
    const at = this.#detailAt(start, detailOctetFields.indexOf(field));
    const length = readLong(this.bytes, at);
    return this.bytes.subarray(behind, behind + length);
  }

  detailNumber(index: number, field: DetailNumberField): number {
    const start = this.details[index] as number;
    if (start < 0) return detailNotSaid(field);
    let at = this.#detailAt(start, detailOctetFields.length);
    for (let before = detailNumberFields.indexOf(field); before > 0; before--) {
      readLong(this.bytes, at);
      at = behind;
    }
    return readLong(this.bytes, at);
  }

  /** Where so many fields of octets end. */
  #detailAt(start: number, fields: number): number {
    let at = start;
    for (let field = 0; field < fields; field++) {
      const length = readLong(this.bytes, at);
      at = behind + length;
    }
    return at;
  }

  #readNumbers(from: number, to: number, start: number): number {
    const { bytes, numbers, count } = this;
    let at = start;
    for (let field = from; field < to; field++) {
      const octet = bytes[at] as number;
      if (octet < 0x80) {
        (numbers[field] as Float64Array)[count] = (octet >>> 1) ^ -(octet & 1);
        at++;
        continue;
      }
      const value = readLong(bytes, at);
      if (isLong[field] && !isExact(value)) return unread;
      (numbers[field] as Float64Array)[count] = value;
      at = behind;
    }
    return at;
  }

  #readAddress(index: number, at: number): number {
    const length = readLong(this.bytes, at);
    if (!(length >= 0 && length <= this.bytes.length - behind)) return unread;
    const { start, octets } = this.addresses[index] as AddressColumn;
    start[this.count] = behind;
    octets[this.count] = length;
    return behind + length;
  }

  #isWellFormed(exporters: number, timeMsMax: number): boolean {
    const { count, numbers } = this;
    const exporter = this.exporter[count] as number;
    const receivedMs = (numbers[receivedAt] as Float64Array)[count] as number;
    const counted = ((numbers[bytesAt] as Float64Array)[count] as number) >= 0 && ((numbers[packetsAt] as Float64Array)[count] as number) >= 0;
    return exporter >= 0 && exporter < exporters && counted && receivedMs >= 0 && receivedMs <= timeMsMax;
  }
}

function enlarged(column: Int32Array, room: number): Int32Array {
  const larger = new Int32Array(room);
  larger.set(column);
  return larger;
}

/** Behind the end of any batch. */
const unread = 0x7fff_ffff;
/** Behind the number that readLong read last: two results without an object. */
let behind = 0;

/**
 * Zigzag and 7 bits an octet, least significant first; behind the end stand zeros. Up to 7 octets are exact in two integers of 28 bits, which is
 * every number that a collector writes. Longer ones are summed up as the codec does it, and rounded as there.
 */
function readLong(bytes: Uint8Array, start: number): number {
  let at = start;
  let octet = bytes[at++] ?? 0;
  let low = octet & 0x7f;
  for (let shift = 7; octet > 0x7f && shift < 28; shift += 7) {
    octet = bytes[at++] ?? 0;
    low |= (octet & 0x7f) << shift;
  }
  if (octet < 0x80) {
    behind = at;
    return (low >>> 1) ^ -(low & 1);
  }
  let high = 0;
  for (let shift = 0; octet > 0x7f && shift < 21; shift += 7) {
    octet = bytes[at++] ?? 0;
    high |= (octet & 0x7f) << shift;
  }
  if (octet > 0x7f) return readLongest(bytes, at, low + high * 0x1000_0000);
  behind = at;
  // The lowest bit is the sign, the others are the amount.
  const amount = high * 0x800_0000 + (low >>> 1);
  return low & 1 ? -amount - 1 : amount;
}

function readLongest(bytes: Uint8Array, start: number, sum: number): number {
  let at = start;
  let zigzag = sum;
  let octet = 0;
  let weight = 2 ** 49;
  do {
    octet = bytes[at++] ?? 0;
    zigzag += (octet & 0x7f) * weight;
    weight *= 128;
  } while (octet > 0x7f);
  behind = at;
  return (zigzag % 2 ? -(zigzag + 1) : zigzag) / 2;
}

/** As the codec counts it: one less than the last safe integer, on both sides. */
function isExact(value: number): boolean {
  return value >= -(2 ** 53 - 2) && value <= 2 ** 53 - 2;
}
