/** Avro in Confluent's wire format: an octet 0, the schema's id in four octets, the Avro body. The only importer of avsc. */
import { readFileSync } from 'node:fs';
import avro from 'avsc';
import type { Ack, Agreement, Election, FoldState, Health, NarBatch, Output, OutputBlock, SnapshotChunk, Verdict } from './types.ts';

/** Ids are fixed: they are part of every stored record, and a reader that does not know one must stop. */
const schemaIds = {
  // 1 had no details in its NARs.
  'nar-batch': 11,
  output: 2,
  'output-block': 3,
  ack: 4,
  health: 5,
  election: 6,
  'snapshot-chunk': 7,
  'fold-state': 8,
  agreement: 9,
  verdict: 10,
} as const;

type SchemaName = keyof typeof schemaIds;

export interface Codec<T> {
  readonly schemaId: number;
  /** The record in wire format, in a buffer of its own. */
  encode(value: T): Buffer;
  /** @throws UnknownSchema when the id is not this codec's, UndecodableRecord when the bytes are not such a record. */
  decode(bytes: Uint8Array): T;
}

/** The schema of a record is not known here: nothing may be concluded from it, so the reader stops. */
export class UnknownSchema extends Error {
  readonly schemaId: number;
  constructor(schemaId: number, expected: SchemaName) {
    super(`schema id ${schemaId} is not known (expected ${schemaIds[expected]}, ${expected}): upgrade this service before it reads on`);
    this.schemaId = schemaId;
  }
}

/** No schema can decode these bytes. */
export class UndecodableRecord extends Error {}

const headerBytes = 5;

/** Totals may outgrow 2^53, so they are bigint; all other longs are plain numbers, and avsc throws where one is not safe. */
const totalType = avro.types.LongType.__with({
  fromBuffer: (buffer: Buffer) => buffer.readBigInt64LE(),
  toBuffer: (value: bigint) => {
    const buffer = Buffer.allocUnsafe(8);
    buffer.writeBigInt64LE(value);
    return buffer;
  },
  fromJSON: BigInt,
  toJSON: String,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0),
} as never);

interface Tap {
  readonly buf: Buffer;
  pos: number;
  readLong(): number;
  skipLong(): void;
}

interface ArrayReading {
  readonly itemsType: { _read(tap: Tap): unknown };
  _read(tap: Tap): unknown[];
}

/**
 * avsc believes an array's number of items, and would go on behind the end of the bytes until memory is full: one malformed record would take every
 * reader down (F16). Every item of ours has an octet at least, so more items than octets are no record.
 */
(avro.types.ArrayType.prototype as unknown as ArrayReading)._read = function (this: ArrayReading, tap: Tap): unknown[] {
  const items: unknown[] = [];
  for (;;) {
    let count = tap.readLong();
    if (!count) return items;
    if (count < 0) {
      count = -count;
      tap.skipLong();
    }
    if (count > tap.buf.length - tap.pos) throw new UndecodableRecord(`an array of ${count} items in ${tap.buf.length} octets`);
    for (; count > 0; count--) items.push(this.itemsType._read(tap));
  }
};

const registry: { [name: string]: avro.Type } = {};

interface RecordSchema {
  readonly fields: readonly { readonly name: string }[];
}

function readSchema(name: SchemaName): RecordSchema {
  return JSON.parse(readFileSync(new URL(`${name}.avsc`, import.meta.url), 'utf8'));
}

function parse(schema: RecordSchema, names: { [name: string]: avro.Type }): avro.Type {
  return avro.Type.forSchema(dropTotalDefaults(schema), {
    registry: names,
    wrapUnions: 'never',
    typeHook: (part: unknown) => ((part as { total?: boolean }).total ? totalType : undefined),
  } as never);
}

/** avsc wants a default in the type's own form, and JSON has no bigint; writers always give these fields. */
function dropTotalDefaults(schema: unknown): avro.Schema {
  return JSON.parse(JSON.stringify(schema), (_key, value) => {
    if (value?.type?.total) {
      const { default: _default, ...field } = value;
      return field;
    }
    return value;
  });
}

function codecOf<T>(name: SchemaName): Codec<T> {
  const type = parse(readSchema(name), registry);
  const schemaId = schemaIds[name];
  let scratch = Buffer.allocUnsafe(64 * 1024);
  return {
    schemaId,
    encode(value) {
      let end = (type as never as { encode(v: T, b: Buffer, p: number): number }).encode(value, scratch, headerBytes);
      if (end < 0) {
        scratch = Buffer.allocUnsafe(2 * (scratch.length - end));
        end = (type as never as { encode(v: T, b: Buffer, p: number): number }).encode(value, scratch, headerBytes);
      }
      scratch[0] = 0;
      scratch.writeUInt32BE(schemaId, 1);
      return Buffer.from(scratch.subarray(0, end));
    },
    decode(bytes) {
      const { value, end } = decodeFrom<T>(type, name, bytes);
      if (end !== bytes.length) throw new UndecodableRecord(`${name}: ${bytes.length - end} octets too many`);
      return value;
    },
  };
}

/** What the type says of the bytes behind the header, and where that ends. @throws UnknownSchema, UndecodableRecord */
function decodeFrom<T>(type: avro.Type, name: SchemaName, bytes: Uint8Array): { value: T; end: number } {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < headerBytes || buffer[0] !== 0) throw new UndecodableRecord(`${name}: not in Confluent's wire format`);
  const id = buffer.readUInt32BE(1);
  if (id !== schemaIds[name]) throw new UnknownSchema(id, name);
  try {
    const { value, offset } = (type as never as { decode(b: Buffer, p: number): { value: T; offset: number } }).decode(buffer, headerBytes);
    if (offset < 0) throw new UndecodableRecord(`${name}: it is shorter than it says`);
    return { value, end: offset };
  } catch (error) {
    throw error instanceof UndecodableRecord ? error : new UndecodableRecord(`${name}: ${(error as Error).message}`);
  }
}

export const narBatchCodec = codecOf<NarBatch>('nar-batch');
export const outputCodec = codecOf<Output>('output');
export const outputBlockCodec = codecOf<OutputBlock>('output-block');
export const ackCodec = codecOf<Ack>('ack');
export const healthCodec = codecOf<Health>('health');
export const electionCodec = codecOf<Election>('election');
export const snapshotChunkCodec = codecOf<SnapshotChunk>('snapshot-chunk');
export const agreementCodec = codecOf<Agreement>('agreement');
export const verdictCodec = codecOf<Verdict>('verdict');
export const foldStateCodec = codecOf<FoldState>('fold-state');

/** All of a batch but its NARs. */
export type NarBatchFrame = Omit<NarBatch, 'nars'>;

const frameType = frameOf(readSchema('nar-batch'));

function frameOf({ fields, ...schema }: RecordSchema): avro.Type {
  if (fields.at(-1)?.name !== 'nars') throw new Error('nars must stay the last field of a NarBatch: they are read and written apart from the others');
  return parse({ ...schema, fields: fields.slice(0, -1) }, {});
}

/** Decodes what comes before the NARs, and says where the array of these begins. @throws UnknownSchema, UndecodableRecord */
export function decodeNarBatchFrame(bytes: Uint8Array): { readonly frame: NarBatchFrame; readonly narsStart: number } {
  const { value, end } = decodeFrom<NarBatchFrame>(frameType, 'nar-batch', bytes);
  return { frame: value, narsStart: end };
}

/** What an output's chain is computed over: its Avro encoding with the chain of n - 1 in place of its own. */
export function encodeForChain(output: Output, previousChain: Uint8Array): Buffer {
  return outputType.toBuffer({ ...output, chain: previousChain });
}

const outputType = registry['flowledger.Output'] as avro.Type;
