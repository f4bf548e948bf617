/**
 * The ledger's tables. Names without `_rows` are the contract with whoever queries the ledger (docs/JSON.md): positions, windows, aggregates,
 * corrections, exporter_balance, samples_5m, coverage_5m, buckets_5m. Tables are STRICT, so that a sum beyond 2^63 is an error and never a rounded
 * number.
 */

/** Kept in user_version; a ledger of another version is not touched. */
export const schemaVersion = 2;

/** Columns of exporter_balance that are sums, in order; names as in the ExporterBalance of a WindowClose. */
export const exporterSums = [
  'received_datagrams',
  'undecodable_datagrams',
  'duplicate_datagrams',
  'lost_on_wire_flows',
  'lost_on_wire_datagrams',
  'undecodable_flows',
  'decoded_flows',
  'decoded_bytes',
  'decoded_packets',
  'aggregated_flows',
  'aggregated_bytes',
  'aggregated_packets',
  'late_flows',
  'late_bytes',
  'late_packets',
  'rejected_flows',
  'rejected_bytes',
  'rejected_packets',
  'lost_flows',
  'lost_bytes',
  'lost_packets',
] as const;

/** Columns of windows that stand in a WindowClose under the same name. */
export const closeColumns = [
  'window_start_ms',
  'window_end_ms',
  'window_ms',
  'watermark_ms',
  'nars_offset',
  'fold_config_version',
  'usage_aggregates',
  'usage_flows',
  'usage_bytes',
  'usage_packets',
  'adjustment_aggregates',
  'adjustment_flows',
  'adjustment_bytes',
  'adjustment_packets',
  'open_flows',
  'open_bytes',
  'open_packets',
  'lost_on_wire_flows',
  'lost_on_wire_datagrams',
  'lost_flows',
  'clamped_flows',
  'unsampled_flows',
  'doubts',
] as const;

const integers = (names: readonly string[]) => names.map((name) => `${name} INTEGER NOT NULL`).join(',\n  ');

export const schema = `
CREATE TABLE positions (
  partition INTEGER PRIMARY KEY,
  n INTEGER NOT NULL,
  chain BLOB NOT NULL,
  topic_id TEXT NOT NULL,
  next_offset INTEGER NOT NULL,
  close_n INTEGER NOT NULL,
  window_end_ms INTEGER NOT NULL,
  watermark_ms INTEGER NOT NULL,
  open_flows INTEGER NOT NULL,
  open_bytes INTEGER NOT NULL,
  open_packets INTEGER NOT NULL,
  doubts INTEGER NOT NULL
) STRICT;

CREATE TABLE group_rows (
  group_id INTEGER PRIMARY KEY,
  fields TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE group_field_rows (
  position INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE aggregate_rows (
  partition INTEGER NOT NULL,
  n INTEGER NOT NULL,
  chain BLOB NOT NULL,
  kind TEXT NOT NULL,
  window_start_ms INTEGER NOT NULL,
  window_end_ms INTEGER NOT NULL,
  group_id INTEGER NOT NULL,
  flows INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  packets INTEGER NOT NULL,
  scaled_bytes INTEGER NOT NULL,
  scaled_packets INTEGER NOT NULL,
  PRIMARY KEY (partition, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX aggregate_rows_by_window ON aggregate_rows (window_start_ms);

CREATE VIEW aggregates AS
SELECT partition, n, chain, kind, window_start_ms, window_end_ms, fields,
  json_extract(fields, '$.src_account') AS src_account, json_extract(fields, '$.dst_account') AS dst_account,
  flows, bytes, packets, scaled_bytes, scaled_packets
FROM aggregate_rows JOIN group_rows USING (group_id);

CREATE TABLE windows (
  partition INTEGER NOT NULL,
  n INTEGER NOT NULL,
  chain BLOB NOT NULL,
  closed INTEGER NOT NULL,
  disagreements TEXT NOT NULL,
  collectors TEXT NOT NULL,
  ${integers(closeColumns)},
  PRIMARY KEY (partition, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX windows_not_closed ON windows (partition, window_start_ms) WHERE closed = 0;

CREATE TABLE corrections (
  correction_id INTEGER PRIMARY KEY,
  partition INTEGER NOT NULL,
  from_n INTEGER NOT NULL,
  last_n INTEGER NOT NULL,
  replaced_chain BLOB NOT NULL,
  chain BLOB NOT NULL,
  records INTEGER NOT NULL
) STRICT;
CREATE INDEX corrections_by_last_n ON corrections (partition, last_n);

CREATE TABLE exporter_balance (
  sampler_address TEXT NOT NULL,
  observation_domain_id INTEGER NOT NULL,
  protocol TEXT NOT NULL,
  partition INTEGER NOT NULL,
  ${integers(exporterSums)},
  PRIMARY KEY (sampler_address, observation_domain_id, protocol, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE sample_rows (
  account TEXT NOT NULL,
  direction TEXT NOT NULL,
  start_ms INTEGER NOT NULL,
  flows INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  packets INTEGER NOT NULL,
  scaled_bytes INTEGER NOT NULL,
  scaled_packets INTEGER NOT NULL,
  PRIMARY KEY (account, direction, start_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE coverage_5m (
  start_ms INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  covered_ms INTEGER NOT NULL,
  closed_ms INTEGER NOT NULL,
  unheard_ms INTEGER NOT NULL,
  collectors TEXT NOT NULL,
  collectors_throughout TEXT NOT NULL,
  lost_on_wire_flows INTEGER NOT NULL,
  lost_on_wire_datagrams INTEGER NOT NULL,
  lost_flows INTEGER NOT NULL,
  clamped_flows INTEGER NOT NULL,
  unsampled_flows INTEGER NOT NULL,
  doubts INTEGER NOT NULL,
  PRIMARY KEY (start_ms, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE buckets_5m (
  start_ms INTEGER PRIMARY KEY,
  complete INTEGER NOT NULL,
  reasons TEXT NOT NULL,
  collectors TEXT NOT NULL,
  lost_on_wire_flows INTEGER NOT NULL,
  lost_on_wire_datagrams INTEGER NOT NULL,
  lost_flows INTEGER NOT NULL,
  doubts INTEGER NOT NULL
) STRICT;

CREATE VIEW samples_5m AS
SELECT account, direction, start_ms, flows, bytes, packets, scaled_bytes, scaled_packets,
  coalesce(complete, 0) AS complete,
  coalesce(reasons, '["no window of it is closed"]') AS reasons,
  coalesce(collectors, '[]') AS collectors,
  coalesce(lost_on_wire_flows, 0) AS lost_on_wire_flows,
  coalesce(lost_on_wire_datagrams, 0) AS lost_on_wire_datagrams,
  coalesce(lost_flows, 0) AS lost_flows,
  coalesce(doubts, 0) AS doubts
FROM sample_rows LEFT JOIN buckets_5m USING (start_ms);

PRAGMA user_version = ${schemaVersion};
`;
