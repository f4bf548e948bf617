import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { GroupKeys, UnknownGroupField } from '../../../core/aggregate/group-key.ts';
import { PrefixMap } from '../../../core/aggregate/prefix-map.ts';
import { shares } from '../../../core/aggregate/window.ts';
import { addressBytes } from '../../../core/nar/address.ts';
import { noDetails } from '../../../core/nar/details.ts';
import { columnsOf, nar, report } from './log-of-batches.ts';

describe('the longest prefix', () => {
  const map = new PrefixMap([
    ['0.0.0.0/0', 'any'],
    ['10.0.0.0/8', 'ten'],
    ['10.1.2.0/23', 'narrow'],
    ['10.1.2.3/32', 'one'],
    ['2001:db8::/32', 'six'],
    ['2001:db8:8000::/33', 'upper half'],
    ['2001:db8::1/128', 'one of six'],
  ]);

  test.each([
    ['10.1.2.3', 'one'],
    ['10.1.3.255', 'narrow'],
    ['10.1.4.0', 'ten'],
    ['255.0.0.1', 'any'],
    ['2001:db8::1', 'one of six'],
    ['2001:db8::2', 'six'],
    ['2001:db8:8000::1', 'upper half'],
    ['2001:db9::', undefined],
    ['::ffff:10.0.0.1', undefined],
  ])('of %s is that of %s', (address, value) => {
    expect(map.find(addressBytes(address))).toBe(value);
  });

  test('is that of a comparison bit by bit', () => {
    const octets = fc.uint8Array({ minLength: 4, maxLength: 4 });
    const prefix = fc.tuple(octets, fc.integer({ min: 0, max: 32 }));
    const bits = (address: Uint8Array) => [...address].map((octet) => octet.toString(2).padStart(8, '0')).join('');
    fc.assert(
      fc.property(fc.array(prefix, { maxLength: 8 }), octets, (prefixes, address) => {
        const map = new PrefixMap(prefixes.map(([network, length]) => [`${network.join('.')}/${length}`, bits(network).slice(0, length)] as const));
        const matching = prefixes.map(([network, length]) => bits(network).slice(0, length)).filter((head) => bits(address).startsWith(head));
        expect(map.find(address)).toBe(matching.sort((a, b) => b.length - a.length)[0]);
      }),
    );
  });

  test.each(['10.0.0.0', '10.0.0.0/33', '10.0.0/8', '::/129', 'x/8'])('is not asked of %s, which is no prefix', (prefix) => {
    expect(() => new PrefixMap([[prefix, 'x']])).toThrow(RangeError);
  });
});

describe('the grouping key', () => {
  const flow = nar({ src_addr: addressBytes('2001:db8::1'), dst_port: 443, in_if: 7 });
  const exporters = report([flow]);

  test('has the fields of group_by in their order, as text', () => {
    const keys = new GroupKeys({ group_by: ['src_addr', 'dst_addr', 'dst_port', 'sampler_address', 'dst_account', 'next_hop'], accounts: [] });
    expect(keys.groupOf(columnsOf([flow]), 0, exporters).fields.map(({ name, value }) => `${name}=${value}`)).toEqual([
      'src_addr=2001:db8::1',
      'dst_addr=10.1.0.1',
      'dst_port=443',
      'sampler_address=192.0.2.1',
      'dst_account=unassigned',
      'next_hop=',
    ]);
  });

  test('may have details, which a flow without any says as well', () => {
    const names = ['src_mac', 'mpls_labels', 'nat_src_addr', 'application_id', 'src_vlan', 'icmp_type', 'egress_vrf', 'forwarding_status'];
    const details = {
      ...noDetails(),
      ...{ src_mac: Buffer.from('0a0b0c0d0e01', 'hex'), mpls_labels: Buffer.from('000100000111', 'hex'), nat_src_addr: Buffer.from([192, 0, 2, 1]) },
      ...{ application_id: Buffer.from([3, 0, 80]), src_vlan: 100, icmp_type: 0, egress_vrf: 0x6000_0000, forwarding_status: 64 },
    };
    const flows = columnsOf([nar(), nar({ details }), nar({ details: noDetails() })]);
    const text = (index: number) => keys.groupOf(flows, index, exporters).fields.map(({ value }) => value);
    const keys = new GroupKeys({ group_by: names, accounts: [] });
    expect(text(1)).toEqual(['0a:0b:0c:0d:0e:01', '16/17', '192.0.2.1', '3:80', '100', '0', String(0x6000_0000), '64']);
    expect(text(0)).toEqual(['', '', '', '', '0', '-1', '0', '0']);
    expect(keys.groupOf(flows, 2, exporters)).toBe(keys.groupOf(flows, 0, exporters));
  });

  test('without fields is one group for all', () => {
    const keys = new GroupKeys({ group_by: [], accounts: [] });
    expect(keys.groupOf(columnsOf([flow]), 0, exporters)).toBe(keys.groupOf(columnsOf([nar()]), 0, exporters));
  });

  test('is the same whatever is remembered', () => {
    const config = { group_by: ['src_port', 'dst_port'], accounts: [] };
    const forgetful = new GroupKeys(config, 3);
    const keys = new GroupKeys(config);
    for (let i = 0; i < 100; i++) {
      const other = columnsOf([nar(), nar({ src_port: i % 7, dst_port: (i * i) % 5 })]);
      expect(forgetful.groupOf(other, 1, exporters).key).toBe(keys.groupOf(other, 1, exporters).key);
    }
  });

  test('of a field that is not known cannot be made', () => {
    expect(() => new GroupKeys({ group_by: ['bytes'], accounts: [] })).toThrow(UnknownGroupField);
  });
});

test('shares are whole, add up, and differ by less than one from what is exact', () => {
  const weights = fc.array(fc.integer({ min: 1, max: 86_400_000 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(fc.oneof(fc.integer({ min: 0, max: 1000 }), fc.integer({ min: 0, max: 2 ** 53 - 2 })), weights, (amount, parts) => {
      const result = shares(amount, parts);
      expect(result.reduce((sum, share) => sum + BigInt(share), 0n)).toBe(BigInt(amount));
      const total = BigInt(parts.reduce((sum, part) => sum + part, 0));
      for (const [index, share] of result.entries()) {
        const off = BigInt(share) * total - BigInt(amount) * BigInt(parts[index]!);
        expect(off < total && off > -total).toBe(true);
      }
    }),
  );
});
