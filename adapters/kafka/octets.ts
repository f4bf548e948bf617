/** Octets of Kafka's protocol, in network order: what our own requests are written with, and their responses read with. */

/** The client's writer asks only for a buffer of what it is to send. */
export const encoded = (buffer: Buffer) => ({ buf: buffer, buffer, size: () => buffer.length });

/** Octets written one after another. */
export class OctetWriter {
  readonly #parts: Buffer[] = [];

  int8(value: number): this {
    this.#parts.push(Buffer.from([value & 0xff]));
    return this;
  }
  int16(value: number): this {
    const part = Buffer.allocUnsafe(2);
    part.writeInt16BE(value);
    this.#parts.push(part);
    return this;
  }
  int32(value: number): this {
    const part = Buffer.allocUnsafe(4);
    part.writeInt32BE(value);
    this.#parts.push(part);
    return this;
  }
  int64(value: number): this {
    const part = Buffer.allocUnsafe(8);
    part.writeBigInt64BE(BigInt(value));
    this.#parts.push(part);
    return this;
  }
  octets(value: Buffer): this {
    this.#parts.push(value);
    return this;
  }
  string(value: string): this {
    const text = Buffer.from(value);
    return this.int16(text.length).octets(text);
  }
  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** The length of a compact string or array, one more than it is. */
export function compactLength(length: number): Buffer {
  const octets: number[] = [];
  let value = length + 1;
  for (; value >= 0x80; value >>>= 7) octets.push((value & 0x7f) | 0x80);
  octets.push(value);
  return Buffer.from(octets);
}

/** Octets read one after another; compact types and tagged fields are those of the flexible versions. */
export class OctetReader {
  readonly #payload: Buffer;
  #at = 0;

  constructor(payload: Buffer) {
    this.#payload = payload;
  }

  skip(octets: number): void {
    this.#at += octets;
  }

  take(octets: number): Buffer {
    this.skip(octets);
    return this.#payload.subarray(this.#at - octets, this.#at);
  }

  int16(): number {
    return this.take(2).readInt16BE();
  }

  int32(): number {
    return this.take(4).readInt32BE();
  }

  int64(): number {
    return Number(this.take(8).readBigInt64BE());
  }

  unsigned(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const octet = this.take(1).readUInt8();
      value |= (octet & 0x7f) << shift;
      if (octet < 0x80) return value;
    }
  }

  /** Entries of an array; a null array has none. */
  compactCount(): number {
    return Math.max(0, this.unsigned() - 1);
  }

  /** A null string is empty. */
  compactText(): string {
    return this.take(this.compactCount()).toString('utf8');
  }

  skipTags(): void {
    for (let tags = this.unsigned(); tags > 0; tags--) {
      this.unsigned();
      this.skip(this.unsigned());
    }
  }
}
