/** The captures as sessions: what each datagram gives, and which NARs come from which of its parts. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readPcap } from '../../adapters/pcap.ts';
import { Decoder } from '../../core/wire/decoder.ts';
import { roomy, type Taken, Taking } from './play.ts';

/** A part of a datagram that holds flows and nothing else, so that whatever stands in it changes no other part's meaning. */
export interface FlowPart {
  readonly start: number;
  readonly end: number;
  /** Of the datagram's NARs: those before it, and those behind it. */
  readonly before: number;
  readonly behind: number;
}

export interface SessionDatagram {
  readonly address: string;
  readonly receivedMs: number;
  readonly datagram: Buffer;
  readonly taken: Taken;
  readonly parts: readonly FlowPart[];
  /** Where another set may be put between the others. */
  readonly gaps: readonly number[];
}

export type Session = readonly SessionDatagram[];

export const captures = join(import.meta.dirname, '..', 'captures');

/** Those of all captures in which no set waits for its template: what waits depends on what else arrives. */
export async function readSessions(): Promise<{ readonly sessions: Session[]; readonly payloads: Buffer[] }> {
  const sessions: Session[] = [];
  const payloads: Buffer[] = [];
  for (const name of readdirSync(captures).filter((file) => file.endsWith('.pcap'))) {
    const datagrams = await readPcap(join(captures, name));
    payloads.push(...datagrams.map(({ payload }) => payload));
    const session = sessionOf(
      datagrams.map(({ payload, source, timeMs }) => ({ datagram: payload, address: source, receivedMs: Math.floor(timeMs) })),
    );
    if (session !== null) sessions.push(session);
  }
  return { sessions, payloads };
}

interface Captured {
  readonly datagram: Buffer;
  readonly address: string;
  readonly receivedMs: number;
}

function sessionOf(captured: readonly Captured[]): Session | null {
  const session: SessionDatagram[] = [];
  const decoder = new Decoder(roomy);
  for (const [index, one] of captured.entries()) {
    const taking = new Taking();
    decoder.decode(one.datagram, one.address, one.receivedMs, taking.sink);
    if (decoder.counters.waitingSets > 0) return null;
    const { bytes, ends, keys } = taking.taken();
    const cuts = cutsOf(one.datagram);
    session.push({
      ...one,
      taken: { bytes: Buffer.from(bytes), ends, keys },
      parts: partsOf(captured.slice(0, index), one, cuts),
      gaps: gapsOf(cuts),
    });
  }
  return session;
}

/** A place where a datagram can be cut: the part up to there begins at `start`, its content at `content`. */
interface Cut {
  readonly start: number;
  readonly content: number;
  readonly end: number;
  readonly cut: Buffer;
}

/** Each part of a datagram, with the datagram that ends behind it. */
function cutsOf(datagram: Buffer): Cut[] {
  const version = datagram.length < 28 ? 0 : datagram.readUInt16BE(0);
  if (version === 5 || version === 7) return recordCuts(datagram, version === 5 ? 48 : 52);
  if (version === 9) return setCuts(datagram, 20, () => undefined);
  if (version === 10) return setCuts(datagram, 16, (cut) => cut.writeUInt16BE(cut.length, 2));
  return version === 0 && datagram.length >= 28 ? sampleCuts(datagram) : [];
}

function recordCuts(datagram: Buffer, octets: number): Cut[] {
  const count = datagram.readUInt16BE(2);
  if (24 + count * octets > datagram.length) return [];
  return Array.from({ length: count }, (_, i) => {
    const [start, end] = [24 + i * octets, 24 + (i + 1) * octets];
    const cut = Buffer.from(datagram.subarray(0, end));
    cut.writeUInt16BE(i + 1, 2);
    return { start, content: start, end, cut };
  });
}

function setCuts(datagram: Buffer, headerOctets: number, correct: (cut: Buffer) => void): Cut[] {
  const cuts: Cut[] = [];
  for (let start = headerOctets; start + 4 <= datagram.length; ) {
    const octets = datagram.readUInt16BE(start + 2);
    const end = start + octets;
    if (octets < 4 || end > datagram.length) break;
    const cut = Buffer.from(datagram.subarray(0, end));
    correct(cut);
    cuts.push({ start, content: start + 4, end, cut });
    start = end;
  }
  return cuts;
}

function sampleCuts(datagram: Buffer): Cut[] {
  const addressOctets = datagram.readUInt32BE(4) === 2 ? 16 : 4;
  const headerOctets = 24 + addressOctets;
  const cuts: Cut[] = [];
  for (let start = headerOctets; start + 8 <= datagram.length; ) {
    const end = start + 8 + datagram.readUInt32BE(start + 4);
    if (end > datagram.length) break;
    const cut = Buffer.from(datagram.subarray(0, end));
    cut.writeUInt32BE(cuts.length + 1, headerOctets - 4);
    cuts.push({ start, content: start + 8, end, cut });
    start = end;
  }
  return cuts;
}

/** The parts that give NARs and neither templates nor options. */
function partsOf(earlier: readonly Captured[], { datagram, address, receivedMs }: Captured, cuts: readonly Cut[]): FlowPart[] {
  const reached = (cut: Buffer) => {
    const decoder = new Decoder(roomy);
    for (const one of earlier) decoder.decode(one.datagram, one.address, one.receivedMs, () => undefined);
    let nars = 0;
    decoder.decode(cut, address, receivedMs, () => nars++);
    return { nars, others: decoder.counters.templates + decoder.counters.optionsRecords };
  };
  const all = reached(datagram).nars;
  let before = reached(datagram.subarray(0, cuts[0]?.start ?? 0));
  return cuts.flatMap(({ content, end, cut }) => {
    const now = reached(cut);
    const previous = before;
    before = now;
    const isFlows = now.nars > previous.nars && now.others === previous.others;
    return isFlows ? [{ start: content, end, before: previous.nars, behind: all - now.nars }] : [];
  });
}

function gapsOf(cuts: readonly Cut[]): number[] {
  const isOfSets = cuts.length > 0 && [9, 10].includes((cuts[0] as Cut).cut.readUInt16BE(0));
  return isOfSets ? cuts.map(({ end }) => end) : [];
}
