/** What usage and audit ask of the ledger, in SQL. */
import type { PartitionAccount } from '../../core/ledger/audit.ts';
import type { Balance } from '../../core/ledger/book.ts';
import type { Counters } from '../../core/ledger/counters.ts';
import { sampleMs } from '../../core/ledger/samples.ts';
import type { ExporterBalance } from '../../schemas/types.ts';
import type { AccountUsageRow, BookedCorrection, LedgerView, Period, UsageRow, UsageSums } from '../ledger.ts';
import { exporterSums } from './schema.ts';

/** Integers are bigint. */
export type Row = Record<string, null | bigint | string | Uint8Array>;
export type Rows = (sql: string, ...values: (string | number | bigint)[]) => Row[];

export function countersOf(row: Row, prefix: string): Counters {
  return { flows: Number(row[`${prefix}flows`]), bytes: row[`${prefix}bytes`] as bigint, packets: row[`${prefix}packets`] as bigint };
}

export function balanceOf(row: Row): Balance {
  return {
    decoded: countersOf(row, 'decoded_'),
    aggregated: countersOf(row, 'aggregated_'),
    late: countersOf(row, 'late_'),
    rejected: countersOf(row, 'rejected_'),
    lost: countersOf(row, 'lost_'),
  };
}

const usageSums = ['flows', 'bytes', 'packets', 'scaled_bytes', 'scaled_packets'] as const;
const sumUsage = usageSums.map((name) => `sum(${name}) AS ${name}`).join(', ');
const sumExporter = exporterSums.map((name) => `coalesce(sum(${name}), 0) AS ${name}`).join(', ');

export class SqlLedgerView implements LedgerView {
  readonly #rows: Rows;
  readonly #execute: (sql: string) => void;
  readonly #close: () => void;

  constructor(rows: Rows, execute: (sql: string) => void, close: () => void) {
    this.#rows = rows;
    this.#execute = execute;
    this.#close = close;
  }

  groupFields(): string[] {
    return this.#rows('SELECT name FROM group_field_rows ORDER BY position').map((row) => row['name'] as string);
  }

  /** Sums by group before it looks at the group's fields, of which there are far fewer than aggregates. */
  usage(by: readonly string[], period: Period): UsageRow[] {
    const keys = ['group_id', ...(by.includes('window') ? ['window_start_ms', 'window_end_ms'] : []), ...(by.includes('kind') ? ['kind'] : [])];
    const columns = by.filter((name) => name !== 'window').map((name) => `${columnOf(name)} AS ${quote(name)}`);
    const order = [...(by.includes('window') ? ['window_from_ms'] : []), ...by.filter((name) => name !== 'window').map(quote)];
    const { where, values } = within('window_start_ms', period);
    const rows = this.#rows(
      `SELECT ${[...columns, 'min(first_ms) AS window_from_ms', 'max(last_ms) AS window_to_ms'].join(', ')}, ${sumUsage}
       FROM (SELECT ${keys.join(', ')}, min(window_start_ms) AS first_ms, max(window_end_ms) AS last_ms, ${sumUsage}
             FROM aggregate_rows ${where} GROUP BY ${keys.join(', ')})
       JOIN group_rows USING (group_id)
       ${by.length > 0 ? `GROUP BY ${by.map((name) => (name === 'window' ? 'window_start_ms, window_end_ms' : columnOf(name))).join(', ')}` : ''}
       HAVING count(*) > 0
       ${order.length > 0 ? `ORDER BY ${order.join(', ')}` : ''}`,
      ...values,
    );
    return rows.map((row) => ({
      windowFromMs: Number(row['window_from_ms']),
      windowToMs: Number(row['window_to_ms']),
      fields: Object.fromEntries(by.filter((name) => name !== 'window').map((name) => [name, (row[name] as string | null) ?? ''])),
      ...sumsOf(row, ''),
    }));
  }

  accountUsage(byWindow: boolean, period: Period): AccountUsageRow[] {
    const { where, values } = within('start_ms', period);
    const sums = usageSums.flatMap((name) =>
      ['in', 'out'].map((direction) => `sum(CASE direction WHEN '${direction}' THEN ${name} ELSE 0 END) AS ${direction}_${name}`),
    );
    const rows = this.#rows(
      `SELECT account, min(start_ms) AS first_ms, max(start_ms) AS last_ms, ${sums.join(', ')}
       FROM sample_rows ${where} GROUP BY account${byWindow ? ', start_ms' : ''} ORDER BY ${byWindow ? 'start_ms, ' : ''}account`,
      ...values,
    );
    const complete = this.#completeSamples(period);
    return rows.map((row) => {
      const windowFromMs = Number(row['first_ms']);
      const windowToMs = Number(row['last_ms']) + sampleMs;
      return {
        windowFromMs,
        windowToMs,
        account: row['account'] as string,
        in: sumsOf(row, 'in_'),
        out: sumsOf(row, 'out_'),
        samples: (windowToMs - windowFromMs) / sampleMs,
        completeSamples: countWithin(complete, windowFromMs, windowToMs),
      };
    });
  }

  /** Starts of the complete samples, ascending. */
  #completeSamples(period: Period): number[] {
    const { where, values } = within('start_ms', period);
    return this.#rows(`SELECT start_ms FROM buckets_5m ${where || 'WHERE true'} AND complete = 1 ORDER BY start_ms`, ...values).map((row) =>
      Number(row['start_ms']),
    );
  }

  unclosedWindows(period: Period): number {
    const { where, values } = within('window_start_ms', period);
    return Number(this.#rows(`SELECT count(*) AS windows FROM windows ${where || 'WHERE true'} AND closed = 0`, ...values)[0]!['windows']);
  }

  audit(): { partitions: PartitionAccount[]; exporters: ExporterBalance[] } {
    this.#execute('BEGIN');
    try {
      return { partitions: this.#partitions(), exporters: this.#exporters() };
    } finally {
      this.#execute('COMMIT');
    }
  }

  #partitions(): PartitionAccount[] {
    const rows = this.#rows(
      `SELECT positions.*, billed.*,
         (SELECT count(*) FROM windows WHERE windows.partition = positions.partition AND closed = 0) AS unclosed_windows
       FROM positions LEFT JOIN
         (SELECT aggregate_rows.partition AS billed_partition, sum(flows) AS billed_flows, sum(bytes) AS billed_bytes, sum(packets) AS billed_packets
          FROM aggregate_rows JOIN positions USING (partition) WHERE aggregate_rows.n <= close_n GROUP BY aggregate_rows.partition) AS billed
         ON billed_partition = positions.partition
       ORDER BY partition`,
    );
    return rows.map((row) => {
      const balance = this.#rows(`SELECT ${sumExporter} FROM exporter_balance WHERE partition = ?`, row['partition'] as bigint)[0]!;
      const billed = {
        billed_flows: row['billed_flows'] ?? 0n,
        billed_bytes: row['billed_bytes'] ?? 0n,
        billed_packets: row['billed_packets'] ?? 0n,
      };
      return {
        partition: Number(row['partition']),
        n: Number(row['n']),
        closeN: Number(row['close_n']),
        balance: balanceOf(balance),
        open: countersOf(row, 'open_'),
        billed: countersOf(billed, 'billed_'),
        doubts: Number(row['doubts']),
        unclosedWindows: Number(row['unclosed_windows']),
      };
    });
  }

  #exporters(): ExporterBalance[] {
    const key = 'sampler_address, observation_domain_id, protocol';
    return this.#rows(`SELECT ${key}, ${sumExporter} FROM exporter_balance GROUP BY ${key} ORDER BY ${key}`).map((row) => {
      const sums = exporterSums.map((name) => [name, isTotal(name) ? row[name] : Number(row[name])]);
      return {
        sampler_address: row['sampler_address'],
        observation_domain_id: Number(row['observation_domain_id']),
        protocol: row['protocol'],
        ...Object.fromEntries(sums),
      } as ExporterBalance;
    });
  }

  chainAt(partition: number, n: number): Uint8Array | null {
    const one = (table: string) => `SELECT chain FROM ${table} WHERE partition = ? AND n = ?`;
    const row = this.#rows(`${one('aggregate_rows')} UNION ALL ${one('windows')}`, partition, n, partition, n)[0];
    return (row?.['chain'] as Uint8Array | undefined) ?? null;
  }

  corrections(): BookedCorrection[] {
    return this.#rows('SELECT * FROM corrections ORDER BY correction_id').map((row) => ({
      partition: Number(row['partition']),
      fromN: Number(row['from_n']),
      lastN: Number(row['last_n']),
      records: Number(row['records']),
    }));
  }

  close(): void {
    this.#close();
  }
}

function isTotal(name: string): boolean {
  return name.endsWith('_bytes') || name.endsWith('_packets');
}

function sumsOf(row: Row, prefix: string): UsageSums {
  return Object.fromEntries(usageSums.map((name) => [name, row[prefix + name]])) as unknown as UsageSums;
}

function within(column: string, { fromMs, toMs }: Period): { where: string; values: number[] } {
  const conditions = [...(fromMs === null ? [] : [`${column} >= ?`]), ...(toMs === null ? [] : [`${column} < ?`])];
  const values = [fromMs, toMs].filter((value) => value !== null);
  return { where: conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : '', values };
}

function columnOf(name: string): string {
  return name === 'kind' ? 'kind' : `json_extract(fields, '$."${name.replaceAll(/[^A-Za-z0-9_]/g, '')}"')`;
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '')}"`;
}

/** How many of the ascending values lie in [from, to). */
function countWithin(ascending: readonly number[], from: number, to: number): number {
  return firstAtLeast(ascending, to) - firstAtLeast(ascending, from);
}

function firstAtLeast(ascending: readonly number[], value: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
