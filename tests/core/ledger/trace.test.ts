import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { GroupKeys } from '../../../core/aggregate/group-key.ts';
import { BatchOutcomes, type Route, RouteSearch, windowOfFlow } from '../../../core/ledger/trace.ts';
import type { Nar, NarBatch } from '../../../schemas/types.ts';
import { batch, beginning, columnsOf, foldOf, minute, nar, records, report, second, standard, t0, tick } from '../aggregate/log-of-batches.ts';

const someNar: fc.Arbitrary<Nar> = fc
  .record({
    network: fc.nat({ max: 2 }),
    endMs: fc.integer({ min: -90 * minute, max: 12 * minute }),
    receivedMs: fc.integer({ min: 0, max: 6 * minute }),
  })
  .map(({ network, endMs, receivedMs }) =>
    nar({
      src_addr: Buffer.from([10, network, 0, 1]),
      time_flow_end_ms: t0 + endMs,
      time_flow_start_ms: t0 + endMs,
      time_received_ms: t0 + receivedMs,
    }),
  );

/** In order, then each once more or one left out, as `noise` says. */
const someLog: fc.Arbitrary<NarBatch[]> = fc
  .record({
    batches: fc.array(fc.record({ nars: fc.array(someNar, { maxLength: 5 }), stepMs: fc.integer({ min: 0, max: 3 * minute }) }), {
      minLength: 1,
      maxLength: 8,
    }),
    noise: fc.array(fc.constantFrom('once', 'twice', 'later'), { minLength: 8, maxLength: 8 }),
  })
  .map(({ batches, noise }) => {
    let watermarkMs = t0;
    const all = batches.map(({ nars, stepMs }, at) => {
      watermarkMs += stepMs;
      return batch({ sequence: at + 2, watermark_ms: watermarkMs, nars });
    });
    // One that is left out makes the next ones gaps, so all from there on come again.
    const log = all.flatMap((one, at) => (noise[at] === 'later' ? [] : noise[at] === 'twice' ? [one, one] : [one]));
    return [tick(1, t0), ...log, ...all];
  });

describe('the route of a flow', () => {
  test('is the one that the fold took: per output, so many flows lead to it as it has', () => {
    fc.assert(
      fc.property(someLog, (log) => {
        const config = { ...standard, window_ms: minute, lateness_ms: 10 * second };
        const entries = [beginning(config), ...log, tick(100, t0)];
        const { outputs, steps, fold } = foldOf(entries);
        const keys = new GroupKeys(config);
        const outcomes = new BatchOutcomes();
        const flowsOf = new Map<number, number>();
        let open = 0;
        records(entries).forEach(({ offset, appendedMs }, at) => {
          const one = entries[at] as NarBatch;
          if (offset === 0 || at === entries.length - 1) return;
          expect(outcomes.outcome(one)).toBe(steps[at]!.outcome);
          if (steps[at]!.outcome !== 'accepted') return;
          const columns = columnsOf(one.nars);
          one.nars.forEach((flow, index) => {
            const times = { endMs: flow.time_flow_end_ms, receivedMs: flow.time_received_ms, appendedMs };
            const { startMs } = windowOfFlow(times, config);
            const search = new RouteSearch({ offset, windowStartMs: startMs, group: keys.groupOf(columns, index, report([flow])).fields });
            for (const output of outputs) if (search.take(output)) break;
            const { route } = search;
            if (route.kind === 'open') open++;
            else flowsOf.set(nOf(route), (flowsOf.get(nOf(route)) ?? 0) + 1);
          });
        });
        const expected = new Map(outputs.flatMap(({ n, aggregate }) => (aggregate ? [[n, aggregate.flows] as const] : [])));
        expect(new Map([...flowsOf].sort(([a], [b]) => a - b))).toEqual(expected);
        expect(open).toBe(fold.openFlows);
      }),
      { numRuns: 300 },
    );
  });

  function nOf(route: Route): number {
    if (route.kind !== 'usage' && route.kind !== 'adjustment') throw new Error(`the route ends ${route.kind}`);
    return route.output.n;
  }

  test('of a group that no output has is absent, with the close that should have had it', () => {
    const { outputs, closes } = foldOf([beginning(), batch({ sequence: 1, nars: [nar()] }), tick(2, t0 + 2 * minute)]);
    const search = new RouteSearch({ offset: 1, windowStartMs: t0, group: [{ name: 'src_account', value: 'nobody' }] });
    for (const output of outputs) search.take(output);
    expect(search.route).toEqual({ kind: 'absent', close: closes.find(({ window_start_ms }) => window_start_ms === t0) });
  });

  test('a correction is not on it', () => {
    const { outputs } = foldOf([beginning(), batch({ sequence: 1, nars: [nar()] }), tick(2, t0 + 2 * minute)]);
    const usage = outputs.find(({ aggregate }) => aggregate)!;
    const search = new RouteSearch({ offset: 1, windowStartMs: t0, group: usage.aggregate!.group });
    const correction = { retracts: true, index: 1, count: 1, from_n: 1, last_n: 1, replaced_chain: Buffer.alloc(16), chain: Buffer.alloc(16) };
    for (const output of outputs) search.take({ ...output, correction });
    expect(search.route).toEqual({ kind: 'open' });
  });
});
