/**
 * The information elements that a NAR is made of (IANA IPFIX registry; NetFlow v9 field types have the same numbers).
 * All others are skipped by their length.
 */

/** Places in a decode plan, one per value that a NAR is computed from. */
export const column = {
  octets: 0,
  packets: 1,
  srcAddr4: 2,
  dstAddr4: 3,
  srcAddr6: 4,
  dstAddr6: 5,
  srcPort: 6,
  dstPort: 7,
  proto: 8,
  tcpFlags: 9,
  tos: 10,
  inIf: 11,
  outIf: 12,
  srcAs: 13,
  dstAs: 14,
  srcNet4: 15,
  dstNet4: 16,
  srcNet6: 17,
  dstNet6: 18,
  nextHop4: 19,
  nextHop6: 20,
  direction: 21,
  samplingInterval: 22,
  samplingPacketInterval: 23,
  samplingPacketSpace: 24,
  samplingSize: 25,
  samplingPopulation: 26,
  samplerId: 27,
  start: 28,
  end: 29,
  systemInit: 30,
  reverseOctets: 31,
  reversePackets: 32,
  reverseTcpFlags: 33,
  reverseTos: 34,
  reverseStart: 35,
  reverseEnd: 36,
  event: 37,
  duration: 38,
  srcMac: 39,
  dstMac: 40,
  natSource4: 41,
  natSource6: 42,
  natDestination4: 43,
  natDestination6: 44,
  bgpNextHop4: 45,
  bgpNextHop6: 46,
  application: 47,
  srcVlan: 48,
  dstVlan: 49,
  customerVlan: 50,
  natSourcePort: 51,
  natDestinationPort: 52,
  icmpTypeCode4: 53,
  icmpType4: 54,
  icmpCode4: 55,
  icmpTypeCode6: 56,
  icmpType6: 57,
  icmpCode6: 58,
  ingressVrf: 59,
  egressVrf: 60,
  forwardingStatus: 61,
} as const;

/** The labels of an MPLS stack, top first. */
export const labelColumns = [62, 63, 64, 65, 66, 67, 68, 69, 70, 71] as const;

/** From here on they belong to NarDetails, and a template without one of them has no place for them. */
export const detailsFrom = column.srcMac;
export const columnCount = 72;

/**
 * How a time is encoded: 'uptime' = ms since the exporter's start, modulo 2^32; 'delta' = microseconds before the export time; 'ntp' = RFC 7011
 * section 6.1.9.
 */
export type TimeKind = 'none' | 'milliseconds' | 'seconds' | 'ntp' | 'uptime' | 'delta';

export interface Element {
  readonly column: number;
  /** Where several elements of a record give the same value, the lowest rank counts; of equal rank the last one, which is the inner packet's. */
  readonly rank: number;
  /** Widest field that makes sense, in octets; of a wider one the low octets count, so that no value outgrows the schema. */
  readonly octetsMax: number;
  /** Set where any other width means that the field is something else. */
  readonly octetsExact: number;
  readonly time: TimeKind;
}

function plain(place: number, octetsMax: number, rank = 0): Element {
  return { column: place, rank, octetsMax, octetsExact: 0, time: 'none' };
}

/** Addresses of any kind: of another width they are something else. */
function address(place: number, octets: 3 | 4 | 6 | 16, rank = 0): Element {
  return { column: place, rank, octetsMax: octets, octetsExact: octets, time: 'none' };
}

function time(place: number, kind: TimeKind, rank: number): Element {
  return { column: place, rank, octetsMax: kind === 'uptime' || kind === 'delta' ? 4 : 8, octetsExact: kind === 'ntp' ? 8 : 0, time: kind };
}

/** Of the counters of a connection's initiator: where these are taken, the responder's are those of the reverse direction. */
export const initiatorRank = 2;
export const responderRank = 2;

/** By element number, enterprise number 0. */
export const elements: ReadonlyMap<number, Element> = new Map<number, Element>([
  // The device's counters: delta counts first, then totals (85, 86), initiator counts (231, 298), and what left the device where nothing else is
  // told. A zero of a better one is a zero: routers that export what leaves them give IN_BYTES and OUT_BYTES (23) in each record.
  [1, plain(column.octets, 8, 0)],
  [85, plain(column.octets, 8, 1)],
  [231, plain(column.octets, 8, initiatorRank)],
  [23, plain(column.octets, 8, 3)],
  [2, plain(column.packets, 8, 0)],
  [86, plain(column.packets, 8, 1)],
  [298, plain(column.packets, 8, initiatorRank)],
  [24, plain(column.packets, 8, 3)],
  [8, address(column.srcAddr4, 4)],
  [12, address(column.dstAddr4, 4)],
  [27, address(column.srcAddr6, 16)],
  [28, address(column.dstAddr6, 16)],
  [7, plain(column.srcPort, 2, 0)],
  [180, plain(column.srcPort, 2, 1)],
  [182, plain(column.srcPort, 2, 1)],
  [11, plain(column.dstPort, 2, 0)],
  [181, plain(column.dstPort, 2, 1)],
  [183, plain(column.dstPort, 2, 1)],
  [4, plain(column.proto, 1)],
  [6, plain(column.tcpFlags, 2)],
  [5, plain(column.tos, 1)],
  [10, plain(column.inIf, 4)],
  [14, plain(column.outIf, 4)],
  [16, plain(column.srcAs, 4)],
  [17, plain(column.dstAs, 4)],
  [9, plain(column.srcNet4, 1)],
  [13, plain(column.dstNet4, 1)],
  [29, plain(column.srcNet6, 1)],
  [30, plain(column.dstNet6, 1)],
  [15, address(column.nextHop4, 4)],
  [62, address(column.nextHop6, 16)],
  [61, plain(column.direction, 1)],
  [34, plain(column.samplingInterval, 4, 0)],
  [50, plain(column.samplingInterval, 4, 1)],
  [305, plain(column.samplingPacketInterval, 4)],
  [306, plain(column.samplingPacketSpace, 4)],
  [309, plain(column.samplingSize, 4)],
  [310, plain(column.samplingPopulation, 4)],
  [48, plain(column.samplerId, 4, 0)],
  [302, plain(column.samplerId, 4, 1)],
  // Absolute times before those that need a second one to be understood; the time of an event stands in for a missing end.
  [152, time(column.start, 'milliseconds', 0)],
  [154, time(column.start, 'ntp', 1)],
  [156, time(column.start, 'ntp', 2)],
  [150, time(column.start, 'seconds', 3)],
  [22, time(column.start, 'uptime', 4)],
  [158, time(column.start, 'delta', 5)],
  [153, time(column.end, 'milliseconds', 0)],
  [155, time(column.end, 'ntp', 1)],
  [157, time(column.end, 'ntp', 2)],
  [151, time(column.end, 'seconds', 3)],
  [21, time(column.end, 'uptime', 4)],
  [159, time(column.end, 'delta', 5)],
  [323, time(column.end, 'milliseconds', 6)],
  [324, time(column.end, 'ntp', 7)],
  [325, time(column.end, 'ntp', 8)],
  [322, time(column.end, 'seconds', 9)],
  [160, time(column.systemInit, 'milliseconds', 0)],
  // For records that tell one of their times only; 'delta' counts microseconds.
  [161, { ...time(column.duration, 'milliseconds', 0), octetsMax: 4 }],
  [162, time(column.duration, 'delta', 1)],
  [232, plain(column.reverseOctets, 8, responderRank)],
  [299, plain(column.reversePackets, 8, responderRank)],
  // Of a firewall (the second one as older Cisco ASA number it, in NetFlow v9), and of a NAT.
  [233, plain(column.event, 1, 0)],
  [40005, plain(column.event, 1, 1)],
  [230, plain(column.event, 1, 2)],
  // Details. What is seen on the way in before what is seen on the way out, addresses of a NAT in IANA's elements before those of older Cisco ASA.
  [56, address(column.srcMac, 6)],
  [81, address(column.srcMac, 6, 1)],
  [80, address(column.dstMac, 6)],
  [57, address(column.dstMac, 6, 1)],
  [225, address(column.natSource4, 4)],
  [40001, address(column.natSource4, 4, 1)],
  [281, address(column.natSource6, 16)],
  [226, address(column.natDestination4, 4)],
  [40002, address(column.natDestination4, 4, 1)],
  [282, address(column.natDestination6, 16)],
  [227, plain(column.natSourcePort, 2)],
  [40003, plain(column.natSourcePort, 2, 1)],
  [228, plain(column.natDestinationPort, 2)],
  [40004, plain(column.natDestinationPort, 2, 1)],
  [18, address(column.bgpNextHop4, 4)],
  [63, address(column.bgpNextHop6, 16)],
  [95, plain(column.application, 16)],
  [58, plain(column.srcVlan, 2)],
  [243, plain(column.srcVlan, 2, 1)],
  [59, plain(column.dstVlan, 2)],
  [254, plain(column.dstVlan, 2, 1)],
  [245, plain(column.customerVlan, 2)],
  [32, plain(column.icmpTypeCode4, 2)],
  [176, plain(column.icmpType4, 1)],
  [177, plain(column.icmpCode4, 1)],
  [139, plain(column.icmpTypeCode6, 2)],
  [178, plain(column.icmpType6, 1)],
  [179, plain(column.icmpCode6, 1)],
  [234, plain(column.ingressVrf, 4)],
  [235, plain(column.egressVrf, 4)],
  [89, plain(column.forwardingStatus, 1)],
  ...labelColumns.map((place, i): [number, Element] => [70 + i, address(place, 3)]),
]);

/** RFC 5103: the private enterprise number under which an element counts the reverse direction. */
export const reverseEnterprise = 29305;

export const reverseElements: ReadonlyMap<number, Element> = new Map([
  [1, plain(column.reverseOctets, 8, 0)],
  [85, plain(column.reverseOctets, 8, 1)],
  [2, plain(column.reversePackets, 8, 0)],
  [86, plain(column.reversePackets, 8, 1)],
  [6, plain(column.reverseTcpFlags, 2)],
  [5, plain(column.reverseTos, 1)],
  [152, time(column.reverseStart, 'milliseconds', 0)],
  [154, time(column.reverseStart, 'ntp', 1)],
  [156, time(column.reverseStart, 'ntp', 2)],
  [150, time(column.reverseStart, 'seconds', 3)],
  [22, time(column.reverseStart, 'uptime', 4)],
  [153, time(column.reverseEnd, 'milliseconds', 0)],
  [155, time(column.reverseEnd, 'ntp', 1)],
  [157, time(column.reverseEnd, 'ntp', 2)],
  [151, time(column.reverseEnd, 'seconds', 3)],
  [21, time(column.reverseEnd, 'uptime', 4)],
]);
