/** UDP sockets that exports arrive at. Datagrams are handed over in batches, one per turn of the event loop, without a promise for each. */
import { createSocket, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import { kernelDrops } from './kernel-drops.ts';
import type { Clock, Logger } from './ports.ts';

export interface ReceivedDatagram {
  readonly bytes: Buffer;
  readonly address: string;
  readonly receivedMs: number;
}

export interface UdpOptions {
  readonly listen: readonly { readonly host: string; readonly port: number }[];
  /** Bytes that the kernel is asked to hold per socket while the process is busy. */
  readonly receiveBuffer: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly receive: (datagrams: readonly ReceivedDatagram[]) => void;
}

export interface UdpSocketFigures {
  /** HOST:PORT or [HOST]:PORT, where it really listens. */
  readonly listen: string;
  /** Bytes that the kernel gives it. */
  readonly receiveBuffer: number;
  /** Datagrams that the kernel dropped because the process was too slow, since the socket was opened; null where the kernel does not tell. */
  readonly drops: number | null;
}

export interface UdpReceiver {
  /** Where it really listens, in the order of `listen`. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  /** In the same order, at most a second old. */
  figures(): readonly UdpSocketFigures[];
  /** What an operator should know now; each names its remedy. */
  reasons(): string[];
  close(): Promise<void>;
}

const figuresAgeMs = 1_000;
/** So long a drop is worth a word. */
const recentMs = 60_000;

/** So many datagrams at most are handed over at once, so that one busy socket does not hold all of the memory. */
const handOverMax = 512;

/** @throws Error naming the address that cannot be listened on. */
export async function receiveUdp(options: UdpOptions): Promise<UdpReceiver> {
  const { listen, clock, receive } = options;
  let waiting: ReceivedDatagram[] = [];
  let isScheduled = false;
  const handOver = () => {
    isScheduled = false;
    const datagrams = waiting;
    waiting = [];
    if (datagrams.length > 0) receive(datagrams);
  };
  const take = (bytes: Buffer, address: string) => {
    waiting.push({ bytes, address: plainAddress(address), receivedMs: clock.now() });
    if (waiting.length >= handOverMax) handOver();
    else if (!isScheduled) {
      isScheduled = true;
      setImmediate(handOver);
    }
  };
  const sockets: Socket[] = [];
  for (const { host, port } of listen) {
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    sockets.push(socket);
    try {
      await bind(socket, host, port);
    } catch (error) {
      await Promise.all(sockets.map(close));
      throw new Error(`cannot listen on ${host}:${port}: ${(error as Error).message}`, { cause: error });
    }
    socket.on('message', (bytes, { address }) => take(bytes, address));
    socket.on('error', (error) => options.logger.error({ host, port, error: error.message }, 'a listening socket failed'));
    askForBuffer(socket, options, port);
  }
  const drops = new Drops(sockets, options);
  return {
    addresses: sockets.map((socket) => ({ host: socket.address().address, port: socket.address().port })),
    figures: () => drops.figures(),
    reasons: () => drops.reasons(),
    close: async () => {
      await Promise.all(sockets.map(close));
      handOver();
    },
  };
}

function bind(socket: Socket, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind({ address: host, port }, () => {
      socket.off('error', reject);
      resolve();
    });
  });
}

function close(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    try {
      socket.close(() => resolve());
    } catch {
      // It was never bound, or is closed already: that is what was wanted.
      resolve();
    }
  });
}

/** The kernel silently gives less where it may not give as much. */
function askForBuffer(socket: Socket, { receiveBuffer, logger }: UdpOptions, port: number): void {
  try {
    socket.setRecvBufferSize(receiveBuffer);
  } catch (error) {
    logger.warn({ port, error: (error as Error).message }, 'the receive buffer cannot be set');
    return;
  }
  const given = bufferOf(socket);
  if (given >= receiveBuffer) return;
  const remedy = `sysctl -w net.core.rmem_max=${receiveBuffer}`;
  logger.warn(
    { port, asked: receiveBuffer, given, remedy },
    'the kernel gives a smaller receive buffer: bursts may be dropped, raise net.core.rmem_max',
  );
}

/** Looks at what the kernel dropped, and says so where it is recent. */
class Drops {
  readonly #sockets: readonly Socket[];
  readonly #options: UdpOptions;
  #figures: readonly UdpSocketFigures[] = [];
  #lookedMs = Number.NEGATIVE_INFINITY;
  #roseMs = Number.NEGATIVE_INFINITY;

  constructor(sockets: readonly Socket[], options: UdpOptions) {
    this.#sockets = sockets;
    this.#options = options;
    this.figures();
  }

  figures(): readonly UdpSocketFigures[] {
    const nowMs = this.#options.clock.now();
    if (nowMs - this.#lookedMs < figuresAgeMs) return this.#figures;
    this.#lookedMs = nowMs;
    const before = this.#total();
    const all = kernelDrops();
    this.#figures = this.#sockets.map((socket, index) => this.#figuresOf(socket, index, all));
    const total = this.#total();
    if (total > before) {
      if (nowMs - this.#roseMs > recentMs) this.#options.logger.warn({ drops: total }, 'the kernel drops datagrams: the receive buffer was full');
      this.#roseMs = nowMs;
    }
    return this.#figures;
  }

  reasons(): string[] {
    this.figures();
    if (this.#options.clock.now() - this.#roseMs > recentMs) return [];
    const remedy = 'raise collector.receive_buffer and net.core.rmem_max, or give the collector more CPU';
    return [`the kernel dropped ${this.#total()} datagrams, some of them within the last minute: ${remedy}`];
  }

  #total(): number {
    return this.#figures.reduce((sum, { drops }) => sum + (drops ?? 0), 0);
  }

  /** A socket that is closed keeps its last figures. */
  #figuresOf(socket: Socket, index: number, all: ReturnType<typeof kernelDrops>): UdpSocketFigures {
    try {
      const { address: host, port } = socket.address();
      const drops = all?.find((one) => one.host === host && one.port === port)?.drops ?? null;
      return { listen: isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`, receiveBuffer: bufferOf(socket), drops };
    } catch {
      return this.#figures[index] ?? { listen: '', receiveBuffer: 0, drops: null };
    }
  }
}

/** The kernel doubles what is asked for, to pay for its own bookkeeping, and tells the double. */
function bufferOf(socket: Socket): number {
  return socket.getRecvBufferSize() / (process.platform === 'linux' ? 2 : 1);
}

export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
}
