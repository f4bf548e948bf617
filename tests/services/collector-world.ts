/** A real collector's loop over model adapters, two replicas as far as a collector notices them, and an exporter that knows what it sent. */
import type { Logger } from '../../adapters/ports.ts';
import { ackCodec, healthCodec, narBatchCodec } from '../../schemas/codec.ts';
import { ackPartition, replicas, topics } from '../../schemas/topics.ts';
import type { Health, NarBatch } from '../../schemas/types.ts';
import { Collector } from '../../services/collector/collector.ts';
import { type CollectorConfig, collectorConfig } from '../../services/collector/config.ts';
import { ModelClock, ProcessHandle } from '../simulation/model-clock.ts';
import { ModelExporter } from '../simulation/model-exporter.ts';
import { ModelBroker, noLogFaults } from '../simulation/model-log.ts';
import { ModelStoreServer, noStoreFaults } from '../simulation/model-store.ts';

const silent: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const partitions = 2;
export const collectorName = 'c1';

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
    const acks = this.#broker.partition(topics.acks.name, ackPartition(collectorName));
    for (let partition = 0; partition < partitions; partition++) {
      this.#fold(partition);
      const sequences = Array.from(this.accepted[partition]!, ([incarnation, sequence]) => ({ incarnation, sequence }));
      const topic_id = this.#broker.topic(topics.nars.name).id;
      const ack = {
        replica: this.#replica,
        collector: collectorName,
        partition,
        topic_id,
        folded_offset: this.offsets[partition]!,
        sequences,
        at_ms: 0,
      };
      this.#broker.append(acks, [{ key: Buffer.from(`${this.#replica}/${collectorName}/${partition}`), value: ackCodec.encode(ack) }], null);
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

export class World {
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
    this.config = { ...collectorConfig.parse({}), name: collectorName, ...settings };
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
    this.process = new ProcessHandle(this.clock, collectorName);
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
