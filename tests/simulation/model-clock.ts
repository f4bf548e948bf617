/** Virtual time and seeded chance. Everything that happens in a simulation is an event of one queue, so one seed is one history. */
import { ForwardTime } from '../../adapters/clock.ts';
import type { Clock } from '../../adapters/ports.ts';

/** A seeded generator (sfc32): the only source of chance in a simulation. */
export class Chance {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number) {
    this.#a = seed >>> 0;
    this.#b = Math.floor(seed / 2 ** 32) >>> 0;
    this.#c = 0x9e3779b9;
    for (let i = 0; i < 15; i++) this.#next32();
  }

  #next32(): number {
    const result = (this.#a + this.#b + this.#counter++) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) >>> 0;
    return result;
  }

  /** In [0, 1). */
  next(): number {
    return (this.#next32() * 2 ** 21 + (this.#next32() >>> 11)) / 2 ** 53;
  }

  /** From low up to and including high. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  happens(probability: number): boolean {
    return probability > 0 && this.next() < probability;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.integer(0, choices.length - 1)]!;
  }

  /** A generator of its own, so that what one part draws does not shift what another gets. */
  fork(): Chance {
    return new Chance(this.#next32() * 2 ** 20 + (this.#next32() >>> 12));
  }
}

interface Event {
  readonly at: number;
  readonly order: number;
  /** Null when it was called off. */
  action: (() => void) | null;
}

let turns = 0;
/** So many events follow one another before the runtime has a turn of its own, for its timers and its garbage. */
const eventsPerTurn = 4_096;

/**
 * Calls it when every promise that the last event resolved has been acted upon: ticks come after all microtasks, those that microtasks queue
 * included. The loops under test wait for nothing but promises.
 */
function afterMicrotasks(action: () => void): void {
  if (++turns % eventsPerTurn === 0) setImmediate(action);
  else queueMicrotask(() => process.nextTick(action));
}

/** The clock of the whole simulation, and, used as a Clock, that of a process that never dies. */
export class ModelClock implements Clock {
  readonly chance: Chance;
  /** Called after each event, when nothing moves any more: the place for safety checks. */
  afterEvent: () => void = () => undefined;
  events = 0;
  #time: number;
  #order = 0;
  #heap: Event[] = [];

  constructor(seed = 1, startMs = Date.UTC(2026, 0, 1)) {
    this.chance = new Chance(seed);
    this.#time = startMs;
  }

  /** Whole ms, as Unix time. */
  now(): number {
    return Math.floor(this.#time);
  }

  /** With fractions of a ms. */
  get time(): number {
    return this.#time;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOf(
      (action) => this.after(Math.max(1, ms), action),
      (action) => action(),
      signal,
    );
  }

  random(): number {
    return this.chance.next();
  }

  unique(): string {
    return `${this.now().toString(36)}-${this.chance.integer(0, 2 ** 40).toString(16)}`;
  }

  /** Has the action done so many virtual ms from now; of two at one time the one asked for first comes first. @returns what calls it off */
  after(ms: number, action: () => void): () => void {
    const event: Event = { at: this.#time + Math.max(0, ms), order: this.#order++, action };
    this.#push(event);
    return () => {
      event.action = null;
    };
  }

  /** Lets everything happen up to this Unix time in ms, event by event. */
  async run(untilMs: number): Promise<void> {
    await this.runUntil(() => false, untilMs);
  }

  /** As run, but stops as soon as done() holds after an event; says whether it did. */
  runUntil(done: () => boolean, limitMs: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const step = () => {
        try {
          if (done()) return resolve(true);
          let next = this.#heap[0];
          for (; next && !next.action; next = this.#heap[0]) this.#pop();
          if (!next || next.at > limitMs) {
            this.#time = Math.max(this.#time, limitMs);
            return resolve(false);
          }
          this.#pop();
          this.#time = next.at;
          next.action?.();
        } catch (error) {
          return reject(error);
        }
        afterMicrotasks(settled);
      };
      const settled = () => {
        try {
          this.events++;
          this.afterEvent();
        } catch (error) {
          return reject(error);
        }
        step();
      };
      afterMicrotasks(step);
    });
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let index = heap.push(event) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}

/** As a real timer, a sleep takes 1 ms at least, so a loop that sleeps for 0 ms does not stop time. */
function sleepOf(schedule: (wake: () => void) => void, deliver: (wake: () => void) => void, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const aborted = () => deliver(resolve);
    signal?.addEventListener('abort', aborted, { once: true });
    schedule(() => {
      signal?.removeEventListener('abort', aborted);
      resolve();
    });
  });
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/**
 * One simulated operating system process. Between events its code always waits on a port, so killing it means
 * that nothing it waits for comes any more; pausing it (a zombie) means that all of it comes later.
 */
export class ProcessHandle {
  readonly name: string;
  /** This process's view of time, off by its skew. */
  readonly clock: Clock;
  skewMs = 0;
  #state: 'running' | 'paused' | 'killed' = 'running';
  #held: (() => void)[] = [];
  readonly #model: ModelClock;
  readonly #chance: Chance;

  constructor(model: ModelClock, name: string) {
    this.name = name;
    this.#model = model;
    this.#chance = model.chance.fork();
    // As the real one: a clock that is set back goes on at half the speed.
    const time = new ForwardTime(
      () => model.now() + this.skewMs,
      () => model.time,
    );
    this.clock = {
      now: () => time.now(),
      sleep: (ms, signal) => this.#sleep(ms, signal),
      random: () => this.#chance.next(),
      unique: () => `${this.clock.now().toString(36)}-${this.#chance.integer(0, 2 ** 40).toString(16)}`,
    };
  }

  get state(): 'running' | 'paused' | 'killed' {
    return this.#state;
  }

  /** As kill -9: no clean-up runs, and what it had under way may still take effect elsewhere. */
  kill(): void {
    this.#state = 'killed';
    this.#held = [];
  }

  pause(): void {
    if (this.#state === 'running') this.#state = 'paused';
  }

  resume(): void {
    if (this.#state !== 'paused') return;
    this.#state = 'running';
    const held = this.#held;
    this.#held = [];
    for (const action of held) this.#model.after(0, () => this.deliver(action));
  }

  /** Something reaches the process: acted upon now, at its resumption, or never. */
  deliver(action: () => void): void {
    if (this.#state === 'running') action();
    else if (this.#state === 'paused') this.#held.push(action);
  }

  /**
   * A call over a network: the effect happens there after toMs, its result or error is back after another backMs.
   * Of a killed process's requests that are under way some still land.
   */
  request<T>(toMs: number, backMs: number, effect: () => T): Promise<T> {
    return this.exchange(toMs, (answer, refuse) => {
      let result: T;
      try {
        result = effect();
      } catch (error) {
        this.#model.after(backMs, () => refuse(error as Error));
        return;
      }
      this.#model.after(backMs, () => answer(result));
    });
  }

  /** As request, where the other side answers when it likes. */
  exchange<T>(toMs: number, arrive: (answer: (result: T) => void, refuse: (error: Error) => void) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#state === 'killed') return;
      this.#model.after(toMs, () => {
        if (this.#state === 'killed' && this.#chance.happens(0.5)) return;
        arrive(
          (result) => this.deliver(() => resolve(result)),
          (error) => this.deliver(() => reject(error)),
        );
      });
    });
  }

  #sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOf(
      (action) => this.#model.after(Math.max(1, ms), () => this.deliver(action)),
      (action) => this.deliver(action),
      signal,
    );
  }
}
