/** Clocks that jump: one process lives with a clock of its own, which is moved while it runs. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '../../../infra/local-kafka.ts';
import { type Cell, type Fault, require } from '../cell.ts';
import { kill, rollingRestart } from '../faults.ts';
import type { Field } from '../field.ts';

const library = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';
const arm = '/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1';
const preload = () => [library, arm].find((path) => existsSync(path));

/** Installs it where that can be done, as `make backends` does with Redis. */
async function lacksFaketime(): Promise<string> {
  if (preload()) return '';
  const remedy = 'libfaketime is missing (Debian, Ubuntu: apt-get install faketime)';
  if (process.getuid?.() !== 0) return remedy;
  const install = ['-q', 'install', '-y', '--no-install-recommends', 'faketime'];
  await run('apt-get', ['-q', 'update'], () => {}).catch(() => undefined);
  await run('apt-get', install, () => {}).catch(() => undefined);
  return preload() ? '' : remedy;
}

/** The service's clock: the real one, moved by what the file says. Its timers keep to the real time, as those of a machine whose clock is set do. */
class MovedClock {
  readonly #field: Field;
  readonly #name: string;
  readonly #file: string;

  constructor(field: Field, name: string) {
    this.#field = field;
    this.#name = name;
    this.#file = join(field.stack.dir, `clock-${name}`);
  }

  async begin(): Promise<void> {
    const { stack } = this.#field;
    this.moveBy(0);
    await stack.stopService(this.#name);
    const library = preload() as string;
    const env = { LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: this.#file, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1' };
    await stack.startService(this.#name, env);
    await stack.ready(this.#name);
    await delay(3000);
  }

  moveBy(seconds: number): void {
    writeFileSync(this.#file, `${seconds >= 0 ? '+' : ''}${seconds}\n`);
  }

  /** By the date that it writes over its answers, in seconds. */
  async aheadSeconds(): Promise<number> {
    const { headers } = await fetch(`${this.#field.stack.url(this.#name)}/metrics`);
    return (Date.parse(headers.get('date') ?? '') - Date.now()) / 1000;
  }

  async end(): Promise<void> {
    this.moveBy(0);
    const { stack } = this.#field;
    await delay(1000);
    await stack.stopService(this.#name);
    await stack.startService(this.#name);
    await stack.ready(this.#name);
  }
}

async function jump(field: Field, name: string, seconds: number, holdMs: number): Promise<Fault> {
  const clock = new MovedClock(field, name);
  await clock.begin();
  // Its restart made the other one lead; that one's restart makes this one lead again.
  if (name.startsWith('aggregator-')) await rollingRestart(field, [name === 'aggregator-a' ? 'aggregator-b' : 'aggregator-a']);
  const leads = name === `aggregator-${field.elected()}`;
  clock.moveBy(seconds);
  return {
    holdMs,
    happened: async () => {
      const ahead = await clock.aheadSeconds();
      require(Math.abs(ahead - seconds) < 30, `the clock of ${name} is ${ahead} s ahead by its own word`);
      const seen = `by its own word ${ahead.toFixed(1)} s`;
      return `the clock of ${name}${leads ? ', elected,' : ''} set ${seconds} s ahead for ${holdMs / 1000} s while it ran, ${seen}, and back again`;
    },
    heal: () => clock.end(),
  };
}

const hour = 3600;

function jumpCell(name: string, about: string, service: (field: Field) => string, seconds: number): Cell {
  return {
    name,
    about,
    settleWithinMs: 60_000,
    lacks: lacksFaketime,
    fault: (field) => jump(field, service(field), seconds, 10_000),
  };
}

const elected = (field: Field) => field.elected();

export const clockCells: readonly Cell[] = [
  jumpCell('clock-collector-behind', "a collector's clock jumps back by two hours", () => 'collector-1', -2 * hour),
  jumpCell('clock-collector-ahead', "a collector's clock jumps ahead by two hours", () => 'collector-1', 2 * hour),
  jumpCell('clock-elected-behind', "the elected aggregator's clock jumps back by three hours", (field) => `aggregator-${elected(field)}`, -3 * hour),
  jumpCell('clock-elected-ahead', "the elected aggregator's clock jumps ahead by three hours", (field) => `aggregator-${elected(field)}`, 3 * hour),
  jumpCell('clock-watchdog-ahead', "a watchdog's clock jumps ahead by five hours", () => 'watchdog', 5 * hour),
  jumpCell('clock-watchdog-behind', "a watchdog's clock jumps back by five hours", () => 'watchdog', -5 * hour),
  jumpCell('clock-feed-ahead', "a feed's clock jumps ahead by two hours", () => 'feed', 2 * hour),
  jumpCell('clock-feed-behind', "a feed's clock jumps back by two hours", () => 'feed', -2 * hour),
  {
    name: 'old-watchdog',
    about: 'a watchdog sleeps through a fail-over and wakes up an hour later by its clock',
    settleWithinMs: 60_000,
    lacks: lacksFaketime,
    fault: async (field) => {
      const clock = new MovedClock(field, 'watchdog-2');
      await clock.begin();
      const pid = field.stack.pid('watchdog-2');
      process.kill(pid, 'SIGSTOP');
      const killed = await kill(field, [`aggregator-${field.elected()}`], 5000);
      await delay(killed.holdMs);
      const evidence = await killed.happened();
      await killed.heal();
      clock.moveBy(hour);
      process.kill(pid, 'SIGCONT');
      return {
        holdMs: 10_000,
        happened: async () => {
          const ahead = await clock.aheadSeconds();
          require(Math.abs(ahead - hour) < 30, `the old watchdog's clock is ${ahead} s ahead by its own word`);
          return `watchdog-2 stopped; ${evidence}; watchdog-2 woken with its clock ${ahead.toFixed(0)} s ahead`;
        },
        heal: () => clock.end(),
      };
    },
  },
];
