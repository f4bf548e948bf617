/** What accounting shows of itself. */
import { Metrics } from '../../adapters/metrics.ts';
import { imbalanceOf } from '../../core/ledger/book.ts';
import type { Accounting, PartitionStatus } from './accounting.ts';

export function accountingMetrics(accounting: Accounting): Metrics {
  const metrics = new Metrics();
  const each = (read: (status: PartitionStatus) => number) => () =>
    accounting.partitions.map((status) => [{ partition: status.partition }, read(status)] as const);
  const counter = (name: string, help: string, read: (status: PartitionStatus) => number) => metrics.counter(name, help, ['partition'], each(read));
  const gauge = (name: string, help: string, read: (status: PartitionStatus) => number) => metrics.gauge(name, help, ['partition'], each(read));

  counter('flowledger_accounting_aggregates_total', 'Aggregates booked.', (status) => status.aggregates);
  counter('flowledger_accounting_flows_total', 'Flows in the aggregates booked.', (status) => status.flows);
  counter('flowledger_accounting_bytes_total', 'Bytes in the aggregates booked, as exported.', (status) => Number(status.bytes));
  counter('flowledger_accounting_repeated_outputs_total', 'Outputs read that were booked before.', (status) => status.repeated);
  counter('flowledger_accounting_corrections_total', 'Corrections of what was emitted of a wrong replica, booked.', (status) => status.corrections);
  counter('flowledger_accounting_windows_closed_total', 'Windows closed, their sums agreeing.', (status) => status.windowsClosed);
  gauge('flowledger_accounting_output_number', 'n of the last output booked.', (status) => status.book.n);
  gauge('flowledger_accounting_lag_records', 'Records of topic aggregates not booked yet.', (status) =>
    Math.max(0, status.endOffset - status.nextOffset),
  );
  gauge('flowledger_accounting_lag_seconds', 'Age of the last record taken while there are more.', (status) => accounting.lagMs(status) / 1000);
  gauge('flowledger_accounting_watermark_timestamp_seconds', 'Watermark of the last close.', (status) => status.book.watermarkMs / 1000);
  gauge('flowledger_accounting_stopped_partitions', '1 when the partition is not booked any further.', (status) => Number(status.fault !== null));
  gauge('flowledger_ledger_unclosed_windows', 'Windows in the ledger whose sums do not agree.', (status) => status.windowsUnclosed);
  gauge('flowledger_ledger_open_flows', 'Flows accepted and in no output yet at the last close.', (status) => status.book.open.flows);
  gauge('flowledger_ledger_doubts', 'Losses of unknown size that stand at the last close.', (status) => status.book.doubts);
  gauge('flowledger_ledger_imbalance_flows', 'Decoded less aggregated, late, rejected, lost and open.', (status) => imbalance(status).flows);
  gauge('flowledger_ledger_imbalance_bytes', 'Decoded less aggregated, late, rejected, lost and open.', (status) => Number(imbalance(status).bytes));
  gauge('flowledger_ledger_imbalance_packets', 'Decoded less aggregated, late, rejected, lost and open.', (status) =>
    Number(imbalance(status).packets),
  );
  metrics.counter('flowledger_accounting_writes_total', 'Transactions of the ledger.', [], () => [[{}, accounting.writes]]);
  metrics.counter('flowledger_accounting_write_failures_total', 'Transactions of the ledger that failed.', [], () => [
    [{}, accounting.writeFailures],
  ]);
  return metrics;
}

function imbalance({ book }: PartitionStatus) {
  return imbalanceOf(book.balance, book.open);
}
