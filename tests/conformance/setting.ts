/** What a case plays in: one real broker behind two proxies, each of which can be shown to clients as a node of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import kafkajs from 'kafkajs';
import { systemClock } from '../../adapters/clock.ts';
import { openKafka } from '../../adapters/kafka.ts';
import { KafkaAdmin } from '../../adapters/kafka-admin.ts';
import type { Log } from '../../adapters/ports.ts';
import { freePort, type LocalKafka, startKafka } from '../../infra/local-kafka.ts';
import { metadataKey, type Produced, readClientId, withNodes, withProduceErrors } from '../integration/kafka-frames.ts';
import { quiet, readAll } from '../integration/reading.ts';
import { type Exchange, type Meddling, ResponseProxy } from '../integration/response-proxy.ts';
import { clientId, nameOf } from './bare-kafkajs.ts';
import type { Seen } from './case.ts';

const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, Kafka, logLevel, ResourcePatternTypes } = kafkajs;

export const requestTimeoutMs = 500;
export const accessTopic = 'access';

export class Setting {
  readonly dir: string;
  readonly proxies: readonly [ResponseProxy, ResponseProxy];
  readonly #kafka: LocalKafka;
  readonly #admin: KafkaAdmin;
  readonly #log: Log;
  #topics = 0;
  /** Node 1 is behind the first proxy, node 2 behind the second; this one leads the partition. */
  #leaderOf: ((partition: number) => number) | null = null;

  private constructor(dir: string, proxies: readonly [ResponseProxy, ResponseProxy], kafka: LocalKafka) {
    this.dir = dir;
    this.proxies = proxies;
    this.#kafka = kafka;
    const config = { brokers: [this.address], client_id: clientId, topic_prefix: '', request_timeout: 5000 };
    this.#admin = new KafkaAdmin(config, quiet);
    this.#log = openKafka(config, quiet, systemClock);
  }

  static async open(): Promise<Setting> {
    const dir = mkdtempSync(join(tmpdir(), 'flowledger-conformance-'));
    const proxies = [await ResponseProxy.open(), await ResponseProxy.open()] as const;
    const port = await freePort();
    for (const proxy of proxies) proxy.relayTo(port);
    const kafka = await startKafka({ dir: join(dir, 'kafka'), port, advertisedPort: proxies[0].port });
    return new Setting(dir, proxies, kafka);
  }

  get address(): { host: string; port: number } {
    return { host: '127.0.0.1', port: this.proxies[0].port };
  }

  get broker(): string {
    return `127.0.0.1:${this.proxies[0].port}`;
  }

  /** Of a name that no other case has. */
  async topic(partitions = 1): Promise<string> {
    const name = `c${++this.#topics}`;
    await this.#admin.create([{ name, partitions, replication: 1, settings: { 'message.timestamp.type': 'LogAppendTime' } }]);
    return name;
  }

  /** The log itself, whatever a client says: the first word of each data record. */
  async values(topic: string, partition = 0, isolation: 'raw' | 'committed' = 'raw'): Promise<string[]> {
    this.calm();
    const records = await readAll(this.#log, topic, partition, isolation);
    return records.filter(({ marker }) => !marker).map(({ value }) => nameOf(value));
  }

  async endOffset(topic: string): Promise<number> {
    return (await this.#log.bounds(topic, 0)).endOffset;
  }

  /** Clients are told of two nodes from now on; metadata asked for again tells a leader that moved. */
  showNodes(leaderOf: (partition: number) => number): void {
    this.#leaderOf = leaderOf;
    this.meddle(null);
  }

  /** At both nodes, besides what metadata shows. */
  meddle(meddling: Meddling | null): void {
    const nodes = this.proxies.map(({ port }, i) => ({ id: i + 1, port }));
    const leaderOf = this.#leaderOf;
    const show: Meddling = (exchange, response) => {
      if (exchange.apiKey === metadataKey && leaderOf) return [withNodes(exchange.apiVersion, response, nodes, leaderOf)];
      return meddling ? meddling(exchange, response) : [response];
    };
    for (const proxy of this.proxies) proxy.meddle = leaderOf || meddling ? show : null;
  }

  calm(): void {
    this.#leaderOf = null;
    this.meddle(null);
    for (const proxy of this.proxies) {
      proxy.detention = null;
      proxy.release();
    }
  }

  /** What clients asked at node 1 since there were so many; the broker talks to itself there, too. */
  asked(since = 0): Exchange[] {
    return this.proxies[0].exchanges.slice(since).filter(({ head }) => readClientId(head) === clientId);
  }

  get askedSoFar(): number {
    return this.proxies[0].exchanges.length;
  }

  /** Another broker, with access control: its one user may do everything with topics, groups and transactional ids, and nothing with the cluster. */
  async withAccessControl(user: string, play: (broker: string) => Promise<Seen>): Promise<Seen> {
    const [port, controllerPort, usersPort] = [await freePort(), await freePort(), await freePort()];
    const settings = [
      `listeners=PLAINTEXT://127.0.0.1:${port},USERS://127.0.0.1:${usersPort},CONTROLLER://127.0.0.1:${controllerPort}`,
      `advertised.listeners=PLAINTEXT://127.0.0.1:${port},USERS://127.0.0.1:${usersPort}`,
      'listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,USERS:SASL_PLAINTEXT',
      'sasl.enabled.mechanisms=PLAIN',
      `listener.name.users.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_${user}="${user}";`,
      'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'super.users=User:ANONYMOUS',
    ];
    const kafka = await startKafka({ dir: join(this.dir, 'kafka-with-access-control'), port, controllerPort, settings });
    try {
      await allow(kafka.broker, user);
      return await play(`127.0.0.1:${usersPort}`);
    } finally {
      await kafka.kill();
      rmSync(join(this.dir, 'kafka-with-access-control'), { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    await this.#admin.close();
    await this.#log.close();
    await Promise.all(this.proxies.map((proxy) => proxy.close()));
    await this.#kafka.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** A topic to write to, and the right to everything but the cluster. */
async function allow(broker: string, user: string): Promise<void> {
  const admin = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: accessTopic, numPartitions: 1, replicationFactor: 1 }] });
  const resources = [AclResourceTypes.TOPIC, AclResourceTypes.GROUP, AclResourceTypes.TRANSACTIONAL_ID];
  const rule = { resourceName: '*', resourcePatternType: ResourcePatternTypes.LITERAL, principal: `User:${user}`, host: '*' };
  const rights = { operation: AclOperationTypes.ALL, permissionType: AclPermissionTypes.ALLOW };
  await admin.createAcls({ acl: resources.map((resourceType) => ({ resourceType, ...rule, ...rights })) });
  await admin.disconnect();
}

/** The first Produce request of each batch is carried out, and answered with an error; tells of which. */
export function failOnce(errorCode: number): Meddling & { readonly failed: Set<string> } {
  const failed = new Set<string>();
  const meddling: Meddling = ({ apiVersion, produced }, response) => {
    const fresh = produced.filter((part) => !failed.has(nameOfBatch(part)));
    if (fresh.length === 0) return [response];
    for (const part of fresh) failed.add(nameOfBatch(part));
    return [
      withProduceErrors(apiVersion, response, (topic, partition) =>
        fresh.some((part) => part.topic === topic && part.partition === partition) ? errorCode : null,
      ),
    ];
  };
  return Object.assign(meddling, { failed });
}

function nameOfBatch({ topic, partition, producerId, baseSequence }: Produced): string {
  return `${topic}/${partition}/${producerId}/${baseSequence}`;
}

/** What became of a promise within a time. */
export async function outcomeOf(promise: Promise<unknown>, withinMs: number): Promise<'done' | 'refused' | 'open'> {
  const late = new Promise<'open'>((resolve) => setTimeout(() => resolve('open'), withinMs).unref());
  return Promise.race([
    promise.then(
      () => 'done' as const,
      () => 'refused' as const,
    ),
    late,
  ]);
}

export async function until(what: string, isSo: () => boolean, withinMs = 10_000): Promise<void> {
  for (const end = Date.now() + withinMs; Date.now() < end; await systemClock.sleep(20)) if (isSo()) return;
  throw new Error(`the fault did not happen: ${what}`);
}
