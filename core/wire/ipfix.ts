/** IPFIX (RFC 7011): message header and template records. */
import { type Cursor, readUnsigned } from './cursor.ts';
import type { SetHeader, TemplateRecord } from './message.ts';
import { readFields } from './template.ts';

export const ipfixHeaderOctets = 16;

/** undefined where the message's own length cannot be. A message ends where its length says, or where the datagram does. */
export function readIpfixHeader(bytes: Uint8Array): SetHeader | undefined {
  const length = readUnsigned(bytes, 2, 2);
  if (length < ipfixHeaderOctets) return undefined;
  return {
    protocol: 'ipfix',
    uptimeMs: -1,
    exportMs: readUnsigned(bytes, 4, 4) * 1000,
    sequence: readUnsigned(bytes, 8, 4),
    observationDomainId: readUnsigned(bytes, 12, 4),
    setsAt: ipfixHeaderOctets,
    end: Math.min(length, bytes.length),
    cutOctets: Math.max(0, length - bytes.length),
  };
}

/**
 * One template or options template record, without fields where it withdraws one (section 8.1); undefined where it is malformed or the rest is
 * padding.
 */
export function readIpfixTemplate(cursor: Cursor, ofOptions: boolean): TemplateRecord | undefined {
  const id = cursor.u16();
  const count = cursor.u16();
  if (count === 0) return { id, fields: [], scopes: ofOptions ? 0 : -1 };
  const scopes = ofOptions ? cursor.u16() : -1;
  if (scopes === 0 || scopes > count) return undefined;
  const fields = readFields(cursor, count, true);
  return fields === undefined ? undefined : { id, fields, scopes };
}
