/** The part of a NAR that only some exporters give. Read only where a template has such a field, so that it costs the others nothing. */
import type { NarDetails } from '../../schemas/types.ts';
import { labelOctets, noDetails } from '../nar/details.ts';
import { column, labelColumns } from './element.ts';
import { type Layout, octetsBits, octetsMask, valueAt } from './template.ts';

const icmp = 1;
const icmp6 = 58;
const noOctets = Buffer.alloc(0);
const roomOctets = 32;

/** Room for octets of any length up to roomOctets, given out as one and the same buffer for each length. */
export class OctetRoom {
  readonly #views: readonly Buffer[];

  constructor() {
    const room = Buffer.alloc(roomOctets);
    this.#views = Array.from({ length: roomOctets + 1 }, (_, length) => room.subarray(0, length));
  }

  /** What is given out is overwritten by the next call. Empty where all octets are zero: devices fill in what they do not know. */
  read(bytes: Uint8Array, at: number, octets: number): Buffer {
    if (at < 0 || octets === 0 || octets > roomOctets) return noOctets;
    const view = this.#views[octets]!;
    let any = 0;
    for (let i = 0; i < octets; i++) {
      const octet = bytes[at + i]!;
      view[i] = octet;
      any |= octet;
    }
    return any === 0 ? noOctets : view;
  }

  /** The first so many octets of what stands in the room. */
  view(octets: number): Buffer {
    return octets === 0 ? noOctets : this.#views[octets]!;
  }
}

/** Rooms for all of a NAR's details, filled in one after another. */
export class DetailRooms {
  readonly details: NarDetails = noDetails();
  readonly srcMac = new OctetRoom();
  readonly dstMac = new OctetRoom();
  readonly labels = new OctetRoom();
  readonly natSource = new OctetRoom();
  readonly natDestination = new OctetRoom();
  readonly bgpNextHop = new OctetRoom();
  readonly application = new OctetRoom();

  /** null where all of it says nothing. */
  said(): NarDetails | null {
    const { details } = this;
    const octets = details.src_mac.length + details.dst_mac.length + details.mpls_labels.length + details.application_id.length;
    const addresses = details.nat_src_addr.length + details.nat_dst_addr.length + details.bgp_next_hop.length;
    const vlans = details.src_vlan | details.dst_vlan | details.customer_vlan;
    const numbers = vlans | details.nat_src_port | details.nat_dst_port | details.forwarding_status;
    const isSaid = octets + addresses > 0 || numbers !== 0 || details.icmp_type >= 0 || details.ingress_vrf > 0 || details.egress_vrf > 0;
    return isSaid ? details : null;
  }
}

/** Reads the details of a record into one and the same object. */
export class DetailsReader {
  readonly #rooms = new DetailRooms();

  read(layout: Layout, bytes: Uint8Array, base: number, proto: number): NarDetails | null {
    const rooms = this.#rooms;
    const { details } = rooms;
    details.src_mac = octetsAt(rooms.srcMac, layout, bytes, base, column.srcMac);
    details.dst_mac = octetsAt(rooms.dstMac, layout, bytes, base, column.dstMac);
    details.mpls_labels = labelsAt(rooms.labels, layout, bytes, base);
    details.nat_src_addr = addressAt(rooms.natSource, layout, bytes, base, column.natSource4, column.natSource6);
    details.nat_dst_addr = addressAt(rooms.natDestination, layout, bytes, base, column.natDestination4, column.natDestination6);
    details.bgp_next_hop = addressAt(rooms.bgpNextHop, layout, bytes, base, column.bgpNextHop4, column.bgpNextHop6);
    details.application_id = octetsAt(rooms.application, layout, bytes, base, column.application);
    details.src_vlan = valueAt(layout, bytes, base, column.srcVlan);
    details.dst_vlan = valueAt(layout, bytes, base, column.dstVlan);
    details.customer_vlan = valueAt(layout, bytes, base, column.customerVlan);
    details.nat_src_port = valueAt(layout, bytes, base, column.natSourcePort);
    details.nat_dst_port = valueAt(layout, bytes, base, column.natDestinationPort);
    details.ingress_vrf = valueAt(layout, bytes, base, column.ingressVrf);
    details.egress_vrf = valueAt(layout, bytes, base, column.egressVrf);
    details.forwarding_status = valueAt(layout, bytes, base, column.forwardingStatus);
    details.icmp_type = -1;
    details.icmp_code = -1;
    // Devices fill in a type for other protocols, too.
    if (proto === icmp) readIcmp(details, layout, bytes, base, column.icmpTypeCode4, column.icmpType4, column.icmpCode4);
    else if (proto === icmp6) readIcmp(details, layout, bytes, base, column.icmpTypeCode6, column.icmpType6, column.icmpCode6);
    return rooms.said();
  }
}

function octetsAt(room: OctetRoom, layout: Layout, bytes: Uint8Array, base: number, place: number): Buffer {
  const entry = layout[place]!;
  return entry < 0 ? noOctets : room.read(bytes, base + (entry >> octetsBits), entry & octetsMask);
}

/** Of either family: devices that have a field for each leave one of them at zeros. */
function addressAt(room: OctetRoom, layout: Layout, bytes: Uint8Array, base: number, place4: number, place6: number): Buffer {
  const v4 = octetsAt(room, layout, bytes, base, place4);
  return v4.length > 0 ? v4 : octetsAt(room, layout, bytes, base, place6);
}

/** Type and code in one field, or each in its own. */
function readIcmp(details: NarDetails, layout: Layout, bytes: Uint8Array, base: number, both: number, type: number, code: number): void {
  if (layout[both]! >= 0) {
    const value = valueAt(layout, bytes, base, both);
    details.icmp_type = value >> 8;
    details.icmp_code = value & 0xff;
  } else if (layout[type]! >= 0) {
    details.icmp_type = valueAt(layout, bytes, base, type);
    details.icmp_code = valueAt(layout, bytes, base, code);
  }
}

/** Labels of the stack, top first; an entry of zeros is none. */
function labelsAt(room: OctetRoom, layout: Layout, bytes: Uint8Array, base: number): Buffer {
  const whole = room.view(labelColumns.length * labelOctets);
  let octets = 0;
  for (const place of labelColumns) {
    const entry = layout[place]!;
    if (entry < 0) continue;
    const at = base + (entry >> octetsBits);
    if ((bytes[at]! | bytes[at + 1]! | bytes[at + 2]!) === 0) break;
    for (let i = 0; i < labelOctets; i++) whole[octets++] = bytes[at + i]!;
  }
  return room.view(octets);
}

/** The details of the reverse direction: ends swapped, and what is said of the forward way alone left out. */
export function reverseDetails(details: NarDetails): void {
  [details.src_mac, details.dst_mac] = [details.dst_mac, details.src_mac];
  [details.src_vlan, details.dst_vlan] = [details.dst_vlan, details.src_vlan];
  [details.nat_src_addr, details.nat_dst_addr] = [details.nat_dst_addr, details.nat_src_addr];
  [details.nat_src_port, details.nat_dst_port] = [details.nat_dst_port, details.nat_src_port];
  [details.ingress_vrf, details.egress_vrf] = [details.egress_vrf, details.ingress_vrf];
  details.mpls_labels = noOctets;
  details.bgp_next_hop = noOctets;
  details.icmp_type = -1;
  details.icmp_code = -1;
  details.forwarding_status = 0;
}
