/** What a broker can do: ApiVersions, and the versions that this system asks with. */
import { createErrorFromCode, type ProtocolRequest } from './client.ts';
import { encoded, OctetReader } from './octets.ts';

export interface ApiRange {
  readonly min: number;
  readonly max: number;
}

const fetchKey = 1;

/** In our own encoding, so that no client library negotiates another version: see requests.ts, disk-requests.ts, produce.ts. */
const needed = [
  { api: 'Produce', key: 0, version: 7 },
  { api: 'Fetch', key: fetchKey, version: 13 },
  { api: 'Metadata', key: 3, version: 12 },
  { api: 'DeleteRecords', key: 21, version: 1 },
  { api: 'DescribeLogDirs', key: 35, version: 4 },
] as const;

/** The first release of Apache Kafka with this version of Fetch. */
const releases: readonly (readonly [fetchVersion: number, release: string])[] = [
  [17, '3.9'],
  [16, '3.7'],
  [15, '3.5'],
  [13, '3.1'],
  [12, '2.7'],
];

/**
 * ApiVersions (version 0) => nothing
 *   error_code [api_key min_version max_version]
 */
export function apiVersionsRequest(): ProtocolRequest<ReadonlyMap<number, ApiRange>> {
  return {
    request: { apiKey: 18, apiVersion: 0, apiName: 'ApiVersions', encode: async () => encoded(Buffer.alloc(0)) },
    response: { decode: async (payload) => decodeApiVersions(payload), parse: async (decoded: ReadonlyMap<number, ApiRange>) => decoded },
  };
}

export function decodeApiVersions(payload: Buffer): ReadonlyMap<number, ApiRange> {
  const reader = new OctetReader(payload);
  const errorCode = reader.int16();
  if (errorCode !== 0) throw createErrorFromCode(errorCode);
  const ranges = new Map<number, ApiRange>();
  for (let count = reader.int32(); count > 0; count--) ranges.set(reader.int16(), { min: reader.int16(), max: reader.int16() });
  return ranges;
}

/** Requests that this system makes and the broker does not take, each in words. */
export function missingApis(ranges: ReadonlyMap<number, ApiRange>): string[] {
  return needed.flatMap(({ api, key, version }) => {
    const range = ranges.get(key);
    if (range && range.min <= version && version <= range.max) return [];
    return [`${api} ${version} (${range ? `it takes ${range.min} to ${range.max}` : 'it does not have it'})`];
  });
}

/** The release that the broker is of, or a later one; '' for one that is older than all that are told apart here. */
export function releaseOf(ranges: ReadonlyMap<number, ApiRange>): string {
  const fetchVersion = ranges.get(fetchKey)?.max ?? 0;
  return releases.find(([version]) => fetchVersion >= version)?.[1] ?? '';
}
