/** The samples of an sFlow datagram on their way to the sink: which of them is traffic, and what is counted of the others. */
import { Cursor } from './cursor.ts';
import type { NarSink } from './decoder.ts';
import type { DecoderCounters } from './decoder-counters.ts';
import type { Exporter } from './exporter.ts';
import { SampleSequences, SourceBudget } from './sample-sequences.ts';
import { FlowSampleReader, type Sflow5Header, sampleFormat } from './sflow5.ts';

/** Sources of all agents whose sequences are followed: each takes about 100 octets. */
const sourcesMax = 65_536;
/** An agent's uptime that drifts from our clock by more is one that started anew, or wrapped. */
const driftMsMax = 5_000;

export class SflowSamples {
  readonly #counters: DecoderCounters;
  readonly #budget = new SourceBudget(sourcesMax);
  readonly #reader = new FlowSampleReader();

  constructor(counters: DecoderCounters) {
    this.#counters = counters;
  }

  /** The header has no time: it is that of the agent's uptime since the start that its first datagram tells. Unix time in ms. */
  exportMs(exporter: Exporter, header: Sflow5Header, receivedMs: number): number {
    const startMs = receivedMs - header.uptimeMs;
    if (!(Math.abs(startMs - exporter.agentStartMs) <= driftMsMax)) exporter.agentStartMs = startMs;
    return exporter.agentStartMs + header.uptimeMs;
  }

  /** Takes all samples. False where none of them could be read, and one is malformed. */
  take(exporter: Exporter, header: Sflow5Header, bytes: Buffer, receivedMs: number, restarted: boolean, sink: NarSink): boolean {
    exporter.samples ??= new SampleSequences(this.#budget);
    if (restarted) exporter.samples.clear();
    const cursor = new Cursor(bytes, header.samplesAt, bytes.length);
    let isRead = header.samples === 0;
    for (let i = 0; i < header.samples; i++) {
      const format = cursor.u32();
      const octets = cursor.u32();
      // A sample of eight zeros, or none at all: u32 behind the end gives 0.
      if (!cursor.has(octets) || octets === 0) {
        this.#counters.malformedSets++;
        break;
      }
      const sample = new Cursor(bytes, cursor.at, cursor.at + octets);
      if (this.#takeSample(exporter, exporter.samples, format, sample, receivedMs, sink)) isRead = true;
      else this.#counters.malformedSets++;
      cursor.skip(octets);
    }
    return isRead;
  }

  /** Whoever forgets an exporter gives its sources' room back. */
  forget(exporter: Exporter): void {
    exporter.samples?.clear();
  }

  /** False for a malformed one. Samples of other formats, and of enterprises, are left out. */
  #takeSample(exporter: Exporter, sequences: SampleSequences, format: number, cursor: Cursor, receivedMs: number, sink: NarSink): boolean {
    switch (format) {
      case sampleFormat.flow:
      case sampleFormat.expandedFlow:
        return this.#takeFlow(exporter, sequences, format === sampleFormat.expandedFlow, cursor, receivedMs, sink);
      case sampleFormat.counters:
      case sampleFormat.expandedCounters:
        this.#counters.counterSamples++;
        return true;
      case sampleFormat.discardedPacket:
        this.#counters.discardedPackets++;
        return true;
      default:
        return true;
    }
  }

  #takeFlow(exporter: Exporter, sequences: SampleSequences, expanded: boolean, cursor: Cursor, receivedMs: number, sink: NarSink): boolean {
    const reader = this.#reader;
    if (!reader.readHeader(cursor, expanded)) return false;
    const nar = reader.read(cursor, exporter.index, receivedMs);
    if (nar === undefined) return false;
    sequences.take(reader.sample.source, reader.sample.sequence, exporter.sequence.place);
    if (nar === null) {
      exporter.rejectedFlows++;
      this.#counters.rejectedFlows++;
      return true;
    }
    if (nar.sampling_rate === 0) nar.sampling_rate = exporter.sampling.rateFor(0, nar.in_if);
    exporter.flowsEver++;
    this.#counters.flows++;
    sink(nar, exporter);
    return true;
  }
}
