/** The watchdog's metrics. */
import type { Metrics, Sample } from '../../adapters/metrics.ts';
import { replicas } from '../../schemas/topics.ts';
import type { Watchdog } from './watchdog.ts';

export function watchdogMetrics(metrics: Metrics, watchdog: Watchdog): void {
  const { elections, hearing } = watchdog;
  const partitions = () => Array.from({ length: watchdog.partitions }, (_, partition) => partition);
  metrics.gauge('flowledger_elected', '1 for the replica that feeds accounting with the partition, else 0', ['partition', 'replica'], () =>
    partitions().flatMap((partition) =>
      replicas.map((replica) => [{ partition, replica }, Number(elections.leader(partition) === replica)] as const),
    ),
  );
  metrics.gauge('flowledger_watchdog_epoch', 'Epoch of the last election of the partition; 0 before the first', ['partition'], () =>
    partitions().map((partition) => [{ partition }, elections.last(partition)?.epoch ?? 0] as const),
  );
  metrics.counter('flowledger_watchdog_elections_total', 'Elections that this watchdog wrote, by reason', ['reason'], () =>
    [...watchdog.elected].map(([reason, count]) => [{ reason }, count] as const),
  );
  metrics.gauge('flowledger_watchdog_heard_age_seconds', 'Time since the replica was last heard', ['replica'], () =>
    replicas.flatMap((replica): Sample<'replica'>[] => {
      const heard = hearing.replica(replica);
      return heard ? [[{ replica }, (watchdog.listenerMs - heard.heardMs) / 1000]] : [];
    }),
  );
  metrics.gauge('flowledger_watchdog_listening', '1 while health is read up to its end; 0: no elections, since nobody is heard', [], () => [
    [{}, Number(watchdog.readiness().ready)],
  ]);
  metrics.counter('flowledger_watchdog_undecodable_total', 'Records of elections and health that no schema can decode', [], () => [
    [{}, watchdog.undecodable],
  ]);
}
