/**
 * The collector's loop: datagrams become NARs, NARs batches, batches go to the local copy first and then to Kafka, and leave the copy when both
 * aggregators have acknowledged them. It works while Kafka is away, while the store is away, and while both are.
 */
import type { Clock, Log, Logger } from '../../adapters/ports.ts';
import { type Store, StoreFault } from '../../adapters/store.ts';
import { Batcher } from '../../core/buffer/batcher.ts';
import { type CopyFigures, figuresOf } from '../../core/buffer/figures.ts';
import { Gate } from '../../core/buffer/gate.ts';
import { Ledger, type Suspected } from '../../core/buffer/ledger.ts';
import { dueSettlement, forgetOver, noteSettled } from '../../core/buffer/settlement.ts';
import { partitionOf } from '../../core/nar/flow-key.ts';
import { Decoder, defaultDecoderLimits, type ExporterSlot } from '../../core/wire/decoder.ts';
import type { Nar } from '../../schemas/types.ts';
import type { CollectorConfig } from './config.ts';
import { configuredRates } from './configured-rates.ts';
import { Copying } from './copying.ts';
import { Discovery } from './discovery.ts';
import { ExporterLists } from './exporter-lists.ts';
import { Listening } from './listening.ts';
import { Remembering } from './remembering.ts';
import { Reporting } from './reporting.ts';
import { Sending } from './sending.ts';
import { Sessions } from './sessions.ts';

export interface Datagram {
  /** May be reused when `receive` has returned. */
  readonly bytes: Uint8Array;
  /** The exporter's, an IPv4 one as dotted quad. */
  readonly address: string;
  readonly receivedMs: number;
}

/** A message of a transport session. */
export interface SessionMessage extends Datagram {
  /** `ADDRESS#NAME`, not used again for another one. */
  readonly session: string;
}

export interface CollectorParts {
  readonly config: CollectorConfig;
  /** Of topic nars, as configured; the broker's word is held against it. */
  readonly partitions: number;
  readonly log: Log;
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  /** What an operator should know of how datagrams are received now. */
  readonly reception?: () => readonly string[];
}

const upkeepMs = 200;
const lookMs = 2_000;
const storeProbeMs = 500;
const durabilityMs = 30_000;
const brokerAskMs = 2_000;
const brokerProbeMs = 250;
/** What a stop may take to send what is kept; the copy holds the rest. */
const stopWithinMs = 3_000;
const stopPollMs = 20;
const stopFlushesMax = 2;
/** A foreign incarnation that is empty and did not move for so many ticks is over. */
const idleTicks = 3;
/** What its owner keeps to, in shares of that: a clock that was set back goes at half the speed. */
const leaseShare = 2;
/** Datagrams that come before the positions are restored. */
const earlyBytesMax = 16 * 1024 * 1024;
/** NARs that are not in the copy yet, as a share of the memory that may be used: with so many, exporters that can wait have to. */
const pendingShare = 8;
/** Unsent batches that need not be read back from the store, as a share of the memory that may be used. */
const cacheShare = 4;

export class Collector {
  readonly #parts: CollectorParts;
  readonly #exporters: ExporterLists;
  readonly #sessions: Sessions;
  readonly #decoder: Decoder;
  readonly #batcher: Batcher;
  readonly #ledger: Ledger;
  readonly #gate: Gate;
  readonly #copying: Copying;
  readonly #discovery: Discovery;
  readonly #sending: Sending;
  readonly #listening: Listening;
  readonly #remembering: Remembering;
  readonly #reporting: Reporting;
  readonly #sink: (nar: Nar, slot: ExporterSlot) => void;
  readonly #cutMs: number[];
  readonly #idleMs: number;
  #early: Datagram[] | null = [];
  #earlyBytes = 0;
  #earlyDropped = 0;
  #begun: Promise<void> | null = null;
  #doubts: readonly string[] = [];
  /** The store held nothing at the start: either this is the first start, or the store was emptied. */
  #foundNothing = false;
  #nextLookMs = 0;
  #nextProbeMs = 0;
  #nextDurabilityMs = 0;

  constructor(parts: CollectorParts) {
    const { config, partitions, log, store, clock, logger } = parts;
    const collector = config.name;
    this.#parts = parts;
    this.#exporters = new ExporterLists(config);
    this.#sessions = new Sessions(logger);
    const { template_expiry: templateExpiryMs, template_wait: waitMs, template_wait_bytes: waitBytesMax } = config;
    const limits = { ...defaultDecoderLimits, templateExpiryMs, waitMs, waitBytesMax };
    this.#decoder = new Decoder(limits, this.#exporters.isKnown, configuredRates(config.sampling));
    const batcher = new Batcher({ collector, partitions, narsMax: config.batch_nars_max });
    const cacheBytesMax = Math.floor(config.memory_max / cacheShare);
    const ledger = new Ledger({ partitions, suspicionAfterMs: config.suspicion_after, cacheBytesMax });
    const gate = new Gate(config.transfer_gate);
    const sizes = { storeMax: config.store_max, storeReserve: config.store_reserve, memoryMax: config.memory_max };
    this.#idleMs = idleTicks * Math.max(config.tick_interval, config.flush_interval);
    const copying = new Copying({ collector, partitions, ...sizes, leaseMs: this.#idleMs / leaseShare }, { store, clock, logger, ledger, batcher });
    const isOwn = (incarnation: string) => copying.isOwn(incarnation);
    const discovery = new Discovery({ collector, partitions, store, clock, logger, ledger, isOwn });
    const storeThere = () => copying.isStoreThere;
    const storeFailed = (fault: StoreFault) => copying.leave(fault);
    const { confirmed } = discovery;
    const sending = new Sending({ collector, partitions, log, store, clock, logger, ledger, gate, storeThere, storeFailed, confirmed });
    this.#listening = new Listening({
      collector,
      partitions,
      log,
      clock,
      logger,
      ledger,
      gate,
      heard: () => sending.pumpAll(),
      known: (one) => this.#isKnown(one),
    });
    const troubles = () => copying.counters.mismatches + copying.counters.storeFaults;
    this.#remembering = new Remembering({ store, decoder: this.#decoder, clock, logger, troubles });
    this.#reporting = new Reporting({ collector, log, clock, healthIntervalMs: config.health_interval, stats: () => this.stats() });
    this.#batcher = batcher;
    this.#ledger = ledger;
    this.#gate = gate;
    this.#copying = copying;
    this.#discovery = discovery;
    this.#sending = sending;
    this.#cutMs = new Array<number>(partitions).fill(clock.now());
    this.#sink = (nar, slot) => batcher.add(nar, slot, partitionOf(nar, partitions));
  }

  /** Takes datagrams as they come; synchronous, so that everything it adds is in the next flush together with the positions it reaches. */
  receive(datagrams: readonly Datagram[]): void {
    for (const datagram of datagrams) {
      const { bytes, address, receivedMs } = datagram;
      if (!this.#exporters.allows(address)) {
        this.#exporters.counters.datagrams++;
        continue;
      }
      if (this.#early) {
        this.#receiveEarly(this.#early, datagram);
        continue;
      }
      this.#batcher.at(receivedMs);
      this.#decoder.decode(bytes, address, receivedMs, this.#sink);
    }
  }

  /** Whether more can be taken without loss; an exporter that can wait is not read otherwise. */
  hasRoom(): boolean {
    return !this.#early && !this.#batcher.refusing && this.#batcher.pendingBytes < this.#parts.config.memory_max / pendingShare;
  }

  /** Takes a message of a transport session, of an exporter that is allowed. */
  receiveMessage({ bytes, address, receivedMs, session }: SessionMessage): void {
    this.#sessions.note(session, address);
    this.#batcher.at(receivedMs);
    this.#decoder.decode(bytes, address, receivedMs, this.#sink, session);
  }

  /** isComplete: nothing of the session is missing. */
  sessionEnded(session: string, address: string, isComplete: boolean): void {
    this.#decoder.endSession(session);
    if (this.#sessions.end(session, address, isComplete)) this.#batcher.doubt('session_lost');
  }

  allows(address: string): boolean {
    return this.#exporters.allows(address);
  }

  /** null where the configuration names no exporter. */
  get isKnown(): ((address: string) => boolean) | null {
    return this.#exporters.isKnown;
  }

  #receiveEarly(early: Datagram[], datagram: Datagram): void {
    if (this.#earlyBytes + datagram.bytes.length > earlyBytesMax) {
      this.#earlyDropped++;
      return;
    }
    this.#earlyBytes += datagram.bytes.length;
    early.push({ ...datagram, bytes: Uint8Array.from(datagram.bytes) });
  }

  /** Learns where the exporters' sequences stood, so that the first datagram of each tells what was lost in between. */
  begin(): Promise<void> {
    this.#begun ??= this.#begin();
    return this.#begun;
  }

  async #begin(): Promise<void> {
    const { store, logger } = this.#parts;
    try {
      await this.#askDurability();
      const { positions, isInDoubt } = this.#sessions.restore(await store.positions());
      this.#decoder.restore(positions);
      if (isInDoubt) this.#batcher.doubt('session_lost');
      await this.#discovery.look();
      this.#foundNothing = positions.size === 0 && this.#ledger.streams.length === 0;
    } catch (error) {
      this.#storeFailed(error);
      logger.warn({}, 'the store is away at the start: what was lost before it cannot be told');
      this.#batcher.doubt();
    }
    await this.#recall();
    const early = this.#early ?? [];
    this.#early = null;
    this.receive(early);
  }

  async #recall(): Promise<void> {
    if (this.#copying.mode === 'memory') return;
    try {
      await this.#remembering.recall();
    } catch (error) {
      this.#storeFailed(error);
    }
  }

  /** A store without anything, and replicas that know an earlier process: it was emptied, and with it went what tells the loss in between. */
  #isKnown(incarnation: string): void {
    if (!this.#foundNothing || this.#copying.wasOwn(incarnation)) return;
    this.#foundNothing = false;
    this.#parts.logger.error({ incarnation }, 'the store was emptied since an earlier process used it: what was lost cannot be told');
    this.#batcher.doubt();
  }

  /** Resolves after a graceful stop. Rejects when something went wrong that is no fault of the world around it. */
  async run(signal: AbortSignal): Promise<void> {
    await this.begin();
    const ended = new AbortController();
    const others = Promise.all([
      this.#keepUp(ended.signal),
      this.#askBroker(ended.signal),
      this.#listening.run(ended.signal),
      this.#reporting.run(ended.signal),
    ]);
    try {
      await Promise.race([this.#flushing(signal), others]);
      await Promise.race([this.#stop(), others]);
    } finally {
      ended.abort();
    }
    await others;
    await this.#reporting.last();
    await this.#reporting.close();
    await this.#sending.close();
  }

  async #flushing(signal: AbortSignal): Promise<void> {
    const { config, clock } = this.#parts;
    while (!signal.aborted) {
      await clock.sleep(this.#batcher.refusing ? config.tick_interval : config.flush_interval, signal);
      await this.#flush(false);
      this.#sending.pumpAll();
    }
  }

  /** Everything decoded so far goes into the copy, with the positions that exactly this reaches: both are taken in one synchronous step. */
  async #flush(goodbye: boolean): Promise<void> {
    const { clock } = this.#parts;
    this.#copying.attend();
    if (!goodbye && !this.#copying.hasRoom()) return;
    for (;;) {
      const nowMs = clock.now();
      this.#decoder.expire(nowMs);
      const reports = this.#decoder.takeReports();
      const positions = [...this.#decoder.takePositions(), ...this.#sessions.takeMarks()];
      const cut = this.#batcher.take(nowMs, reports, this.#ticksDue(nowMs), goodbye);
      if (cut.length === 0 && positions.length === 0) return;
      for (const { partition } of cut) this.#cutMs[partition] = nowMs;
      if ((await this.#copying.keep(cut, positions)) === 'kept') return;
    }
  }

  #ticksDue(nowMs: number): number[] {
    const due: number[] = [];
    for (const [partition, cutMs] of this.#cutMs.entries()) {
      if (nowMs - cutMs >= this.#parts.config.tick_interval && !this.#ledger.hasUnsent(partition)) due.push(partition);
    }
    return due;
  }

  async #keepUp(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#parts.clock.sleep(upkeepMs, signal);
      await this.#upkeep();
    }
  }

  async #upkeep(): Promise<void> {
    const { clock } = this.#parts;
    forgetOver(this.#ledger);
    const nowMs = clock.now();
    try {
      if (this.#copying.mode === 'memory') {
        if (nowMs < this.#nextProbeMs) return;
        this.#nextProbeMs = nowMs + storeProbeMs;
        await this.#askDurability();
        await this.#copying.settleDoubt();
        await this.#settle();
        await this.#copying.returnToStore();
      }
      if (this.#copying.mode === 'memory') return;
      await this.#settle();
      await this.#remembering.save();
      if (nowMs >= this.#nextDurabilityMs) await this.#askDurability();
      if (nowMs >= this.#nextLookMs) {
        this.#nextLookMs = nowMs + lookMs;
        await this.#discovery.look();
        // Straight behind the look, so that nobody has moved since.
        await this.#discovery.sayGoodbyes(this.#idleMs);
      }
    } catch (error) {
      this.#storeFailed(error);
    }
  }

  async #settle(): Promise<void> {
    const due = dueSettlement(this.#ledger);
    if (!due) return;
    await this.#parts.store.settle({ ...due, release: [] });
    noteSettled(this.#ledger, due);
  }

  async #askDurability(): Promise<void> {
    const { doubts } = await this.#parts.store.durability();
    this.#nextDurabilityMs = this.#parts.clock.now() + durabilityMs;
    if (doubts.length > 0 && doubts.join() !== this.#doubts.join())
      this.#parts.logger.warn({ doubts }, 'the local copy is less durable than it should be');
    this.#doubts = doubts;
  }

  #storeFailed(error: unknown): void {
    if (!(error instanceof StoreFault)) throw error;
    this.#copying.leave(error);
  }

  async #askBroker(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#sending.determine();
      this.#sending.pumpAll();
      const isSettled = this.#gate.brokerThere && this.#ledger.awaiting().length === 0;
      await this.#parts.clock.sleep(isSettled ? brokerAskMs : brokerProbeMs, signal);
    }
  }

  /** To the copy, with a goodbye in every partition; then what can be sent within a few seconds. The copy keeps the rest for the next start. */
  async #stop(): Promise<void> {
    const { clock } = this.#parts;
    this.#reporting.stopping();
    for (let attempt = 1; attempt <= stopFlushesMax; attempt++) {
      await this.#backInStore();
      await this.#flush(true);
      if (this.#copying.mode === 'store') break;
    }
    const untilMs = clock.now() + stopWithinMs;
    while (clock.now() < untilMs && this.#ledger.streams.some((stream) => stream.next <= stream.last)) {
      this.#sending.pumpAll();
      await clock.sleep(stopPollMs);
    }
    if (this.#copying.mode === 'memory') return;
    try {
      await this.#settle();
      await this.#remembering.save();
    } catch (error) {
      this.#storeFailed(error);
    }
  }

  /** What is in memory at the end leaves a doubt behind, so the store gets another chance. */
  async #backInStore(): Promise<void> {
    const { clock } = this.#parts;
    this.#nextProbeMs = 0;
    const untilMs = clock.now() + 2 * storeProbeMs;
    while (this.#copying.mode === 'memory' && clock.now() < untilMs) await clock.sleep(stopPollMs);
  }

  suspicions(): Suspected[] {
    return this.#ledger.suspicions(this.#parts.clock.now());
  }

  readiness(): { ready: boolean; reasons: string[] } {
    const { reasons, ready } = this.stats();
    return { ready, reasons };
  }

  stats() {
    const { config, clock } = this.#parts;
    const { batcher, copying, sending, ledger } = { batcher: this.#batcher, copying: this.#copying, sending: this.#sending, ledger: this.#ledger };
    const reasons: string[] = [];
    if (this.#early) reasons.push('starting: the positions of the exporters are being read');
    if (copying.mode === 'memory') reasons.push(`the local copy is in memory only (${copying.fault}): see to Redis`);
    if (batcher.refusing) reasons.push(`NARs are refused (${batcher.refusing}): see to what is away, or raise collector.store_max`);
    if (!this.#gate.brokerThere) reasons.push(`nothing is sent: ${sending.fault}`);
    if (this.#discovery.strayPartitions.size > 0)
      reasons.push(`the store holds batches of partitions ${[...this.#discovery.strayPartitions]}: raise topics.partitions`);
    const ready = reasons.length === 0;
    if (config.transfer_gate === 'aggregator' && !this.#gate.aggregatorThere(clock.now()))
      reasons.push('nothing is sent: no aggregator is heard on health');
    reasons.push(...this.#doubts, ...(this.#parts.reception?.() ?? []));
    const figures: CopyFigures = figuresOf(ledger);
    return {
      ready,
      reasons,
      incarnation: copying.incarnation,
      store: copying.mode === 'store' ? ('redis' as const) : ('memory' as const),
      durable: copying.mode === 'store' && this.#doubts.length === 0,
      bytes: ledger.bytes,
      bytesMax: copying.mode === 'store' ? config.store_max : config.memory_max,
      figures,
      holdings: ledger.holdings,
      suspicions: this.suspicions(),
      decoder: this.#decoder.counters,
      disallowed: this.#exporters.counters,
      lostSessions: this.#sessions.lost,
      copying: copying.counters,
      ledger: ledger.counters,
      sending: sending.counters,
      listening: this.#listening.counters,
      reporting: this.#reporting.counters,
      refusedNars: copying.counters.refusedNars + batcher.refusedNars,
      pendingNars: batcher.pendingNars,
      earlyDropped: this.#earlyDropped,
      brokerThere: this.#gate.brokerThere,
      streams: ledger.streams.length,
    };
  }
}

export type CollectorStats = ReturnType<Collector['stats']>;
