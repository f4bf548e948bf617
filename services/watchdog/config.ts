/** The watchdog's section of the configuration. */
import { address, count, duration, type SectionOf, section, text } from '../../adapters/config-values.ts';

export const watchdogConfig = section({
  id: text('watchdog-1', /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, 'letters, digits, dots, hyphens and underscores, up to 100'),
  /** A replica whose health record is older than this is silent; up to twice as long where its reports come slowly. */
  silent_after: duration('700ms', { min: '100ms' }),
  /** A replica whose n stands still this long while there is something to fold is stalled. */
  stalled_after: duration('10s', { min: '100ms' }),
  /** As many collectors must suspect the leader. */
  suspicion_quorum: count(1, { min: 1 }),
  http: address('127.0.0.1:9104'),
});
export type WatchdogConfig = SectionOf<typeof watchdogConfig>;
