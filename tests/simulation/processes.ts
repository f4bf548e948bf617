/** What runs in a simulated world: processes that are started, killed, paused and doubled, and start again after they end. */
import { type ModelClock, ProcessHandle } from './model-clock.ts';

/** One part of flowledger, as often as it runs. */
export interface Role {
  readonly kind: 'collector' | 'aggregator' | 'watchdog' | 'feed' | 'judge' | 'accounting';
  readonly name: string;
  /** Starts the real loop over model adapters; settles when it ends. */
  readonly start: (process: ProcessHandle, signal: AbortSignal) => Promise<void>;
}

interface Running {
  readonly process: ProcessHandle;
  readonly stop: AbortController;
}

const stopWithinMs = 30_000;

/** Keeps one process of a role alive, as a supervisor would, and has further ones beside it where a scenario wants them. */
export class Supervised {
  readonly role: Role;
  readonly #clock: ModelClock;
  readonly #note: (text: string) => void;
  #running: Running[] = [];
  #count = 0;
  #downMs = 0;

  constructor(role: Role, clock: ModelClock, note: (text: string) => void) {
    this.role = role;
    this.#clock = clock;
    this.#note = note;
  }

  /** The newest process; null while the next one is not started yet. */
  get current(): ProcessHandle | null {
    return this.#running.at(-1)?.process ?? null;
  }

  /** One process runs, and nobody has told it to stop. */
  get isSteady(): boolean {
    const [only, another] = this.#running;
    return only !== undefined && another === undefined && only.process.state === 'running' && !only.stop.signal.aborted;
  }

  get processes(): readonly ProcessHandle[] {
    return this.#running.map(({ process }) => process);
  }

  start(): void {
    const process = new ProcessHandle(this.#clock, `${this.role.name}#${++this.#count}`);
    const running = { process, stop: new AbortController() };
    this.#running.push(running);
    this.#note(`${process.name} starts`);
    this.role.start(process, running.stop.signal).then(
      () => this.#ended(running, running.stop.signal.aborted ? null : new Error('it returned')),
      (error) => this.#ended(running, error as Error),
    );
  }

  /** kill -9 of every process of the role; a new one comes after downMs. */
  kill(downMs: number): void {
    for (const running of this.#running) this.#discard(running);
    this.#running = [];
    this.#startAfter(downMs);
  }

  /** The history is over. */
  end(): void {
    for (const running of this.#running) this.#discard(running);
    this.#running = [];
  }

  /** Nothing reaches a killed process any more, its signal included; aborting that only lets go of what the runtime holds for it. */
  #discard({ process, stop }: Running): void {
    this.#note(`${process.name} is killed`);
    process.kill();
    stop.abort();
  }

  /** SIGTERM, and kill -9 for what does not stop in time; a new process comes after the stop and downMs. */
  stop(downMs: number): void {
    const stopping = this.#running;
    for (const { process, stop } of stopping) {
      this.#note(`${process.name} is told to stop`);
      process.resume();
      stop.abort();
    }
    this.#downMs = downMs;
    this.#clock.after(stopWithinMs, () => {
      if (stopping.some((one) => this.#running.includes(one))) this.kill(downMs);
    });
  }

  /** The process stands still for so long; meanwhile, where doubled, another one takes its place, and both go on together. */
  pause(ms: number, doubled: boolean): void {
    const process = this.current;
    if (!process) return;
    this.#note(`${process.name} stands still for ${ms} ms${doubled ? ', another one takes its place' : ''}`);
    process.pause();
    if (doubled) this.start();
    this.#clock.after(ms, () => {
      this.#note(`${process.name} goes on`);
      process.resume();
    });
  }

  /** Of several processes only the newest stays. */
  killOlder(): void {
    for (const running of this.#running.splice(0, this.#running.length - 1)) this.#discard(running);
    this.current?.resume();
  }

  #startAfter(ms: number): void {
    this.#clock.after(ms, () => {
      if (this.#running.length === 0) this.start();
    });
  }

  #ended(running: Running, error: Error | null): void {
    if (running.process.state === 'killed') return;
    this.#note(`${running.process.name} ends: ${error ? error.stack : 'stopped'}`);
    running.process.kill();
    this.#running = this.#running.filter((one) => one !== running);
    if (error) this.onFailure(running.process, error);
    this.#startAfter(error ? 1000 : this.#downMs);
  }

  /** A process ended although nobody stopped it. */
  onFailure: (process: ProcessHandle, error: Error) => void = () => undefined;
}
