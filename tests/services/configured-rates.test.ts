import { expect, test } from '@jest/globals';
import { configuredRates } from '../../services/collector/configured-rates.ts';
import { loadConfig } from '../../services/config.ts';

test('the rate of an exporter is that of the longest prefix of its address, 0 without one', () => {
  const sampling = '198.51.100.0/24=1000,198.51.100.7=50,2001:db8::/32=200,fe80::/10=9';
  const { collector } = loadConfig({ env: { FLOWLEDGER_COLLECTOR_SAMPLING: sampling } });
  const rate = configuredRates(collector.sampling);
  expect(['198.51.100.1', '198.51.100.7', '198.51.101.1', '2001:db8::7', '2001:db9::7', 'fe80::1%eth0'].map(rate)).toEqual([1000, 50, 0, 200, 0, 9]);
  expect(configuredRates([])('198.51.100.1')).toBe(0);
});
