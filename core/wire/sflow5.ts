/**
 * sFlow version 5 (sflow.org, "sFlow Version 5", July 2004): a datagram's header, and its flow samples, each one packet, as NARs. Counter samples and
 * discarded packets (sflow.org, "sFlow Dropped Packet Notification Structures") are counted: they are no traffic.
 */
import type { Nar } from '../../schemas/types.ts';
import { addressText } from '../nar/address.ts';
import { labelOctets, sayNothing } from '../nar/details.ts';
import { type Cursor, readUnsigned } from './cursor.ts';
import { DetailRooms } from './details.ts';
import { labelColumns } from './element.ts';
import { noPacketHeader, type PacketHeader, readPacketHeader } from './packet-header.ts';
import { emptyNar, flowDirectionNotSaid } from './record.ts';

/** The first four octets tell the version, where NetFlow and IPFIX have two. */
export const sflow5Version = 5;
/** With an IPv4 agent; the shortest. */
export const sflow5HeaderOctetsMin = 28;

export interface Sflow5Header {
  /** As text; empty where the agent does not say it, or says 0.0.0.0 or ::. */
  readonly agent: string;
  readonly subAgentId: number;
  readonly sequence: number;
  readonly uptimeMs: number;
  readonly samples: number;
  readonly samplesAt: number;
}

const addressOctets: Readonly<Record<number, number>> = { 0: 0, 1: 4, 2: 16 };

/** undefined where the datagram ends before its header, or the agent's address is of no known type. */
export function readSflow5Header(bytes: Buffer): Sflow5Header | undefined {
  const octets = addressOctets[readUnsigned(bytes, 4, 4)];
  if (octets === undefined || bytes.length < 8 + octets + 16) return undefined;
  const agent = bytes.subarray(8, 8 + octets);
  const at = 8 + octets;
  return {
    agent: agent.every((octet) => octet === 0) ? '' : addressText(agent),
    subAgentId: readUnsigned(bytes, at, 4),
    sequence: readUnsigned(bytes, at + 4, 4),
    uptimeMs: readUnsigned(bytes, at + 8, 4),
    samples: readUnsigned(bytes, at + 12, 4),
    samplesAt: at + 16,
  };
}

/** Enterprise number (upper 20 bits, here always 0) and format of a sample. */
export const sampleFormat = { flow: 1, counters: 2, expandedFlow: 3, expandedCounters: 4, discardedPacket: 5 } as const;

/** Enterprise number 0 and format of a record in a flow sample. */
const recordFormat = { header: 1, ethernet: 2, ipv4: 3, ipv6: 4, vlans: 1001, router: 1002, gateway: 1003, nat: 1007 } as const;

/** A flow sample's own header: what it says beside its records. */
interface SampleHeader {
  sequence: number;
  source: number;
  samplingRate: number;
  inIf: number;
  outIf: number;
  /** The agent did not send the packet on. */
  isDiscarded: boolean;
  records: number;
}

/** Addresses of a sampled packet, and of its next hop. */
class SampledAddress {
  readonly #v4 = Buffer.alloc(4);
  readonly #v6 = Buffer.alloc(16);

  /** at: -1 for none. What is given out is overwritten by the next one. */
  read(bytes: Uint8Array, at: number, octets: number): Buffer {
    if (at < 0 || octets === 0) return noAddress;
    const address = octets === 4 ? this.#v4 : this.#v6;
    for (let i = 0; i < octets; i++) address[i] = bytes[at + i]!;
    return address;
  }
}

const noAddress = Buffer.alloc(0);

/** How well a record tells a packet's length: the frame's own, then that of what the agent decoded itself. */
const lengthRank = { none: 0, network: 1, ethernet: 2, frame: 3 } as const;

/** Reads flow samples into one and the same NAR, as RecordReader does. */
export class FlowSampleReader {
  /** Sequence number and source of the sample that was read last: `type x 2^32 + index`. */
  readonly sample: Readonly<Pick<SampleHeader, 'sequence' | 'source'>>;
  readonly #sample: SampleHeader = { sequence: 0, source: 0, samplingRate: 0, inIf: 0, outIf: 0, isDiscarded: false, records: 0 };
  readonly #packet: PacketHeader = noPacketHeader();
  readonly #source = new SampledAddress();
  readonly #destination = new SampledAddress();
  readonly #nextHop = new SampledAddress();
  readonly #rooms = new DetailRooms();
  readonly #nar: Nar = emptyNar();
  #lengthRank: number = lengthRank.none;

  constructor() {
    this.sample = this.#sample;
  }

  /**
   * The sample's header; false where the sample ends before it does. The cursor ends where the sample does.
   * The interfaces: an ifIndex, or 0 where it is unknown, none (a discarded packet), several, or the agent itself.
   */
  readHeader(cursor: Cursor, expanded: boolean): boolean {
    const sample = this.#sample;
    if (!cursor.has(expanded ? 44 : 32)) return false;
    sample.sequence = cursor.u32();
    if (expanded) {
      sample.source = cursor.u32() * 2 ** 32 + cursor.u32();
    } else {
      const source = cursor.u32();
      sample.source = (source >>> 24) * 2 ** 32 + (source & 0xff_ffff);
    }
    sample.samplingRate = cursor.u32();
    // The pool of packets, and samples that the agent itself dropped for want of resources.
    cursor.skip(8);
    sample.inIf = expanded ? readInterface(cursor.u32(), cursor.u32()) : readCompactInterface(cursor.u32());
    const compact = expanded ? 0 : cursor.u32();
    const format = expanded ? cursor.u32() : compact >>> 30;
    sample.outIf = expanded ? readInterface(format, cursor.u32()) : readCompactInterface(compact);
    sample.isDiscarded = format === discardedFormat;
    sample.records = cursor.u32();
    return true;
  }

  /** The records that follow the header. undefined where they do not parse; null where none of them tells the packet's length. */
  read(cursor: Cursor, exporter: number, receivedMs: number): Nar | null | undefined {
    const nar = this.#nar;
    this.#begin(nar, exporter, receivedMs);
    for (let i = 0; i < this.#sample.records; i++) {
      if (!cursor.has(8)) return undefined;
      const format = cursor.u32();
      const octets = cursor.u32();
      if (!cursor.has(octets)) return undefined;
      this.#readRecord(nar, format, cursor.bytes, cursor.at, cursor.at + octets);
      cursor.skip(octets);
    }
    nar.details = this.#rooms.said();
    return this.#lengthRank === lengthRank.none ? null : nar;
  }

  #begin(nar: Nar, exporter: number, receivedMs: number): void {
    const sample = this.#sample;
    this.#lengthRank = lengthRank.none;
    nar.exporter = exporter;
    nar.src_addr = noAddress;
    nar.dst_addr = noAddress;
    nar.src_port = 0;
    nar.dst_port = 0;
    nar.proto = 0;
    nar.bytes = 0;
    nar.packets = 1;
    nar.tcp_flags = 0;
    nar.ip_tos = 0;
    nar.in_if = sample.inIf;
    nar.out_if = sample.outIf;
    nar.src_as = 0;
    nar.dst_as = 0;
    nar.src_net = 0;
    nar.dst_net = 0;
    nar.next_hop = noAddress;
    nar.flow_direction = flowDirectionNotSaid;
    nar.sampling_rate = sample.samplingRate;
    nar.time_flow_start_ms = receivedMs;
    nar.time_flow_end_ms = receivedMs;
    nar.time_received_ms = receivedMs;
    this.#beginDetails();
  }

  #beginDetails(): void {
    const { details } = this.#rooms;
    sayNothing(details);
    if (this.#sample.isDiscarded) details.forwarding_status = statusDropped;
  }

  /** A record that ends before its fields do says nothing. */
  #readRecord(nar: Nar, format: number, bytes: Uint8Array, at: number, end: number): void {
    const octets = end - at;
    if (format === recordFormat.header && octets >= 16) this.#readHeaderRecord(nar, bytes, at, end);
    else if (format === recordFormat.ethernet && octets >= 20) this.#readEthernet(nar, bytes, at);
    else if (format === recordFormat.ipv4 && octets >= 32) this.#readNetwork(nar, bytes, at, 4);
    else if (format === recordFormat.ipv6 && octets >= 56) this.#readNetwork(nar, bytes, at, 16);
    else if (format === recordFormat.router) this.#readRouter(nar, bytes, at, end);
    else if (format === recordFormat.gateway) this.#readGateway(nar, bytes, at, end);
    else if (format === recordFormat.vlans && octets >= 16) this.#readVlans(bytes, at);
    else if (format === recordFormat.nat) this.#readNat(bytes, at, end);
  }

  #readHeaderRecord(nar: Nar, bytes: Uint8Array, at: number, end: number): void {
    const headerEnd = at + 16 + readUnsigned(bytes, at + 12, 4);
    if (headerEnd > end) return;
    this.#takeLength(nar, lengthRank.frame, readUnsigned(bytes, at + 4, 4));
    const packet = this.#packet;
    readPacketHeader(packet, bytes, at + 16, headerEnd, readUnsigned(bytes, at, 4));
    this.#detailPacket(packet, bytes);
    if (packet.srcAddressAt < 0) return;
    const octets = packet.v6 ? 16 : 4;
    nar.src_addr = this.#source.read(bytes, packet.srcAddressAt, octets);
    nar.dst_addr = this.#destination.read(bytes, packet.dstAddressAt, octets);
    nar.src_port = packet.srcPort;
    nar.dst_port = packet.dstPort;
    nar.proto = packet.proto;
    nar.tcp_flags = packet.tcpFlags;
    nar.ip_tos = packet.tos;
  }

  #detailPacket(packet: PacketHeader, bytes: Uint8Array): void {
    const rooms = this.#rooms;
    const { details } = rooms;
    details.src_mac = rooms.srcMac.read(bytes, packet.srcMacAt, 6);
    details.dst_mac = rooms.dstMac.read(bytes, packet.dstMacAt, 6);
    // The switch knows the VLAN of a port without tags, too.
    details.src_vlan ||= packet.vlan;
    details.customer_vlan = packet.customerVlan;
    details.icmp_type = packet.icmpType;
    details.icmp_code = packet.icmpCode;
    if (packet.labels === 0) return;
    const labels = Math.min(packet.labels, labelsMax);
    const whole = rooms.labels.view(labels * labelOctets);
    for (let i = 0; i < labels * labelOctets; i++) whole[i] = bytes[packet.labelsAt + Math.floor(i / labelOctets) * 4 + (i % labelOctets)]!;
    details.mpls_labels = whole;
  }

  #readEthernet(nar: Nar, bytes: Uint8Array, at: number): void {
    this.#takeLength(nar, lengthRank.ethernet, readUnsigned(bytes, at, 4));
    const rooms = this.#rooms;
    rooms.details.src_mac = rooms.srcMac.read(bytes, at + 4, 6);
    rooms.details.dst_mac = rooms.dstMac.read(bytes, at + 12, 6);
  }

  /** A VLAN that is none is one that the switch does not know. */
  #readVlans(bytes: Uint8Array, at: number): void {
    const { details } = this.#rooms;
    const [source, destination] = [readUnsigned(bytes, at, 4), readUnsigned(bytes, at + 8, 4)];
    if (source > 0 && source <= vlanMax) details.src_vlan = source;
    if (destination <= vlanMax) details.dst_vlan = destination;
  }

  #readNat(bytes: Uint8Array, start: number, end: number): void {
    const sourceOctets = addressOctetsAt(bytes, start, end);
    const at = start + 4 + sourceOctets;
    const destinationOctets = sourceOctets < 0 ? -1 : addressOctetsAt(bytes, at, end);
    if (destinationOctets < 0) return;
    const rooms = this.#rooms;
    rooms.details.nat_src_addr = rooms.natSource.read(bytes, start + 4, sourceOctets);
    rooms.details.nat_dst_addr = rooms.natDestination.read(bytes, at + 4, destinationOctets);
  }

  /** What the agent read out of the packet itself: it counts where the packet's header is not there, too. */
  #readNetwork(nar: Nar, bytes: Uint8Array, at: number, octets: 4 | 16): void {
    this.#takeLength(nar, lengthRank.network, readUnsigned(bytes, at, 4));
    if (nar.src_addr.length > 0) return;
    const behind = at + 8 + 2 * octets;
    nar.proto = bytes[at + 7]!;
    nar.src_addr = this.#source.read(bytes, at + 8, octets);
    nar.dst_addr = this.#destination.read(bytes, at + 8 + octets, octets);
    nar.src_port = readUnsigned(bytes, behind + 2, 2);
    nar.dst_port = readUnsigned(bytes, behind + 6, 2);
    nar.tcp_flags = readUnsigned(bytes, behind + 10, 2);
    nar.ip_tos = bytes[behind + 15]!;
  }

  #takeLength(nar: Nar, rank: number, octets: number): void {
    if (rank <= this.#lengthRank) return;
    this.#lengthRank = rank;
    nar.bytes = octets;
  }

  #readRouter(nar: Nar, bytes: Uint8Array, start: number, end: number): void {
    const octets = addressOctetsAt(bytes, start, end);
    const at = start + 4 + octets;
    if (octets < 0 || at + 8 > end) return;
    nar.next_hop = this.#nextHop.read(bytes, start + 4, octets);
    nar.src_net = Math.min(readUnsigned(bytes, at, 4), 128);
    nar.dst_net = Math.min(readUnsigned(bytes, at + 4, 4), 128);
  }

  /** The AS of the source, and the last one of the path, which is the destination's; without a path the destination is the agent's own AS. */
  #readGateway(nar: Nar, bytes: Uint8Array, start: number, end: number): void {
    const octets = addressOctetsAt(bytes, start, end);
    const at = start + 4 + octets;
    if (octets < 0 || at + 16 > end) return;
    const rooms = this.#rooms;
    rooms.details.bgp_next_hop = rooms.bgpNextHop.read(bytes, start + 4, octets);
    const ownAs = readUnsigned(bytes, at, 4);
    nar.src_as = readUnsigned(bytes, at + 4, 4) || ownAs;
    nar.dst_as = ownAs;
    const segments = readUnsigned(bytes, at + 12, 4);
    let next = at + 16;
    for (let i = 0; i < segments && next + 8 <= end; i++) {
      const numbers = readUnsigned(bytes, next + 4, 4);
      if (numbers > (end - next - 8) / 4) return;
      next += 8 + 4 * numbers;
      if (numbers > 0) nar.dst_as = readUnsigned(bytes, next - 4, 4);
    }
  }
}

/** Octets of the address whose type stands at `at`; -1 where there is no such address before `end`. */
function addressOctetsAt(bytes: Uint8Array, at: number, end: number): number {
  if (at + 4 > end) return -1;
  const octets = addressOctets[readUnsigned(bytes, at, 4)];
  return octets === undefined || at + 4 + octets > end ? -1 : octets;
}

/** "From or to the agent itself." */
const internalInterface = 0x3fff_ffff;

/** The format of an interface that tells why a packet was discarded. */
const discardedFormat = 1;
/** Forwarding status: dropped, for a reason that is not told here. */
const statusDropped = 0x80;
const vlanMax = 4_095;
/** As many as IPFIX has elements for. */
const labelsMax = labelColumns.length;

function readCompactInterface(value: number): number {
  return readInterface(value >>> 30, value & 0x3fff_ffff);
}

/** Format 0 is an ifIndex; 1 tells why the packet was discarded, 2 on how many interfaces it left. */
function readInterface(format: number, value: number): number {
  return format === 0 && value !== internalInterface ? value : 0;
}
