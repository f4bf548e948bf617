/**
 * What must be true of a decoder whatever it is given: it does not throw; what it gives out can be encoded, and folded from its bytes; its memory is
 * bounded; and what stands beside spoilt octets is decoded exactly as without them.
 */
import { NarColumns } from '../../core/aggregate/nar-columns.ts';
import { narBytesMax, writeNar } from '../../core/buffer/nar-writer.ts';
import { partitionOf } from '../../core/nar/flow-key.ts';
import { Decoder, type DecoderLimits, defaultDecoderLimits } from '../../core/wire/decoder.ts';
import type { Nar } from '../../schemas/types.ts';

/** The NARs of one datagram: encoded one after another, where each ends, and whose each is. */
export interface Taken {
  readonly bytes: Buffer;
  readonly ends: readonly number[];
  readonly keys: readonly string[];
}

export interface Step {
  readonly address: string;
  readonly receivedMs: number;
  readonly datagram: Buffer;
  /** Of the NARs that the unspoilt datagram gives: so many at the beginning and at the end must be there; all and no other where `exactly`. */
  readonly wanted?: { readonly taken: Taken; readonly first: number; readonly last: number; readonly exactly: boolean };
}

/** A capture is an excerpt: its templates do not expire. */
const lasting = { ...defaultDecoderLimits, templateExpiryMs: Number.POSITIVE_INFINITY };
export const roomy: DecoderLimits = { ...lasting, exportersMax: 2_000, waitBytesMax: 256 * 1024 };
export const tight: DecoderLimits = { ...lasting, exportersMax: 8, templatesPerExporterMax: 4, fieldsPerTemplateMax: 24, waitBytesMax: 4_096 };

const timeMsMax = 8.64e15;
const columns = new NarColumns();
const countOctetsMax = 10;
const emptyArray = 0;

/** Collects what a datagram gives. */
export class Taking {
  #bytes = Buffer.alloc(64 * 1024);
  #end = countOctetsMax;
  ends: number[] = [];
  keys: string[] = [];
  /** The first NAR that cannot be, in words. */
  fault: string | null = null;

  clear(): void {
    this.#end = countOctetsMax;
    this.ends = [];
    this.keys = [];
    this.fault = null;
  }

  readonly sink = (nar: Nar, slot: { readonly key: string }): void => {
    if (this.#bytes.length < this.#end + narBytesMax + 1) this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(this.#bytes.length)]);
    this.fault ??= faultOf(nar);
    const start = this.#end;
    this.#end = writeNar(this.#bytes, start, nar, 0);
    if (this.#end - start > narBytesMax) this.fault ??= `a NAR of ${this.#end - start} octets`;
    this.ends.push(this.#end - countOctetsMax);
    this.keys.push(slot.key);
  };

  /** A view: to be copied by whoever keeps it. */
  taken(): Taken {
    return { bytes: this.#bytes.subarray(countOctetsMax, this.#end), ends: this.ends, keys: this.keys };
  }

  /** As an aggregator reads them out of a batch. */
  isFoldable(): boolean {
    const count = this.ends.length;
    if (count === 0) return true;
    this.#bytes[this.#end] = emptyArray;
    const head: number[] = [];
    for (let rest = 2 * count; head.length === 0 || rest > 0; rest = Math.floor(rest / 128)) head.push((rest % 128) | 0x80);
    head.push((head.pop() as number) & 0x7f);
    const start = countOctetsMax - head.length;
    this.#bytes.set(head, start);
    return columns.read(this.#bytes.subarray(0, this.#end + 1), start, 1, timeMsMax) && columns.count === count;
  }
}

const addressOctets = new Set([0, 4, 16]);

/** null for a NAR that may be. */
export function faultOf(nar: Nar): string | null {
  const { details } = nar;
  const addresses = [
    nar.src_addr,
    nar.dst_addr,
    nar.next_hop,
    ...(details ? [details.nat_src_addr, details.nat_dst_addr, details.bgp_next_hop] : []),
  ];
  if (!addresses.every(({ length }) => addressOctets.has(length))) return 'an address of no known length';
  const within = (value: number, max: number) => Number.isSafeInteger(value) && value >= 0 && value <= max;
  const octets = [nar.proto, nar.ip_tos, nar.src_net, nar.dst_net, nar.flow_direction];
  if (!octets.every((value) => within(value, 255))) return 'a number of more than one octet';
  if (![nar.src_port, nar.dst_port, nar.tcp_flags].every((value) => within(value, 0xffff))) return 'a number of more than two octets';
  if (![nar.in_if, nar.out_if, nar.src_as, nar.dst_as, nar.sampling_rate].every((value) => within(value, 0xffff_ffff)))
    return 'a number of more than four octets';
  if (!within(nar.bytes, Number.MAX_SAFE_INTEGER) || !within(nar.packets, Number.MAX_SAFE_INTEGER)) return 'a counter that is none';
  // A start may be computed from an uptime that is wrong; the fold looks at the distance.
  if (![nar.time_flow_start_ms, nar.time_flow_end_ms].every((ms) => Number.isSafeInteger(ms) && Math.abs(ms) < timeMsMax))
    return 'a time that is none';
  return within(partitionOf(nar, 7), 6) ? null : 'no partition';
}

/** Plays the steps to a new decoder. The fault in words; null where all is well. */
export function play(steps: readonly Step[], limits: DecoderLimits): string | null {
  const taking = new Taking();
  const decoder = new Decoder(limits);
  for (const [index, step] of steps.entries()) {
    taking.clear();
    try {
      decoder.decode(step.datagram, step.address, step.receivedMs, taking.sink);
      if (index % 16 === 0) decoder.expire(step.receivedMs);
    } catch (error) {
      return `step ${index}: it throws: ${(error as Error).stack}`;
    }
    const fault = taking.fault ?? (taking.isFoldable() ? boundsBroken(decoder, limits) : 'what cannot be folded') ?? unwanted(step, taking.taken());
    if (fault !== null) return `step ${index}: ${fault}`;
  }
  return endOf(decoder, limits);
}

function boundsBroken({ counters }: Decoder, limits: DecoderLimits): string | null {
  if (counters.waitingBytes > limits.waitBytesMax) return `${counters.waitingBytes} octets wait`;
  return counters.exporters > limits.exportersMax ? `${counters.exporters} exporters` : null;
}

function unwanted({ wanted }: Step, got: Taken): string | null {
  if (wanted === undefined) return null;
  const { taken, first, last, exactly } = wanted;
  const count = got.ends.length;
  if (exactly ? count !== taken.ends.length : count < first + last) return `${count} NARs instead of ${taken.ends.length}`;
  if (!isSame(part(taken, 0, first), part(got, 0, first))) return 'other NARs before the spoilt ones';
  const end = taken.ends.length;
  return isSame(part(taken, end - last, end), part(got, count - last, count)) ? null : 'other NARs behind the spoilt ones';
}

/** The NARs from one index to another. */
function part({ bytes, ends, keys }: Taken, from: number, to: number): { bytes: Buffer; keys: readonly string[] } {
  const at = (index: number) => (index === 0 ? 0 : (ends[index - 1] as number));
  return { bytes: bytes.subarray(at(from), at(to)), keys: keys.slice(from, to) };
}

function isSame(a: { bytes: Buffer; keys: readonly string[] }, b: { bytes: Buffer; keys: readonly string[] }): boolean {
  return a.bytes.equals(b.bytes) && a.keys.every((key, i) => key === b.keys[i]);
}

/** What is reported at the end, and what another process takes up of it. */
function endOf(decoder: Decoder, limits: DecoderLimits): string | null {
  try {
    decoder.expire(Number.POSITIVE_INFINITY);
    if (decoder.counters.waitingBytes !== 0 || decoder.counters.waitingSets !== 0) return 'sets wait for ever';
    const reports = decoder.takeReports();
    const whole = reports.every((report) => report.received_datagrams >= 0 && report.undecodable_flows >= 0 && report.rejected_flows >= 0);
    if (!whole) return 'a report that counts below zero';
    const next = new Decoder(limits);
    next.restore(decoder.takePositions());
    return null;
  } catch (error) {
    return `at the end it throws: ${(error as Error).stack}`;
  }
}
