import { describe, expect, test } from '@jest/globals';
import { committedRecords, decodeRecords } from '../../adapters/kafka/records.ts';
import type { LogRecord } from '../../adapters/ports.ts';

const record = (offset: number, producerId: string, marker: LogRecord['marker'] = null, key: Buffer | null = null): LogRecord => ({
  offset,
  key,
  value: marker ? null : Buffer.from(`${offset}`),
  appendedMs: 0,
  producerId,
  marker,
});
const offsets = (records: readonly LogRecord[]) => records.map(({ offset }) => offset);

describe('records of aborted transactions (K8)', () => {
  test('two producers whose transactions began before the fetch and were both aborted', () => {
    const records = [record(20, '2'), record(21, '2'), record(22, '1'), record(23, '1', 'abort'), record(24, '2', 'abort')];
    const aborted = [
      { producerId: '1', firstOffset: 10 },
      { producerId: '2', firstOffset: 11 },
    ];
    expect(offsets(committedRecords(records, aborted))).toEqual([]);
  });

  test('a list of aborted transactions in any order', () => {
    const records = [record(10, '1'), record(11, '2'), record(12, '2', 'commit'), record(13, '1'), record(14, '1', 'abort'), record(15, '3')];
    const aborted = [
      { producerId: '3', firstOffset: 15 },
      { producerId: '1', firstOffset: 10 },
    ];
    expect(offsets(committedRecords(records, aborted))).toEqual([11]);
  });

  test('a data record whose key looks like an abort marker ends nothing', () => {
    const records = [record(10, '1', null, Buffer.alloc(4)), record(11, '1')];
    expect(offsets(committedRecords(records, [{ producerId: '1', firstOffset: 10 }]))).toEqual([]);
  });

  test('one producer with two aborted transactions, the second one open at the end of the fetch', () => {
    const records = [record(10, '1'), record(11, '1', 'abort'), record(12, '1'), record(13, '')];
    const aborted = [
      { producerId: '1', firstOffset: 10 },
      { producerId: '1', firstOffset: 12 },
    ];
    expect(offsets(committedRecords(records, aborted))).toEqual([13]);
  });
});

/** A record batch of magic 2 without compression, laid out by hand from the protocol's grammar. */
function batchOf(baseOffset: number, values: readonly string[], lastOffsetDelta = values.length - 1): Buffer {
  const records = values.map((value, i) => {
    const body = Buffer.concat([Buffer.from([0, 0, i << 1, 1, value.length << 1]), Buffer.from(value), Buffer.from([0])]);
    return Buffer.concat([Buffer.from([body.length << 1]), body]);
  });
  const header = Buffer.alloc(61);
  const body = Buffer.concat(records);
  header.writeBigInt64BE(BigInt(baseOffset), 0);
  header.writeInt32BE(49 + body.length, 8);
  header.writeInt8(2, 16);
  header.writeInt16BE(0x08, 21);
  header.writeInt32BE(lastOffsetDelta, 23);
  header.writeBigInt64BE(1000n, 27);
  header.writeBigInt64BE(2000n, 35);
  header.writeBigInt64BE(-1n, 43);
  header.writeInt32BE(values.length, 57);
  return Buffer.concat([header, body]);
}

describe('record batches', () => {
  test('a batch that the response cuts off is left for the next fetch', async () => {
    const bytes = Buffer.concat([batchOf(5, ['a', 'b']), batchOf(7, ['c']).subarray(0, 65)]);
    const { records, nextOffset } = await decodeRecords(bytes, 5);
    expect(records.map(({ value }) => value?.toString())).toEqual(['a', 'b']);
    expect(nextOffset).toBe(7);
  });

  test('records before the position are not given out again', async () => {
    expect(offsets((await decodeRecords(batchOf(5, ['a', 'b', 'c']), 6)).records)).toEqual([6, 7]);
  });

  test('a batch whose records were compacted away still moves the position', async () => {
    expect(await decodeRecords(batchOf(5, [], 9), 5)).toEqual({ records: [], nextOffset: 15 });
  });

  test('the append time of the broker is the time of every record', async () => {
    expect((await decodeRecords(batchOf(0, ['a', 'b']), 0)).records.map(({ appendedMs }) => appendedMs)).toEqual([2000, 2000]);
  });
});
