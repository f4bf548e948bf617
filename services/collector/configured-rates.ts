/** The sampling rates that the configuration gives to exporters which do not tell theirs. */
import type { SamplingPrefix } from '../../adapters/config-values.ts';
import { PrefixMap } from '../../core/aggregate/prefix-map.ts';
import { addressBytes } from '../../core/nar/address.ts';

/** By an exporter's address, 0 where none is configured. The longest prefix wins. */
export function configuredRates(sampling: readonly SamplingPrefix[]): (samplerAddress: string) => number {
  const rates = new PrefixMap(sampling.map(({ prefix, rate }) => [prefix, String(rate)] as const));
  // A link-local address comes with the interface that it belongs to, as in fe80::1%eth0.
  return (samplerAddress) => Number(rates.find(addressBytes(samplerAddress.split('%', 1)[0] as string)) ?? 0);
}
