/** /metrics, /healthz (the process turns), /readyz (it does its work), and, where asked for, /metrics/lag. */
import fastify from 'fastify';
import type { Metrics } from './metrics.ts';

export interface Readiness {
  readonly ready: boolean;
  /** Why not, or what is degraded; each names its remedy. */
  readonly reasons: readonly string[];
}

export interface HttpOptions {
  readonly host: string;
  readonly port: number;
  readonly metrics: Metrics;
  readonly readiness: () => Readiness;
  /** The names that stock lag dashboards know; off by default, since they would double where a lag exporter runs. */
  readonly lagMetrics?: Metrics | undefined;
}

export interface HttpServer {
  readonly port: number;
  close(): Promise<void>;
}

/** @throws Error naming the address when it cannot be listened on. */
export async function serveHttp(options: HttpOptions): Promise<HttpServer> {
  const server = fastify({ logger: false, forceCloseConnections: true });
  server.get('/healthz', async () => ({ alive: true }));
  server.get('/readyz', async (_request, reply) => {
    const readiness = options.readiness();
    return reply.code(readiness.ready ? 200 : 503).send(readiness);
  });
  server.get('/metrics', async (_request, reply) => reply.type(options.metrics.contentType).send(await options.metrics.text()));
  const lagMetrics = options.lagMetrics;
  if (lagMetrics) server.get('/metrics/lag', async (_request, reply) => reply.type(lagMetrics.contentType).send(await lagMetrics.text()));
  await server.listen({ host: options.host, port: options.port });
  const address = server.server.address();
  return { port: typeof address === 'object' && address ? address.port : options.port, close: () => server.close() };
}
