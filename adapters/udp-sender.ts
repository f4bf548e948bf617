/** Sends datagrams from chosen source addresses: how load tools and replays pretend to be many exporters. */
import { createSocket, type Socket } from 'node:dgram';
import { lookup } from 'node:dns/promises';

export interface Destination {
  readonly host: string;
  readonly port: number;
}

/** IPv4 only, since the sources are loopback addresses. @throws Error where the text is not HOST:PORT or the host's name is not known */
export async function resolveDestination(text: string): Promise<Destination> {
  const match = /^\[?(.+?)\]?:(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65_535) throw new Error(`${text}: HOST:PORT is expected, such as 127.0.0.1:2055`);
  const { address } = await lookup(match[1]!, { family: 4 }).catch((error: Error) => {
    throw new Error(`${text}: ${error.message}`, { cause: error });
  });
  return { host: address, port };
}

/** Datagrams that may be in Node's hands at a time; the kernel takes them nearly always at once. */
const inFlightMax = 256;

export class UdpSender {
  readonly #destination: Destination;
  readonly #sockets = new Map<string, Socket>();
  #inFlight = 0;
  #drained: (() => void) | undefined;
  /** Datagrams that the kernel took, and those that it refused. */
  sent = 0;
  failed = 0;
  lastError: Error | undefined;

  constructor(destination: Destination) {
    this.#destination = destination;
  }

  /** Opens the socket of a source, which is then named by the key. @throws Error naming the address that cannot be bound */
  async open(key: string, address: string, port = 0): Promise<void> {
    // The destination is an address already; a look-up for each datagram would cost more than sending it.
    const socket = createSocket({
      type: 'udp4',
      lookup: (name, _options, done) => done(null, name, 4),
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('error', (error) => {
        socket.close();
        reject(new Error(`cannot send from ${address}: ${error.message}`, { cause: error }));
      });
      socket.bind(port, address, resolve);
    });
    socket.removeAllListeners('error');
    socket.on('error', (error) => {
      this.lastError = error;
    });
    this.#sockets.set(key, socket);
  }

  /** The datagram must not be changed afterwards. */
  send(key: string, datagram: Buffer): void {
    const { host, port } = this.#destination;
    this.#inFlight++;
    this.#sockets.get(key)!.send(datagram, port, host, (error) => {
      this.#inFlight--;
      if (error === null) this.sent++;
      else {
        this.failed++;
        this.lastError = error;
      }
      if (this.#inFlight < inFlightMax) this.#drained?.();
    });
  }

  get isFull(): boolean {
    return this.#inFlight >= inFlightMax;
  }

  /** Resolves when there is room again. */
  async room(): Promise<void> {
    if (!this.isFull) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
    this.#drained = undefined;
  }

  /** Waits for what is on its way, then closes the sockets. */
  async close(): Promise<void> {
    while (this.#inFlight > 0) await new Promise((resolve) => setImmediate(resolve));
    await Promise.all([...this.#sockets.values()].map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))));
  }
}
