/** `decode FILE.pcap`: the NARs of a capture, as a collector would make them. */
import type { Command } from 'commander';
import { readPcap } from '../../adapters/pcap.ts';
import { type NarText, narText } from '../../core/nar/nar.ts';
import { Decoder, defaultDecoderLimits } from '../../core/wire/decoder.ts';
import type { ExporterReport } from '../../schemas/types.ts';

export function registerDecode(program: Command): void {
  program
    .command('decode')
    .description('the NARs of a capture file, with a summary on stderr')
    .argument('<file>', 'capture in pcap format')
    .option('--json', 'one JSON object a line, names as in the NAR schema')
    .action(async (file: string, options: { json?: boolean }) => decodeFile(file, options.json ?? false));
}

async function decodeFile(file: string, json: boolean): Promise<void> {
  const datagrams = await readPcap(file);
  // A capture is an excerpt: how old a template is says nothing there.
  const decoder = new Decoder({ ...defaultDecoderLimits, templateExpiryMs: Number.POSITIVE_INFINITY });
  const write = json ? writeJson : tableWriter();
  let bytes = 0n;
  let packets = 0n;
  for (const { payload, source, timeMs } of datagrams) {
    decoder.decode(payload, source, Math.floor(timeMs), (nar, slot) => {
      bytes += BigInt(nar.bytes);
      packets += BigInt(nar.packets);
      write(narText(nar, slot));
    });
  }
  // Nothing follows the capture's end, so what still waits for a template waits in vain.
  decoder.expire(Number.POSITIVE_INFINITY);
  const { flows } = decoder.counters;
  process.stderr.write(`${summary(decoder, bytes, packets, flows)}\n`);
  for (const report of decoder.takeReports()) process.stderr.write(`${exporterLine(report)}\n`);
}

function writeJson(nar: NarText): void {
  process.stdout.write(`${JSON.stringify(nar)}\n`);
}

const columns: readonly [title: string, width: number, text: (nar: NarText) => string][] = [
  ['exporter', 15, (nar) => nar.sampler_address],
  ['domain', 10, (nar) => String(nar.observation_domain_id)],
  ['end', 24, (nar) => new Date(nar.time_flow_end_ms).toISOString()],
  ['ms', 8, (nar) => String(nar.time_flow_end_ms - nar.time_flow_start_ms)],
  ['proto', 5, (nar) => String(nar.proto)],
  ['source', 21, (nar) => endpoint(nar.src_addr, nar.src_port)],
  ['destination', 21, (nar) => endpoint(nar.dst_addr, nar.dst_port)],
  ['packets', 10, (nar) => String(nar.packets)],
  ['bytes', 12, (nar) => String(nar.bytes)],
  ['1 in', 6, (nar) => (nar.sampling_rate === 0 ? '-' : String(nar.sampling_rate))],
];

function endpoint(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function tableWriter(): (nar: NarText) => void {
  const line = (cells: readonly string[]) =>
    process.stdout.write(
      `${cells
        .map((cell, i) => cell.padEnd(columns[i]![1]))
        .join(' ')
        .trimEnd()}\n`,
    );
  line(columns.map(([title]) => title));
  return (nar) => line(columns.map(([, , text]) => text(nar)));
}

function summary(decoder: Decoder, bytes: bigint, packets: bigint, flows: number): string {
  const { datagrams, undecodableDatagrams, unidentifiedDatagrams, templates, optionsRecords, undecodableSets, malformedSets } = decoder.counters;
  const { counterSamples, discardedPackets, reverseFlows, events } = decoder.counters;
  const parts = [
    `${datagrams} datagrams`,
    reverseFlows > 0 ? `${flows} flows (${reverseFlows} of them reverse)` : `${flows} flows`,
    `${bytes} bytes`,
    `${packets} packets`,
    `${templates} templates`,
  ];
  parts.push(`${optionsRecords} options records`, `${undecodableDatagrams + unidentifiedDatagrams} undecodable datagrams`);
  parts.push(`${undecodableSets} sets without a template`, `${malformedSets} malformed sets`);
  if (events > 0) parts.push(`${events} events without traffic`);
  if (counterSamples > 0) parts.push(`${counterSamples} counter samples`);
  if (discardedPackets > 0) parts.push(`${discardedPackets} discarded packets`);
  return parts.join(', ');
}

function exporterLine(report: ExporterReport): string {
  const { sampler_address, observation_domain_id, protocol, received_datagrams } = report;
  const lost = lostOnWire(report);
  return `  ${sampler_address} domain ${observation_domain_id} ${protocol}: ${received_datagrams} datagrams received, ${lost} lost on the wire`;
}

/** In the units of the protocol's sequence numbers. */
function lostOnWire({ protocol, lost_on_wire_datagrams, lost_on_wire_flows }: ExporterReport): string {
  if (protocol === 'netflow_v9') return `${lost_on_wire_datagrams} datagrams`;
  return protocol === 'sflow_v5' ? `${lost_on_wire_datagrams} datagrams and ${lost_on_wire_flows} samples` : `${lost_on_wire_flows} flows`;
}
