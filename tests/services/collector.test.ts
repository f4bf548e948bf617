import { describe, expect, test } from '@jest/globals';
import type { Logger } from '../../adapters/ports.ts';
import { ackCodec, healthCodec, narBatchCodec } from '../../schemas/codec.ts';
import { ackPartition, replicas, topics } from '../../schemas/topics.ts';
import type { Health, NarBatch } from '../../schemas/types.ts';
import { Collector } from '../../services/collector/collector.ts';
import { type CollectorConfig, collectorConfig } from '../../services/collector/config.ts';
import { ipfixMessage, octets, set, templateRecord } from '../core/wire/decoding.ts';
import { ModelClock, ProcessHandle } from '../simulation/model-clock.ts';
import { ModelExporter } from '../simulation/model-exporter.ts';
import { ModelBroker, noLogFaults } from '../simulation/model-log.ts';
import { ModelStoreServer, noStoreFaults } from '../simulation/model-store.ts';

const silent: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const partitions = 2;
const name = 'c1';
/** SEEDS=100 looks further than every run does. */
const seeds = Array.from({ length: Number(process.env['SEEDS'] ?? 2) }, (_, index) => index + 1);

/** A replica as far as a collector notices it: it accepts batches in order, and says so. */
class Acknowledger {
  readonly offsets = new Array<number>(partitions).fill(0);
  readonly accepted = Array.from({ length: partitions }, () => new Map<string, number>());
  readonly batches: NarBatch[] = [];
  isAway = false;
  readonly #replica: string;
  readonly #broker: ModelBroker;

  constructor(replica: string, broker: ModelBroker) {
    this.#replica = replica;
    this.#broker = broker;
  }

  turn(): void {
    if (this.isAway) return;
    const acks = this.#broker.partition(topics.acks.name, ackPartition(name));
    for (let partition = 0; partition < partitions; partition++) {
      this.#fold(partition);
      const sequences = Array.from(this.accepted[partition]!, ([incarnation, sequence]) => ({ incarnation, sequence }));
      const topic_id = this.#broker.topic(topics.nars.name).id;
      const ack = { replica: this.#replica, collector: name, partition, topic_id, folded_offset: this.offsets[partition]!, sequences, at_ms: 0 };
      this.#broker.append(acks, [{ key: Buffer.from(`${this.#replica}/${name}/${partition}`), value: ackCodec.encode(ack) }], null);
    }
  }

  #fold(partition: number): void {
    const { entries } = this.#broker.partition(topics.nars.name, partition);
    for (; this.offsets[partition]! < entries.length; this.offsets[partition]!++) {
      const batch = narBatchCodec.decode(entries[this.offsets[partition]!]!.record.value!);
      const last = this.accepted[partition]!.get(batch.incarnation) ?? 0;
      if (batch.sequence !== last + 1) continue;
      this.accepted[partition]!.set(batch.incarnation, batch.through);
      this.batches.push(batch);
    }
  }
}

class World {
  readonly clock: ModelClock;
  readonly broker: ModelBroker;
  readonly server: ModelStoreServer;
  readonly replicas: Record<'a' | 'b', Acknowledger>;
  readonly exporter: ModelExporter;
  readonly config: CollectorConfig;
  process!: ProcessHandle;
  collector!: Collector;
  error: Error | null = null;
  stopped = false;
  #stop!: AbortController;

  constructor(seed: number, settings: Partial<CollectorConfig> = {}) {
    this.clock = new ModelClock(seed);
    this.broker = new ModelBroker(this.clock, partitions);
    this.server = new ModelStoreServer(this.clock);
    this.replicas = { a: new Acknowledger('a', this.broker), b: new Acknowledger('b', this.broker) };
    this.exporter = new ModelExporter(1, this.clock.chance.fork(), this.clock.now());
    this.config = { ...collectorConfig.parse({}), name, ...settings };
    this.server.onTrim = (incarnation, partition, sequence, what) => {
      if (what === 'released') return;
      for (const replica of replicas) {
        if ((this.replicas[replica].accepted[partition]!.get(incarnation) ?? 0) < sequence) {
          this.error ??= new Error(`${incarnation}/${partition}/${sequence} left the store before ${replica} had it`);
        }
      }
    };
    this.start();
    this.#every(100, () => {
      for (const replica of replicas) this.replicas[replica].turn();
    });
  }

  #every(ms: number, action: () => void): void {
    this.clock.after(ms, () => {
      action();
      this.#every(ms, action);
    });
  }

  start(): void {
    this.process = new ProcessHandle(this.clock, name);
    this.#stop = new AbortController();
    this.stopped = false;
    const { config } = this;
    const log = this.broker.connect(this.process);
    this.collector = new Collector({ config, partitions, log, store: this.server.connect(this.process), clock: this.process.clock, logger: silent });
    this.collector.run(this.#stop.signal).then(
      () => {
        this.stopped = true;
      },
      (error) => {
        this.error ??= error;
      },
    );
  }

  export(flows?: number): void {
    const { bytes, exporter } = this.exporter.export(this.clock.now(), flows);
    this.process.deliver(() => this.collector.receive([{ bytes, address: exporter, receivedMs: this.clock.now() }]));
  }

  /** Exports while virtual time goes on. */
  async traffic(ms: number, everyMs = 20): Promise<void> {
    const untilMs = this.clock.now() + ms;
    while (this.clock.now() < untilMs) {
      this.export();
      await this.clock.run(this.clock.now() + everyMs);
    }
  }

  run(ms: number): Promise<void> {
    return this.clock.run(this.clock.now() + ms);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.clock.runUntil(() => this.stopped, this.clock.now() + 20_000);
    await this.run(2_000);
  }

  /** Faults end, everything comes to rest, and each flow that was exported is accounted for in both replicas. */
  async settle(): Promise<void> {
    this.broker.faults = { ...noLogFaults };
    this.server.faults = { ...noStoreFaults };
    for (const replica of replicas) this.replicas[replica].isAway = false;
    await this.run(20_000);
    await this.traffic(500);
    await this.run(20_000);
  }

  /** What one replica knows of the exporter's flows. */
  account(replica: 'a' | 'b') {
    const sum = { nars: 0, bytes: 0, lostOnWire: 0, lost: 0, doubts: 0, decoded: 0, distinct: 0 };
    const ids = new Set<number>();
    for (const batch of this.replicas[replica].batches) {
      for (const nar of batch.nars) {
        sum.nars++;
        sum.bytes += nar.bytes;
        ids.add(Buffer.from(nar.next_hop).readUInt32BE(0));
      }
      for (const loss of batch.losses) {
        if (loss.unknown) sum.doubts++;
        sum.lost += loss.nars;
        sum.bytes += Number(loss.bytes);
      }
      for (const report of batch.exporters) {
        sum.lostOnWire += report.lost_on_wire_flows;
        sum.decoded += report.decoded_flows;
      }
    }
    sum.distinct = ids.size;
    return sum;
  }

  health(): Health[] {
    const { entries } = this.broker.partition(topics.health.name, 0);
    return entries.map(({ record }) => healthCodec.decode(record.value!));
  }
}

function expectBalanced(world: World): void {
  expect(world.error).toBeNull();
  const sent = world.exporter.sent;
  for (const replica of replicas) {
    const account = world.account(replica);
    expect(account.nars).toBe(account.distinct);
    expect(account.nars).toBe(account.decoded);
    expect(account.nars + account.lost + account.lostOnWire).toBe(sent.length);
  }
}

describe('the whole of the traffic reaches both replicas, each flow once', () => {
  test('on a calm day, and the copy is empty afterwards', async () => {
    const world = new World(1);
    await world.traffic(5_000);
    await world.settle();
    expectBalanced(world);
    expect(world.account('a')).toMatchObject({ lost: 0, lostOnWire: 0, bytes: world.exporter.sent.reduce((sum, flow) => sum + flow.bytes, 0) });
    expect(world.collector.stats().figures.nars).toBe(0);
    expect(world.collector.readiness()).toEqual({ ready: true, reasons: [] });
  });

  test.each(seeds)('while the broker lies, calls fail and the collector is killed (seed %i)', async (seed) => {
    const world = new World(seed);
    await world.traffic(1_000);
    for (let i = 0; i < 6; i++) {
      world.broker.faults = {
        ...noLogFaults,
        unavailable: 0.05,
        unknownAppended: 0.05,
        unknownLost: 0.05,
        unknownLate: 0.05,
        swallowed: 0.1,
        repeated: 0.1,
        readFault: 0.05,
      };
      await world.traffic(world.clock.chance.integer(100, 3_000));
      if (world.clock.chance.happens(0.3)) world.broker.away(3_000);
      world.replicas.b.isAway = world.clock.chance.happens(0.3);
      if (world.clock.chance.happens(0.5)) {
        world.process.kill();
        await world.traffic(500);
        world.start();
      }
    }
    await world.settle();
    expectBalanced(world);
    expect(world.account('a').lost).toBe(0);
    expect(world.collector.stats().figures.nars).toBe(0);
  });

  test.each(seeds)('while the store comes and goes, and answers get lost (seed %i)', async (seed) => {
    const world = new World(seed);
    for (let i = 0; i < 6; i++) {
      world.broker.faults = { ...noLogFaults, unknownAppended: 0.05, swallowed: 0.05, unknownLost: 0.05 };
      world.server.faults = { away: 0.01, unknownDone: 0.02, unknownLost: 0.02 };
      await world.traffic(world.clock.chance.integer(100, 3_000));
      if (world.clock.chance.happens(0.5)) world.server.away(2_000);
      if (world.clock.chance.happens(0.3)) world.broker.away(3_000);
    }
    await world.settle();
    expectBalanced(world);
    expect(world.account('b')).toMatchObject({ lost: 0, lostOnWire: 0 });
    expect(world.collector.stats()).toMatchObject({ store: 'redis', bytes: { memory: 0 }, figures: { nars: 0 } });
  });

  test.each(seeds)('while the store is emptied and set back: what is only there is lost, and said to be (seed %i)', async (seed) => {
    const world = new World(seed);
    await world.traffic(2_000);
    const restore = world.server.save();
    await world.traffic(1_000);
    restore();
    await world.traffic(1_000);
    world.broker.away(3_000);
    await world.traffic(1_000);
    world.server.wipe();
    await world.traffic(1_000);
    await world.settle();
    expectBalanced(world);
    expect(world.collector.stats().copying.mismatches).toBeGreaterThanOrEqual(2);
    expect(world.account('a').doubts).toBe(0);
  });
});

describe('store and forward', () => {
  test('starts while the broker is away, keeps everything, and sends it when the broker is there', async () => {
    const world = new World(9);
    world.process.kill();
    world.broker.away(10_000);
    world.start();
    await world.traffic(5_000);
    expect(world.collector.stats()).toMatchObject({ ready: false, brokerThere: false });
    expect(world.collector.stats().figures.unconfirmedNars).toBe(world.exporter.sent.length - world.collector.stats().pendingNars);
    await world.settle();
    expectBalanced(world);
  });

  test('starts while broker and store are away: the copy is in memory, and says so', async () => {
    const world = new World(10);
    world.process.kill();
    world.broker.away(6_000);
    world.server.away(6_000);
    world.start();
    await world.traffic(5_000);
    expect(world.collector.stats()).toMatchObject({ store: 'memory', durable: false, ready: false });
    await world.settle();
    expectBalanced(world);
    expect(world.collector.stats().store).toBe('redis');
    expect(world.account('a')).toMatchObject({ lostOnWire: 0, doubts: 1 });
    expect(world.replicas.a.batches.some((batch) => batch.volatile && batch.goodbye)).toBe(true);
  });

  test('that starts and finds its store emptied says that something may be missing; the first start does not', async () => {
    const world = new World(19);
    await world.traffic(2_000);
    await world.run(3_000);
    expect(world.account('a').doubts).toBe(0);
    world.process.kill();
    world.server.wipe();
    world.start();
    await world.settle();
    expect(world.error).toBeNull();
    expect(world.account('a').doubts).toBe(1);
  });

  test('keeps the copy until both replicas have it, and suspects the one that is silent', async () => {
    const world = new World(11);
    world.replicas.b.isAway = true;
    await world.traffic(5_000);
    const { figures, suspicions } = world.collector.stats();
    expect(figures.unacknowledgedNars.a).toBeLessThan(1_000);
    expect(figures.unacknowledgedNars.b).toBe(world.exporter.sent.length - world.collector.stats().pendingNars);
    expect(suspicions.map(({ replica }) => replica)).toEqual(['b', 'b']);
    expect(
      world
        .health()
        .at(-1)
        ?.suspicions.map(({ replica }) => replica),
    ).toEqual(['b', 'b']);
    await world.settle();
    expectBalanced(world);
    expect(world.collector.stats().suspicions).toEqual([]);
    expect(world.collector.stats().figures.nars).toBe(0);
  });

  test('its health names the exporters whose flows it keeps, also those that an earlier process left in the store', async () => {
    const world = new World(20);
    world.replicas.b.isAway = true;
    await world.traffic(3_000);
    const held = () => world.health().at(-1)?.copy;
    const ofExporter = (nars: number | undefined) => [
      { sampler_address: world.exporter.address, observation_domain_id: 0, protocol: 'netflow_v5', nars },
    ];
    expect(held()?.nars).toBeGreaterThan(1_000);
    expect(held()?.exporters).toEqual(ofExporter(held()?.nars));
    world.process.kill();
    world.start();
    await world.run(5_000);
    const kept = world.exporter.sent.length - world.account('a').lostOnWire;
    expect(held()?.nars).toBeGreaterThan(kept - 200);
    expect(held()?.exporters).toEqual(ofExporter(held()?.nars));
    await world.settle();
    expectBalanced(world);
    expect(held()?.exporters).toEqual([]);
  });

  test('with the gate on aggregators nothing is sent before one is heard', async () => {
    const world = new World(12, { transfer_gate: 'aggregator' });
    await world.traffic(3_000);
    expect(world.broker.partition(topics.nars.name, 0).endOffset).toBe(0);
    const beat = () => {
      const health = { ...world.health()[0]!, role: 'aggregator', id: 'a', stopping: false };
      world.broker.append(world.broker.partition(topics.health.name, 0), [{ key: null, value: healthCodec.encode(health) }], null);
      world.clock.after(200, beat);
    };
    beat();
    await world.settle();
    expectBalanced(world);
  });
});

describe('at the bound', () => {
  const settings = { store_max: 200_000, store_reserve: 50_000 };

  test('what the broker confirmed is released first, and nothing is lost of it', async () => {
    const world = new World(13, settings);
    world.replicas.b.isAway = true;
    await world.traffic(20_000);
    expect(world.collector.stats().ledger.releasedNars).toBeGreaterThan(0);
    expect(world.collector.stats().refusedNars).toBe(0);
    await world.settle();
    expectBalanced(world);
    expect(world.account('b').lost).toBe(0);
  });

  test('a released batch that the log does not hold is reported as lost, to the flow and the byte', async () => {
    const world = new World(14, settings);
    world.broker.faults = { ...noLogFaults, swallowed: 0.3 };
    world.replicas.a.isAway = true;
    world.replicas.b.isAway = true;
    await world.traffic(20_000);
    await world.settle();
    expectBalanced(world);
    expect(world.account('a').lost).toBeGreaterThan(0);
    expect(world.account('a').bytes).toBe(world.exporter.sent.reduce((sum, flow) => sum + flow.bytes, 0));
  });

  test('NARs that find no room are refused, each counted, and even a crash makes the loss no smaller', async () => {
    const world = new World(15, settings);
    await world.traffic(1_000);
    world.broker.away(40_000);
    await world.traffic(20_000);
    expect(world.collector.stats().refusedNars).toBeGreaterThan(0);
    expect(world.collector.stats().ready).toBe(false);
    world.process.kill();
    world.start();
    await world.traffic(5_000);
    await world.settle();
    expectBalanced(world);
    expect(world.account('a').lost).toBeGreaterThan(0);
    expect(world.collector.stats().refusedNars + world.account('a').lost).toBeGreaterThan(0);
    const lost = world.collector.stats().pendingNars;
    expect(lost).toBe(0);
  });
});

describe('a stop', () => {
  test('flushes, says goodbye in every partition, sends what it can, and its last health says that it is meant', async () => {
    const world = new World(16);
    await world.traffic(2_000);
    await world.stop();
    expect(world.stopped).toBe(true);
    expect(world.health().at(-1)).toMatchObject({ role: 'collector', id: name, stopping: true, ready: false });
    const goodbyes = world.replicas.a.batches.filter((batch) => batch.goodbye);
    expect(goodbyes.map(({ partition }) => partition).sort()).toEqual([0, 1]);
    expectBalanced(world);
  });

  test('while the broker is away it ends all the same; the next process sends the rest and clears the store', async () => {
    const world = new World(17);
    await world.traffic(1_000);
    world.broker.away(30_000);
    await world.traffic(1_000);
    await world.stop();
    expect(world.stopped).toBe(true);
    world.start();
    await world.run(30_000);
    await world.settle();
    expectBalanced(world);
    expect(world.account('a').lostOnWire).toBe(0);
    expect([...world.server.streams.values()].every((stream) => stream.incarnation === world.collector.stats().incarnation)).toBe(true);
  });
});

test('what exporters send that are not allowed is dropped first, also before the positions are restored', async () => {
  const world = new World(45, { exporters_allow: ['192.168.7.0/24'] });
  const { bytes } = world.exporter.export(world.clock.now(), 3);
  const forged = () => world.process.deliver(() => world.collector.receive([{ bytes, address: '203.0.113.1', receivedMs: world.clock.now() }]));
  forged();
  world.export(2);
  await world.run(1_000);
  forged();
  await world.run(1_000);
  expect(world.collector.stats()).toMatchObject({ disallowed: { datagrams: 2 }, decoder: { datagrams: 1, flows: 2 } });
});

describe('templates', () => {
  const nextHop = 15;
  const fields = [
    [8, 4],
    [12, 4],
    [nextHop, 4],
    [1, 4],
    [2, 4],
  ] as const;
  const receive = (world: World, message: Buffer) =>
    world.process.deliver(() => world.collector.receive([{ bytes: message, address: '192.0.2.1', receivedMs: world.clock.now() }]));
  const templates = (world: World) => ipfixMessage(0, [set(2, templateRecord(256, fields))], Math.floor(world.clock.now() / 1000));
  const data = (world: World, from: number) => {
    const record = octets([0x0a010101, 4], [0x0a020202, 4], [from, 4], [100, 4], [1, 4]);
    return ipfixMessage(from, [set(256, record)], Math.floor(world.clock.now() / 1000));
  };
  const restart = async (world: World) => {
    world.process.kill();
    world.start();
    await world.run(100);
  };

  test('outlive the process that learnt them: kill -9 between them and their data', async () => {
    const world = new World(41);
    receive(world, templates(world));
    await world.run(1_000);
    await restart(world);
    receive(world, data(world, 0));
    expect(world.collector.stats().decoder).toMatchObject({ recalledTemplates: 1, waitingSets: 0, flows: 1 });
    await world.run(3_000);
    expect(world.account('a').nars).toBe(1);
    expect(world.error).toBeNull();
  });

  test.each(['wipe', 'save'] as const)('are saved again in a store that lost them (%s)', async (how) => {
    const world = new World(42);
    const setBack = world.server.save();
    receive(world, templates(world));
    await world.run(1_000);
    expect(world.server.templates.size).toBe(1);
    if (how === 'wipe') world.server.wipe();
    else setBack();
    expect(world.server.templates.size).toBe(0);
    await world.run(5_000);
    expect(world.server.templates.size).toBe(1);
    await restart(world);
    receive(world, data(world, 0));
    expect(world.collector.stats().decoder.flows).toBe(1);
  });

  test('that came while the store was away are saved when it is back', async () => {
    const world = new World(43);
    await world.run(1_000);
    world.server.away(5_000);
    await world.run(2_000);
    receive(world, templates(world));
    await world.run(2_000);
    expect(world.server.templates.size).toBe(0);
    await world.run(5_000);
    expect(world.server.templates.size).toBe(1);
  });

  test('cost the store nothing while they only repeat', async () => {
    const world = new World(44);
    let saves = 0;
    const watched = world.server.write.bind(world.server);
    world.server.write = (effect) => {
      const before = new Map(world.server.templates);
      const written = watched(effect);
      if ([...world.server.templates].some(([name, text]) => before.get(name) !== text)) saves++;
      return written;
    };
    for (let i = 0; i < 50; i++) {
      receive(world, templates(world));
      await world.run(1_000);
    }
    expect(world.collector.stats().decoder.templates).toBeGreaterThan(10);
    expect(saves).toBe(1);
  });
});

describe('two processes under one name', () => {
  test('neither says goodbye for the other, whose streams are empty whenever all is acknowledged, while it goes on', async () => {
    const world = new World(31);
    await world.run(1_000);
    world.start();
    await world.traffic(12_000, 500);
    expect(world.replicas.a.batches.filter((batch) => batch.goodbye)).toEqual([]);
    expect(world.error).toBeNull();
  });

  test('a process that finds the streams of another one, all of them empty, takes it for alive until it was idle for a while', async () => {
    const world = new World(7);
    await world.traffic(1_000);
    await world.run(2_000);
    const first = world.process;
    first.pause();
    world.start();
    await world.run(2_500);
    const goodbyes = () => world.replicas.a.batches.filter(({ goodbye }) => goodbye).length;
    expect(goodbyes()).toBe(0);
    await world.run(3_000);
    expect(goodbyes()).toBeGreaterThan(0);
  });

  test('make duplicates, never a loss and never a flow counted twice', async () => {
    const world = new World(18);
    await world.traffic(1_000);
    const first = world.process;
    world.start();
    await world.traffic(5_000);
    first.kill();
    await world.traffic(1_000);
    await world.settle();
    expect(world.error).toBeNull();
    const account = world.account('a');
    expect(account.nars).toBe(account.distinct);
    expect(account.nars).toBe(world.exporter.sent.length);
  });
});
