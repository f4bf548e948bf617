/**
 * I8, I9. What the fold gives out is what the auditor expects: every output, field by field, in the order in which they must come.
 */
import type { Aggregate, Output, WindowClose } from '../../schemas/types.ts';
import type { Close, Totals } from './expected-closes.ts';

const kinds = ['adjustment', 'usage'];

/** Takes the outputs of a partition in order of n, and what is expected of them; says what differs. */
export class Folded {
  #aggregates: Aggregate[] = [];

  /** placeOf: where the record of that offset stands in the whole history. */
  take(output: Output, expected: Close[], placeOf: (offset: number) => number): string | null {
    if (output.aggregate) {
      this.#aggregates.push(output.aggregate);
      return null;
    }
    const aggregates = this.#aggregates;
    this.#aggregates = [];
    const close = expected.shift();
    const said = output.window_close as WindowClose;
    if (!close) return `window ${said.window_start_ms} is closed at n ${output.n}, and no watermark has passed it`;
    return (
      wrongOrder(aggregates) ??
      difference('aggregates', aggregatesOf(close), Object.fromEntries(aggregates.map(entryOf))) ??
      wrongClose(said, close, placeOf)
    );
  }
}

type Entry = readonly [name: string, sums: string];

const text = ({ flows, bytes, packets }: Totals): string => `${flows} flows, ${bytes} bytes, ${packets} packets`;

function entryOf(aggregate: Aggregate): Entry {
  const accounts = aggregate.group.map(({ value }) => value).join('>');
  return [`${aggregate.kind} ${aggregate.window_start_ms}-${aggregate.window_end_ms} ${accounts}`, text(aggregate)];
}

function aggregatesOf({ startMs, endMs, usage, adjustments }: Close): Record<string, string> {
  const late: Entry[] = [...adjustments].map(([name, sums]) => [`adjustment ${name}`, text(sums)]);
  return Object.fromEntries([...late, ...[...usage].map(([accounts, sums]) => [`usage ${startMs}-${endMs} ${accounts}`, text(sums)] as const)]);
}

/** Adjustments first, by the end of their window; then in key order; each group of a window once. */
function wrongOrder(aggregates: readonly Aggregate[]): string | null {
  const key = ({ group }: Aggregate) => JSON.stringify(group.flatMap(({ name, value }) => [name, value]));
  for (const [index, next] of aggregates.entries()) {
    const before = aggregates[index - 1];
    if (!before) continue;
    const order =
      kinds.indexOf(before.kind) - kinds.indexOf(next.kind) ||
      before.window_end_ms - next.window_end_ms ||
      before.window_start_ms - next.window_start_ms ||
      (key(before) < key(next) ? -1 : 1);
    if (order > 0) return `${entryOf(next)[0]} comes after ${entryOf(before)[0]}`;
  }
  return null;
}

function wrongClose(said: WindowClose, close: Close, placeOf: (offset: number) => number): string | null {
  const sumOf = (sums: Iterable<Totals>): string => {
    const total = { flows: 0, bytes: 0n, packets: 0n };
    for (const { flows, bytes, packets } of sums) {
      total.flows += flows;
      total.bytes += bytes;
      total.packets += packets;
    }
    return text(total);
  };
  const expected = {
    window: `${close.startMs}-${close.endMs} of ${close.windowMs}`,
    watermark: close.watermarkMs,
    offset: close.offset,
    version: close.version,
    usage: `${close.usage.size} with ${sumOf(close.usage.values())}`,
    adjustments: `${close.adjustments.size} with ${sumOf(close.adjustments.values())}`,
    open: text(close.open),
    collectors: close.collectors.join(),
    coverage: [close.lostOnWire, close.lost, close.clamped].join(),
    doubts: close.doubts,
  };
  const { usage_aggregates, adjustment_aggregates } = said;
  const late = { flows: said.adjustment_flows, bytes: said.adjustment_bytes, packets: said.adjustment_packets };
  const found = {
    window: `${said.window_start_ms}-${said.window_end_ms} of ${said.window_ms}`,
    watermark: said.watermark_ms,
    offset: placeOf(said.nars_offset),
    version: said.fold_config_version,
    usage: `${usage_aggregates} with ${text({ flows: said.usage_flows, bytes: said.usage_bytes, packets: said.usage_packets })}`,
    adjustments: `${adjustment_aggregates} with ${text(late)}`,
    open: text({ flows: said.open_flows, bytes: said.open_bytes, packets: said.open_packets }),
    collectors: said.collectors.join(),
    coverage: [said.lost_on_wire_flows, said.lost_flows, said.clamped_flows].join(),
    doubts: said.doubts,
  };
  return difference('WindowClose', expected, found) ?? difference('what exporters gave', givenOutOf(close), exportersOf(said));
}

function givenOutOf({ givenOut }: Close): Record<string, string> {
  return Object.fromEntries([...givenOut].map(([exporter, sums]) => [exporter, text(sums)]));
}

function exportersOf({ exporters }: WindowClose): Record<string, string> {
  const given = exporters.map((one): Entry => {
    const sums = {
      flows: one.aggregated_flows + one.late_flows,
      bytes: one.aggregated_bytes + one.late_bytes,
      packets: one.aggregated_packets + one.late_packets,
    };
    return [`${one.sampler_address}|${one.observation_domain_id}|${one.protocol}`, text(sums)];
  });
  return Object.fromEntries(given.filter(([, sums]) => sums !== text({ flows: 0, bytes: 0n, packets: 0n })));
}

type Fields = Readonly<Record<string, string | number>>;

function difference(what: string, expected: Fields, found: Fields): string | null {
  for (const name of new Set([...Object.keys(expected), ...Object.keys(found)])) {
    if (expected[name] !== found[name]) return `${what}, ${name}: ${found[name]} instead of ${expected[name]}`;
  }
  return null;
}
