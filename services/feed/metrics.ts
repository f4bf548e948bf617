/** The feed's metrics. */
import type { Metrics } from '../../adapters/metrics.ts';
import type { FeedPartition } from '../../core/feed/partition.ts';
import { replicas } from '../../schemas/topics.ts';
import type { Feed } from './feed.ts';

const phases = ['starting', 'standby', 'active', 'held'] as const;

export function feedMetrics(metrics: Metrics, feed: Feed): void {
  const gauge = (name: string, help: string, read: (partition: FeedPartition) => number) =>
    metrics.gauge(name, help, ['partition'], () => feed.partitions.map((one) => [{ partition: one.partition }, read(one)] as const));
  const counter = (name: string, help: string, read: (partition: FeedPartition) => number) =>
    metrics.counter(name, help, ['partition'], () => feed.partitions.map((one) => [{ partition: one.partition }, read(one)] as const));

  counter('flowledger_feed_emitted_total', 'Outputs that this feed wrote to aggregates and read back', (one) => one.emitted);
  counter('flowledger_feed_transactions_total', 'Transactions that this feed committed and read back', (one) => one.transactions);
  counter('flowledger_feed_opened_total', 'Producer epochs that this feed opened', (one) => one.opened);
  counter('flowledger_feed_take_overs_total', 'Times that this feed took over, since n stood still', (one) => one.takeOvers);
  counter('flowledger_feed_corrections_total', 'Corrections of what was emitted of a wrong replica, written or followed', (one) => one.corrections);
  counter('flowledger_feed_fenced_total', 'Times that another feed took over from this one', (one) => one.fencedCount);
  counter('flowledger_feed_faults_total', 'Openings, transactions and placings that failed; none of them loses anything', (one) => one.faults);
  counter('flowledger_feed_out_of_line_total', 'Records of aggregates that came twice or over a gap', (one) => one.outOfLine);
  gauge('flowledger_feed_n', 'n of the last output in aggregates', (one) => one.tail?.n ?? 0);
  gauge('flowledger_feed_diverged', '1 where two histories of the partition were found, so that it is held', (one) =>
    Number(one.phase.name === 'held'),
  );
  gauge('flowledger_feed_last_emission_timestamp_seconds', 'When this feed last emitted; 0 before', (one) => one.lastEmissionMs / 1000);
  gauge('flowledger_feed_watermark_timestamp_seconds', 'Watermark of the last window that was closed in aggregates', watermarkSeconds);
  gauge(
    'flowledger_feed_patience_seconds',
    'How long n may stand still before this feed takes over while it stands by',
    (one) => one.patienceMs / 1000,
  );
  gauge('flowledger_feed_epoch', 'Epoch of the last election of the partition; 0 before the first', ({ partition }) => {
    return feed.elections.last(partition)?.epoch ?? 0;
  });
  metrics.gauge('flowledger_feed_state', '1 for the state that the partition is in, else 0', ['partition', 'state'], () =>
    feed.partitions.flatMap(({ partition, phase }) => phases.map((state) => [{ partition, state }, Number(phase.name === state)] as const)),
  );
  metrics.gauge(
    'flowledger_feed_kept_from_n',
    'The first n of which this feed kept the outputs of the replicas; 0 before it cut any',
    ['partition'],
    () => feed.emissions.map(({ partition, heads }) => [{ partition: partition.partition }, heads.keptFromN] as const),
  );
  byReplica(metrics, feed);
}

function byReplica(metrics: Metrics, feed: Feed): void {
  const each = (read: (partition: FeedPartition, replica: (typeof replicas)[number]) => number) => () =>
    feed.partitions.flatMap((one) => replicas.map((replica) => [{ partition: one.partition, replica }, read(one, replica)] as const));
  const labels = ['partition', 'replica'] as const;
  metrics.gauge(
    'flowledger_feed_leader',
    '1 for the replica whose outputs are emitted, else 0',
    labels,
    each((one, replica) => Number(one.leader === replica)),
  );
  metrics.gauge(
    'flowledger_feed_behind_outputs',
    'How many outputs the replica has ahead of what is emitted; below 0 where the replica itself is behind',
    labels,
    each((one, replica) => (one.outputs[replica].lastN ?? 0) - (one.tail?.n ?? 0)),
  );
  metrics.counter(
    'flowledger_feed_repeated_outputs_total',
    'Outputs that the replica wrote more than once',
    labels,
    each((one, replica) => one.outputs[replica].repeated),
  );
  metrics.gauge(
    'flowledger_feed_quarantined',
    '1 where the replica is in quarantine, so that it is neither read nor compared, else 0',
    labels,
    each((one, replica) => Number(one.quarantine(replica) !== null)),
  );
  metrics.counter(
    'flowledger_feed_foreign_blocks_total',
    'Output blocks of the history that the replica told before it was repaired; dropped',
    labels,
    each((one, replica) => one.outputs[replica].foreign),
  );
  metrics.counter(
    'flowledger_feed_invalid_blocks_total',
    'Output blocks whose content does not give their chain, or is not of their partition; taken as missing',
    labels,
    each((one, replica) => one.outputs[replica].invalid),
  );
}

function watermarkSeconds({ tail }: FeedPartition): number {
  return (tail?.watermarkMs ?? 0) / 1000;
}
