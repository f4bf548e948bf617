/** The collector as a process: its parts, and how they are put together. */
import { systemClock } from '../../adapters/clock.ts';
import { serveHttp } from '../../adapters/http.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { openLogger } from '../../adapters/logger.ts';
import { Metrics } from '../../adapters/metrics.ts';
import { openRedisStore } from '../../adapters/redis-store.ts';
import { readTlsFiles, receiveTcp, type TcpOptions, type TcpReceiver } from '../../adapters/tcp.ts';
import { receiveUdp, type UdpReceiver } from '../../adapters/udp.ts';
import type { Config } from '../config.ts';
import { Collector } from './collector.ts';
import type { CollectorConfig } from './config.ts';
import { registerMetrics } from './metrics.ts';

/** Resolves after a graceful stop. @throws Error when an address cannot be listened on. */
export async function runCollector(config: Config, signal: AbortSignal): Promise<void> {
  const clock = systemClock;
  const logger = openLogger(`collector ${config.collector.name}`, config.log.level);
  const { name, store_max: bytesMax, listen, receive_buffer: receiveBuffer } = config.collector;
  const log = openKafka(config.kafka, logger, clock);
  const store = openRedisStore({ url: config.redis.url, keyPrefix: config.redis.key_prefix, collector: name, bytesMax, logger });
  let udp: UdpReceiver | null = null;
  const reception = () => udp?.reasons() ?? [];
  const collector = new Collector({ config: config.collector, partitions: config.topics.partitions, log, store, clock, logger, reception });
  const sessions: TcpReceiver[] = [];
  const metrics = new Metrics();
  registerMetrics(metrics, collector, () => ({ udp, sessions }));
  const http = await serveHttp({ ...config.collector.http, metrics, readiness: () => collector.readiness() });
  const closeAll = () => Promise.all([udp?.close(), ...sessions.map((receiver) => receiver.close())]);
  try {
    for (const options of tcpListeners(config.collector)) {
      sessions.push(await receiveTcp({ ...options, ...sessionsOf(collector), clock, logger }));
    }
    udp = await receiveUdp({ listen, receiveBuffer, clock, logger, receive: (datagrams) => collector.receive(datagrams) });
    logger.info({ listen: udp.addresses, sessions: sessions.flatMap(({ addresses }) => addresses), http: http.port }, 'collecting');
    // The sockets are closed before the last flush, so that what was received is all in it.
    const stopped = new AbortController();
    const stop = () => void closeAll().then(() => stopped.abort());
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    await collector.run(stopped.signal);
    logger.info({}, 'stopped');
  } finally {
    await closeAll();
    await http.close();
    await store.close();
    await log.close();
  }
}

type TcpListener = Pick<TcpOptions, 'listen' | 'tls' | 'connectionsMax' | 'idleMs' | 'messageWithinMs'>;

/** Of plain TCP and of TLS, where they are configured. */
function tcpListeners(config: CollectorConfig): TcpListener[] {
  const { listen_tcp: tcp, listen_tls: tls, tcp_connections_max: connectionsMax, tcp_idle: idleMs, tcp_message_within: messageWithinMs } = config;
  const listeners: TcpListener[] = [];
  if (tcp.length > 0) listeners.push({ listen: tcp, tls: null, connectionsMax, idleMs, messageWithinMs });
  if (tls.length > 0) listeners.push({ listen: tls, tls: readTlsFiles(config), connectionsMax, idleMs, messageWithinMs });
  return listeners;
}

function sessionsOf(collector: Collector): Pick<TcpOptions, 'allows' | 'isKnown' | 'hasRoom' | 'receive' | 'ended'> {
  return {
    allows: (address) => collector.allows(address),
    isKnown: collector.isKnown,
    hasRoom: () => collector.hasRoom(),
    receive: (message) => collector.receiveMessage(message),
    ended: (session, address, isComplete) => collector.sessionEnded(session, address, isComplete),
  };
}
