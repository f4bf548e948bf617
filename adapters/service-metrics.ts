/** What a service on this or another machine tells at /metrics. */
import { type Address, writeAddress } from './config-values.ts';

export interface MetricSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const answerWithinMs = 1_000;

/** null where nobody answers. */
export async function readServiceMetrics(address: Address): Promise<MetricSample[] | null> {
  try {
    const response = await fetch(`http://${writeAddress(address)}/metrics`, { signal: AbortSignal.timeout(answerWithinMs) });
    return response.ok ? parseMetrics(await response.text()) : null;
  } catch {
    // Whatever the reason, it tells nothing.
    return null;
  }
}

/** Prometheus' text format, as far as our own services write it. */
export function parseMetrics(text: string): MetricSample[] {
  return text.split('\n').flatMap((line) => {
    const [, name, labels = '', value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name === undefined) return [];
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, content = '']) => [key, content.replace(/\\(["\\])/g, '$1')]);
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value) }];
  });
}
