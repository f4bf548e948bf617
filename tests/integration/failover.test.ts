/**
 * Under 20,000 flows/s, one thing after another is killed; then the ledger must equal what the generators sent. The one loss that UDP allows (what a
 * killed collector had received and not yet stored, or what arrived while nobody listened) is known to the flow: sent = billed + lost on the wire.
 */
import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Stack } from '../../infra/stack.ts';
import type { Replica } from '../../schemas/topics.ts';
import { chainsOf, eventually, openLog, readAggregates, readOutputs } from './reading.ts';

const program = fileURLToPath(new URL('../../bin/flowledger', import.meta.url));
const partitions = 4;
const flowsPerSecond = 20_000;
const minute = 60_000;

interface Sent {
  readonly datagrams: number;
  readonly flows: number;
  readonly bytes: number;
  readonly packets: number;
}

interface Load {
  readonly done: Promise<Sent>;
  stop(): void;
}

function generate(protocol: string, seed: number, to: string): Load {
  const args = [
    '--protocol',
    protocol,
    '--to',
    to,
    '--rate',
    String(flowsPerSecond / 2),
    '--flows',
    '100000000',
    '--exporters',
    '3',
    '--keys',
    '2000',
  ];
  const child = spawn(program, ['generate', ...args, '--seed', String(seed)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk;
  });
  const done = new Promise<Sent>((resolve, reject) => {
    child.once('close', () => {
      try {
        resolve(JSON.parse(out.trim().split('\n').at(-1) as string));
      } catch (error) {
        reject(error);
      }
    });
  });
  return { done, stop: () => child.kill('SIGTERM') };
}

describe('under load, killing one thing after another', () => {
  let stack: Stack;
  let loads: Load[];

  beforeAll(async () => {
    const env = { FLOWLEDGER_AGGREGATE_WINDOW: '5s', FLOWLEDGER_AGGREGATE_LATENESS: '2s', FLOWLEDGER_AGGREGATE_LIVE_WITHIN: '10s' };
    stack = await Stack.start({ partitions, env });
    loads = [generate('v5', 1, stack.listen()), generate('ipfix', 2, stack.listen())];
    await delay(8000);
  }, 3 * minute);

  afterAll(() => stack?.stop(), minute);

  const leader = async () => {
    const status = JSON.parse((await stack.command('status', '--json')).stdout);
    return status.partitions[0].leader as 'a' | 'b';
  };
  const emitted = async () => (await stack.metrics('feed')).get('flowledger_feed_emitted_total') ?? 0;
  const feedsOn = async (withinMs: number) => {
    const before = await emitted();
    for (const end = Date.now() + withinMs; Date.now() < end; await delay(50)) if ((await emitted()) > before) return;
    throw new Error(`nothing was fed within ${withinMs} ms`);
  };

  test(
    'the elected aggregator',
    async () => {
      const killed = await leader();
      await stack.kill(`aggregator-${killed}`);
      await feedsOn(minute);
      // What was fed meanwhile may be another partition's: each has an election of its own.
      await eventually(leader, (elected) => elected !== killed, minute);
      await stack.startService(`aggregator-${killed}`);
      await stack.ready(`aggregator-${killed}`);
    },
    3 * minute,
  );

  test(
    'the feed',
    async () => {
      await stack.kill('feed');
      await delay(1000);
      await stack.startService('feed');
      await stack.ready('feed');
      await feedsOn(minute);
    },
    3 * minute,
  );

  test(
    'a collector',
    async () => {
      await stack.kill('collector-1');
      await delay(1000);
      await stack.startService('collector-1');
      await stack.ready('collector-1');
      await feedsOn(minute);
    },
    3 * minute,
  );

  test(
    'Redis, for five seconds',
    async () => {
      await stack.kill('redis');
      await delay(5000);
      await stack.startBackend('redis');
      await feedsOn(minute);
    },
    3 * minute,
  );

  test(
    'the broker, for five seconds',
    async () => {
      await stack.kill('kafka');
      await delay(5000);
      await stack.startBackend('kafka');
      await Promise.all(stack.services.map((name) => stack.ready(name)));
      await feedsOn(minute);
    },
    4 * minute,
  );

  test(
    'one aggregator away for 60 s, then it is sent what it missed',
    async () => {
      const away = (await leader()) === 'a' ? 'b' : 'a';
      await stack.kill(`aggregator-${away}`);
      await delay(60_000);
      await stack.startService(`aggregator-${away}`);
      await stack.ready(`aggregator-${away}`);
    },
    4 * minute,
  );

  test(
    'the ledger equals what was sent, A equals B, each n stands once',
    async () => {
      for (const load of loads) load.stop();
      const sent = (await Promise.all(loads.map((load) => load.done))).reduce((sum, one) => ({
        datagrams: sum.datagrams + one.datagrams,
        flows: sum.flows + one.flows,
        bytes: sum.bytes + one.bytes,
        packets: sum.packets + one.packets,
      }));
      const { code, stdout, stderr } = await stack.command('audit', '--json', '--wait', '120s');
      const audit = JSON.parse(stdout);
      expect({ code, complete: audit.complete, stderr: code ? stderr : '' }).toEqual({ code: 0, complete: true, stderr: '' });
      expect(audit.imbalance).toEqual({ flows: 0, bytes: 0, packets: 0 });
      expect(audit.divergence).toBe(0);
      expect(sent.flows).toBeGreaterThan(flowsPerSecond * 60);
      expect(audit.totals.lost_flows).toBe(0);
      expect(audit.totals.billed_flows + audit.totals.lost_on_wire_flows).toBe(sent.flows);
      // What was lost on the wire is what arrived around one kill, so nearly everything must be there.
      expect(audit.totals.lost_on_wire_flows).toBeLessThan(flowsPerSecond * 10);

      const log = openLog(stack.env['FLOWLEDGER_KAFKA_BROKERS'] as string);
      for (let partition = 0; partition < partitions; partition++) {
        const emittedOutputs = await readAggregates(log, partition);
        // The one that was away may still be catching up: the ledger does not wait for it.
        const caughtUp = (replica: Replica) =>
          eventually(
            () => readOutputs(log, replica, partition),
            ({ length }) => length >= emittedOutputs.length,
            minute,
          );
        const [a, b] = [await caughtUp('a'), await caughtUp('b')];
        expect(emittedOutputs.map(({ n }) => n)).toEqual(emittedOutputs.map((_, i) => i + 1));
        expect(chainsOf(a).slice(0, emittedOutputs.length)).toEqual(chainsOf(emittedOutputs));
        expect(chainsOf(b).slice(0, emittedOutputs.length)).toEqual(chainsOf(emittedOutputs));
      }
      await log.close();
    },
    4 * minute,
  );
});
