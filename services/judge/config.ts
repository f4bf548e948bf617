/** The judge's section of the configuration. */
import { address, duration, type SectionOf, section, size, text } from '../../adapters/config-values.ts';

export const judgeConfig = section({
  id: text('judge-1', /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, 'letters, digits, dots, hyphens and underscores, up to 100'),
  /** How often the snapshots of both replicas are looked at. */
  interval: duration('5s', { min: '10ms', max: '1h' }),
  /** Records of nars younger than this are never cut. */
  history: duration('1d'),
  /** A head that could not move for this long while the log grew is held back. */
  held_after: duration('1h', { min: '1s' }),
  /** Size of each broker's disk, where the broker does not tell; 0: not known. */
  disk_size: size('0B'),
  health_interval: duration('250ms', { min: '50ms', max: '10s' }),
  http: address('127.0.0.1:9107'),
});
export type JudgeConfig = SectionOf<typeof judgeConfig>;
