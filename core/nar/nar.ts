/** A NAR as people and scripts see it: names as in schemas/nar-batch.avsc, addresses as text, the exporter written out. */
import type { Nar } from '../../schemas/types.ts';
import { addressText } from './address.ts';
import { detailsText, type NarDetailsText } from './details.ts';

export interface NarText extends Omit<Nar, 'exporter' | 'src_addr' | 'dst_addr' | 'next_hop' | 'details'> {
  sampler_address: string;
  observation_domain_id: number;
  protocol: string;
  src_addr: string;
  dst_addr: string;
  next_hop: string;
  details: NarDetailsText | null;
}

export interface NarOrigin {
  readonly samplerAddress: string;
  readonly observationDomainId: number;
  readonly protocol: string;
}

export function narText(nar: Nar, origin: NarOrigin): NarText {
  const { exporter: _exporter, src_addr, dst_addr, next_hop, details, ...rest } = nar;
  return {
    sampler_address: origin.samplerAddress,
    observation_domain_id: origin.observationDomainId,
    protocol: origin.protocol,
    src_addr: addressText(src_addr),
    dst_addr: addressText(dst_addr),
    ...rest,
    next_hop: addressText(next_hop),
    details: details === null ? null : detailsText(details),
  };
}
