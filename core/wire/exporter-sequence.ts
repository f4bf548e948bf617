/**
 * What an exporter's own sequence numbers say about loss on the way. NetFlow v5 counts flows, IPFIX data records, NetFlow v9 and sFlow datagrams.
 *
 * A datagram that comes where it is expected settles nothing but itself. One that comes too early leaves a gap: counted as lost, and remembered, so
 * that a late datagram takes its part back. One that comes from behind and fills no gap is a duplicate, or tells that the exporter started anew.
 */

/** A datagram's header, as far as the sequence is concerned. */
export interface Arrival {
  readonly sequence: number;
  /** The header's export time, Unix time in ms. */
  readonly exportMs: number;
  /** Unix time of the exporter's start as far as the header tells it (export time less uptime), else NaN. */
  readonly bootMs: number;
  /** A digest of the datagram: two with the same one and the same sequence are the same datagram. */
  readonly signature: number;
}

/** Records that came in sets without a template: how many they are is known only from the next datagram's sequence, or when the template comes. */
export interface Unsettled {
  recordsMax: number;
  /** What the next datagram's sequence gives to them; -1 while none came. */
  attributed: number;
  /** No template will come any more. */
  given: boolean;
  /** Set where the datagram came late: its sequence behind its known records; else -1. */
  readonly lateFrom: number;
}

/** Gaps that a late datagram can still fill; beyond these the oldest stays lost. */
const gapsMax = 16;
/** Recent datagrams in which a duplicate is looked for. */
const recentMax = 32;
/** An exporter's start is computed from times in whole seconds, and clocks are adjusted; a restart moves it by more. */
const bootToleranceMs = 5_000;
/** sysUptime wraps after 2^32 ms, which looks like a restart that many ms later. */
const uptimeWrapMs = 2 ** 32;
/** No exporter counts faster: a jump ahead of more than this much is a new numbering and not a loss. */
const plausiblePerMs = 1_000;
const plausibleJump = 1_000_000;

export type Place = 'next' | 'late' | 'stale';

export class ExporterSequence {
  /**
   * Since the owner last set them to 0: units lost (negative where a late datagram filled a gap of before), and units received that could not be
   * decoded.
   */
  lost = 0;
  undecodable = 0;
  restarts = 0;

  #started = false;
  #next = 0;
  #newestExportMs = 0;
  #bootMs = Number.NaN;
  /** Half-open ranges of sequence numbers, oldest first. */
  #gaps: [from: number, to: number][] = [];
  /** The records after the newest datagram's known ones. */
  #open: Unsettled | null = null;
  /** Attributed to records that still wait for their template. */
  #held = 0;
  /** Where the numbering would go on if a datagram from behind was the first of a new one; -1: none. */
  #candidate = -1;
  #place: Place = 'next';
  #arrived = 0;
  readonly #recentSequences = new Uint32Array(recentMax);
  readonly #recentSignatures = new Int32Array(recentMax);
  #recentCount = 0;

  /** Of the datagram that arrived last: where it was expected or ahead of it, in a gap, or from behind without one. */
  get place(): Place {
    return this.#place;
  }

  /** The first half of taking a datagram: false where the network delivered it before. `settle` follows when its records are counted. */
  arrive(arrival: Arrival): boolean {
    const { sequence, exportMs } = arrival;
    if (!this.#started) {
      this.#started = true;
      this.#place = 'next';
    } else {
      const ahead = (sequence - this.#next) | 0;
      if ((ahead < 0 || this.#open !== null) && this.#seen(sequence, arrival.signature)) return false;
      this.#place = this.#placeOf(arrival, ahead);
    }
    const slot = this.#recentCount++ % recentMax;
    this.#recentSequences[slot] = sequence;
    this.#recentSignatures[slot] = arrival.signature;
    this.#arrived = sequence;
    if (!(exportMs < this.#newestExportMs)) this.#newestExportMs = exportMs;
    if (this.#place === 'next') this.#bootMs = arrival.bootMs;
    return true;
  }

  /** The second half: units that the datagram is known to hold, and how many more there may be at most in sets without a template. */
  settle(units: number, unknownMax: number): Unsettled | null {
    const behind = (this.#arrived + units) >>> 0;
    if (this.#place === 'stale') {
      this.#candidate = behind;
      return null;
    }
    if (this.#place === 'late') {
      this.#fill(this.#arrived, units);
      return unknownMax > 0 ? { recordsMax: unknownMax, attributed: 0, given: false, lateFrom: behind } : null;
    }
    this.#candidate = -1;
    this.#next = behind;
    if (unknownMax === 0) return null;
    this.#open = { recordsMax: unknownMax, attributed: -1, given: false, lateFrom: -1 };
    return this.#open;
  }

  /** The unsettled records are all decoded (`records` of them), or the rest is given up. */
  resolve(unsettled: Unsettled, records: number, complete: boolean): void {
    if (unsettled.lateFrom >= 0) {
      this.#fill(unsettled.lateFrom, records);
    } else if (unsettled === this.#open) {
      this.#next = (this.#next + records) >>> 0;
      unsettled.recordsMax = Math.max(0, unsettled.recordsMax - records);
      if (complete) this.#open = null;
      else unsettled.given = true;
    } else {
      this.#held -= unsettled.attributed;
      const rest = Math.max(0, unsettled.attributed - records);
      if (complete) this.lost += rest;
      else this.undecodable += rest;
    }
  }

  /** The position as a short text. What waits for a template is in it, since it will not outlive the process. */
  position(): string {
    const boot = Number.isNaN(this.#bootMs) ? null : this.#bootMs;
    return JSON.stringify([this.#next, this.#newestExportMs, boot, this.#held, this.#open?.recordsMax ?? 0, this.#gaps]);
  }

  /** Takes a position up again; false, and nothing changed, where the text is none. */
  restore(text: string): boolean {
    const parts = parsePosition(text);
    if (parts === undefined) return false;
    const [next, newestExportMs, bootMs, held, openMax, gaps] = parts;
    this.#started = true;
    this.#next = next >>> 0;
    this.#newestExportMs = newestExportMs;
    this.#bootMs = bootMs ?? Number.NaN;
    this.undecodable += held;
    this.#open = openMax > 0 ? { recordsMax: openMax, attributed: -1, given: true, lateFrom: -1 } : null;
    this.#gaps = gaps.slice(-gapsMax);
    return true;
  }

  #placeOf(arrival: Arrival, ahead: number): Place {
    const { sequence, exportMs } = arrival;
    if (ahead !== 0 && this.#restartedBy(arrival, ahead)) {
      this.#restart();
    } else if (ahead >= 0) {
      const missing = this.#attribute(ahead);
      if (missing > 0) this.#remember((sequence - missing) >>> 0, sequence, missing);
    } else if (this.#gapAt(sequence) >= 0) {
      return 'late';
    } else if (exportMs > this.#newestExportMs || sequence === this.#candidate) {
      // A late datagram was exported no later than what came before it; and two in a row from behind are no accident.
      this.#restart();
    } else {
      return 'stale';
    }
    return 'next';
  }

  /** The exporter's start moved ahead, or the numbering jumps further than anything can count. */
  #restartedBy(arrival: Arrival, ahead: number): boolean {
    const bootMoved = arrival.bootMs - this.#bootMs;
    if (bootMoved > bootToleranceMs && Math.abs(bootMoved - uptimeWrapMs) > bootToleranceMs) return true;
    const elapsedMs = Math.max(0, arrival.exportMs - this.#newestExportMs);
    return ahead > plausibleJump + elapsedMs * plausiblePerMs;
  }

  #restart(): void {
    this.restarts++;
    this.#gaps = [];
    this.#attribute(0);
  }

  /** Gives the open records their part of the units between what was expected and what came; returns the rest, which is lost. */
  #attribute(ahead: number): number {
    const open = this.#open;
    if (open === null) return ahead;
    const part = Math.min(ahead, open.recordsMax);
    open.attributed = part;
    if (open.given) this.undecodable += part;
    else this.#held += part;
    this.#open = null;
    return ahead - part;
  }

  #remember(from: number, to: number, units: number): void {
    this.lost += units;
    this.#gaps.push([from, to]);
    if (this.#gaps.length > gapsMax) this.#gaps.shift();
  }

  #gapAt(sequence: number): number {
    return this.#gaps.findIndex(([from, to]) => (sequence - from) >>> 0 < (to - from) >>> 0);
  }

  /** Takes units of a late datagram back out of the gap that they lie in. */
  #fill(sequence: number, units: number): void {
    const index = this.#gapAt(sequence);
    if (index < 0 || units === 0) return;
    const [from, to] = this.#gaps[index]!;
    const filled = Math.min(units, (to - sequence) >>> 0);
    this.lost -= filled;
    const behind = (sequence + filled) >>> 0;
    const rest: [number, number][] = [];
    if (from !== sequence) rest.push([from, sequence]);
    if (behind !== to) rest.push([behind, to]);
    this.#gaps.splice(index, 1, ...rest);
    if (this.#gaps.length > gapsMax) this.#gaps.shift();
  }

  #seen(sequence: number, signature: number): boolean {
    const count = Math.min(this.#recentCount, recentMax);
    for (let i = 0; i < count; i++) {
      if (this.#recentSequences[i] === sequence && this.#recentSignatures[i] === signature) return true;
    }
    return false;
  }
}

type Position = [next: number, newestExportMs: number, bootMs: number | null, held: number, openMax: number, gaps: [number, number][]];

function parsePosition(text: string): Position | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(value) || value.length !== 6) return undefined;
  const [next, newestExportMs, bootMs, held, openMax, gaps] = value as unknown[];
  const counts = [next, held, openMax].every((part) => Number.isSafeInteger(part) && (part as number) >= 0);
  const times = Number.isFinite(newestExportMs) && (bootMs === null || Number.isFinite(bootMs));
  const ranges = Array.isArray(gaps) && gaps.every((gap) => Array.isArray(gap) && gap.length === 2 && gap.every(Number.isSafeInteger));
  return counts && times && ranges ? (value as Position) : undefined;
}

/** The longest header (NetFlow v5); its times tell a restarted exporter's datagram from an earlier one with the same flows. */
const headerOctetsMax = 24;

/** Digest of a datagram's length, its header, and at most 64 of its other 32-bit words, spread over it: enough beside an equal sequence. */
export function signatureOf(datagram: Uint8Array): number {
  let hash = datagram.length;
  const step = Math.max(4, (datagram.length >> 8) << 2);
  for (let at = 0; at + 4 <= datagram.length; at += at < headerOctetsMax ? 4 : step) {
    const word = (datagram[at]! << 24) | (datagram[at + 1]! << 16) | (datagram[at + 2]! << 8) | datagram[at + 3]!;
    hash = Math.imul(hash ^ word, 0x01000193);
    hash ^= hash >>> 15;
  }
  return hash | 0;
}
