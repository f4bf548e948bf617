/**
 * IPFIX over TCP, and over TLS with certificates on both sides (RFC 7011 sections 10.4 and 11). A connection is a transport session. It is not read
 * while the collector cannot take more, so that the exporter waits instead of losing; and it is closed where it is idle, slow, or not IPFIX.
 */
import { readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls';
import { MessageStream } from '../core/wire/message-stream.ts';
import type { Clock, Logger } from './ports.ts';
import { plainAddress } from './udp.ts';

export interface ReceivedMessage {
  /** May be used again after the call. */
  readonly bytes: Buffer;
  readonly address: string;
  readonly receivedMs: number;
  /** `ADDRESS#NUMBER`, the same for all messages of one session and for no other. */
  readonly session: string;
}

export interface TlsFiles {
  readonly certificate: Buffer;
  readonly key: Buffer;
  /** Whose signature makes an exporter's certificate good. */
  readonly authorities: Buffer;
}

export interface TcpOptions {
  readonly listen: readonly { readonly host: string; readonly port: number }[];
  /** null: plain TCP. */
  readonly tls: TlsFiles | null;
  /** Connections at a time; of exporters that are not known at most half, where some are. */
  readonly connectionsMax: number;
  /** A connection without a message for so long is closed. */
  readonly idleMs: number;
  /** A message that has begun, and a handshake, must end within this time. */
  readonly messageWithinMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly allows: (address: string) => boolean;
  /** null: the configuration names no exporters. */
  readonly isKnown: ((address: string) => boolean) | null;
  readonly hasRoom: () => boolean;
  readonly receive: (message: ReceivedMessage) => void;
  /** Complete: the exporter closed it, and nothing of it is missing. Only called for sessions that brought a message. */
  readonly ended: (session: string, address: string, isComplete: boolean) => void;
}

/** closed: by the exporter, behind a whole message. cut: the connection broke, or ended within a message. slow: a message did not end in time. */
export type EndReason = 'closed' | 'cut' | 'idle' | 'slow' | 'version' | 'length' | 'stopped';
/** disallowed: not in the list. full: too many connections. tls: no good certificate, or no handshake in time. */
export type RefusalReason = 'disallowed' | 'full' | 'tls';

export interface TcpFigures {
  readonly transport: 'tcp' | 'tls';
  /** Connections that are open now, and of these those that are not read for want of room. */
  readonly open: number;
  readonly paused: number;
  readonly accepted: number;
  readonly ended: Readonly<Record<EndReason, number>>;
  readonly refused: Readonly<Record<RefusalReason, number>>;
}

export interface TcpReceiver {
  /** Where it really listens, in the order of `listen`. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  figures(): TcpFigures;
  /** No more connections; what exporters have sent so far is read for a moment, then the connections are closed. */
  close(): Promise<void>;
}

/** How often connections are held against their times, and those that wait for room look for it. */
const sweepMs = 250;
const roomPollMs = 20;
/** What a stop gives the exporters to close their sessions themselves. */
const drainMs = 500;
const probeAfterMs = 60_000;
const refusedSayMs = 60_000;

interface Session {
  /** Of the address that was connected from. */
  readonly address: string;
  readonly name: string;
  /** What octets are read from: of TLS, the decrypted side. */
  readonly socket: Socket;
  readonly stream: MessageStream;
  /** When the last message ended, or the session began. */
  lastMs: number;
  /** When the message began that has not ended. */
  beganMs: number;
  messages: number;
  isPaused: boolean;
  end: EndReason | null;
}

/** @throws Error naming the configuration's key and the file that cannot be read */
export function readTlsFiles(files: Readonly<Record<'tls_certificate' | 'tls_key' | 'tls_authorities', string>>): TlsFiles {
  const read = (key: keyof typeof files) => {
    try {
      return readFileSync(files[key]);
    } catch (error) {
      throw new Error(`collector.${key}: ${files[key]} cannot be read: ${(error as Error).message}`, { cause: error });
    }
  };
  return { certificate: read('tls_certificate'), key: read('tls_key'), authorities: read('tls_authorities') };
}

/** @throws Error naming the address that cannot be listened on, or saying what is wrong with the certificate */
export async function receiveTcp(options: TcpOptions): Promise<TcpReceiver> {
  const receiver = new Receiver(options);
  await receiver.listen();
  return receiver;
}

class Receiver implements TcpReceiver {
  readonly #options: TcpOptions;
  readonly #tls: TlsServer | null;
  readonly #servers: Server[] = [];
  /** Accepted connections, those in a handshake included, and whether their exporters are known. */
  readonly #connections = new Map<Socket, boolean>();
  readonly #sessions = new Set<Session>();
  readonly #ended: Record<EndReason, number> = { closed: 0, cut: 0, idle: 0, slow: 0, version: 0, length: 0, stopped: 0 };
  readonly #refused: Record<RefusalReason, number> = { disallowed: 0, full: 0, tls: 0 };
  #accepted = 0;
  #begun = 0;
  #refusedTlsMs = Number.NEGATIVE_INFINITY;
  #sweep: NodeJS.Timeout | null = null;
  #roomPoll: NodeJS.Timeout | null = null;
  #isStopping = false;

  constructor(options: TcpOptions) {
    this.#options = options;
    this.#tls = options.tls && this.#tlsServer(options.tls);
  }

  get addresses() {
    return this.#servers.map((server) => {
      const address = server.address();
      return typeof address === 'object' && address ? { host: address.address, port: address.port } : { host: '', port: 0 };
    });
  }

  figures(): TcpFigures {
    return {
      transport: this.#tls ? 'tls' : 'tcp',
      open: this.#connections.size,
      paused: [...this.#sessions].filter(({ isPaused }) => isPaused).length,
      accepted: this.#accepted,
      ended: this.#ended,
      refused: this.#refused,
    };
  }

  async listen(): Promise<void> {
    for (const { host, port } of this.#options.listen) {
      const server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: probeAfterMs }, (socket) => this.#connect(socket));
      try {
        await new Promise<void>((resolve, reject) => {
          server.once('error', reject);
          server.listen({ host, port }, () => {
            server.off('error', reject);
            resolve();
          });
        });
      } catch (error) {
        await this.close();
        throw new Error(`cannot listen on ${host}:${port} (${this.figures().transport}): ${(error as Error).message}`, { cause: error });
      }
      server.on('error', (error) => this.#options.logger.error({ host, port, error: error.message }, 'a listening socket failed'));
      this.#servers.push(server);
    }
    this.#sweep = setInterval(() => this.#closeLate(), sweepMs);
  }

  #tlsServer({ certificate, key, authorities }: TlsFiles): TlsServer {
    const { messageWithinMs } = this.#options;
    let server: TlsServer;
    try {
      server = createTlsServer({
        cert: certificate,
        key,
        ca: authorities,
        requestCert: true,
        rejectUnauthorized: true,
        minVersion: 'TLSv1.2',
        handshakeTimeout: messageWithinMs,
      });
    } catch (error) {
      const remedy = 'see to collector.tls_certificate, tls_key and tls_authorities';
      throw new Error(`TLS cannot be set up (${(error as Error).message}): ${remedy}`, { cause: error });
    }
    server.on('secureConnection', (socket) => this.#begin(socket, addressOf(socket)));
    server.on('tlsClientError', (error, socket) => {
      this.#refused.tls++;
      this.#sayRefused(addressOf(socket), String(socket.authorizationError || error.message));
      socket.destroy();
    });
    return server;
  }

  /** Not for each: anybody can connect as often as they like. */
  #sayRefused(exporter: string, error: string): void {
    const { clock, logger } = this.#options;
    if (clock.now() - this.#refusedTlsMs < refusedSayMs) return;
    this.#refusedTlsMs = clock.now();
    logger.warn({ exporter, error, refused: this.#refused.tls }, 'a TLS connection is refused: no good certificate, or no handshake');
  }

  #connect(socket: Socket): void {
    const { allows, isKnown, connectionsMax } = this.#options;
    // A peer may be gone already, and then has no address; what happens to a connection is told by its close.
    const address = addressOf(socket);
    socket.on('error', () => undefined);
    const known = isKnown?.(address) ?? true;
    const ofOthers = [...this.#connections.values()].filter((isOne) => !isOne).length;
    if (!allows(address)) this.#refuse(socket, 'disallowed');
    else if (this.#connections.size >= connectionsMax || (!known && ofOthers >= connectionsMax / 2)) this.#refuse(socket, 'full');
    else {
      this.#accepted++;
      this.#connections.set(socket, known);
      socket.once('close', () => this.#connections.delete(socket));
      if (this.#tls) this.#tls.emit('connection', socket);
      else this.#begin(socket, address);
    }
  }

  #refuse(socket: Socket, reason: RefusalReason): void {
    this.#refused[reason]++;
    socket.destroy();
  }

  #begin(socket: Socket, address: string): void {
    const { clock, logger } = this.#options;
    const nowMs = clock.now();
    const stream = new MessageStream();
    const name = `${address}#${this.figures().transport}${nowMs.toString(36)}-${this.#begun++}`;
    const session: Session = { address, name, socket, stream, lastMs: nowMs, beganMs: nowMs, messages: 0, isPaused: false, end: null };
    this.#sessions.add(session);
    socket.on('data', (segment: Buffer) => this.#take(session, segment));
    socket.on('end', () => this.#end(session, stream.pending === 0 ? 'closed' : 'cut'));
    socket.on('error', () => this.#end(session, 'cut'));
    socket.on('close', () => {
      this.#end(session, 'cut');
      this.#finish(session);
    });
    logger.info({ exporter: address, ...nameOf(socket) }, 'a session of IPFIX begins');
  }

  #take(session: Session, segment: Buffer): void {
    const { clock, receive, hasRoom } = this.#options;
    if (session.end !== null) return;
    const { address, name, stream } = session;
    const receivedMs = clock.now();
    const { messages } = session;
    const wasPending = stream.pending > 0;
    const fault = stream.push(segment, (bytes) => {
      session.messages++;
      receive({ bytes, address, receivedMs, session: name });
    });
    if (session.messages > messages) session.lastMs = receivedMs;
    if (!wasPending || session.messages > messages) session.beganMs = receivedMs;
    if (fault !== null) this.#end(session, fault);
    else if (!hasRoom()) this.#pause(session);
  }

  #pause(session: Session): void {
    session.isPaused = true;
    session.socket.pause();
    this.#roomPoll ??= setInterval(() => this.#resumeAll(), roomPollMs);
  }

  /** Time that passed while it was not read is not the exporter's. */
  #resumeAll(): void {
    if (!this.#options.hasRoom()) return;
    if (this.#roomPoll) clearInterval(this.#roomPoll);
    this.#roomPoll = null;
    const nowMs = this.#options.clock.now();
    for (const session of this.#sessions) {
      if (!session.isPaused) continue;
      session.isPaused = false;
      session.lastMs = nowMs;
      session.beganMs = nowMs;
      session.socket.resume();
    }
  }

  #closeLate(): void {
    const { clock, idleMs, messageWithinMs } = this.#options;
    const nowMs = clock.now();
    for (const session of this.#sessions) {
      if (session.isPaused) continue;
      if (session.stream.pending > 0 && nowMs - session.beganMs > messageWithinMs) this.#end(session, 'slow');
      else if (nowMs - session.lastMs > idleMs) this.#end(session, 'idle');
    }
  }

  /** The first reason counts; what this side ends is closed at once. */
  #end(session: Session, reason: EndReason): void {
    if (session.end !== null) return;
    session.end = reason;
    this.#ended[reason]++;
    if (reason !== 'closed') session.socket.destroy();
  }

  #finish(session: Session): void {
    if (!this.#sessions.delete(session)) return;
    const { logger, ended } = this.#options;
    const { address, messages, end } = session;
    const say = end === 'closed' ? logger.info : logger.warn;
    say.call(logger, { exporter: address, messages, reason: end }, 'a session of IPFIX ended');
    if (messages > 0) ended(session.name, address, end === 'closed');
  }

  async close(): Promise<void> {
    if (this.#isStopping) return;
    this.#isStopping = true;
    if (this.#sweep) clearInterval(this.#sweep);
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const { socket } of this.#sessions) socket.end();
    const cut = setTimeout(() => {
      for (const session of this.#sessions) this.#end(session, 'stopped');
      for (const socket of this.#connections.keys()) socket.destroy();
    }, drainMs);
    await Promise.all(closed);
    clearTimeout(cut);
    // The server may be closed before its connections have told that they are.
    for (const session of this.#sessions) {
      this.#end(session, 'stopped');
      this.#finish(session);
    }
    if (this.#roomPoll) clearInterval(this.#roomPoll);
  }
}

function addressOf(socket: Socket): string {
  return plainAddress(socket.remoteAddress ?? '');
}

/** The name in the exporter's certificate, where it has one. */
function nameOf(socket: Socket): { certificate?: string } {
  const subject = 'getPeerCertificate' in socket ? (socket as TLSSocket).getPeerCertificate().subject : undefined;
  const name = subject?.CN;
  return name === undefined ? {} : { certificate: String(name) };
}
