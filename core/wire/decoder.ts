/** From datagram to NARs: one decoder per collector worker. The version in the header decides, not the port. */
import type { ExporterReport, Nar } from '../../schemas/types.ts';
import { Cursor, readUnsigned } from './cursor.ts';
import { type DecoderCounters, noCounts } from './decoder-counters.ts';
import { type DecoderLimits, defaultDecoderLimits } from './decoder-limits.ts';
import { Exporter, type ExporterSlot, type ExportProtocol, exporterKey, type WaitingDatagram, type WaitingSet } from './exporter.ts';
import { ExporterMemory, type MemoryChange } from './exporter-memory.ts';
import { signatureOf } from './exporter-sequence.ts';
import { ipfixHeaderOctets, readIpfixHeader, readIpfixTemplate } from './ipfix.ts';
import { dataSetIdMin, type SetHeader, type TemplateRecord } from './message.ts';
import { type FixedHeader, fixedHeaderOctets, isFixedWhole, netflow5Template, readNetflow5Header } from './netflow5.ts';
import { netflow7Template, readNetflow7Header } from './netflow7.ts';
import { netflow9HeaderOctets, readNetflow9Header, readNetflow9Template } from './netflow9.ts';
import { takeOptions } from './options.ts';
import { Places } from './places.ts';
import { hasReverseTraffic, type RecordContext, RecordReader } from './record.ts';
import { SflowSamples } from './sflow-samples.ts';
import { readSflow5Header, sflow5HeaderOctetsMin, sflow5Version } from './sflow5.ts';
import { layOut, type Template } from './template.ts';
import { recordsMaxIn, WaitingSets } from './waiting.ts';

export type { DecoderCounters } from './decoder-counters.ts';
export { type DecoderLimits, defaultDecoderLimits } from './decoder-limits.ts';
export type { ExporterSlot, ExportProtocol } from './exporter.ts';
export type { MemoryChange } from './exporter-memory.ts';

/** One that never sent a flow is forgotten sooner, so that forged source addresses do not fill the table for long. */
const flowlessExpiryMs = 10 * 60_000;

/** Positions of exporters that are not heard now, in tables of exporters: so many are more than any store should have. */
const restoredShare = 4;

/** Looking through all exporters and templates costs too much to be done at each call. */
const sweepEveryMs = 1_000;

/**
 * Takes a flow. nar.exporter is slot.index; a batch gives it an index of its own.
 * The NAR is the same object for each flow, its addresses included: whoever keeps something of it copies that.
 */
export type NarSink = (nar: Nar, slot: ExporterSlot) => void;

const protocolCodes: Readonly<Record<ExportProtocol, number>> = { netflow_v5: 0, netflow_v9: 1, ipfix: 2, sflow_v5: 3, netflow_v7: 4 };
/** More than there are protocols. */
const protocolCodesMax = 8;

export class Decoder {
  readonly counters: DecoderCounters = noCounts();
  readonly #limits: DecoderLimits;
  readonly #configuredRate: (samplerAddress: string) => number;
  readonly #exporters = new Map<string, Map<number, Exporter>>();
  readonly #restored = new Map<string, string>();
  readonly #memory: ExporterMemory;
  readonly #reader = new RecordReader();
  readonly #samples = new SflowSamples(this.counters);
  readonly #places: Places;
  /** Forgotten exporters whose positions need not be stored any longer. */
  #unplaced: string[] = [];
  readonly #waiting: WaitingSets;
  /** Of known exporters; where none is, of nobody. */
  readonly #waitingKnown: WaitingSets;
  /** One object for all records, so that decoding a record allocates nothing. */
  readonly #context: RecordContext = { receivedMs: 0, exportMs: 0, uptimeMs: -1, systemInitMs: 0, headerRate: 0, exporter: 0 };
  /** Of the message that is decoded; null: it is a datagram. */
  #session: string | null = null;
  #exportersEver = 0;
  #sweptMs = Number.NEGATIVE_INFINITY;

  /**
   * isKnown: exporters that the configuration names, by their address. A flood of others leaves them half of everything; null, the default: none is
   * named, and all share all of it. configuredRate: the sampling rate of an exporter, by its address, that does not tell it itself; 0 for unknown.
   */
  constructor(
    limits: DecoderLimits = defaultDecoderLimits,
    isKnown: ((address: string) => boolean) | null = null,
    configuredRate: (samplerAddress: string) => number = () => 0,
  ) {
    this.#limits = limits;
    this.#configuredRate = configuredRate;
    this.#places = new Places(limits, isKnown);
    this.#memory = new ExporterMemory(limits, this.counters);
    const { waitMs, waitBytesMax } = limits;
    const waitingLimits = { waitMs, waitBytesMax: isKnown === null ? waitBytesMax : waitBytesMax / 2 };
    this.#waiting = new WaitingSets(waitingLimits, (set) => this.#giveUp(set));
    this.#waitingKnown = new WaitingSets(waitingLimits, (set) => this.#giveUp(set));
  }

  /**
   * Decodes one datagram and calls the sink at once for each flow, also for flows of earlier datagrams whose template just came.
   * Never throws, whatever the datagram, and keeps no reference to it. receivedMs: Unix time in ms. exporterAddress: as text, IPv4 without the IPv6
   * prefix. session: `ADDRESS#NAME` of the transport session that the message came in; templates and sequence are that session's then.
   */
  decode(datagram: Uint8Array, exporterAddress: string, receivedMs: number, sink: NarSink, session: string | null = null): void {
    this.#session = session;
    const bytes = Buffer.isBuffer(datagram) ? datagram : Buffer.from(datagram.buffer, datagram.byteOffset, datagram.byteLength);
    this.counters.datagrams++;
    this.counters.bytes += bytes.length;
    const version = bytes.length >= 2 ? readUnsigned(bytes, 0, 2) : 0;
    if (version === 5 && bytes.length >= fixedHeaderOctets)
      this.#decodeFixed('netflow_v5', readNetflow5Header(bytes), netflow5Template, bytes, exporterAddress, receivedMs, sink);
    else if (version === 9 && bytes.length >= netflow9HeaderOctets)
      this.#decodeSets(readNetflow9Header(bytes), bytes, exporterAddress, receivedMs, sink);
    else if (version === 10 && bytes.length >= ipfixHeaderOctets) this.#decodeIpfix(bytes, exporterAddress, receivedMs, sink);
    else if (version === 7 && bytes.length >= fixedHeaderOctets)
      this.#decodeFixed('netflow_v7', readNetflow7Header(bytes), netflow7Template, bytes, exporterAddress, receivedMs, sink);
    else if (version === 0 && bytes.length >= sflow5HeaderOctetsMin && readUnsigned(bytes, 2, 2) === sflow5Version)
      this.#decodeSflow5(bytes, exporterAddress, receivedMs, sink);
    else this.counters.unidentifiedDatagrams++;
  }

  /** A transport session ended: data that waits for a template is given up, and once it is reported, all of it is forgotten. */
  endSession(session: string): void {
    for (const exporter of this.#exporters.get(session)?.values() ?? []) {
      for (const templateId of [...exporter.waiting.keys()]) {
        for (const set of this.#waitingOf(exporter).take(exporter, templateId)) this.#giveUp(set);
      }
      exporter.hasEnded = true;
    }
    this.#gauge();
  }

  /** Gives up data sets that waited too long, at each call; forgets templates and exporters that are silent, once a second. */
  expire(nowMs: number): void {
    this.#waiting.expire(nowMs);
    this.#waitingKnown.expire(nowMs);
    this.#gauge();
    if (nowMs - this.#sweptMs < sweepEveryMs) return;
    this.#sweptMs = nowMs;
    this.#memory.expire(nowMs);
    for (const [address, ofAddress] of this.#exporters) {
      for (const [code, exporter] of ofAddress) {
        this.counters.expiredTemplates += exporter.templates.expire(nowMs);
        const silentMs = nowMs - exporter.lastMs;
        const isSilent = silentMs > this.#limits.exporterExpiryMs || (silentMs > flowlessExpiryMs && exporter.flowsEver === 0);
        const outlived = exporter.isOfSession ? exporter.hasEnded : isSilent;
        // What is still to be reported keeps it.
        if (!outlived || exporter.hasNews()) continue;
        ofAddress.delete(code);
        this.#forget(exporter);
      }
      if (ofAddress.size === 0) this.#exporters.delete(address);
    }
  }

  /**
   * What was counted per exporter since the last call, for those with something to report. These are counts of datagrams, and rejected records,
   * which are
   * in decoded_flows, too; each NAR is added by whoever puts it into a batch. A report must go into exactly one batch.
   */
  takeReports(): ExporterReport[] {
    const reports: ExporterReport[] = [];
    for (const ofAddress of this.#exporters.values()) {
      for (const exporter of ofAddress.values()) {
        const report = exporter.takeReport();
        if (report !== undefined) reports.push(report);
      }
    }
    return reports;
  }

  /**
   * The sequence positions that changed since the last call, by slot.key; empty where it need not be kept any longer. To be taken together with the
   * reports and the NARs so far, and stored with them.
   */
  takePositions(): [key: string, position: string][] {
    const positions = this.#unplaced.map((key): [string, string] => [key, '']);
    this.#unplaced = [];
    for (const ofAddress of this.#exporters.values()) {
      for (const exporter of ofAddress.values()) {
        if (!exporter.positionChanged) continue;
        exporter.positionChanged = false;
        // The next session counts from its own beginning.
        if (exporter.isOfSession) continue;
        positions.push([exporter.key, exporter.position()]);
      }
    }
    return positions;
  }

  /** At the start: the stored positions. The first datagram of an exporter then yields the exact loss since. Malformed ones are ignored. */
  restore(positions: Iterable<readonly [key: string, position: string]>): void {
    for (const [key, position] of positions) {
      if (this.#restored.size < restoredShare * this.#limits.exportersMax) this.#restored.set(key, position);
    }
  }

  /**
   * Some of what changed of templates and sampling since the last call, to be kept for the next process; to be called again while it gives anything.
   * Losing it costs no record that is not waited for: it need not be kept together with anything.
   */
  takeMemory(): MemoryChange[] {
    return this.#memory.take(this.#all());
  }

  /** What was handed out may be lost: all of it is handed out again. */
  rememberAgain(): void {
    this.#memory.saveAgain(this.#all());
  }

  /** At the start: what an earlier process kept. It counts for an exporter as long as that has not started anew, nor been silent for too long. */
  recall(entries: Iterable<MemoryChange>, nowMs: number): void {
    this.#memory.restore(entries, nowMs);
  }

  #forget(exporter: Exporter): void {
    if (!exporter.isOfSession) this.#memory.forget(exporter);
    this.#samples.forget(exporter);
    exporter.templates.clear();
    exporter.sampling.clear();
    this.#places.leave(exporter.place);
    this.counters.exporters--;
    if (exporter.isOfSession) return;
    // Should it come back, its position still tells what was lost meanwhile.
    if (exporter.flowsEver > 0 && this.#restored.size < this.#limits.exportersMax) this.#restored.set(exporter.key, exporter.position());
    else if (this.#unplaced.length < this.#limits.exportersMax) this.#unplaced.push(exporter.key);
  }

  /** Those whose templates outlive the process. */
  *#all(): Generator<Exporter> {
    for (const ofAddress of this.#exporters.values()) {
      for (const exporter of ofAddress.values()) if (!exporter.isOfSession) yield exporter;
    }
  }

  /** address tells it from all others but for the session; samplerAddress is what it is called. */
  #exporterOf(
    address: string,
    observationDomainId: number,
    protocol: ExportProtocol,
    receivedMs: number,
    samplerAddress = address,
  ): Exporter | undefined {
    const code = observationDomainId * protocolCodesMax + protocolCodes[protocol];
    const origin = this.#session ?? address;
    const known = this.#exporters.get(origin)?.get(code);
    if (known !== undefined) {
      known.lastMs = receivedMs;
      return known;
    }
    const place = this.#places.enter(origin);
    if (place === null) {
      this.counters.refusedDatagrams++;
      return undefined;
    }
    const { templatesPerExporterMax: templatesMax, templateExpiryMs } = this.#limits;
    // RFC 7011 section 8.1: within a session templates are not repeated.
    const expiryMs = this.#session === null ? templateExpiryMs : Number.POSITIVE_INFINITY;
    const key = exporterKey(address, observationDomainId, protocol);
    const slot = { index: this.#exportersEver++, key, samplerAddress, observationDomainId, protocol };
    const exporter = new Exporter(slot, { templatesMax, expiryMs, place }, this.#configuredRate(samplerAddress));
    exporter.lastMs = receivedMs;
    this.counters.exporters++;
    const ofAddress = this.#exporters.get(origin);
    if (ofAddress === undefined) this.#exporters.set(origin, new Map([[code, exporter]]));
    else ofAddress.set(code, exporter);
    if (this.#session !== null) {
      exporter.isOfSession = true;
      return exporter;
    }
    const position = this.#restored.get(key);
    if (position !== undefined) exporter.restore(position);
    this.#restored.delete(key);
    this.#memory.recall(exporter, receivedMs);
    return exporter;
  }

  /** NetFlow v5 and v7, whose records are always the same. */
  #decodeFixed(
    protocol: ExportProtocol,
    header: FixedHeader,
    template: Template,
    bytes: Buffer,
    address: string,
    receivedMs: number,
    sink: NarSink,
  ): void {
    const exporter = this.#exporterOf(address, header.observationDomainId, protocol, receivedMs);
    if (exporter === undefined) return;
    exporter.receivedDatagrams++;
    // The sequence of a corrupt header is worth nothing either: the next datagram tells what is missing.
    if (!isFixedWhole(bytes, header.count, template.recordOctets)) {
      this.#countUndecodable(exporter);
      return;
    }
    if (!this.#arrive(exporter, bytes, header.sequence, header.exportMs, header.uptimeMs)) return;
    this.#setContext(exporter, receivedMs, header.exportMs, header.uptimeMs);
    this.#context.headerRate = header.samplingRate;
    const end = fixedHeaderOctets + header.count * template.recordOctets;
    this.#decodeRecords(exporter, template, bytes, fixedHeaderOctets, end, sink);
    exporter.sequence.settle(header.count, 0);
  }

  /**
   * An agent is called by the address that it gives itself, which stays the same when another host passes its datagrams on; told apart it is by the
   * sender's as well, since agents that are set up alike may give the same one.
   */
  #decodeSflow5(bytes: Buffer, address: string, receivedMs: number, sink: NarSink): void {
    const header = readSflow5Header(bytes);
    if (header === undefined) {
      this.counters.unidentifiedDatagrams++;
      return;
    }
    const agent = header.agent || address;
    const exporter = this.#exporterOf(agent === address ? address : `${address}/${agent}`, header.subAgentId, 'sflow_v5', receivedMs, agent);
    if (exporter === undefined) return;
    exporter.receivedDatagrams++;
    const restarts = exporter.sequence.restarts;
    if (!this.#arrive(exporter, bytes, header.sequence, this.#samples.exportMs(exporter, header, receivedMs), header.uptimeMs)) return;
    exporter.sequence.settle(1, 0);
    if (!this.#samples.take(exporter, header, bytes, receivedMs, exporter.sequence.restarts !== restarts, sink)) this.#countUndecodable(exporter);
  }

  #decodeIpfix(bytes: Buffer, address: string, receivedMs: number, sink: NarSink): void {
    const header = readIpfixHeader(bytes);
    if (header !== undefined) {
      this.#decodeSets(header, bytes, address, receivedMs, sink);
      return;
    }
    const exporter = this.#exporterOf(address, readUnsigned(bytes, 12, 4), 'ipfix', receivedMs);
    if (exporter === undefined) return;
    exporter.receivedDatagrams++;
    this.#countUndecodable(exporter);
  }

  /** The body of NetFlow v9 and IPFIX. */
  #decodeSets(header: SetHeader, bytes: Buffer, address: string, receivedMs: number, sink: NarSink): void {
    const exporter = this.#exporterOf(address, header.observationDomainId, header.protocol, receivedMs);
    if (exporter === undefined) return;
    exporter.receivedDatagrams++;
    if (!this.#arrive(exporter, bytes, header.sequence, header.exportMs, header.uptimeMs)) return;
    const intake: Intake = {
      ...{ exporter, header, bytes, receivedMs, sink },
      ...{ records: 0, unknownMax: recordsMaxIn(header.cutOctets), decoded: false, malformed: header.cutOctets > 0, waiting: null },
    };
    const cursor = new Cursor(bytes, header.setsAt, header.end);
    while (cursor.remaining >= 4) {
      const id = cursor.u16();
      const octets = cursor.u16() - 4;
      if (id === 0 && octets === -4 && header.protocol === 'netflow_v9') break;
      if (octets < 0 || octets > cursor.remaining) {
        this.counters.malformedSets++;
        intake.malformed = true;
        intake.unknownMax += recordsMaxIn(cursor.remaining);
        break;
      }
      const end = cursor.at + octets;
      if (id >= dataSetIdMin) this.#takeDataSet(intake, id, cursor.at, end);
      else if (isTemplateSet(header.protocol, id)) this.#takeTemplates(intake, id, cursor.at, end);
      cursor.skip(octets);
    }
    this.#settle(intake);
  }

  /** Counts what the datagram held, and ties what waits to its place in the sequence. */
  #settle(intake: Intake): void {
    const { exporter, waiting } = intake;
    const records = intake.records + (waiting?.records ?? 0);
    const unknownMax = intake.unknownMax + (waiting?.unknownMax ?? 0);
    const unsettled = exporter.protocol === 'netflow_v9' ? exporter.sequence.settle(1, 0) : exporter.sequence.settle(records, unknownMax);
    if (waiting !== null && waiting.sets > 0) {
      waiting.settled = true;
      waiting.records = 0;
      waiting.unsettled = unsettled;
      waiting.decoded ||= intake.decoded;
      if (intake.malformed) waiting.failedSets++;
      if (!waiting.decoded) exporter.waitingDatagrams++;
      return;
    }
    if (unsettled !== null) exporter.sequence.resolve(unsettled, 0, false);
    const failed = intake.malformed || (waiting !== null && waiting.failedSets > 0);
    if (failed && !intake.decoded && !waiting?.decoded) this.#countUndecodable(exporter);
  }

  #takeTemplates(intake: Intake, setId: number, at: number, end: number): void {
    const { exporter, header } = intake;
    const ofOptions = (setId & 1) === 1;
    const cursor = new Cursor(intake.bytes, at, end);
    while (cursor.remaining >= 4) {
      const record = header.protocol === 'ipfix' ? readIpfixTemplate(cursor, ofOptions) : readNetflow9Template(cursor, ofOptions);
      // What follows a template set's last record is padding.
      if (record === undefined || (record.id < dataSetIdMin && record.fields.length > 0)) break;
      if (record.fields.length === 0) {
        this.#withdraw(exporter, record, ofOptions);
        continue;
      }
      intake.decoded = true;
      this.#learn(exporter, record, intake.receivedMs, intake.sink);
    }
  }

  #withdraw(exporter: Exporter, record: TemplateRecord, ofOptions: boolean): void {
    if (record.id >= dataSetIdMin) this.counters.withdrawnTemplates += exporter.templates.withdraw(record.id) ? 1 : 0;
    else if (record.id === 2 || record.id === 3) this.counters.withdrawnTemplates += exporter.templates.withdrawAll(ofOptions);
  }

  #learn(exporter: Exporter, record: TemplateRecord, receivedMs: number, sink: NarSink): void {
    const { id, fields, scopes } = record;
    if (fields.length > this.#limits.fieldsPerTemplateMax || !exporter.templates.learn(id, fields, scopes, receivedMs)) {
      this.counters.refusedTemplates++;
      // What stood under this id is not what the exporter means by it any more.
      exporter.templates.withdraw(id);
      return;
    }
    this.counters.templates++;
    const template = exporter.templates.find(id, receivedMs);
    if (template === undefined) return;
    for (const set of this.#waitingOf(exporter).take(exporter, id)) this.#decodeWaiting(set, template, sink);
    this.#gauge();
  }

  #takeDataSet(intake: Intake, id: number, at: number, end: number): void {
    const { exporter, header, receivedMs } = intake;
    if (at === end) {
      intake.decoded = true;
      return;
    }
    const template = exporter.templates.find(id, receivedMs);
    if (template === undefined) {
      this.#keepWaiting(intake, id, at, end);
      return;
    }
    this.#setContext(exporter, receivedMs, header.exportMs, header.uptimeMs);
    const records = this.#decodeRecords(exporter, template, intake.bytes, at, end, intake.sink);
    intake.records += records;
    if (records > 0) {
      intake.decoded = true;
      return;
    }
    this.counters.malformedSets++;
    intake.malformed = true;
    intake.unknownMax += recordsMaxIn(end - at);
  }

  #keepWaiting(intake: Intake, templateId: number, at: number, end: number): void {
    const { exporter, receivedMs } = intake;
    const { exportMs, uptimeMs } = intake.header;
    intake.waiting ??= { sets: 0, failedSets: 0, records: 0, unknownMax: 0, decoded: false, settled: false, unsettled: null };
    const datagram = intake.waiting;
    datagram.unknownMax += recordsMaxIn(end - at);
    const bytes = Buffer.from(intake.bytes.subarray(at, end));
    if (this.#waitingOf(exporter).add({ exporter, templateId, bytes, receivedMs, exportMs, uptimeMs, datagram, done: false })) {
      datagram.sets++;
    } else {
      datagram.failedSets++;
      this.counters.undecodableSets++;
    }
    this.#gauge();
  }

  #decodeWaiting(set: WaitingSet, template: Template, sink: NarSink): void {
    const { exporter, datagram, bytes } = set;
    this.#setContext(exporter, set.receivedMs, set.exportMs, set.uptimeMs);
    const records = this.#decodeRecords(exporter, template, bytes, 0, bytes.length, sink);
    const failed = records === 0;
    if (failed) this.counters.malformedSets++;
    this.#finishWaiting(set, records, failed);
    if (!failed && !datagram.decoded) {
      datagram.decoded = true;
      if (datagram.settled) exporter.waitingDatagrams--;
    }
  }

  #giveUp(set: WaitingSet): void {
    this.counters.undecodableSets++;
    this.#finishWaiting(set, 0, true);
  }

  #finishWaiting(set: WaitingSet, records: number, failed: boolean): void {
    const { exporter, datagram } = set;
    exporter.positionChanged = true;
    datagram.sets--;
    datagram.records += records;
    if (failed) datagram.failedSets++;
    if (!datagram.settled && !failed) datagram.unknownMax -= recordsMaxIn(set.bytes.length);
    if (datagram.sets > 0 || !datagram.settled) return;
    if (datagram.unsettled !== null) exporter.sequence.resolve(datagram.unsettled, datagram.records, datagram.failedSets === 0);
    if (datagram.decoded || records > 0) return;
    exporter.waitingDatagrams--;
    this.#countUndecodable(exporter);
  }

  /** Decodes the records between at and end; returns how many there were, rejected ones and options records included. */
  #decodeRecords(exporter: Exporter, template: Template, bytes: Buffer, at: number, end: number, sink: NarSink): number {
    if (template.recordOctets === 0) return 0;
    let records = 0;
    let next = at;
    while (next + template.recordOctets <= end) {
      let octets = template.recordOctets;
      if (template.scopes >= 0) octets = takeOptions(exporter, template, bytes, next, end);
      else if (template.varies) octets = layOut(template, bytes, next, end);
      if (octets <= 0) break;
      if (template.scopes >= 0) this.#countOptions(exporter);
      else this.#takeFlow(exporter, template, bytes, next, sink);
      records++;
      next += octets;
    }
    return records;
  }

  #countOptions({ sampling }: Exporter): void {
    this.counters.optionsRecords++;
    this.counters.refusedSamplers += sampling.refused;
    sampling.refused = 0;
  }

  #takeFlow(exporter: Exporter, template: Template, bytes: Buffer, at: number, sink: NarSink): void {
    const nar = this.#reader.read(template, bytes, at, this.#context, exporter.sampling);
    if (nar === null) {
      this.#reject(exporter);
      return;
    }
    const hasReverse = template.hasReverse && hasReverseTraffic(template, bytes, at);
    if (template.hasEvent && nar.bytes === 0 && nar.packets === 0 && !hasReverse) {
      this.counters.events++;
      return;
    }
    this.#give(exporter, nar, sink);
    if (!hasReverse) return;
    const reverse = this.#reader.readReverse(template, bytes, at, this.#context);
    if (reverse === null) {
      this.#reject(exporter);
      return;
    }
    this.counters.reverseFlows++;
    this.#give(exporter, reverse, sink);
  }

  #give(exporter: Exporter, nar: Nar, sink: NarSink): void {
    exporter.flowsEver++;
    this.counters.flows++;
    sink(nar, exporter);
  }

  #reject(exporter: Exporter): void {
    exporter.rejectedFlows++;
    this.counters.rejectedFlows++;
  }

  #arrive(exporter: Exporter, bytes: Buffer, sequence: number, exportMs: number, uptimeMs: number): boolean {
    exporter.positionChanged = true;
    const restarts = exporter.sequence.restarts;
    const bootMs = uptimeMs >= 0 ? exportMs - uptimeMs : Number.NaN;
    const isNew = exporter.sequence.arrive({ sequence, exportMs, bootMs, signature: signatureOf(bytes) });
    this.counters.exporterRestarts += exporter.sequence.restarts - restarts;
    if (exporter.isRecalled) {
      exporter.isRecalled = false;
      if (exporter.sequence.restarts > restarts) this.#memory.disown(exporter);
    }
    if (isNew) return true;
    exporter.duplicateDatagrams++;
    this.counters.duplicateDatagrams++;
    return false;
  }

  #setContext(exporter: Exporter, receivedMs: number, exportMs: number, uptimeMs: number): void {
    const context = this.#context;
    context.receivedMs = receivedMs;
    context.exportMs = exportMs;
    context.uptimeMs = uptimeMs;
    context.systemInitMs = exporter.systemInitMs;
    context.headerRate = 0;
    context.exporter = exporter.index;
  }

  #countUndecodable(exporter: Exporter): void {
    exporter.undecodableDatagrams++;
    this.counters.undecodableDatagrams++;
  }

  #waitingOf(exporter: Exporter): WaitingSets {
    return exporter.place.isKnown ? this.#waitingKnown : this.#waiting;
  }

  #gauge(): void {
    this.counters.waitingSets = this.#waiting.sets + this.#waitingKnown.sets;
    this.counters.waitingBytes = this.#waiting.bytes + this.#waitingKnown.bytes;
  }
}

/** One datagram on its way through, and what it held. */
interface Intake {
  readonly exporter: Exporter;
  readonly header: SetHeader;
  readonly bytes: Buffer;
  readonly receivedMs: number;
  readonly sink: NarSink;
  records: number;
  /** Records there may be in octets that could not be decoded. */
  unknownMax: number;
  decoded: boolean;
  malformed: boolean;
  waiting: WaitingDatagram | null;
}

/** Template and options template sets: 0 and 1 in NetFlow v9, 2 and 3 in IPFIX. */
function isTemplateSet(protocol: SetHeader['protocol'], id: number): boolean {
  return protocol === 'ipfix' ? id === 2 || id === 3 : id === 0 || id === 1;
}
