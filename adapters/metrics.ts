/** Prometheus metrics, pulled from the loops' own counters when they are asked for; nothing is counted twice and nothing is labelled per flow. */
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';

export type Sample<Label extends string> = readonly [labels: Readonly<Record<Label, string | number>>, value: number];

/** A service's metrics. Names are public: every one stands in docs/METRICS.md, which a test compares. */
export class Metrics {
  readonly #registry = new Registry();

  constructor() {
    collectDefaultMetrics({ register: this.#registry });
  }

  /** A total that only grows while the process lives. */
  counter<Label extends string = never>(name: string, help: string, labelNames: readonly Label[], read: () => Iterable<Sample<Label>>): void {
    new Counter({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.inc(labels, value);
      },
    });
  }

  gauge<Label extends string = never>(name: string, help: string, labelNames: readonly Label[], read: () => Iterable<Sample<Label>>): void {
    new Gauge({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.set(labels, value);
      },
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
