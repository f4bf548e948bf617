/**
 * Stands between client and broker (it owns the advertised listener): swallows, delays, repeats or changes responses, and keeps requests back, as
 * networks and brokers do.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { Frames, type Produced, produceKey, readProduced } from './kafka-frames.ts';

/** A request that came by. */
export interface Exchange {
  readonly apiKey: number;
  readonly apiVersion: number;
  /** The request's frame, its length included; of a large one the beginning. */
  readonly head: Buffer;
  /** Of a Produce request. */
  readonly produced: readonly Produced[];
  /** Numbers of all events at the proxy: when the request came by, and when its response went on to the client; 0: it has not. */
  readonly asked: number;
  answered: number;
}

/** What reaches the client in place of a response: nothing, the same, another, or the same twice; later, where a promise says so. */
export type Meddling = (exchange: Exchange, response: Buffer) => readonly Buffer[] | Promise<readonly Buffer[]>;

/** Requests of this API key are kept back until they are released; with `cut`, the client's connection ends as they come by. */
export interface Detention {
  readonly apiKey: number;
  readonly cut: boolean;
}

/** Of a request, so much is remembered. */
const headBytes = 512;

export class ResponseProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #detained: { readonly broker: Socket; readonly frame: Buffer }[] = [];
  /** Connections to the broker that outlive the client's. */
  readonly #kept = new Set<Socket>();
  readonly exchanges: Exchange[] = [];
  #brokerPort = 0;
  #events = 0;
  /** How many responses did not go on as they came: a fault that did not happen proves nothing. */
  meddled = 0;
  meddle: Meddling | null = null;
  detention: Detention | null = null;

  private constructor() {
    this.#server = createServer((client) => this.#relay(client));
  }

  static async open(): Promise<ResponseProxy> {
    const proxy = new ResponseProxy();
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  relayTo(brokerPort: number): void {
    this.#brokerPort = brokerPort;
  }

  get detained(): number {
    return this.#detained.length;
  }

  /** What was kept back arrives at the broker, the first so many of it. */
  release(count = this.#detained.length): void {
    for (const { broker, frame } of this.#detained.splice(0, count)) broker.write(frame);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #relay(client: Socket): void {
    const broker = createConnection(this.#brokerPort, '127.0.0.1');
    const exchanges = new Map<number, Exchange>();
    const requests = new Frames();
    const responses = new Frames();
    for (const [socket, other] of [
      [client, broker],
      [broker, client],
    ] as const) {
      this.#sockets.add(socket);
      const end = () => {
        if (!this.#kept.has(other)) other.destroy();
      };
      socket.on('error', end);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        end();
      });
    }
    client.on('data', (chunk: Buffer) => {
      for (const frame of requests.take(chunk)) {
        const exchange = this.#note(frame);
        exchanges.set(frame.readInt32BE(8), exchange);
        if (this.detention?.apiKey === exchange.apiKey) this.#detain(client, broker, frame, this.detention);
        else broker.write(frame);
      }
    });
    broker.on('data', (chunk: Buffer) => {
      for (const frame of responses.take(chunk)) {
        const exchange = exchanges.get(frame.readInt32BE(4));
        exchanges.delete(frame.readInt32BE(4));
        if (exchange && this.meddle) this.#meddleWith(client, exchange, frame, this.meddle);
        else this.#answer(client, exchange, [frame]);
      }
    });
  }

  #detain(client: Socket, broker: Socket, frame: Buffer, { cut }: Detention): void {
    this.#detained.push({ broker, frame });
    if (!cut) return;
    this.#kept.add(broker);
    client.destroy();
  }

  #note(frame: Buffer): Exchange {
    const apiKey = frame.readInt16BE(4);
    const produced = apiKey === produceKey ? readProduced(frame) : [];
    const head = Buffer.from(frame.subarray(0, headBytes));
    const exchange = { apiKey, apiVersion: frame.readInt16BE(6), head, produced, asked: ++this.#events, answered: 0 };
    this.exchanges.push(exchange);
    return exchange;
  }

  #meddleWith(client: Socket, exchange: Exchange, frame: Buffer, meddle: Meddling): void {
    const result = meddle(exchange, frame);
    const isSame = (frames: readonly Buffer[]) => frames.length === 1 && frames[0] === frame;
    if (result instanceof Promise) {
      this.meddled++;
      result.then(
        (frames) => this.#answer(client, exchange, frames),
        () => client.destroy(),
      );
      return;
    }
    if (!isSame(result)) this.meddled++;
    this.#answer(client, exchange, result);
  }

  #answer(client: Socket, exchange: Exchange | undefined, frames: readonly Buffer[]): void {
    if (exchange && frames.length > 0) exchange.answered = ++this.#events;
    for (const frame of frames) if (client.writable) client.write(frame);
  }
}

/** Responses to requests of this API key never reach the client. */
export function swallow(apiKey: number): Meddling {
  return (exchange, response) => (exchange.apiKey === apiKey ? [] : [response]);
}
