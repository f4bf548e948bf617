/** The collector's metrics, pulled from its counters. */
import type { Metrics } from '../../adapters/metrics.ts';
import type { TcpReceiver } from '../../adapters/tcp.ts';
import type { UdpReceiver } from '../../adapters/udp.ts';
import { replicas } from '../../schemas/topics.ts';
import type { Collector, CollectorStats } from './collector.ts';

export interface Receivers {
  /** null before it listens. */
  readonly udp: UdpReceiver | null;
  readonly sessions: readonly TcpReceiver[];
}

type Read = (stats: CollectorStats) => number;

const counters: readonly (readonly [name: string, help: string, read: Read])[] = [
  [
    'flowledger_collector_received_datagrams_total',
    'Datagrams received; a message of a transport session counts as one.',
    (stats) => stats.decoder.datagrams,
  ],
  ['flowledger_collector_received_bytes_total', 'Bytes of datagrams received.', (stats) => stats.decoder.bytes],
  ['flowledger_collector_decoded_flows_total', 'Flows decoded into NARs.', (stats) => stats.decoder.flows],
  ['flowledger_collector_rejected_flows_total', 'Data records with implausible counters.', (stats) => stats.decoder.rejectedFlows],
  ['flowledger_collector_undecodable_datagrams_total', 'Datagrams of which nothing could be decoded.', (stats) => stats.decoder.undecodableDatagrams],
  [
    'flowledger_collector_unidentified_datagrams_total',
    'Datagrams of no known version; they belong to no exporter.',
    (stats) => stats.decoder.unidentifiedDatagrams,
  ],
  [
    'flowledger_collector_refused_datagrams_total',
    'Datagrams of exporters beyond the number that is tracked.',
    (stats) => stats.decoder.refusedDatagrams,
  ],
  [
    'flowledger_collector_disallowed_datagrams_total',
    'Datagrams of exporters that are not in collector.exporters_allow, dropped before anything else.',
    (stats) => stats.disallowed.datagrams,
  ],
  [
    'flowledger_collector_lost_sessions_total',
    "Transport sessions that did not end by their exporter's close, each a doubt in the balance.",
    (stats) => stats.lostSessions,
  ],
  ['flowledger_collector_duplicate_datagrams_total', 'Datagrams that the network delivered again.', (stats) => stats.decoder.duplicateDatagrams],
  [
    'flowledger_collector_early_dropped_datagrams_total',
    "Datagrams dropped before the exporters' positions were restored.",
    (stats) => stats.earlyDropped,
  ],
  ['flowledger_collector_undecodable_sets_total', 'Data sets whose template did not come in time.', (stats) => stats.decoder.undecodableSets],
  ['flowledger_collector_malformed_sets_total', 'Sets, and samples of sFlow, that do not parse.', (stats) => stats.decoder.malformedSets],
  ['flowledger_collector_counter_samples_total', 'Counter samples of sFlow; they are not read.', (stats) => stats.decoder.counterSamples],
  [
    'flowledger_collector_discarded_packet_samples_total',
    'Packets that agents of sFlow report as discarded; they are no traffic.',
    (stats) => stats.decoder.discardedPackets,
  ],
  ['flowledger_collector_templates_total', 'Templates learnt.', (stats) => stats.decoder.templates],
  ['flowledger_collector_refused_templates_total', 'Templates refused.', (stats) => stats.decoder.refusedTemplates],
  [
    'flowledger_collector_refused_samplers_total',
    'Announcements of the sampling rate of a sampler or an interface that found no room.',
    (stats) => stats.decoder.refusedSamplers,
  ],
  ['flowledger_collector_withdrawn_templates_total', 'Templates withdrawn by their exporter.', (stats) => stats.decoder.withdrawnTemplates],
  ['flowledger_collector_expired_templates_total', 'Templates that were not repeated in time.', (stats) => stats.decoder.expiredTemplates],
  [
    'flowledger_collector_recalled_templates_total',
    'Templates and states of options that an earlier process kept in the store, taken up again.',
    (stats) => stats.decoder.recalledTemplates,
  ],
  [
    'flowledger_collector_saved_templates_total',
    'Templates and states of options written to the store for the next process.',
    (stats) => stats.decoder.savedTemplates,
  ],
  ['flowledger_collector_options_records_total', 'Options data records read.', (stats) => stats.decoder.optionsRecords],
  ['flowledger_collector_reverse_flows_total', "Of the decoded flows, those of a record's reverse direction.", (stats) => stats.decoder.reverseFlows],
  [
    'flowledger_collector_event_records_total',
    'Records of firewall and NAT events that count no traffic; they are no flows.',
    (stats) => stats.decoder.events,
  ],
  ['flowledger_collector_exporter_restarts_total', 'Restarts of exporters, by their sequence numbers.', (stats) => stats.decoder.exporterRestarts],
  ['flowledger_collector_stored_batches_total', 'Batches stored durably.', (stats) => stats.copying.storedBatches],
  ['flowledger_collector_stored_nars_total', 'NARs stored durably.', (stats) => stats.copying.storedNars],
  ['flowledger_collector_stored_bytes_total', 'Bytes of batches stored durably.', (stats) => stats.copying.storedBytes],
  ['flowledger_collector_volatile_batches_total', 'Batches kept in memory only, the store being away.', (stats) => stats.copying.volatileBatches],
  ['flowledger_collector_volatile_nars_total', 'NARs kept in memory only, the store being away.', (stats) => stats.copying.volatileNars],
  ['flowledger_collector_store_faults_total', 'Calls of the store that failed.', (stats) => stats.copying.storeFaults],
  ['flowledger_collector_store_mismatches_total', 'Times that the store did not end where the process left it.', (stats) => stats.copying.mismatches],
  ['flowledger_collector_refused_nars_total', 'NARs refused at the bound of the local copy, each reported as lost.', (stats) => stats.refusedNars],
  ['flowledger_collector_appends_total', 'Appends to the log that the broker confirmed.', (stats) => stats.sending.appends],
  ['flowledger_collector_appended_bytes_total', 'Bytes of batches in them, before compression.', (stats) => stats.sending.appendedBytes],
  ['flowledger_collector_confirmed_batches_total', 'Batches that the broker confirmed, re-sends included.', (stats) => stats.ledger.confirmedBatches],
  ['flowledger_collector_confirmed_nars_total', 'NARs that the broker confirmed, re-sends included.', (stats) => stats.ledger.confirmedNars],
  ['flowledger_collector_resends_total', 'Times that a missing batch and all after it were sent again.', (stats) => stats.ledger.resends],
  ['flowledger_collector_tombstones_total', 'Tombstones sent for batches that are no longer held.', (stats) => stats.ledger.tombstones],
  [
    'flowledger_collector_released_batches_total',
    'Batches released at the bound before both aggregators acknowledged them.',
    (stats) => stats.ledger.releasedBatches,
  ],
  [
    'flowledger_collector_released_nars_total',
    'NARs released at the bound before both aggregators acknowledged them.',
    (stats) => stats.ledger.releasedNars,
  ],
  [
    'flowledger_collector_trimmed_batches_total',
    'Batches discarded, both aggregators having acknowledged them.',
    (stats) => stats.ledger.trimmedBatches,
  ],
  ['flowledger_collector_trimmed_nars_total', 'NARs discarded, both aggregators having acknowledged them.', (stats) => stats.ledger.trimmedNars],
  ['flowledger_collector_gone_batches_total', 'Batches that the store lost.', (stats) => stats.ledger.goneBatches],
  ['flowledger_collector_acks_total', 'Acknowledgments read.', (stats) => stats.listening.acks],
  ['flowledger_collector_undecodable_acks_total', 'Records of acks and health that cannot be read.', (stats) => stats.listening.undecodable],
  ['flowledger_collector_read_faults_total', 'Reads of acks and health that failed.', (stats) => stats.listening.faults],
  ['flowledger_collector_health_reports_total', 'Health records written.', (stats) => stats.reporting.reports],
  ['flowledger_collector_health_faults_total', 'Health records that could not be written.', (stats) => stats.reporting.faults],
];

const gauges: readonly (readonly [name: string, help: string, read: Read])[] = [
  ['flowledger_collector_exporters', 'Exporters that are known, per observation domain and protocol.', (stats) => stats.decoder.exporters],
  ['flowledger_collector_waiting_sets', 'Data sets that wait for their template.', (stats) => stats.decoder.waitingSets],
  ['flowledger_collector_waiting_bytes', 'Bytes of data sets that wait for their template.', (stats) => stats.decoder.waitingBytes],
  ['flowledger_collector_pending_nars', 'NARs decoded and not yet in the local copy.', (stats) => stats.pendingNars],
  ['flowledger_collector_copy_batches', 'Batches in the local copy.', (stats) => stats.figures.batches],
  ['flowledger_collector_copy_nars', 'NARs in the local copy.', (stats) => stats.figures.nars],
  ['flowledger_collector_copy_max_bytes', 'The bound of the local copy, where it is now.', (stats) => stats.bytesMax],
  ['flowledger_collector_copy_durable', '1 when the local copy is on disk with every write.', (stats) => Number(stats.durable)],
  ['flowledger_collector_copy_in_memory', '1 while the store is away and the local copy is in memory.', (stats) => Number(stats.store === 'memory')],
  [
    'flowledger_collector_copy_oldest_timestamp_seconds',
    'When the oldest batch of the local copy was cut; 0 when it is empty.',
    (stats) => stats.figures.oldestMs / 1000,
  ],
  ['flowledger_collector_copy_streams', 'Streams of incarnations and partitions in the local copy.', (stats) => stats.streams],
  ['flowledger_collector_unconfirmed_nars', 'NARs in the local copy that the broker has not confirmed.', (stats) => stats.figures.unconfirmedNars],
  ['flowledger_collector_broker_there', '1 while batches can be sent.', (stats) => Number(stats.brokerThere)],
  ['flowledger_collector_ready', '1 when the collector does all of its work.', (stats) => Number(stats.ready)],
];

export function registerMetrics(metrics: Metrics, collector: Collector, receivers: () => Receivers): void {
  const stats = () => collector.stats();
  registerReceiving(metrics, receivers);
  for (const [name, help, read] of counters) metrics.counter(name, help, [], () => [[{}, read(stats())]]);
  for (const [name, help, read] of gauges) metrics.gauge(name, help, [], () => [[{}, read(stats())]]);
  metrics.counter(
    'flowledger_collector_ignored_templates_total',
    'Templates and states of options that an earlier process kept, ignored: corrupt, expired, of an exporter that restarted since, or refused.',
    ['reason'],
    () => Object.entries(stats().decoder.ignoredTemplates).map(([reason, count]) => [{ reason }, count]),
  );
  metrics.counter('flowledger_collector_append_faults_total', 'Appends that failed, by what must happen next.', ['reason'], () =>
    Object.entries(stats().sending.faults).map(([reason, count]) => [{ reason }, count]),
  );
  metrics.gauge('flowledger_collector_copy_bytes', 'Bytes of the local copy, by where they are.', ['store'], () => [
    [{ store: 'redis' }, stats().bytes.store],
    [{ store: 'memory' }, stats().bytes.memory],
  ]);
  metrics.gauge('flowledger_collector_unacknowledged_nars', 'NARs in the local copy that a replica has not acknowledged.', ['replica'], () =>
    replicas.map((replica) => [{ replica }, stats().figures.unacknowledgedNars[replica]]),
  );
  metrics.gauge('flowledger_collector_suspicions', "Partitions in which a replica's acknowledgments stay out.", ['replica'], () =>
    replicas.map((replica) => [{ replica }, stats().suspicions.filter((suspicion) => suspicion.replica === replica).length]),
  );
}

function registerReceiving(metrics: Metrics, receivers: () => Receivers): void {
  const sockets = () => receivers().udp?.figures() ?? [];
  const sessions = () => receivers().sessions.map((receiver) => receiver.figures());
  metrics.counter(
    'flowledger_collector_kernel_dropped_datagrams_total',
    'Datagrams that the kernel dropped, the receive buffer of the socket being full; absent where the kernel does not tell.',
    ['listen'],
    () => sockets().flatMap(({ listen, drops }) => (drops === null ? [] : [[{ listen }, drops] as const])),
  );
  metrics.gauge('flowledger_collector_receive_buffer_bytes', 'The receive buffer that the kernel gives the socket.', ['listen'], () =>
    sockets().map(({ listen, receiveBuffer }) => [{ listen }, receiveBuffer]),
  );
  metrics.gauge('flowledger_collector_connections', 'Connections that are open, handshakes included.', ['transport'], () =>
    sessions().map(({ transport, open }) => [{ transport }, open]),
  );
  metrics.gauge(
    'flowledger_collector_paused_connections',
    'Connections that are not read, since the collector cannot take more: their exporters wait.',
    ['transport'],
    () => sessions().map(({ transport, paused }) => [{ transport }, paused]),
  );
  metrics.counter('flowledger_collector_connections_total', 'Connections accepted.', ['transport'], () =>
    sessions().map(({ transport, accepted }) => [{ transport }, accepted]),
  );
  metrics.counter(
    'flowledger_collector_refused_connections_total',
    'Connections refused: disallowed (not in collector.exporters_allow), full (too many), tls (no good certificate, or no handshake in time).',
    ['transport', 'reason'],
    () => sessions().flatMap(({ transport, refused }) => Object.entries(refused).map(([reason, count]) => [{ transport, reason }, count] as const)),
  );
  metrics.counter(
    'flowledger_collector_ended_sessions_total',
    'Transport sessions that ended: closed by the exporter, cut, idle, slow, version or length (not IPFIX), or stopped with the collector.',
    ['transport', 'reason'],
    () => sessions().flatMap(({ transport, ended }) => Object.entries(ended).map(([reason, count]) => [{ transport, reason }, count] as const)),
  );
}
