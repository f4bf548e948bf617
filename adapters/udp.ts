/** UDP sockets that exports arrive at. Datagrams are handed over in batches, one per turn of the event loop, without a promise for each. */
import { createSocket, type Socket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';
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

export interface UdpReceiver {
  /** Where it really listens, in the order of `listen`. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  /** Datagrams that the kernel dropped because the process was too slow, since the sockets were opened; -1 where the kernel does not tell. */
  kernelDrops(): number;
  close(): Promise<void>;
}

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
  const ports = new Set(sockets.map((socket) => socket.address().port));
  return {
    addresses: sockets.map((socket) => ({ host: socket.address().address, port: socket.address().port })),
    kernelDrops: () => kernelDrops(ports),
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

/** The kernel doubles what is asked for, to pay for its own bookkeeping, and silently gives less than it may not give. */
function askForBuffer(socket: Socket, { receiveBuffer, logger }: UdpOptions, port: number): void {
  try {
    socket.setRecvBufferSize(receiveBuffer);
  } catch (error) {
    logger.warn({ port, error: (error as Error).message }, 'the receive buffer cannot be set');
    return;
  }
  const given = socket.getRecvBufferSize() / (process.platform === 'linux' ? 2 : 1);
  if (given >= receiveBuffer) return;
  const remedy = `sysctl -w net.core.rmem_max=${receiveBuffer}`;
  logger.warn(
    { port, asked: receiveBuffer, given, remedy },
    'the kernel gives a smaller receive buffer: bursts may be dropped, raise net.core.rmem_max',
  );
}

/** The last column of /proc/net/udp and udp6 counts the drops of each socket; the second has its port. */
function kernelDrops(ports: ReadonlySet<number>): number {
  let drops = -1;
  for (const file of ['/proc/net/udp', '/proc/net/udp6']) {
    let table: string;
    try {
      table = readFileSync(file, 'utf8');
    } catch {
      // Not Linux, or no IPv6: the kernel does not tell.
      continue;
    }
    drops = Math.max(drops, 0);
    for (const line of table.split('\n').slice(1)) {
      const columns = line.trim().split(/\s+/);
      const port = Number.parseInt(columns[1]?.split(':')[1] ?? '', 16);
      if (ports.has(port)) drops += Number(columns[columns.length - 1]);
    }
  }
  return drops;
}

function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
}
