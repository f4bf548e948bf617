import { isIP } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { addressBytes, addressText } from '../../../core/nar/address.ts';

describe('the text of an address', () => {
  test.each([
    ['', ''],
    ['c0000201', '192.0.2.1'],
    ['00000000000000000000000000000000', '::'],
    ['00000000000000000000000000000001', '::1'],
    ['20010db8000000000000000000000001', '2001:db8::1'],
    // RFC 5952, section 4.2: the longest run of zeros, the first of equal ones, and never a single group.
    ['20010db8000000010001000100010001', '2001:db8:0:1:1:1:1:1'],
    ['20010000000000010000000000000001', '2001:0:0:1::1'],
    ['20010db8000000000001000000000001', '2001:db8::1:0:0:1'],
    ['00000000000000000000ffff0a000001', '::ffff:10.0.0.1'],
    ['fe800000000000000000000000000000', 'fe80::'],
  ])('of %s is %s', (hex, text) => {
    expect(addressText(Buffer.from(hex, 'hex'))).toBe(text);
    expect(addressBytes(text).toString('hex')).toBe(hex);
  });

  test('gives the same octets back, and is one that others read', () => {
    const octets = fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 }), zeroful);
    fc.assert(
      fc.property(octets, (bytes) => {
        const text = addressText(bytes);
        expect(isIP(text)).toBe(bytes.length === 4 ? 4 : 6);
        expect(Buffer.from(bytes).equals(addressBytes(text))).toBe(true);
      }),
    );
  });

  test('of three octets is a programming error', () => {
    expect(() => addressText(new Uint8Array(3))).toThrow(RangeError);
  });
});

const zeroful = fc.array(fc.constantFrom(0, 0, 0, 1), { minLength: 16, maxLength: 16 }).map((octets) => Uint8Array.from(octets));

describe('a text that is no address', () => {
  test('is refused', () => {
    const texts = ['1.2.3', '1.2.3.4.5', '1.2.3.256', '01.2.3.4', '1.2.3.a', ':', ':::', '1::2::3', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9'];
    for (const text of [...texts, '1:2:3:4:5:6:7::8', '12345::', '::1.2.3', 'example.org', ' 1.2.3.4'])
      expect(() => addressBytes(text)).toThrow(RangeError);
  });

  test('is what node:net says is none', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('0', '1', 'f', ':', '.', '::') }), (text) => {
        let accepted = true;
        try {
          addressBytes(text);
        } catch {
          accepted = false;
        }
        expect(accepted).toBe(text === '' || isIP(text) !== 0);
      }),
      { numRuns: 1000 },
    );
  });
});
