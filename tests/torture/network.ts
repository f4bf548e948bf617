/**
 * The network between the parts: each service reaches each broker, each collector its Redis, and the brokers each other, by a link of its own. A
 * broker has a listener for each party, which advertises that party's link, so that no client finds a way around it.
 */
import { brokersListener, freePort, type Listener } from '../../infra/local-kafka.ts';
import type { Routes } from '../../infra/stack.ts';
import { type Direction, Link, type Weather } from './link.ts';

/** Stands in for all brokers of a party, or all parties of a broker. */
export const any = '*';

interface Way {
  readonly from: string;
  readonly to: string;
  readonly link: Link;
}

export class Network implements Routes {
  readonly #parties: readonly string[];
  readonly #ways: Way[] = [];

  /** @param parties the services that have links */
  constructor(parties: readonly string[]) {
    this.#parties = parties;
  }

  async listeners(nodeId: number): Promise<readonly Listener[]> {
    const listeners: Listener[] = [];
    for (const party of [...this.#parties, brokersListener]) {
      const link = await Link.open();
      const port = await freePort();
      link.leadTo(port);
      this.#ways.push({ from: party, to: `kafka-${nodeId}`, link });
      const name = party === brokersListener ? party : `FOR_${party.toUpperCase().replace(/\W/g, '_')}`;
      listeners.push({ name, port, advertisedPort: link.port });
    }
    return listeners;
  }

  async env(service: string, redisPort: number): Promise<Readonly<Record<string, string>>> {
    const brokers = this.#ways.filter(({ from }) => from === service).map(({ link }) => `127.0.0.1:${link.port}`);
    const env: Record<string, string> = brokers.length > 0 ? { FLOWLEDGER_KAFKA_BROKERS: brokers.join(',') } : {};
    if (redisPort > 0 && this.#parties.includes(service)) {
      const link = await Link.open();
      link.leadTo(redisPort);
      this.#ways.push({ from: service, to: 'redis', link });
      env['FLOWLEDGER_REDIS_URL'] = `redis://127.0.0.1:${link.port}`;
    }
    return env;
  }

  /** The links of a party; of a broker's peers, from is `brokers`. @throws Error when there is none: a fault on no link would prove nothing */
  links(from: string, to = any): readonly Link[] {
    const party = from === 'brokers' ? brokersListener : from;
    const found = this.#ways.filter((way) => (party === any || way.from === party) && matches(to, way.to)).map(({ link }) => link);
    if (found.length === 0) throw new Error(`there is no link from ${from} to ${to}`);
    return found;
  }

  cut(from: string, to: string, ...directions: readonly Direction[]): readonly Link[] {
    const links = this.links(from, to);
    for (const link of links) link.cut(...(directions.length > 0 ? directions : (['to', 'from'] as const)));
    return links;
  }

  bring(from: string, to: string, weather: Weather): readonly Link[] {
    const links = this.links(from, to);
    for (const link of links) link.bring(weather);
    return links;
  }

  restore(): void {
    for (const { link } of this.#ways) link.restore();
  }

  async close(): Promise<void> {
    await Promise.all(this.#ways.map(({ link }) => link.close()));
  }
}

function matches(wanted: string, to: string): boolean {
  return wanted === any || wanted === to || (wanted === 'kafka' && to.startsWith('kafka-'));
}
