import { describe, expect, test } from '@jest/globals';
import { ExporterLists } from '../../services/collector/exporter-lists.ts';

const everybody = ['0.0.0.0/0', '::/0'];
const lists = (allow: readonly string[], known: readonly string[] = []) => new ExporterLists({ exporters_allow: allow, exporters_known: known });

describe('exporters', () => {
  test('are all allowed unless prefixes say otherwise', () => {
    for (const address of ['192.0.2.1', '2001:db8::1', 'fe80::1%eth0']) expect(lists(everybody).allows(address)).toBe(true);
    const some = lists(['198.51.100.0/24', '2001:db8::/32', 'fe80::/10']);
    const verdicts = ['198.51.100.7', '198.51.101.7', '2001:db8:1::1', '2001:db9::1', 'fe80::1%eth0'].map((address) => some.allows(address));
    expect(verdicts).toEqual([true, false, true, false, true]);
    expect(['198.51.100.7', '198.51.101.7'].map((address) => some.allows(address))).toEqual([true, false]);
  });

  test('of one family only are allowed where only that is named', () => {
    expect([lists(['0.0.0.0/0']).allows('2001:db8::1'), lists(['0.0.0.0/0']).allows('192.0.2.1')]).toEqual([false, true]);
  });

  test('are known where a list names them and not everybody', () => {
    expect(lists(everybody).isKnown).toBeNull();
    const named = lists(everybody, ['192.0.2.1/32']).isKnown;
    expect([named?.('192.0.2.1'), named?.('192.0.2.2')]).toEqual([true, false]);
    const allowed = lists(['198.51.100.0/24', '::/0'], ['192.0.2.1/32']).isKnown;
    expect(['198.51.100.9', '192.0.2.1', '2001:db8::1'].map((address) => allowed?.(address))).toEqual([true, true, false]);
  });

  test('of forged addresses fill no memory', () => {
    const some = lists(['10.0.0.0/9']);
    let allowed = 0;
    for (let i = 0; i < 51_200; i++) if (some.allows(`10.${i & 255}.${i >> 8}.7`)) allowed++;
    expect(allowed).toBe(25_600);
  });
});
