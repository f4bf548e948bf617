/** An aggregator's parts. */
import { systemClock } from '../../adapters/clock.ts';
import { sha256 } from '../../adapters/digest.ts';
import { serveHttp } from '../../adapters/http.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import { Metrics } from '../../adapters/metrics.ts';
import type { Replica } from '../../schemas/topics.ts';
import type { Config } from '../config.ts';
import { Aggregator } from './aggregator.ts';
import { aggregatorMetrics, lagMetrics } from './metrics.ts';

/** Resolves after a graceful stop. */
export async function runAggregator(config: Config, replica: Replica, signal: AbortSignal): Promise<void> {
  const logger = openLogger(`aggregator-${replica}`, config.log.level);
  const clock = systemClock;
  const log = openKafka(config.kafka, logger, clock);
  const aggregator = new Aggregator({ replica, log, clock, logger, digest: sha256, settings: config.aggregator });
  const metrics = new Metrics();
  aggregatorMetrics(metrics, aggregator, replica, clock);
  const lag = config.aggregator.lag_metrics ? lagOf(aggregator, replica) : undefined;
  const address = replica === 'a' ? config.aggregator.http_a : config.aggregator.http_b;
  const http = await serveHttp({ ...address, metrics, readiness: () => aggregator.readiness(), lagMetrics: lag });
  try {
    await aggregator.run(signal);
  } finally {
    await http.close();
    await log.close();
  }
}

function lagOf(aggregator: Aggregator, replica: Replica): Metrics {
  const metrics = new Metrics();
  lagMetrics(metrics, aggregator, replica, systemClock);
  return metrics;
}
