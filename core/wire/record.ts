/** One data record -> one NAR, by the decode plan of its template. */
import type { Nar } from '../../schemas/types.ts';
import { readUnsigned } from './cursor.ts';
import { DetailsReader, reverseDetails } from './details.ts';
import { column, type TimeKind } from './element.ts';
import { rateOf, type Sampling } from './sampling.ts';
import { type Layout, octetsBits, octetsMask, type Template, valueAt } from './template.ts';

/** What a record's meaning depends on beside its own octets. */
export interface RecordContext {
  receivedMs: number;
  /** The header's export time. */
  exportMs: number;
  /** sysUptime of the header (NetFlow v5, v9); -1 where the protocol has none. */
  uptimeMs: number;
  /** Time of the exporter's start from options (IPFIX systemInitTimeMilliseconds); 0 where it is not known. */
  systemInitMs: number;
  /** Rate of the header (NetFlow v5); 0 where it tells none. */
  headerRate: number;
  /** The exporter's number in its decoder. */
  exporter: number;
}

const flowDirectionEgress = 1;
export const flowDirectionNotSaid = 255;
/** Times from the year 10000 on are no times. */
const timeMsMax = 253_402_300_800_000;
/** From 1900 (NTP) to 1970 (Unix), in seconds. */
const ntpOffset = 2_208_988_800;

function has(layout: Layout, place: number): boolean {
  return layout[place]! >= 0;
}

/** Room for one address: what `read` gives out is overwritten by the next address. */
class AddressRoom {
  readonly #v4 = Buffer.alloc(4);
  readonly #v6 = Buffer.alloc(16);

  read(layout: Layout, bytes: Uint8Array, base: number, v6: boolean, place4: number, place6: number): Buffer {
    const entry = layout[v6 ? place6 : place4]!;
    if (entry < 0) return noAddress;
    const at = base + (entry >> octetsBits);
    const address = v6 ? this.#v6 : this.#v4;
    for (let i = 0; i < address.length; i++) address[i] = bytes[at + i]!;
    return address;
  }
}

const noAddress = Buffer.alloc(0);

/** A NAR to be filled in. */
export function emptyNar(): Nar {
  return {
    exporter: 0,
    src_addr: noAddress,
    dst_addr: noAddress,
    src_port: 0,
    dst_port: 0,
    proto: 0,
    bytes: 0,
    packets: 0,
    tcp_flags: 0,
    ip_tos: 0,
    in_if: 0,
    out_if: 0,
    src_as: 0,
    dst_as: 0,
    src_net: 0,
    dst_net: 0,
    next_hop: noAddress,
    flow_direction: 0,
    sampling_rate: 0,
    time_flow_start_ms: 0,
    time_flow_end_ms: 0,
    time_received_ms: 0,
    details: null,
  };
}

/**
 * Reads records into one and the same NAR, so that a flow leaves no object behind to be collected: millions of them would cost more than the reading.
 */
export class RecordReader {
  readonly #source = new AddressRoom();
  readonly #destination = new AddressRoom();
  readonly #nextHop = new AddressRoom();
  readonly #details = new DetailsReader();
  readonly #nar: Nar = emptyNar();

  /** The same object at each call, addresses included. null where a counter is implausible (2^53 or more). */
  read(template: Template, bytes: Buffer, base: number, context: RecordContext, sampling: Sampling): Nar | null {
    const { layout } = template;
    const octets = valueAt(layout, bytes, base, column.octets);
    const packets = valueAt(layout, bytes, base, column.packets);
    if (octets > Number.MAX_SAFE_INTEGER || packets > Number.MAX_SAFE_INTEGER) return null;
    const v6 = template.hasV6 && (!template.hasV4 || isV6(layout, bytes, base));
    const nar = this.#nar;
    nar.exporter = context.exporter;
    nar.src_addr = this.#source.read(layout, bytes, base, v6, column.srcAddr4, column.srcAddr6);
    nar.dst_addr = this.#destination.read(layout, bytes, base, v6, column.dstAddr4, column.dstAddr6);
    nar.src_port = valueAt(layout, bytes, base, column.srcPort);
    nar.dst_port = valueAt(layout, bytes, base, column.dstPort);
    nar.proto = valueAt(layout, bytes, base, column.proto);
    nar.bytes = octets;
    nar.packets = packets;
    nar.tcp_flags = valueAt(layout, bytes, base, column.tcpFlags);
    nar.ip_tos = valueAt(layout, bytes, base, column.tos);
    nar.in_if = valueAt(layout, bytes, base, column.inIf);
    nar.out_if = valueAt(layout, bytes, base, column.outIf);
    nar.src_as = valueAt(layout, bytes, base, column.srcAs);
    nar.dst_as = valueAt(layout, bytes, base, column.dstAs);
    nar.src_net = valueAt(layout, bytes, base, v6 ? column.srcNet6 : column.srcNet4);
    nar.dst_net = valueAt(layout, bytes, base, v6 ? column.dstNet6 : column.dstNet4);
    nar.next_hop = this.#nextHop.read(layout, bytes, base, v6, column.nextHop4, column.nextHop6);
    nar.flow_direction = has(layout, column.direction) ? valueAt(layout, bytes, base, column.direction) : flowDirectionNotSaid;
    const observedIf = nar.flow_direction === flowDirectionEgress ? nar.out_if : nar.in_if;
    nar.sampling_rate = samplingRate(template, bytes, base, observedIf, context, sampling);
    nar.time_flow_end_ms = endOf(template, bytes, base, context);
    nar.time_flow_start_ms = startOf(template, bytes, base, context, nar.time_flow_end_ms);
    nar.time_received_ms = context.receivedMs;
    nar.details = template.hasDetails ? this.#details.read(layout, bytes, base, nar.proto) : null;
    return nar;
  }

  /**
   * The reverse direction of the record that was read last, in the same object: ends swapped. The next hop and the direction in which the exporter
   * saw the flow are those of the forward one only. Times are the reverse direction's where they are told. null as for read.
   */
  readReverse(template: Template, bytes: Buffer, base: number, context: RecordContext): Nar | null {
    const { layout } = template;
    const octets = valueAt(layout, bytes, base, column.reverseOctets);
    const packets = valueAt(layout, bytes, base, column.reversePackets);
    if (octets > Number.MAX_SAFE_INTEGER || packets > Number.MAX_SAFE_INTEGER) return null;
    const nar = this.#nar;
    nar.bytes = octets;
    nar.packets = packets;
    [nar.src_addr, nar.dst_addr] = [nar.dst_addr, nar.src_addr];
    [nar.src_port, nar.dst_port] = [nar.dst_port, nar.src_port];
    [nar.in_if, nar.out_if] = [nar.out_if, nar.in_if];
    [nar.src_as, nar.dst_as] = [nar.dst_as, nar.src_as];
    [nar.src_net, nar.dst_net] = [nar.dst_net, nar.src_net];
    nar.tcp_flags = valueAt(layout, bytes, base, column.reverseTcpFlags);
    nar.ip_tos = valueAt(layout, bytes, base, column.reverseTos);
    nar.next_hop = noAddress;
    nar.flow_direction = flowDirectionNotSaid;
    const start = timeOf(layout, template.reverseStartKind, column.reverseStart, bytes, base, context);
    const end = timeOf(layout, template.reverseEndKind, column.reverseEnd, bytes, base, context);
    if (isTime(start)) nar.time_flow_start_ms = start;
    if (isTime(end)) nar.time_flow_end_ms = end;
    if (nar.details !== null) reverseDetails(nar.details);
    return nar;
  }
}

function isTime(ms: number): boolean {
  return ms > 0 && ms < timeMsMax;
}

/** RFC 5103, and the responder's counters of a firewall. */
export function hasReverseTraffic({ layout }: Template, bytes: Uint8Array, base: number): boolean {
  return valueAt(layout, bytes, base, column.reverseOctets) > 0 || valueAt(layout, bytes, base, column.reversePackets) > 0;
}

/** Some devices fill in both families, with zeros in the one that does not apply. */
function isV6(layout: Layout, bytes: Uint8Array, base: number): boolean {
  if (anyOctet(layout, bytes, base, column.srcAddr4) || anyOctet(layout, bytes, base, column.dstAddr4)) return false;
  return anyOctet(layout, bytes, base, column.srcAddr6) || anyOctet(layout, bytes, base, column.dstAddr6);
}

function anyOctet(layout: Layout, bytes: Uint8Array, base: number, place: number): boolean {
  const entry = layout[place]!;
  if (entry < 0) return false;
  const at = base + (entry >> octetsBits);
  for (let i = at; i < at + (entry & octetsMask); i++) if (bytes[i] !== 0) return true;
  return false;
}

/** The record's own rate, else the header's, else what options records announced, else what is configured. */
function samplingRate(template: Template, bytes: Uint8Array, base: number, observedIf: number, context: RecordContext, sampling: Sampling): number {
  const { layout } = template;
  if (template.hasRate) {
    const interval = valueAt(layout, bytes, base, column.samplingInterval);
    if (interval > 0) return interval;
    const rate = ownRate(layout, bytes, base);
    if (rate > 0) return rate;
  }
  return context.headerRate > 0 ? context.headerRate : sampling.rateFor(valueAt(layout, bytes, base, column.samplerId), observedIf);
}

/** The rate that the record's fields tell; 0 where they tell none. */
function ownRate(layout: Layout, bytes: Uint8Array, base: number): number {
  return rateOf({
    interval: valueAt(layout, bytes, base, column.samplingInterval),
    packetInterval: valueAt(layout, bytes, base, column.samplingPacketInterval),
    packetSpace: valueAt(layout, bytes, base, column.samplingPacketSpace),
    size: valueAt(layout, bytes, base, column.samplingSize),
    population: valueAt(layout, bytes, base, column.samplingPopulation),
    probability: 0,
  });
}

/** Where nothing usable tells the end, it is the export time; where nothing tells the start, it is the end. */
function endOf(template: Template, bytes: Uint8Array, base: number, context: RecordContext): number {
  const end = timeOf(template.layout, template.endKind, column.end, bytes, base, context);
  if (isTime(end)) return end;
  if (template.durationKind === 'none') return context.exportMs;
  const start = timeOf(template.layout, template.startKind, column.start, bytes, base, context);
  return isTime(start) ? start + durationOf(template, bytes, base) : context.exportMs;
}

/** In ms, rounded down. */
function durationOf({ layout, durationKind }: Template, bytes: Uint8Array, base: number): number {
  const duration = valueAt(layout, bytes, base, column.duration);
  return durationKind === 'delta' ? Math.floor(duration / 1000) : duration;
}

function startOf(template: Template, bytes: Uint8Array, base: number, context: RecordContext, end: number): number {
  const { layout } = template;
  const start = timeOf(layout, template.startKind, column.start, bytes, base, context);
  if (isTime(start)) return start;
  if (template.durationKind !== 'none' && template.startKind === 'none') return Math.max(1, end - durationOf(template, bytes, base));
  if (template.startKind !== 'uptime' || template.endKind !== 'uptime') return end;
  // The exporter's start is unknown, the duration is not.
  const durationMs = (valueAt(layout, bytes, base, column.end) - valueAt(layout, bytes, base, column.start)) | 0;
  return durationMs > 0 ? end - durationMs : end;
}

/** Unix time in ms, 0 where the record does not tell it. */
function timeOf(layout: Layout, kind: TimeKind, place: number, bytes: Uint8Array, base: number, context: RecordContext): number {
  if (!has(layout, place)) return 0;
  switch (kind) {
    case 'uptime':
      return fromUptime(layout, bytes, base, valueAt(layout, bytes, base, place), context);
    case 'milliseconds':
      return valueAt(layout, bytes, base, place);
    case 'seconds':
      return valueAt(layout, bytes, base, place) * 1000;
    case 'ntp': {
      const at = base + (layout[place]! >> octetsBits);
      return fromNtp(readUnsigned(bytes, at, 4), readUnsigned(bytes, at + 4, 4));
    }
    case 'delta':
      return Math.floor(context.exportMs - valueAt(layout, bytes, base, place) / 1000);
    case 'none':
      return 0;
  }
}

/**
 * A time that counts ms since the exporter's start. Both counters wrap at 2^32 ms, and some devices set a time just before the start (-1) or just
 * after the export, so the age is a signed difference modulo 2^32.
 */
function fromUptime(layout: Layout, bytes: Uint8Array, base: number, switchedMs: number, context: RecordContext): number {
  if (context.uptimeMs >= 0) return context.exportMs - ((context.uptimeMs - switchedMs) | 0);
  const initMs = valueAt(layout, bytes, base, column.systemInit) || context.systemInitMs;
  if (initMs === 0 || initMs > timeMsMax) return 0;
  return context.exportMs - ((context.exportMs - initMs - switchedMs) | 0);
}

/** RFC 7011 section 6.1.9; the era that began in 2036 included. */
function fromNtp(seconds: number, fraction: number): number {
  if (seconds === 0) return 0;
  const unixSeconds = seconds >= ntpOffset ? seconds - ntpOffset : seconds + 2 ** 32 - ntpOffset;
  return unixSeconds * 1000 + Math.floor((fraction * 1000) / 2 ** 32);
}
