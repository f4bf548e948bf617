/** How fast each stage goes, from two reports of each service. */
import type { Health } from '../../schemas/types.ts';

/** By `role/id`. */
export type Reports = ReadonlyMap<string, Health>;

/** A second; null where it is not known yet: one report only, or a new process. */
export interface Rates {
  /** By collector. */
  readonly collectors: ReadonlyMap<string, { readonly datagrams: number; readonly flows: number }>;
  /** Records of nars, folded by each aggregator. */
  readonly folded: { readonly a: number | null; readonly b: number | null };
  /** Outputs: of the feed and of the accounting service that is at work. */
  readonly emitted: number | null;
  readonly booked: number | null;
}

export function ratesBetween(before: Reports, now: Reports): Rates {
  const pairs = [...now].flatMap(([name, newer]) => {
    const older = before.get(name);
    const ms = older ? newer.at_ms - older.at_ms : 0;
    return older && older.incarnation === newer.incarnation && ms > 0 ? [{ older, newer, seconds: ms / 1000 }] : [];
  });
  const of = (role: string, id?: string) => pairs.filter(({ newer }) => newer.role === role && (id === undefined || newer.id === id));
  const fastest = (rates: readonly number[]) => (rates.length > 0 ? Math.max(...rates) : null);
  const offsets = (health: Health) => health.partitions.reduce((sum, { next_offset }) => sum + next_offset, 0);
  const outputs = (health: Health) => health.partitions.reduce((sum, { n }) => sum + n, 0);
  const rate = (pair: (typeof pairs)[number], figure: (health: Health) => number) =>
    Math.max(0, figure(pair.newer) - figure(pair.older)) / pair.seconds;
  return {
    collectors: new Map(
      of('collector').map((pair) => [
        pair.newer.id,
        {
          datagrams: rate(pair, ({ copy }) => copy?.received_datagrams ?? 0),
          flows: rate(pair, ({ copy }) => copy?.decoded_flows ?? 0),
        },
      ]),
    ),
    folded: {
      a: fastest(of('aggregator', 'a').map((pair) => rate(pair, offsets))),
      b: fastest(of('aggregator', 'b').map((pair) => rate(pair, offsets))),
    },
    // One that stands by follows at the same pace as the one that it follows.
    emitted: fastest(of('feed').map((pair) => rate(pair, outputs))),
    booked: fastest(of('accounting').map((pair) => rate(pair, outputs))),
  };
}
