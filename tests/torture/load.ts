/** Exporters whose true totals are known: each load comes from addresses of its own, so that its losses on the wire are its own, too. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../../bin/flowledger', import.meta.url));

export interface Sent {
  readonly datagrams: number;
  readonly flows: number;
  readonly bytes: number;
  readonly packets: number;
}

export interface LoadOptions {
  readonly protocol: 'v5' | 'ipfix';
  readonly to: string;
  readonly flowsPerSecond: number;
  readonly exporters: number;
  readonly keys: number;
  readonly seed: number;
  /** Address of the first exporter. */
  readonly from: string;
}

export class Load {
  readonly #child: ChildProcess;
  readonly #done: Promise<Sent>;

  constructor(options: LoadOptions) {
    const { protocol, to, flowsPerSecond, exporters, keys, seed, from } = options;
    const args = `generate --protocol ${protocol} --to ${to} --rate ${flowsPerSecond} --flows 1000000000 --exporters ${exporters}`;
    const more = `--keys ${keys} --seed ${seed} --from ${from}`;
    this.#child = spawn(program, `${args} ${more}`.split(' '), { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      out += chunk;
    });
    this.#done = new Promise<Sent>((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('close', () => {
        try {
          resolve(JSON.parse(out.trim().split('\n').at(-1) as string));
        } catch (error) {
          reject(error);
        }
      });
    });
    // Whoever stops the load hears of it.
    this.#done.catch(() => undefined);
  }

  /** What was sent in all. */
  async stop(): Promise<Sent> {
    this.#child.kill('SIGTERM');
    return this.#done;
  }
}

export function sumOf(parts: readonly Sent[]): Sent {
  const sum = { datagrams: 0, flows: 0, bytes: 0, packets: 0 };
  for (const part of parts) {
    sum.datagrams += part.datagrams;
    sum.flows += part.flows;
    sum.bytes += part.bytes;
    sum.packets += part.packets;
  }
  return sum;
}
