/** The whole system on one broker, under load, in which a signal flips one counter in the memory of an aggregator. */
import type { Log } from '../../adapters/ports.ts';
import { Stack } from '../../infra/stack.ts';
import { Load } from '../torture/load.ts';
import { eventually, openLog, readAll } from './reading.ts';

const minute = 60_000;
const preload = new URL('flip-on-signal.ts', import.meta.url).href;

export interface FlippedStack {
  readonly stack: Stack;
  readonly log: Log;
  /** Of 5,000 flows/s. */
  readonly load: Load;
}

/** Once both aggregators hold a snapshot alike in every partition. */
export async function startFlippedStack(partitions: number, emit: 'elected' | 'agreed'): Promise<FlippedStack> {
  const fold = { FLOWLEDGER_AGGREGATE_WINDOW: '2s', FLOWLEDGER_AGGREGATE_LATENESS: '1s', FLOWLEDGER_AGGREGATE_SNAPSHOT_EVERY: '20' };
  const env = { ...fold, FLOWLEDGER_FEED_EMIT: emit, FLOWLEDGER_JUDGE_INTERVAL: '1s', NODE_OPTIONS: `--import ${preload}` };
  const stack = await Stack.start({ partitions, env });
  const log = openLog(stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string);
  const load = new Load({ protocol: 'v5', to: stack.listen(), flowsPerSecond: 5_000, exporters: 2, keys: 200, seed: 1, from: '127.1.0.1' });
  const agreedOn = async () => new Set((await readAll(log, 'agreements', 0, 'raw')).map(({ key }) => key?.toString())).size;
  await eventually(agreedOn, (count) => count === partitions, minute);
  return { stack, log, load };
}
