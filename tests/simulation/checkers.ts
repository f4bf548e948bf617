/** The invariants of docs/INVARIANTS.md, each a function over what has happened so far. A function returns what is wrong, or nothing. */
import { createHash } from 'node:crypto';
import type { LedgerEntry } from '../../adapters/ledger.ts';
import type { LogRecord } from '../../adapters/ports.ts';
import { ackCodec, encodeForChain, outputBlockCodec, outputCodec, snapshotChunkCodec } from '../../schemas/codec.ts';
import { type Replica, replicas } from '../../schemas/topics.ts';
import type { Ack, Election, Output, WindowClose } from '../../schemas/types.ts';
import { flowIdsOf, PartitionAuditor } from './auditor.ts';
import { Folded } from './folded.ts';
import { LogEras, namedByBase } from './log-eras.ts';
import { Misled } from './misled.ts';
import type { ModelStoreServer } from './model-store.ts';
import type { Promised } from './promises.ts';
import { Wrongness } from './wrongness.ts';

/** One replica's outputs of one partition, as a reader of its topic sees them. */
export class OutputView {
  /** Encoded, n = index + 1. */
  readonly outputs: Buffer[] = [];
  /** Read, but with a gap before them. */
  readonly ahead = new Map<number, Buffer>();
  /** The highest n up to which they were ever contiguous: what somebody removed later was read back all the same. */
  writtenN = 0;
  /** Somebody removed some of them behind the replica's back. */
  hasLost = false;
}

/** What the fold of the log gives when nothing ever fails: n and bytes of each output, and how far n had come at each offset. */
export interface Reference {
  take(record: LogRecord): void;
  readonly outputs: readonly Buffer[];
  readonly watermarkMs: number | null;
  /** The last n of the fold of all records before this offset. */
  nAt(offset: number): number;
  /** As many records are what a new log goes on from, with its base. @throws where the base names something else */
  continueAt(count: number, base: LogRecord): void;
}

export interface PartitionHistory {
  readonly eras: LogEras;
  auditor: PartitionAuditor;
  reference: Reference;
  promised: Promised;
  folded: Folded;
  /** Of the reference's outputs, so many are held against the auditor. */
  heldN: number;
  readonly views: Record<Replica, OutputView>;
  /** By replica and incarnation: the highest sequence that any of the replica's acknowledgments names. */
  readonly acknowledged: Record<Replica, Map<string, number>>;
  /** What a reader of isolation `committed` has got of aggregates. */
  readonly emitted: Buffer[];
  balance: BalanceSums;
  watermarkMs: number;
  /** The latest append time of the partition. */
  appendedMs: number;
  /** The last election that counts. */
  elected: Pick<Election, 'epoch' | 'leader' | 'previous'>;
  bookedN: number;
  /** What was changed in the memory of a replica. */
  readonly wrongness: Wrongness;
  /** What was published all the same. */
  readonly misled: Misled;
}

export function newHistory(reference: Reference, topicId: string): PartitionHistory {
  const views = { a: new OutputView(), b: new OutputView() };
  const acknowledged = { a: new Map(), b: new Map() };
  const held = { auditor: new PartitionAuditor(), reference, folded: new Folded(), heldN: 0 };
  const reached = { watermarkMs: Number.NEGATIVE_INFINITY, appendedMs: 0, elected: { epoch: 0, leader: '', previous: '' }, bookedN: 0 };
  const wrongness = new Wrongness();
  return {
    eras: new LogEras(topicId),
    ...held,
    ...reached,
    promised: 'all',
    views,
    acknowledged,
    emitted: [],
    balance: new BalanceSums(),
    wrongness,
    misled: new Misled(),
  };
}

/** I8, I9. What the log gives is what an accounting that shares no code with the fold makes of it, output by output. */
export function foldsTruly(history: PartitionHistory): string | null {
  const { outputs } = history.reference;
  for (; history.heldN < outputs.length; history.heldN++) {
    const placeOf = (offset: number) => history.eras.placeOf(history.heldN + 1, offset);
    const wrong = history.folded.take(outputCodec.decode(outputs[history.heldN]!), history.auditor.expected, placeOf);
    if (wrong) return `output ${history.heldN + 1} is wrong: ${wrong}`;
  }
  return history.auditor.expected.length > 0
    ? `window ${history.auditor.expected[0]?.startMs} is not closed though the watermark has passed it`
    : null;
}

/** I1. Every NAR is accepted at most once, whatever was sent again. */
export function acceptedOnce(history: PartitionHistory, record: LogRecord): string | null {
  const { shift } = history.eras.current;
  if (shift === null) return beginsWithTheBase(history, record);
  const twice = history.auditor.take({ ...record, offset: record.offset + shift });
  history.reference.take(record);
  return twice.length > 0 ? `flows ${twice.slice(0, 3)} (${twice.length} in all) are accepted twice, now at offset ${record.offset}` : null;
}

/**
 * I19. A log that replaces another one goes on from a state that both could have had: it continues what is published, and has all that both
 * acknowledged. What comes before its base counts for nobody.
 */
function beginsWithTheBase(history: PartitionHistory, record: LogRecord): string | null {
  const snapshot = namedByBase(record);
  if (!snapshot) return null;
  const former = history.eras.of(snapshot.topic_id);
  if (typeof former?.shift !== 'number') return `the base names a snapshot of ${snapshot.topic_id}, which is no former log`;
  const place = snapshot.offset + former.shift;
  if (snapshot.n < history.emitted.length) return `the base is at n ${snapshot.n}, and ${history.emitted.length} are published`;
  const outputs = history.reference.outputs;
  history.auditor = history.auditor.upTo(place);
  history.reference.continueAt(place, record);
  const { current } = history.eras;
  current.shift = place - record.offset;
  current.baseN = snapshot.n;
  history.eras.drop(snapshot.n + 1, outputs.slice(snapshot.n));
  for (const view of Object.values(history.views)) {
    view.outputs.splice(snapshot.n);
    for (const n of [...view.ahead.keys()]) if (n > snapshot.n) view.ahead.delete(n);
  }
  history.auditor.take({ ...record, offset: place });
  // All that is folded is told anew, up to where the new log goes on.
  history.folded = new Folded();
  history.heldN = 0;
  history.watermarkMs = Number.NEGATIVE_INFINITY;
  for (const [incarnation, byA] of history.acknowledged.a) {
    const byBoth = Math.min(byA, history.acknowledged.b.get(incarnation) ?? 0);
    const held = history.auditor.lastOf(incarnation);
    if (held < byBoth) return `the base has ${incarnation} up to ${held}, and both have acknowledged ${byBoth}`;
  }
  return null;
}

/** I3. An acknowledgment says what the log holds up to its offset, and comes after the outputs up to there. */
export function acknowledgesTruly(history: PartitionHistory, ack: Ack): string | null {
  const said = new Map(ack.sequences.map(({ incarnation, sequence }) => [incarnation, sequence]));
  const acknowledged = history.acknowledged[ack.replica as Replica];
  for (const [incarnation, sequence] of said) acknowledged.set(incarnation, Math.max(sequence, acknowledged.get(incarnation) ?? 0));
  // What was folded of a log that is there no more, nobody can check.
  if (history.promised === 'one history') return null;
  const era = history.eras.of(ack.topic_id);
  if (typeof era?.shift !== 'number') return `${ack.replica} acknowledges in a log ${ack.topic_id}, which has no base`;
  if (era !== history.eras.current) return null;
  const place = ack.folded_offset + era.shift;
  const expected = history.auditor.sequencesAt(place, ack.collector);
  for (const incarnation of new Set([...expected.keys(), ...said.keys()])) {
    if ((expected.get(incarnation) ?? 0) !== (said.get(incarnation) ?? 0)) {
      const stream = `${ack.collector} ${incarnation} up to ${said.get(incarnation)} at offset ${ack.folded_offset}`;
      return `${ack.replica} acknowledges ${stream}, the log says ${expected.get(incarnation)}`;
    }
  }
  // It has read back what it has written, right or wrong, there still or not.
  const { writtenN: written, hasLost } = history.views[ack.replica as Replica];
  if (hasLost || history.wrongness.isWrong(ack.replica as Replica)) return null;
  const due = history.reference.nAt(place);
  return written < due ? `${ack.replica} acknowledges offset ${ack.folded_offset} with outputs up to ${written}, ${due} are due` : null;
}

/** I3, F7. A snapshot comes after the outputs that it stands behind. */
export function snapshotsFollowOutputs(history: PartitionHistory, replica: Replica, record: LogRecord): string | null {
  if (!record.value || history.promised === 'one history' || history.wrongness.isWrong(replica)) return null;
  const { offset, n } = snapshotChunkCodec.decode(record.value);
  const { writtenN, hasLost } = history.views[replica];
  return n > writtenN && !hasLost ? `${replica} writes the snapshot at offset ${offset}, n ${n}, with outputs up to ${writtenN}` : null;
}

/** I1, F4. Lag alone never causes a batch to be sent again. */
export function repeatsNothing({ auditor }: PartitionHistory): string | null {
  return auditor.duplicates > 0 ? 'a batch is sent again, and nothing has happened that it could be missing for' : null;
}

/** I2. Nothing leaves a local copy that both have not acknowledged; what leaves it is in the log, or its loss is. */
export function trimsOnlyAcknowledged(history: PartitionHistory, incarnation: string, sequence: number, value: Uint8Array | null): string | null {
  for (const replica of replicas) {
    if ((history.acknowledged[replica].get(incarnation) ?? 0) < sequence)
      return `${incarnation} ${sequence} is trimmed, and ${replica} has not acknowledged it`;
  }
  if (history.promised === 'one history' || history.auditor.isReportedLost(incarnation, sequence)) return null;
  const missing = value ? flowIdsOf(value).filter((id) => history.auditor.flows.get(id) !== 1) : [];
  return missing.length > 0 ? `${incarnation} ${sequence} is trimmed, and ${missing.length} of its flows are not in the log` : null;
}

/** I5. Outputs of one n are the same bytes whoever writes them, however often, and those of the reference fold; but for a replica that is wrong. */
export function outputsAgree(history: PartitionHistory, replica: Replica, record: LogRecord): string | null {
  const block = outputBlockCodec.decode(record.value!);
  const view = history.views[replica];
  for (const output of block.outputs) {
    const bytes = outputCodec.encode(output);
    const expected = history.reference.outputs[output.n - 1];
    if (!expected?.equals(bytes) && history.wrongness.isWrong(replica)) {
      history.wrongness.outputs++;
      continue;
    }
    if (!expected?.equals(bytes) && history.eras.isDropped(output.n, bytes)) continue;
    if (history.promised !== 'one history' && !expected?.equals(bytes))
      return `${replica} writes output ${output.n}, which is not that of the fold: ${expected ? difference(output, expected) : 'none'}`;
    if (output.n > view.outputs.length) view.ahead.set(output.n, bytes);
  }
  for (let next = view.ahead.get(view.outputs.length + 1); next; next = view.ahead.get(view.outputs.length + 1)) {
    view.outputs.push(next);
    view.ahead.delete(view.outputs.length);
  }
  view.writtenN = Math.max(view.writtenN, view.outputs.length);
  return null;
}

function difference(output: Output, expected: Buffer): string {
  const text = (one: Output) => JSON.stringify(one, (_key, value) => (typeof value === 'bigint' ? String(value) : value));
  return `${text(output)} instead of ${text(outputCodec.decode(expected))}`;
}

/** I6. A reader of isolation `committed` gets each n of aggregates once, in order, and byte for byte what a replica has written before. */
export function aggregatesAreACopy(history: PartitionHistory, record: LogRecord): string | null {
  const output = outputCodec.decode(record.value!);
  const n = history.emitted.length + 1;
  if (output.n !== n) return `aggregates has n ${output.n} where ${n} is due`;
  const isReplaced = history.promised === 'one history';
  if (!isReplaced && !record.value!.equals(history.reference.outputs[n - 1] ?? Buffer.alloc(0)))
    return `aggregates ${n} is not the output of the fold`;
  const isWritten = replicas.some((replica) => history.views[replica].outputs[n - 1]?.equals(record.value!));
  if (history.promised === 'all' && !isWritten) return `aggregates ${n} is emitted before any replica has written it`;
  const before = history.emitted.at(-1);
  const chain = chainAfter(output, before ? outputCodec.decode(before).chain : Buffer.alloc(16));
  if (!chain.equals(output.chain)) return `aggregates ${n} does not continue the chain of ${n - 1}: two histories are mixed`;
  history.emitted.push(record.value!);
  return null;
}

/** I17. What only a replica wrote that is wrong is not in aggregates: the feeds wait for both, or it was corrected. */
export function isOfNoWrongReplica(history: PartitionHistory, record: LogRecord): string | null {
  if (history.wrongness.outputs === 0) return null;
  const { n } = outputCodec.decode(record.value!);
  return history.reference.outputs[n - 1]?.equals(record.value!) ? null : `aggregates ${n} is what a wrong replica gave`;
}

/** I7. At every WindowClose of aggregates what was decoded is what was given out, lost, rejected, or is open; and it is what is in the log. */
export function addsUp(history: PartitionHistory, record: LogRecord): string | null {
  const output = outputCodec.decode(record.value!);
  const auditor = history.promised === 'one history' ? null : history.auditor;
  return history.balance.take(output, auditor, (offset) => history.eras.placeOf(output.n, offset));
}

/** I8. The watermark never goes back, and no clock of a collector moves it past the append time of the records. */
export function watermarkRises(history: PartitionHistory, record: LogRecord): string | null {
  const { watermarkMs } = history.auditor;
  const before = history.watermarkMs;
  history.appendedMs = Math.max(history.appendedMs, record.appendedMs);
  if (watermarkMs === null) return null;
  history.watermarkMs = Math.max(before, watermarkMs);
  if (watermarkMs < before) return `the watermark goes back from ${before} to ${watermarkMs}`;
  if (history.reference.watermarkMs !== watermarkMs) return `the watermark of the fold is ${history.reference.watermarkMs}, ${watermarkMs} is due`;
  return watermarkMs > history.appendedMs ? `the watermark ${watermarkMs} is ahead of the log, which is at ${history.appendedMs}` : null;
}

/** I4. A block holds the outputs that follow one another from its first on, and continues the chain of the one before. */
export function outputsAreContiguous(record: LogRecord): string | null {
  const { first_n: firstN, previous_chain: previousChain, outputs } = outputBlockCodec.decode(record.value!);
  let chain = previousChain;
  for (const [index, output] of outputs.entries()) {
    if (output.n !== firstN + index) return `a block that begins with ${firstN} has ${output.n} at place ${index}`;
    if (!chainAfter(output, chain).equals(output.chain)) return `output ${output.n} does not continue the chain of the one before`;
    chain = output.chain;
  }
  return null;
}

/** I10. Of the elections that count, each has the next epoch, and names who led before. */
export function electsInOrder(history: PartitionHistory, { epoch, leader, previous }: Election): string | null {
  const { epoch: last, leader: lastLeader } = history.elected;
  if (epoch < last) return null;
  history.elected = { epoch, leader, previous };
  if (!replicas.some((replica) => replica === leader)) return `${leader} is elected, which is no replica`;
  if (epoch > last + 1) return `epoch ${epoch} follows ${last}`;
  const before = epoch > last ? lastLeader : history.elected.previous;
  return previous === before ? null : `epoch ${epoch} names ${previous} as the leader before, it was ${before}`;
}

/** I11. The ledger books each output once, in order, and what it books is what the fold gives. */
export function booksInOrder(history: PartitionHistory, { booking }: LedgerEntry): string | null {
  const booked = [...booking.aggregates, ...booking.windows].sort((one, other) => one.n - other.n);
  for (const { n, chain } of booked) {
    if (n !== history.bookedN + 1) return `the ledger books ${n} after ${history.bookedN}`;
    history.bookedN = n;
    if (history.promised === 'one history') continue;
    const output = history.reference.outputs[n - 1];
    if (history.misled.wasPublished(n, chain)) continue;
    if (!output || Buffer.compare(outputCodec.decode(output).chain, chain) !== 0)
      return `the ledger books ${n} with a chain that the fold did not give`;
  }
  return null;
}

/** I11. What the ledger has booked anew is what the fold gives. */
export function booksAnew(history: PartitionHistory, chainAt: (n: number) => Uint8Array | null, fromN: number, lastN: number): string | null {
  if (history.promised === 'one history') return null;
  for (let n = fromN; n <= lastN; n++) {
    const output = history.reference.outputs[n - 1];
    const chain = chainAt(n);
    if (!output || !chain || Buffer.compare(outputCodec.decode(output).chain, chain) !== 0)
      return `the ledger books ${n} anew with a chain that the fold did not give`;
  }
  return null;
}

/** I13. A store holds no more than it is configured to. */
export function staysBounded(store: ModelStoreServer): string | null {
  const { bytes, bytesMax } = store;
  return bytes > bytesMax ? `the store of a collector holds ${bytes} bytes, ${bytesMax} are allowed` : null;
}

/** As docs/decisions/0004 words it: the first 16 octets of the SHA-256 of its Avro encoding with the former chain in its own's place. */
export function chainAfter(output: Output, before: Uint8Array): Buffer {
  return createHash('sha256').update(encodeForChain(output, before)).digest().subarray(0, 16);
}

interface Sums {
  flows: number;
  bytes: bigint;
  packets: bigint;
}

/** I7, I8, I9. The balance over a prefix of outputs, held against the auditor at every WindowClose. */
export class BalanceSums {
  readonly usage = new Map<string, Sums>();
  readonly total: Sums = { flows: 0, bytes: 0n, packets: 0n };
  lostOnWire = 0;
  doubts = 0;
  openFlows = 0;
  lateFlows = 0;
  #side = { decoded: 0n, given: 0n };
  #sinceClose: Sums = { flows: 0, bytes: 0n, packets: 0n };
  #watermark = Number.NEGATIVE_INFINITY;
  #closedTo = Number.NEGATIVE_INFINITY;
  #windowMs = 0;
  readonly #closed = new Set<string>();

  take(output: Output, auditor: PartitionAuditor | null, placeOf: (offset: number) => number): string | null {
    const { aggregate } = output;
    if (!aggregate) return this.#close(output.window_close!, auditor, placeOf);
    const key = aggregate.group.map(({ value }) => value).join('>');
    const usage = this.usage.get(key) ?? { flows: 0, bytes: 0n, packets: 0n };
    this.usage.set(key, usage);
    for (const sum of [usage, this.total, this.#sinceClose]) {
      sum.flows += aggregate.flows;
      sum.bytes += aggregate.bytes;
      sum.packets += aggregate.packets;
    }
    return null;
  }

  #close(close: WindowClose, auditor: PartitionAuditor | null, placeOf: (offset: number) => number): string | null {
    const since = this.#sinceClose;
    this.#sinceClose = { flows: 0, bytes: 0n, packets: 0n };
    if (close.watermark_ms < this.#watermark) return `the watermark of the closes goes back from ${this.#watermark} to ${close.watermark_ms}`;
    // After a change of their length, windows of both may overlap.
    const overlaps = close.window_start_ms < this.#closedTo && close.window_ms === this.#windowMs;
    const span = `${close.window_start_ms}-${close.window_end_ms}`;
    if (overlaps || this.#closed.has(span)) return `window ${close.window_start_ms} is closed again`;
    this.#closed.add(span);
    this.#windowMs = close.window_ms;
    if (close.watermark_ms < close.window_end_ms) return `window ${close.window_start_ms} closes before its end`;
    this.#watermark = close.watermark_ms;
    this.#closedTo = Math.max(this.#closedTo, close.window_end_ms);
    if (since.flows !== close.usage_flows + close.adjustment_flows || since.bytes !== close.usage_bytes + close.adjustment_bytes) {
      return `window ${close.window_start_ms} says ${close.usage_flows} + ${close.adjustment_flows} flows, its aggregates ${since.flows}`;
    }
    this.doubts = close.doubts;
    this.openFlows = close.open_flows;
    this.lateFlows += close.adjustment_flows;
    for (const exporter of close.exporters) {
      this.lostOnWire += exporter.lost_on_wire_flows;
      this.#side.decoded += BigInt(exporter.decoded_flows) + exporter.decoded_bytes + exporter.decoded_packets;
      this.#side.given += BigInt(exporter.aggregated_flows + exporter.late_flows + exporter.rejected_flows + exporter.lost_flows);
      this.#side.given += exporter.aggregated_bytes + exporter.late_bytes + exporter.rejected_bytes + exporter.lost_bytes;
      this.#side.given += exporter.aggregated_packets + exporter.late_packets + exporter.rejected_packets + exporter.lost_packets;
    }
    const open = BigInt(close.open_flows) + close.open_bytes + close.open_packets;
    if (this.#side.decoded !== this.#side.given + open) return `decoded ${this.#side.decoded} is not given out ${this.#side.given} and open ${open}`;
    return auditor ? this.#againstTheLog(close, auditor, placeOf(close.nars_offset)) : null;
  }

  #againstTheLog(close: WindowClose, auditor: PartitionAuditor, place: number): string | null {
    const accepted = auditor.totalAt(place);
    const wrong = accepted.flows !== this.total.flows + close.open_flows || accepted.bytes !== this.total.bytes + close.open_bytes;
    return wrong
      ? `${accepted.flows} flows are in the log up to ${close.nars_offset}, ${this.total.flows} given out and ${close.open_flows} open`
      : null;
  }
}

export function decodeAck(record: LogRecord): Ack {
  return ackCodec.decode(record.value!);
}
