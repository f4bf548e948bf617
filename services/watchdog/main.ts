/** The watchdog's parts. */
import { systemClock } from '../../adapters/clock.ts';
import { serveHttp } from '../../adapters/http.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import { Metrics } from '../../adapters/metrics.ts';
import type { Config } from '../config.ts';
import { watchdogMetrics } from './metrics.ts';
import { Watchdog } from './watchdog.ts';

/** Resolves after a graceful stop. */
export async function runWatchdog(config: Config, signal: AbortSignal): Promise<void> {
  const logger = openLogger('watchdog', config.log.level);
  const clock = systemClock;
  const log = openKafka(config.kafka, logger, clock);
  const watchdog = new Watchdog({ log, clock, logger, settings: config.watchdog });
  const metrics = new Metrics();
  watchdogMetrics(metrics, watchdog);
  const http = await serveHttp({ ...config.watchdog.http, metrics, readiness: () => watchdog.readiness() });
  try {
    await watchdog.run(signal);
  } finally {
    await http.close();
    await log.close();
  }
}
