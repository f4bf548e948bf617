/** What only some exporters say of a flow: the fields of NarDetails, what stands for a value that is not said, and how each is written as text. */
import type { NarDetails } from '../../schemas/types.ts';
import { addressText } from './address.ts';

/** In the order of the schema, which has these first. */
export const detailOctetFields = ['src_mac', 'dst_mac', 'mpls_labels', 'nat_src_addr', 'nat_dst_addr', 'bgp_next_hop', 'application_id'] as const;
export const detailNumberFields = [
  ...(['src_vlan', 'dst_vlan', 'customer_vlan', 'nat_src_port', 'nat_dst_port', 'icmp_type', 'icmp_code'] as const),
  ...(['ingress_vrf', 'egress_vrf', 'forwarding_status'] as const),
] as const;

export type DetailOctetField = (typeof detailOctetFields)[number];
export type DetailNumberField = (typeof detailNumberFields)[number];

const noOctets = Buffer.alloc(0);
/** Of ICMP's type and code, since 0 and 0 are an echo reply. */
const notSaid = -1;

/** Takes back what is said. Written out: it is done for each sampled packet. */
export function sayNothing(details: NarDetails): void {
  details.src_mac = noOctets;
  details.dst_mac = noOctets;
  details.mpls_labels = noOctets;
  details.nat_src_addr = noOctets;
  details.nat_dst_addr = noOctets;
  details.bgp_next_hop = noOctets;
  details.application_id = noOctets;
  details.src_vlan = 0;
  details.dst_vlan = 0;
  details.customer_vlan = 0;
  details.nat_src_port = 0;
  details.nat_dst_port = 0;
  details.icmp_type = notSaid;
  details.icmp_code = notSaid;
  details.ingress_vrf = 0;
  details.egress_vrf = 0;
  details.forwarding_status = 0;
}

/** Says nothing. */
export function noDetails(): NarDetails {
  return {
    src_mac: noOctets,
    dst_mac: noOctets,
    mpls_labels: noOctets,
    nat_src_addr: noOctets,
    nat_dst_addr: noOctets,
    bgp_next_hop: noOctets,
    application_id: noOctets,
    src_vlan: 0,
    dst_vlan: 0,
    customer_vlan: 0,
    nat_src_port: 0,
    nat_dst_port: 0,
    icmp_type: notSaid,
    icmp_code: notSaid,
    ingress_vrf: 0,
    egress_vrf: 0,
    forwarding_status: 0,
  };
}

export function detailNotSaid(field: DetailNumberField): number {
  return field === 'icmp_type' || field === 'icmp_code' ? notSaid : 0;
}

/** Octets of a stack's entry: label (20 bits), traffic class (3), bottom of stack (1). */
export const labelOctets = 3;

/** '' for no octets; where they are no such value, they are written in hexadecimal. */
export function detailText(field: DetailOctetField, octets: Uint8Array): string {
  const { length } = octets;
  if (length === 0) return '';
  if ((field === 'src_mac' || field === 'dst_mac') && length === 6) return hexadecimal(octets).match(/../g)!.join(':');
  if (field === 'mpls_labels' && length % labelOctets === 0) return labelsOf(octets).join('/');
  if (field === 'application_id' && length > 1) return `${octets[0]}:${BigInt(`0x${hexadecimal(octets.subarray(1))}`)}`;
  const isAddress = field === 'nat_src_addr' || field === 'nat_dst_addr' || field === 'bgp_next_hop';
  return isAddress && (length === 4 || length === 16) ? addressText(octets) : `0x${hexadecimal(octets)}`;
}

function labelsOf(octets: Uint8Array): number[] {
  return Array.from({ length: octets.length / labelOctets }, (_, i) => {
    const at = i * labelOctets;
    return (octets[at]! << 12) | (octets[at + 1]! << 4) | (octets[at + 2]! >> 4);
  });
}

function hexadecimal(octets: Uint8Array): string {
  return Buffer.from(octets).toString('hex');
}

export type NarDetailsText = { [Field in DetailOctetField]: string } & { [Field in DetailNumberField]: number };

export function detailsText(details: NarDetails): NarDetailsText {
  const octets = detailOctetFields.map((field) => [field, detailText(field, details[field])]);
  return { ...details, ...Object.fromEntries(octets) } as NarDetailsText;
}
