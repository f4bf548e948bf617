/** Kafka's protocol as far as a proxy must read it: frames, heads of requests, what a Produce request says, and what its response is made to say. */

export const produceKey = 0;
export const joinGroupKey = 11;
export const heartbeatKey = 12;
export const leaveGroupKey = 13;
export const syncGroupKey = 14;
export const addOffsetsToTxnKey = 25;
export const endTxnKey = 26;
export const txnOffsetCommitKey = 28;

export const notLeaderError = 6;

/** A length of four octets, then as many. */
export class Frames {
  #rest: Buffer = Buffer.alloc(0);

  take(chunk: Buffer): Buffer[] {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    const frames: Buffer[] = [];
    while (this.#rest.length >= 4 && this.#rest.length >= 4 + this.#rest.readInt32BE(0)) {
      const end = 4 + this.#rest.readInt32BE(0);
      frames.push(this.#rest.subarray(0, end));
      this.#rest = this.#rest.subarray(end);
    }
    return frames;
  }
}

/** One partition's records in a Produce request; the numbers are those of its first batch. */
export interface Produced {
  readonly topic: string;
  readonly partition: number;
  readonly producerId: bigint;
  readonly producerEpoch: number;
  readonly baseSequence: number;
  readonly records: number;
}

/** Request => length:4 api_key:2 api_version:2 correlation_id:4 client_id:STRING, tagged fields in flexible versions, body. */
export function readProduced(request: Buffer): Produced[] {
  const cursor = new Cursor(request, 12, request.readInt16BE(6) >= 9);
  cursor.at += 2 + Math.max(0, request.readInt16BE(cursor.at));
  cursor.tags();
  cursor.text();
  cursor.at += 6;
  const produced: Produced[] = [];
  for (let topics = cursor.count(); topics > 0; topics--) {
    const topic = cursor.text();
    for (let partitions = cursor.count(); partitions > 0; partitions--) {
      const partition = cursor.int32();
      const length = cursor.count();
      const batch = request.subarray(cursor.at, cursor.at + length);
      cursor.at += length;
      cursor.tags();
      produced.push({
        topic,
        partition,
        producerId: batch.readBigInt64BE(43),
        producerEpoch: batch.readInt16BE(51),
        baseSequence: batch.readInt32BE(53),
        records: batch.readInt32BE(57),
      });
    }
    cursor.tags();
  }
  return produced;
}

/** The response to a Produce request with another error code for its first partition. */
export function withProduceError(apiVersion: number, response: Buffer, errorCode: number): Buffer {
  const changed = Buffer.from(response);
  const cursor = new Cursor(changed, 8, apiVersion >= 9);
  cursor.tags();
  cursor.count();
  cursor.text();
  cursor.count();
  changed.writeInt16BE(errorCode, cursor.at + 4);
  return changed;
}

/** Reads on from a place, in the encoding of older versions or in the flexible one (variable lengths, tagged fields). */
export class Cursor {
  readonly #bytes: Buffer;
  readonly #flexible: boolean;
  at: number;

  constructor(bytes: Buffer, at: number, flexible: boolean) {
    this.#bytes = bytes;
    this.at = at;
    this.#flexible = flexible;
  }

  int32(): number {
    this.at += 4;
    return this.#bytes.readInt32BE(this.at - 4);
  }

  /** Of an array or of octets; -1 for null. */
  count(): number {
    return this.#flexible ? this.#unsigned() - 1 : this.int32();
  }

  /** '' for null. */
  text(): string {
    let length = 0;
    if (this.#flexible) length = this.#unsigned() - 1;
    else {
      length = this.#bytes.readInt16BE(this.at);
      this.at += 2;
    }
    const start = this.at;
    this.at += Math.max(0, length);
    return this.#bytes.toString('utf8', start, this.at);
  }

  tags(): void {
    if (!this.#flexible) return;
    for (let tags = this.#unsigned(); tags > 0; tags--) {
      this.#unsigned();
      const length = this.#unsigned();
      this.at += length;
    }
  }

  #unsigned(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const octet = this.#bytes.readUInt8(this.at++);
      value |= (octet & 0x7f) << shift;
      if (octet < 0x80) return value;
    }
  }
}
