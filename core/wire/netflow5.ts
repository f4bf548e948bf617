/** NetFlow v5: a header of 24 octets and records of 48, always the same. */
import { readUnsigned } from './cursor.ts';
import { compileTemplate, type Template, type TemplateField } from './template.ts';

/** Of versions 5 and 7. */
export const fixedHeaderOctets = 24;

export interface FixedHeader {
  readonly count: number;
  readonly uptimeMs: number;
  readonly exportMs: number;
  readonly sequence: number;
  /** Version 5: engine type x 256 + engine id, since each engine counts its own sequence. */
  readonly observationDomainId: number;
  /** 0 where the header tells none. */
  readonly samplingRate: number;
}

/** The caller has seen that the header is whole. */
export function readNetflow5Header(bytes: Uint8Array): FixedHeader {
  return {
    ...readFixedHeader(bytes),
    observationDomainId: readUnsigned(bytes, 20, 2),
    // The upper two bits tell the sampling mode.
    samplingRate: readUnsigned(bytes, 22, 2) & 0x3fff,
  };
}

/** What versions 5 and 7 have in common. */
export function readFixedHeader(bytes: Uint8Array): Omit<FixedHeader, 'observationDomainId' | 'samplingRate'> {
  return {
    count: readUnsigned(bytes, 2, 2),
    uptimeMs: readUnsigned(bytes, 4, 4),
    exportMs: readUnsigned(bytes, 8, 4) * 1000 + Math.floor(readUnsigned(bytes, 12, 4) / 1e6),
    sequence: readUnsigned(bytes, 16, 4),
  };
}

/** A count that does not fit the datagram's length means that the datagram is corrupt, and then no part of it can be trusted. */
export function isFixedWhole(bytes: Uint8Array, count: number, recordOctets: number): boolean {
  const rest = bytes.length - fixedHeaderOctets - count * recordOctets;
  return rest >= 0 && rest < recordOctets;
}

export const netflow5Layout: readonly (readonly [element: number, octets: number])[] = [
  [8, 4],
  [12, 4],
  [15, 4],
  [10, 2],
  [14, 2],
  [2, 4],
  [1, 4],
  [22, 4],
  [21, 4],
  [7, 2],
  [11, 2],
  // Padding: element 210 is paddingOctets.
  [210, 1],
  [6, 1],
  [4, 1],
  [5, 1],
  [16, 2],
  [17, 2],
  [9, 1],
  [13, 1],
  [210, 2],
];

/** The fixed record written as a template, so that one reader serves all protocols. */
export const netflow5Template: Template = compileTemplate(
  0,
  netflow5Layout.map(([element, octets]): TemplateField => ({ element, enterprise: 0, octets })),
  -1,
  0,
);
