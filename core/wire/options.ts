/** Options records: what an exporter says about itself. They are never flows, whatever counters they have. */
import { readUnsigned } from './cursor.ts';
import type { Exporter } from './exporter.ts';
import { netflow9Scope } from './netflow9.ts';
import { rateOf, type SamplingFields } from './sampling.ts';
import { extent, measureField, type Template } from './template.ts';

const scopeInterface = 2;

/** Takes sampling rates and the exporter's start from the record at `at`; gives its octets, or -1 where it does not end before `end`. */
export function takeOptions(exporter: Exporter, template: Template, bytes: Uint8Array, at: number, end: number): number {
  const fields: SamplingFields = { interval: 0, packetInterval: 0, packetSpace: 0, size: 0, population: 0 };
  let samplerId = 0;
  let ingressInterface = 0;
  let systemInitMs = 0;
  let next = at;
  for (let i = 0; i < template.fields.length; i++) {
    const field = template.fields[i]!;
    if (!measureField(field, bytes, next, end)) return -1;
    next = extent.start + extent.octets;
    if (extent.octets === 0 || extent.octets > 8) continue;
    const value = readUnsigned(bytes, extent.start, extent.octets);
    if (field.enterprise === netflow9Scope) {
      if (field.element === scopeInterface) ingressInterface = value;
    } else if (field.enterprise === 0) {
      if (field.element === 48 || field.element === 302) samplerId = value;
      else if (field.element === 160) systemInitMs = value;
      else if (field.element === 10 && i < template.scopes) ingressInterface = value;
      else takeSampling(fields, field.element, value);
    }
  }
  if (exporter.sampling.announce(Math.min(rateOf(fields), 0xffff_ffff), samplerId, ingressInterface)) exporter.optionsUnsaved = true;
  if (systemInitMs > 0 && systemInitMs !== exporter.systemInitMs) {
    exporter.systemInitMs = systemInitMs;
    exporter.optionsUnsaved = true;
  }
  return next - at;
}

function takeSampling(fields: SamplingFields, element: number, value: number): void {
  if (element === 34 || (element === 50 && fields.interval === 0)) fields.interval = value;
  else if (element === 305) fields.packetInterval = value;
  else if (element === 306) fields.packetSpace = value;
  else if (element === 309) fields.size = value;
  else if (element === 310) fields.population = value;
}
