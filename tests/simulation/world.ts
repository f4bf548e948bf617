/** One simulated history: the real service loops over model adapters, exporters that know their totals, and checkers that look at everything. */
import { createHash } from 'node:crypto';
import type { Ledger } from '../../adapters/ledger.ts';
import { openLedger } from '../../adapters/ledger-sqlite.ts';
import type { LogRecord } from '../../adapters/ports.ts';
import { electionCodec, narBatchCodec, verdictCodec } from '../../schemas/codec.ts';
import { adminCollector, outputTopic, type Replica, replicas, topics } from '../../schemas/topics.ts';
import type { FoldConfig } from '../../schemas/types.ts';
import type { Aggregator } from '../../services/aggregator/aggregator.ts';
import { flip } from '../flip.ts';
import { PartitionAuditor } from './auditor.ts';
import {
  acceptedOnce,
  acknowledgesTruly,
  addsUp,
  aggregatesAreACopy,
  BalanceSums,
  booksAnew,
  booksInOrder,
  decodeAck,
  electsInOrder,
  foldsTruly,
  isOfNoWrongReplica,
  newHistory,
  outputsAgree,
  outputsAreContiguous,
  type PartitionHistory,
  repeatsNothing,
  snapshotsFollowOutputs,
  staysBounded,
  trimsOnlyAcknowledged,
  watermarkRises,
} from './checkers.ts';
import { cutsOnlyAgreed, outputsAreCutBehind, snapshotCoversTheCut } from './cut-checkers.ts';
import { collectorName, endFaults, neverRepeats, strike } from './faults.ts';
import { Folded } from './folded.ts';
import { type Chance, ModelClock, type ProcessHandle } from './model-clock.ts';
import { type Datagram, ModelExporter, simulatedAccounts } from './model-exporter.ts';
import { ModelBroker } from './model-log.ts';
import { ModelStoreServer } from './model-store.ts';
import { Supervised } from './processes.ts';
import { alarms } from './promises.ts';
import { ReferenceFold } from './reference.ts';
import { replaceNars } from './replacement.ts';
import { accountingRole, aggregatorRole, collectorRole, feedRole, judgeRole, watchdogRole } from './roles.ts';
import { drawScenario, isPossible, type Scenario } from './scenario.ts';
import { everyFlowIsKnown, feedsAgree, noMoreThanSent, settled } from './settled.ts';
import { judgesTruly } from './wrongness.ts';

export interface WorldOptions {
  readonly seed: number;
  /** Virtual ms with faults, instead of what the seed says; settling comes on top. */
  readonly faultyMs?: number;
  /** Instead of what the seed says. */
  readonly scenario?: Scenario;
  /** Keeps every line of the trace, not only its digest. */
  readonly keepTrace?: boolean;
  /** Called once everything is built, before anything runs. */
  readonly prepare?: (world: World) => void;
}

export interface Outcome {
  readonly seed: number;
  readonly violations: readonly string[];
  readonly digest: string;
  readonly trace: readonly string[];
  readonly virtualMs: number;
  readonly events: number;
  readonly flows: number;
  /** How often what went wrong. */
  readonly counts: Readonly<Record<string, number>>;
  /** How often each invariant was looked at. */
  readonly checked: Readonly<Record<string, number>>;
  /** What the parts had to cope with, so that a history in which nothing happened shows. */
  readonly seen: Readonly<Record<string, number>>;
}

const settleWithinMs = 3 * 60_000;
/** Where a partition may stop, it has by then. */
const stopWithinMs = 45_000;
/** How often it is looked whether everything has settled. */
const settleStepMs = 1_000;

export class World {
  readonly clock: ModelClock;
  readonly chance: Chance;
  readonly broker: ModelBroker;
  readonly stores: ModelStoreServer[] = [];
  readonly exporters: ModelExporter[] = [];
  readonly histories: PartitionHistory[];
  readonly supervised: Supervised[] = [];
  /** As accounting gets it: what is written is looked at. */
  readonly ledger = this.#watched(openLedger(':memory:'));
  readonly violations: string[] = [];
  readonly trace: string[] = [];
  readonly counts: Record<string, number> = {};
  /** How often each invariant was looked at. */
  readonly checked: Record<string, number> = {};
  foldConfig: FoldConfig;
  #administered = 0;
  /** Records of nars that are younger are not cut: the least that any judge is told. */
  /** By partition: what both held before the snapshots of one were lost; a cut that was under way may still rest on it. */
  readonly agreedOnce: number[] = [];
  historyMs = Number.POSITIVE_INFINITY;
  /** By so much clocks may be wrong about the age of a record. */
  jumpedMs = 0;
  wire = { lost: 0, repeated: 0, delayed: 0 };
  /** How well it must be known what was lost: see settled.ts. */
  knowledge: 'exact' | 'bound' | 'none' = 'exact';
  /** All is well: an exporter that is heard now may stop, since what it sent before is told by its sequence. */
  #isEnding = false;
  readonly #unheard = new Set<ModelExporter>();
  /** Where each collector's current process takes datagrams; null while there is none. */
  readonly ingest: (((datagram: Datagram) => void) | null)[] = [];
  /** The current process of each replica. */
  readonly aggregators: Partial<Record<Replica, { readonly aggregator: Aggregator; readonly process: ProcessHandle }>> = {};
  /** Memory is changed in this history. */
  readonly hasFlips: boolean;
  /** In half of the histories with flips: the feeds wait for both, however long that takes, and nothing wrong is ever published. */
  readonly waitsForBoth: boolean;
  /** Nothing happens after which a batch may be sent again. */
  readonly #repeatsNothing: boolean;
  readonly #options: WorldOptions;
  readonly #scenario: Scenario;
  readonly #digest = createHash('sha256');
  readonly #committed: number[];

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#scenario = options.scenario ?? drawScenario(options.seed, options.faultyMs);
    this.hasFlips = this.#scenario.strikes.some(({ fault }) => fault === 'flip');
    this.waitsForBoth = this.hasFlips && this.#scenario.seed % 2 === 0;
    this.#repeatsNothing = this.#scenario.strikes.every((one) => neverRepeats(one));
    this.clock = new ModelClock(this.#scenario.seed);
    this.chance = this.clock.chance.fork();
    const { partitions, collectors, watchdogs, feeds, judges } = this.#scenario.parts;
    this.broker = new ModelBroker(this.clock, partitions);
    this.foldConfig = foldConfigOf(partitions, this.chance);
    this.histories = Array.from({ length: partitions }, (_, partition) =>
      newHistory(new ReferenceFold(partition), this.broker.topic(topics.nars.name).id),
    );
    this.#committed = this.histories.map(() => 0);
    this.broker.onAppend = (topic, partition, record) => this.#onAppend(topic, partition, record);
    this.broker.onCut = (topic, partition, from) => this.#onCut(topic, partition, from);
    this.clock.afterEvent = () => this.#readAggregates();
    this.#addCollectors(collectors);
    for (const replica of replicas) this.#add(aggregatorRole(this, replica));
    for (let index = 1; index <= watchdogs; index++) this.#add(watchdogRole(this, index));
    for (let index = 1; index <= feeds; index++) this.#add(feedRole(this, index));
    for (let index = 1; index <= judges; index++) this.#add(judgeRole(this, index));
    this.#add(accountingRole(this));
    options.prepare?.(this);
  }

  async run(): Promise<Outcome> {
    const start = this.clock.now();
    const { strikes, parts, faultyMs, quietMs, replacement } = this.#scenario;
    this.#administer({ snapshot: null });
    for (const supervised of this.supervised) this.clock.after(this.chance.integer(0, 500), () => supervised.start());
    for (const [index, exporter] of this.exporters.entries()) this.#export(exporter, index % this.stores.length);
    for (const one of strikes) if (isPossible(one, parts)) this.clock.after(one.atMs, () => strike(this, one));
    const failed = () => this.violations.length > 0;
    await this.clock.runUntil(failed, start + faultyMs);
    endFaults(this, this.chance);
    const { opened } = this.broker;
    await this.clock.runUntil(failed, this.clock.now() + quietMs);
    if (replacement && !failed()) this.#check('I19', await replaceNars(this, replacement));
    this.#isEnding = true;
    await this.#settle();
    this.#lookBack(this.broker.opened - opened);
    for (const supervised of this.supervised) supervised.end();
    this.ledger.close();
    return this.#outcome(start);
  }

  async #settle(): Promise<void> {
    const limit = this.clock.now() + (this.histories.every(({ promised }) => promised === 'all') ? settleWithinMs : stopWithinMs);
    while (this.violations.length === 0) {
      await this.clock.runUntil(() => this.violations.length > 0, this.clock.now() + settleStepMs);
      const missing = this.#unheard.size > 0 ? ['an exporter is not heard any more'] : settled(this);
      if (missing.length === 0) return;
      if (this.clock.now() < limit) continue;
      if (this.histories.some(({ promised }) => promised !== 'all') && alarms(this).length > 0) {
        this.count('stopped, and said so');
        return;
      }
      for (const text of missing) this.violate('I14', text);
    }
  }

  /** What holds when all has settled, or has stopped and said so. */
  #lookBack(opened: number): void {
    if (this.violations.length > 0) return;
    this.#check('I14', feedsAgree(opened, this.histories.length));
    this.#check('I1', noMoreThanSent(this));
    this.#check('I12', everyFlowIsKnown(this));
  }

  #outcome(start: number): Outcome {
    for (const counts of [this.broker.counts, ...this.stores.map((store) => store.counts)]) {
      for (const [name, count] of Object.entries(counts)) this.counts[name] = (this.counts[name] ?? 0) + count;
    }
    return {
      seed: this.#scenario.seed,
      violations: this.violations,
      digest: this.#digest.digest('hex'),
      trace: this.trace,
      virtualMs: this.clock.now() - start,
      events: this.clock.events,
      flows: this.exporters.reduce((sum, exporter) => sum + exporter.sent.length, 0),
      counts: this.counts,
      checked: this.checked,
      seen: this.#seen(),
    };
  }

  #seen(): Record<string, number> {
    const sum = (figure: (history: PartitionHistory) => number) => this.histories.reduce((total, history) => total + figure(history), 0);
    return {
      'accepted flows': sum(({ auditor }) => auditor.total.flows),
      'flows lost on the wire': sum(({ auditor }) => auditor.lostOnWire),
      'flows lost otherwise': sum(({ auditor }) => auditor.lost.flows),
      'losses of unknown size': sum(({ auditor }) => auditor.doubts),
      doubts: sum(({ balance }) => balance.doubts),
      'repeated batches': sum(({ auditor }) => auditor.duplicates),
      'batches over a gap': sum(({ auditor }) => auditor.gaps),
      outputs: sum(({ emitted }) => emitted.length),
      'outputs that were wrong': sum(({ wrongness }) => wrongness.outputs),
      quarantines: sum(({ wrongness }) => wrongness.quarantines),
      repairs: sum(({ wrongness }) => wrongness.repairs),
      corrections: sum(({ misled }) => misled.corrections),
      'late flows': sum(({ balance }) => balance.lateFlows),
      elections: this.broker.partition(topics.elections.name, 0).endOffset,
      'histories known to the flow': this.knowledge === 'exact' && sum(({ balance }) => balance.doubts) === 0 ? 1 : 0,
    };
  }

  #watched(ledger: Ledger): Ledger {
    const write = ledger.write.bind(ledger);
    ledger.write = (entries) => {
      write(entries);
      for (const entry of entries) this.#check('I11', booksInOrder(this.histories[entry.booking.partition]!, entry));
    };
    const correct = ledger.correct.bind(ledger);
    ledger.correct = (correction, nextOffset, digest) => {
      const { partition, fromN, lastN } = correction;
      const found = correct(correction, nextOffset, digest);
      const view = ledger.view();
      const wrong = 'code' in found ? found.message : booksAnew(this.histories[partition]!, (n) => view.chainAt(partition, n), fromN, lastN);
      this.#check('I11', wrong);
      return found;
    };
    return ledger;
  }

  note(text: string): void {
    const line = `${this.#timeOfDay()} ${text}`;
    this.#digest.update(line);
    if (this.#options.keepTrace) this.trace.push(line);
  }

  #timeOfDay(): string {
    return new Date(this.clock.now()).toISOString().slice(11, 23);
  }

  /** The part of that name. */
  part(name: string): Supervised {
    const found = this.supervised.find(({ role }) => role.name === name);
    if (!found) throw new Error(`there is no part ${name}`);
    return found;
  }

  store(collector: number): ModelStoreServer {
    return this.stores[collector]!;
  }

  /** With the next batch that the replica's current process folds while a window is open. */
  flip(replica: Replica, partition: number): void {
    const { aggregator, process } = this.aggregators[replica] ?? {};
    const fold = aggregator?.partitions[partition]?.running?.fold;
    if (!aggregator || !process || !fold) return;
    // What goes wrong again during a repair is found by the next comparison only: then the repair was none, although it said so.
    if (this.histories[partition]?.wrongness.verdicts.get(replica)?.state === 'quarantined') return;
    const isAtWork = () => process.state !== 'killed' && aggregator.partitions[partition]?.running?.fold === fold;
    flip(fold, () => {
      this.note(`${process.name} is flipped in partition ${partition}`);
      this.count('flipped');
      this.histories[partition]?.wrongness.flip({ replica, isAtWork }, () => this.clock.now());
    });
  }

  /** The partition may stop for good, if it says so. */
  mayStop(partition: number): void {
    const history = this.histories[partition]!;
    if (history.promised === 'all') history.promised = 'may stop';
  }

  /** Records that were in the log are there no more, and others take their offsets. */
  logReplaced(partition: number): void {
    const history = this.histories[partition]!;
    history.promised = 'one history';
    history.auditor = new PartitionAuditor();
    history.reference = new ReferenceFold(partition);
    history.folded = new Folded();
    history.heldN = 0;
    history.watermarkMs = Number.NEGATIVE_INFINITY;
    for (const { record } of this.broker.partition(topics.nars.name, partition).entries) acceptedOnce(history, record);
  }

  /** They count as written all the same: see promises.ts. */
  outputsLost(replica: Replica, partition: number): void {
    this.histories[partition]!.views[replica].hasLost = true;
  }

  aggregatesLost(partition: number): void {
    const history = this.histories[partition]!;
    history.emitted.length = 0;
    history.balance = new BalanceSums();
    this.#committed[partition] = 0;
  }

  /** As the administration command does it, in every partition. */
  changeConfig(changes: Partial<FoldConfig>): void {
    this.foldConfig = { ...this.foldConfig, ...changes, version: this.foldConfig.version + 1 };
    this.#administer(null);
  }

  onlyBound(): void {
    if (this.knowledge === 'exact') this.knowledge = 'bound';
  }

  count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1;
  }

  violate(invariant: string, text: string): void {
    this.note(`VIOLATION ${invariant}: ${text}`);
    this.violations.push(`${invariant}: ${text}`);
  }

  #add(role: ReturnType<typeof feedRole>): void {
    const supervised = new Supervised(role, this.clock, (text) => this.note(text));
    supervised.onFailure = (process: ProcessHandle, error: Error) => this.violate('no service ends by itself', `${process.name}: ${error.stack}`);
    this.supervised.push(supervised);
  }

  #addCollectors(count: number): void {
    for (let index = 0; index < count; index++) {
      const store = new ModelStoreServer(this.clock);
      store.onTrim = (incarnation, partition, sequence, what) => {
        const value = store.stream(incarnation, partition)?.entries.get(sequence)?.value ?? null;
        if (what === 'trimmed') this.#check('I2', trimsOnlyAcknowledged(this.histories[partition]!, incarnation, sequence, value));
      };
      store.onStored = () => this.#check('I13', staysBounded(store));
      store.onBlindStart = () => {
        this.knowledge = 'none';
      };
      store.mayCrash = this.#scenario.strikes.some(({ fault, params }) => fault === 'storeCrash' && params['collector'] === index);
      this.stores.push(store);
      this.ingest.push(null);
      this.#add(collectorRole(this, index));
    }
    for (let index = 1; index <= this.#scenario.parts.exporters; index++)
      this.exporters.push(new ModelExporter(index, this.chance.fork(), this.clock.now()));
  }

  /** Writes the configuration, as the administration command does it. */
  #administer(base: { snapshot: null } | null): void {
    this.#administered++;
    for (const partition of this.histories.keys()) {
      const value = narBatchCodec.encode({
        collector: adminCollector,
        incarnation: 'admin',
        partition,
        sequence: this.#administered,
        through: this.#administered,
        watermark_ms: 0,
        volatile: false,
        goodbye: false,
        exporters: [],
        losses: [],
        fold_config: this.foldConfig,
        base,
        nars: [],
      });
      this.broker.append(this.broker.partition(topics.nars.name, partition), [{ key: Buffer.from(adminCollector), value }], null);
    }
  }

  #export(exporter: ModelExporter, collector: number): void {
    const chance = this.chance.fork();
    this.#unheard.add(exporter);
    const send = () => {
      if (this.#isEnding && this.part(collectorName(collector)).isSteady) this.#unheard.delete(exporter);
      const before = exporter.sent.length;
      if (this.#carry(exporter.export(this.clock.now()), collector, chance)) exporter.carried.push(before);
      if (this.#unheard.has(exporter)) this.clock.after(chance.integer(50, 1_500), send);
    };
    this.clock.after(chance.integer(500, 2_000), send);
  }

  /** The network: a datagram reaches the process that listens when it is sent, or nobody. */
  #carry(datagram: Datagram, collector: number, chance: Chance): boolean {
    const listener = this.ingest[collector];
    if (!listener || chance.happens(this.wire.lost)) return false;
    this.clock.after(chance.happens(this.wire.delayed) ? chance.integer(1, 200) : 0.1, () => listener(datagram));
    if (chance.happens(this.wire.repeated)) this.clock.after(chance.integer(1, 200), () => listener(datagram));
    return true;
  }

  #onAppend(topic: string, partition: number, record: LogRecord): void {
    this.#digest.update(`${topic}/${partition}/${record.offset} ${record.marker ?? ''}`);
    if (record.value) this.#digest.update(record.value);
    if (this.#options.keepTrace && topic !== topics.health.name && topic !== topics.acks.name) {
      this.trace.push(`${this.#timeOfDay()} ${topic}/${partition} ${record.offset} ${record.marker ?? describe(topic, record)}`);
    }
    if (topic === topics.nars.name) {
      const history = this.histories[partition]!;
      this.#check('I1', acceptedOnce(history, record));
      if (this.#repeatsNothing) this.#check('I1', repeatsNothing(history));
      this.#check('I8', watermarkRises(history, record));
      this.#check('I9', foldsTruly(history));
    } else if (topic === topics.acks.name) {
      const ack = decodeAck(record);
      this.#check('I3', acknowledgesTruly(this.histories[ack.partition]!, ack));
    } else if (topic === topics.elections.name) {
      const election = electionCodec.decode(record.value!);
      this.#check('I10', electsInOrder(this.histories[election.partition]!, election));
    } else if (topic.startsWith('snapshots.') && record.value) {
      this.#check('I3', snapshotsFollowOutputs(this.histories[partition]!, topic.slice('snapshots.'.length) as Replica, record));
    } else if (topic.startsWith('aggregates.')) {
      this.#check('I4', outputsAreContiguous(record));
      this.#check('I5', outputsAgree(this.histories[partition]!, topic.slice('aggregates.'.length) as Replica, record));
    } else if (topic === topics.verdicts.name) {
      const { partition: judged, replica, state } = verdictCodec.decode(record.value!);
      this.note(`verdict: ${replica} is ${state} in partition ${judged}`);
      if (this.histories[judged]?.promised !== 'one history') this.#check('I15', judgesTruly(this.broker, this.histories[judged]!, record.value!));
    } else if (topic.startsWith('snapshots.') && record.value === null && this.histories[partition]?.promised === 'all') {
      this.#check('I16', snapshotCoversTheCut(this.broker, partition));
    }
  }

  #onCut(topic: string, partition: number, from: number): void {
    if (this.histories[partition]?.promised !== 'all') return;
    const { startOffset } = this.broker.partition(topic, partition);
    this.note(`the head of ${topic}/${partition} is cut from ${from} to ${startOffset}`);
    this.count(topic === topics.nars.name ? 'head of nars cut' : 'head of outputs cut');
    const replica = replicas.find((one) => outputTopic(one).name === topic);
    if (topic === topics.nars.name)
      this.#check('I16', cutsOnlyAgreed(this.broker, partition, this.historyMs - this.jumpedMs, this.agreedOnce[partition] ?? 0));
    // What a repair cuts is looked at when it says that it is over.
    else if (replica && this.histories[partition]!.wrongness.verdicts.get(replica)?.state === 'quarantined') return;
    else if (replica) this.#check('I18', outputsAreCutBehind(this.broker, this.histories[partition]!, replica, partition));
    else this.violate('I16', `the head of ${topic}/${partition} is cut`);
  }

  /** What a consumer of aggregates gets, at once. */
  #readAggregates(): void {
    for (const [partition, history] of this.histories.entries()) {
      const log = this.broker.partition(topics.aggregates.name, partition);
      if (log.endOffset === this.#committed[partition]) continue;
      for (const record of log.committed(this.#committed[partition])) {
        this.#committed[partition] = record.offset + 1;
        const right = history.misled.take(history, record, this.hasFlips && !this.waitsForBoth);
        this.#check('I17', typeof right === 'string' ? right : null);
        if (typeof right === 'string') continue;
        for (const one of right) {
          this.#check('I6', aggregatesAreACopy(history, one));
          this.#check('I7', addsUp(history, one));
          this.#check('I17', isOfNoWrongReplica(history, one));
        }
      }
    }
  }

  #check(invariant: string, wrong: string | null): void {
    this.checked[invariant] = (this.checked[invariant] ?? 0) + 1;
    if (wrong !== null) this.violate(invariant, wrong);
  }
}

function describe(topic: string, { value }: LogRecord): string {
  if (topic !== topics.nars.name) return `${value?.length} bytes`;
  const { collector, incarnation, sequence, through, nars, goodbye, losses } = narBatchCodec.decode(value!);
  const range = through > sequence ? `${sequence}..${through}` : `${sequence}`;
  const rest = [...(goodbye ? ['goodbye'] : []), ...losses.map(({ reason, nars: lost }) => `${lost} lost: ${reason}`)];
  return `${collector} ${incarnation} ${range}: ${[`${nars.length} NARs`, ...rest].join(', ')}`;
}

function foldConfigOf(partitions: number, chance: Chance): FoldConfig {
  return {
    version: 1,
    fold_version: 1,
    partitions,
    window_ms: chance.pick([2_000, 5_000]),
    lateness_ms: chance.pick([0, 500, 2_000]),
    live_within_ms: chance.pick([2_000, 5_000, 15_000]),
    past_ms_max: 3_600_000,
    future_ms_max: 60_000,
    snapshot_every: chance.pick([20, 100, 500]),
    group_by: ['src_account', 'dst_account'],
    sampling: 'raw',
    spread: chance.happens(0.2),
    deduplication: 'none',
    accounts: [...simulatedAccounts],
  };
}
