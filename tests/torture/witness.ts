/**
 * Follows what both aggregators and the feed write, beside everything: compares A, B and what is fed at equal n, and knows when each record was fed
 * (by the broker's clock), so that gaps and fail-overs can be measured.
 */
import type { Fetched, Log } from '../../adapters/ports.ts';
import { electionCodec, outputBlockCodec, outputCodec } from '../../schemas/codec.ts';
import { outputTopic, type Replica, replicas, topics } from '../../schemas/topics.ts';
import type { Election, Output } from '../../schemas/types.ts';

interface Fed {
  readonly partition: number;
  readonly n: number;
  readonly atMs: number;
}

export interface ElectionHeard {
  readonly election: Election;
  readonly atMs: number;
}

const pollMs = 100;
const retryMs = 200;
const sources = ['a', 'b', 'fed'] as const;
type Source = (typeof sources)[number];

/** One partition: the last n of each source, and the chains that not all of them had yet. */
class PartitionWitness {
  readonly n: Record<Source, number> = { a: 0, b: 0, fed: 0 };
  /** Up to which event time each source has closed its windows. */
  readonly watermarkMs: Record<Source, number> = { a: 0, b: 0, fed: 0 };
  readonly #chains = new Map<number, { readonly chain: string; readonly seen: Set<Source> }>();

  /** @returns what is wrong with it; '' when nothing is */
  take(source: Source, output: Output): string {
    const last = this.n[source];
    // A replica may write a record again; a committed reader of aggregates must never see that.
    if (output.n <= last && source !== 'fed') return '';
    if (output.n !== last + 1 && source === 'fed') return `fed n ${output.n} where ${last + 1} is due`;
    if (output.n !== last + 1) return '';
    this.n[source] = output.n;
    this.watermarkMs[source] = Math.max(this.watermarkMs[source], output.window_close?.watermark_ms ?? 0);
    const chain = Buffer.from(output.chain).toString('base64');
    const known = this.#chains.get(output.n) ?? { chain, seen: new Set() };
    this.#chains.set(output.n, known);
    known.seen.add(source);
    if (known.seen.size === sources.length) this.#chains.delete(output.n);
    return known.chain === chain ? '' : `${source} differs at n ${output.n}`;
  }
}

export class Witness {
  readonly elections: ElectionHeard[] = [];
  readonly faults: string[] = [];
  readonly #log: Log;
  readonly #stopped = new AbortController();
  readonly #partitions: PartitionWitness[];
  readonly #offsets = new Map<string, readonly [topic: string, partition: number, offset: number]>();
  #following: Promise<void> = Promise.resolve();
  #fed: Fed[] = [];
  #isReplaced = false;
  /** Of the last WindowClose that was fed. */
  foldConfigVersion = 0;

  constructor(log: Log, partitions: number) {
    this.#log = log;
    this.#partitions = Array.from({ length: partitions }, () => new PartitionWitness());
  }

  start(): void {
    this.#following = this.#follow();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#following;
  }

  /** Last n of a source in each partition. */
  ns(source: Source): readonly number[] {
    return this.#partitions.map(({ n }) => n[source]);
  }

  /** How far the slowest partition of any source is behind that time, in ms. */
  behindMs(nowMs: number): number {
    return Math.max(...this.#partitions.flatMap(({ watermarkMs }) => sources.map((source) => nowMs - watermarkMs[source])));
  }

  leader(partition = 0): Replica | null {
    let last: Election | null = null;
    for (const { election } of this.elections) if (election.partition === partition && election.epoch >= (last?.epoch ?? 0)) last = election;
    return last && (last.leader as Replica);
  }

  /** What was fed from then on, in each partition in order. */
  fedSince(atMs: number): readonly Fed[] {
    return this.#fed.filter((fed) => fed.atMs >= atMs);
  }

  /** Longest time in which a partition was fed nothing, between two times. */
  longestGapMs(fromMs: number, toMs: number): number {
    let longest = 0;
    for (const partition of this.#partitions.keys()) {
      let last = fromMs;
      for (const fed of this.#fed) {
        if (fed.partition !== partition || fed.atMs < fromMs || fed.atMs > toMs) continue;
        longest = Math.max(longest, fed.atMs - last);
        last = fed.atMs;
      }
      longest = Math.max(longest, toMs - last);
    }
    return longest;
  }

  /** What was fed before is not asked for any more. */
  forgetBefore(atMs: number): void {
    this.#fed = this.#fed.filter((fed) => fed.atMs >= atMs);
  }

  async #follow(): Promise<void> {
    const signal = this.#stopped.signal;
    const names = ['aggregates', ...replicas.map((replica) => outputTopic(replica).name)];
    for (const topic of names) for (const partition of this.#partitions.keys()) this.#offsets.set(`${topic}/${partition}`, [topic, partition, 0]);
    this.#offsets.set('elections/0', ['elections', 0, 0]);
    while (!signal.aborted) {
      const reader = this.#log.reader('committed');
      for (const [topic, partition, offset] of this.#offsets.values()) reader.assign(topic, partition, offset);
      try {
        while (!signal.aborted && !this.#isReplaced) for (const part of await reader.poll(pollMs)) this.#take(part);
        this.#isReplaced = false;
      } catch {
        // The broker is away, as it is meant to be now and then: it goes on where it was.
        await new Promise((resolve) => setTimeout(resolve, retryMs));
      }
      await reader.close();
    }
  }

  /** A topic was made again: it is read from its start, and what is known of its numbers stays. */
  replaced(topic: string): void {
    if (topic === topics.elections.name) this.elections.length = 0;
    for (const [key, [name, partition]] of this.#offsets) if (name === topic) this.#offsets.set(key, [name, partition, 0]);
    this.#isReplaced = true;
  }

  #take({ topic, partition, records, nextOffset }: Fetched): void {
    for (const { value, appendedMs } of records) {
      if (!value) continue;
      if (topic === 'elections') this.elections.push({ election: electionCodec.decode(value), atMs: appendedMs });
      else if (topic === 'aggregates') {
        const output = outputCodec.decode(value);
        this.#see('fed', partition, output);
        this.foldConfigVersion = output.window_close?.fold_config_version ?? this.foldConfigVersion;
        this.#fed.push({ partition, n: output.n, atMs: appendedMs });
      } else {
        const source = topic === outputTopic('a').name ? 'a' : 'b';
        for (const output of outputBlockCodec.decode(value).outputs) this.#see(source, partition, output);
      }
    }
    this.#offsets.set(`${topic}/${partition}`, [topic, partition, nextOffset]);
  }

  #see(source: Source, partition: number, output: Output): void {
    const fault = this.#partitions[partition]?.take(source, output);
    if (fault) this.faults.push(`partition ${partition}: ${fault}`);
  }
}
