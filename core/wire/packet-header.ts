/**
 * The headers of one packet, as far as a sample holds them: Ethernet with VLAN and provider tags (IEEE 802.1Q), SNAP, MPLS (RFC 3032), IPv4
 * (RFC 791), IPv6 with its extension headers (RFC 8200), TCP, UDP and ICMP. A tunnel's inner packet (GRE, VXLAN, IP in IP) is payload: traffic is
 * that of the outer header, as an interface counts it.
 */
import { readUnsigned } from './cursor.ts';

/** How the header begins: numbers of sFlow's header_protocol. */
export const headerProtocol = { ethernet: 1, ipv4: 11, ipv6: 12, mpls: 13 } as const;

/** What was found. Offsets are those of the octets that were read, -1 where there is nothing. */
export interface PacketHeader {
  srcMacAt: number;
  dstMacAt: number;
  /** Outermost tag, and the one behind it; 0 where there is none. */
  vlan: number;
  customerVlan: number;
  /** The stack of labels: from here, so many. */
  labelsAt: number;
  labels: number;
  v6: boolean;
  srcAddressAt: number;
  dstAddressAt: number;
  /** Traffic class or type of service, with its ECN bits. */
  tos: number;
  /** Of the network packet with its header, in octets; 0 where no network header was found. */
  networkOctets: number;
  proto: number;
  srcPort: number;
  dstPort: number;
  tcpFlags: number;
  /** -1 where the packet is no ICMP, or the sample ends before. */
  icmpType: number;
  icmpCode: number;
}

export function noPacketHeader(): PacketHeader {
  return {
    ...{ srcMacAt: -1, dstMacAt: -1, vlan: 0, customerVlan: 0, labelsAt: -1, labels: 0, v6: false, srcAddressAt: -1, dstAddressAt: -1 },
    ...{ tos: 0, networkOctets: 0, proto: 0, srcPort: 0, dstPort: 0, tcpFlags: 0, icmpType: -1, icmpCode: -1 },
  };
}

const etherType = { ipv4: 0x0800, ipv6: 0x86dd, vlan: 0x8100, provider: 0x88a8, oldProvider: 0x9100, mpls: 0x8847, mplsMulticast: 0x8848 } as const;
/** Below this an ethertype is the length of an 802.3 frame. */
const etherTypeMin = 0x0600;
const snapHeader = 0xaaaa03;
const proto = { hopByHop: 0, icmp: 1, tcp: 6, udp: 17, routing: 43, fragment: 44, authentication: 51, icmp6: 58, destination: 60 } as const;
const sctp = 132;
const dccp = 33;
const udpLite = 136;
const mobility = 135;
const hostIdentity = 139;
const shim6 = 140;
/** Extension headers are chains that a sample's length bounds; this bounds the chains of the shortest ones. */
const extensionsMax = 16;

/** Reads the octets from `at` to `end` into `header`, all of which is set anew. What is cut off, or not known, stays unsaid. */
export function readPacketHeader(header: PacketHeader, bytes: Uint8Array, at: number, end: number, protocol: number): void {
  clear(header);
  if (protocol === headerProtocol.ethernet) readEthernet(header, bytes, at, end);
  else if (protocol === headerProtocol.ipv4) readIpv4(header, bytes, at, end);
  else if (protocol === headerProtocol.ipv6) readIpv6(header, bytes, at, end);
  else if (protocol === headerProtocol.mpls) readLabels(header, bytes, at, end);
}

function clear(header: PacketHeader): void {
  header.srcMacAt = -1;
  header.dstMacAt = -1;
  header.vlan = 0;
  header.customerVlan = 0;
  header.labelsAt = -1;
  header.labels = 0;
  header.v6 = false;
  header.srcAddressAt = -1;
  header.dstAddressAt = -1;
  header.tos = 0;
  header.networkOctets = 0;
  header.proto = 0;
  header.srcPort = 0;
  header.dstPort = 0;
  header.tcpFlags = 0;
  header.icmpType = -1;
  header.icmpCode = -1;
}

function readEthernet(header: PacketHeader, bytes: Uint8Array, start: number, end: number): void {
  if (start + 14 > end) return;
  header.dstMacAt = start;
  header.srcMacAt = start + 6;
  let at = start + 12;
  let type = readUnsigned(bytes, at, 2);
  let tags = 0;
  while ((type === etherType.vlan || type === etherType.provider || type === etherType.oldProvider) && at + 6 <= end) {
    const vlan = readUnsigned(bytes, at + 2, 2) & 0x0fff;
    if (tags === 0) header.vlan = vlan;
    else if (tags === 1) header.customerVlan = vlan;
    tags++;
    at += 4;
    type = readUnsigned(bytes, at, 2);
  }
  at += 2;
  if (type < etherTypeMin && at + 8 <= end && readUnsigned(bytes, at, 3) === snapHeader) {
    type = readUnsigned(bytes, at + 6, 2);
    at += 8;
  }
  if (type === etherType.ipv4) readIpv4(header, bytes, at, end);
  else if (type === etherType.ipv6) readIpv6(header, bytes, at, end);
  else if (type === etherType.mpls || type === etherType.mplsMulticast) readLabels(header, bytes, at, end);
}

/** What follows the bottom of the stack is not told; its first four bits are those of an IP version, or it is no IP (RFC 4928). */
function readLabels(header: PacketHeader, bytes: Uint8Array, start: number, end: number): void {
  header.labelsAt = start;
  let at = start;
  let bottom = false;
  while (!bottom && at + 4 <= end) {
    header.labels++;
    bottom = (bytes[at + 2]! & 1) === 1;
    at += 4;
  }
  if (!bottom || at >= end) return;
  const version = bytes[at]! >> 4;
  if (version === 4) readIpv4(header, bytes, at, end);
  else if (version === 6) readIpv6(header, bytes, at, end);
}

function readIpv4(header: PacketHeader, bytes: Uint8Array, at: number, end: number): void {
  if (at + 20 > end || bytes[at]! >> 4 !== 4) return;
  const octets = (bytes[at]! & 0x0f) * 4;
  if (octets < 20) return;
  header.tos = bytes[at + 1]!;
  header.networkOctets = readUnsigned(bytes, at + 2, 2);
  header.proto = bytes[at + 9]!;
  header.srcAddressAt = at + 12;
  header.dstAddressAt = at + 16;
  // Only a packet's first fragment has ports.
  if ((readUnsigned(bytes, at + 6, 2) & 0x1fff) === 0) readTransport(header, bytes, at + octets, end);
}

function readIpv6(header: PacketHeader, bytes: Uint8Array, at: number, end: number): void {
  if (at + 40 > end || bytes[at]! >> 4 !== 6) return;
  header.v6 = true;
  header.tos = (readUnsigned(bytes, at, 2) >> 4) & 0xff;
  header.networkOctets = 40 + readUnsigned(bytes, at + 4, 2);
  header.srcAddressAt = at + 8;
  header.dstAddressAt = at + 24;
  readExtensions(header, bytes, at + 40, end, bytes[at + 6]!);
}

/** Goes along the extension headers to the upper-layer protocol, or to the last one that the sample holds. */
function readExtensions(header: PacketHeader, bytes: Uint8Array, start: number, end: number, first: number): void {
  let at = start;
  header.proto = first;
  for (let extensions = 0; extensions < extensionsMax && isExtension(header.proto); extensions++) {
    if (at + 8 > end) return;
    const next = bytes[at]!;
    if (header.proto === proto.fragment && (readUnsigned(bytes, at + 2, 2) & 0xfff8) !== 0) {
      header.proto = next;
      return;
    }
    // The fragment header has no length of its own; that of the authentication header counts words of four octets (RFC 4302).
    if (header.proto === proto.fragment) at += 8;
    else if (header.proto === proto.authentication) at += (bytes[at + 1]! + 2) * 4;
    else at += (bytes[at + 1]! + 1) * 8;
    header.proto = next;
  }
  readTransport(header, bytes, at, end);
}

function isExtension(number: number): boolean {
  switch (number) {
    case proto.hopByHop:
    case proto.routing:
    case proto.fragment:
    case proto.authentication:
    case proto.destination:
    case mobility:
    case hostIdentity:
    case shim6:
      return true;
    default:
      return false;
  }
}

function readTransport(header: PacketHeader, bytes: Uint8Array, at: number, end: number): void {
  switch (header.proto) {
    case proto.tcp:
    case proto.udp:
    case udpLite:
    case sctp:
    case dccp:
      if (at + 4 > end) return;
      header.srcPort = readUnsigned(bytes, at, 2);
      header.dstPort = readUnsigned(bytes, at + 2, 2);
      if (header.proto === proto.tcp && at + 14 <= end) header.tcpFlags = readUnsigned(bytes, at + 12, 2) & 0x0fff;
      return;
    case proto.icmp:
    case proto.icmp6:
      if (at + 2 > end) return;
      header.icmpType = bytes[at]!;
      header.icmpCode = bytes[at + 1]!;
      return;
  }
}
