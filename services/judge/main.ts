/** The judge's parts. */
import { systemClock } from '../../adapters/clock.ts';
import { runningSha256, sha256 } from '../../adapters/digest.ts';
import { serveHttp } from '../../adapters/http.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import { Metrics } from '../../adapters/metrics.ts';
import type { Config } from '../config.ts';
import { Judge } from './judge.ts';
import { judgeMetrics } from './metrics.ts';

/** Resolves after a graceful stop. */
export async function runJudge(config: Config, signal: AbortSignal): Promise<void> {
  const logger = openLogger('judge', config.log.level);
  const clock = systemClock;
  const log = openKafka(config.kafka, logger, clock);
  const judge = new Judge({ log, clock, logger, digest: sha256, runningDigest: runningSha256, settings: config.judge });
  const metrics = new Metrics();
  judgeMetrics(metrics, judge, clock);
  const http = await serveHttp({ ...config.judge.http, metrics, readiness: () => judge.readiness() });
  try {
    await judge.run(signal);
  } finally {
    await http.close();
    await log.close();
  }
}
