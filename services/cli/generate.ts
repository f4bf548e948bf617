/** `generate`: a synthetic load with known totals and right sequence numbers, each exporter from its own loopback address. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { resolveDestination, UdpSender } from '../../adapters/udp-sender.ts';
import { addressBytes, addressText } from '../../core/nar/address.ts';
import { SyntheticExporter, type SyntheticProtocol, type SyntheticTotals } from '../../core/wire/synthetic-exporter.ts';
import { parseDuration } from './duration.ts';
import { interruption } from './interruption.ts';

interface GenerateOptions {
  readonly protocol: SyntheticProtocol;
  readonly to: string;
  readonly rate: number;
  readonly flows?: number;
  readonly duration?: number;
  readonly exporters: number;
  readonly keys: number;
  readonly seed: number;
  readonly samplingRate: number;
  readonly from: string;
}

export function registerGenerate(program: Command): void {
  program
    .command('generate')
    .description('send a synthetic load with known totals')
    .addOption(new Option('--protocol <protocol>', 'what the exporters speak').choices(['v5', 'v9', 'ipfix']).default('v5'))
    .requiredOption('--to <host:port>', "the collector's address")
    .option('--rate <n>', 'flows per second over all exporters, or max', rate, 1000)
    .option('--flows <n>', 'stop after so many flows (default: 10000, or no limit where a duration is given)', positive)
    .option('--duration <time>', 'stop after such a time, as 30s', parseDuration)
    .option('--exporters <n>', 'exporters, each with a source address of its own', positive, 1)
    .option('--keys <n>', 'different flow keys of each exporter', positive, 1000)
    .option('--seed <n>', 'the same seed gives the same flows, times aside', whole, 1)
    .option('--sampling-rate <n>', 'sampling rate to announce; 0: none', whole, 0)
    .option('--from <address>', 'source address of the first exporter; the others count up from it', '127.0.1.1')
    .addHelpText('after', '\nExample:\n  $ flowledger generate --protocol ipfix --to 127.0.0.1:4739 --rate 20000 --flows 100000 --exporters 3')
    .action(generate);
}

function rate(text: string): number {
  return text === 'max' ? Number.POSITIVE_INFINITY : positive(text);
}

function positive(text: string): number {
  const value = whole(text);
  if (value === 0) throw new InvalidArgumentError('A whole number above 0 is expected.');
  return value;
}

function whole(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('A whole number is expected.');
  return value;
}

async function generate(options: GenerateOptions): Promise<void> {
  const sender = new UdpSender(await resolveDestination(options.to));
  const exporters = await openExporters(options, sender);
  const startedMs = performance.now();
  const flowsMax = options.flows ?? (options.duration === undefined ? 10_000 : Number.POSITIVE_INFINITY);
  const signal = interruption();
  const pace: Pace = { rate: options.rate, flowsMax, durationMs: options.duration ?? Number.POSITIVE_INFINITY, signal };
  await send(exporters, sender, pace);
  await sender.close();
  const elapsedMs = Math.round(performance.now() - startedMs);
  const totals = sumOf(exporters.map(({ exporter }) => exporter.totals));
  const facts = { protocol: options.protocol, exporters: exporters.length, ...totals, failed_datagrams: sender.failed, elapsed_ms: elapsedMs };
  process.stdout.write(`${JSON.stringify(facts)}\n`);
  if (sender.failed > 0) throw new Error(`${sender.failed} datagrams could not be sent: ${sender.lastError?.message}`);
}

interface Source {
  readonly address: string;
  readonly exporter: SyntheticExporter;
}

async function openExporters(options: GenerateOptions, sender: UdpSender): Promise<Source[]> {
  const { protocol, keys, seed, samplingRate } = options;
  const first = addressBytes(options.from);
  if (first.length !== 4) throw new Error(`--from ${options.from}: an IPv4 address is expected`);
  const sources: Source[] = [];
  for (let i = 0; i < options.exporters; i++) {
    const address = addressAt(first, i);
    await sender.open(address, address);
    // Exporters differ in their flows, and a seed's exporters have nothing in common with the next seed's.
    sources.push({ address, exporter: new SyntheticExporter({ protocol, keys, samplingRate, seed: Math.imul(seed, 1_000_003) + i }) });
  }
  return sources;
}

/** The i-th address, with last octets 1 to 254. */
function addressAt(first: Buffer, index: number): string {
  const host = first[3]! - 1 + index;
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE((first.readUInt32BE(0) & 0xffff_ff00) + Math.floor(host / 254) * 256 + 1 + (host % 254));
  return addressText(bytes);
}

interface Pace {
  readonly rate: number;
  readonly flowsMax: number;
  readonly durationMs: number;
  readonly signal: AbortSignal;
}

/** How long the process sleeps when nothing is due. */
const tickMs = 2;
/** Flows of so much time go into one datagram at most, so that a slow load is no bursty one. */
const datagramMs = 10;
/** After a stall the load catches up by bursts of so much time, not by all that is due at once: the receiver's buffer is finite. */
const burstMs = 10;

async function send(sources: readonly Source[], sender: UdpSender, pace: Pace): Promise<void> {
  const flowsPerDatagram = Math.min(sources[0]!.exporter.flowsPerDatagramMax, Math.max(1, Math.floor((pace.rate * datagramMs) / 1000)));
  const burst = Math.max(flowsPerDatagram, Math.min(100 * flowsPerDatagram, (pace.rate * burstMs) / 1000));
  const startedMs = performance.now();
  let flows = 0;
  let turn = 0;
  while (flows < pace.flowsMax && !pace.signal.aborted) {
    const elapsedMs = performance.now() - startedMs;
    if (elapsedMs >= pace.durationMs) return;
    const due = Math.min(pace.flowsMax, flows + burst, (pace.rate * elapsedMs) / 1000);
    const nowMs = Date.now();
    while (flows < due && !sender.isFull) {
      const count = Math.min(flowsPerDatagram, pace.flowsMax - flows);
      if (flows + count > due) break;
      const { address, exporter } = sources[turn++ % sources.length]!;
      sender.send(address, exporter.next(nowMs, count));
      flows += count;
    }
    if (Number.isFinite(pace.rate)) await new Promise((resolve) => setTimeout(resolve, tickMs));
    else await new Promise((resolve) => setImmediate(resolve));
    await sender.room();
  }
}

function sumOf(parts: readonly SyntheticTotals[]): SyntheticTotals {
  const sum = { datagrams: 0, flows: 0, bytes: 0, packets: 0 };
  for (const part of parts) {
    sum.datagrams += part.datagrams;
    sum.flows += part.flows;
    sum.bytes += part.bytes;
    sum.packets += part.packets;
  }
  return sum;
}
