/** What tests of the decoder share: captures, and a decoder that keeps all it gives out. */
import { join } from 'node:path';
import { type CapturedDatagram, readPcap } from '../../../adapters/pcap.ts';
import { type NarText, narText } from '../../../core/nar/nar.ts';
import { Decoder, type DecoderLimits, defaultDecoderLimits } from '../../../core/wire/decoder.ts';
import type { ExporterReport } from '../../../schemas/types.ts';

export const captures = join(import.meta.dirname, '..', '..', 'captures');

export function readCapture(name: string): Promise<CapturedDatagram[]> {
  return readPcap(join(captures, name));
}

export interface Decoding {
  readonly decoder: Decoder;
  readonly nars: NarText[];
  take(datagram: Uint8Array, address?: string, receivedMs?: number): void;
  /** The report of the only exporter; undefined where there is nothing to report. */
  report(): ExporterReport | undefined;
}

/** A capture is an excerpt whose templates may be older than a live exporter's: they do not expire unless a limit says so. */
export function decoding(limits: Partial<DecoderLimits> = {}): Decoding {
  const decoder = new Decoder({ ...defaultDecoderLimits, templateExpiryMs: Number.POSITIVE_INFINITY, ...limits });
  const nars: NarText[] = [];
  return {
    decoder,
    nars,
    take: (datagram, address = '192.0.2.1', receivedMs = 1_700_000_000_000) => {
      decoder.decode(datagram, address, receivedMs, (nar, slot) => nars.push(narText(nar, slot)));
    },
    report: () => decoder.takeReports()[0],
  };
}

/** Octets written out as big-endian numbers: [value, octets]. */
export function octets(...parts: readonly (readonly [value: number, octets: number])[]): Buffer {
  return Buffer.concat(
    parts.map(([value, length]) => {
      const part = Buffer.alloc(length);
      let rest = BigInt(value);
      for (let i = length - 1; i >= 0; i--) {
        part[i] = Number(rest & 0xffn);
        rest >>= 8n;
      }
      return part;
    }),
  );
}

export function set(id: number, ...content: readonly Buffer[]): Buffer {
  const body = Buffer.concat(content);
  return Buffer.concat([octets([id, 2], [4 + body.length, 2]), body]);
}

/** Fields as [element, octets] or [element, octets, enterprise]. */
export function templateRecord(id: number, fields: readonly (readonly number[])[]): Buffer {
  return Buffer.concat([octets([id, 2], [fields.length, 2]), ...fields.map(fieldSpecifier)]);
}

export function fieldSpecifier([element, length, enterprise]: readonly number[]): Buffer {
  if (enterprise === undefined) return octets([element!, 2], [length!, 2]);
  return octets([element! | 0x8000, 2], [length!, 2], [enterprise, 4]);
}

export const exportSeconds = 1_700_000_000;

export function ipfixMessage(sequence: number, sets: readonly Buffer[], seconds = exportSeconds, domain = 1): Buffer {
  const body = Buffer.concat(sets);
  return Buffer.concat([octets([10, 2], [16 + body.length, 2], [seconds, 4], [sequence, 4], [domain, 4]), body]);
}

export function netflow9Datagram(sequence: number, sets: readonly Buffer[], uptimeMs = 100_000, seconds = exportSeconds): Buffer {
  return Buffer.concat([octets([9, 2], [1, 2], [uptimeMs, 4], [seconds, 4], [sequence, 4], [1, 4]), ...sets]);
}
