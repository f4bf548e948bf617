import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { sha256 } from '../../adapters/digest.ts';
import type { Ledger } from '../../adapters/ledger.ts';
import { openLedger, openLedgerView } from '../../adapters/ledger-sqlite.ts';
import { type Booking, enter, newBooking } from '../../core/ledger/book.ts';
import type { Output } from '../../schemas/types.ts';
import { History } from '../core/ledger/history.ts';

const always = { fromMs: null, toMs: null };
const startMs = 1_700_000_100_000;
let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'flowledger-ledger-'));
  path = join(folder, 'ledger.sqlite');
});

afterEach(() => rmSync(folder, { recursive: true }));

/** As accounting does after a restart: positions from the ledger, then outputs as they are read. */
function prepare(ledger: Ledger, outputs: readonly Output[], partitions: number): Booking {
  const booking = newBooking(ledger.open('topic-1', partitions)[outputs[0]?.partition ?? 0]!.book);
  for (const output of outputs) expect(enter(booking, output, sha256)).toBeNull();
  return booking;
}

function book(ledger: Ledger, outputs: readonly Output[], partitions = 1): void {
  ledger.write([{ booking: prepare(ledger, outputs, partitions), nextOffset: outputs.length }]);
}

function dump(): Record<string, unknown[]> {
  const database = new DatabaseSync(path, { readOnly: true, readBigInts: true });
  const names = ['aggregates', 'windows', 'exporter_balance', 'samples_5m', 'coverage_5m', 'buckets_5m'];
  const rows = Object.fromEntries(names.map((name) => [name, database.prepare(`SELECT * FROM ${name} ORDER BY 1, 2, 3`).all()]));
  database.close();
  return rows;
}

function exampleHistory(partition = 0): History {
  const history = new History(partition, startMs);
  for (let window = 0; window < 12; window++) {
    history.usage({ src: 'acme', dst: 'globex', flows: window, bytes: 2n ** 53n + BigInt(window) });
    history.usage({ src: 'globex', dst: 'acme', flows: 1, bytes: 1n });
    if (window === 6) history.adjustment({ src: 'acme', dst: 'globex', flows: 1, bytes: 100n, windowStartMs: startMs });
    history.close({ open: { flows: window % 3, bytes: 5n }, lost: { flows: window === 7 ? 2 : 0, bytes: 0n } });
  }
  return history;
}

describe('the ledger', () => {
  test('is the same however its outputs are cut, repeated and read again', () => {
    const { outputs } = exampleHistory();
    book(openLedgerThen(), outputs);
    const expected = dump();
    const pieces = fc.array(fc.record({ from: fc.nat(outputs.length), length: fc.nat(15) }), { maxLength: 12 });
    fc.assert(
      fc.property(pieces, (cuts) => {
        rmSync(folder, { recursive: true });
        const ledger = openLedgerThen();
        for (const { from, length } of cuts) {
          const n = ledger.open('topic-1', 1)[0]!.book.n;
          book(ledger, outputs.slice(Math.min(from, n), Math.min(from, n) + length));
        }
        book(ledger, outputs);
        expect(dump()).toEqual(expected);
      }),
      { numRuns: 25 },
    );
  });

  let opened: Ledger | null = null;
  function openLedgerThen(): Ledger {
    opened?.close();
    opened = openLedger(path);
    return opened;
  }
  afterEach(() => {
    opened?.close();
    opened = null;
  });

  test('stands where it stood when a transaction is cut off in the middle', () => {
    const { outputs } = exampleHistory();
    const ledger = openLedgerThen();
    book(ledger, outputs.slice(0, 10));
    const before = dump();
    const cutOff = prepare(ledger, outputs, 1);
    const broken = { ...cutOff.windows.at(-1)!, chain: 'no octets' as never };
    expect(() => ledger.write([{ booking: { ...cutOff, windows: [...cutOff.windows, broken] }, nextOffset: 99 }])).toThrow();
    expect(dump()).toEqual(before);
    openLedgerThen();
    expect(opened!.open('topic-1', 1)[0]).toMatchObject({ nextOffset: 10, book: { n: 10 } });
    book(opened!, outputs);
    expect(opened!.open('topic-1', 1)[0]!.book.n).toBe(outputs.length);
  });

  test('forgets what a transaction that failed had taught it', () => {
    const { outputs } = exampleHistory();
    const ledger = openLedgerThen();
    const good = prepare(ledger, outputs, 1);
    expect(() => ledger.write([{ booking: { ...good, windows: [...good.windows, good.windows[0]!] }, nextOffset: 1 }])).toThrow('UNIQUE');
    ledger.write([{ booking: good, nextOffset: outputs.length }]);
    expect(
      ledger
        .view()
        .usage(['src_account'], always)
        .map(({ flows }) => flows),
    ).toEqual([67n, 12n]);
  });

  test('computes the books from its rows as they were kept in memory', () => {
    const { outputs } = exampleHistory();
    for (let length = 0; length <= outputs.length; length += 5) {
      const ledger = openLedgerThen();
      const booking = prepare(ledger, outputs.slice(0, length), 1);
      ledger.write([{ booking, nextOffset: length }]);
      expect(openLedgerThen().open('topic-1', 1)[0]!.book).toEqual(booking.book);
    }
  });

  test('refuses a booking that does not continue it, whoever brings it', () => {
    const { outputs } = exampleHistory();
    const ledger = openLedgerThen();
    const twice = prepare(ledger, outputs.slice(0, 5), 1);
    ledger.write([{ booking: twice, nextOffset: 5 }]);
    expect(() => ledger.write([{ booking: twice, nextOffset: 5 }])).toThrow('partition 0 stands at n 5 and cannot be booked from n 0 on');
  });

  test('is written by one accounting service at a time, and read meanwhile', () => {
    const ledger = openLedgerThen();
    book(ledger, exampleHistory().outputs);
    expect(() => openLedger(path)).toThrow('is being written by another accounting service');
    const view = openLedgerView(path);
    expect(view.usage(['src_account'], always).map(({ fields }) => fields['src_account'])).toEqual(['acme', 'globex']);
    view.close();
    openLedgerThen();
  });

  test('says what to do when there is none', () => {
    expect(() => openLedgerView(join(folder, 'no.sqlite'))).toThrow('does accounting.ledger name its file?');
  });

  test('is read again from the start of a topic that was re-created', () => {
    const ledger = openLedgerThen();
    book(ledger, exampleHistory().outputs.slice(0, 9));
    expect(ledger.open('topic-1', 1)[0]!.nextOffset).toBe(9);
    expect(ledger.open('topic-2', 1)[0]).toMatchObject({ nextOffset: 0, book: { n: 9 } });
  });

  test('sums usage beyond 2^53 exactly, and more than 2^63 is an error instead of a rounded sum', () => {
    const ledger = openLedgerThen();
    const history = new History(0, startMs);
    for (let i = 0; i < 3; i++) history.usage({ src: 'acme', dst: `peer ${i}`, flows: 1, bytes: 2n ** 58n + 1n });
    book(ledger, history.close().outputs);
    expect(ledger.view().usage([], always)[0]).toMatchObject({ flows: 3n, bytes: 3n * 2n ** 58n + 3n });
    history.usage({ src: 'acme', dst: 'globex', flows: 1, bytes: 2n ** 58n });
    expect(() => book(ledger, history.outputs)).toThrow('cannot store REAL value in INTEGER column');
    expect(ledger.open('topic-1', 1)[0]!.book.n).toBe(4);
  });

  test('groups usage by fields, window and kind, within a period', () => {
    const ledger = openLedgerThen();
    book(ledger, exampleHistory().outputs);
    const view = ledger.view();
    expect(view.groupFields()).toEqual(['src_account', 'dst_account']);
    expect(view.usage(['kind'], always).map(({ fields, flows }) => [fields['kind'], flows])).toEqual([
      ['adjustment', 1n],
      ['usage', 78n],
    ]);
    const windows = view.usage(['window'], { fromMs: startMs + 60_000, toMs: startMs + 180_000 });
    expect(windows.map(({ windowFromMs, flows }) => [windowFromMs, flows])).toEqual([
      [startMs + 60_000, 2n],
      [startMs + 120_000, 3n],
    ]);
    const whole = view.usage(['dst_account', 'src_account'], always);
    expect(whole.map(({ fields, windowToMs }) => [fields, windowToMs])).toEqual([
      [{ dst_account: 'acme', src_account: 'globex' }, startMs + 720_000],
      [{ dst_account: 'globex', src_account: 'acme' }, startMs + 720_000],
    ]);
    expect(view.usage([], { fromMs: 0, toMs: 1 })).toEqual([]);
  });

  test('tells the zero of a complete sample from the gap of an incomplete one', () => {
    const ledger = openLedgerThen();
    book(ledger, exampleHistory(0).outputs, 2);
    const quiet = new History(1, startMs).close({ windows: 5 }).close({ windows: 5, lostOnWireFlows: 3 });
    book(ledger, quiet.outputs, 2);
    const rows = new DatabaseSync(path, { readOnly: true });
    const first = startMs - (startMs % 300_000);
    const buckets = rows.prepare('SELECT (start_ms - ?) / 300000 AS bucket, complete, reasons FROM buckets_5m ORDER BY 1').all(first);
    rows.close();
    expect(buckets.map((row) => [row['bucket'], row['complete']])).toEqual([
      [0, Number(startMs === first)],
      [1, 0],
      [2, 0],
    ]);
    expect(buckets[1]!['reasons']).toContain('lost on the wire: 3 flows');
    const [acme] = ledger.view().accountUsage(false, always);
    expect(acme).toMatchObject({ account: 'acme', in: { bytes: 12n }, out: { bytes: 12n * 2n ** 53n + 66n + 100n }, samples: 3, completeSamples: 1 });
  });

  test('keeps a window whose sums do not agree, marked, and shows it', () => {
    const ledger = openLedgerThen();
    const history = new History(0, startMs).usage({ src: 'acme', dst: 'globex', flows: 1, bytes: 1n }).close({}, { usage_bytes: 2n });
    book(ledger, history.usage({ src: 'acme', dst: 'globex', flows: 1, bytes: 1n }).close().outputs);
    expect(ledger.unclosedWindows()).toEqual([{ partition: 0, windows: 1 }]);
    expect(dump()['windows']).toMatchObject([{ closed: 0n, disagreements: expect.stringContaining('1 bytes') }, { closed: 1n }]);
    expect(ledger.view().unclosedWindows(always)).toBe(1);
    expect(ledger.view().audit().partitions[0]).toMatchObject({ unclosedWindows: 1, billed: { flows: 2 } });
  });
});
