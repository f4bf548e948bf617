import { describe, expect, test } from '@jest/globals';
import { addressText } from '../../../core/nar/address.ts';
import { headerProtocol, noPacketHeader, readPacketHeader } from '../../../core/wire/packet-header.ts';
import { octets } from './decoding.ts';

const macs = octets([0x0a_0b_0c_0d_0e_01, 6], [0x0a_0b_0c_0d_0e_02, 6]);
const ethernet = (type: number, ...rest: Buffer[]) => Buffer.concat([macs, octets([type, 2]), ...rest]);
const tag = (vlan: number, type: number) => octets([0xe000 | vlan, 2], [type, 2]);
const tcp = octets([1234, 2], [443, 2], [1, 4], [2, 4], [0x5018, 2], [100, 2], [0, 4]);
const udp = octets([5353, 2], [53, 2], [8, 2], [0, 2]);
const v6Source = Buffer.from('20010db8000000000000000000000001', 'hex');
const v6Destination = Buffer.from('20010db8000000000000000000000002', 'hex');

function ipv4(proto: number, payload: Buffer, { options = 0, fragment = 0, tos = 0xb8 } = {}): Buffer {
  const header = octets([0x45 + options, 1], [tos, 1], [20 + 4 * options + payload.length, 2], [7, 2], [fragment, 2], [64, 1], [proto, 1], [0, 2]);
  return Buffer.concat([header, octets([0x0a000001, 4], [0x0a000002, 4]), Buffer.alloc(4 * options), payload]);
}

function ipv6(next: number, payload: Buffer): Buffer {
  return Buffer.concat([octets([0x6b80, 2], [0, 2], [payload.length, 2], [next, 1], [64, 1]), v6Source, v6Destination, payload]);
}

function read(bytes: Buffer, protocol: number = headerProtocol.ethernet) {
  const header = noPacketHeader();
  // Octets around the header must not matter.
  const around = Buffer.concat([Buffer.alloc(5, 0x45), bytes, Buffer.alloc(60, 0x45)]);
  readPacketHeader(header, around, 5, 5 + bytes.length, protocol);
  const address = (at: number) => (at < 0 ? '' : addressText(around.subarray(at, at + (header.v6 ? 16 : 4))));
  const labels = Array.from({ length: header.labels }, (_, i) => around.readUIntBE(header.labelsAt + 4 * i, 3) >> 4);
  return { ...header, src: address(header.srcAddressAt), dst: address(header.dstAddressAt), stack: labels };
}

describe('a packet header', () => {
  test('of IPv4 over Ethernet', () => {
    const wanted = { src: '10.0.0.1', dst: '10.0.0.2', proto: 6, srcPort: 1234, dstPort: 443, tcpFlags: 0x18, tos: 0xb8, networkOctets: 40, vlan: 0 };
    expect(read(ethernet(0x0800, ipv4(6, tcp)))).toMatchObject({ ...wanted, srcMacAt: 11, dstMacAt: 5, labels: 0, icmpType: -1 });
    expect(read(ethernet(0x0800, ipv4(6, tcp, { options: 3 })))).toMatchObject({ ...wanted, networkOctets: 52 });
    expect(read(ipv4(6, tcp), headerProtocol.ipv4)).toMatchObject({ ...wanted, srcMacAt: -1 });
  });

  test('behind one tag, and behind two', () => {
    const wanted = { src: '10.0.0.1', srcPort: 5353, dstPort: 53, proto: 17 };
    expect(read(ethernet(0x8100, tag(100, 0x0800), ipv4(17, udp)))).toMatchObject({ ...wanted, vlan: 100, customerVlan: 0 });
    expect(read(ethernet(0x88a8, tag(100, 0x8100), tag(200, 0x0800), ipv4(17, udp)))).toMatchObject({ ...wanted, vlan: 100, customerVlan: 200 });
  });

  test('behind labels, whose payload is told by its first bits', () => {
    const labels = octets([(16 << 4) | 0, 3], [64, 1], [(0xfffff << 4) | 1, 3], [64, 1]);
    expect(read(ethernet(0x8847, labels, ipv4(17, udp)))).toMatchObject({ src: '10.0.0.1', stack: [16, 0xfffff], dstPort: 53 });
    expect(read(Buffer.concat([labels, ipv6(17, udp)]), headerProtocol.mpls)).toMatchObject({
      src: '2001:db8::1',
      stack: [16, 0xfffff],
      dstPort: 53,
    });
    expect(read(ethernet(0x8847, labels, octets([0, 4]), macs))).toMatchObject({ src: '', stack: [16, 0xfffff] });
    expect(read(ethernet(0x8847, labels.subarray(0, 4)))).toMatchObject({ src: '', stack: [16] });
  });

  test('of IPv6, with extension headers', () => {
    const wanted = { src: '2001:db8::1', dst: '2001:db8::2', proto: 17, srcPort: 5353, dstPort: 53, tos: 0xb8 };
    expect(read(ethernet(0x86dd, ipv6(17, udp)))).toMatchObject(wanted);
    const hopByHop = octets([43, 1], [1, 1], [0, 14]);
    const routing = octets([44, 1], [0, 1], [0, 6]);
    const first = octets([51, 1], [0, 1], [0x0001, 2], [9, 4]);
    const authentication = octets([60, 1], [4, 1], [0, 22]);
    const destination = octets([17, 1], [0, 1], [0, 6]);
    expect(read(ethernet(0x86dd, ipv6(0, Buffer.concat([hopByHop, routing, first, authentication, destination, udp]))))).toMatchObject(wanted);
  });

  test('of a fragment that is not the first has no ports', () => {
    expect(read(ethernet(0x0800, ipv4(17, udp, { fragment: 0x2000 })))).toMatchObject({ proto: 17, dstPort: 53 });
    expect(read(ethernet(0x0800, ipv4(17, udp, { fragment: 0x2001 })))).toMatchObject({ src: '10.0.0.1', proto: 17, srcPort: 0, dstPort: 0 });
    const later = octets([17, 1], [0, 1], [0x0009, 2], [9, 4]);
    expect(read(ethernet(0x86dd, ipv6(44, Buffer.concat([later, udp]))))).toMatchObject({ src: '2001:db8::1', proto: 17, srcPort: 0, dstPort: 0 });
  });

  test('of ICMP tells type and code', () => {
    expect(read(ethernet(0x0800, ipv4(1, octets([3, 1], [1, 1]))))).toMatchObject({ proto: 1, icmpType: 3, icmpCode: 1, srcPort: 0, dstPort: 0 });
    expect(read(ethernet(0x86dd, ipv6(58, octets([128, 1], [0, 1]))))).toMatchObject({ proto: 58, icmpType: 128, icmpCode: 0 });
  });

  test('of a tunnel is the outer one', () => {
    const inner = ethernet(0x0800, ipv4(6, tcp));
    expect(read(ethernet(0x0800, ipv4(47, Buffer.concat([octets([0x6558, 4]), inner]))))).toMatchObject({
      proto: 47,
      srcPort: 0,
      networkOctets: 78,
    });
    const vxlan = Buffer.concat([octets([49152, 2], [4789, 2], [0, 4], [0x0800, 4], [42, 4]), inner]);
    expect(read(ethernet(0x0800, ipv4(17, vxlan)))).toMatchObject({ proto: 17, srcPort: 49152, dstPort: 4789, tcpFlags: 0 });
  });

  test('in an 802.3 frame with SNAP', () => {
    expect(read(ethernet(60, octets([0xaaaa03, 3], [0, 3], [0x0800, 2]), ipv4(17, udp)))).toMatchObject({ src: '10.0.0.1', dstPort: 53 });
    expect(read(ethernet(60, octets([0x424203, 3]), ipv4(17, udp)))).toMatchObject({ src: '', srcMacAt: 11 });
  });

  test('that is cut off says what stands before', () => {
    const whole = ethernet(0x8100, tag(100, 0x86dd), ipv6(0, Buffer.concat([octets([6, 1], [0, 1], [0, 6]), tcp])));
    for (let length = 0; length <= whole.length; length++) {
      const header = read(whole.subarray(0, length));
      expect(header.srcMacAt >= 0).toBe(length >= 14);
      expect(header.vlan).toBe(length >= 18 ? 100 : 0);
      expect(header.src).toBe(length >= 58 ? '2001:db8::1' : '');
      expect(header.dstPort).toBe(length >= 70 ? 443 : 0);
      expect(header.tcpFlags).toBe(length >= 80 ? 0x18 : 0);
    }
  });

  test('of anything else says nothing of the network', () => {
    expect(read(ethernet(0x0806, Buffer.alloc(28)))).toMatchObject({ src: '', proto: 0, srcMacAt: 11 });
    expect(read(ipv4(6, tcp), 7)).toMatchObject({ src: '', srcMacAt: -1 });
    expect(read(ethernet(0x0800, ipv6(17, udp)))).toMatchObject({ src: '' });
    expect(read(ethernet(0x86dd, ipv4(17, udp)))).toMatchObject({ src: '' });
  });
});
