/** What an operator's commands see and do: the real loops of both aggregators, a watchdog and a feed on a broker in memory. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../adapters/digest.ts';
import type { Logger } from '../../adapters/ports.ts';
import type { Proposal } from '../../core/elect/decide.ts';
import { electionCodec, narBatchCodec, outputCodec } from '../../schemas/codec.ts';
import { type Replica, replicas } from '../../schemas/topics.ts';
import type { FoldConfig, Nar, NarBatch, Output } from '../../schemas/types.ts';
import { Aggregator } from '../../services/aggregator/aggregator.ts';
import { lookAtExporters, lookAtSchemas } from '../../services/cli/doctor.ts';
import { carryOut, decideAll } from '../../services/cli/drill.ts';
import { SystemWatch } from '../../services/cli/system-watch.ts';
import { renderTop } from '../../services/cli/top-view.ts';
import { traceFlows } from '../../services/cli/trace.ts';
import { loadConfig } from '../../services/config.ts';
import { Feed } from '../../services/feed/feed.ts';
import { Watchdog } from '../../services/watchdog/watchdog.ts';
import { batch, beginning, nar, report, second, standard } from '../core/aggregate/log-of-batches.ts';
import { ModelClock, ProcessHandle } from '../simulation/model-clock.ts';
import { ModelBroker } from '../simulation/model-log.ts';

const config: FoldConfig = { ...standard, window_ms: second, lateness_ms: 0, live_within_ms: 60 * second, snapshot_every: 10 };
const settings = loadConfig({ env: {} });
const quiet: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const noLedger = '/nowhere/ledger.sqlite';

let clock: ModelClock;
let broker: ModelBroker;
let sequence: number;
let loops: Map<string, ProcessHandle>;

beforeEach(() => {
  clock = new ModelClock(1);
  broker = new ModelBroker(clock, 1);
  sequence = 0;
  loops = new Map();
  send(beginning(config));
  for (const replica of replicas) startAggregator(replica);
  start('watchdog', (parts) => new Watchdog({ ...parts, settings: settings.watchdog }));
  start('feed', (parts) => new Feed({ ...parts, digest: sha256, settings: { ...settings.feed, history: 60_000 } }));
});

function start(name: string, make: (parts: ReturnType<typeof partsOf>) => { run(signal: AbortSignal): Promise<void> }): void {
  const process = new ProcessHandle(clock, name);
  loops.set(name, process);
  make(partsOf(process))
    .run(new AbortController().signal)
    .catch(() => undefined);
}

function partsOf(process: ProcessHandle) {
  return { log: broker.connect(process), clock: process.clock, logger: quiet };
}

function startAggregator(replica: Replica): void {
  const own = { ack_interval: 100, ack_repeat: 1_000, snapshot_idle: 60_000, health_interval: 100 };
  start(replica, (parts) => new Aggregator({ ...parts, digest: sha256, replica, settings: own }));
}

function send(entry: NarBatch): void {
  broker.append(broker.partition('nars', 0), [{ key: Buffer.from(entry.collector), value: narBatchCodec.encode(entry) }], null);
}

function flow(changes: Partial<Nar> = {}): Nar {
  const now = clock.now();
  return nar({ time_flow_start_ms: now, time_flow_end_ms: now, time_received_ms: now, ...changes });
}

function sendNext(nars: Nar[], changes: Partial<NarBatch> = {}): void {
  send(batch({ sequence: ++sequence, watermark_ms: clock.now(), nars, ...changes }));
}

const pass = (ms: number) => clock.run(clock.now() + ms);

async function traffic(ms: number): Promise<void> {
  for (const untilMs = clock.now() + ms; clock.now() < untilMs; await pass(300)) sendNext([flow()]);
}

/** Runs a command while the world goes on, with traffic. */
async function command<Result>(run: () => Promise<Result>): Promise<Result> {
  let over = false;
  const running = run().finally(() => {
    over = true;
  });
  running.catch(() => undefined);
  for (const endMs = clock.now() + 120_000; !over && clock.now() < endMs; ) await traffic(300);
  return running;
}

const log = () => broker.connect();
const emitted = (): Output[] => [...broker.partition('aggregates', 0).committed()].map(({ value }) => outputCodec.decode(value!));
const lastElection = () => electionCodec.decode([...broker.partition('elections', 0).committed()].at(-1)!.value!);

describe('doctor', () => {
  const codes = ([, findings]: readonly [string, readonly { code: string; found: string }[]]) =>
    findings.map(({ code, found }) => `${code} ${found}`);

  test('looks at the newest record of every partition', async () => {
    await traffic(5_000);
    const [seen, sound] = await command(() => lookAtSchemas(log()));
    expect(sound).toEqual([]);
    const partitions = Number(/^the newest records of (\d+) partitions$/.exec(seen)?.[1]);
    expect(partitions).toBeGreaterThanOrEqual(8);
    const newer = Buffer.from([0, 0, 0, 0, 99, 1, 2, 3]);
    broker.append(broker.partition('agreements', 0), [{ key: Buffer.from('0'), value: newer }], null);
    broker.append(broker.partition('verdicts', 0), [{ key: Buffer.from('0/a'), value: Buffer.from('none of ours') }], null);
    expect(codes(await command(() => lookAtSchemas(log()))).sort()).toEqual([
      expect.stringMatching(/^FL501 the newest record of agreements\/0: schema id 99 is not known/),
      expect.stringMatching(/^FL502 the newest record of verdicts\/0: /),
    ]);
  });

  test('adds up what the newest batches say of each exporter', async () => {
    await traffic(2_000);
    expect(codes(await command(() => lookAtExporters(log())))).toEqual([]);
    const nars = [flow({ sampling_rate: 0 }), flow({ sampling_rate: 0 }), flow({ exporter: 1 })];
    sendNext(nars, { exporters: [report(nars, 0, { lost_on_wire_flows: 4 }), report(nars, 1, { undecodable_datagrams: 2 })] });
    sendNext([flow()], { exporters: [report([flow()], 0, { lost_on_wire_flows: 1 })] });
    const found = codes(await command(() => lookAtExporters(log())));
    expect(found).toContainEqual('FL703 192.0.2.1 domain 0 (ipfix): 5 flows and 0 datagrams lately');
    expect(found).toContainEqual('FL701 192.0.2.2 domain 0 (ipfix): 2 datagrams could not be decoded lately');
    expect(found).toContainEqual(expect.stringMatching(/^FL702 192\.0\.2\.1 domain 0 \(ipfix\): 2 of \d+ flows lately$/));
    expect(found).toHaveLength(3);
  });
});

describe('a drill', () => {
  const decideNow = () => command(() => decideAll(log(), clock, settings.watchdog, [0]));

  test('there and back: the seam is where the feed changed over, and everything goes on', async () => {
    await traffic(5_000);
    for (const [from, to] of [
      ['a', 'b'],
      ['b', 'a'],
    ] as const) {
      const proposals = (await decideNow()) as Proposal[];
      expect(proposals).toMatchObject([{ partition: 0, leader: to, previous: from, reason: 'drill' }]);
      const { done, partitions, missing, balance } = await command(() => carryOut(log(), clock, noLedger, proposals, 30_000));
      expect({ done, missing, balance }).toEqual({ done: true, missing: [], balance: null });
      expect(partitions).toMatchObject([{ partition: 0, from, to, contiguous: true, epoch: proposals[0]!.epoch }]);
      const [seam] = partitions;
      expect(seam!.first_n).toBe(seam!.last_n + 1);
      expect(seam!.gap_ms).toBeGreaterThanOrEqual(0);
      expect(seam!.outputs).toBeGreaterThanOrEqual(2);
      expect(lastElection()).toMatchObject({ leader: to, reason: 'drill' });
    }
    await traffic(2_000);
    expect(lastElection().epoch).toBe(3);
    expect(emitted().map(({ n }) => n)).toEqual(emitted().map((_, at) => at + 1));
  });

  test('without a feed no seam is seen, and that is said', async () => {
    await traffic(5_000);
    const proposals = (await decideNow()) as Proposal[];
    loops.get('feed')!.kill();
    const { partitions, missing } = await command(() => carryOut(log(), clock, noLedger, proposals, 5_000));
    expect({ partitions, missing }).toEqual({ partitions: [], missing: [0] });
  });

  test('is refused while the other one is away', async () => {
    await traffic(5_000);
    loops.get('b')!.kill();
    await traffic(2_000);
    expect(await decideNow()).toEqual([{ partition: 0, refusal: 'b cannot take over from a: b was never heard' }]);
  });
});

describe('top', () => {
  test('sees who leads, how fast it goes, and who is gone', async () => {
    await traffic(5_000);
    const watch = await command(() => SystemWatch.open(log(), clock));
    for (let frame = 0; frame < 3; frame++) await command(() => watch.follow(clock.now() + 1_000));
    const before = watch.state();
    expect(before.status.partitions).toMatchObject([{ leader: 'a', replicas: { a: { up: true, state: 'running' }, b: { up: true } } }]);
    // 3.3 batches a second.
    for (const rate of [before.rates.folded.a, before.rates.folded.b]) expect(Math.abs((rate ?? 0) - 1000 / 300)).toBeLessThan(1);
    expect(before.rates.emitted).toBeGreaterThan(0.5);
    loops.get('a')!.kill();
    for (let frame = 0; frame < 5; frame++) await command(() => watch.follow(clock.now() + 1_000));
    const after = watch.state();
    expect(after.status.partitions).toMatchObject([{ leader: 'b', replicas: { a: { up: false, state: 'down' }, b: { up: true } } }]);
    expect(after.alarms.map(({ code, found }) => `${code} ${found}`)).toContainEqual(expect.stringMatching(/^FL601 aggregator a: silent for \d s$/));
    const lines = renderTop({ ...after, imbalanceFlows: null, problem: '' }, { columns: 80, rows: 24 });
    expect(lines.join('\n')).toMatch(/^ +0 +b +DOWN /m);
    await command(() => watch.openAgain());
    await command(() => watch.follow(clock.now() + 1_000));
    expect(watch.state().status.partitions).toMatchObject([{ leader: 'b' }]);
    await watch.close();
  });
});

describe('trace', () => {
  const [src, dst] = [Buffer.from([10, 9, 9, 9]), Buffer.from([10, 8, 8, 8])];
  const trace = (atMs: number) => command(() => traceFlows(log(), null, { src, dst, at: atMs, within: 10_000, limit: 5 }));

  test('a flow, one that came late, a copy of its batch, and one that waits', async () => {
    await traffic(5_000);
    const atMs = clock.now();
    const odd = [
      flow({ src_addr: src, dst_addr: dst, src_port: 1 }),
      flow({ src_addr: src, dst_addr: dst, src_port: 2, time_flow_end_ms: atMs - 4_000 }),
    ];
    sendNext(odd);
    const again = sequence;
    await traffic(1_000);
    sendNext(odd, { sequence: again });
    sequence = broker.partition('nars', 0).endOffset - 2;
    await traffic(4_000);
    const { found, flows } = await trace(atMs);
    expect(found).toBe(4);
    const byPort = (port: number, verdict: string) => flows.find((one) => one.nar.src_port === port && one.verdict === verdict)!;
    const outputs = new Map(emitted().map((output) => [output.n, output]));
    const rowOf = (one: (typeof flows)[number]) => outputs.get(one.output?.n ?? 0)?.aggregate;
    const own = byPort(1, 'emitted');
    expect(own).toMatchObject({ output: { kind: 'usage' }, booked: null, batch: { acknowledged_by: ['a', 'b'], sequence: again } });
    expect(rowOf(own)).toMatchObject({ kind: 'usage', window_start_ms: own.window!.start_ms });
    const late = byPort(2, 'emitted');
    expect(late.output).toMatchObject({ kind: 'adjustment' });
    expect(rowOf(late)).toMatchObject({ kind: 'adjustment', window_start_ms: Math.floor((atMs - 4_000) / second) * second });
    for (const port of [1, 2]) expect(byPort(port, 'duplicate').batch.offset).toBeGreaterThan(own.batch.offset);
  });

  test('without an aggregator it waits for it, and with both its window is open', async () => {
    await traffic(5_000);
    loops.get('b')!.kill();
    await pass(1_000);
    const atMs = clock.now();
    sendNext([flow({ src_addr: src, dst_addr: dst, time_flow_end_ms: atMs + 30_000 })]);
    await traffic(1_000);
    expect((await trace(atMs)).flows).toMatchObject([{ verdict: 'waiting', why: 'not acknowledged by aggregator b yet: see flowledger status' }]);
    startAggregator('b');
    await traffic(5_000);
    expect((await trace(atMs)).flows).toMatchObject([{ verdict: 'open', output: null }]);
  });

  test('one that is not in the log: what was lost at that time', async () => {
    await traffic(1_000);
    const nars = [flow()];
    sendNext(nars, {
      losses: [
        {
          reason: 'store_full',
          sampler_address: '192.0.2.7',
          observation_domain_id: 0,
          protocol: 'ipfix',
          nars: 3,
          bytes: 1n,
          packets: 1n,
          unknown: false,
        },
      ],
    });
    expect(await trace(clock.now())).toMatchObject({
      found: 0,
      flows: [],
      losses: [{ reason: 'store_full', exporter: '192.0.2.7', flows: 3, partition: 0 }],
    });
  });
});
