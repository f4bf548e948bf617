/** Kafka's protocol as far as a proxy must read it: frames, heads of requests, what a Produce request says, and what its response is made to say. */

export const produceKey = 0;
export const metadataKey = 3;
export const joinGroupKey = 11;
export const heartbeatKey = 12;
export const leaveGroupKey = 13;
export const syncGroupKey = 14;
export const initProducerIdKey = 22;
export const addPartitionsToTxnKey = 24;
export const addOffsetsToTxnKey = 25;
export const endTxnKey = 26;
export const txnOffsetCommitKey = 28;

export const notLeaderError = 6;

/** A length of four octets, then as many. */
export class Frames {
  #chunks: Buffer[] = [];
  #bytes = 0;

  take(chunk: Buffer): Buffer[] {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    const frames: Buffer[] = [];
    for (let length = this.#frameBytes(); length !== null && this.#bytes >= length; length = this.#frameBytes()) {
      const joined = Buffer.concat(this.#chunks);
      frames.push(joined.subarray(0, length));
      this.#chunks = [joined.subarray(length)];
      this.#bytes -= length;
    }
    return frames;
  }

  /** A large frame comes in many chunks, which are joined only when they are all there. */
  #frameBytes(): number | null {
    if (this.#bytes < 4) return null;
    if ((this.#chunks[0]?.length ?? 0) < 4) this.#chunks = [Buffer.concat(this.#chunks)];
    return 4 + (this.#chunks[0] as Buffer).readInt32BE(0);
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

/**
 * The response to a Produce request with other error codes, where one is given for a partition.
 * Produce (versions 5 to 12) => [topic [index error_code base_offset log_append_time log_start_offset, [batch_index message] message from 8 on]]
 */
export function withProduceErrors(apiVersion: number, response: Buffer, errorOf: (topic: string, partition: number) => number | null): Buffer {
  const changed = Buffer.from(response);
  const cursor = new Cursor(changed, 8, apiVersion >= 9);
  cursor.tags();
  for (let topics = cursor.count(); topics > 0; topics--) {
    const topic = cursor.text();
    for (let partitions = cursor.count(); partitions > 0; partitions--) {
      const errorCode = errorOf(topic, cursor.int32());
      if (errorCode !== null) changed.writeInt16BE(errorCode, cursor.at);
      cursor.skip(26);
      if (apiVersion >= 8) {
        for (let errors = cursor.count(); errors > 0; errors--) {
          cursor.int32();
          cursor.text();
          cursor.tags();
        }
        cursor.text();
      }
      cursor.tags();
    }
    cursor.tags();
  }
  return changed;
}

/** The client's own name for itself. */
export function readClientId(request: Buffer): string {
  return request.toString('utf8', 14, 14 + Math.max(0, request.readInt16BE(12)));
}

/** InitProducerId => transactional_id transaction_timeout_ms, producer_id and producer_epoch from version 3 on. */
export function readInitProducerId(request: Buffer): { transactionTimeoutMs: number; producerId: bigint; producerEpoch: number } {
  const cursor = new Cursor(request, 12, request.readInt16BE(6) >= 2);
  cursor.at += 2 + Math.max(0, request.readInt16BE(cursor.at));
  cursor.tags();
  cursor.text();
  const transactionTimeoutMs = cursor.int32();
  const hasIdentity = request.readInt16BE(6) >= 3;
  const producerId = hasIdentity ? request.readBigInt64BE(cursor.at) : -1n;
  return { transactionTimeoutMs, producerId, producerEpoch: hasIdentity ? request.readInt16BE(cursor.at + 8) : -1 };
}

export interface Node {
  readonly id: number;
  readonly port: number;
}

/**
 * A metadata response that shows one broker as several nodes, each behind a port of its own, and says which of them leads a partition.
 * Metadata (versions 5 to 12) => throttle_time_ms [node_id host port rack] cluster_id controller_id
 *   [error_code name topic_id(10+) is_internal [error_code index leader leader_epoch(7+) [replicas] [isr] [offline]] operations(8+)]
 */
export function withNodes(apiVersion: number, response: Buffer, nodes: readonly Node[], leaderOf: (partition: number) => number): Buffer {
  const changed = Buffer.from(response);
  const flexible = apiVersion >= 9;
  const cursor = new Cursor(changed, 8, flexible);
  cursor.tags();
  cursor.int32();
  const from = cursor.at;
  for (let brokers = cursor.count(); brokers > 0; brokers--) {
    cursor.int32();
    cursor.text();
    cursor.int32();
    cursor.text();
    cursor.tags();
  }
  const to = cursor.at;
  cursor.text();
  cursor.int32();
  for (let topics = cursor.count(); topics > 0; topics--) {
    cursor.at += 2;
    cursor.text();
    cursor.at += (apiVersion >= 10 ? 16 : 0) + 1;
    for (let partitions = cursor.count(); partitions > 0; partitions--) {
      cursor.at += 2;
      changed.writeInt32BE(leaderOf(cursor.int32()), cursor.at);
      cursor.at += apiVersion >= 7 ? 8 : 4;
      for (let lists = 3; lists > 0; lists--) cursor.skip(4 * cursor.count());
      cursor.tags();
    }
    cursor.at += apiVersion >= 8 ? 4 : 0;
    cursor.tags();
  }
  const frame = Buffer.concat([changed.subarray(0, from), encodeNodes(nodes, flexible), changed.subarray(to)]);
  frame.writeInt32BE(frame.length - 4, 0);
  return frame;
}

function encodeNodes(nodes: readonly Node[], flexible: boolean): Buffer {
  const int32 = (value: number) => {
    const octets = Buffer.alloc(4);
    octets.writeInt32BE(value);
    return octets;
  };
  const host = Buffer.from('127.0.0.1');
  const each = nodes.map(({ id, port }) =>
    flexible
      ? Buffer.concat([int32(id), Buffer.from([host.length + 1]), host, int32(port), Buffer.from([0, 0])])
      : Buffer.concat([int32(id), Buffer.from([0, host.length]), host, int32(port), Buffer.from([0xff, 0xff])]),
  );
  return Buffer.concat([flexible ? Buffer.from([nodes.length + 1]) : int32(nodes.length), ...each]);
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

  skip(octets: number): void {
    this.at += Math.max(0, octets);
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
