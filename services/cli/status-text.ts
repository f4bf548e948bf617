/** The status for people: three tables, and what is wrong in words. */
import type { ReplicaStatus, Status } from './status.ts';
import { type Column, grouped, renderTable } from './table.ts';

export function statusText(status: Status): string {
  const services = table(
    ['service', 'id', 'up', 'ready', 'since'],
    status.services.map(({ role, id, up, ready, started_ms }) => [role, id, yes(up), yes(ready), started_ms === null ? null : time(started_ms)]),
  );
  const partitions = table(
    ['partition', 'leader', 'a lag', 'a late', 'a n', 'b lag', 'b late', 'b n', 'watermark', 'feed n', 'feed', 'accounting n', 'accounting'],
    status.partitions.map(({ partition, leader, replicas, feed, accounting }) => [
      partition,
      leader,
      ...replicaCells(replicas.a),
      ...replicaCells(replicas.b),
      watermark(replicas.a, replicas.b),
      feed.n,
      feed.state,
      accounting.n,
      accounting.state,
    ]),
  );
  const collectors = table(
    ['collector', 'up', 'store', 'buffered', 'bytes', 'unconfirmed', 'not by a', 'not by b', 'oldest'],
    status.collectors.map((at) => [
      at.collector,
      yes(at.up),
      at.durable ? at.store : `${at.store} (not durable)`,
      at.buffered_nars,
      at.buffered_bytes,
      at.unconfirmed_nars,
      at.unacknowledged_a_nars,
      at.unacknowledged_b_nars,
      seconds(at.oldest_age_ms),
    ]),
  );
  const troubles = status.services.flatMap(({ role, id, reasons }) => reasons.map((reason) => `${role} ${id}: ${reason}\n`));
  const repaired = status.partitions.flatMap(({ partition, replicas }) =>
    Object.entries(replicas).flatMap(([replica, { verdict }]) =>
      verdict?.state === 'repaired'
        ? [`aggregator ${replica}: partition ${partition} was repaired ${time(verdict.at_ms)}: ${verdict.evidence}\n`]
        : [],
    ),
  );
  return [services, partitions, collectors, [...troubles, ...repaired].join('')].filter((part) => part !== '').join('\n');
}

function yes(value: boolean): string {
  return value ? 'yes' : 'NO';
}

function replicaCells({ up, state, lag_records, lag_ms, n }: ReplicaStatus): (number | string | null)[] {
  const isJudged = state === 'quarantined' || state === 'disputed';
  return [isJudged ? state : up ? lag_records : 'down', seconds(lag_ms), n];
}

function seconds(ms: number | null): string | null {
  return ms === null ? null : `${(ms / 1000).toFixed(1)} s`;
}

/** The one further on: both reach it. */
function watermark(a: ReplicaStatus, b: ReplicaStatus): string | null {
  const highest = Math.max(a.watermark_ms ?? 0, b.watermark_ms ?? 0);
  return highest > 0 ? time(highest) : null;
}

function time(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')}Z`;
}

/** A column holds figures where any of its cells is one; what is not known is a dash. */
function table(titles: readonly string[], rows: readonly (readonly (string | number | null)[])[]): string {
  const columns: Column[] = titles.map((title, at) => ({ title, figures: rows.some((row) => typeof row[at] === 'number') }));
  return renderTable(
    columns,
    rows.map((row) => row.map((cell) => (cell === null ? '-' : grouped(cell)))),
  );
}
