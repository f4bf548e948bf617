/**
 * Record batches (magic 2) as they come in a fetch response, decoded by ourselves: the client's decoder hides how far a batch reaches, awaits every
 * record, and its filter of aborted records leaks (K8).
 */
import { promisify } from 'node:util';
import { gunzip, zstdDecompressSync } from 'node:zlib';
import { LogFault, type LogRecord } from '../ports.ts';

const ungzip = promisify(gunzip);

export interface AbortedTransaction {
  readonly producerId: string;
  readonly firstOffset: number;
}

export interface DecodedRecords {
  readonly records: LogRecord[];
  /** Offset behind the last batch that was whole, compacted-away records included; the position itself when none was. */
  readonly nextOffset: number;
}

const batchHeaderBytes = 61;
const logAppendTime = 0x08;
const transactional = 0x10;
const controlBatch = 0x20;

/**
 * RecordBatch => base_offset:8 length:4 leader_epoch:4 magic:1 crc:4 attributes:2 last_offset_delta:4 base_timestamp:8 max_timestamp:8
 *   producer_id:8 producer_epoch:2 base_sequence:4 records_count:4 records
 * The last batch of a response may be cut off; it comes whole with the next one.
 */
export async function decodeRecords(bytes: Buffer, position: number): Promise<DecodedRecords> {
  const records: LogRecord[] = [];
  let nextOffset = position;
  for (let at = 0; at + batchHeaderBytes <= bytes.length; ) {
    const end = at + 12 + bytes.readInt32BE(at + 8);
    if (end > bytes.length) break;
    const magic = bytes.readInt8(at + 16);
    if (magic !== 2) throw new LogFault('refused', `a record batch of magic ${magic} is older than Kafka 0.11: re-create the topic`);
    const baseOffset = Number(bytes.readBigInt64BE(at));
    await decodeBatch(bytes.subarray(at, end), baseOffset, position, records);
    nextOffset = Math.max(nextOffset, baseOffset + bytes.readInt32BE(at + 23) + 1);
    at = end;
  }
  return { records, nextOffset };
}

async function decodeBatch(batch: Buffer, baseOffset: number, position: number, records: LogRecord[]): Promise<void> {
  const attributes = batch.readInt16BE(21);
  const baseTimestamp = Number(batch.readBigInt64BE(27));
  const maxTimestamp = Number(batch.readBigInt64BE(35));
  const producerId = attributes & transactional ? batch.readBigInt64BE(43).toString() : '';
  const count = batch.readInt32BE(57);
  const cursor = new RecordCursor(await inflate(batch.subarray(batchHeaderBytes), attributes & 7));
  for (let i = 0; i < count; i++) {
    const length = cursor.varint();
    const end = cursor.at + length;
    cursor.at++;
    const timestampDelta = cursor.varint();
    const offset = baseOffset + cursor.varint();
    const key = cursor.octets();
    const value = cursor.octets();
    cursor.at = end;
    if (offset < position) continue;
    const control = (attributes & controlBatch) !== 0;
    records.push({
      offset,
      key: control ? null : key,
      value: control ? null : value,
      appendedMs: attributes & logAppendTime ? maxTimestamp : baseTimestamp + timestampDelta,
      producerId,
      marker: control && key ? (key.readInt16BE(2) === 1 ? 'commit' : 'abort') : null,
    });
  }
}

/** Gzip and zstd are what writers of these topics use; the others have no well-kept pure decoder. */
async function inflate(bytes: Buffer, compression: number): Promise<Buffer> {
  if (compression === 0) return bytes;
  // A thousand NARs take 50 us here; through another thread, in small chunks, they took ten times that. NARs shrink to less than half.
  if (compression === 4) return zstdDecompressSync(bytes, { chunkSize: Math.max(1024, 3 * bytes.length) });
  if (compression === 1) return ungzip(bytes);
  throw new LogFault('refused', `compression type ${compression} is not supported: set compression.type=producer on the topic`);
}

/** Variable-length fields of a record: zigzag varints and length-prefixed octets. */
class RecordCursor {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const octet = this.#bytes[this.at++];
      if (octet === undefined) throw new LogFault('refused', 'a record is shorter than it says');
      value += (octet & 0x7f) * scale;
      if (octet < 0x80) break;
      scale *= 128;
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  octets(): Buffer | null {
    const length = this.varint();
    if (length < 0) return null;
    const octets = this.#bytes.subarray(this.at, this.at + length);
    this.at += length;
    return octets;
  }
}

/** Drops markers and the records of aborted transactions, also for several producers, any order of the list, and markers beyond this response. */
export function committedRecords(records: readonly LogRecord[], aborted: readonly AbortedTransaction[]): LogRecord[] {
  const waiting = [...aborted].sort((one, other) => one.firstOffset - other.firstOffset);
  const open = new Set<string>();
  const committed: LogRecord[] = [];
  for (const record of records) {
    for (let first = waiting[0]; first && first.firstOffset <= record.offset; first = waiting[0]) {
      open.add(first.producerId);
      waiting.shift();
    }
    if (record.marker) open.delete(record.producerId);
    else if (!open.has(record.producerId)) committed.push(record);
  }
  return committed;
}
