/**
 * A way between two parts: a TCP relay that can be cut in one direction or both, slowed down, or made to lose segments. As with a real network, what
 * is on its way when the link is cut is not lost: it waits, and comes late, perhaps when its sender has given up and asked somebody else (a zombie
 * request). Unlike with a real network, a connection that is asked for while the link is cut is accepted at once, and silent.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';

/** to: from whoever connects to the target. */
export type Direction = 'to' | 'from';

export interface Weather {
  readonly latencyMs: number;
  /** A chunk that is lost comes when TCP sends it again, and holds up all behind it. */
  readonly lossShare: number;
}

const fairWeather: Weather = { latencyMs: 0, lossShare: 0 };
/** The least time after which Linux sends a segment again. */
const retransmitMs = 200;
/** A sender whose bytes are not taken stops when its window is full. */
const windowBytes = 256 * 1024;

export class Link {
  readonly #server: Server;
  readonly #pipes = new Set<Pipe>();
  readonly #sockets = new Set<Socket>();
  readonly #cut = new Set<Direction>();
  #targetPort = 0;
  #weather = fairWeather;
  /** Bytes that came while their direction was cut, connections that were asked for meanwhile, and chunks that the weather held up. */
  readonly counters = { heldBytes: 0, heldConnections: 0, lostChunks: 0, delayedChunks: 0, relayedBytes: 0 };

  private constructor() {
    this.#server = createServer({ allowHalfOpen: true }, (client) => this.#relay(client));
  }

  static async open(): Promise<Link> {
    const link = new Link();
    await new Promise<void>((resolve) => link.#server.listen(0, '127.0.0.1', resolve));
    return link;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  leadTo(targetPort: number): void {
    this.#targetPort = targetPort;
  }

  isCut(direction: Direction): boolean {
    return this.#cut.has(direction);
  }

  cut(...directions: readonly Direction[]): void {
    for (const direction of directions) this.#cut.add(direction);
  }

  restore(): void {
    this.#cut.clear();
    this.#weather = fairWeather;
    for (const pipe of this.#pipes) pipe.flow();
  }

  bring(weather: Weather): void {
    this.#weather = weather;
  }

  /** When a chunk that comes now gets there, in ms from now. */
  travelMs(): number {
    const { latencyMs, lossShare } = this.#weather;
    if (latencyMs > 0) this.counters.delayedChunks++;
    if (lossShare === 0 || Math.random() >= lossShare) return latencyMs;
    this.counters.lostChunks++;
    return latencyMs + retransmitMs;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #relay(client: Socket): void {
    if (this.#cut.size > 0) this.counters.heldConnections++;
    const target = createConnection({ port: this.#targetPort, host: '127.0.0.1', allowHalfOpen: true });
    const pipes = [new Pipe(this, 'to', client, target), new Pipe(this, 'from', target, client)];
    for (const pipe of pipes) this.#pipes.add(pipe);
    for (const socket of [client, target]) {
      socket.setNoDelay(true);
      this.#sockets.add(socket);
      socket.once('close', () => {
        this.#sockets.delete(socket);
        if (client.destroyed && target.destroyed) for (const pipe of pipes) this.#pipes.delete(pipe);
      });
    }
  }
}

/** One direction of a connection: what comes goes on in order, the end of it last. */
class Pipe {
  readonly #link: Link;
  readonly #direction: Direction;
  readonly #source: Socket;
  readonly #sink: Socket;
  readonly #queue: { readonly bytes: Buffer | null; readonly dueMs: number }[] = [];
  #queuedBytes = 0;
  #dueMs = 0;
  #isEnded = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(link: Link, direction: Direction, source: Socket, sink: Socket) {
    this.#link = link;
    this.#direction = direction;
    this.#source = source;
    this.#sink = sink;
    source.on('data', (bytes: Buffer) => this.#take(bytes));
    source.once('end', () => this.#end());
    source.once('close', () => this.#end());
    source.on('error', () => undefined);
    sink.on('drain', () => this.flow());
  }

  #take(bytes: Buffer): void {
    const { counters } = this.#link;
    if (this.#link.isCut(this.#direction)) counters.heldBytes += bytes.length;
    else counters.relayedBytes += bytes.length;
    this.#queuedBytes += bytes.length;
    this.#push(bytes);
    if (this.#queuedBytes > windowBytes) this.#source.pause();
  }

  #end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#push(null);
  }

  #push(bytes: Buffer | null): void {
    this.#dueMs = Math.max(this.#dueMs, Date.now() + (bytes ? this.#link.travelMs() : 0));
    this.#queue.push({ bytes, dueMs: this.#dueMs });
    this.flow();
  }

  flow(): void {
    clearTimeout(this.#timer);
    while (!this.#link.isCut(this.#direction) && this.#sink.writableLength < windowBytes) {
      const next = this.#queue[0];
      if (!next) break;
      const waitMs = next.dueMs - Date.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.flow(), waitMs);
        break;
      }
      this.#queue.shift();
      this.#queuedBytes -= next.bytes?.length ?? 0;
      if (this.#sink.destroyed) continue;
      if (next.bytes) this.#sink.write(next.bytes);
      else this.#sink.end();
    }
    if (this.#queuedBytes < windowBytes) this.#source.resume();
  }
}
