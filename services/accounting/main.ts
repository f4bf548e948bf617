/** The accounting service: its parts, put together. */
import { systemClock } from '../../adapters/clock.ts';
import { sha256 } from '../../adapters/digest.ts';
import { serveHttp } from '../../adapters/http.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLedger } from '../../adapters/ledger-sqlite.ts';
import { openLogger } from '../../adapters/logger.ts';
import type { Config } from '../config.ts';
import { Accounting } from './accounting.ts';
import { accountingMetrics } from './metrics.ts';

/** Runs until the signal is aborted. @throws LedgerError when another accounting service writes this ledger */
export async function runAccounting(config: Config, signal: AbortSignal): Promise<void> {
  const clock = systemClock;
  const logger = openLogger('accounting', config.log.level);
  const ledger = openLedger(config.accounting.ledger);
  const log = openKafka(config.kafka, logger, clock);
  const accounting = new Accounting({ log, ledger, clock, logger, digest: sha256 });
  const metrics = accountingMetrics(accounting);
  const server = await serveHttp({ ...config.accounting.http, metrics, readiness: () => accounting.readiness() });
  logger.info({ ledger: config.accounting.ledger, http: server.port }, 'accounting started');
  try {
    await accounting.run(signal);
  } finally {
    await server.close();
    await log.close();
    ledger.close();
    logger.info({}, 'accounting stopped');
  }
}
