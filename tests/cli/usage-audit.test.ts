import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { InvalidArgumentError } from 'commander';
import fc from 'fast-check';
import { sha256 } from '../../adapters/digest.ts';
import { openLedger } from '../../adapters/ledger-sqlite.ts';
import { enter, newBooking } from '../../core/ledger/book.ts';
import { readPointInTime, writePointInTime } from '../../services/cli/point-in-time.ts';
import { grouped, renderTable } from '../../services/cli/table.ts';
import { History } from '../core/ledger/history.ts';

const main = join(import.meta.dirname, '../../services/cli/main.ts');
const startMs = 1_700_000_100_000;
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'flowledger-cli-'));
  const good = new History(0, startMs).usage({ src: 'acme', dst: 'globex', flows: 3, bytes: 2n ** 53n }).close({ windows: 4 });
  good.usage({ src: 'globex', dst: 'acme', flows: 1, bytes: 7n }).close();
  writeLedger('good.sqlite', good);
  writeLedger('bad.sqlite', new History(0, startMs).usage({ src: 'acme', dst: 'globex', flows: 3, bytes: 10n }).close({}, { usage_bytes: 11n }));
});

afterAll(() => rmSync(folder, { recursive: true }));

function writeLedger(name: string, history: History): void {
  const ledger = openLedger(join(folder, name));
  const booking = newBooking(ledger.open('topic-1', 1)[0]!.book);
  for (const output of history.outputs) expect(enter(booking, output, sha256)).toBeNull();
  ledger.write([{ booking, nextOffset: history.outputs.length }]);
  ledger.close();
}

/** As a user runs it, with no broker to be reached. */
async function flowledger(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { ...process.env, FLOWLEDGER_KAFKA_BROKERS: '127.0.0.1:1' };
  try {
    return { code: 0, ...(await promisify(execFile)(process.execPath, ['--no-warnings', main, ...words], { env })) };
  } catch (error) {
    return error as { code: number; stdout: string; stderr: string };
  }
}

const good = () => ['--ledger', join(folder, 'good.sqlite')];

describe('usage', () => {
  test('--json has a row for each group, exact totals, and times in UTC', async () => {
    const { code, stdout } = await flowledger('usage', '--json', ...good());
    expect(code).toBe(0);
    const sums = { flows: 3, bytes: String(2n ** 53n), packets: 6, scaled_bytes: String(10n * 2n ** 53n), scaled_packets: 60 };
    expect(JSON.parse(stdout)).toEqual({
      rows: [
        { window_from: '2023-11-14T22:15:00Z', window_to: '2023-11-14T22:16:00Z', src_account: 'acme', dst_account: 'globex', ...sums },
        expect.objectContaining({ src_account: 'globex', dst_account: 'acme', flows: 1, bytes: 7 }),
      ],
      totals: { flows: 4, bytes: String(2n ** 53n + 7n), packets: 8, scaled_bytes: String(10n * 2n ** 53n + 70n), scaled_packets: 80 },
      unclosed_windows: 0,
    });
  });

  test('is a table with totals without it, within the time that is asked for', async () => {
    const { stdout } = await flowledger('usage', '--by', 'window,src_account', '--from', '2023-11-14T22:16Z', ...good());
    const lines = stdout.trimEnd().split('\n');
    expect(lines.map((line) => line.split(/ {2,}/)[0])).toEqual(['window_from', '2023-11-14T22:19:00Z', 'total']);
    expect(lines[1]).toContain('globex');
  });

  test('--by account tells in from out, and how many samples are complete', async () => {
    const { stdout } = await flowledger('usage', '--by', 'account', '--json', ...good());
    const { rows } = JSON.parse(stdout);
    expect(rows[0]).toMatchObject({ account: 'acme', in_bytes: 7, out_bytes: String(2n ** 53n), samples: 1, complete_samples: 1 });
  });

  test('names the fields there are when one is asked for that is not', async () => {
    const { code, stderr } = await flowledger('usage', '--by', 'src_acount', ...good());
    expect(code).toBe(1);
    expect(stderr).toContain('accepted are src_account, dst_account, window, kind, account');
  });
});

describe('audit', () => {
  test('exits with 0 where the ledger balances, and says what it could not ask', async () => {
    const { code, stdout } = await flowledger('audit', '--json', ...good());
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ imbalance: { flows: 0, bytes: 0, packets: 0 }, divergence: 0, complete: false });
    expect(report.totals).toMatchObject({ decoded_flows: 4, billed_flows: 4, billed_bytes: String(2n ** 53n + 7n) });
    expect(report.waiting_for[0]).toContain('topic health cannot be read');
  });

  test('exits with 1 where a window does not add up, and names it', async () => {
    const { code, stdout } = await flowledger('audit', '--ledger', join(folder, 'bad.sqlite'));
    expect(code).toBe(1);
    expect(stdout).toContain('DOES NOT ADD UP');
    expect(stdout).toContain('partition 0: 1 windows are not closed');
  });

  test('exits with 2 where there is no ledger', async () => {
    const { code, stderr } = await flowledger('audit', '--ledger', join(folder, 'none', 'ledger.sqlite'));
    expect(code).toBe(2);
    expect(stderr).toContain('cannot be opened');
  });
});

describe('points in time', () => {
  const nowMs = Date.UTC(2026, 10, 23, 14);
  test.each([
    ['now', nowMs],
    ['-2h', nowMs - 7_200_000],
    ['-1d', nowMs - 86_400_000],
    ['2026-11-23', Date.UTC(2026, 10, 23)],
    ['2026-11-23T13:00', Date.UTC(2026, 10, 23, 13)],
    ['2026-11-23 13:00:30', Date.UTC(2026, 10, 23, 13, 0, 30)],
    ['2026-11-23T13:00+01:00', Date.UTC(2026, 10, 23, 12)],
    ['1700000100000', 1_700_000_100_000],
  ])('%s', (text, atMs) => expect(readPointInTime(text, nowMs)).toBe(atMs));

  test.each(['', 'yesterday', '2026-13-01', '-2w', '12'])('not %j', (text) =>
    expect(() => readPointInTime(text, nowMs)).toThrow(InvalidArgumentError),
  );

  test('are read as they are written', () => {
    fc.assert(fc.property(fc.integer({ min: 1e11, max: 4e12 }), (atMs) => expect(readPointInTime(writePointInTime(atMs), 0)).toBe(atMs)));
  });
});

test('tables have figures to the right, exact and grouped by thousands', () => {
  const rows = [
    ['acme', grouped(2n ** 53n + 1n)],
    ['x', grouped(-123)],
  ];
  expect(renderTable([{ title: 'who' }, { title: 'bytes', figures: true }], rows)).toBe(`who                   bytes
acme  9,007,199,254,740,993
x                      -123
`);
});
