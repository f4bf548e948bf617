/** The only source of time and chance. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from './ports.ts';

/**
 * Unix time that never goes back. What is due every so many ms would else not be done for hours, from health to acknowledgments, when somebody sets
 * the system's clock back: then this one goes on at half the speed until both agree again. A clock that is set ahead is followed at once.
 */
export class ForwardTime {
  readonly #wallMs: () => number;
  readonly #elapsedMs: () => number;
  #lastMs = 0;
  #atElapsedMs = 0;

  /** @param elapsedMs of a clock that nobody sets */
  constructor(wallMs: () => number, elapsedMs: () => number) {
    this.#wallMs = wallMs;
    this.#elapsedMs = elapsedMs;
  }

  /** Whole ms. */
  now(): number {
    const elapsedMs = this.#elapsedMs();
    const passedMs = elapsedMs - this.#atElapsedMs;
    this.#atElapsedMs = elapsedMs;
    this.#lastMs = Math.max(this.#wallMs(), this.#lastMs + passedMs / 2);
    return Math.floor(this.#lastMs);
  }
}

const time = new ForwardTime(Date.now, () => performance.now());

export const systemClock: Clock = {
  now: () => time.now(),
  sleep: (ms, signal) => delay(ms, undefined, signal ? { signal } : {}).catch(() => undefined),
  random: () => Math.random(),
  unique: () => `${Date.now().toString(36)}-${randomBytes(8).toString('hex')}`,
};
