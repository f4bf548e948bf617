import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { MessageStream } from '../../../core/wire/message-stream.ts';
import { ipfixMessage, octets } from './decoding.ts';

const message = fc.nat({ max: 300 }).map((length) => ipfixMessage(length, [Buffer.alloc(length, length)]));

/** The stream cut at these places, each part in a buffer that is overwritten afterwards, as a socket's may be. */
function segments(stream: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (stream.length + 1)))].sort((a, b) => a - b);
  return [...places, stream.length].map((end, i) => Buffer.from(stream.subarray(places[i - 1] ?? 0, end)));
}

function read(parts: readonly Buffer[]): { messages: Buffer[]; fault: string | null; pending: number } {
  const stream = new MessageStream();
  const messages: Buffer[] = [];
  let fault: string | null = null;
  for (const part of parts) {
    fault = stream.push(part, (one) => messages.push(Buffer.from(one)));
    part.fill(0xee);
  }
  return { messages, fault, pending: stream.pending };
}

describe('messages in a stream', () => {
  test('are the same wherever the segments end', () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 30 }), (sent, cuts) => {
        const { messages, fault, pending } = read(segments(Buffer.concat(sent), cuts));
        expect(messages.map((one) => one.toString('hex'))).toEqual(sent.map((one) => one.toString('hex')));
        expect([fault, pending]).toEqual([null, 0]);
      }),
      { numRuns: 500 },
    );
  });

  test('come octet by octet, the longest too', () => {
    const longest = ipfixMessage(1, [Buffer.alloc(65_535 - 16, 7)]);
    const parts = Array.from(longest, (octet) => Buffer.from([octet]));
    expect(read(parts).messages.map(({ length }) => length)).toEqual([65_535]);
    expect(read(parts.slice(0, -1))).toMatchObject({ messages: [] });
  });

  test('up to the first that cannot be: what comes behind it is not read, wherever it was cut', () => {
    const good = ipfixMessage(0, [Buffer.alloc(20)]);
    const faults = [
      [octets([9, 2], [36, 2]), 'version'],
      [octets([10, 2], [15, 2]), 'length'],
      [octets([10, 2], [0, 2]), 'length'],
      [Buffer.from('GET / HTTP/1.1'), 'version'],
    ] as const;
    for (const [bad, name] of faults) {
      fc.assert(
        fc.property(fc.array(fc.nat(), { maxLength: 10 }), (cuts) => {
          const { messages, fault } = read(segments(Buffer.concat([good, good, bad, good]), cuts));
          expect([messages.length, fault]).toEqual([2, name]);
        }),
        { numRuns: 50 },
      );
    }
  });
});
