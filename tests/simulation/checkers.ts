/** The invariants of docs/INVARIANTS.md, each a function over what has happened so far. A function returns what is wrong, or nothing. */
import type { LogRecord } from '../../adapters/ports.ts';
import { ackCodec, outputBlockCodec, outputCodec } from '../../schemas/codec.ts';
import { type Replica, replicas } from '../../schemas/topics.ts';
import type { Ack, Output, WindowClose } from '../../schemas/types.ts';
import { flowIdsOf, PartitionAuditor } from './auditor.ts';
import { LogEras, namedByBase } from './log-eras.ts';
import { Wrongness } from './wrongness.ts';

/** One replica's outputs of one partition, as a reader of its topic sees them. */
export class OutputView {
  /** Encoded, n = index + 1. */
  readonly outputs: Buffer[] = [];
  /** Read, but with a gap before them. */
  readonly ahead = new Map<number, Buffer>();
}

/** What the fold of the log gives when nothing ever fails: n and bytes of each output, and how far n had come at each offset. */
export interface Reference {
  take(record: LogRecord): void;
  readonly outputs: readonly Buffer[];
  /** The last n of the fold of all records before this offset. */
  nAt(offset: number): number;
  /** As many records are what a new log goes on from, with its base. @throws where the base names something else */
  continueAt(count: number, base: LogRecord): void;
}

export interface PartitionHistory {
  readonly eras: LogEras;
  auditor: PartitionAuditor;
  readonly reference: Reference;
  readonly views: Record<Replica, OutputView>;
  /** By replica and incarnation: the highest sequence that any of the replica's acknowledgments names. */
  readonly acknowledged: Record<Replica, Map<string, number>>;
  /** What a reader of isolation `committed` has got of aggregates. */
  readonly emitted: Buffer[];
  readonly balance: BalanceSums;
  /** What was changed in the memory of a replica. */
  readonly wrongness: Wrongness;
}

export function newHistory(reference: Reference, topicId: string): PartitionHistory {
  const views = { a: new OutputView(), b: new OutputView() };
  const acknowledged = { a: new Map(), b: new Map() };
  const wrongness = new Wrongness();
  return {
    eras: new LogEras(topicId),
    auditor: new PartitionAuditor(),
    reference,
    views,
    acknowledged,
    emitted: [],
    balance: new BalanceSums(),
    wrongness,
  };
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
  const era = history.eras.of(ack.topic_id);
  if (typeof era?.shift !== 'number') return `${ack.replica} acknowledges in a log ${ack.topic_id}, which has no base`;
  const acknowledged = history.acknowledged[ack.replica as Replica];
  for (const [incarnation, sequence] of said) acknowledged.set(incarnation, Math.max(sequence, acknowledged.get(incarnation) ?? 0));
  if (era !== history.eras.current) return null;
  const place = ack.folded_offset + era.shift;
  const expected = history.auditor.sequencesAt(place, ack.collector);
  for (const incarnation of new Set([...expected.keys(), ...said.keys()])) {
    if ((expected.get(incarnation) ?? 0) !== (said.get(incarnation) ?? 0)) {
      const stream = `${ack.collector} ${incarnation} up to ${said.get(incarnation)} at offset ${ack.folded_offset}`;
      return `${ack.replica} acknowledges ${stream}, the log says ${expected.get(incarnation)}`;
    }
  }
  // It has read back what it has written, right or wrong.
  if (history.wrongness.isWrong(ack.replica as Replica)) return null;
  const written = history.views[ack.replica as Replica].outputs.length;
  const due = history.reference.nAt(place);
  return written < due ? `${ack.replica} acknowledges offset ${ack.folded_offset} with outputs up to ${written}, ${due} are due` : null;
}

/** I2. Nothing leaves a local copy that both have not acknowledged; what leaves it is in the log, or its loss is. */
export function trimsOnlyAcknowledged(history: PartitionHistory, incarnation: string, sequence: number, value: Uint8Array | null): string | null {
  for (const replica of replicas) {
    if ((history.acknowledged[replica].get(incarnation) ?? 0) < sequence)
      return `${incarnation} ${sequence} is trimmed, and ${replica} has not acknowledged it`;
  }
  if (history.auditor.isReportedLost(incarnation, sequence)) return null;
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
    if (!expected?.equals(bytes))
      return `${replica} writes output ${output.n}, which is not that of the fold: ${expected ? difference(output, expected) : 'none'}`;
    if (output.n > view.outputs.length) view.ahead.set(output.n, bytes);
  }
  for (let next = view.ahead.get(view.outputs.length + 1); next; next = view.ahead.get(view.outputs.length + 1)) {
    view.outputs.push(next);
    view.ahead.delete(view.outputs.length);
  }
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
  if (!record.value!.equals(history.reference.outputs[n - 1] ?? Buffer.alloc(0))) return `aggregates ${n} is not the output of the fold`;
  if (replicas.every((replica) => history.views[replica].outputs.length < n)) return `aggregates ${n} is emitted before any replica has written it`;
  history.emitted.push(record.value!);
  return history.balance.take(output, history.auditor, (offset) => history.eras.placeOf(n, offset));
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

  take(output: Output, auditor: PartitionAuditor, placeOf: (offset: number) => number): string | null {
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

  #close(close: WindowClose, auditor: PartitionAuditor, placeOf: (offset: number) => number): string | null {
    const since = this.#sinceClose;
    this.#sinceClose = { flows: 0, bytes: 0n, packets: 0n };
    if (close.watermark_ms < this.#watermark) return `the watermark goes back from ${this.#watermark} to ${close.watermark_ms}`;
    if (close.window_start_ms < this.#closedTo) return `window ${close.window_start_ms} is closed again`;
    if (close.watermark_ms < close.window_end_ms) return `window ${close.window_start_ms} closes before its end`;
    this.#watermark = close.watermark_ms;
    this.#closedTo = close.window_end_ms;
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
    return this.#againstTheLog(close, auditor, placeOf(close.nars_offset));
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
