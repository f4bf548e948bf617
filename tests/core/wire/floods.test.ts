/** Floods of exporters, domains, templates, options and data: each meets its bound, is counted, and leaves known exporters their part. */
import { describe, expect, test } from '@jest/globals';
import { Decoder, type DecoderLimits, defaultDecoderLimits } from '../../../core/wire/decoder.ts';
import { exportSeconds, fieldSpecifier, ipfixMessage, octets, set, templateRecord } from './decoding.ts';

const startMs = exportSeconds * 1000;
const known = '198.51.100.1';
const fields = [
  [8, 4],
  [12, 4],
  [1, 4],
  [2, 4],
] as const;
const template = set(2, templateRecord(256, fields));
const flow = set(256, octets([0x0a000001, 4], [0x0a000002, 4], [700, 4], [7, 4]));
const stranger = (i: number) => `203.0.${(i >> 8) & 255}.${i & 255}`;

class Flooded {
  readonly decoder: Decoder;
  readonly nars = new Map<string, number>();
  #sequence = 0;
  #silences = 0;

  constructor(limits: Partial<DecoderLimits>, isKnown: ((address: string) => boolean) | null = (address) => address === known) {
    this.decoder = new Decoder({ ...defaultDecoderLimits, ...limits }, isKnown);
  }

  take(address: string, sets: readonly Buffer[], domain = 1, afterMs = 0): void {
    const message = ipfixMessage(this.#sequence++, sets, exportSeconds, domain);
    this.decoder.decode(message, address, startMs + afterMs, (_nar, slot) => {
      this.nars.set(slot.samplerAddress, (this.nars.get(slot.samplerAddress) ?? 0) + 1);
    });
  }

  get counters() {
    return this.decoder.counters;
  }

  /** A known exporter is heard, its template taken, and its data decoded. */
  knownIsServed(): void {
    const before = this.nars.get(known) ?? 0;
    this.take(known, [template, flow]);
    this.take(known, [flow]);
    expect(this.nars.get(known)).toBe(before + 2);
  }

  /** Everybody is silent for long. */
  forgetAll(): void {
    this.decoder.takeReports();
    this.decoder.takePositions();
    this.decoder.expire(startMs + 48 * 3_600_000 * ++this.#silences);
    expect(this.counters).toMatchObject({ exporters: 0, waitingSets: 0, waitingBytes: 0 });
  }
}

describe('a flood of exporters', () => {
  test('takes half of the table where some are known, and these still find their place', () => {
    const flooded = new Flooded({ exportersMax: 100 });
    for (let i = 0; i < 500; i++) flooded.take(stranger(i), [template]);
    expect(flooded.counters).toMatchObject({ exporters: 50, refusedDatagrams: 450 });
    flooded.knownIsServed();
  });

  test('may take all of it where none is known', () => {
    const flooded = new Flooded({ exportersMax: 100 }, null);
    for (let i = 0; i < 500; i++) flooded.take(stranger(i), [template]);
    expect(flooded.counters).toMatchObject({ exporters: 100, refusedDatagrams: 400 });
  });

  test('of domains of one address, be it a known one, takes the part of one address', () => {
    for (const address of [known, stranger(1)]) {
      const flooded = new Flooded({ exportersMax: 100, exportersPerAddressMax: 10 });
      for (let domain = 0; domain < 500; domain++) flooded.take(address, [template], domain);
      expect(flooded.counters).toMatchObject({ exporters: 10, refusedDatagrams: 490 });
      flooded.take(stranger(2), [template, flow]);
      expect(flooded.nars.get(stranger(2))).toBe(1);
    }
  });

  test('leaves nothing behind when it is over, in the store neither', () => {
    const flooded = new Flooded({ exportersMax: 100 });
    const store = new Map<string, string>();
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 200; i++) flooded.take(stranger(1_000 * round + i), [template], 1, 0);
      expect(flooded.counters.exporters).toBe(50);
      for (const [key, position] of flooded.decoder.takePositions()) store.set(key, position);
      flooded.forgetAll();
      for (const [key, position] of flooded.decoder.takePositions()) {
        if (position === '') store.delete(key);
        else store.set(key, position);
      }
      expect(store.size).toBe(0);
    }
  });
});

describe('a flood of templates', () => {
  const wide = (id: number) =>
    set(
      2,
      templateRecord(
        id,
        Array.from({ length: 100 }, (_, i) => [1_000 + i, 4]),
      ),
    );

  test('fills its half of the fields, is refused the rest, and known exporters have theirs', () => {
    const flooded = new Flooded({ fieldsMax: 10_000 });
    for (let i = 0; i < 100; i++) for (let id = 256; id < 266; id++) flooded.take(stranger(i), [wide(id)]);
    const taken = flooded.counters.templates;
    expect(taken).toBe(Math.floor(5_000 / 108));
    expect(flooded.counters.refusedTemplates).toBe(1_000 - taken);
    flooded.knownIsServed();
    flooded.forgetAll();
    for (let i = 0; i < 100; i++) flooded.take(stranger(i), [wide(256)]);
    expect(flooded.counters.templates - taken - 2 + 1).toBe(Math.floor(5_000 / 108));
  });

  test('of one address takes a quarter, over all its domains', () => {
    const flooded = new Flooded({ fieldsMax: 10_000 });
    for (let domain = 0; domain < 100; domain++) flooded.take(known, [wide(256)], domain);
    expect(flooded.counters.templates).toBe(Math.floor(2_500 / 108));
  });

  test('that is redefined again and again costs one', () => {
    const flooded = new Flooded({ fieldsMax: 1_000 });
    for (let i = 0; i < 1_000; i++) flooded.take(known, [i % 2 === 0 ? wide(256) : template]);
    expect(flooded.counters).toMatchObject({ templates: 1_000, refusedTemplates: 0 });
  });

  test('whose new definition is refused does not stand for the old one', () => {
    const flooded = new Flooded({ fieldsPerTemplateMax: 50 });
    flooded.take(known, [template, flow]);
    flooded.take(known, [wide(256)]);
    flooded.take(known, [flow]);
    expect(flooded.nars.get(known)).toBe(1);
    expect(flooded.counters).toMatchObject({ refusedTemplates: 1, waitingSets: 1 });
  });
});

test('a flood of samplers meets its bound, is counted, and known exporters announce theirs', () => {
  const options = set(3, octets([300, 2], [2, 2], [1, 2]), fieldSpecifier([302, 4]), fieldSpecifier([34, 4]));
  const announcements = (from: number) => set(300, ...Array.from({ length: 100 }, (_, i) => octets([from + i, 4], [512, 4])));
  const flooded = new Flooded({ fieldsMax: 4_000 });
  for (let i = 0; i < 10; i++) flooded.take(stranger(i), [options]);
  for (let i = 0; i < 10; i++) {
    for (let from = 1; from < 2_000; from += 100) flooded.take(stranger(i), [announcements(from)]);
  }
  expect(flooded.counters.optionsRecords).toBeGreaterThan(15_000);
  expect(flooded.counters.optionsRecords - flooded.counters.refusedSamplers).toBeLessThan(2_000);
  const { refusedSamplers } = flooded.counters;
  flooded.take(known, [options, announcements(1)]);
  expect(flooded.counters.refusedSamplers).toBe(refusedSamplers);
});

describe('a flood of data without templates', () => {
  const data = (octetsOfIt: number) => set(256, Buffer.alloc(octetsOfIt - 4, 1));

  test('does not push out what waits of known exporters, which is decoded when its template comes', () => {
    const flooded = new Flooded({ waitBytesMax: 20_000 });
    flooded.take(known, [flow]);
    for (let i = 0; i < 1_000; i++) flooded.take(stranger(i % 40), [data(1_000)]);
    expect(flooded.counters.waitingBytes).toBeLessThanOrEqual(10_000 + 16);
    expect(flooded.counters.undecodableSets).toBeGreaterThan(900);
    flooded.take(known, [template]);
    expect(flooded.nars.get(known)).toBe(1);
  });

  test('of one address takes half of it, over all its domains', () => {
    const flooded = new Flooded({ waitBytesMax: 20_000 }, null);
    for (let domain = 0; domain < 100; domain++) flooded.take(stranger(1), [data(1_000)], domain);
    expect(flooded.counters.waitingBytes).toBeLessThanOrEqual(10_000);
    flooded.take(stranger(2), [flow]);
    flooded.take(stranger(2), [template]);
    expect(flooded.nars.get(stranger(2))).toBe(1);
  });
});

test('the memory that a flood of templates takes is bounded by their fields', () => {
  const flooded = new Flooded({ fieldsMax: 400_000 });
  const inUse = () => process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
  const record = (id: number) =>
    templateRecord(
      id,
      Array.from({ length: 30 }, (_, at) => [1_000 + at, 4]),
    );
  const before = inUse();
  for (let i = 0; i < 2_000; i++) flooded.take(stranger(i), [set(2, ...Array.from({ length: 10 }, (_, at) => record(256 + at)))]);
  expect(flooded.counters.refusedTemplates).toBeGreaterThan(14_000);
  expect(inUse() - before).toBeLessThan(100 * 1024 * 1024);
});
