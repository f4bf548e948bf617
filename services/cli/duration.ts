/** Durations on the command line. */
import { InvalidArgumentError } from 'commander';

const unitsMs = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;

/** `500ms`, `30s`, `2m`, `1h` in ms. @throws InvalidArgumentError */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  if (match === null) throw new InvalidArgumentError('A duration such as 500ms, 30s or 2m is expected.');
  return Number(match[1]) * unitsMs[match[2] as keyof typeof unitsMs];
}
