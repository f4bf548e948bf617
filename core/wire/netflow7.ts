/** NetFlow v7, of Catalyst switches: version 5 with records of 52 octets, and neither engine nor sampling in its header. */
import { type FixedHeader, netflow5Layout, readFixedHeader } from './netflow5.ts';
import { compileTemplate, type Template, type TemplateField } from './template.ts';

/** The caller has seen that the header is whole. */
export function readNetflow7Header(bytes: Uint8Array): FixedHeader {
  return { ...readFixedHeader(bytes), observationDomainId: 0, samplingRate: 0 };
}

/** As in version 5, but for flags where that has padding, and the router that the switch spared at the end; both are skipped as paddingOctets. */
const layout: readonly (readonly [element: number, octets: number])[] = [...netflow5Layout, [210, 4]];

export const netflow7Template: Template = compileTemplate(
  0,
  layout.map(([element, octets]): TemplateField => ({ element, enterprise: 0, octets })),
  -1,
  0,
);
