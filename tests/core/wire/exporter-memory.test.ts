import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type DecoderLimits, defaultDecoderLimits, type MemoryChange } from '../../../core/wire/decoder.ts';
import { type Decoding, decoding, exportSeconds, fieldSpecifier, ipfixMessage, netflow9Datagram, octets, set, templateRecord } from './decoding.ts';

const expiryMs = defaultDecoderLimits.templateExpiryMs;
const startMs = exportSeconds * 1000;
const fields = [
  [8, 4],
  [12, 4],
  [1, 4],
  [2, 4],
] as const;
const template = set(2, templateRecord(256, fields));
const otherTemplate = set(2, templateRecord(256, [fields[2], fields[3], fields[0], fields[1]]));
/** Options template 300, scoped to the whole device, with the sampling interval; and its record. */
const sampling = (rate: number) =>
  Buffer.concat([set(3, octets([300, 2], [2, 2], [1, 2]), fieldSpecifier([149, 4]), fieldSpecifier([34, 4])), set(300, octets([1, 4], [rate, 4]))]);
const flow = set(256, octets([0x0a000001, 4], [0x0a000002, 4], [700, 4], [7, 4]));

function limited(limits: Partial<DecoderLimits> = {}): Decoding {
  return decoding({ templateExpiryMs: expiryMs, ...limits });
}

/** The store: what was handed out so far. */
function save(from: Decoding, kept = new Map<string, string>()): Map<string, string> {
  for (;;) {
    const changes = from.decoder.takeMemory();
    if (changes.length === 0) return kept;
    for (const [name, text] of changes) {
      if (text === null) kept.delete(name);
      else kept.set(name, text);
    }
  }
}

function next(kept: Iterable<MemoryChange>, nowMs = startMs + 1_000, limits: Partial<DecoderLimits> = {}): Decoding {
  const process = limited(limits);
  process.decoder.recall(kept, nowMs);
  return process;
}

function learnt(): Map<string, string> {
  const process = limited();
  process.take(ipfixMessage(0, [template, sampling(512)]), '192.0.2.1', startMs);
  return save(process);
}

describe('the next process', () => {
  test('decodes at once, with the sampling rate that was announced', () => {
    const process = next(learnt());
    process.take(ipfixMessage(1, [flow]), '192.0.2.1', startMs + 1_000);
    expect(process.nars).toMatchObject([{ src_addr: '10.0.0.1', bytes: 700, sampling_rate: 512 }]);
    expect(process.decoder.counters).toMatchObject({ recalledTemplates: 3, waitingSets: 0, templates: 0 });
  });

  test('the same for NetFlow v9, whose scopes have numbers of their own', () => {
    const before = limited();
    const options = set(1, octets([300, 2], [4, 2], [4, 2]), fieldSpecifier([2, 4]), fieldSpecifier([34, 4]));
    const ofInterface = set(300, octets([9, 4], [64, 4]));
    before.take(netflow9Datagram(0, [set(0, templateRecord(256, [...fields, [10, 4]])), options, ofInterface]), '192.0.2.1', startMs);
    const process = next(save(before));
    process.take(
      netflow9Datagram(1, [set(256, octets([1, 4], [2, 4], [700, 4], [7, 4], [9, 4])), set(300, octets([8, 4], [32, 4]))]),
      '192.0.2.1',
      startMs + 1,
    );
    expect(process.nars).toMatchObject([{ in_if: 9, sampling_rate: 64 }]);
    expect(process.decoder.counters).toMatchObject({ optionsRecords: 1, undecodableSets: 0 });
  });

  test('knows nothing of other exporters, domains and protocols by it', () => {
    const process = next(learnt());
    process.take(ipfixMessage(1, [flow]), '192.0.2.2', startMs + 1_000);
    process.take(ipfixMessage(1, [flow], exportSeconds, 2), '192.0.2.1', startMs + 1_000);
    process.take(netflow9Datagram(1, [flow]), '192.0.2.1', startMs + 1_000);
    expect(process.nars).toEqual([]);
    expect(process.decoder.counters).toMatchObject({ recalledTemplates: 0, waitingSets: 3 });
  });

  test('takes a template that is told anew instead', () => {
    const process = next(learnt());
    process.take(ipfixMessage(1, [otherTemplate]), '192.0.2.1', startMs + 1_000);
    process.take(ipfixMessage(1, [set(256, octets([900, 4], [9, 4], [1, 4], [2, 4]))]), '192.0.2.1', startMs + 1_000);
    expect(process.nars).toMatchObject([{ bytes: 900, packets: 9 }]);
  });

  test('forgets all of it where the exporter started anew meanwhile', () => {
    const before = limited();
    before.take(ipfixMessage(5_000, [template, sampling(512)]), '192.0.2.1', startMs);
    const kept = save(before);
    const process = limited();
    process.decoder.restore(before.decoder.takePositions());
    process.decoder.recall(kept, startMs + 1_000);
    process.take(ipfixMessage(0, [flow], exportSeconds + 10), '192.0.2.1', startMs + 10_000);
    expect(process.nars).toEqual([]);
    expect(process.decoder.counters).toMatchObject({ exporterRestarts: 1, waitingSets: 1, ignoredTemplates: { restarted: 3 } });
    expect(save(process, kept)).toEqual(new Map());
    process.take(ipfixMessage(1, [template]), '192.0.2.1', startMs + 10_000);
    expect(process.nars).toMatchObject([{ bytes: 700, sampling_rate: 0 }]);
  });

  test('is not told of what was withdrawn', () => {
    const before = limited();
    before.take(ipfixMessage(0, [template]), '192.0.2.1', startMs);
    const kept = save(before);
    expect([...kept.keys()]).toEqual(['192.0.2.1|1|ipfix|256']);
    before.take(ipfixMessage(0, [set(2, templateRecord(256, []))]), '192.0.2.1', startMs);
    expect(save(before, kept)).toEqual(new Map());
  });
});

describe('what is kept', () => {
  test('is written again only when it changes, or when it has not been for a quarter of its life', () => {
    const process = limited();
    const changesAt = (afterMs: number, ...sets: readonly Buffer[]) => {
      process.take(ipfixMessage(1, sets, exportSeconds + afterMs), '192.0.2.1', startMs + afterMs);
      return process.decoder.takeMemory().map(([name]) => name.split('|')[3]);
    };
    expect(changesAt(0, template, sampling(512))).toEqual(['256', '300', 'options']);
    expect(changesAt(1, template, sampling(512))).toEqual([]);
    expect(changesAt(2, otherTemplate)).toEqual(['256']);
    expect(changesAt(3, sampling(256))).toEqual(['options']);
    expect(changesAt(expiryMs / 4 + 1, otherTemplate, sampling(256))).toEqual(['300']);
    expect(changesAt(expiryMs / 4 + 5, otherTemplate, sampling(256))).toEqual(['256', 'options']);
    expect(process.decoder.takeMemory()).toEqual([]);
  });

  test('is handed out once more when it may have been lost', () => {
    const process = next(learnt());
    expect(process.decoder.takeMemory()).toEqual([]);
    process.decoder.rememberAgain();
    expect(save(process)).toEqual(learnt());
    process.take(ipfixMessage(1, [flow]), '192.0.2.1', startMs + 1_000);
    expect(process.decoder.takeMemory()).toEqual([]);
    process.decoder.rememberAgain();
    expect([...save(process).keys()]).toEqual([...learnt().keys()]);
  });

  test('is handed out in parts', () => {
    const process = limited({ templatesPerExporterMax: 5_000 });
    for (let id = 256; id < 3_256; id += 20) {
      const records = Array.from({ length: 20 }, (_, i) => templateRecord(id + i, fields));
      process.take(ipfixMessage(0, [set(2, ...records)]), '192.0.2.1', startMs);
    }
    const sizes: number[] = [];
    for (let changes = process.decoder.takeMemory(); changes.length > 0; changes = process.decoder.takeMemory()) sizes.push(changes.length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1_000);
    expect(sizes.reduce((sum, size) => sum + size)).toBe(3_000);
  });

  test('goes when its exporter is forgotten', () => {
    const process = limited({ templateExpiryMs: 1_000 });
    process.take(ipfixMessage(0, [template, sampling(512)]), '192.0.2.1', startMs);
    const kept = save(process);
    expect(kept.size).toBe(3);
    process.decoder.takeReports();
    process.decoder.takePositions();
    process.decoder.expire(startMs + 3_600_000);
    expect(process.decoder.counters.exporters).toBe(0);
    expect(save(process, kept)).toEqual(new Map());
  });
});

describe('what is ignored, counted and removed', () => {
  test('what is too old at the start, or when its exporter comes, or never comes', () => {
    const kept = learnt();
    const late = next(kept, startMs + expiryMs + 1);
    expect(late.decoder.counters.ignoredTemplates.expired).toBe(3);
    expect(save(late, new Map(kept))).toEqual(new Map());
    const slow = next(kept);
    slow.take(ipfixMessage(1, [flow]), '192.0.2.1', startMs + expiryMs + 1);
    expect(slow.decoder.counters).toMatchObject({ waitingSets: 1, recalledTemplates: 0, ignoredTemplates: { expired: 3 } });
    const lonely = next(kept);
    lonely.decoder.expire(startMs + expiryMs + 1);
    expect(lonely.decoder.counters.ignoredTemplates.expired).toBe(3);
    expect(save(lonely, new Map(kept))).toEqual(new Map());
  });

  test('what comes from the future', () => {
    expect(next(learnt(), startMs - 3_600_000).decoder.counters.ignoredTemplates.expired).toBe(3);
  });

  test('what is beyond a bound', () => {
    const process = next(learnt(), startMs, { templatesPerExporterMax: 1 });
    process.take(ipfixMessage(1, []), '192.0.2.1', startMs);
    expect(process.decoder.counters).toMatchObject({ recalledTemplates: 2, ignoredTemplates: { refused: 1 } });
    expect(next(learnt(), startMs, { fieldsPerTemplateMax: 3 }).decoder.counters.ignoredTemplates.corrupt).toBe(1);
  });

  test("what stands under another exporter's name", () => {
    const [[name, text] = ['', '']] = [...learnt()];
    const process = next([[name.replace('192.0.2.1', '192.0.2.9'), text]]);
    process.take(ipfixMessage(1, [flow]), '192.0.2.9', startMs);
    expect(process.decoder.counters).toMatchObject({ waitingSets: 1, ignoredTemplates: { corrupt: 1 } });
  });

  test('what was spoilt, wherever it was', () => {
    const entries = [...learnt()];
    const spoilt = fc.tuple(fc.nat({ max: 2 }), fc.boolean(), fc.nat(), fc.string({ maxLength: 3 }));
    fc.assert(
      fc.property(spoilt, ([which, ofName, at, instead]) => {
        const entry = [...entries[which]!] as [string, string];
        const side = ofName ? 0 : 1;
        const place = at % (entry[side].length + 1);
        entry[side] = entry[side].slice(0, place) + instead + entry[side].slice(place + 1);
        if (entry[side] === entries[which]![side]) return;
        const process = next([entry]);
        process.take(ipfixMessage(1, [flow]), '192.0.2.1', startMs);
        expect(process.decoder.counters).toMatchObject({ recalledTemplates: 0, ignoredTemplates: { corrupt: 1 } });
      }),
      { numRuns: 2_000 },
    );
  });

  test('anything else', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.string(), fc.oneof(fc.string(), fc.json()))), (entries) => {
        const process = next(entries);
        expect(process.decoder.counters.ignoredTemplates.corrupt).toBe(entries.length);
      }),
      { numRuns: 300 },
    );
  });
});
