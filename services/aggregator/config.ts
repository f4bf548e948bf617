/** The aggregators' section of the configuration. */
import { address, choice, duration, flag, type SectionOf, section } from '../../adapters/config-values.ts';

export const aggregatorConfig = section({
  /** Which of the two this process is; `aggregator --replica` says it on the command line. */
  replica: choice(['a', 'b'], 'a'),
  ack_interval: duration('100ms', { min: '1ms', max: '10s' }),
  ack_repeat: duration('1s', { min: '10ms', max: '1m' }),
  snapshot_idle: duration('30s', { min: '100ms' }),
  health_interval: duration('100ms', { min: '50ms', max: '10s' }),
  /** Of replica a and of replica b: one file serves both. */
  http_a: address('127.0.0.1:9102'),
  http_b: address('127.0.0.1:9103'),
  /** Serves the lag under the names that stock dashboards know, on /metrics/lag; they would double where a lag exporter runs. */
  lag_metrics: flag(false),
});
export type AggregatorConfig = SectionOf<typeof aggregatorConfig>;
