/**
 * The guards of the protocol, each with the change of the source that switches it off, and within how many histories that must be noticed.
 * cases: those of the protocol review (P what must hold, W designs that failed, M guards switched off) that the mutation plays on the real loops.
 */

import type { Replacement, Strike } from './scenario.ts';

/** A change of one place: the file, from the repository's root; what stands there exactly once; and what is put in its place. */
export type Edit = readonly [file: string, from: string, to: string];

export interface Mutation {
  readonly name: string;
  readonly guard: string;
  readonly edits: readonly Edit[];
  readonly cases?: readonly string[];
  /** Of the faults, these alone; else whatever the seeds draw. */
  readonly only?: readonly string[];
  /** Exactly these instead. */
  readonly strikes?: readonly Strike[];
  /** And nars is replaced. */
  readonly replacement?: Replacement;
  readonly seedsMax: number;
  /** Among those that make test looks at. */
  readonly short?: true;
}

const fold = 'core/aggregate/fold.ts';
const live = 'core/aggregate/live.ts';
const close = 'core/aggregate/close.ts';
const stream = 'core/buffer/stream.ts';
const ledger = 'core/buffer/ledger.ts';
const batcher = 'core/buffer/batcher.ts';
const copying = 'services/collector/copying.ts';
const running = 'services/aggregator/running.ts';
const restore = 'services/aggregator/restore.ts';
const emission = 'services/feed/emission.ts';
const feedPartition = 'core/feed/partition.ts';
const modelLog = 'tests/simulation/model-log.ts';

const lying = ['badLog', 'clientCareless', 'kill'];
const deaths = ['kill', 'stop', 'zombie', 'badLog'];
const store = ['storeAway', 'storeBack', 'storeTail', 'storeWiped', 'badStore', 'storeFull', 'kill'];

const folding: readonly Mutation[] = [
  {
    name: 'duplicates',
    guard: 'sequence check: the fold drops sequences up to the last one',
    edits: [[fold, "if (batch.sequence <= last) return 'duplicate';", '']],
    cases: ['M02'],
    only: ['badLog', 'kill', 'zombieCollector'],
    seedsMax: 10,
    short: true,
  },
  {
    name: 'gaps',
    guard: 'gap rule: the fold ignores sequences beyond the next one',
    edits: [[fold, 'if (batch.sequence > last + 1) {', 'if (batch.sequence < 0) {']],
    cases: ['M03'],
    only: lying,
    seedsMax: 150,
  },
  {
    name: 'gap unheard',
    guard: 'G1: a collector of which only a gap was heard is told so',
    edits: [[fold, 'this.#incarnations.hear(batch.collector);', '']],
    cases: ['W01', 'W21'],
    strikes: [{ atMs: 0, fault: 'badLog', params: { ms: 2_500, swallowed: 1 } }],
    seedsMax: 20,
  },
  {
    name: 'append time',
    guard: "a batch's watermark counts as at most its append time",
    edits: [[fold, 'Math.min(batch.watermark_ms, record.appendedMs); // A3', 'batch.watermark_ms;']],
    cases: ['W19'],
    only: ['clockJump'],
    seedsMax: 10,
  },
  {
    name: 'watermark falls',
    guard: 'the watermark never goes back',
    edits: [[fold, '(this.#watermarkMs === null || allowedMs > this.#watermarkMs)', 'true']],
    cases: ['M13'],
    only: ['clockJump', 'kill', 'storeAway'],
    seedsMax: 20,
  },
  {
    name: 'the dead hold',
    guard: 'live rule: who is too far behind the others does not hold the watermark',
    edits: [[live, 'if (!goodbye && own >= from &&', 'if (!goodbye &&']],
    cases: ['W20'],
    only: ['kill', 'storeWiped'],
    seedsMax: 20,
  },
  {
    name: 'late NARs',
    guard: 'late NARs become adjustments',
    edits: [[close, "giveOut(closing, window, 'adjustment', given);", '']],
    cases: ['M12'],
    seedsMax: 10,
    short: true,
  },
  {
    name: 'own account of the balance',
    guard: 'what is lost was decoded before (the balance)',
    edits: [['core/aggregate/balance.ts', 'entry.lost_flows += loss.nars;', '']],
    only: ['brokerAway', 'cutOff', 'stall', 'storeFull'],
    seedsMax: 60,
  },
  {
    name: 'key order',
    guard: 'outputs come in key order',
    edits: [['core/aggregate/window.ts', 'return [...map].sort(([a], [b]) => compareText(a, b)).map', 'return [...map].map']],
    seedsMax: 10,
  },
];

const collecting: readonly Mutation[] = [
  {
    name: 'one is enough',
    guard: 'trim rule: only what both have acknowledged is trimmed',
    edits: [
      [
        stream,
        'Math.min(this.acknowledged.a, this.acknowledged.b, this.last)',
        'Math.min(Math.max(this.acknowledged.a, this.acknowledged.b), this.last)',
      ],
    ],
    cases: ['M01'],
    seedsMax: 10,
    short: true,
  },
  {
    name: 'nothing is missing',
    guard: 'go-back-N: what a replica folded past and did not accept is sent again',
    edits: [[stream, 'this.unsend(missing);\n    return true;', 'return false;']],
    cases: ['W01', 'W05'],
    only: lying,
    seedsMax: 40,
    short: true,
  },
  {
    name: 'confirmed is proof',
    guard: 'restart rule: what Kafka confirmed is missing where a replica folds past the log end without it',
    edits: [[ledger, 'if (kept) kept.past = endOffset;', 'if (kept) kept.past = Number.POSITIVE_INFINITY;']],
    cases: ['M04'],
    only: lying,
    seedsMax: 150,
  },
  {
    name: "one's sequence, the other's offset",
    guard: 'same-ack rule: a sequence is judged with the offset of its own Ack',
    edits: [
      [
        ledger,
        'stream.judge(stream.acknowledged[replica], ack.foldedOffset)',
        'stream.judge(Math.min(stream.acknowledged.a, stream.acknowledged.b), ack.foldedOffset)',
      ],
    ],
    cases: ['M05'],
    only: ['stall'],
    seedsMax: 40,
  },
  {
    name: 'no tombstones',
    guard: 'a sequence that is held no more is sent as its tombstone',
    edits: [[ledger, 'const from = sourceOf(kept);\n', "const from = sourceOf(kept);\n  if (from === 'unheld' || from === 'totals') return null;\n"]],
    cases: ['W03', 'W04', 'W05'],
    only: ['storeWiped', 'storeTail', 'badLog'],
    seedsMax: 40,
    short: true,
  },
  {
    name: 'the same incarnation',
    guard: 'a new incarnation at every start, and where the store does not end as it was left',
    edits: [
      [
        copying,
        'this.#incarnation = this.#newIncarnation();\n    this.#ends = this.#zeros();\n    this.#attendedMs',
        'this.#incarnation = options.collector;\n    this.#ends = this.#zeros();\n    this.#attendedMs',
      ],
      [copying, 'this.#renumber();\n    const {', 'this.#ends[found.partition] = found.found;\n    const {'],
    ],
    cases: ['W02'],
    only: ['storeTail', 'storeBack', 'kill', 'stop'],
    seedsMax: 20,
  },
  {
    name: 'a refused flush is harmless',
    guard: 'F12: a flush that does not fit is never taken for stored (by a process that keeps to no lease)',
    edits: [
      [copying, "if (outcome.kind === 'mismatch') {\n      this.#renew(outcome);\n      return this.#handBack(admitted);\n    }", ''],
      // Who stood still would not come to a flush that does not fit.
      [copying, 'if (this.#isOverdue) {', 'if (this.#isOverdue && this.#ends.length === 0) {'],
    ],
    cases: ['W06'],
    only: ['zombieCollector', 'storeTail', 'storeBack'],
    seedsMax: 150,
  },
  {
    name: 'no lease',
    guard: 'who stood still gives no further number under an incarnation that another may have closed',
    edits: [[copying, 'if (this.#isOverdue) {', 'if (this.#isOverdue && this.#ends.length === 0) {']],
    only: ['zombieCollector', 'storeBack', 'storeTail'],
    seedsMax: 150,
  },
  {
    name: 'memory overflows the store',
    guard: 'I13: what moves from memory to the store keeps to its bound',
    edits: [
      [copying, 'if (!fits()) await this.#release(Math.max(bytes, this.#options.storeMax / releaseShare));\n    return fits();', 'return true;'],
      [copying, 'let room = this.#narsMax - ledger.bytes.store;', 'let room = Number.MAX_SAFE_INTEGER;'],
    ],
    only: ['storeAway', 'storeFull', 'storeCrash', 'brokerAway', 'cutOff'],
    seedsMax: 150,
  },
  {
    name: 'losses are forgotten',
    guard: 'what is refused at the bound is a Loss in the store',
    edits: [[batcher, 'losses: Array.from(open.losses.values(), ({ loss }) => loss),', 'losses: [],']],
    cases: ['W08'],
    only: ['brokerAway', 'cutOff', 'stall', 'storeFull'],
    seedsMax: 150,
  },
  {
    name: 'no reserve',
    guard: 'NARs do not take the part of the store that is reserved for Losses',
    edits: [
      [copying, "if (this.#mode === 'store' ? ledger.bytes.store < storeMax :", "if (this.#mode === 'store' ? true :"],
      [copying, 'const narsMax = this.#narsMax;', 'const narsMax = Number.MAX_SAFE_INTEGER;'],
    ],
    cases: ['W08'],
    only: ['brokerAway', 'cutOff', 'stall'],
    seedsMax: 60,
  },
  {
    name: "memory under the store's incarnation",
    guard: 'the copy in memory has an incarnation of its own',
    edits: [[copying, 'this.#volatile = this.#newIncarnation();', 'this.#volatile = this.#incarnation;']],
    cases: ['M06'],
    only: store,
    seedsMax: 40,
  },
  {
    name: 'volatile unsaid',
    guard: 'batches that are in memory only say so, and leave a doubt behind',
    edits: [[batcher, 'sequence, volatile: this.#volatile };', 'sequence, volatile: false };']],
    cases: ['M06'],
    only: ['storeAway', 'kill'],
    seedsMax: 150,
  },
  {
    name: 'positions left behind',
    guard: "the exporters' positions are stored before the volatile incarnation says goodbye",
    edits: [[copying, 'while (this.#positions.size > 0) await this.#storePositions();', '']],
    only: ['storeAway', 'kill', 'stop', 'storeFull'],
    seedsMax: 150,
  },
  {
    name: 'positions forgotten',
    guard: 'I12: a process begins where the exporters stood',
    edits: [['services/collector/collector.ts', 'this.#decoder.restore(positions);', '']],
    only: ['kill', 'badWire'],
    seedsMax: 10,
    short: true,
  },
  {
    name: 'looked for once',
    guard: 'G3: what other incarnations left is looked for all the time',
    edits: [
      [
        'services/collector/collector.ts',
        'this.#nextLookMs = nowMs + lookMs;\n        await this.#discovery.look();',
        'this.#nextLookMs = Number.POSITIVE_INFINITY;',
      ],
    ],
    cases: ['W23'],
    only: ['zombieCollector', 'brokerAway'],
    seedsMax: 80,
  },
];

const writing: readonly Mutation[] = [
  {
    name: "the client's word",
    guard: 'outputs count as written when they are read back',
    edits: [
      [
        running,
        'this.readBack.sent(blocks, offset < 0 ? null : offset + blocks.length, this.#parts.clock.now());',
        'for (const { bytes } of blocks) this.readBack.take(bytes, this.#parts.clock.now());',
      ],
    ],
    cases: ['W09', 'W10'],
    only: lying,
    seedsMax: 40,
    short: true,
  },
  {
    name: 'ack before outputs',
    guard: 'ack order: outputs are read back before the Ack',
    edits: [[running, 'return this.readBack.n >= n && (this.#due === null', 'return n < Number.POSITIVE_INFINITY && (this.#due === null']],
    cases: ['M07'],
    seedsMax: 10,
  },
  {
    name: 'snapshot before outputs',
    guard: 'snapshot order: outputs are read back before the snapshot',
    edits: [[running, 'return this.#due !== null && this.readBack.n >= this.#due.n;', 'return this.#due !== null;']],
    cases: ['W11', 'M08'],
    only: deaths,
    seedsMax: 20,
  },
  {
    name: 'never written again',
    guard: 'what was written and is not there is written again',
    edits: [[running, 'if (this.readBack.isMissing(this.outputsOffset, now, rewriteAfterMs))', 'if (this.outputsOffset < 0)']],
    cases: ['W10'],
    only: lying,
    seedsMax: 40,
  },
  {
    name: "the other's snapshot",
    guard: "a replica without a snapshot takes the other's",
    edits: [[restore, 'if (other && other.offset >= bounds.startOffset) {', 'if (other && other.offset < 0) {']],
    cases: ['M09'],
    only: ['snapshotsLost', 'kill'],
    seedsMax: 40,
  },
  {
    name: "the other's outputs",
    guard: "with the other's snapshot, the outputs before it are copied",
    edits: [[restore, 'if (outputs.readBack.n < snapshot.n) await copyOutputs(parts, partition, snapshot, outputs.readBack);', '']],
    cases: ['W12'],
    only: ['snapshotsLost', 'kill', 'cutOff', 'brokerAway'],
    seedsMax: 150,
  },
  {
    name: 'any bytes are a snapshot',
    guard: 'the digest of a snapshot is checked',
    edits: [['services/snapshots.ts', 'if (!sameChain(digest(state), first.digest)) return null;', '']],
    only: ['snapshotSpoilt', 'kill'],
    seedsMax: 40,
  },
];

const feeding: readonly Mutation[] = [
  {
    name: 'chain unchecked',
    guard: 'only what continues the chain of the tail is emitted, and replicas that differ hold the partition',
    edits: [
      [feedPartition, 'if (!sameChain(item.previousChain, chain)) {', 'if (item.previousChain.length === 0) {'],
      ['core/feed/comparison.ts', 'if (found !== undefined && found !== text)', 'if (found === null)'],
    ],
    cases: ['W15'],
    only: ['flip', 'kill'],
    seedsMax: 40,
  },
  {
    name: 'accused is the other',
    guard: 'I15: the judge accuses the replica that differs from the fresh fold',
    edits: [['core/judge/trial.ts', 'return this.#witnesses[replica].finding;', 'return this.#witnesses[otherReplica(replica)].finding;']],
    only: ['flip', 'kill'],
    seedsMax: 40,
  },
  {
    name: 'nothing was judged',
    guard: 'I15: the feed follows the verdicts',
    edits: [[feedPartition, 'const known = this.#judged[replica];\n', 'const known = this.#judged[replica];\n    if (nowMs > 0) return;\n']],
    only: ['flip', 'kill'],
    seedsMax: 40,
  },
  {
    name: 'no fencing',
    guard: 'a new epoch fences older writers',
    edits: [
      [modelLog, '    producer.epoch++;\n    return { producer, epoch: producer.epoch };', '    return { producer, epoch: producer.epoch };'],
      [modelLog, 'if (partition.repeated(request, now) !== null) {', 'if (partition.topic.length === 0) {'],
    ],
    cases: ['M10'],
    only: ['zombie', 'stall'],
    seedsMax: 40,
    short: true,
  },
  {
    name: 'the producer is kept',
    guard: 'a transactional producer is thrown away after any error (KAFKA-17754)',
    edits: [
      [emission, 'await old?.close();', ''],
      [emission, 'const writer = this.#parts.log.transactionalWriter', 'const writer = old ?? this.#parts.log.transactionalWriter'],
      [emission, 'await writer.open();', 'if (!old) await writer.open();'],
      [modelLog, 'keepsTransactionalWriter = false;', 'keepsTransactionalWriter = true;'],
    ],
    cases: ['M11'],
    only: ['badLog'],
    seedsMax: 60,
  },
  {
    name: 'the tail first',
    guard: 'F10: the new epoch is open before the tail is read',
    edits: [
      [
        emission,
        'await this.#openWriter();\n      const { tail, endOffset } = await this.#readTail();',
        'const { tail, endOffset } = await this.#readTail();\n      await this.#openWriter();',
      ],
    ],
    cases: ['W16'],
    only: ['badLog', 'zombie', 'stall', 'kill'],
    seedsMax: 150,
  },
  {
    name: 'aborted is committed',
    guard: 'the tail is the last record that a commit marker follows',
    edits: [['core/feed/tail.ts', "if (marker === 'commit') for (const one", 'for (const one']],
    cases: ['W17', 'P24'],
    only: ['badLog', 'kill', 'zombie'],
    seedsMax: 60,
    short: true,
  },
  {
    name: 'the second does not wait',
    guard: 'E2: a transaction waits for the one before to be read back',
    edits: [
      [
        feedPartition,
        "if (nowMs - sent.atMs <= readBackWithinMs) return { do: 'wait' };\n      this.faults++;\n      this.#startAgain(nowMs);",
        'return this.#emit(null, nowMs);',
      ],
    ],
    seedsMax: 20,
  },
  {
    name: 'duel',
    guard: 'standby rule: a feed that is fenced waits',
    edits: [
      [feedPartition, 'if (fenced) this.#standBy(nowMs);\n    else this.#startAgain(nowMs);', 'this.#startAgain(nowMs);'],
      [
        feedPartition,
        'if (!phase.sent || n > phase.sent.lastN) {\n      this.#standBy(nowMs);',
        'if (!phase.sent || n > phase.sent.lastN) {\n      this.#startAgain(nowMs);',
      ],
      [feedPartition, 'Math.min(retryMaxMs, retryFirstMs * 2 ** this.#failures)', '0'],
    ],
    cases: ['W14'],
    only: ['kill', 'zombie'],
    seedsMax: 60,
  },
  {
    name: 'books whatever comes',
    guard: 'the ledger books n = last + 1 only',
    edits: [
      ['core/ledger/continuity.ts', "if (n < last) return 'booked_before';", "if (n < last) return 'next';"],
      [
        'core/ledger/continuity.ts',
        "sameChain(output.chain, replacedChain))) return 'booked_before';",
        "sameChain(output.chain, replacedChain))) return 'next';",
      ],
    ],
    only: ['badLog', 'aggregatesTruncated', 'zombie'],
    seedsMax: 80,
  },
  {
    name: 'starves in silence',
    guard: 'a feed whose next output was cut from the topic of its leader says so',
    edits: [[feedPartition, 'nowMs - this.#starvingSinceMs >= writtenAgainWithinMs', 'nowMs < 0']],
    strikes: [
      { atMs: 14_168, fault: 'stop', params: { part: 'feed-1', downMs: 62 } },
      { atMs: 14_685, fault: 'aggregatesTruncated', params: { partition: 0, records: 29 } },
    ],
    seedsMax: 60,
  },
  {
    name: 'outputs are cut when emitted',
    guard: 'G2: the head of an output topic is not cut where the other replica does not have its outputs',
    edits: [
      [feedPartition, 'const n = Math.min(this.#comparison.agreedN, this.#confirmedN);', 'const n = this.#confirmedN;'],
      [
        feedPartition,
        'return ofA === null || ofB === null ? null : { n, a: ofA, b: ofB };',
        'return ofA === null ? null : { n, a: ofA, b: ofB ?? 0 };',
      ],
    ],
    cases: ['W22'],
    only: ['kill', 'snapshotsLost', 'stall'],
    seedsMax: 60,
  },
  {
    name: 'cut without agreement',
    guard: 'the head of nars is cut only behind a snapshot that both hold',
    edits: [
      ['core/judge/agreement.ts', 'const other = ofB.find((candidate) => isSame(one, candidate));', 'const other = ofB.length < 0 ? null : one;'],
      [
        'services/judge/head-keeper.ts',
        'for (const replica of replicas) if (!(await this.#standing[replica].isTrue(found[replica]))) untrue.push(replica);',
        "if (!(await this.#standing.a.isTrue(found.a))) untrue.push('a');",
      ],
    ],
    cases: ['W13'],
    only: ['stall', 'kill', 'snapshotsLost'],
    seedsMax: 20,
    short: true,
  },
  {
    name: 'the word of a snapshot',
    guard: 'I16: a snapshot is read back, and is what its chunks say, before the head is cut behind it',
    edits: [
      [
        'services/judge/head-keeper.ts',
        'for (const replica of replicas) if (!(await this.#standing[replica].isTrue(found[replica]))) untrue.push(replica);',
        '',
      ],
    ],
    only: ['stall', 'kill', 'snapshotSpoilt'],
    seedsMax: 40,
  },
  {
    name: 'cut at the snapshot',
    guard: 'G6: the record before the agreed snapshot stays',
    edits: [['core/judge/head.ts', 'Math.min(agreedOffset - 1, historyOffset)', 'Math.min(agreedOffset, historyOffset)']],
    only: ['kill'],
    seedsMax: 20,
  },
  {
    name: 'the clock of a report',
    guard: 'I19: a replica that runs is waited for before a base is written, whatever its clock says',
    edits: [
      [
        'services/cli/succession.ts',
        'clock.now() - (heard.get(id)?.atMs ?? 0) < silentAfterMs',
        'clock.now() - (heard.get(id)?.saidMs ?? 0) < silentAfterMs',
      ],
    ],
    only: ['configChange', 'stall'],
    replacement: { awayMs: 8_000, isRough: false },
    seedsMax: 100,
  },
  {
    name: 'the base behind',
    guard: 'F5: of the snapshots that continue the tail a new log begins with the one furthest ahead',
    edits: [
      [
        'core/judge/succession.ts',
        'other.n - one.n || other.progress - one.progress || other.offset - one.offset',
        'one.n - other.n || one.progress - other.progress || one.offset - other.offset',
      ],
    ],
    cases: ['W18'],
    seedsMax: 60,
  },
];

export const mutations: readonly Mutation[] = [...folding, ...collecting, ...writing, ...feeding];
