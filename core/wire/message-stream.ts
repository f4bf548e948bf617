/** IPFIX messages out of a stream of octets (RFC 7011 section 10.4): each says its own length, and segments end where they like. */
import { readUnsigned } from './cursor.ts';
import { ipfixHeaderOctets } from './ipfix.ts';

/** version: not 10, so that it is no IPFIX. length: less than a header. Where messages begin is not known after either. */
export type StreamFault = 'version' | 'length';

const ipfixVersion = 10;
/** Version and length. */
const prefixOctets = 4;

export class MessageStream {
  readonly #prefix = Buffer.alloc(prefixOctets);
  /** The message that has begun and not ended; nothing is set aside for one before its length is known. */
  #message: Buffer | null = null;
  #have = 0;
  #fault: StreamFault | null = null;

  /** Octets of a message that has not ended. */
  get pending(): number {
    return this.#have;
  }

  /** Calls take for each message that ends in the segment, at most 65,535 octets long, which may be used again afterwards. Gives the first fault. */
  push(segment: Buffer, take: (message: Buffer) => void): StreamFault | null {
    let at = 0;
    while (this.#fault === null && at < segment.length) {
      const length = this.#have === 0 && segment.length - at >= prefixOctets ? this.#lengthAt(segment, at) : 0;
      if (this.#fault === null && length > 0 && at + length <= segment.length) {
        take(segment.subarray(at, at + length));
        at += length;
      } else {
        at += this.#goOn(segment, at, take);
      }
    }
    return this.#fault;
  }

  /** A part of a message; gives the octets that were taken of the segment. */
  #goOn(segment: Buffer, at: number, take: (message: Buffer) => void): number {
    const target = this.#message ?? this.#prefix;
    const octets = Math.min(target.length - this.#have, segment.length - at);
    segment.copy(target, this.#have, at, at + octets);
    this.#have += octets;
    if (this.#have < target.length) return octets;
    if (this.#message === null) {
      const length = this.#lengthAt(this.#prefix, 0);
      if (this.#fault !== null) return octets;
      this.#message = Buffer.alloc(length);
      this.#prefix.copy(this.#message);
    } else {
      const message = this.#message;
      this.#message = null;
      this.#have = 0;
      take(message);
    }
    return octets;
  }

  #lengthAt(bytes: Buffer, at: number): number {
    const length = readUnsigned(bytes, at + 2, 2);
    if (readUnsigned(bytes, at, 2) !== ipfixVersion) this.#fault = 'version';
    else if (length < ipfixHeaderOctets) this.#fault = 'length';
    return length;
  }
}
