/** What the decoder keeps of one exporter (address, observation domain, protocol). */
import type { ExporterReport } from '../../schemas/types.ts';
import { ExporterSequence, type Unsettled } from './exporter-sequence.ts';
import type { Place } from './places.ts';
import type { SampleSequences } from './sample-sequences.ts';
import { Sampling } from './sampling.ts';
import { type TemplateLimits, TemplateStore } from './template.ts';

export type ExportProtocol = 'netflow_v5' | 'netflow_v7' | 'netflow_v9' | 'ipfix' | 'sflow_v5';

/** An exporter as others see it. The object is the same as long as the decoder knows the exporter. */
export interface ExporterSlot {
  /** Unique within its decoder, never used again. */
  readonly index: number;
  /** `address|observation domain|protocol`; an sFlow agent's address is `sender/agent` where these differ. */
  readonly key: string;
  readonly samplerAddress: string;
  readonly observationDomainId: number;
  readonly protocol: ExportProtocol;
}

export function exporterKey(address: string, observationDomainId: number, protocol: ExportProtocol): string {
  return `${address}|${observationDomainId}|${protocol}`;
}

/** A data set that came before its template. */
export interface WaitingSet {
  readonly exporter: Exporter;
  readonly templateId: number;
  /** The set's content without its header; a copy. */
  readonly bytes: Buffer;
  readonly receivedMs: number;
  readonly exportMs: number;
  readonly uptimeMs: number;
  readonly datagram: WaitingDatagram;
  /** Decoded or given up. */
  done: boolean;
}

/** A datagram of which sets wait for their template. */
export interface WaitingDatagram {
  sets: number;
  failedSets: number;
  /** Records decoded from sets that waited. */
  records: number;
  /** Records there may be in those that still wait or failed; counted until the datagram is settled. */
  unknownMax: number;
  /** Something of it was decoded, at once or later. */
  decoded: boolean;
  /** The whole datagram has been read, and has its place in the sequence. */
  settled: boolean;
  unsettled: Unsettled | null;
}

export class Exporter implements ExporterSlot {
  readonly index: number;
  readonly key: string;
  readonly samplerAddress: string;
  readonly observationDomainId: number;
  readonly protocol: ExportProtocol;
  readonly templates: TemplateStore;
  /** Of a transport session (RFC 7011 section 8): what is known of it ends with it. Datagrams are of none. */
  isOfSession = false;
  hasEnded = false;
  readonly place: Place;
  readonly sampling: Sampling;
  /** What options records said changed since it was saved for the next process. */
  optionsUnsaved = false;
  optionsSavedMs = Number.NEGATIVE_INFINITY;
  /** Templates or sampling are an earlier process' and no datagram has confirmed yet that the exporter goes on as it was. */
  isRecalled = false;
  readonly sequence = new ExporterSequence();
  readonly waiting = new Map<number, WaitingSet[]>();
  /** Datagrams of which nothing is decoded yet, and sets wait. */
  waitingDatagrams = 0;
  systemInitMs = 0;
  /** sFlow only: its sources' sequences, and the agent's start as its uptime tells it, Unix time in ms. */
  samples: SampleSequences | null = null;
  agentStartMs = Number.NaN;
  lastMs = 0;
  flowsEver = 0;
  receivedDatagrams = 0;
  undecodableDatagrams = 0;
  duplicateDatagrams = 0;
  rejectedFlows = 0;
  positionChanged = false;

  /** configuredRate: the sampling rate where the exporter does not tell it; 0 for unknown. */
  constructor(slot: ExporterSlot, limits: TemplateLimits, configuredRate: number) {
    this.index = slot.index;
    this.key = slot.key;
    this.samplerAddress = slot.samplerAddress;
    this.observationDomainId = slot.observationDomainId;
    this.protocol = slot.protocol;
    this.place = limits.place;
    this.sampling = new Sampling(limits.place, configuredRate);
    this.templates = new TemplateStore(limits);
  }

  /** The sequence's position and the datagrams that will never be decoded if this process ends now. */
  position(): string {
    return `${this.waitingDatagrams} ${this.sequence.position()}`;
  }

  restore(position: string): void {
    const space = position.indexOf(' ');
    const lost = Number(position.slice(0, space));
    if (space < 1 || !Number.isSafeInteger(lost) || lost < 0) return;
    if (this.sequence.restore(position.slice(space + 1))) this.undecodableDatagrams += lost;
  }

  /** Its options records said something. */
  hasOptions(): boolean {
    return this.systemInitMs > 0 || !this.sampling.isEmpty;
  }

  /** Returns whether there were any. */
  forgetOptions(): boolean {
    const had = this.hasOptions();
    this.sampling.clear();
    this.systemInitMs = 0;
    this.optionsUnsaved ||= had;
    return had;
  }

  /** Something is still to be reported or waited for. */
  hasNews(): boolean {
    return this.positionChanged || this.waitingDatagrams > 0 || this.#counted();
  }

  #counted(): boolean {
    const { lost, undecodable } = this.sequence;
    const datagrams = this.receivedDatagrams + this.undecodableDatagrams + this.duplicateDatagrams;
    return datagrams > 0 || this.rejectedFlows > 0 || lost !== 0 || undecodable > 0 || (this.samples !== null && this.samples.lost !== 0);
  }

  /** What was counted since the last call; undefined where that is nothing. */
  takeReport(): ExporterReport | undefined {
    if (!this.#counted()) return undefined;
    const { lost, undecodable } = this.sequence;
    const countsDatagrams = this.protocol === 'netflow_v9' || this.protocol === 'sflow_v5';
    const report: ExporterReport = {
      sampler_address: this.samplerAddress,
      observation_domain_id: this.observationDomainId,
      protocol: this.protocol,
      received_datagrams: this.receivedDatagrams,
      undecodable_datagrams: this.undecodableDatagrams,
      duplicate_datagrams: this.duplicateDatagrams,
      lost_on_wire_flows: countsDatagrams ? (this.samples?.lost ?? 0) : lost,
      lost_on_wire_datagrams: countsDatagrams ? lost : 0,
      undecodable_flows: countsDatagrams ? 0 : undecodable,
      decoded_flows: this.rejectedFlows,
      decoded_bytes: 0n,
      decoded_packets: 0n,
      rejected_flows: this.rejectedFlows,
    };
    this.receivedDatagrams = 0;
    this.undecodableDatagrams = 0;
    this.duplicateDatagrams = 0;
    this.rejectedFlows = 0;
    if (this.samples !== null) this.samples.lost = 0;
    this.sequence.lost = 0;
    this.sequence.undecodable = 0;
    return report;
  }
}
