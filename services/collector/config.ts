/** The collector's section of the configuration. */
import { hostname } from 'node:os';
import {
  address,
  addresses,
  choice,
  count,
  duration,
  prefixes,
  type SectionOf,
  samplingPrefixes,
  section,
  size,
  text,
} from '../../adapters/config-values.ts';

export const collectorConfig = section({
  /** Stands in every batch; it must be stable over restarts and different from every other collector's. */
  name: text(hostname(), /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, 'letters, digits, dots, hyphens and underscores, up to 100'),
  listen: addresses(['0.0.0.0:2055', '0.0.0.0:4739']),
  /** IPFIX over TCP, whose port is 4739, and over TLS, 4740. */
  listen_tcp: addresses([]),
  listen_tls: addresses([]),
  /** Files in PEM: the own certificate, its key, and the authorities that sign exporters' certificates. */
  tls_certificate: text(''),
  tls_key: text(''),
  tls_authorities: text(''),
  /** Of each listener. */
  tcp_connections_max: count(256, { min: 1, max: 10_000 }),
  tcp_idle: duration('30m', { min: '1s' }),
  tcp_message_within: duration('10s', { min: '100ms', max: '5m' }),
  /** Datagrams of all others are dropped first. */
  exporters_allow: prefixes(['0.0.0.0/0', '::/0']).refine((allowed) => allowed.length > 0, 'at least one prefix, such as 198.51.100.0/24'),
  /** A flood of others leaves these their part of every bound; so it does for those of exporters_allow, where that is not everybody. */
  exporters_known: prefixes([]),
  receive_buffer: size('32MiB', { min: '64KiB' }),
  flush_interval: duration('100ms', { min: '1ms', max: '10s' }),
  batch_nars_max: count(4000, { min: 1, max: 10_000 }),
  tick_interval: duration('1s', { min: '10ms', max: '1m' }),
  store_max: size('1GiB', { min: '1MiB' }),
  store_reserve: size('16MiB', { min: '64KiB' }),
  memory_max: size('256MiB', { min: '1MiB' }),
  transfer_gate: choice(['broker', 'aggregator'], 'broker'),
  suspicion_after: duration('1500ms', { min: '100ms' }),
  template_expiry: duration('30m', { min: '1s' }),
  template_wait: duration('30s'),
  template_wait_bytes: size('4MiB'),
  sampling: samplingPrefixes(),
  health_interval: duration('250ms', { min: '50ms', max: '10s' }),
  http: address('127.0.0.1:9101'),
});
export type CollectorConfig = SectionOf<typeof collectorConfig>;

/** What no single key can tell: faults between keys, each naming the one to set. */
export function collectorFaults(config: CollectorConfig): string[] {
  if (config.listen_tls.length === 0) return [];
  const needed = ['tls_certificate', 'tls_key', 'tls_authorities'] as const;
  return needed.filter((key) => config[key] === '').map((key) => `collector.${key}: has no value; collector.listen_tls needs a file in PEM there`);
}
