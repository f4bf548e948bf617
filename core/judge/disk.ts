/** When a broker's disk is full, from how its logs have grown so far. */

export interface DiskSize {
  /** Names the broker and the directory. */
  readonly name: string;
  readonly logBytes: number;
  /** null where it is not known. */
  readonly usableBytes: number | null;
}

interface Sample {
  readonly atMs: number;
  readonly logBytes: number;
}

/** Growth is told from what is at most so old, so that a change of the load shows. */
const lookBackMs = 3_600_000;
const samplesMax = 60;
/** Less tells only how segments come and go. */
const spanMsMin = 60_000;

export class DiskGrowth {
  readonly #samples = new Map<string, Sample[]>();
  readonly #sizes = new Map<string, DiskSize>();

  /** All that there are, as they are now. */
  take(sizes: readonly DiskSize[], atMs: number): void {
    const names = new Set(sizes.map(({ name }) => name));
    for (const known of [...this.#sizes.keys()]) if (!names.has(known)) this.#forget(known);
    for (const size of sizes) {
      this.#sizes.set(size.name, size);
      const samples = (this.#samples.get(size.name) ?? []).filter((sample) => atMs - sample.atMs <= lookBackMs);
      const last = samples.at(-1);
      if (!last || atMs - last.atMs >= lookBackMs / samplesMax) samples.push({ atMs, logBytes: size.logBytes });
      this.#samples.set(size.name, samples);
    }
  }

  get sizes(): readonly DiskSize[] {
    return [...this.#sizes.values()];
  }

  /** null where it does not grow, or where the size of the disk, or the growth, is not known. */
  fullInMs(name: string): number | null {
    const size = this.#sizes.get(name);
    const samples = this.#samples.get(name) ?? [];
    const [first] = samples;
    const last = samples.at(-1);
    if (!size || size.usableBytes === null || !first || !last || last.atMs - first.atMs < spanMsMin) return null;
    const grownBytes = last.logBytes - first.logBytes;
    return grownBytes <= 0 ? null : Math.max(0, (size.usableBytes * (last.atMs - first.atMs)) / grownBytes);
  }

  /** Of the disk that is full first; null where that is not known of any. */
  get soonestFullMs(): number | null {
    const times = [...this.#sizes.keys()].flatMap((name) => this.fullInMs(name) ?? []);
    return times.length > 0 ? Math.min(...times) : null;
  }

  #forget(name: string): void {
    this.#sizes.delete(name);
    this.#samples.delete(name);
  }
}
