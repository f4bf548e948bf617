/** What NetFlow v9 and IPFIX have in common: a header, then sets of templates, options templates and data records. */
import type { TemplateField } from './template.ts';

export interface SetHeader {
  readonly protocol: 'netflow_v9' | 'ipfix';
  /** sysUptime; -1 in IPFIX, which has none. */
  readonly uptimeMs: number;
  readonly exportMs: number;
  readonly sequence: number;
  readonly observationDomainId: number;
  /** Where the sets begin and end in the datagram. */
  readonly setsAt: number;
  readonly end: number;
  /** Octets that the message should have beyond the datagram's end. */
  readonly cutOctets: number;
}

export interface TemplateRecord {
  readonly id: number;
  /** Empty in a withdrawal. */
  readonly fields: readonly TemplateField[];
  /** Number of scope fields; -1 for flow records. */
  readonly scopes: number;
}

/** Data sets have ids from here on; those below are templates or reserved. */
export const dataSetIdMin = 256;
