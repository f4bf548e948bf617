import { describe, expect, test } from '@jest/globals';
import { partitionOf } from '../../../core/nar/flow-key.ts';
import type { NarText } from '../../../core/nar/nar.ts';
import { Decoder } from '../../../core/wire/decoder.ts';
import { decoding, ipfixMessage, netflow9Datagram, octets, set, templateRecord } from './decoding.ts';

const reverse = 29305;

function decoded(fields: readonly (readonly number[])[], record: Buffer): NarText[] {
  const { take, nars } = decoding();
  take(ipfixMessage(0, [set(2, templateRecord(256, fields)), set(256, record)]));
  return nars;
}

const unsaid = {
  ...{ src_mac: '', dst_mac: '', mpls_labels: '', nat_src_addr: '', nat_dst_addr: '', bgp_next_hop: '', application_id: '' },
  ...{ src_vlan: 0, dst_vlan: 0, customer_vlan: 0, nat_src_port: 0, nat_dst_port: 0, icmp_type: -1, icmp_code: -1 },
  ...{ ingress_vrf: 0, egress_vrf: 0, forwarding_status: 0 },
};

describe('details', () => {
  test('are null where the template has none of them, or the record says none', () => {
    expect(decoded([[1, 4]], octets([1, 4]))[0]!.details).toBeNull();
    const fields = [
      [4, 1],
      [56, 6],
      [58, 2],
      [225, 4],
      [18, 4],
      [234, 4],
      [89, 1],
      [95, 4],
      [70, 3],
      [32, 2],
    ];
    const zeros = octets([6, 1], [0, 6], [0, 2], [0, 4], [0, 4], [0, 4], [0, 1], [0, 4], [0, 3], [0x0800, 2]);
    expect(decoded(fields, zeros)[0]!.details).toBeNull();
  });

  test('are those that a record says', () => {
    const fields = [
      ...[
        [56, 6],
        [80, 6],
        [58, 2],
        [59, 2],
        [245, 2],
        [70, 3],
        [71, 3],
        [72, 3],
        [225, 4],
        [226, 4],
        [227, 2],
        [228, 2],
      ],
      ...[
        [18, 4],
        [95, 4],
        [234, 4],
        [235, 4],
        [89, 1],
      ],
    ];
    const record = octets(
      ...([
        [0x0a0b0c0d0e01, 6],
        [0x0a0b0c0d0e02, 6],
        [100, 2],
        [200, 2],
        [300, 2],
        [(16 << 4) | 2, 3],
        [(17 << 4) | 1, 3],
        [0, 3],
      ] as const),
      ...([
        [0xc0000201, 4],
        [0xc0000202, 4],
        [40000, 2],
        [443, 2],
        [0xc0000263, 4],
        [0x0d0001c5, 4],
        [7, 4],
        [0x60000000, 4],
        [64, 1],
      ] as const),
    );
    expect(decoded(fields, record)[0]!.details).toEqual({
      ...unsaid,
      ...{ src_mac: '0a:0b:0c:0d:0e:01', dst_mac: '0a:0b:0c:0d:0e:02', src_vlan: 100, dst_vlan: 200, customer_vlan: 300, mpls_labels: '16/17' },
      ...{ nat_src_addr: '192.0.2.1', nat_dst_addr: '192.0.2.2', nat_src_port: 40000, nat_dst_port: 443, bgp_next_hop: '192.0.2.99' },
      ...{ application_id: '13:453', ingress_vrf: 7, egress_vrf: 0x60000000, forwarding_status: 64 },
    });
  });

  test('have addresses of either family, and the better of two elements', () => {
    const v6 = Buffer.from('20010db8000000000000000000000001', 'hex');
    const both = Buffer.concat([octets([0, 4]), v6, octets([0, 4]), v6]);
    expect(
      decoded(
        [
          [225, 4],
          [281, 16],
          [18, 4],
          [63, 16],
        ],
        both,
      )[0]!.details,
    ).toEqual({
      ...unsaid,
      ...{ nat_src_addr: '2001:db8::1', bgp_next_hop: '2001:db8::1' },
    });
    expect(
      decoded(
        [
          [81, 6],
          [57, 6],
          [243, 2],
          [254, 2],
        ],
        octets([1, 6], [2, 6], [10, 2], [20, 2]),
      )[0]!.details,
    ).toEqual({
      ...unsaid,
      ...{ src_mac: '00:00:00:00:00:01', dst_mac: '00:00:00:00:00:02', src_vlan: 10, dst_vlan: 20 },
    });
    expect(
      decoded(
        [
          [56, 6],
          [81, 6],
          [243, 2],
          [58, 2],
        ],
        octets([1, 6], [2, 6], [10, 2], [20, 2]),
      )[0]!.details,
    ).toMatchObject({
      ...{ src_mac: '00:00:00:00:00:01', src_vlan: 20 },
    });
    const older = decoding();
    const template = templateRecord(256, [
      [40001, 4],
      [40002, 4],
      [40003, 2],
      [40004, 2],
      [1, 4],
    ]);
    older.take(netflow9Datagram(0, [set(0, template), set(256, octets([1, 4], [2, 4], [3, 2], [4, 2], [5, 4]))]));
    expect(older.nars[0]!.details).toMatchObject({ nat_src_addr: '0.0.0.1', nat_dst_addr: '0.0.0.2', nat_src_port: 3, nat_dst_port: 4 });
  });

  test('have type and code of ICMP alone', () => {
    const icmp = (fields: number[][], record: Buffer) => decoded(fields, record)[0]!.details;
    expect(
      icmp(
        [
          [4, 1],
          [32, 2],
        ],
        octets([1, 1], [0x0301, 2]),
      ),
    ).toEqual({ ...unsaid, icmp_type: 3, icmp_code: 1 });
    expect(
      icmp(
        [
          [4, 1],
          [32, 2],
        ],
        octets([1, 1], [0, 2]),
      ),
    ).toEqual({ ...unsaid, icmp_type: 0, icmp_code: 0 });
    expect(
      icmp(
        [
          [4, 1],
          [176, 1],
          [177, 1],
        ],
        octets([1, 1], [11, 1], [1, 1]),
      ),
    ).toEqual({ ...unsaid, icmp_type: 11, icmp_code: 1 });
    expect(
      icmp(
        [
          [4, 1],
          [32, 2],
          [139, 2],
        ],
        octets([58, 1], [0x0800, 2], [0x8100, 2]),
      ),
    ).toEqual({ ...unsaid, icmp_type: 129, icmp_code: 0 });
    expect(
      icmp(
        [
          [4, 1],
          [178, 1],
          [179, 1],
        ],
        octets([58, 1], [128, 1], [0, 1]),
      ),
    ).toEqual({ ...unsaid, icmp_type: 128, icmp_code: 0 });
    expect(
      icmp(
        [
          [4, 1],
          [32, 2],
        ],
        octets([6, 1], [0x0301, 2]),
      ),
    ).toBeNull();
  });

  test('of one record are not those of the next', () => {
    const { take, nars } = decoding();
    const fields = [
      [4, 1],
      [32, 2],
      [58, 2],
      [56, 6],
    ];
    const records = [octets([1, 1], [0x0301, 2], [0, 2], [7, 6]), octets([6, 1], [0, 2], [100, 2], [0, 6]), octets([6, 1], [0, 2], [0, 2], [0, 6])];
    take(ipfixMessage(0, [set(2, templateRecord(256, fields)), set(256, ...records)]));
    expect(nars.map((nar) => nar.details)).toEqual([
      { ...unsaid, icmp_type: 3, icmp_code: 1, src_mac: '00:00:00:00:00:07' },
      { ...unsaid, src_vlan: 100 },
      null,
    ]);
  });

  test('of varying length are those of each record', () => {
    const { take, nars } = decoding();
    const application = (...selector: number[]) => octets([selector.length, 1], ...selector.map((octet) => [octet, 1] as const));
    const records = [application(3, 0, 80), application(), application(20, 0, 0, 0x8a, 0x20, 1), application(...new Array(40).fill(9))];
    take(
      ipfixMessage(0, [
        set(
          2,
          templateRecord(256, [
            [95, 65535],
            [1, 4],
          ]),
        ),
        set(256, ...records.map((id) => Buffer.concat([id, octets([1, 4])]))),
      ]),
    );
    expect(nars.map((nar) => nar.details?.application_id)).toEqual(['3:80', undefined, `20:${0x8a2001}`, expect.stringMatching(/^9:\d+$/)]);
  });

  test('of the reverse direction are swapped, and lack what is said of the way there', () => {
    const fields = [
      [4, 1],
      [56, 6],
      [80, 6],
      [58, 2],
      [59, 2],
      [225, 4],
      [228, 2],
      [18, 4],
      [70, 3],
      [32, 2],
      [234, 4],
      [235, 4],
      [89, 1],
    ];
    const record = octets(
      ...([
        [1, 1],
        [1, 6],
        [2, 6],
        [10, 2],
        [20, 2],
        [3, 4],
        [4, 2],
        [5, 4],
        [0x101, 3],
        [0x0800, 2],
        [6, 4],
        [7, 4],
        [64, 1],
      ] as const),
      ...([
        [100, 4],
        [200, 4],
      ] as const),
    );
    const [there, back] = decoded([...fields, [1, 4], [1, 4, reverse]], record);
    expect(there!.details).toMatchObject({ src_vlan: 10, nat_src_addr: '0.0.0.3', icmp_type: 8, bgp_next_hop: '0.0.0.5', mpls_labels: '16' });
    expect(back!.details).toEqual({
      ...unsaid,
      ...{ src_mac: '00:00:00:00:00:02', dst_mac: '00:00:00:00:00:01', src_vlan: 20, dst_vlan: 10, nat_dst_addr: '0.0.0.3', nat_src_port: 4 },
      ...{ ingress_vrf: 7, egress_vrf: 6 },
    });
  });

  test('are nothing that a flow is told from others by', () => {
    const partitions: number[] = [];
    const decoder = new Decoder();
    const fields = [
      [8, 4],
      [12, 4],
      [58, 2],
    ];
    const records = [octets([1, 4], [2, 4], [10, 2]), octets([1, 4], [2, 4], [20, 2])];
    decoder.decode(ipfixMessage(0, [set(2, templateRecord(256, fields)), set(256, ...records)]), '192.0.2.1', 0, (nar) =>
      partitions.push(partitionOf(nar, 1000)),
    );
    expect(partitions[0]).toBe(partitions[1]);
  });
});
