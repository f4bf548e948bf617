/** Two requests in our own encoding: Fetch, by topic id and to decode records ourselves, and a Metadata new enough to tell that id. */
import { createErrorFromCode, type ProtocolRequest } from './client.ts';
import { compactLength, encoded, OctetReader, OctetWriter } from './octets.ts';
import type { AbortedTransaction } from './records.ts';

export interface FetchPosition {
  readonly topic: string;
  /** In hexadecimal: by name, a reader would not notice that the topic is another one. */
  readonly topicId: string;
  readonly partition: number;
  readonly offset: number;
}

export interface FetchOptions {
  readonly maxWaitMs: number;
  readonly maxBytes: number;
  readonly partitionBytesMax: number;
  readonly committed: boolean;
}

export interface PartitionResponse {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  readonly endOffset: number;
  readonly startOffset: number;
  readonly aborted: readonly AbortedTransaction[];
  readonly records: Buffer;
}

/**
 * Fetch (version 13, flexible) => replica_id max_wait_ms min_bytes max_bytes isolation_level session_id session_epoch [topics] [forgotten] rack_id
 *   tags
 *   topics => topic_id [partition current_leader_epoch fetch_offset last_fetched_epoch log_start_offset partition_max_bytes tags] tags
 * The client writes the header of older versions, so its closing tag octet opens our body.
 */
export function fetchRequest(positions: readonly FetchPosition[], options: FetchOptions): ProtocolRequest<PartitionResponse[]> {
  const writer = new OctetWriter().int8(0).int32(-1).int32(options.maxWaitMs).int32(1).int32(options.maxBytes);
  writer
    .int8(options.committed ? 1 : 0)
    .int32(0)
    .int32(-1)
    .octets(compactLength(positions.length));
  for (const { topicId, partition, offset } of positions) {
    writer.octets(Buffer.from(topicId, 'hex')).octets(compactLength(1));
    writer.int32(partition).int32(-1).int64(offset).int32(-1).int64(-1).int32(options.partitionBytesMax).int8(0).int8(0);
  }
  const bytes = writer.octets(compactLength(0)).octets(compactLength(0)).int8(0).bytes();
  const names = new Map(positions.map(({ topicId, topic }) => [topicId, topic]));
  return {
    request: { apiKey: 1, apiVersion: 13, apiName: 'Fetch', encode: async () => encoded(bytes) },
    response: { decode: async (payload) => decodeFetch(payload, names), parse: async (decoded: PartitionResponse[]) => decoded },
  };
}

/**
 * tags throttle_time_ms error_code session_id [responses] tags
 *   responses => topic_id [partition error_code high_watermark last_stable_offset log_start_offset [producer_id first_offset tags]
 *     preferred_replica records tags] tags
 */
function decodeFetch(payload: Buffer, names: ReadonlyMap<string, string>): PartitionResponse[] {
  const reader = new OctetReader(payload);
  reader.skipTags();
  reader.skip(4);
  const errorCode = reader.int16();
  if (errorCode !== 0) throw createErrorFromCode(errorCode);
  reader.skip(4);
  const partitions: PartitionResponse[] = [];
  for (let topics = reader.compactCount(); topics > 0; topics--) {
    const topic = names.get(reader.take(16).toString('hex')) ?? '';
    for (let count = reader.compactCount(); count > 0; count--) partitions.push(decodePartition(reader, topic));
    reader.skipTags();
  }
  return partitions;
}

function decodePartition(reader: OctetReader, topic: string): PartitionResponse {
  const [partition, errorCode, endOffset] = [reader.int32(), reader.int16(), reader.int64()];
  reader.skip(8);
  const startOffset = reader.int64();
  const aborted: AbortedTransaction[] = [];
  for (let transactions = reader.compactCount(); transactions > 0; transactions--) {
    aborted.push({ producerId: reader.take(8).readBigInt64BE().toString(), firstOffset: reader.int64() });
    reader.skipTags();
  }
  reader.skip(4);
  const records = reader.take(reader.compactCount());
  reader.skipTags();
  return { topic, partition, errorCode, endOffset, startOffset, aborted, records };
}

export interface TopicMetadata {
  readonly topicId: string;
  readonly partitions: number;
}

/**
 * Metadata (version 12, flexible: tagged fields end header, structures and body) =>
 *   [topic_id name] allow_auto_topic_creation include_topic_authorized_operations
 * The client writes the header of older versions, so its closing tag octet opens our body.
 */
export function metadataRequest(topic: string): ProtocolRequest<TopicMetadata> {
  const name = Buffer.from(topic);
  const body = Buffer.concat([Buffer.from([0, 2]), Buffer.alloc(16), compactLength(name.length), name, Buffer.from([0, 0, 0, 0])]);
  return {
    request: { apiKey: 3, apiVersion: 12, apiName: 'Metadata', encode: async () => encoded(body) },
    response: { decode: async (payload) => decodeMetadata(payload), parse: async (decoded: TopicMetadata) => decoded },
  };
}

/**
 * tags throttle_time_ms [node_id host port rack tags] cluster_id controller_id
 *   [error_code name topic_id is_internal [partitions] operations tags] tags
 * Partitions are only counted, so reading ends at their number.
 */
function decodeMetadata(payload: Buffer): TopicMetadata {
  const reader = new OctetReader(payload);
  reader.skipTags();
  reader.skip(4);
  for (let brokers = reader.compactCount(); brokers > 0; brokers--) {
    reader.skip(4);
    reader.compactText();
    reader.skip(4);
    reader.compactText();
    reader.skipTags();
  }
  reader.compactText();
  reader.skip(4);
  if (reader.compactCount() !== 1) throw new Error('the broker did not answer for the topic');
  const errorCode = reader.int16();
  if (errorCode !== 0) throw createErrorFromCode(errorCode);
  reader.compactText();
  const topicId = reader.take(16).toString('hex');
  reader.skip(1);
  return { topicId, partitions: reader.compactCount() };
}
