/** Two requests in our own encoding: Fetch, to decode records ourselves, and a Metadata new enough to tell a topic's id. */
import { createErrorFromCode, type ProtocolRequest } from './client.ts';
import { compactLength, encoded, OctetReader, OctetWriter } from './octets.ts';
import type { AbortedTransaction } from './records.ts';

export interface FetchPosition {
  readonly topic: string;
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
 * Fetch (version 11) => replica_id max_wait_ms min_bytes max_bytes isolation_level session_id session_epoch [topics] [forgotten] rack_id
 *   topics => topic [partition current_leader_epoch fetch_offset log_start_offset partition_max_bytes]
 */
export function fetchRequest(positions: readonly FetchPosition[], options: FetchOptions): ProtocolRequest<PartitionResponse[]> {
  const writer = new OctetWriter().int32(-1).int32(options.maxWaitMs).int32(1).int32(options.maxBytes);
  writer
    .int8(options.committed ? 1 : 0)
    .int32(0)
    .int32(-1)
    .int32(positions.length);
  for (const { topic, partition, offset } of positions) {
    writer.string(topic).int32(1).int32(partition).int32(-1).int64(offset).int64(-1).int32(options.partitionBytesMax);
  }
  const bytes = writer.int32(0).string('').bytes();
  return {
    request: { apiKey: 1, apiVersion: 11, apiName: 'Fetch', encode: async () => encoded(bytes) },
    response: { decode: async (payload) => decodeFetch(payload), parse: async (decoded: PartitionResponse[]) => decoded },
  };
}

/**
 * responses => topic [partition error_code high_watermark last_stable_offset log_start_offset [producer_id first_offset]
 *   preferred_replica records]
 */
function decodeFetch(payload: Buffer): PartitionResponse[] {
  const errorCode = payload.readInt16BE(4);
  if (errorCode !== 0) throw createErrorFromCode(errorCode);
  const partitions: PartitionResponse[] = [];
  let at = 14;
  for (let topics = payload.readInt32BE(10); topics > 0; topics--) {
    const nameLength = payload.readInt16BE(at);
    const topic = payload.toString('utf8', at + 2, at + 2 + nameLength);
    at += 2 + nameLength;
    let count = payload.readInt32BE(at);
    for (at += 4; count > 0; count--) {
      const head = at;
      const aborted: AbortedTransaction[] = [];
      const transactions = payload.readInt32BE(head + 30);
      at = head + 34;
      for (let i = 0; i < transactions; i++, at += 16) {
        aborted.push({ producerId: payload.readBigInt64BE(at).toString(), firstOffset: Number(payload.readBigInt64BE(at + 8)) });
      }
      const length = Math.max(0, payload.readInt32BE(at + 4));
      partitions.push({
        topic,
        partition: payload.readInt32BE(head),
        errorCode: payload.readInt16BE(head + 4),
        endOffset: Number(payload.readBigInt64BE(head + 6)),
        startOffset: Number(payload.readBigInt64BE(head + 22)),
        aborted,
        records: payload.subarray(at + 8, at + 8 + length),
      });
      at += 8 + length;
    }
  }
  return partitions;
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
