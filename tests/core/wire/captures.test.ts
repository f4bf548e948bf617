import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { captures, decoding, readCapture } from './decoding.ts';

interface Expected {
  readonly datagrams: number;
  readonly records: number;
  readonly octets: number;
  readonly packets: number;
  readonly octets_scaled: number;
  readonly packets_scaled: number;
  readonly options_records: number;
  readonly templates: number;
  readonly options_templates: number;
  readonly undecodable_sets: number;
  readonly records_if_buffered?: number;
  readonly octets_if_buffered?: number;
  readonly packets_if_buffered?: number;
  readonly options_records_if_buffered?: number;
  readonly reverse_records?: number;
  readonly reverse_octets?: number;
  readonly reverse_packets?: number;
  readonly events?: number;
  readonly counter_samples?: number;
  readonly discarded_packet_samples?: number;
  readonly malformed?: boolean;
}

const expected: Record<string, Expected> = JSON.parse(readFileSync(join(captures, 'expected.json'), 'utf8'));
const records: Record<string, Record<string, object>> = JSON.parse(readFileSync(join(captures, 'records.json'), 'utf8'));

async function decodeCapture(name: string) {
  const decoded = decoding();
  for (const { payload, source, timeMs } of await readCapture(name)) decoded.take(payload, source, timeMs);
  return decoded;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

describe.each(Object.entries(expected))('%s', (name, want) => {
  test('gives the records, octets and packets on which independent decoders agree', async () => {
    const { decoder, nars } = await decodeCapture(name);
    expect({
      datagrams: decoder.counters.datagrams,
      records: nars.length - decoder.counters.reverseFlows + decoder.counters.events,
      reverse: decoder.counters.reverseFlows,
      events: decoder.counters.events,
      octets: sum(nars.map((nar) => nar.bytes)),
      packets: sum(nars.map((nar) => nar.packets)),
      options: decoder.counters.optionsRecords,
      templates: decoder.counters.templates,
      counterSamples: decoder.counters.counterSamples,
      discardedPackets: decoder.counters.discardedPackets,
    }).toEqual({
      datagrams: want.datagrams,
      records: want.records_if_buffered ?? want.records,
      reverse: want.reverse_records ?? 0,
      events: want.events ?? 0,
      octets: (want.octets_if_buffered ?? want.octets) + (want.reverse_octets ?? 0),
      packets: (want.packets_if_buffered ?? want.packets) + (want.reverse_packets ?? 0),
      options: want.options_records_if_buffered ?? want.options_records,
      templates: want.templates + want.options_templates,
      counterSamples: want.counter_samples ?? 0,
      discardedPackets: want.discarded_packet_samples ?? 0,
    });
  });

  test('gives the octets and packets scaled by the sampling rates that the exporter tells', async () => {
    if (want.records_if_buffered !== undefined) return;
    const { nars } = await decodeCapture(name);
    // No capture has both sampling and reverse directions.
    expect(sum(nars.map((nar) => nar.bytes * Math.max(1, nar.sampling_rate)))).toBe(want.octets_scaled + (want.reverse_octets ?? 0));
    expect(sum(nars.map((nar) => nar.packets * Math.max(1, nar.sampling_rate)))).toBe(want.packets_scaled + (want.reverse_packets ?? 0));
  });

  test('counts the sets whose template never comes, and every datagram', async () => {
    const { decoder } = await decodeCapture(name);
    const inTime = decoder.counters.waitingSets;
    decoder.expire(Number.POSITIVE_INFINITY);
    const reports = decoder.takeReports();
    if (want.records_if_buffered === undefined) expect(inTime).toBe(want.undecodable_sets);
    expect(decoder.counters.undecodableSets).toBe(inTime);
    expect(decoder.counters.waitingBytes).toBe(0);
    // Without a whole header they belong to no exporter.
    const { unidentifiedDatagrams } = decoder.counters;
    expect(sum(reports.map((report) => report.received_datagrams)) + unidentifiedDatagrams).toBe(want.datagrams);
    const undecodable = sum(reports.map((report) => report.undecodable_datagrams)) + unidentifiedDatagrams;
    if (want.malformed) expect(undecodable).toBe(want.datagrams);
  });
});

test.each(Object.entries(records))('%s: the fields of its records', async (name, wanted) => {
  const { nars } = await decodeCapture(name);
  const indices = Object.keys(wanted).map(Number);
  const got = indices.map((index) => nars[index]);
  expect(got).toMatchObject(indices.map((index) => wanted[index]!));
});
