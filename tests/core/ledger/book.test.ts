import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { sha256 } from '../../../adapters/digest.ts';
import { type Booking, enter, imbalanceOf, newBook, newBooking } from '../../../core/ledger/book.ts';
import type { WindowClose } from '../../../schemas/types.ts';
import { History } from './history.ts';

function bookAll(history: History): Booking {
  const booking = newBooking(newBook(history.partition));
  for (const output of history.outputs) expect(enter(booking, output, sha256)).toBeNull();
  return booking;
}

const usage = { src: 'acme', dst: 'globex', flows: 3, bytes: 1000n };

describe('a window', () => {
  test('closes when usage, adjustments and balance agree', () => {
    const history = new History()
      .usage(usage)
      .close({ open: { flows: 5, bytes: 50n }, rejected: 2 })
      .adjustment({ ...usage, windowStartMs: 1_700_000_100_000 })
      .usage({ ...usage, flows: 2, bytes: 20n })
      .close({ lost: { flows: 7, bytes: 70n } });
    const { windows, book } = bookAll(history);
    expect(windows.map(({ disagreements }) => disagreements)).toEqual([[], []]);
    expect(book.balance.decoded).toEqual({ flows: 17, bytes: 2090n, packets: 30n });
    expect(imbalanceOf(book.balance, book.open)).toEqual({ flows: 0, bytes: 0n, packets: 0n });
    expect(book).toMatchObject({ n: 5, closeN: 5 });
  });

  const falsified: [string, Partial<WindowClose>, string][] = [
    ['its usage aggregates are more than were booked', { usage_aggregates: 2 }, 'usage: booked 1 aggregates'],
    ['its usage bytes are one less than were booked', { usage_bytes: 999n }, 'usage: booked 1 aggregates'],
    ['its usage packets differ', { usage_packets: 7n }, 'usage: booked 1 aggregates'],
    ['its adjustments were not booked', { adjustment_aggregates: 1, adjustment_flows: 4 }, 'adjustments: booked 0 aggregates'],
    ['what is open does not balance', { open_bytes: 1n }, 'leaves 0 flows, -1 bytes, 0 packets'],
    ['it is not the window of the usage before it', { window_start_ms: 1_700_000_160_000 }, 'is in front of the close of'],
    ['its exporters gave out nothing', { exporters: [] }, 'usage: booked 3 flows, 1000 bytes, 6 packets, the exporters of the close gave 0 flows'],
  ];
  test.each(falsified)('does not close when %s', (_case, change, message) => {
    const { windows } = bookAll(new History().usage(usage).close({}, change));
    expect(windows[0]!.disagreements.join('; ')).toContain(message);
  });

  test('stays unclosed alone when only its own sums disagree', () => {
    const history = new History().usage(usage).close({}, { usage_flows: 4 }).usage(usage).close();
    expect(bookAll(history).windows.map(({ disagreements }) => disagreements.length)).toEqual([1, 0]);
  });
});

test('a fault leaves what came before it in the booking, and the book it started from as it was', () => {
  const history = new History().usage(usage).usage(usage).close();
  const book = newBook(0);
  const booking = newBooking(book);
  expect(enter(booking, history.outputs[0]!, sha256)).toBeNull();
  expect(enter(booking, history.outputs[2]!, sha256)).toMatchObject({ code: 'gap', n: 3 });
  expect(booking.book).toMatchObject({ n: 1, usage: { flows: 3 } });
  expect(book).toEqual(newBook(0));
});

test('any history is booked to the same sums as plain addition gives, however it is cut and repeated', () => {
  const account = fc.constantFrom('acme', 'globex', 'unassigned');
  const amount = fc.record({ src: account, dst: account, flows: fc.nat(1000), bytes: fc.bigInt(0n, 2n ** 55n) });
  const window = fc.record({
    usages: fc.array(amount, { maxLength: 4 }),
    late: fc.array(amount, { maxLength: 2 }),
    lost: fc.nat(9),
    open: fc.nat(9),
  });
  const cuts = fc.array(fc.record({ back: fc.nat(5), length: fc.integer({ min: 1, max: 7 }) }), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(fc.array(window, { minLength: 1, maxLength: 8 }), cuts, (windows, pieces) => {
      const history = new History();
      let bytes = 0n;
      for (const { usages, late, lost, open } of windows) {
        for (const each of late) history.adjustment({ ...each, windowStartMs: history.windowStartMs - 120_000 });
        for (const each of usages) history.usage(each);
        for (const each of [...usages, ...late]) bytes += each.bytes;
        history.close({ lost: { flows: lost, bytes: BigInt(lost) }, open: { flows: open, bytes: BigInt(open) } });
      }
      let book = newBook(0);
      const all: Booking[] = [];
      const take = (from: number, length: number) => {
        const booking = newBooking(book);
        for (const output of history.outputs.slice(from, from + length)) expect(enter(booking, output, sha256)).toBeNull();
        book = booking.book;
        all.push(booking);
      };
      for (const { back, length } of pieces) take(Math.max(0, book.n - back), length);
      take(book.n, history.outputs.length);
      expect(all.flatMap((booking) => booking.windows).filter(({ disagreements }) => disagreements.length > 0)).toEqual([]);
      const samples = all.flatMap((booking) => [...booking.samples.values()]);
      for (const direction of ['in', 'out']) {
        const total = samples.filter((sample) => sample.direction === direction).reduce((sum, sample) => sum + sample.bytes, 0n);
        expect(total).toBe(bytes);
      }
      expect(book.balance.aggregated.bytes + book.balance.late.bytes).toBe(bytes);
      expect(book.n).toBe(history.outputs.length);
    }),
    { numRuns: 200 },
  );
});
