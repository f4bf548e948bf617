/** Histories of outputs as two replicas would write them. */
import { sha256 } from '../../../adapters/digest.ts';
import { chainOf, emptyChain } from '../../../core/aggregate/chain.ts';
import type { Output, OutputBlock } from '../../../schemas/types.ts';

/** n = index + 1. From `differsFrom` on it is another history than that of the same call without it. */
export function historyOf(length: number, differsFrom = Number.POSITIVE_INFINITY, partition = 0): Output[] {
  const outputs: Output[] = [];
  let chain = emptyChain;
  for (let n = 1; n <= length; n++) {
    const output = outputAt(n, n >= differsFrom ? 1 : 0, partition);
    chain = chainOf(output, chain, sha256).chain;
    outputs.push({ ...output, chain });
  }
  return outputs;
}

function outputAt(n: number, flows: number, partition: number): Output {
  const window = { window_start_ms: 60_000 * n, window_end_ms: 60_000 * (n + 1) };
  const group = [
    { name: 'src_account', value: `acme-${n % 3}` },
    { name: 'dst_account', value: 'unassigned' },
  ];
  const aggregate = { kind: 'usage', ...window, group, flows: n + flows, bytes: 1_000n, packets: 10n, scaled_bytes: 1_000n, scaled_packets: 10n };
  return { partition, n, chain: emptyChain, aggregate, window_close: null, correction: null };
}

export function blockOf(history: readonly Output[], firstN: number, lastN: number): OutputBlock {
  const previous_chain = firstN === 1 ? emptyChain : history[firstN - 2]!.chain;
  return { partition: history[0]!.partition, first_n: firstN, previous_chain, outputs: history.slice(firstN - 1, lastN) };
}

export function hex(chain: Uint8Array): string {
  return Buffer.from(chain).toString('hex');
}
