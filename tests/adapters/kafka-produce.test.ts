/** Our own record batches: what is written is what is read, and the checksum is the one that brokers know. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { crc32c } from '../../adapters/kafka/crc32c.ts';
import { produceRequest } from '../../adapters/kafka/produce.ts';
import { decodeRecords } from '../../adapters/kafka/records.ts';

/** The same, bit by bit. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const octet of bytes) {
    crc ^= octet;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

describe('CRC-32C', () => {
  test('the check value of the standard (RFC 3720, appendix B.4)', () => {
    expect(crc32c(Buffer.from('123456789'), 0, 9)).toBe(0xe3069283);
    expect(crc32c(Buffer.alloc(32), 0, 32)).toBe(0x8a9136aa);
    expect(crc32c(Buffer.alloc(32, 0xff), 0, 32)).toBe(0x62a8ab43);
  });

  test('any part of any octets', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(20), (bytes, start) => {
        const from = Math.min(start, bytes.length);
        expect(crc32c(bytes, from, bytes.length)).toBe(slowCrc(bytes.subarray(from)));
      }),
    );
  });
});

/** topic -> partition -> the record set, taken out of a Produce request of version 7. */
async function recordSets(body: Buffer): Promise<Map<string, Buffer>> {
  const sets = new Map<string, Buffer>();
  expect([body.readInt16BE(0), body.readInt16BE(2), body.readInt32BE(4)]).toEqual([-1, -1, 500]);
  let at = 12;
  for (let topics = body.readInt32BE(8); topics > 0; topics--) {
    const topic = body.toString('utf8', at + 2, at + 2 + body.readInt16BE(at));
    at += 2 + body.readInt16BE(at);
    let partitions = body.readInt32BE(at);
    for (at += 4; partitions > 0; partitions--) {
      const length = body.readInt32BE(at + 4);
      sets.set(`${topic}/${body.readInt32BE(at)}`, body.subarray(at + 8, at + 8 + length));
      at += 8 + length;
    }
  }
  expect(at).toBe(body.length);
  return sets;
}

const octets = fc.option(fc.uint8Array({ maxLength: 700 }));
const messages = fc.array(fc.record({ key: octets, value: octets }), { minLength: 1, maxLength: 80 });
const parts = fc.uniqueArray(
  fc.record({ topic: fc.constantFrom('nars', 'äcks', 't'), partition: fc.nat(5), messages, baseSequence: fc.nat(2 ** 31 - 1) }),
  { minLength: 1, maxLength: 5, selector: ({ topic, partition }) => `${topic}/${partition}` },
);

describe('Produce', () => {
  test('every record is read back by its partition, under the producer and the sequence given', async () => {
    await fc.assert(
      fc.asyncProperty(parts, fc.bigInt({ min: 0n, max: 2n ** 62n }), fc.nat(32767), async (given, id, epoch) => {
        const { request } = produceRequest(given, { id, epoch }, 1_700_000_000_123, 500);
        const { buffer } = (await request.encode()) as { buffer: Buffer };
        const sets = await recordSets(buffer);
        expect(sets.size).toBe(given.length);
        for (const { topic, partition, messages: written, baseSequence } of given) {
          const set = sets.get(`${topic}/${partition}`) as Buffer;
          expect(set.readUInt32BE(17)).toBe(slowCrc(set.subarray(21)));
          expect([set.readBigInt64BE(43), set.readInt16BE(51), set.readInt32BE(53)]).toEqual([id, epoch, baseSequence]);
          const { records, nextOffset } = await decodeRecords(set, 0);
          expect(nextOffset).toBe(written.length);
          expect(records.map(({ offset }) => offset)).toEqual(written.map((_, index) => index));
          for (const [index, { key, value, appendedMs }] of records.entries()) {
            const message = written[index] as { key: Uint8Array | null; value: Uint8Array | null };
            expect(key).toEqual(message.key === null ? null : Buffer.from(message.key));
            expect(value).toEqual(message.value === null ? null : Buffer.from(message.value));
            expect(appendedMs).toBe(1_700_000_000_123);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test('a record larger than the room that is kept, and small ones after it', async () => {
    for (const size of [5_000_000, 10, 600_000]) {
      const value = Buffer.alloc(size, 'flow');
      const part = { topic: 'nars', partition: 0, messages: [{ key: null, value }], baseSequence: 0 };
      const { buffer } = (await produceRequest([part], { id: 1n, epoch: 0 }, 1, 500).request.encode()) as { buffer: Buffer };
      const { records } = await decodeRecords((await recordSets(buffer)).get('nars/0') as Buffer, 0);
      expect(records[0]?.value?.equals(value)).toBe(true);
    }
  });

  test('what the broker answers', async () => {
    const answer = Buffer.alloc(100);
    let at = answer.writeInt32BE(1, 0);
    at = answer.writeInt16BE(4, at);
    at += answer.write('nars', at);
    at = answer.writeInt32BE(2, at);
    for (const [partition, code, offset] of [
      [3, 0, 2n ** 40n],
      [1, 6, -1n],
    ] as const) {
      at = answer.writeInt32BE(partition, at);
      at = answer.writeInt16BE(code, at);
      at = answer.writeBigInt64BE(offset, at);
      at = answer.writeBigInt64BE(-1n, at);
      at = answer.writeBigInt64BE(0n, at);
    }
    at = answer.writeInt32BE(0, at);
    const { response } = produceRequest([], { id: 1n, epoch: 0 }, 1, 500);
    const decoded = await response.parse((await response.decode(answer.subarray(0, at))) as never);
    expect(decoded).toEqual([
      { topic: 'nars', partition: 3, errorCode: 0, baseOffset: 2 ** 40 },
      { topic: 'nars', partition: 1, errorCode: 6, baseOffset: -1 },
    ]);
  });
});
