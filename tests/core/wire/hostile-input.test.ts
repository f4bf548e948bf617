import { readdirSync } from 'node:fs';
import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { partitionOf } from '../../../core/nar/flow-key.ts';
import { Decoder, defaultDecoderLimits } from '../../../core/wire/decoder.ts';
import { narBatchCodec } from '../../../schemas/codec.ts';
import type { Nar } from '../../../schemas/types.ts';
import { captures, readCapture } from './decoding.ts';

const bytesMax = 64 * 1024;
let payloads: Buffer[] = [];

beforeAll(async () => {
  const names = readdirSync(captures).filter((name) => name.endsWith('.pcap'));
  payloads = (await Promise.all(names.map(readCapture))).flat().map(({ payload }) => payload);
});

/** A copy, since the decoder uses the NAR again. */
function keptNar(nar: Nar): Nar {
  const kept = (part: object) =>
    Object.fromEntries(Object.entries(part).map(([name, value]) => [name, value instanceof Uint8Array ? Buffer.from(value) : value]));
  return { ...kept(nar), details: nar.details && kept(nar.details) } as Nar;
}

/** Everything that is given out must be encodable: a NAR that the codec refuses would stop the collector. */
function decodeAndEncode(datagrams: readonly Uint8Array[]): Decoder {
  const decoder = new Decoder({ ...defaultDecoderLimits, waitBytesMax: bytesMax, exportersMax: 50, templatesPerExporterMax: 20 });
  const nars: Nar[] = [];
  datagrams.forEach((datagram, i) => {
    decoder.decode(datagram, `192.0.2.${i % 3}`, 1_700_000_000_000 + i, (nar) => nars.push(keptNar(nar)));
  });
  decoder.expire(1_700_000_100_000);
  for (const nar of nars) expect(partitionOf(nar, 4)).toBeLessThan(4);
  const batch = { collector: 'c', incarnation: 'i', partition: 0, sequence: 1, through: 1, watermark_ms: 0, volatile: false, goodbye: false };
  narBatchCodec.encode({ ...batch, exporters: decoder.takeReports(), losses: [], fold_config: null, base: null, nars });
  expect(decoder.counters.waitingBytes).toBe(0);
  return decoder;
}

describe('a decoder never throws, and never gives out what the log cannot hold', () => {
  test('for captures cut short', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), fc.nat({ max: 1500 })), { minLength: 1, maxLength: 30 }), (cuts) => {
        decodeAndEncode(cuts.map(([which, length]) => payloads[which % payloads.length]!.subarray(0, length)));
      }),
      { numRuns: 300 },
    );
  });

  test('for captures with octets changed', () => {
    const change = fc.tuple(fc.nat({ max: 1500 }), fc.integer({ min: 0, max: 255 }));
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), fc.array(change, { maxLength: 20 })), { minLength: 1, maxLength: 30 }), (mutations) => {
        const datagrams = mutations.map(([which, changes]) => {
          const datagram = Buffer.from(payloads[which % payloads.length]!);
          for (const [at, octet] of changes) datagram[at % datagram.length] = octet;
          return datagram;
        });
        decodeAndEncode(datagrams);
      }),
      { numRuns: 500 },
    );
  });

  test('for octets that are no capture at all behind a valid version', () => {
    const noise = fc.tuple(fc.constantFrom(5, 7, 9, 10), fc.uint8Array({ maxLength: 300 }));
    fc.assert(
      fc.property(fc.array(noise, { minLength: 1, maxLength: 20 }), (parts) => {
        decodeAndEncode(parts.map(([version, rest]) => Buffer.concat([Buffer.from([0, version]), rest])));
      }),
      { numRuns: 300 },
    );
  });
});

test('restored positions that are nonsense are ignored', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.json().map((text) => `3 ${text}`),
      ),
      (position) => {
        const decoder = new Decoder();
        decoder.restore([['192.0.2.0|1|ipfix', position]]);
        decoder.decode(Buffer.from('000a00106553f1000000000000000001', 'hex'), '192.0.2.0', 0, () => undefined);
        expect(decoder.counters.exporters).toBe(1);
        decoder.takeReports();
      },
    ),
    { numRuns: 300 },
  );
});
