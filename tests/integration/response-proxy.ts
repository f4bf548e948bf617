/** Stands between client and broker (it owns the advertised listener); swallows, delays, repeats or changes responses, as networks and brokers do. */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { Frames, type Produced, produceKey, readProduced } from './kafka-frames.ts';

/** A request that came by. */
export interface Exchange {
  readonly apiKey: number;
  readonly apiVersion: number;
  /** Of a Produce request. */
  readonly produced: readonly Produced[];
  /** Numbers of all events at the proxy: when the request came by, and when its response went on to the client; 0: it has not. */
  readonly asked: number;
  answered: number;
}

/** What reaches the client in place of a response: nothing, the same, another, or the same twice; later, where a promise says so. */
export type Meddling = (exchange: Exchange, response: Buffer) => readonly Buffer[] | Promise<readonly Buffer[]>;

export class ResponseProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly exchanges: Exchange[] = [];
  #brokerPort = 0;
  #events = 0;
  /** How many responses did not go on as they came: a fault that did not happen proves nothing. */
  meddled = 0;
  meddle: Meddling | null = null;

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
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
    client.on('data', (chunk: Buffer) => {
      for (const frame of requests.take(chunk)) exchanges.set(frame.readInt32BE(8), this.#note(frame));
      broker.write(chunk);
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

  #note(frame: Buffer): Exchange {
    const apiKey = frame.readInt16BE(4);
    const produced = apiKey === produceKey ? readProduced(frame) : [];
    const exchange = { apiKey, apiVersion: frame.readInt16BE(6), produced, asked: ++this.#events, answered: 0 };
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
