/** Options records: what an exporter says about itself. They are never flows, whatever counters they have. */
import { readUnsigned } from './cursor.ts';
import type { Exporter } from './exporter.ts';
import { netflow9Scope } from './netflow9.ts';
import { rateOf, type SamplingFields } from './sampling.ts';
import { extent, measureField, type Template } from './template.ts';

/** Scope types of NetFlow v9 (RFC 3954 section 6.1). */
const netflow9Scopes = { interface: 2, lineCard: 3, cache: 4, template: 5 } as const;
/** Of IANA's elements, where they are scopes. */
const ingressInterface = 10;
const egressInterface = 14;
const lineCardId = 141;
const templateId = 145;

/** What the record says, gathered field by field. */
interface Saying extends SamplingFields {
  samplerId: number;
  interface: number;
  lineCard: number;
  /** It is about a part of the device that records do not name. */
  isPartial: boolean;
  systemInitMs: number;
}

/** Takes sampling rates and the exporter's start from the record at `at`; gives its octets, or -1 where it does not end before `end`. */
export function takeOptions(exporter: Exporter, template: Template, bytes: Buffer, at: number, end: number): number {
  const saying: Saying = {
    ...{ interval: 0, packetInterval: 0, packetSpace: 0, size: 0, population: 0, probability: 0 },
    ...{ samplerId: 0, interface: 0, lineCard: 0, isPartial: false, systemInitMs: 0 },
  };
  let next = at;
  for (let i = 0; i < template.fields.length; i++) {
    const field = template.fields[i]!;
    if (!measureField(field, bytes, next, end)) return -1;
    next = extent.start + extent.octets;
    if (extent.octets === 0 || extent.octets > 8) continue;
    if (field.enterprise === 0 && field.element === 311) {
      if (extent.octets === 8) saying.probability = bytes.readDoubleBE(extent.start);
      continue;
    }
    const value = readUnsigned(bytes, extent.start, extent.octets);
    if (field.enterprise === netflow9Scope) takeNetflow9Scope(saying, field.element, value);
    else if (field.enterprise === 0 && i < template.scopes && takeScope(saying, field.element, value)) continue;
    else if (field.enterprise === 0) takeElement(saying, field.element, value);
  }
  if (!saying.isPartial && exporter.sampling.announce(rateOf(saying), saying)) exporter.optionsUnsaved = true;
  if (saying.systemInitMs > 0 && saying.systemInitMs !== exporter.systemInitMs) {
    exporter.systemInitMs = saying.systemInitMs;
    exporter.optionsUnsaved = true;
  }
  return next - at;
}

function takeNetflow9Scope(saying: Saying, type: number, value: number): void {
  if (type === netflow9Scopes.interface) saying.interface = value;
  else if (type === netflow9Scopes.lineCard) saying.lineCard = value;
  else if (type === netflow9Scopes.cache || type === netflow9Scopes.template) saying.isPartial = true;
}

/** False for an element that means the same whether it is a scope or not. */
function takeScope(saying: Saying, element: number, value: number): boolean {
  if (element === ingressInterface || element === egressInterface) saying.interface = value;
  else if (element === lineCardId) saying.lineCard = value;
  else if (element === templateId) saying.isPartial = true;
  else return false;
  return true;
}

function takeElement(saying: Saying, element: number, value: number): void {
  // A sampler's number is as wide as a record's field for it is read.
  if (element === 48 || element === 302) saying.samplerId = value % 2 ** 32;
  else if (element === 160) saying.systemInitMs = value;
  else if (element === 34 || (element === 50 && saying.interval === 0)) saying.interval = value;
  else if (element === 305) saying.packetInterval = value;
  else if (element === 306) saying.packetSpace = value;
  else if (element === 309) saying.size = value;
  else if (element === 310) saying.population = value;
}
