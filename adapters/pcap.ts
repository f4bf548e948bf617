/** UDP datagrams of a capture file in the classic libpcap format (both byte orders, microseconds and nanoseconds). */
import { readFile } from 'node:fs/promises';
import { addressText } from '../core/nar/address.ts';

export interface CapturedDatagram {
  /** When it was captured, Unix time in ms. */
  readonly timeMs: number;
  readonly source: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Buffer;
}

/** The file is no classic pcap, or of a link type that is not known. */
export class UnreadableCapture extends Error {}

const fileHeaderOctets = 24;
const packetHeaderOctets = 16;

/** Ethertypes. */
const ipv4 = 0x0800;
const ipv6 = 0x86dd;
const vlanTags = new Set([0x8100, 0x88a8, 0x9100]);

const udp = 17;

/** Packets that hold no whole UDP datagram (fragments too) are left out. @throws UnreadableCapture, or what reading the file throws */
export async function readPcap(path: string): Promise<CapturedDatagram[]> {
  return parsePcap(await readFile(path), path);
}

export function parsePcap(file: Buffer, name: string): CapturedDatagram[] {
  const { littleEndian, ticksPerMs } = readMagic(file, name);
  const u32 = (at: number) => (littleEndian ? file.readUInt32LE(at) : file.readUInt32BE(at));
  const link = linkLayer(u32(20) & 0x0fff_ffff, name);
  const datagrams: CapturedDatagram[] = [];
  let at = fileHeaderOctets;
  while (at + packetHeaderOctets <= file.length) {
    const timeMs = u32(at) * 1000 + u32(at + 4) / ticksPerMs;
    const end = at + packetHeaderOctets + u32(at + 8);
    if (end > file.length) break;
    const datagram = fromPacket(file.subarray(at + packetHeaderOctets, end), link, timeMs);
    if (datagram !== undefined) datagrams.push(datagram);
    at = end;
  }
  return datagrams;
}

function readMagic(file: Buffer, name: string): { littleEndian: boolean; ticksPerMs: number } {
  const magic = file.length >= fileHeaderOctets ? file.readUInt32BE(0) : 0;
  switch (magic) {
    case 0xa1b2c3d4:
      return { littleEndian: false, ticksPerMs: 1e3 };
    case 0xd4c3b2a1:
      return { littleEndian: true, ticksPerMs: 1e3 };
    case 0xa1b23c4d:
      return { littleEndian: false, ticksPerMs: 1e6 };
    case 0x4d3cb2a1:
      return { littleEndian: true, ticksPerMs: 1e6 };
    case 0x0a0d0d0a:
      throw new UnreadableCapture(`${name} is a pcapng file; convert it with: editcap -F pcap IN OUT`);
    default:
      throw new UnreadableCapture(`${name} is no pcap file`);
  }
}

/** How many octets precede the network packet, and where its ethertype stands (-1: told by the IP version). */
interface Link {
  readonly octets: number;
  readonly typeAt: number;
}

function linkLayer(linkType: number, name: string): Link {
  switch (linkType) {
    case 0:
      return { octets: 4, typeAt: -1 };
    case 1:
      return { octets: 14, typeAt: 12 };
    case 12:
    case 101:
    case 228:
    case 229:
      return { octets: 0, typeAt: -1 };
    case 113:
      return { octets: 16, typeAt: 14 };
    case 276:
      return { octets: 20, typeAt: 0 };
    default:
      throw new UnreadableCapture(`${name} is of link type ${linkType}; known are Ethernet, Linux cooked, raw IP and BSD loopback`);
  }
}

function fromPacket(packet: Buffer, link: Link, timeMs: number): CapturedDatagram | undefined {
  let at = link.octets;
  if (packet.length <= at) return undefined;
  let type = link.typeAt < 0 ? (packet[at]! >> 4 === 6 ? ipv6 : ipv4) : packet.readUInt16BE(link.typeAt);
  while (vlanTags.has(type) && packet.length >= at + 4) {
    type = packet.readUInt16BE(at + 2);
    at += 4;
  }
  if (type === ipv4) return fromIpv4(packet.subarray(at), timeMs);
  return type === ipv6 ? fromIpv6(packet.subarray(at), timeMs) : undefined;
}

function fromIpv4(packet: Buffer, timeMs: number): CapturedDatagram | undefined {
  if (packet.length < 20 || packet[9] !== udp) return undefined;
  const isFragment = (packet.readUInt16BE(6) & 0x3fff) !== 0;
  if (isFragment) return undefined;
  return fromUdp(packet.subarray((packet[0]! & 0x0f) * 4), addressText(packet.subarray(12, 16)), timeMs);
}

function fromIpv6(packet: Buffer, timeMs: number): CapturedDatagram | undefined {
  if (packet.length < 40 || packet[6] !== udp) return undefined;
  return fromUdp(packet.subarray(40), addressText(packet.subarray(8, 24)), timeMs);
}

function fromUdp(segment: Buffer, source: string, timeMs: number): CapturedDatagram | undefined {
  if (segment.length < 8) return undefined;
  const length = segment.readUInt16BE(4);
  if (length < 8 || length > segment.length) return undefined;
  return { timeMs, source, sourcePort: segment.readUInt16BE(0), destinationPort: segment.readUInt16BE(2), payload: segment.subarray(8, length) };
}
