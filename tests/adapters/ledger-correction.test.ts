/** A ledger that has booked what was wrong and then its correction is the ledger that has booked what is right. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { sha256 } from '../../adapters/digest.ts';
import type { Ledger } from '../../adapters/ledger.ts';
import { openLedger } from '../../adapters/ledger-sqlite.ts';
import { correctionOf, type Replacement, Uncorrectable } from '../../core/feed/correction.ts';
import { enter, newBooking } from '../../core/ledger/book.ts';
import { CorrectionRecords, judgeCorrection, type WholeCorrection } from '../../core/ledger/correction.ts';
import type { Output } from '../../schemas/types.ts';
import { verdict } from '../core/judge/verdict.ts';
import { History } from '../core/ledger/history.ts';

interface Window {
  readonly usages: readonly { readonly src: string; readonly dst: string; readonly flows: number; readonly bytes: bigint }[];
  readonly lost: number;
  readonly collectors: readonly string[];
}

/** From window `wrongFrom` on its first usage has more flows; where `isTold`, the close does not know of them. */
function historyOf(windows: readonly Window[], wrongFrom = Number.POSITIVE_INFINITY, isTold = true): History {
  const history = new History();
  for (const [i, { usages, lost, collectors }] of windows.entries()) {
    const isWrong = i >= wrongFrom;
    const right = new History();
    for (const [at, usage] of usages.entries()) {
      history.usage(isWrong && at === 0 ? { ...usage, flows: usage.flows + 1, bytes: usage.bytes + 7n } : usage);
      right.usage(usage);
    }
    const stated = right.close({ lost: { flows: lost, bytes: 0n } }).outputs.at(-1)!.window_close!;
    const { usage_flows, usage_bytes, usage_packets, exporters } = stated;
    history.close({ lost: { flows: lost, bytes: 0n }, collectors }, isWrong && !isTold ? { usage_flows, usage_bytes, usage_packets, exporters } : {});
  }
  return history;
}

function booked(outputs: readonly Output[]): Ledger {
  const ledger = openLedger(':memory:');
  book(ledger, outputs);
  return ledger;
}

function book(ledger: Ledger, outputs: readonly Output[]): void {
  const booking = newBooking(ledger.open('id', 1)[0]!.book);
  for (const output of outputs) expect(enter(booking, output, sha256)).toBeNull();
  ledger.write([{ booking, nextOffset: outputs.length }]);
}

function replacementOf(wrong: readonly Output[], right: readonly Output[]): Replacement | null {
  const from = wrong.findIndex((output, i) => !Buffer.from(output.chain).equals(right[i]!.chain));
  if (from < 0) return null;
  const { n, chain } = wrong.at(-1)!;
  const facts = verdict({ n: from + 1, given_chain: wrong[from]!.chain, judged_chain: right[from]!.chain });
  return { replica: 'b', verdict: facts, tail: { n, chain, offset: n - 1, watermarkMs: 0 } };
}

function wholeOf(records: readonly Output[]): WholeCorrection {
  const gathered = new CorrectionRecords(0);
  const found = records.map((record) => gathered.take(record));
  expect(found.slice(0, -1).every((one) => one === null)).toBe(true);
  return found.at(-1) as WholeCorrection;
}

const ever = { fromMs: null, toMs: null };

function contents(ledger: Ledger, lastN: number) {
  const view = ledger.view();
  return {
    position: { ...ledger.open('id', 1)[0]!.book, replacedChain: null },
    usage: view.usage(['window', 'src_account', 'dst_account', 'kind'], ever),
    accounts: view.accountUsage(true, ever).filter((row) => row.in.flows !== 0n || row.out.flows !== 0n),
    audit: view.audit(),
    unclosed: view.unclosedWindows(ever),
    chains: Array.from({ length: lastN }, (_, i) => Buffer.from(view.chainAt(0, i + 1)!).toString('hex')),
  };
}

const account = fc.constantFrom('acme', 'globex', 'unassigned');
const usage = fc.record({ src: account, dst: account, flows: fc.integer({ min: 1, max: 9 }), bytes: fc.bigInt(0n, 2n ** 55n) });
const window = fc.record({
  usages: fc.array(usage, { minLength: 0, maxLength: 4 }),
  lost: fc.nat(2),
  collectors: fc.subarray(['east', 'west']),
});

test('whatever was wrong, whether or not the closes knew of it', () => {
  const windows = fc.array(window, { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(windows, fc.nat(7), fc.boolean(), fc.nat(3), (given, wrongFrom, isTold, cut) => {
      const [right, wrong] = [historyOf(given).outputs, historyOf(given, wrongFrom, isTold).outputs];
      const length = Math.max(1, wrong.length - cut);
      const replacement = replacementOf(wrong.slice(0, length), right);
      fc.pre(replacement !== null);
      const from = replacement.verdict.n - 1;
      const records = correctionOf(wrong.slice(from, length), right.slice(from, length), replacement);
      const ledger = booked(wrong.slice(0, length));
      const correction = wholeOf(records);
      expect(judgeCorrection(ledger.open('id', 1)[0]!.book, correction)).toBe('next');
      const found = ledger.correct(correction, length + records.length, sha256);
      expect('code' in found ? found.message : '').toBe('');
      expect(judgeCorrection(ledger.open('id', 1)[0]!.book, correction)).toBe('booked_before');
      expect(contents(ledger, length)).toEqual(contents(booked(right.slice(0, length)), length));
      // And it goes on.
      book(ledger, [wrong[length - 1]!, ...right.slice(length)]);
      expect(contents(ledger, right.length)).toEqual(contents(booked(right), right.length));
      expect(ledger.view().corrections()).toEqual([{ partition: 0, fromN: from + 1, lastN: length, records: records.length }]);
    }),
    { numRuns: 150 },
  );
});

describe('a correction that is none', () => {
  const windows = [1, 2, 3].map((flows) => ({ usages: [{ src: 'acme', dst: 'globex', flows, bytes: 10n }], lost: 0, collectors: ['east'] }));
  const [right, wrong] = [historyOf(windows).outputs, historyOf(windows, 1).outputs];
  const replacement = replacementOf(wrong, right)!;
  const from = replacement.verdict.n - 1;
  const records = correctionOf(wrong.slice(from), right.slice(from), replacement);

  test('changes nothing where one octet of what it states does not give its chain', () => {
    const ledger = booked(wrong);
    const before = contents(ledger, wrong.length);
    const falsified = records.map((record) =>
      record.aggregate && !record.correction!.retracts ? { ...record, aggregate: { ...record.aggregate, bytes: 11n } } : record,
    );
    expect(ledger.correct(wholeOf(falsified), 99, sha256)).toMatchObject({ code: 'chain' });
    expect(contents(ledger, wrong.length)).toEqual(before);
    expect(ledger.view().corrections()).toEqual([]);
  });

  test('changes nothing where it does not state what it takes back', () => {
    const ledger = booked(wrong);
    const before = contents(ledger, wrong.length);
    const whole = wholeOf(records);
    const lacking = { ...whole, stated: new Map([...whole.stated].slice(1)) };
    expect(ledger.correct(lacking, 99, sha256)).toMatchObject({ code: 'correction', n: replacement.verdict.n });
    expect(contents(ledger, wrong.length)).toEqual(before);
  });

  test('is a fault where a record of it is missing, and where it is about another history', () => {
    const gathered = new CorrectionRecords(0);
    expect(gathered.take(records[0]!)).toBeNull();
    expect(gathered.take(records[2]!)).toMatchObject({ code: 'correction' });
    const book = booked(right).open('id', 1)[0]!.book;
    expect(judgeCorrection(book, { ...wholeOf(records), chain: Buffer.alloc(16, 9) })).toMatchObject({ code: 'chain' });
  });

  test('is not made of histories that are not what the verdict says', () => {
    expect(() => correctionOf(wrong.slice(from), right.slice(from, -1), replacement)).toThrow(Uncorrectable);
    const other = { ...replacement, verdict: { ...replacement.verdict, judged_chain: Buffer.alloc(16, 9) } };
    expect(() => correctionOf(wrong.slice(from), right.slice(from), other)).toThrow(/is not what the verdict found wrong/);
  });
});
