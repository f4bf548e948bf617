/**
 * corrupt: not what was written. expired: the exporter had not repeated it in time, or it is from the future. restarted: the exporter started anew
 * since, and may use its ids for something else. refused: beyond a bound.
 */
export type IgnoredBecause = 'corrupt' | 'expired' | 'restarted' | 'refused';

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
  /** Samplers and interfaces whose rate found no room. */
  refusedSamplers: number;
  withdrawnTemplates: number;
  expiredTemplates: number;
  /** Templates, and states of options, of an earlier process that were taken up again. */
  recalledTemplates: number;
  /** Those that were not, by why. */
  ignoredTemplates: Record<IgnoredBecause, number>;
  /** Handed out to be kept for the next process, repeats included. */
  savedTemplates: number;
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
    refusedSamplers: 0,
    withdrawnTemplates: 0,
    expiredTemplates: 0,
    recalledTemplates: 0,
    ignoredTemplates: { corrupt: 0, expired: 0, restarted: 0, refused: 0 },
    savedTemplates: 0,
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
