/**
 * An ordinary read_committed consumer of topic aggregates, as billing would run one: Kafka's own console consumer, from Java, in a group of its own.
 * Nothing of flowledger's reading is in it, so what it sees is what any consumer sees.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { installKafka, run } from '../../infra/local-kafka.ts';
import { outputCodec } from '../../schemas/codec.ts';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const toolWithinMs = 90_000;

/** Fetches the jar with Kafka's command line tools, which a broker does not need, where it is not there yet. @returns the class path */
export async function installTools(): Promise<string> {
  const libs = await installKafka();
  const version = /kafka-([\d.]+)\/libs$/.exec(libs)?.[1];
  const dir = join(repository, '.flowledger', `kafka-tools-${version}`);
  if (!existsSync(dir)) {
    const partial = `${dir}.${process.pid}`;
    mkdirSync(partial, { recursive: true });
    const artifact = `org.apache.kafka:kafka-tools:${version}`;
    const { code, output } = await run('mvn', ['-B', '-q', 'dependency:copy', `-Dartifact=${artifact}`, `-DoutputDirectory=${partial}`], () => {});
    if (code !== 0) throw new Error(`Maven could not fetch ${artifact}:\n${output.slice(-1000)}`);
    try {
      renameSync(partial, dir);
    } catch {
      // Another process was first.
      rmSync(partial, { recursive: true, force: true });
    }
  }
  return `${join(libs, '*')}:${join(dir, '*')}`;
}

const javaOptions = ['-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-Dorg.slf4j.simpleLogger.defaultLogLevel=error'];

/** Runs one of Kafka's command line tools to its end. @returns what it wrote. @throws Error with its last words */
export async function runKafkaTool(name: string, args: readonly string[]): Promise<string> {
  const command = [...javaOptions, '-cp', await installTools(), `org.apache.kafka.tools.${name}`, ...args];
  const limits = { timeout: toolWithinMs, killSignal: 'SIGKILL', maxBuffer: 1024 * 1024 * 1024 } as const;
  const { stdout } = await promisify(execFile)('java', command, limits);
  return stdout;
}

/** Runs through all faults, as billing does. */
export class OrdinaryConsumer {
  /** Last n seen of each partition. */
  readonly #n = new Map<number, number>();
  readonly #nextOffset = new Map<number, number>();
  /** What is wrong with the numbers: each partition's n goes on by one. */
  readonly faults: string[] = [];
  readonly #child: ChildProcess;

  private constructor(brokers: string, classPath: string) {
    const settings = ['--bootstrap-server', brokers, '--topic', 'aggregates', '--group', 'ordinary', '--from-beginning'];
    const reading = ['--consumer-property', 'isolation.level=read_committed'];
    const bytes = 'org.apache.kafka.common.serialization.BytesDeserializer';
    const printing = ['--property', 'print.partition=true', '--property', 'print.offset=true', '--property', `value.deserializer=${bytes}`];
    const program = ['-cp', classPath, 'org.apache.kafka.tools.consumer.ConsoleConsumer'];
    this.#child = spawn('java', [...javaOptions, ...program, ...settings, ...reading, ...printing], { stdio: ['ignore', 'pipe', 'ignore'] });
    createInterface({ input: this.#child.stdout as Readable }).on('line', (line) => {
      const match = /^Partition:(\d+)\tOffset:(\d+)\t(.*)$/.exec(line);
      if (match) this.#take(Number(match[1]), Number(match[2]), octetsOf(match[3] as string));
    });
    this.#child.once('error', (error) => this.faults.push(`the console consumer cannot be started: ${error.message}`));
  }

  static async start(brokers: string): Promise<OrdinaryConsumer> {
    return new OrdinaryConsumer(brokers, await installTools());
  }

  n(partition: number): number {
    return this.#n.get(partition) ?? 0;
  }

  /** Until it has seen these numbers. @returns what is wrong; empty when it has seen each n once, in order, up to there */
  async sees(ns: readonly number[], withinMs: number): Promise<string[]> {
    const late = () => ns.some((n, partition) => this.n(partition) < n);
    for (const end = Date.now() + withinMs; late() && Date.now() < end; ) await delay(100);
    const faults = this.faults.splice(0).map((fault) => `an ordinary consumer: ${fault}`);
    for (const [partition, n] of ns.entries()) {
      if (this.n(partition) < n) faults.push(`an ordinary consumer of partition ${partition} gets up to n ${this.n(partition)}, fed is n ${n}`);
    }
    return faults;
  }

  async stop(): Promise<void> {
    const ended = this.#child.exitCode !== null || new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }

  #take(partition: number, offset: number, value: Buffer): void {
    // What the group reads again after it was thrown out stands in the topic once.
    if (offset < (this.#nextOffset.get(partition) ?? 0)) return;
    this.#nextOffset.set(partition, offset + 1);
    const output = outputCodec.decode(value);
    const expected = this.n(partition) + 1;
    if (output.partition !== partition) this.faults.push(`partition ${partition} holds an output of partition ${output.partition}`);
    if (output.n !== expected) this.faults.push(`partition ${partition}: n ${output.n} where ${expected} is due`);
    this.#n.set(partition, output.n);
  }
}

/** Kafka's Bytes in words: what is no plain character is written as \xHH. */
function octetsOf(text: string): Buffer {
  const octets = Buffer.alloc(text.length);
  let length = 0;
  for (let at = 0; at < text.length; at++) {
    if (text.startsWith('\\x', at)) {
      octets[length++] = Number.parseInt(text.slice(at + 2, at + 4), 16);
      at += 3;
    } else octets[length++] = text.charCodeAt(at);
  }
  return octets.subarray(0, length);
}
