/** Faults that many cells share. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Freezer } from '../../infra/stack.ts';
import { type Fault, require } from './cell.ts';
import { type Field, stateOf } from './field.ts';
import type { Direction, Link } from './link.ts';

/** kill -9; it is started again when the fault is healed. */
export async function kill(field: Field, names: readonly string[], holdMs: number): Promise<Fault> {
  const { stack } = field;
  const pids = names.map((name) => stack.pid(name));
  await Promise.all(names.map((name) => stack.kill(name)));
  return {
    holdMs,
    happened: async () => {
      for (const [i, pid] of pids.entries()) require(stateOf(pid) === '', `${names[i]}, process ${pid}, still runs`);
      return `SIGKILL of ${names.map((name, i) => `${name} (process ${pids[i]})`).join(', ')}, away for ${holdMs / 1000} s`;
    },
    heal: async () => {
      await Promise.all(names.map((name) => start(field, name)));
    },
  };
}

export async function start({ stack }: Field, name: string): Promise<void> {
  if (stack.backends.includes(name)) await stack.startBackend(name);
  else {
    await stack.startService(name);
    await stack.ready(name);
  }
}

/** SIGSTOP, then SIGCONT, or the engine's pause where it is in a container: it wakes up believing that no time has passed. */
export async function pause(field: Field, name: string, holdMs: number): Promise<Fault> {
  const freezer = field.stack.freezer(name);
  return freezer ? freeze(freezer, name, holdMs) : stopProcess(field, name, holdMs);
}

async function freeze(freezer: Freezer, name: string, holdMs: number): Promise<Fault> {
  await freezer.freeze();
  return {
    holdMs,
    happened: async () => {
      require(await freezer.isFrozen(), `the container of ${name} is not paused`);
      return `the container of ${name} paused for ${holdMs / 1000} s`;
    },
    heal: () => freezer.thaw(),
  };
}

async function stopProcess(field: Field, name: string, holdMs: number): Promise<Fault> {
  const pid = field.stack.pid(name);
  process.kill(pid, 'SIGSTOP');
  return {
    holdMs,
    happened: async () => {
      const state = stateOf(pid);
      require(state === 'T', `${name}, process ${pid}, is in state ${state || 'gone'}`);
      return `SIGSTOP of ${name} (process ${pid}), SIGCONT after ${holdMs / 1000} s`;
    },
    heal: async () => {
      process.kill(pid, 'SIGCONT');
    },
  };
}

/** Cut in both directions, or in those given. */
export async function cut(field: Field, from: string, to: string, holdMs: number, ...directions: readonly Direction[]): Promise<Fault> {
  const before = heldIn(field.network.links(from, to));
  field.network.cut(from, to, ...directions);
  return {
    holdMs,
    happened: async () => {
      const held = heldIn(field.network.links(from, to));
      const bytes = held.bytes - before.bytes;
      const connections = held.connections - before.connections;
      require(bytes + connections > 0, `nothing wanted to pass from ${from} to ${to}`);
      const which = directions.length === 1 ? `${directions[0] === 'to' ? 'requests' : 'answers'} only` : 'both ways';
      return `${from} cut off from ${to} (${which}) for ${holdMs / 1000} s: ${bytes} bytes and ${connections} connections held up`;
    },
    heal: async () => field.network.restore(),
  };
}

function heldIn(links: readonly Link[]): { bytes: number; connections: number } {
  return {
    bytes: links.reduce((sum, { counters }) => sum + counters.heldBytes, 0),
    connections: links.reduce((sum, { counters }) => sum + counters.heldConnections, 0),
  };
}

/** Stops and starts one after another, each when the one before is back. */
export async function rollingRestart(field: Field, names: readonly string[]): Promise<Fault> {
  const { stack } = field;
  const before = names.map((name) => stack.pid(name));
  for (const name of names) {
    await stack.stopService(name);
    await start(field, name);
    await delay(1000);
  }
  return {
    holdMs: 0,
    happened: async () => {
      for (const [i, name] of names.entries()) require(stack.pid(name) !== before[i], `${name} is the same process`);
      return `SIGTERM and start of ${names.join(', ')}, one after another`;
    },
    heal: async () => undefined,
  };
}
