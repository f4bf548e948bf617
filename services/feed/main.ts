/** The feed's parts. */
import { systemClock } from '../../adapters/clock.ts';
import { sha256 } from '../../adapters/digest.ts';
import { serveHttp } from '../../adapters/http.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import { Metrics } from '../../adapters/metrics.ts';
import type { Config } from '../config.ts';
import { Feed } from './feed.ts';
import { feedMetrics } from './metrics.ts';

/** Resolves after a graceful stop. */
export async function runFeed(config: Config, signal: AbortSignal): Promise<void> {
  const logger = openLogger('feed', config.log.level);
  const log = openKafka(config.kafka, logger, systemClock);
  const feed = new Feed({ log, clock: systemClock, logger, digest: sha256, settings: config.feed });
  const metrics = new Metrics();
  feedMetrics(metrics, feed);
  const http = await serveHttp({ ...config.feed.http, metrics, readiness: () => feed.readiness() });
  try {
    await feed.run(signal);
  } finally {
    await http.close();
    await log.close();
  }
}
