/** Points in time as people say them. */
import { InvalidArgumentError } from 'commander';

const units = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Unix time in ms of `now`, `-2h` (s, m, h, d ago), an ISO 8601 time (UTC where it names no zone), or ms. @throws InvalidArgumentError */
export function readPointInTime(text: string, nowMs: number): number {
  if (text === 'now') return nowMs;
  const ago = /^-(\d+)([smhd])$/.exec(text);
  if (ago) return nowMs - Number(ago[1]) * units[ago[2] as keyof typeof units];
  if (/^\d{11,15}$/.test(text)) return Number(text);
  if (/^\d{4}-\d\d-\d\d/.test(text)) {
    const withTime = text.includes('T') || text.includes(' ');
    const zone = /(Z|[+-]\d\d:?\d\d)$/.test(text.slice(10)) ? '' : 'Z';
    const atMs = Date.parse(withTime ? text.replace(' ', 'T') + zone : text);
    if (!Number.isNaN(atMs)) return atMs;
  }
  throw new InvalidArgumentError('A time such as 2026-11-23T14:00Z, -2h, now, or Unix time in ms is expected.');
}

/** Unix time in ms as ISO 8601 in UTC, without the parts that are zero. */
export function writePointInTime(atMs: number): string {
  return new Date(atMs).toISOString().replace('.000Z', 'Z');
}
