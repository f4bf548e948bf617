/** Stands between client and broker (it owns the advertised listener) and swallows responses of chosen requests, as networks do. */
import { createConnection, createServer, type Server, type Socket } from 'node:net';

export const produceKey = 0;
export const endTxnKey = 26;

export class ResponseProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #brokerPort = 0;
  #swallowed = 0;
  /** Responses to requests of this API key never reach the client. */
  swallow: number | null = null;

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

  /** How many responses were swallowed: a fault that did not happen proves nothing. */
  get swallowed(): number {
    return this.#swallowed;
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
    const keys = new Map<number, number>();
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
      for (const frame of requests.take(chunk)) keys.set(frame.readInt32BE(8), frame.readInt16BE(4));
      broker.write(chunk);
    });
    broker.on('data', (chunk: Buffer) => {
      for (const frame of responses.take(chunk)) {
        if (this.swallow !== null && keys.get(frame.readInt32BE(4)) === this.swallow) this.#swallowed++;
        else client.write(frame);
      }
    });
  }
}

/** Kafka's frames: a length of four octets, then as many. */
class Frames {
  #rest: Buffer = Buffer.alloc(0);

  take(chunk: Buffer): Buffer[] {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    const frames: Buffer[] = [];
    while (this.#rest.length >= 4 && this.#rest.length >= 4 + this.#rest.readInt32BE(0)) {
      const end = 4 + this.#rest.readInt32BE(0);
      frames.push(this.#rest.subarray(0, end));
      this.#rest = this.#rest.subarray(end);
    }
    return frames;
  }
}
