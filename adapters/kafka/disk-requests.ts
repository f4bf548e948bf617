/** Requests of our own that have to do with what a broker keeps: DeleteRecords, and a DescribeLogDirs new enough to tell the size of the disk. */
import { createErrorFromCode, type ProtocolRequest } from './client.ts';
import { encoded, OctetReader, OctetWriter } from './octets.ts';

/**
 * DeleteRecords (version 1) => [topic [partition offset]] timeout_ms
 *   throttle_time_ms [topic [partition low_watermark error_code]]
 */
export function deleteRecordsRequest(topic: string, partition: number, offset: number, timeoutMs: number): ProtocolRequest<object> {
  const bytes = new OctetWriter().int32(1).string(topic).int32(1).int32(partition).int64(offset).int32(timeoutMs).bytes();
  return {
    request: { apiKey: 21, apiVersion: 1, apiName: 'DeleteRecords', encode: async () => encoded(bytes) },
    response: { decode: async (payload) => requireDeleted(payload), parse: async (decoded: object) => decoded },
  };
}

/** The client notes something of its own in what is decoded, so that must be an object. */
function requireDeleted(payload: Buffer): object {
  const reader = new OctetReader(payload);
  reader.skip(4);
  if (reader.int32() !== 1) throw new Error('the broker did not answer for the topic');
  reader.skip(reader.int16());
  if (reader.int32() !== 1) throw new Error('the broker did not answer for the partition');
  reader.skip(12);
  const errorCode = reader.int16();
  if (errorCode !== 0) throw createErrorFromCode(errorCode);
  return {};
}

/** One directory in which a broker keeps logs; sizes in bytes, those of the disk null where the broker does not tell. */
export interface LogDirectory {
  readonly path: string;
  readonly logBytes: number;
  readonly totalBytes: number | null;
  readonly usableBytes: number | null;
}

/**
 * DescribeLogDirs (version 4, flexible) => [topics], null for all
 *   tags throttle_time_ms error_code [error_code log_dir [name [partition size lag is_future tags] tags] total_bytes usable_bytes tags] tags
 * The client writes the header of older versions, so its closing tag octet opens our body.
 */
export function logDirectoriesRequest(): ProtocolRequest<LogDirectory[]> {
  return {
    request: { apiKey: 35, apiVersion: 4, apiName: 'DescribeLogDirs', encode: async () => encoded(Buffer.from([0, 0, 0])) },
    response: { decode: async (payload) => decodeLogDirectories(payload), parse: async (decoded: LogDirectory[]) => decoded },
  };
}

function decodeLogDirectories(payload: Buffer): LogDirectory[] {
  const reader = new OctetReader(payload);
  reader.skipTags();
  reader.skip(4);
  const errorCode = reader.int16();
  if (errorCode !== 0) throw createErrorFromCode(errorCode);
  const directories: LogDirectory[] = [];
  for (let count = reader.compactCount(); count > 0; count--) {
    const failed = reader.int16() !== 0;
    const path = reader.compactText();
    let logBytes = 0;
    for (let topics = reader.compactCount(); topics > 0; topics--) {
      reader.compactText();
      for (let partitions = reader.compactCount(); partitions > 0; partitions--) {
        reader.skip(4);
        logBytes += reader.int64();
        reader.skip(9);
        reader.skipTags();
      }
      reader.skipTags();
    }
    const [total, usable] = [reader.int64(), reader.int64()];
    reader.skipTags();
    if (!failed) directories.push({ path, logBytes, totalBytes: total < 0 ? null : total, usableBytes: usable < 0 ? null : usable });
  }
  return directories;
}
