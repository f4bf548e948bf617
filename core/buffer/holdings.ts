/**
 * Whose NARs the local copy holds. Counted once a batch, in bounded memory: where there would be too many counts, neighbouring batches share theirs.
 * What is shared can no longer be told apart once a part of it is trimmed, so the rest of it has no name from then on: what has one is exact (I13).
 */
import type { Loss } from '../../schemas/types.ts';
import type { Stream } from './stream.ts';

/** NARs of one exporter; the exporter is empty where it is not known. */
export type Holding = Pick<Loss, 'sampler_address' | 'observation_domain_id' | 'protocol' | 'nars'>;

/** Counts of some ten or twenty MiB: ten thousand exporters in each of sixteen partitions, or a hundred in thousands of batches. */
const countsMax = 250_000;

interface Total {
  readonly key: string;
  readonly holding: { -readonly [Name in keyof Holding]: Holding[Name] };
}

/** Batches of one stream, from this sequence on to where the next segment begins. */
interface Segment {
  readonly from: number;
  readonly nars: Map<Total, number>;
}

export class Holdings {
  readonly #countsMax: number;
  readonly #segments = new Map<Stream, Segment[]>();
  readonly #totals = new Map<string, Total>();
  #counts = 0;

  constructor(max = countsMax) {
    this.#countsMax = max;
  }

  /** A batch came into the copy, the last of its stream. */
  add(stream: Stream, sequence: number, holdings: readonly Holding[]): void {
    const nars = new Map<Total, number>();
    for (const holding of holdings) {
      if (holding.nars === 0) continue;
      const total = this.#total(holding);
      total.holding.nars += holding.nars;
      nars.set(total, (nars.get(total) ?? 0) + holding.nars);
    }
    if (nars.size === 0) return;
    const segments = this.#segments.get(stream);
    if (segments) segments.push({ from: sequence, nars });
    else this.#segments.set(stream, [{ from: sequence, nars }]);
    this.#counts += nars.size;
    while (this.#counts > this.#countsMax) this.#share();
  }

  /** The stream's batches up to this sequence left the copy. */
  trim(stream: Stream, through: number): void {
    const segments = this.#segments.get(stream);
    if (!segments) return;
    let trimmed = 0;
    for (const segment of segments) {
      if (segment.from > through) break;
      this.#drop(segment);
      trimmed++;
    }
    segments.splice(0, trimmed);
    if (segments.length === 0) this.#segments.delete(stream);
  }

  /** Those of which most is held, most first. Their sum may be less than what is held in all: the rest is of others, or has no name. */
  largest(count: number): Holding[] {
    const sorted = Array.from(this.#totals.values(), ({ holding }) => holding).sort((one, other) => other.nars - one.nars);
    return sorted.slice(0, count).map((holding) => ({ ...holding }));
  }

  #total(holding: Holding): Total {
    const { sampler_address, observation_domain_id, protocol } = holding;
    const key = `${sampler_address}|${observation_domain_id}|${protocol}`;
    const known = this.#totals.get(key);
    if (known) return known;
    const total = { key, holding: { sampler_address, observation_domain_id, protocol, nars: 0 } };
    this.#totals.set(key, total);
    return total;
  }

  #drop({ nars }: Segment): void {
    for (const [total, count] of nars) {
      total.holding.nars -= count;
      if (total.holding.nars === 0) this.#totals.delete(total.key);
    }
    this.#counts -= nars.size;
  }

  /** In one stream at a time, so that it takes no long. Where all of each stream is shared already, the oldest stream's NARs lose their names. */
  #share(): void {
    let longest: readonly [Stream, Segment[]] | null = null;
    for (const entry of this.#segments) if (entry[1].length > (longest?.[1].length ?? 0)) longest = entry;
    if (!longest) return;
    const [stream, segments] = longest;
    if (segments.length > 1) this.#segments.set(stream, this.#halved(segments));
    else this.trim(stream, Number.POSITIVE_INFINITY);
  }

  #halved(segments: readonly Segment[]): Segment[] {
    const halved: Segment[] = [];
    for (let i = 0; i < segments.length; i += 2) {
      const first = segments[i] as Segment;
      const second = segments[i + 1];
      for (const [total, nars] of second?.nars ?? []) {
        const before = first.nars.get(total);
        if (before !== undefined) this.#counts--;
        first.nars.set(total, (before ?? 0) + nars);
      }
      halved.push(first);
    }
    return halved;
  }
}
