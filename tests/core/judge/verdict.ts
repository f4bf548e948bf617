/** A verdict as a judge writes it. */
import { emptyChain } from '../../../core/aggregate/chain.ts';
import type { Verdict } from '../../../schemas/types.ts';

/** On b, in partition 0, from n 5 on. */
export function verdict(facts: Partial<Verdict> = {}): Verdict {
  const chains = { given_chain: Buffer.alloc(16, 1), judged_chain: emptyChain };
  const preset = { partition: 0, replica: 'b', epoch: 1, state: 'quarantined', n: 5, ...chains, sound: 'a', begins: -1 };
  return { ...preset, evidence: 'compared', author: 'judge-1', at_ms: 0, ...facts };
}
