/** The aggregators' metrics. */
import type { Metrics, Sample } from '../../adapters/metrics.ts';
import type { Clock } from '../../adapters/ports.ts';
import { type Replica, topics } from '../../schemas/topics.ts';
import type { Aggregator } from './aggregator.ts';
import type { ReplicaPartition } from './partition.ts';
import { groupOf } from './restore.ts';
import type { Running } from './running.ts';

type Labels = 'replica' | 'partition';
const labels = ['replica', 'partition'] as const;

export function aggregatorMetrics(metrics: Metrics, aggregator: Aggregator, replica: Replica, clock: Clock): void {
  const ofAll = (read: (partition: ReplicaPartition) => number) => (): Sample<Labels>[] =>
    aggregator.partitions.map((partition) => [{ replica, partition: partition.partition }, read(partition)]);
  const ofRunning = (read: (running: Running) => number | null) => (): Sample<Labels>[] =>
    aggregator.partitions.flatMap(({ partition, running }): Sample<Labels>[] => {
      const value = running && read(running);
      return value === null ? [] : [[{ replica, partition }, value]];
    });
  counters(metrics, aggregator, replica, ofAll);
  metrics.gauge(
    'flowledger_aggregator_running',
    '1 while the partition is folded, else 0',
    labels,
    ofAll(({ isRunning }) => Number(isRunning)),
  );
  metrics.gauge('flowledger_aggregator_lag_records', 'Records of nars that are not folded yet', labels, ofRunning(lagRecords));
  metrics.gauge(
    'flowledger_aggregator_lag_seconds',
    "Append time of the log's end less that of the last record folded",
    labels,
    ofRunning((running) => running.lagMs(clock.now()) / 1000),
  );
  metrics.gauge(
    'flowledger_aggregator_n',
    'Highest n up to which the own outputs were read back',
    labels,
    ofRunning(({ readBack }) => readBack.n),
  );
  metrics.gauge(
    'flowledger_aggregator_folded_n',
    'Highest n that was folded',
    labels,
    ofRunning(({ fold }) => fold.n),
  );
  metrics.gauge(
    'flowledger_aggregator_watermark_seconds',
    'The watermark, as Unix time; absent before the first',
    labels,
    ofRunning(({ fold }) => (fold.watermarkMs === null ? null : fold.watermarkMs / 1000)),
  );
  metrics.gauge(
    'flowledger_aggregator_open_flows',
    'Flows accepted and in no output yet',
    labels,
    ofRunning(({ fold }) => fold.openFlows),
  );
  metrics.gauge(
    'flowledger_aggregator_quarantined',
    '1 while the partition is in quarantine, else 0',
    labels,
    ofAll(({ quarantine }) => Number(quarantine !== null)),
  );
  metrics.gauge(
    'flowledger_aggregator_foreign_records',
    'Records of the own output topic that were dropped, since a process that did not know of the repair wrote them',
    labels,
    ofRunning(({ readBack }) => readBack.foreign),
  );
  metrics.gauge(
    'flowledger_aggregator_unread_output_bytes',
    'Outputs that were not read back yet',
    labels,
    ofRunning(({ readBack }) => readBack.unreadBytes),
  );
  metrics.gauge(
    'flowledger_aggregator_config_version',
    'Version of the fold configuration in force; 0 before the first',
    labels,
    ofRunning(({ fold }) => fold.configVersion),
  );
  metrics.gauge(
    'flowledger_aggregator_ignored_configs',
    'Fold configurations in the log that were ignored: not the next version, or not to be folded with',
    labels,
    ofRunning(({ fold }) => fold.counts.ignored_configs),
  );
}

function counters(
  metrics: Metrics,
  aggregator: Aggregator,
  replica: Replica,
  ofAll: (read: (partition: ReplicaPartition) => number) => () => Sample<Labels>[],
): void {
  metrics.counter(
    'flowledger_aggregator_nars_total',
    'NARs accepted',
    labels,
    ofAll(({ counters }) => counters.nars),
  );
  metrics.counter(
    'flowledger_aggregator_records_total',
    'Records of nars folded, by outcome: accepted, duplicate, gap, before_base or rejected',
    [...labels, 'outcome'],
    () =>
      aggregator.partitions.flatMap(({ partition, counters }) =>
        Object.entries(counters.records).map(([outcome, count]) => [{ replica, partition, outcome }, count] as const),
      ),
  );
  metrics.counter(
    'flowledger_aggregator_outputs_total',
    'Outputs folded',
    labels,
    ofAll(({ counters }) => counters.outputs),
  );
  metrics.counter(
    'flowledger_aggregator_rewritten_blocks_total',
    'Output blocks written again, since they were not read back',
    labels,
    ofAll(({ counters }) => counters.rewrittenBlocks),
  );
  metrics.counter(
    'flowledger_aggregator_snapshots_total',
    'Snapshots written',
    labels,
    ofAll(({ counters }) => counters.snapshots),
  );
  metrics.counter(
    'flowledger_aggregator_acks_total',
    'Acknowledgments written',
    labels,
    ofAll(({ counters }) => counters.acks),
  );
  metrics.counter(
    'flowledger_aggregator_faults_total',
    'Calls of the log that failed and were tried again',
    labels,
    ofAll(({ counters }) => counters.faults),
  );
  metrics.counter(
    'flowledger_aggregator_quarantines_total',
    'Times that a verdict put the partition into quarantine, after each of which it repairs itself',
    labels,
    ofAll(({ counters }) => counters.quarantines),
  );
  metrics.counter(
    'flowledger_aggregator_restores_total',
    'Times that the state was restored from a snapshot or the log',
    labels,
    ofAll(({ counters }) => counters.restores),
  );
}

function lagRecords({ endOffset, fold }: Running): number {
  return Math.max(0, endOffset - fold.nextOffset);
}

/** The names that stock lag dashboards know. */
export function lagMetrics(metrics: Metrics, aggregator: Aggregator, replica: Replica, clock: Clock): void {
  const group = groupOf(replica);
  const topic = topics.nars.name;
  metrics.gauge('kafka_consumergroup_lag', 'Records that the group has not folded yet', ['consumergroup', 'topic', 'partition'], () =>
    aggregator.partitions.flatMap(({ partition, running }) =>
      running ? [[{ consumergroup: group, topic, partition }, lagRecords(running)] as const] : [],
    ),
  );
  metrics.gauge('kafka_consumergroup_group_lag_seconds', 'Time by which the group is behind', ['group', 'topic', 'partition'], () =>
    aggregator.partitions.flatMap(({ partition, running }) =>
      running ? [[{ group, topic, partition }, running.lagMs(clock.now()) / 1000] as const] : [],
    ),
  );
}
