/** Histories in worker threads, one at a time in each: a history is one thread's work, and a machine has several. */
import { Worker } from 'node:worker_threads';
import type { Edit } from './mutations.ts';
import type { Scenario } from './scenario.ts';
import type { Outcome } from './world.ts';

export interface Task {
  readonly seed: number;
  readonly faultyMs?: number;
  readonly scenario?: Scenario;
  readonly keepTrace?: boolean;
}

interface Waiting {
  readonly task: Task;
  readonly resolve: (outcome: Outcome) => void;
  readonly reject: (error: Error) => void;
}

export class Pool {
  readonly #workers: Worker[];
  readonly #idle: Worker[];
  readonly #busy = new Map<Worker, Waiting>();
  readonly #waiting: Waiting[] = [];
  readonly #edits: readonly Edit[];
  /** A thread has died. */
  #failure: Error | null = null;

  /** edits: of the source that the threads run. */
  constructor(size: number, edits: readonly Edit[] = []) {
    this.#edits = edits;
    this.#workers = Array.from({ length: size }, () => this.#start());
    this.#idle = [...this.#workers];
  }

  #start(): Worker {
    const worker = new Worker(new URL('worker.ts', import.meta.url), { workerData: { edits: this.#edits } });
    worker.on('message', (outcome: Outcome) => this.#done(worker, ({ resolve }) => resolve(outcome)));
    worker.on('error', (error) => {
      // One that cannot even start leaves those that wait no better off.
      this.#failure = error as Error;
      for (const { reject } of this.#waiting.splice(0)) reject(error as Error);
      this.#done(worker, ({ task, reject }) => reject(new Error(`seed ${task.seed}: ${(error as Error).stack}`)));
    });
    return worker;
  }

  get size(): number {
    return this.#workers.length;
  }

  run(task: Task): Promise<Outcome> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ task, resolve, reject });
      this.#next();
    });
  }

  /** In the order of the tasks, whichever is done first; no more are begun than are needed. */
  async *runAll(tasks: Iterable<Task>): AsyncGenerator<Outcome> {
    const running: Promise<Outcome>[] = [];
    const ahead = 4 * this.size;
    for (const task of tasks) {
      const outcome = this.run(task);
      outcome.catch(() => undefined);
      running.push(outcome);
      if (running.length >= ahead) yield await (running.shift() as Promise<Outcome>);
    }
    for (const outcome of running) yield await outcome;
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #next(): void {
    const worker = this.#idle[0];
    const waiting = this.#waiting[0];
    if (!worker || !waiting) return;
    this.#idle.shift();
    this.#waiting.shift();
    this.#busy.set(worker, waiting);
    worker.postMessage(waiting.task);
  }

  #done(worker: Worker, settle: (waiting: Waiting) => void): void {
    const waiting = this.#busy.get(worker);
    this.#busy.delete(worker);
    this.#idle.push(worker);
    if (waiting) settle(waiting);
    this.#next();
  }
}
