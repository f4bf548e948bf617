/**
 * A synthetic exporter with known totals: well-formed datagrams with right sequence numbers, templates first and repeated.
 * Each flow key's record is encoded once; a flow costs a copy of it and a few patched numbers.
 */
import { PseudoRandom } from './pseudo-random.ts';
import { layoutOf, type RecordLayout, type SyntheticProtocol } from './synthetic-layout.ts';

export type { SyntheticProtocol } from './synthetic-layout.ts';

export interface SyntheticOptions {
  readonly protocol: SyntheticProtocol;
  /** The same seed gives the same flows; only the times differ. */
  readonly seed: number;
  readonly keys: number;
  /** NetFlow v5: engine type x 256 + engine id. Default 0. */
  readonly observationDomainId?: number;
  /** Announced by header (v5) or options record (v9, IPFIX); 0, the default: not said. */
  readonly samplingRate?: number;
  /** Templates are repeated in each so many-th datagram. */
  readonly templateEvery?: number;
}

export interface SyntheticTotals {
  datagrams: number;
  flows: number;
  bytes: number;
  packets: number;
}

/** With this much uptime at the first datagram, no flow begins before the exporter does. */
const uptimeAtStartMs = 60_000;
const flowAgeMsMax = 1_000;
const flowDurationMsMax = 5_000;
const packetsMax = 50;
const packetOctetsMin = 40;
const packetOctetsMax = 1_500;
/** What an Ethernet frame holds of UDP payload. */
const datagramOctetsMax = 1_472;

export class SyntheticExporter {
  readonly totals: SyntheticTotals = { datagrams: 0, flows: 0, bytes: 0, packets: 0 };
  readonly flowsPerDatagramMax: number;
  readonly #layout: RecordLayout;
  readonly #random: PseudoRandom;
  /** One encoded record per flow key, one after another. */
  readonly #records: Buffer;
  readonly #keys: number;
  readonly #domain: number;
  readonly #samplingRate: number;
  readonly #templateEvery: number;
  #bootMs = -1;
  #sequence = 0;

  constructor(options: SyntheticOptions) {
    const { protocol, seed, keys, observationDomainId = 0, samplingRate = 0, templateEvery = 100 } = options;
    this.#layout = layoutOf(protocol);
    this.#random = new PseudoRandom(seed);
    this.#keys = keys;
    this.#domain = observationDomainId;
    this.#samplingRate = samplingRate;
    this.#templateEvery = templateEvery;
    this.flowsPerDatagramMax = this.#layout.flowsMax(datagramOctetsMax);
    this.#records = this.#encodeKeys();
  }

  /** One datagram with so many flows (at most flowsPerDatagramMax), exported at nowMs (Unix time). It is the caller's. */
  next(nowMs: number, flows: number): Buffer {
    if (this.#bootMs < 0) this.#bootMs = nowMs - uptimeAtStartMs;
    const count = Math.min(flows, this.flowsPerDatagramMax);
    const layout = this.#layout;
    const datagram = Buffer.allocUnsafe(datagramOctetsMax);
    const withTemplates = layout.hasTemplates && this.totals.datagrams % this.#templateEvery === 0;
    const preamble = withTemplates
      ? layout.writeTemplates(datagram, layout.headerOctets, this.#samplingRate)
      : { end: layout.headerOctets, records: 0 };
    let at = count > 0 ? layout.beginData(datagram, preamble.end, count) : preamble.end;
    for (let i = 0; i < count; i++) {
      this.#writeFlow(datagram, at, nowMs);
      at += layout.recordOctets;
    }
    layout.writeHeader(datagram, {
      octets: at,
      flows: count,
      records: count + preamble.records,
      nowMs,
      bootMs: this.#bootMs,
      sequence: this.#sequence,
      observationDomainId: this.#domain,
      samplingRate: this.#samplingRate,
    });
    this.#sequence = (this.#sequence + layout.sequenceUnits(count, preamble.records)) >>> 0;
    this.totals.datagrams++;
    this.totals.flows += count;
    return datagram.subarray(0, at);
  }

  #writeFlow(datagram: Buffer, at: number, nowMs: number): void {
    const layout = this.#layout;
    const random = this.#random;
    const from = random.below(this.#keys) * layout.recordOctets;
    this.#records.copy(datagram, at, from, from + layout.recordOctets);
    const packets = 1 + random.below(packetsMax);
    const bytes = packets * (packetOctetsMin + random.below(packetOctetsMax - packetOctetsMin + 1));
    const endMs = nowMs - random.below(flowAgeMsMax);
    layout.patch(datagram, at, bytes, packets, endMs - random.below(flowDurationMsMax), endMs, this.#bootMs);
    this.totals.bytes += bytes;
    this.totals.packets += packets;
  }

  #encodeKeys(): Buffer {
    const records = Buffer.alloc(this.#keys * this.#layout.recordOctets);
    for (let key = 0; key < this.#keys; key++) {
      this.#layout.encodeKey(records, key * this.#layout.recordOctets, key, this.#random);
    }
    return records;
  }
}
