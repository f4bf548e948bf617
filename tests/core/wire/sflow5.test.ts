import { describe, expect, test } from '@jest/globals';
import { decoding, octets } from './decoding.ts';

type Part = readonly [value: number, octets: number];

/** Words of four octets. */
const words = (...values: readonly number[]) => octets(...values.map((value): Part => [value, 4]));
const sized = (type: number, body: Buffer) => Buffer.concat([words(type, body.length), body]);

interface Datagram {
  readonly sequence: number;
  readonly agent?: Buffer;
  readonly subAgent?: number;
  readonly uptimeMs?: number;
}

const agent = words(1, 0xc0000201);

function datagram({ sequence, agent: agentAddress = agent, subAgent = 0, uptimeMs = 100_000 }: Datagram, ...samples: Buffer[]): Buffer {
  return Buffer.concat([words(5), agentAddress, words(subAgent, sequence, uptimeMs, samples.length), ...samples]);
}

const ethernetFrame = Buffer.concat([
  octets([0x0a0b0c0d0e01, 6], [0x0a0b0c0d0e02, 6], [0x0800, 2], [0x4500, 2], [1486, 2], [0, 4], [64, 1], [17, 1], [0, 2]),
  octets([0x0a000001, 4], [0x0a000002, 4], [5353, 2], [53, 2], [0, 4], [0, 2]),
]);
const rawHeader = sized(1, Buffer.concat([words(1, 1500, 4, ethernetFrame.length), ethernetFrame, Buffer.alloc(-ethernetFrame.length & 3)]));

function flowSample(sequence: number, records: readonly Buffer[], source = 7, inIf = 3, outIf = 4, rate = 512): Buffer {
  return sized(1, Buffer.concat([words(sequence, source, rate, 1000, 0, inIf, outIf, records.length), ...records]));
}

/** The only NAR of one sample. */
function one(sample: Buffer) {
  const { take, nars } = decoding();
  take(datagram({ sequence: 1 }, sample));
  expect(nars).toHaveLength(1);
  return nars[0]!;
}

describe('a flow sample', () => {
  test('is one packet of the length of its frame', () => {
    expect(one(flowSample(1, [rawHeader]))).toMatchObject({
      ...{ sampler_address: '192.0.2.1', observation_domain_id: 0, protocol: 'sflow_v5' },
      ...{ src_addr: '10.0.0.1', dst_addr: '10.0.0.2', src_port: 5353, dst_port: 53, proto: 17, bytes: 1500, packets: 1 },
      ...{ in_if: 3, out_if: 4, sampling_rate: 512, flow_direction: 255 },
      ...{ time_flow_start_ms: 1_700_000_000_000, time_flow_end_ms: 1_700_000_000_000, time_received_ms: 1_700_000_000_000 },
    });
  });

  test('in its expanded form says the same', () => {
    const expanded = sized(3, Buffer.concat([words(1, 0, 7, 512, 1000, 0, 0, 3, 0, 4, 1), rawHeader]));
    expect(one(expanded)).toEqual(one(flowSample(1, [rawHeader])));
    expect(one(sized(3, Buffer.concat([words(1, 0, 7, 512, 1000, 0, 0, 0x4000_0001, 2, 4, 1), rawHeader])))).toMatchObject({
      in_if: 0x4000_0001,
      out_if: 0,
    });
  });

  test('has an interface only where it names one', () => {
    const interfaces = (inIf: number, outIf: number) => {
      const { in_if, out_if } = one(flowSample(1, [rawHeader], 7, inIf, outIf));
      return [in_if, out_if];
    };
    expect(interfaces(0x3fff_ffff, 0x3fff_fffe)).toEqual([0, 0x3fff_fffe]);
    expect(interfaces(5, 0x4000_0101)).toEqual([5, 0]);
    expect(interfaces(5, 0x8000_0003)).toEqual([5, 0]);
  });

  test('takes prefix lengths and next hop from the router, AS numbers from the gateway', () => {
    const router = sized(1002, words(1, 0xc0000263, 24, 16));
    const gateway = sized(1003, words(1, 0xc0000264, 64500, 64501, 64502, 2, 2, 2, 64510, 64511, 1, 2, 64512, 64513, 0, 100));
    const nar = one(flowSample(1, [router, gateway, rawHeader]));
    expect(nar).toMatchObject({ next_hop: '192.0.2.99', src_net: 24, dst_net: 16, src_as: 64501, dst_as: 64513, bytes: 1500 });
    // Traffic to the agent's own AS has no path, traffic from there no source.
    const own = sized(1003, words(0, 64500, 0, 0, 0, 0, 100));
    expect(one(flowSample(1, [own, rawHeader]))).toMatchObject({ src_as: 64500, dst_as: 64500 });
    const v6Router = sized(1002, Buffer.concat([words(2), Buffer.from('20010db8000000000000000000000001', 'hex'), words(64, 48)]));
    expect(one(flowSample(1, [rawHeader, v6Router]))).toMatchObject({ next_hop: '2001:db8::1', src_net: 64, dst_net: 48 });
  });

  test('may hold what the agent read itself; the packet counts before it, and the frame length before all', () => {
    const ipv4 = sized(3, words(1400, 6, 0x0a000003, 0x0a000004, 1000, 2000, 0x12, 0xb8));
    expect(one(flowSample(1, [ipv4]))).toMatchObject({
      ...{ src_addr: '10.0.0.3', dst_addr: '10.0.0.4', src_port: 1000, dst_port: 2000, proto: 6, tcp_flags: 0x12, ip_tos: 0xb8, bytes: 1400 },
    });
    for (const records of [
      [ipv4, rawHeader],
      [rawHeader, ipv4],
    ])
      expect(one(flowSample(1, records))).toMatchObject({ src_addr: '10.0.0.1', src_port: 5353, proto: 17, bytes: 1500 });
    const ethernet = sized(2, Buffer.concat([words(1420), Buffer.alloc(16), words(0x0800)]));
    expect(one(flowSample(1, [ethernet, ipv4]))).toMatchObject({ src_addr: '10.0.0.3', bytes: 1420 });
    expect(one(flowSample(1, [ethernet]))).toMatchObject({ src_addr: '', bytes: 1420, packets: 1 });
    const addresses = Buffer.from('20010db800000000000000000000000120010db8000000000000000000000002', 'hex');
    const ipv6 = sized(4, Buffer.concat([words(1380, 58), addresses, words(0, 0, 0, 0x20)]));
    expect(one(flowSample(1, [ipv6]))).toMatchObject({ src_addr: '2001:db8::1', dst_addr: '2001:db8::2', proto: 58, ip_tos: 0x20, bytes: 1380 });
  });

  test('has the details of its packet, and those that the switch knows', () => {
    const mac = { src_mac: '0a:0b:0c:0d:0e:02', dst_mac: '0a:0b:0c:0d:0e:01' };
    const none = {
      mpls_labels: '',
      nat_src_addr: '',
      bgp_next_hop: '',
      src_vlan: 0,
      dst_vlan: 0,
      customer_vlan: 0,
      icmp_type: -1,
      forwarding_status: 0,
    };
    expect(one(flowSample(1, [rawHeader])).details).toMatchObject({ ...none, ...mac });
    const vlans = sized(1001, words(10, 0, 20, 0));
    const nat = sized(1007, words(1, 0xc0000205, 1, 0xc0000206));
    const gateway = sized(1003, words(1, 0xc0000264, 64500, 0, 0, 0, 0, 100));
    for (const records of [
      [vlans, nat, gateway, rawHeader],
      [rawHeader, gateway, nat, vlans],
    ]) {
      const wanted = { src_vlan: 10, dst_vlan: 20, nat_src_addr: '192.0.2.5', nat_dst_addr: '192.0.2.6', bgp_next_hop: '192.0.2.100' };
      expect(one(flowSample(1, records)).details).toMatchObject({ ...none, ...mac, ...wanted });
    }
    const tagged = Buffer.concat([
      ethernetFrame.subarray(0, 12),
      octets([0x88a8, 2], [30, 2], [0x8100, 2], [40, 2], [0x8847, 2], [(99 << 4) | 0, 3], [64, 1], [(98 << 4) | 1, 3], [64, 1]),
      octets([0x45, 1], [0, 1], [28, 2], [0, 4], [64, 1], [1, 1], [0, 2], [1, 4], [2, 4], [3, 1], [4, 1], [0, 2]),
    ]);
    const header = sized(1, Buffer.concat([words(1, 1500, 4, tagged.length), tagged, Buffer.alloc(-tagged.length & 3)]));
    const deep = { src_vlan: 30, customer_vlan: 40, mpls_labels: '99/98', icmp_type: 3, icmp_code: 4 };
    expect(one(flowSample(1, [header])).details).toMatchObject({ ...mac, ...deep });
    // The switch's own word before the tag, unless it does not know.
    expect(one(flowSample(1, [header, vlans])).details).toMatchObject({ src_vlan: 10, dst_vlan: 20, customer_vlan: 40 });
    expect(one(flowSample(1, [header, sized(1001, words(0xffff_ffff, 0, 0xffff_ffff, 0))])).details).toMatchObject({ src_vlan: 30, dst_vlan: 0 });
    expect(one(flowSample(1, [rawHeader], 7, 3, 0x4000_0101)).details).toMatchObject({ forwarding_status: 0x80 });
    const bare = sized(3, words(1400, 6, 0x0a000003, 0x0a000004, 1000, 2000, 0x12, 0xb8));
    expect(one(flowSample(1, [bare])).details).toBeNull();
  });

  test('that tells no length is rejected, and counted', () => {
    const { take, nars, decoder, report } = decoding();
    take(datagram({ sequence: 1 }, flowSample(1, [sized(1002, words(1, 1, 24, 16))]), flowSample(2, [rawHeader])));
    expect(nars).toHaveLength(1);
    expect(decoder.counters).toMatchObject({ flows: 1, rejectedFlows: 1, malformedSets: 0 });
    expect(report()).toMatchObject({ rejected_flows: 1, decoded_flows: 1, lost_on_wire_flows: 0 });
  });
});

describe('a datagram', () => {
  test('may hold samples that are no traffic, and of enterprises', () => {
    const { take, nars, decoder, report } = decoding();
    const counters = sized(2, words(1, 7, 0));
    const discarded = sized(5, Buffer.concat([words(1, 0, 7, 0, 3, 4, 257, 1), rawHeader]));
    const foreign = sized((4413 << 12) | 1, Buffer.concat([words(1, 7, 512, 0, 0, 1, 2, 1), rawHeader]));
    take(datagram({ sequence: 1 }, counters, discarded, foreign, sized(4, words(1, 0, 7, 0)), flowSample(1, [rawHeader])));
    expect(nars).toHaveLength(1);
    expect(decoder.counters).toMatchObject({ counterSamples: 2, discardedPackets: 1, malformedSets: 0, undecodableDatagrams: 0 });
    expect(report()).toMatchObject({ received_datagrams: 1, lost_on_wire_datagrams: 0, lost_on_wire_flows: 0 });
  });

  test('with a malformed sample keeps the others', () => {
    const broken = sized(1, Buffer.concat([words(2, 7, 512, 0, 0, 1, 2, 1), words(1, 9999)]));
    const { take, nars, decoder } = decoding();
    take(datagram({ sequence: 1 }, flowSample(1, [rawHeader]), broken, sized(1, words(1)), flowSample(3, [rawHeader])));
    expect(nars).toHaveLength(2);
    expect(decoder.counters).toMatchObject({ malformedSets: 2, undecodableDatagrams: 0 });
  });

  test('that is cut off, or claims more samples than it has, keeps those that are whole', () => {
    const whole = datagram({ sequence: 1 }, flowSample(1, [rawHeader]), flowSample(2, [rawHeader]));
    for (let length = 0; length <= whole.length; length++) {
      const { take, nars, decoder } = decoding();
      take(whole.subarray(0, length));
      const first = 28 + flowSample(1, [rawHeader]).length;
      expect(nars).toHaveLength(length === whole.length ? 2 : length >= first ? 1 : 0);
      const { undecodableDatagrams, unidentifiedDatagrams } = decoder.counters;
      expect([undecodableDatagrams, unidentifiedDatagrams]).toEqual([length >= 28 && length < first ? 1 : 0, length < 28 ? 1 : 0]);
    }
    const many = Buffer.from(whole);
    many.writeUInt32BE(0xffff_ffff, 24);
    const { take, nars, decoder } = decoding();
    take(many);
    expect(nars).toHaveLength(2);
    expect(decoder.counters.malformedSets).toBe(1);
  });

  test('belongs to its agent and sub-agent, whoever sent it; an agent without an address is its sender', () => {
    const { take, nars, decoder } = decoding();
    take(datagram({ sequence: 10 }, flowSample(1, [rawHeader])), '192.0.2.1');
    take(datagram({ sequence: 20, subAgent: 1 }, flowSample(1, [rawHeader])), '192.0.2.1');
    take(datagram({ sequence: 30 }, flowSample(1, [rawHeader])), '192.0.2.9');
    take(datagram({ sequence: 40, agent: words(1, 0) }, flowSample(1, [rawHeader])), '192.0.2.9');
    take(datagram({ sequence: 50, agent: words(0) }, flowSample(1, [rawHeader])), '192.0.2.8');
    expect(nars.map((nar) => [nar.sampler_address, nar.observation_domain_id])).toEqual([
      ['192.0.2.1', 0],
      ['192.0.2.1', 1],
      ['192.0.2.1', 0],
      ['192.0.2.9', 0],
      ['192.0.2.8', 0],
    ]);
    expect(decoder.takeReports().map((report) => report.lost_on_wire_datagrams)).toEqual([0, 0, 0, 0, 0]);
    const keys = ['192.0.2.1|0|sflow_v5', '192.0.2.1|1|sflow_v5', '192.0.2.9/192.0.2.1|0|sflow_v5', '192.0.2.9|0|sflow_v5', '192.0.2.8|0|sflow_v5'];
    expect(new Set(decoder.takePositions().map(([key]) => key))).toEqual(new Set(keys));
  });

  test('with an agent address of no known type belongs to nobody', () => {
    const { take, decoder } = decoding();
    take(datagram({ sequence: 1, agent: words(3, 1) }, flowSample(1, [rawHeader])));
    take(datagram({ sequence: 1, agent: words(2, 1) }));
    expect(decoder.counters.unidentifiedDatagrams).toBe(2);
  });
});

describe('loss on the wire', () => {
  const samples = (...sequences: number[]) => sequences.map((sequence) => flowSample(sequence, [rawHeader]));

  test('is told in datagrams, and in samples per source', () => {
    const { take, report } = decoding();
    take(datagram({ sequence: 1 }, ...samples(1, 2), flowSample(100, [rawHeader], 8)));
    take(datagram({ sequence: 4 }, ...samples(5, 8), flowSample(101, [rawHeader], 8)));
    expect(report()).toMatchObject({ received_datagrams: 2, lost_on_wire_datagrams: 2, lost_on_wire_flows: 4 });
    take(datagram({ sequence: 5 }, ...samples(9)));
    expect(report()).toMatchObject({ lost_on_wire_datagrams: 0, lost_on_wire_flows: 0 });
  });

  test('is made good by what comes late', () => {
    const { take, nars, report } = decoding();
    take(datagram({ sequence: 1 }, ...samples(1)));
    take(datagram({ sequence: 3 }, ...samples(4)));
    expect(report()).toMatchObject({ lost_on_wire_datagrams: 1, lost_on_wire_flows: 2 });
    take(datagram({ sequence: 2 }, ...samples(2, 3)));
    expect(report()).toMatchObject({ lost_on_wire_datagrams: -1, lost_on_wire_flows: -2 });
    take(datagram({ sequence: 2 }, ...samples(2, 3)));
    expect(report()).toMatchObject({ duplicate_datagrams: 1, lost_on_wire_datagrams: 0, lost_on_wire_flows: 0 });
    expect(nars).toHaveLength(4);
  });

  test('is not told by an agent that starts anew, or by sequences that wrap', () => {
    const { take, decoder, report } = decoding();
    take(datagram({ sequence: 0xffff_ffff }, ...samples(0xffff_ffff)), '192.0.2.1', 1_000_000);
    take(datagram({ sequence: 0, uptimeMs: 101_000 }, ...samples(0)), '192.0.2.1', 1_001_000);
    take(datagram({ sequence: 1, uptimeMs: 102_000 }, ...samples(1)), '192.0.2.1', 1_002_000);
    expect(report()).toMatchObject({ lost_on_wire_datagrams: 0, lost_on_wire_flows: 0 });
    take(datagram({ sequence: 50, uptimeMs: 500 }, ...samples(900)), '192.0.2.1', 1_060_000);
    expect(report()).toMatchObject({ lost_on_wire_datagrams: 0, lost_on_wire_flows: 0 });
    expect(decoder.counters.exporterRestarts).toBe(1);
  });

  test('of a very old datagram stays what it was', () => {
    const { take, report } = decoding();
    take(datagram({ sequence: 100, uptimeMs: 100_000 }, ...samples(100)), '192.0.2.1', 1_100_000);
    take(datagram({ sequence: 101, uptimeMs: 101_000 }, ...samples(101)), '192.0.2.1', 1_101_000);
    take(datagram({ sequence: 40, uptimeMs: 99_000 }, ...samples(40)), '192.0.2.1', 1_101_500);
    take(datagram({ sequence: 102, uptimeMs: 102_000 }, ...samples(102)), '192.0.2.1', 1_102_000);
    expect(report()).toMatchObject({ lost_on_wire_datagrams: 0, lost_on_wire_flows: 0 });
  });

  test('is learnt by a collector that was killed, in datagrams', () => {
    const before = decoding();
    before.take(datagram({ sequence: 1 }, ...samples(1)));
    const after = decoding();
    after.decoder.restore(before.decoder.takePositions());
    after.take(datagram({ sequence: 5 }, ...samples(9)));
    expect(after.report()).toMatchObject({ lost_on_wire_datagrams: 3, lost_on_wire_flows: 0 });
  });
});

test('the version decides, not the port: NetFlow v5 has it in two octets, sFlow in four', () => {
  const { take, decoder } = decoding();
  take(Buffer.concat([octets([5, 2], [0, 22])]));
  take(datagram({ sequence: 1 }));
  expect(decoder.takeReports().map((report) => report.protocol)).toEqual(['netflow_v5', 'sflow_v5']);
});
