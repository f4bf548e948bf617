/**
 * The ledger in SQLite. One process writes it, any number read it meanwhile. What was written is on disk when write() returns
 * (WAL, synchronous=FULL).
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import type { Digest } from '../core/aggregate/chain.ts';
import { type Book, type BookedWindow, type Booking, newBook, noneUnclosed, type Unclosed } from '../core/ledger/book.ts';
import type { LedgerFault } from '../core/ledger/continuity.ts';
import { rebook, retractedCloses, type WholeCorrection } from '../core/ledger/correction.ts';
import { type Coverage, type Covering, completeness, cover, touchedSamples } from '../core/ledger/coverage.ts';
import { addSamples, type SampleDelta, type SampleDeltas, sampleMs } from '../core/ledger/samples.ts';
import type { ExporterBalance, GroupField, Output } from '../schemas/types.ts';
import { type Ledger, type LedgerEntry, LedgerError, type LedgerView, type PartitionPosition } from './ledger.ts';
import { balanceOf, countersOf, type Row, SqlLedgerView } from './ledger-sqlite/queries.ts';
import { closeColumns, exporterSums, schema, schemaVersion } from './ledger-sqlite/schema.ts';

/**
 * Opens a ledger for writing, and makes it where there is none; `:memory:` keeps it in memory.
 * @throws LedgerError when another process writes it, or it is of another version.
 */
export function openLedger(path: string): Ledger {
  if (path === ':memory:') return new SqliteLedger(openDatabase(path), null);
  mkdirSync(dirname(path), { recursive: true });
  const lock = takeLock(path);
  try {
    return new SqliteLedger(openDatabase(path), lock);
  } catch (error) {
    lock.close();
    throw error;
  }
}

/** Opens a ledger for reading. @throws LedgerError when there is none, or it is of another version. */
export function openLedgerView(path: string): LedgerView {
  let database: DatabaseSync;
  try {
    database = new DatabaseSync(path, { readOnly: true, readBigInts: true, timeout: 10_000 });
  } catch (error) {
    throw new LedgerError(
      `ledger ${path} cannot be opened: ${(error as Error).message}. Has accounting run, and does accounting.ledger name its file?`,
    );
  }
  checkVersion(database, path);
  return viewOf(database, () => database.close());
}

function viewOf(database: DatabaseSync, close: () => void): LedgerView {
  const rows = (sql: string, ...values: (string | number | bigint)[]) => database.prepare(sql).all(...values) as Row[];
  return new SqlLedgerView(rows, (sql) => database.exec(sql), close);
}

/** The lock is on a file of its own, so that it ends with the process, however that ends, and readers do not meet it. */
function takeLock(path: string): DatabaseSync {
  const lock = new DatabaseSync(`${path}.lock`, { timeout: 0 });
  try {
    lock.exec('BEGIN EXCLUSIVE');
    return lock;
  } catch {
    lock.close();
    throw new LedgerError(`ledger ${path} is being written by another accounting service: stop that one, or give this one another accounting.ledger`);
  }
}

function openDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { readBigInts: true, timeout: 10_000 });
  database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536');
  if (versionOf(database) === 0) database.exec(`BEGIN IMMEDIATE; ${schema} COMMIT`);
  checkVersion(database, path);
  return database;
}

function versionOf(database: DatabaseSync): number {
  return Number(database.prepare('PRAGMA user_version').get()?.['user_version']);
}

function checkVersion(database: DatabaseSync, path: string): void {
  const version = versionOf(database);
  if (version === schemaVersion) return;
  database.close();
  throw new LedgerError(`ledger ${path} has version ${version}, this program reads version ${schemaVersion}: use the program that wrote it`);
}

/** Groups whose ids are remembered between bookings: 200,000 keys take some 40 MB. */
const groupsKnownMax = 200_000;

class SqliteLedger implements Ledger {
  readonly #database: DatabaseSync;
  readonly #lock: DatabaseSync | null;
  readonly #statements: Statements;
  readonly #groups = new Map<string, bigint>();
  #topicId = '';
  #partitions = 0;

  constructor(database: DatabaseSync, lock: DatabaseSync | null) {
    this.#database = database;
    this.#lock = lock;
    this.#statements = prepareStatements(database);
  }

  open(topicId: string, partitions: number): PartitionPosition[] {
    this.#topicId = topicId;
    this.#partitions = partitions;
    return Array.from({ length: partitions }, (_, partition) => this.#position(partition));
  }

  #position(partition: number): PartitionPosition {
    const row = this.#statements.position.get(partition) as Row | undefined;
    if (!row) return { book: newBook(partition), nextOffset: 0 };
    const closeN = Number(row['close_n']);
    const book: Book = {
      partition,
      n: Number(row['n']),
      chain: Buffer.from(row['chain'] as Uint8Array),
      replacedChain: (this.#statements.replacedChain.get(partition, row['n'] as bigint)?.['replaced_chain'] as Uint8Array | undefined) ?? null,
      closeN,
      windowEndMs: Number(row['window_end_ms']),
      watermarkMs: Number(row['watermark_ms']),
      open: countersOf(row, 'open_'),
      doubts: Number(row['doubts']),
      usage: this.#unclosed(partition, closeN, 'usage'),
      adjustment: this.#unclosed(partition, closeN, 'adjustment'),
      balance: balanceOf(this.#statements.balance.get(partition) as Row),
    };
    return { book, nextOffset: row['topic_id'] === this.#topicId ? Number(row['next_offset']) : 0 };
  }

  #unclosed(partition: number, closeN: number, kind: string): Unclosed {
    const row = this.#statements.unclosed.get(partition, closeN, kind) as Row;
    if (Number(row['aggregates']) === 0) return noneUnclosed();
    return {
      aggregates: Number(row['aggregates']),
      windowStartMs: Number(row['window_start_ms']),
      windowEndMs: Number(row['window_end_ms']),
      ...countersOf(row, ''),
    };
  }

  write(entries: readonly LedgerEntry[]): void {
    this.#inTransaction(() => {
      for (const { booking, nextOffset } of entries) this.#writeBooking(booking, nextOffset);
      return true;
    });
  }

  correct(correction: WholeCorrection, nextOffset: number, digest: Digest): Book | LedgerFault {
    const { partition, fromN, lastN, replacedChain, chain, retracted, stated } = correction;
    let found: Book | LedgerFault | null = null;
    this.#inTransaction(() => {
      this.#requireN(partition, lastN);
      const kept = this.#rewind(correction);
      const booking = rebook(this.#position(partition).book, correction, kept, digest);
      found = 'code' in booking ? booking : booking.book;
      if ('code' in booking) return false;
      this.#writeBooking(booking, nextOffset);
      this.#statements.writeCorrection.run(partition, fromN, lastN, replacedChain, chain, retracted.length + stated.size);
      return true;
    });
    return found!;
  }

  /** Carries out all of it, or nothing where it throws or says so. */
  #inTransaction(action: () => boolean): void {
    this.#database.exec('BEGIN IMMEDIATE');
    let isDone = false;
    try {
      isDone = action();
      if (isDone) this.#database.exec('COMMIT');
    } finally {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      // Ids that were given within it are none.
      if (!isDone || this.#groups.size > groupsKnownMax) this.#groups.clear();
    }
  }

  /** Takes back everything that was booked from the correction's first n on. Returns the aggregates that it does not name, by n. */
  #rewind(correction: WholeCorrection): Map<number, Output> {
    const { partition, fromN } = correction;
    const { aggregatesFrom, windowsFrom, deleteAggregates, deleteWindows } = this.#statements;
    const kept = new Map<number, Output>();
    const samples: SampleDeltas = new Map();
    for (const row of aggregatesFrom.all(partition, fromN) as Row[]) {
      const output = outputOf(row);
      addSamples(samples, output.aggregate!, -1);
      kept.set(output.n, output);
    }
    for (const { n } of correction.retracted) kept.delete(n);
    for (const delta of samples.values()) this.#writeSample(delta);
    const touched = new Set((windowsFrom.all(partition, fromN) as Row[]).flatMap((row) => touchedSamples(coveringOf(row))));
    for (const { close } of retractedCloses(correction)) for (const exporter of close.exporters) this.#writeExporter(partition, exporter);
    deleteAggregates.run(partition, fromN);
    deleteWindows.run(partition, fromN);
    for (const startMs of touched) this.#coverAnew(startMs, partition);
    this.#rewindPosition(partition, fromN - 1);
    return kept;
  }

  #rewindPosition(partition: number, n: number): void {
    const { aggregateAt, windowAt, lastWindow, writePosition } = this.#statements;
    const at = (aggregateAt.get(partition, n) ?? windowAt.get(partition, n)) as Row | undefined;
    const close = lastWindow.get(partition, n) as Row | undefined;
    const of = (name: string) => (close?.[name] ?? 0n) as bigint;
    const chain = (at?.['chain'] as Uint8Array | undefined) ?? newBook(partition).chain;
    const open = [of('open_flows'), of('open_bytes'), of('open_packets')];
    writePosition.run(partition, n, chain, this.#topicId, 0, of('n'), of('window_end_ms'), of('watermark_ms'), ...open, of('doubts'));
  }

  /** From the windows that are left. */
  #coverAnew(startMs: number, partition: number): void {
    const rows = this.#statements.windowsWithin.all(partition, startMs + sampleMs, startMs) as Row[];
    let coverage: Coverage | null = null;
    for (const row of rows) {
      const close = coveringOf(row);
      if (touchedSamples(close).includes(startMs)) coverage = cover(coverage, startMs, close, row['closed'] === 1n);
    }
    if (coverage) this.#writeCoverage(startMs, partition, coverage);
    else this.#statements.deleteCoverage.run(startMs, partition);
    this.#writeBucket(startMs);
  }

  /** I11: what does not continue the rows is not written, whoever asks for it. */
  #writeBooking(booking: Booking, nextOffset: number): void {
    const { partition, previousN, book } = booking;
    this.#requireN(partition, previousN);
    this.#writeAggregates(booking);
    for (const window of booking.windows) this.#writeWindow(partition, window);
    for (const delta of booking.samples.values()) this.#writeSample(delta);
    this.#statements.writePosition.run(
      partition,
      book.n,
      book.chain,
      this.#topicId,
      nextOffset,
      book.closeN,
      book.windowEndMs,
      book.watermarkMs,
      book.open.flows,
      book.open.bytes,
      book.open.packets,
      book.doubts,
    );
  }

  #requireN(partition: number, expected: number): void {
    const n = Number(this.#statements.position.get(partition)?.['n'] ?? 0);
    if (n !== expected)
      throw new LedgerError(`partition ${partition} stands at n ${n} and cannot be booked from n ${expected} on: start accounting again`);
  }

  #writeAggregates({ partition, aggregates }: Booking): void {
    const statement = this.#statements.writeAggregate;
    for (const { n, chain, aggregate } of aggregates) {
      statement.run(
        partition,
        n,
        chain,
        aggregate.kind,
        aggregate.window_start_ms,
        aggregate.window_end_ms,
        this.#groupId(aggregate.group),
        aggregate.flows,
        aggregate.bytes,
        aggregate.packets,
        aggregate.scaled_bytes,
        aggregate.scaled_packets,
      );
    }
  }

  #groupId(group: readonly GroupField[]): bigint {
    const fields: Record<string, string> = {};
    for (const { name, value } of group) fields[name] = value;
    const text = JSON.stringify(fields);
    let id = this.#groups.get(text);
    if (id === undefined) {
      id = this.#statements.group.get(text)?.['group_id'] as bigint | undefined;
      if (id === undefined) {
        id = this.#statements.writeGroup.run(text).lastInsertRowid as bigint;
        for (const { name } of group) this.#statements.writeGroupField.run(name);
      }
      this.#groups.set(text, id);
    }
    return id;
  }

  #writeWindow(partition: number, { n, chain, close, disagreements }: BookedWindow): void {
    const closed = disagreements.length === 0;
    const columns = closeColumns.map((name) => close[name]);
    this.#statements.writeWindow.run(
      partition,
      n,
      chain,
      Number(closed),
      JSON.stringify(disagreements),
      JSON.stringify(close.collectors),
      ...columns,
    );
    for (const exporter of close.exporters) this.#writeExporter(partition, exporter);
    for (const startMs of touchedSamples(close)) {
      const before = this.#statements.coverage.get(startMs, partition);
      this.#writeCoverage(startMs, partition, cover(before ? coverageOf(before as Row) : null, startMs, close, closed));
      this.#writeBucket(startMs);
    }
  }

  #writeExporter(partition: number, exporter: ExporterBalance): void {
    const sums = exporterSums.map((name) => exporter[name]);
    this.#statements.writeExporter.run(exporter.sampler_address, exporter.observation_domain_id, exporter.protocol, partition, ...sums);
  }

  #writeSample(delta: SampleDelta): void {
    const { account, direction, startMs, flows, bytes, packets, scaledBytes, scaledPackets } = delta;
    this.#statements.writeSample.run(account, direction, startMs, flows, bytes, packets, scaledBytes, scaledPackets);
  }

  #writeCoverage(startMs: number, partition: number, coverage: Coverage): void {
    this.#statements.writeCoverage.run(
      startMs,
      partition,
      coverage.coveredMs,
      coverage.closedMs,
      coverage.unheardMs,
      JSON.stringify(coverage.collectors),
      JSON.stringify(coverage.collectorsThroughout),
      coverage.lostOnWireFlows,
      coverage.lostOnWireDatagrams,
      coverage.lostFlows,
      coverage.clampedFlows,
      coverage.unsampledFlows,
      coverage.doubts,
    );
  }

  #writeBucket(startMs: number): void {
    const parts = this.#statements.coverages.all(startMs).map((row) => coverageOf(row as Row));
    const of = completeness(parts, this.#partitions);
    this.#statements.writeBucket.run(
      startMs,
      Number(of.complete),
      JSON.stringify(of.reasons),
      JSON.stringify(of.collectors),
      of.lostOnWireFlows,
      of.lostOnWireDatagrams,
      of.lostFlows,
      of.doubts,
    );
  }

  unclosedWindows(): { partition: number; windows: number }[] {
    const rows = this.#statements.unclosedWindows.all() as Row[];
    return rows.map((row) => ({ partition: Number(row['partition']), windows: Number(row['windows']) }));
  }

  view(): LedgerView {
    return viewOf(this.#database, () => undefined);
  }

  close(): void {
    this.#database.close();
    this.#lock?.close();
  }
}

function coverageOf(row: Row): Coverage {
  return {
    coveredMs: Number(row['covered_ms']),
    closedMs: Number(row['closed_ms']),
    unheardMs: Number(row['unheard_ms']),
    collectors: JSON.parse(row['collectors'] as string),
    collectorsThroughout: JSON.parse(row['collectors_throughout'] as string),
    lostOnWireFlows: Number(row['lost_on_wire_flows']),
    lostOnWireDatagrams: Number(row['lost_on_wire_datagrams']),
    lostFlows: Number(row['lost_flows']),
    clampedFlows: Number(row['clamped_flows']),
    unsampledFlows: Number(row['unsampled_flows']),
    doubts: Number(row['doubts']),
  };
}

function outputOf(row: Row): Output {
  const fields = JSON.parse(row['fields'] as string) as Record<string, string>;
  return {
    partition: Number(row['partition']),
    n: Number(row['n']),
    chain: row['chain'] as Uint8Array,
    aggregate: {
      kind: row['kind'] as string,
      window_start_ms: Number(row['window_start_ms']),
      window_end_ms: Number(row['window_end_ms']),
      group: Object.entries(fields).map(([name, value]) => ({ name, value })),
      flows: Number(row['flows']),
      bytes: row['bytes'] as bigint,
      packets: row['packets'] as bigint,
      scaled_bytes: row['scaled_bytes'] as bigint,
      scaled_packets: row['scaled_packets'] as bigint,
    },
    window_close: null,
    correction: null,
  };
}

/** What of a WindowClose tells which samples it covers, and how. */
function coveringOf(row: Row): Covering {
  return {
    window_start_ms: Number(row['window_start_ms']),
    window_end_ms: Number(row['window_end_ms']),
    collectors: JSON.parse(row['collectors'] as string),
    lost_on_wire_flows: Number(row['lost_on_wire_flows']),
    lost_on_wire_datagrams: Number(row['lost_on_wire_datagrams']),
    lost_flows: Number(row['lost_flows']),
    clamped_flows: Number(row['clamped_flows']),
    unsampled_flows: Number(row['unsampled_flows']),
    doubts: Number(row['doubts']),
  };
}

type Statements = ReturnType<typeof prepareStatements>;

const positionColumns = [
  'partition',
  'n',
  'chain',
  'topic_id',
  'next_offset',
  'close_n',
  'window_end_ms',
  'watermark_ms',
  'open_flows',
  'open_bytes',
  'open_packets',
  'doubts',
];
const aggregateColumns = ['partition', 'n', 'chain', 'kind', 'window_start_ms', 'window_end_ms', 'group_id', 'flows', 'bytes', 'packets'];
const scaled = ['scaled_bytes', 'scaled_packets'];
const sampleSums = ['flows', 'bytes', 'packets', ...scaled];
const coverageColumns = ['start_ms', 'partition', 'covered_ms', 'closed_ms', 'unheard_ms', 'collectors', 'collectors_throughout'];
const lossColumns = ['lost_on_wire_flows', 'lost_on_wire_datagrams', 'lost_flows'];

function prepareStatements(database: DatabaseSync) {
  const prepare = (sql: string): StatementSync => database.prepare(sql);
  const sumOf = (names: readonly string[]) => names.map((name) => `coalesce(sum(${name}), 0) AS ${name}`).join(', ');
  const exporterKey = ['sampler_address', 'observation_domain_id', 'protocol', 'partition'];
  const coverage = [...coverageColumns, ...lossColumns, 'clamped_flows', 'unsampled_flows', 'doubts'];
  return {
    position: prepare('SELECT * FROM positions WHERE partition = ?'),
    balance: prepare(`SELECT ${sumOf(exporterSums)} FROM exporter_balance WHERE partition = ?`),
    unclosed: prepare(
      `SELECT count(*) AS aggregates,
         min(window_start_ms) AS window_start_ms, max(window_end_ms) AS window_end_ms, ${sumOf(['flows', 'bytes', 'packets'])}
       FROM aggregate_rows WHERE partition = ? AND n > ? AND kind = ?`,
    ),
    replacedChain: prepare('SELECT replaced_chain FROM corrections WHERE partition = ? AND last_n = ? ORDER BY correction_id DESC LIMIT 1'),
    aggregatesFrom: prepare('SELECT * FROM aggregate_rows JOIN group_rows USING (group_id) WHERE partition = ? AND n >= ? ORDER BY n'),
    windowsFrom: prepare('SELECT * FROM windows WHERE partition = ? AND n >= ? ORDER BY n'),
    windowsWithin: prepare('SELECT * FROM windows WHERE partition = ? AND window_start_ms < ? AND window_end_ms > ? ORDER BY n'),
    aggregateAt: prepare('SELECT chain FROM aggregate_rows WHERE partition = ? AND n = ?'),
    windowAt: prepare('SELECT chain FROM windows WHERE partition = ? AND n = ?'),
    lastWindow: prepare('SELECT * FROM windows WHERE partition = ? AND n <= ? ORDER BY n DESC LIMIT 1'),
    deleteAggregates: prepare('DELETE FROM aggregate_rows WHERE partition = ? AND n >= ?'),
    deleteWindows: prepare('DELETE FROM windows WHERE partition = ? AND n >= ?'),
    deleteCoverage: prepare('DELETE FROM coverage_5m WHERE start_ms = ? AND partition = ?'),
    writeCorrection: prepare(insert('corrections', ['partition', 'from_n', 'last_n', 'replaced_chain', 'chain', 'records'])),
    unclosedWindows: prepare('SELECT partition, count(*) AS windows FROM windows WHERE closed = 0 GROUP BY partition'),
    group: prepare('SELECT group_id FROM group_rows WHERE fields = ?'),
    coverage: prepare('SELECT * FROM coverage_5m WHERE start_ms = ? AND partition = ?'),
    coverages: prepare('SELECT * FROM coverage_5m WHERE start_ms = ? ORDER BY partition'),
    writeGroup: prepare(insert('group_rows', ['fields'])),
    writeGroupField: prepare(insert('group_field_rows', ['name'], 'OR IGNORE')),
    writePosition: prepare(insert('positions', positionColumns, 'OR REPLACE')),
    writeAggregate: prepare(insert('aggregate_rows', [...aggregateColumns, ...scaled])),
    writeWindow: prepare(insert('windows', ['partition', 'n', 'chain', 'closed', 'disagreements', 'collectors', ...closeColumns])),
    writeExporter: prepare(addUp('exporter_balance', exporterKey, exporterSums)),
    writeSample: prepare(addUp('sample_rows', ['account', 'direction', 'start_ms'], sampleSums)),
    writeCoverage: prepare(insert('coverage_5m', coverage, 'OR REPLACE')),
    writeBucket: prepare(insert('buckets_5m', ['start_ms', 'complete', 'reasons', 'collectors', ...lossColumns, 'doubts'], 'OR REPLACE')),
  };
}

function insert(table: string, columns: readonly string[], or = ''): string {
  return `INSERT ${or} INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`;
}

function addUp(table: string, key: readonly string[], sums: readonly string[]): string {
  const update = sums.map((name) => `${name} = ${name} + excluded.${name}`).join(', ');
  return `${insert(table, [...key, ...sums])} ON CONFLICT (${key.join(', ')}) DO UPDATE SET ${update}`;
}
