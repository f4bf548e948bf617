/** Exporters of NetFlow v5 whose every flow is known: each carries its own number in the next hop, so it can be told from all others downstream. */
import type { Chance } from './model-clock.ts';

export interface SentFlow {
  readonly id: number;
  readonly exporter: string;
  readonly source: string;
  readonly destination: string;
  readonly bytes: number;
  readonly packets: number;
}

export interface Datagram {
  readonly bytes: Buffer;
  readonly exporter: string;
  readonly port: number;
  readonly flows: readonly SentFlow[];
}

const headerBytes = 24;
const recordBytes = 48;
const flowsMax = 30;

/** Accounts of the simulated network; 10.1.2.0/24 lies within 10.1.0.0/16. */
export const simulatedAccounts = [
  { prefix: '10.1.0.0/16', account: 'ash' },
  { prefix: '10.1.2.0/24', account: 'birch' },
  { prefix: '10.2.0.0/16', account: 'cedar' },
] as const;
const networks = ['10.1.1', '10.1.2', '10.2.7', '192.0.2'];

export class ModelExporter {
  readonly address: string;
  readonly sent: SentFlow[] = [];
  /** How many flows had been sent before each datagram that was carried to a collector's process, which may have died with it. */
  readonly carried: number[] = [];
  readonly #chance: Chance;
  readonly #bootMs: number;
  #sequence = 0;

  /** index, 1 to 200, is the last octet of its address and the head of its flows' numbers. */
  constructor(index: number, chance: Chance, nowMs: number) {
    this.address = `192.168.7.${index}`;
    this.#chance = chance;
    this.#bootMs = nowMs - 3_600_000;
    this.#index = index;
  }
  readonly #index: number;

  /** A datagram with up to 30 flows that ended within the last seconds. */
  export(nowMs: number, flowCount = this.#chance.integer(1, flowsMax)): Datagram {
    const bytes = Buffer.alloc(headerBytes + flowCount * recordBytes);
    bytes.writeUInt16BE(5, 0);
    bytes.writeUInt16BE(flowCount, 2);
    bytes.writeUInt32BE(nowMs - this.#bootMs, 4);
    bytes.writeUInt32BE(Math.floor(nowMs / 1000), 8);
    bytes.writeUInt32BE((nowMs % 1000) * 1_000_000, 12);
    bytes.writeUInt32BE(this.#sequence, 16);
    const flows: SentFlow[] = [];
    for (let i = 0; i < flowCount; i++) flows.push(this.#flow(bytes, headerBytes + i * recordBytes, nowMs));
    this.#sequence += flowCount;
    this.sent.push(...flows);
    return { bytes, exporter: this.address, port: 50_000 + this.#index, flows };
  }

  #flow(bytes: Buffer, at: number, nowMs: number): SentFlow {
    const chance = this.#chance;
    const address = () => `${chance.pick(networks)}.${chance.integer(1, 5)}`;
    const flow = {
      id: this.#index * 0x1000000 + this.sent.length + (at - headerBytes) / recordBytes,
      exporter: this.address,
      source: address(),
      destination: address(),
      bytes: chance.integer(40, 100_000),
      packets: chance.integer(1, 100),
    };
    const ended = nowMs - chance.integer(0, chance.happens(0.02) ? 90_000 : 3_000);
    writeAddress(bytes, at, flow.source);
    writeAddress(bytes, at + 4, flow.destination);
    bytes.writeUInt32BE(flow.id, at + 8);
    bytes.writeUInt32BE(flow.packets, at + 16);
    bytes.writeUInt32BE(flow.bytes, at + 20);
    bytes.writeUInt32BE(ended - chance.integer(0, 2_000) - this.#bootMs, at + 24);
    bytes.writeUInt32BE(ended - this.#bootMs, at + 28);
    bytes.writeUInt16BE(chance.integer(1024, 65_535), at + 32);
    bytes.writeUInt16BE(443, at + 34);
    bytes.writeUInt8(chance.pick([6, 17]), at + 38);
    return flow;
  }
}

function writeAddress(bytes: Buffer, at: number, text: string): void {
  for (const [i, octet] of text.split('.').entries()) bytes.writeUInt8(Number(octet), at + i);
}
