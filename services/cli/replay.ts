/** `replay FILE.pcap...`: sends the exports of captures, each original exporter from a loopback address of its own. */
import { type Command, InvalidArgumentError } from 'commander';
import { type CapturedDatagram, readPcap } from '../../adapters/pcap.ts';
import { resolveDestination, UdpSender } from '../../adapters/udp-sender.ts';
import { interruption } from './interruption.ts';

export function registerReplay(program: Command): void {
  program
    .command('replay')
    .description('send the exports of a capture; each exporter becomes a loopback address of its own')
    .argument('<file...>', 'captures in pcap format, one after another')
    .requiredOption('--to <host:port>', "the collector's address")
    .option('--speed <n>', 'times the original speed, pauses cut to one second; or max', speed, Number.POSITIVE_INFINITY)
    .addHelpText('after', '\nA capture that is sent twice in a row is what it looks like: duplicates, which a collector counts and drops.')
    .action(replay);
}

function speed(text: string): number {
  const value = text === 'max' ? Number.POSITIVE_INFINITY : Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('A number above 0, or max, is expected.');
  return value;
}

async function replay(files: readonly string[], options: { to: string; speed: number }): Promise<void> {
  const datagrams: CapturedDatagram[] = [];
  for (const file of files) datagrams.push(...(await readPcap(file)));
  const sender = new UdpSender(await resolveDestination(options.to));
  const exporters = await openSources(datagrams, sender);
  const signal = interruption();
  await send(datagrams, sender, options.speed, signal);
  await sender.close();
  const facts = { datagrams: sender.sent, bytes: sumOfBytes(datagrams, sender.sent), failed_datagrams: sender.failed, exporters };
  process.stdout.write(`${JSON.stringify(facts)}\n`);
  if (sender.failed > 0) throw new Error(`${sender.failed} datagrams could not be sent: ${sender.lastError?.message}`);
}

function sumOfBytes(datagrams: readonly CapturedDatagram[], count: number): number {
  return datagrams.slice(0, count).reduce((sum, { payload }) => sum + payload.length, 0);
}

/** One socket per (source address, source port) of the capture. Returns which exporter became which address. */
async function openSources(datagrams: readonly CapturedDatagram[], sender: UdpSender): Promise<{ original: string; address: string }[]> {
  const addresses = loopbackAddresses(new Set(datagrams.map(({ source }) => source)));
  const opened = new Set<string>();
  for (const datagram of datagrams) {
    const key = socketKey(datagram);
    if (opened.has(key)) continue;
    opened.add(key);
    await sender.open(key, addresses.get(datagram.source)!);
  }
  return [...addresses].map(([original, address]) => ({ original, address }));
}

function socketKey({ source, sourcePort }: CapturedDatagram): string {
  return `${source} ${sourcePort}`;
}

/**
 * Addresses in 127.128.0.0/9, made from the original ones: the same exporter has the same one in each replay, unless two meet, which moves one by
 * one.
 */
export function loopbackAddresses(originals: ReadonlySet<string>): Map<string, string> {
  const taken = new Set<number>();
  const addresses = new Map<string, string>();
  for (const original of [...originals].sort()) {
    let place = hash(original);
    while (taken.has(place)) place = (place + 1) % hosts;
    taken.add(place);
    addresses.set(original, `127.${128 + Math.floor(place / 254 / 256)}.${Math.floor(place / 254) % 256}.${1 + (place % 254)}`);
  }
  return addresses;
}

const hosts = 128 * 256 * 254;

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value % hosts;
}

/** At any speed: captures have gaps of hours where an excerpt was made. */
const pauseMsMax = 1_000;
/** At full speed the process pauses after so many datagrams, so that a receiver with an ordinary buffer keeps up. */
const burst = 32;

async function send(datagrams: readonly CapturedDatagram[], sender: UdpSender, times: number, signal: AbortSignal): Promise<void> {
  let dueMs = performance.now();
  for (const [i, datagram] of datagrams.entries()) {
    const previous = datagrams[i - 1];
    if (previous !== undefined) dueMs += Math.min(pauseMsMax, Math.max(0, datagram.timeMs - previous.timeMs) / times);
    const pauseMs = Math.ceil(dueMs - performance.now());
    if (pauseMs > 0) await sleep(pauseMs);
    else if (i % burst === burst - 1) await sleep(1);
    if (signal.aborted) return;
    await sender.room();
    sender.send(socketKey(datagram), datagram.payload);
    if (process.stderr.isTTY) process.stderr.write(`\r${i + 1} of ${datagrams.length} datagrams${i + 1 === datagrams.length ? '\n' : ''}`);
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
