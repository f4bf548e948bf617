/** What `up` runs in the background and `down` stops: which processes, with which configuration, where their logs and process files are. */
import { join } from 'node:path';
import { type Address, writeAddress } from '../../adapters/config-values.ts';
import type { Config } from '../config.ts';
import type { Settings } from './settings.ts';

export interface BackgroundService {
  readonly name: string;
  /** What follows `flowledger` on its command line. */
  readonly args: readonly string[];
  /** The configuration that it does not share with the others. */
  readonly env: Readonly<Record<string, string>>;
  readonly http: Address;
}

/** A further collector listens this much above the configured ports. */
const listenStep = 1000;
const httpStep = 10;

/** The services of one machine, in the order in which the table shows them. */
export function backgroundServices(config: Config, collectors: number): BackgroundService[] {
  const services = Array.from({ length: collectors }, (_, index) => collectorService(config, index));
  for (const replica of ['a', 'b'] as const) {
    const http = config.aggregator[`http_${replica}`];
    services.push({ name: `aggregator-${replica}`, args: ['aggregator', '--replica', replica], env: {}, http });
  }
  for (const name of ['watchdog', 'feed', 'judge', 'accounting'] as const) services.push({ name, args: [name], env: {}, http: config[name].http });
  return services;
}

/** The first collector is the configured one; each further one has a name and ports of its own. */
function collectorService(config: Config, index: number): BackgroundService {
  const name = `collector-${index + 1}`;
  const { http, listen, listen_tcp: tcp, listen_tls: tls } = config.collector;
  const higher = (addresses: readonly Address[]) =>
    addresses.map((address) => writeAddress({ ...address, port: address.port + index * listenStep })).join(',');
  if (index === 0) return { name, args: ['collector'], env: {}, http };
  const shifted = { ...http, port: http.port + index * httpStep };
  const env = {
    FLOWLEDGER_COLLECTOR_NAME: `${config.collector.name}-${index + 1}`,
    FLOWLEDGER_COLLECTOR_LISTEN: higher(listen),
    FLOWLEDGER_COLLECTOR_LISTEN_TCP: higher(tcp),
    FLOWLEDGER_COLLECTOR_LISTEN_TLS: higher(tls),
    FLOWLEDGER_COLLECTOR_HTTP: writeAddress(shifted),
  };
  return { name, args: ['collector'], env, http: shifted };
}

/** The local broker and Redis are process files beside those of the services. */
export const backends = ['kafka', 'redis'] as const;

export function pidFile(settings: Settings, name: string): string {
  return join(settings.stateDir, 'run', `${name}.pid`);
}

export function logFile(settings: Settings, name: string): string {
  return join(settings.stateDir, 'log', `${name}.log`);
}

/** A host that is this machine for certain. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}
