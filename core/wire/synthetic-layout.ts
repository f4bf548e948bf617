/** How a synthetic exporter writes each protocol. */
import type { PseudoRandom } from './pseudo-random.ts';

export type SyntheticProtocol = 'v5' | 'v9' | 'ipfix';

export interface SyntheticHeader {
  readonly octets: number;
  readonly flows: number;
  /** Flows, templates and options records. */
  readonly records: number;
  readonly nowMs: number;
  readonly bootMs: number;
  readonly sequence: number;
  readonly observationDomainId: number;
  readonly samplingRate: number;
}

export interface RecordLayout {
  readonly hasTemplates: boolean;
  readonly headerOctets: number;
  readonly recordOctets: number;
  flowsMax(datagramOctets: number): number;
  /** Returns where the data go on, and how many template and options records were written. */
  writeTemplates(to: Buffer, at: number, samplingRate: number): { end: number; records: number };
  /** Returns where the first record goes. */
  beginData(to: Buffer, at: number, flows: number): number;
  encodeKey(to: Buffer, at: number, key: number, random: PseudoRandom): void;
  patch(to: Buffer, at: number, bytes: number, packets: number, startMs: number, endMs: number, bootMs: number): void;
  writeHeader(to: Buffer, header: SyntheticHeader): void;
  /** By how much a datagram moves the sequence on. */
  sequenceUnits(flows: number, otherRecords: number): number;
}

export function layoutOf(protocol: SyntheticProtocol): RecordLayout {
  if (protocol === 'v5') return netflow5;
  return protocol === 'v9' ? netflow9 : ipfix;
}

interface SyntheticKey {
  readonly source: number;
  readonly destination: number;
  readonly nextHop: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly proto: number;
  readonly tcpFlags: number;
  readonly tos: number;
  readonly inIf: number;
  readonly outIf: number;
  readonly sourceAs: number;
  readonly destinationAs: number;
}

const services = [443, 80, 53, 123, 22, 8443, 993, 3306] as const;

/** Sources in 10.0.0.0/8, destinations in 198.18.0.0/15 (RFC 2544); the key's number is in addresses and port, so that all keys differ. */
function keyOf(key: number, random: PseudoRandom): SyntheticKey {
  const tcp = random.below(4) > 0;
  return {
    source: 0x0a00_0000 + (key & 0xff_ffff),
    destination: 0xc612_0000 + random.below(2 ** 17),
    nextHop: 0xc0a8_0001,
    sourcePort: 1024 + (random.below(50_000) ^ (key >>> 24)),
    destinationPort: services[random.below(services.length)]!,
    proto: tcp ? 6 : 17,
    tcpFlags: tcp ? 0x1b : 0,
    tos: 0,
    inIf: 1 + random.below(8),
    outIf: 1 + random.below(8),
    sourceAs: 64_512 + random.below(64),
    destinationAs: 64_600 + random.below(64),
  };
}

const netflow5: RecordLayout = {
  hasTemplates: false,
  headerOctets: 24,
  recordOctets: 48,
  flowsMax: () => 30,
  writeTemplates: (_to, at) => ({ end: at, records: 0 }),
  beginData: (_to, at) => at,
  encodeKey(to, at, number, random) {
    const key = keyOf(number, random);
    to.writeUInt32BE(key.source, at);
    to.writeUInt32BE(key.destination, at + 4);
    to.writeUInt32BE(key.nextHop, at + 8);
    to.writeUInt16BE(key.inIf, at + 12);
    to.writeUInt16BE(key.outIf, at + 14);
    to.writeUInt16BE(key.sourcePort, at + 32);
    to.writeUInt16BE(key.destinationPort, at + 34);
    to[at + 37] = key.tcpFlags;
    to[at + 38] = key.proto;
    to[at + 39] = key.tos;
    to.writeUInt16BE(key.sourceAs, at + 40);
    to.writeUInt16BE(key.destinationAs, at + 42);
    to[at + 44] = 24;
    to[at + 45] = 16;
  },
  patch(to, at, bytes, packets, startMs, endMs, bootMs) {
    to.writeUInt32BE(packets, at + 16);
    to.writeUInt32BE(bytes, at + 20);
    to.writeUInt32BE((startMs - bootMs) >>> 0, at + 24);
    to.writeUInt32BE((endMs - bootMs) >>> 0, at + 28);
  },
  writeHeader(to, header) {
    to.writeUInt16BE(5, 0);
    to.writeUInt16BE(header.flows, 2);
    to.writeUInt32BE((header.nowMs - header.bootMs) >>> 0, 4);
    to.writeUInt32BE(Math.floor(header.nowMs / 1000), 8);
    to.writeUInt32BE((header.nowMs % 1000) * 1_000_000, 12);
    to.writeUInt32BE(header.sequence, 16);
    to.writeUInt16BE(header.observationDomainId, 20);
    // Mode 1: packet interval sampling.
    to.writeUInt16BE(header.samplingRate > 0 ? 0x4000 | header.samplingRate : 0, 22);
  },
  sequenceUnits: (flows) => flows,
};

/** The template that v9 and IPFIX share up to the times: element, octets. Counters first, so that they stand together for patching. */
const commonFields = [
  [1, 4],
  [2, 4],
  [8, 4],
  [12, 4],
  [15, 4],
  [7, 2],
  [11, 2],
  [10, 4],
  [14, 4],
  [16, 4],
  [17, 4],
  [4, 1],
  [6, 1],
  [5, 1],
  [61, 1],
  [9, 1],
  [13, 1],
] as const;
const commonOctets = commonFields.reduce((sum, [, octets]) => sum + octets, 0);

function encodeCommon(to: Buffer, at: number, number: number, random: PseudoRandom): void {
  const key = keyOf(number, random);
  to.writeUInt32BE(key.source, at + 8);
  to.writeUInt32BE(key.destination, at + 12);
  to.writeUInt32BE(key.nextHop, at + 16);
  to.writeUInt16BE(key.sourcePort, at + 20);
  to.writeUInt16BE(key.destinationPort, at + 22);
  to.writeUInt32BE(key.inIf, at + 24);
  to.writeUInt32BE(key.outIf, at + 28);
  to.writeUInt32BE(key.sourceAs, at + 32);
  to.writeUInt32BE(key.destinationAs, at + 36);
  to.set([key.proto, key.tcpFlags, key.tos, 0, 24, 16], at + 40);
}

const templateId = 256;
const optionsTemplateId = 257;
const samplingInterval = 34;
/** Room for the set header, the templates and the options record, which the first datagram carries beside its flows. */
const preambleOctetsMax = 160;

function flowsThatFit(headerOctets: number, recordOctets: number): (datagramOctets: number) => number {
  return (datagramOctets) => Math.floor((datagramOctets - headerOctets - preambleOctetsMax) / recordOctets);
}

function beginSet(to: Buffer, at: number, octets: number): number {
  to.writeUInt16BE(templateId, at);
  to.writeUInt16BE(4 + octets, at + 2);
  return at + 4;
}

function writeWords(to: Buffer, at: number, words: readonly number[]): number {
  words.forEach((word, i) => {
    to.writeUInt16BE(word, at + 2 * i);
  });
  return at + 2 * words.length;
}

const netflow9Fields = [...commonFields, [22, 4], [21, 4]] as const;
const netflow9RecordOctets = commonOctets + 8;

const netflow9: RecordLayout = {
  hasTemplates: true,
  headerOctets: 20,
  recordOctets: netflow9RecordOctets,
  flowsMax: flowsThatFit(20, netflow9RecordOctets),
  writeTemplates(to, at, samplingRate) {
    const fields = netflow9Fields.flat();
    const end = writeWords(to, at, [0, 8 + 2 * fields.length, templateId, netflow9Fields.length, ...fields]);
    if (samplingRate === 0) return { end, records: 1 };
    // Scope 1 is the system; its value has no octets.
    const options = writeWords(to, end, [1, 18, optionsTemplateId, 4, 4, 1, 0, samplingInterval, 4, optionsTemplateId, 8]);
    to.writeUInt32BE(samplingRate, options);
    return { end: options + 4, records: 3 };
  },
  beginData: (to, at, flows) => beginSet(to, at, flows * netflow9RecordOctets),
  encodeKey: encodeCommon,
  patch(to, at, bytes, packets, startMs, endMs, bootMs) {
    to.writeUInt32BE(bytes, at);
    to.writeUInt32BE(packets, at + 4);
    to.writeUInt32BE((startMs - bootMs) >>> 0, at + commonOctets);
    to.writeUInt32BE((endMs - bootMs) >>> 0, at + commonOctets + 4);
  },
  writeHeader(to, header) {
    to.writeUInt16BE(9, 0);
    to.writeUInt16BE(header.records, 2);
    // The header tells whole seconds: the uptime is that of the same instant, so that flow times stay exact.
    const seconds = Math.floor(header.nowMs / 1000);
    to.writeUInt32BE((seconds * 1000 - header.bootMs) >>> 0, 4);
    to.writeUInt32BE(seconds, 8);
    to.writeUInt32BE(header.sequence, 12);
    to.writeUInt32BE(header.observationDomainId, 16);
  },
  sequenceUnits: () => 1,
};

const ipfixFields = [...commonFields, [152, 8], [153, 8]] as const;
const ipfixRecordOctets = commonOctets + 16;

const ipfix: RecordLayout = {
  hasTemplates: true,
  headerOctets: 16,
  recordOctets: ipfixRecordOctets,
  flowsMax: flowsThatFit(16, ipfixRecordOctets),
  writeTemplates(to, at, samplingRate) {
    const fields = ipfixFields.flat();
    const end = writeWords(to, at, [2, 8 + 2 * fields.length, templateId, ipfixFields.length, ...fields]);
    if (samplingRate === 0) return { end, records: 0 };
    // Scope: observationDomainId (149).
    const options = writeWords(to, end, [3, 18, optionsTemplateId, 2, 1, 149, 4, samplingInterval, 4, optionsTemplateId, 12]);
    to.writeUInt32BE(0, options);
    to.writeUInt32BE(samplingRate, options + 4);
    return { end: options + 8, records: 1 };
  },
  beginData: (to, at, flows) => beginSet(to, at, flows * ipfixRecordOctets),
  encodeKey: encodeCommon,
  patch(to, at, bytes, packets, startMs, endMs) {
    to.writeUInt32BE(bytes, at);
    to.writeUInt32BE(packets, at + 4);
    writeMilliseconds(to, at + commonOctets, startMs);
    writeMilliseconds(to, at + commonOctets + 8, endMs);
  },
  writeHeader(to, header) {
    to.writeUInt16BE(10, 0);
    to.writeUInt16BE(header.octets, 2);
    to.writeUInt32BE(Math.floor(header.nowMs / 1000), 4);
    to.writeUInt32BE(header.sequence, 8);
    to.writeUInt32BE(header.observationDomainId, 12);
  },
  sequenceUnits: (flows, otherRecords) => flows + otherRecords,
};

function writeMilliseconds(to: Buffer, at: number, ms: number): void {
  to.writeUInt32BE(Math.floor(ms / 2 ** 32), at);
  to.writeUInt32BE(ms % 2 ** 32, at + 4);
}
