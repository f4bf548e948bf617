/** How a run of many histories tells how it goes, and what was seen in the end. */

export interface Figures {
  seeds: number;
  failed: number;
  virtualMs: number;
  events: number;
  flows: number;
  /** How often what went wrong. */
  readonly faults: Record<string, number>;
  readonly seen: Record<string, number>;
}

export function figuresOf(): Figures {
  return { seeds: 0, failed: 0, virtualMs: 0, events: 0, flows: 0, faults: {}, seen: {} };
}

export function addTo(sums: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(more)) sums[name] = (sums[name] ?? 0) + count;
}

export function listOf(sums: Readonly<Record<string, number>>): string {
  const entries = Object.entries(sums).sort(([one], [other]) => (one < other ? -1 : 1));
  return entries.map(([name, count]) => `${name} ${count}`).join(', ');
}

const tellMs = { terminal: 500, file: 30_000 };

/** A line that says how far it is: on a terminal always the same one, elsewhere a new one now and then. */
export class Progress {
  readonly #total: number;
  readonly #startedMs = performance.now();
  #toldMs = performance.now();

  constructor(total: number) {
    this.#total = total;
  }

  tell(done: number, failed: number): void {
    const now = performance.now();
    if (now - this.#toldMs < (process.stderr.isTTY ? tellMs.terminal : tellMs.file)) return;
    this.#toldMs = now;
    const line = `${done} of ${this.#total} seeds, ${failed} failed, ${(done / this.#seconds()).toFixed(1)} a second`;
    process.stderr.write(process.stderr.isTTY ? `\r\u001b[K${line}` : `${line}\n`);
  }

  clear(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  }

  speed(virtualMs: number): string {
    const seconds = this.#seconds();
    const { user, system } = process.cpuUsage();
    const cpuSeconds = (user + system) / 1e6;
    const times = (virtualMs / 1000 / seconds).toFixed(0);
    const hours = (virtualMs / 3_600_000).toFixed(2);
    return `${hours} simulated hours in ${seconds.toFixed(1)} s (${cpuSeconds.toFixed(1)} s of CPU): ${times} times real time`;
  }

  #seconds(): number {
    return (performance.now() - this.#startedMs) / 1000;
  }
}
