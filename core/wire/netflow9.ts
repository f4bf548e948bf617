/** NetFlow v9 (RFC 3954): header and template records. The header's Count is not trusted; real devices get it wrong. */
import { type Cursor, readUnsigned } from './cursor.ts';
import type { SetHeader, TemplateRecord } from './message.ts';
import { readFields, type TemplateField } from './template.ts';

export const netflow9HeaderOctets = 20;

/**
 * Scope types (RFC 3954 section 6.1) are numbers of their own; they are kept apart from elements by this enterprise number that no 32 bits can hold.
 */
export const netflow9Scope = 2 ** 32;

export function readNetflow9Header(bytes: Uint8Array): SetHeader {
  return {
    protocol: 'netflow_v9',
    uptimeMs: readUnsigned(bytes, 4, 4),
    exportMs: readUnsigned(bytes, 8, 4) * 1000,
    sequence: readUnsigned(bytes, 12, 4),
    observationDomainId: readUnsigned(bytes, 16, 4),
    setsAt: netflow9HeaderOctets,
    end: bytes.length,
    cutOctets: 0,
  };
}

/** One template or options template record; undefined where it is malformed or the rest is padding. */
export function readNetflow9Template(cursor: Cursor, ofOptions: boolean): TemplateRecord | undefined {
  const id = cursor.u16();
  if (!ofOptions) {
    const fields = readFields(cursor, cursor.u16(), false);
    return fields === undefined || fields.length === 0 ? undefined : { id, fields, scopes: -1 };
  }
  // Options templates tell octets, not fields; a field specifier has four.
  const scopes = cursor.u16() >> 2;
  const options = cursor.u16() >> 2;
  const fields = readFields(cursor, scopes + options, false);
  if (fields === undefined || fields.length === 0) return undefined;
  return { id, fields: fields.map((field, i): TemplateField => (i < scopes ? { ...field, enterprise: netflow9Scope } : field)), scopes };
}
