/** The judge's metrics. */
import type { Metrics } from '../../adapters/metrics.ts';
import type { Judge } from './judge.ts';

export function judgeMetrics(metrics: Metrics, judge: Judge): void {
  metrics.counter('flowledger_judge_faults_total', 'Turns that a fault of the log broke off; the next one begins anew', [], () => [
    [{}, judge.faults],
  ]);
}
