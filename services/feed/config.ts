/** The feed's section of the configuration. */
import { address, choice, count, duration, type SectionOf, section, text } from '../../adapters/config-values.ts';

export const feedConfig = section({
  id: text('feed-1', /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, 'letters, digits, dots, hyphens and underscores, up to 100'),
  /** elected: as soon as the leader has it. agreed: when both replicas have it, up to agree_within. */
  emit: choice(['elected', 'agreed'], 'elected'),
  agree_within: duration('10s', { min: '100ms' }),
  /** Outputs of the replicas that are emitted and found equal are kept for so long, then cut. */
  history: duration('1h'),
  transaction_outputs_max: count(2000, { min: 1, max: 100_000 }),
  standby_after: duration('3s', { min: '100ms' }),
  health_interval: duration('250ms', { min: '50ms', max: '10s' }),
  http: address('127.0.0.1:9105'),
});
export type FeedConfig = SectionOf<typeof feedConfig>;
