/** Written by schemas/generate.ts from the .avsc files; not to be edited. */

export interface IncarnationSequence {
  incarnation: string;
  sequence: number;
}

/** A replica says what it has folded of a collector's batches in one partition, its outputs up to there read back. */
export interface Ack {
  /** a or b. */
  replica: string;
  collector: string;
  partition: number;
  topic_id: string;
  /** Offset of the next record of nars to fold. */
  folded_offset: number;
  /** Each incarnation of the collector that the fold knows; one that is not named stands at 0. */
  sequences: IncarnationSequence[];
  at_ms: number;
}

/** The newest snapshot of a partition that both replicas hold, read back from both topics: the same offset, n, chain and state. What lies before it may be cut. */
export interface Agreement {
  partition: number;
  /** Of nars; of several records of one topic id the one with the highest offset counts. */
  topic_id: string;
  /** The next offset of nars to fold on this state. */
  offset: number;
  n: number;
  chain: Uint8Array;
  /** SHA-256 of the whole state. */
  digest: Uint8Array;
  /** When the judge read it back from both. */
  at_ms: number;
}

/** From this record on the named replica feeds accounting with a partition's outputs. */
export interface Election {
  partition: number;
  /** Counts the elections of the partition; only a higher one than the last counts. */
  epoch: number;
  /** a or b. */
  leader: string;
  /** The leader before; empty at the first election. */
  previous: string;
  /** initial, silent, stalled, suspected, stopping, stopped, quarantined, drill or operator. */
  reason: string;
  /** What was seen, in words and figures. */
  evidence: string;
  watchdog: string;
  at_ms: number;
}

export interface FoldCounts {
  accepted: number;
  duplicate: number;
  gap: number;
  before_base: number;
  rejected: number;
  /** Configurations with another version than the next, or that cannot be folded with. */
  ignored_configs: number;
}

export interface IncarnationState {
  incarnation: string;
  sequence: number;
  first_watermark_ms: number;
  highest_watermark_ms: number;
  goodbye: boolean;
  volatile: boolean;
}

export interface CollectorState {
  name: string;
  incarnations: IncarnationState[];
}

export interface GroupState {
  group: GroupField[];
  flows: number;
  bytes: bigint;
  packets: bigint;
  scaled_bytes: bigint;
  scaled_packets: bigint;
}

export interface ExporterState {
  sampler_address: string;
  observation_domain_id: number;
  protocol: string;
  flows: number;
  bytes: bigint;
  packets: bigint;
}

export interface WindowState {
  start_ms: number;
  end_ms: number;
  groups: GroupState[];
  exporters: ExporterState[];
  lost_on_wire_flows: number;
  lost_on_wire_datagrams: number;
  lost_flows: number;
  clamped_flows: number;
  unsampled_flows: number;
}

/** The state of a partition's fold, canonical: equal states have equal bytes. All arrays but those of a group are sorted by their keys. */
export interface FoldState {
  partition: number;
  /** Of nars. */
  next_offset: number;
  n: number;
  chain: Uint8Array;
  has_base: boolean;
  config: null | FoldConfig;
  /** null before the first. */
  watermark_ms: null | number;
  /** End of the last closed window; null before the first watermark. */
  closed_through_ms: null | number;
  /** Losses of unknown size that collectors reported. */
  unknown_losses: number;
  /** Records of the log by what became of them. */
  counts: FoldCounts;
  collectors: CollectorState[];
  /** Windows not closed yet. */
  open: WindowState[];
  /** Adjustments not given out yet, by the closed window that they belong to. */
  late: WindowState[];
  /** The balance since the last WindowClose. */
  exporters: ExporterBalance[];
}

export interface PartitionHealth {
  partition: number;
  /** Aggregator: the next offset of nars to fold. Feed, accounting: the next n is n + 1. */
  next_offset: number;
  end_offset: number;
  /** Append time of the log's end less that of the last record taken, both from the log; 0 when nothing is left. */
  lag_ms: number;
  /** Aggregator: highest n read back. Feed: last n emitted. Accounting: last n booked. */
  n: number;
  chain: Uint8Array;
  watermark_ms: number;
  open_flows: number;
  /** running, starting, stopped, held or standby; of an aggregator also disputed (it and its own output topic differ: it waits for the judge) or quarantined. */
  state: string;
  detail: string;
}

export interface Suspicion {
  replica: string;
  partition: number;
  since_ms: number;
}

export interface ExporterHolding {
  /** Empty where it is not known. */
  sampler_address: string;
  observation_domain_id: number;
  protocol: string;
  nars: number;
}

export interface LocalCopy {
  /** redis or memory. */
  store: string;
  durable: boolean;
  batches: number;
  nars: number;
  bytes: number;
  bytes_max: number;
  /** Not yet confirmed by the broker. */
  unconfirmed_nars: number;
  unacknowledged_a_nars: number;
  unacknowledged_b_nars: number;
  /** Watermark of the oldest batch; 0 when empty. */
  oldest_ms: number;
  /** Since the process started. */
  received_datagrams: number;
  /** Since the process started. */
  decoded_flows: number;
  /** Decoded and not yet in the local copy. */
  pending_nars: number;
  /** Whose nars they are, those of which most is held; the rest is of others. */
  exporters: ExporterHolding[];
}

/** A service says how it is, several times a second. */
export interface Health {
  /** collector, aggregator, watchdog, feed, judge or accounting. */
  role: string;
  /** Name of the collector, a or b for an aggregator, else the service's own. */
  id: string;
  /** Of the process. */
  incarnation: string;
  at_ms: number;
  started_ms: number;
  ready: boolean;
  /** True on the last record before a clean stop. */
  stopping: boolean;
  /** Why it is not ready, or degraded; each names the remedy. */
  reasons: string[];
  partitions: PartitionHealth[];
  /** Collector: acknowledgments that stay out. */
  suspicions: Suspicion[];
  /** Collector: its local copy. */
  copy: null | LocalCopy;
}

export interface ExporterReport {
  /** Address of the exporter, as text. */
  sampler_address: string;
  observation_domain_id: number;
  /** netflow_v5, netflow_v7, netflow_v9, ipfix or sflow_v5. */
  protocol: string;
  received_datagrams: number;
  /** Datagrams of which nothing could be decoded: malformed, or all sets without a template that came in time. */
  undecodable_datagrams: number;
  /** Datagrams that the network delivered again; counted as received and dropped. */
  duplicate_datagrams: number;
  /** Flows missing by the exporter's own sequence (NetFlow v5, IPFIX), or samples (sFlow); negative when a late datagram fills a gap. */
  lost_on_wire_flows: number;
  /** Datagrams missing by the exporter's own sequence (NetFlow v9, sFlow); may be negative, too. */
  lost_on_wire_datagrams: number;
  /** Data records that were received in sets without a template, as far as the sequence tells (IPFIX). */
  undecodable_flows: number;
  /** NARs of this exporter in this batch, and its rejected data records. Lost NARs are not in it: the fold counts each Loss as decoded and as lost. */
  decoded_flows: number;
  decoded_bytes: bigint;
  decoded_packets: bigint;
  /** Data records whose counters are implausible (2^53 or more), and samples that do not tell a packet's length: no NAR, counted as decoded with 0 bytes. */
  rejected_flows: number;
}

export interface Loss {
  /** store_full, memory_full, store_lost, released, refused_by_broker, volatile_ended or session_lost. */
  reason: string;
  /** Empty where it is not known. */
  sampler_address: string;
  observation_domain_id: number;
  protocol: string;
  nars: number;
  bytes: bigint;
  packets: bigint;
  /** True when the size is not known: a doubt in the balance. */
  unknown: boolean;
}

export interface AccountPrefix {
  /** Such as 198.51.100.0/24 or 2001:db8::/32; the longest match wins. */
  prefix: string;
  account: string;
}

export interface FoldConfig {
  /** Counts the configurations, 1, 2, 3 ... */
  version: number;
  /** The arithmetic of the fold; a replica that does not know it stops. */
  fold_version: number;
  partitions: number;
  /** Divides 300000. */
  window_ms: number;
  /** Taken off every collector's clock. */
  lateness_ms: number;
  /** An incarnation further than this behind the furthest one no longer holds the watermark. */
  live_within_ms: number;
  /** A flow end more than this before its reception is clamped to it. */
  past_ms_max: number;
  /** A flow end more than this after its reception is clamped to it. */
  future_ms_max: number;
  /** A snapshot is due at log offsets that this number divides. */
  snapshot_every: number;
  /** Field names: src_account, dst_account, or names of NAR and exporter fields. */
  group_by: string[];
  /** scaled: counters times sampling_rate in the scaled totals; raw: scaled totals equal the raw ones. */
  sampling: string;
  /** Spread a flow over the windows it spans, in integer shares that add up. */
  spread: boolean;
  /** none: each observation counts. */
  deduplication: string;
  accounts: AccountPrefix[];
}

export interface SnapshotName {
  replica: string;
  topic_id: string;
  offset: number;
  n: number;
  chain: Uint8Array;
}

export interface Base {
  /** null: the empty state, which is right for the first log. */
  snapshot: null | SnapshotName;
}

/** Empty octets and 0 are values that are not said, unless a field says otherwise. */
export interface NarDetails {
  /** 6 octets. */
  src_mac: Uint8Array;
  dst_mac: Uint8Array;
  /** Label stack, top first; 3 octets each: label (20 bits), traffic class (3), bottom of stack (1). */
  mpls_labels: Uint8Array;
  /** After translation: 4 or 16 octets. */
  nat_src_addr: Uint8Array;
  nat_dst_addr: Uint8Array;
  /** 4 or 16 octets. */
  bgp_next_hop: Uint8Array;
  /** Classification engine in the first octet, selector in the others (RFC 6759). */
  application_id: Uint8Array;
  /** VLAN as received; of two tags the outer one. */
  src_vlan: number;
  /** VLAN as sent. */
  dst_vlan: number;
  /** The inner one of two tags. */
  customer_vlan: number;
  nat_src_port: number;
  nat_dst_port: number;
  /** -1 where it is not said, or the flow is no ICMP. */
  icmp_type: number;
  icmp_code: number;
  ingress_vrf: number;
  egress_vrf: number;
  /** Upper two bits: 1 forwarded, 2 dropped, 3 consumed; lower six: the reason (RFC 7270). */
  forwarding_status: number;
}

/** One network accounting record. sampler_address and observation_domain_id are those of exporters[exporter]. */
export interface Nar {
  /** Index into exporters. */
  exporter: number;
  /** 4 or 16 octets in network order; empty where the record has none. */
  src_addr: Uint8Array;
  dst_addr: Uint8Array;
  src_port: number;
  dst_port: number;
  proto: number;
  /** As exported, before any correction for sampling. */
  bytes: number;
  packets: number;
  tcp_flags: number;
  ip_tos: number;
  in_if: number;
  out_if: number;
  src_as: number;
  dst_as: number;
  /** Prefix length. */
  src_net: number;
  dst_net: number;
  next_hop: Uint8Array;
  /** 0 ingress, 1 egress, 255 not said (RFC 5102 element 61). */
  flow_direction: number;
  /** 1 in so many packets; 0 where the exporter has not said. */
  sampling_rate: number;
  /** Unix time in ms. */
  time_flow_start_ms: number;
  time_flow_end_ms: number;
  time_received_ms: number;
  /** What only some exporters say; null where this one says none of it. */
  details: null | NarDetails;
}

/** One message of topic nars: network accounting records of one partition from one incarnation of a collector. */
export interface NarBatch {
  /** Name of the collector; names that begin with ~ are reserved for the administration commands. */
  collector: string;
  /** New at every start of a collector process, and whenever its store does not end where it left it. */
  incarnation: string;
  partition: number;
  /** 1, 2, 3 ... per (collector, incarnation, partition). */
  sequence: number;
  /** The last sequence that this batch stands for; more than sequence only in a tombstone. */
  through: number;
  /** The collector's clock when the batch was cut, Unix time in ms; the fold takes the allowed lateness off. */
  watermark_ms: number;
  /** True where the batches of this incarnation are held in memory only. */
  volatile: boolean;
  /** True on the last batch of an incarnation. */
  goodbye: boolean;
  /** The exporters that nars point into, each with what the collector counted for it since its last report. */
  exporters: ExporterReport[];
  losses: Loss[];
  /** A new configuration of the fold, in force from this record on. Only from the reserved collector ~admin. */
  fold_config: null | FoldConfig;
  /** The state that the fold of this log begins with; what lies before the first base entry is not folded. */
  base: null | Base;
  nars: Nar[];
}

/** One message of aggregates.a or aggregates.b: outputs of the fold of one partition, contiguous in n, cut by the fold itself. */
export interface OutputBlock {
  partition: number;
  /** n of the first output. */
  first_n: number;
  /** chain of output first_n - 1; 16 zero octets before the first. */
  previous_chain: Uint8Array;
  outputs: Output[];
}

export interface GroupField {
  name: string;
  value: string;
}

/** Usage of one group in one window. */
export interface Aggregate {
  /** usage: the window's own; adjustment: NARs that came after the window had closed, to be added. */
  kind: string;
  window_start_ms: number;
  window_end_ms: number;
  /** The grouping key: one entry for each group_by field, in its order. */
  group: GroupField[];
  flows: number;
  /** As exported. */
  bytes: bigint;
  packets: bigint;
  /** Corrected for sampling, where the rate is known. */
  scaled_bytes: bigint;
  scaled_packets: bigint;
}

export interface ExporterBalance {
  sampler_address: string;
  observation_domain_id: number;
  protocol: string;
  received_datagrams: number;
  undecodable_datagrams: number;
  duplicate_datagrams: number;
  lost_on_wire_flows: number;
  lost_on_wire_datagrams: number;
  undecodable_flows: number;
  decoded_flows: number;
  decoded_bytes: bigint;
  decoded_packets: bigint;
  aggregated_flows: number;
  aggregated_bytes: bigint;
  aggregated_packets: bigint;
  late_flows: number;
  late_bytes: bigint;
  late_packets: bigint;
  rejected_flows: number;
  rejected_bytes: bigint;
  rejected_packets: bigint;
  lost_flows: number;
  lost_bytes: bigint;
  lost_packets: bigint;
}

/** Ends the outputs of one window, or of a run of windows without usage; carries the sums that the ledger checks. */
export interface WindowClose {
  window_start_ms: number;
  /** More than one window after the start for a run of windows without usage. */
  window_end_ms: number;
  window_ms: number;
  watermark_ms: number;
  /** Offset in nars of the record that closed it. */
  nars_offset: number;
  fold_config_version: number;
  /** Aggregates of kind usage since the last WindowClose; all are of this window. */
  usage_aggregates: number;
  usage_flows: number;
  usage_bytes: bigint;
  usage_packets: bigint;
  /** Aggregates of kind adjustment since the last WindowClose; each names its own window. */
  adjustment_aggregates: number;
  adjustment_flows: number;
  adjustment_bytes: bigint;
  adjustment_packets: bigint;
  /** NARs accepted by the fold and in no output yet. */
  open_flows: number;
  open_bytes: bigint;
  open_packets: bigint;
  /** Coverage: collectors heard in this window, sorted. */
  collectors: string[];
  /** Coverage: flows lost on the wire that were noticed in this window. */
  lost_on_wire_flows: number;
  lost_on_wire_datagrams: number;
  /** Coverage: flows of Loss entries whose batch was cut in this window. */
  lost_flows: number;
  /** Coverage: flows of this window whose times were clamped. */
  clamped_flows: number;
  /** Coverage: flows of this window whose sampling rate is not known. */
  unsampled_flows: number;
  /** Losses of unknown size that stand at this point: volatile incarnations that ceased without a goodbye. */
  doubts: number;
  /** The balance: what was accepted and given out since the last WindowClose, per exporter, sorted; sums of all closes are exact together with open. */
  exporters: ExporterBalance[];
}

export interface Correction {
  /** True: takes back what was published as n; counters are those of then, negated, so that sums over all records come out right. False: what n is instead, with its chain. */
  retracts: boolean;
  /** 1 .. count. */
  index: number;
  /** Records of this correction. It counts as a whole. */
  count: number;
  /** The first n that is wrong. An n from here to last_n that no record of the correction names is right but for its chain. */
  from_n: number;
  /** The last n that was emitted before the correction; the next output is last_n + 1. */
  last_n: number;
  /** chain of last_n as it was published. */
  replaced_chain: Uint8Array;
  /** chain of last_n as it must be, which the next output continues. */
  chain: Uint8Array;
}

/** One output of the fold. One message of topic aggregates is one Output. */
export interface Output {
  partition: number;
  /** 1, 2, 3 ... per partition, without gap or repeat. */
  n: number;
  /** First 16 octets of SHA-256 over the Avro encoding of this record with the chain of n - 1 (16 zero octets before the first) in this field: a digest of the partition's whole history up to n. */
  chain: Uint8Array;
  /** Null in a WindowClose. */
  aggregate: null | Aggregate;
  /** Null in an aggregate. */
  window_close: null | WindowClose;
  /** Null in what the fold gives. Else this record is one of those that put right what was emitted of a replica that a fresh fold of the log has shown to be wrong: they stand behind the last wrong output, in one transaction, each with the n that it is about. */
  correction: null | Correction;
}

/** A piece of a partition's folded state; keyed (partition, offset, chunk). */
export interface SnapshotChunk {
  partition: number;
  /** Of nars. */
  topic_id: string;
  /** The next offset of nars to fold on this state. */
  offset: number;
  n: number;
  chain: Uint8Array;
  /** Of the value of the record of nars at offset - 1; empty when offset is 0. */
  record_digest: Uint8Array;
  chunk: number;
  chunks: number;
  /** SHA-256 of the whole state. */
  digest: Uint8Array;
  bytes: Uint8Array;
}

/** A third, fresh fold of the log has shown that a replica is wrong, or that replica has been repaired since. */
export interface Verdict {
  partition: number;
  /** a or b: the one that is judged. */
  replica: string;
  /** Counts the verdicts on this replica of the partition; only a higher one than the last counts. */
  epoch: number;
  /** quarantined or repaired. */
  state: string;
  /** Of the first output known to be wrong; a repaired replica has it right again. */
  n: number;
  /** What the replica gave for n; empty where its outputs are right and its state is not. */
  given_chain: Uint8Array;
  /** What the fresh fold gives for n. */
  judged_chain: Uint8Array;
  /** The other replica where it agrees with the fresh fold; empty where neither does. */
  sound: string;
  /** repaired: the offset in the replica's output topic at which its clean outputs begin; else -1. */
  begins: number;
  /** What was compared, in words and figures. */
  evidence: string;
  /** The judge; of a repair the replica itself. */
  author: string;
  at_ms: number;
}
