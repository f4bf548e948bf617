/** What a decoder counts over all exporters. Monotonic, the gauges aside. */
export interface DecoderCounters {
  datagrams: number;
  bytes: number;
  flows: number;
  /** No known version, or not even a whole header: they belong to no exporter. */
  unidentifiedDatagrams: number;
  /** Of exporters beyond the limit. */
  refusedDatagrams: number;
  undecodableDatagrams: number;
  duplicateDatagrams: number;
  /** Template records taken, repeats included. */
  templates: number;
  refusedTemplates: number;
  withdrawnTemplates: number;
  expiredTemplates: number;
  optionsRecords: number;
  /** Sets of NetFlow v9 and IPFIX, and samples of sFlow, that do not parse. */
  malformedSets: number;
  /** sFlow: no traffic, and not read. */
  counterSamples: number;
  /** sFlow: packets that the agent dropped; no traffic either. */
  discardedPackets: number;
  /** Data sets whose template did not come in time. */
  undecodableSets: number;
  rejectedFlows: number;
  /** Of the flows, those of a record's reverse direction (RFC 5103, and the responder's of a firewall). */
  reverseFlows: number;
  /** Records of a firewall's or NAT's events that count no traffic; they are no flows. */
  events: number;
  exporterRestarts: number;
  /** Gauge. */
  waitingSets: number;
  /** Gauge, octets. */
  waitingBytes: number;
  /** Gauge. */
  exporters: number;
}

export function noCounts(): DecoderCounters {
  return {
    datagrams: 0,
    bytes: 0,
    flows: 0,
    unidentifiedDatagrams: 0,
    refusedDatagrams: 0,
    undecodableDatagrams: 0,
    duplicateDatagrams: 0,
    templates: 0,
    refusedTemplates: 0,
    withdrawnTemplates: 0,
    expiredTemplates: 0,
    optionsRecords: 0,
    malformedSets: 0,
    counterSamples: 0,
    discardedPackets: 0,
    undecodableSets: 0,
    rejectedFlows: 0,
    reverseFlows: 0,
    events: 0,
    exporterRestarts: 0,
    waitingSets: 0,
    waitingBytes: 0,
    exporters: 0,
  };
}
