/** Two histories of a partition, from the first output on that a verdict names: what was emitted, and what the sound replica gives. */
import type { Log } from '../../adapters/ports.ts';
import { chainOf, type Digest, sameChain } from '../../core/aggregate/chain.ts';
import { decodeBlock } from '../../core/aggregate/output-block.ts';
import { correctedOutputsMax, type Replacement, Uncorrectable } from '../../core/feed/correction.ts';
import { decodeOutput } from '../../core/feed/tail.ts';
import { outputTopic, topics } from '../../schemas/topics.ts';
import type { Output } from '../../schemas/types.ts';
import { recordsBetween } from '../log-records.ts';

/** Markers and repeats stand between the outputs. */
const offsetsPerOutput = 2;
const offsetsMore = 1_000;

/** As they stand in topic aggregates, up to the tail; shorter where some are not there any more. @throws Uncorrectable, LogFault, UnknownSchema */
export async function emittedOutputs(log: Log, digest: Digest, replacement: Replacement): Promise<Output[]> {
  const { verdict, tail } = replacement;
  const { partition } = verdict;
  const count = tail.n - verdict.n + 1;
  if (count > correctedOutputsMax) {
    throw new Uncorrectable(`${count} outputs were emitted since output ${verdict.n}, at most ${correctedOutputsMax} can be looked at`);
  }
  const endOffset = tail.offset + 1;
  const { startOffset } = await log.bounds(topics.aggregates.name, partition);
  for (let span = offsetsPerOutput * count + offsetsMore; ; span *= 4) {
    const from = Math.max(startOffset, endOffset - span);
    const outputs = await emittedBetween(log, digest, replacement, from, endOffset);
    if (outputs || from === startOffset) return outputs ?? [];
  }
}

/** null where the first of them does not stand between the offsets. */
async function emittedBetween(log: Log, digest: Digest, { verdict }: Replacement, from: number, to: number): Promise<Output[] | null> {
  const found: Output[] = [];
  for await (const { value } of recordsBetween(log, topics.aggregates.name, verdict.partition, from, to)) {
    const output = decodeOutput(value);
    if (!output || output.n < verdict.n) continue;
    if (output.correction) throw new Uncorrectable(`output ${output.n} was corrected before`);
    const last = found.at(-1);
    if (!last && output.n > verdict.n) return null;
    if (!last || continues(last, output, digest)) found.push(output);
  }
  return found.length > 0 ? found : null;
}

/** Those that the verdict's fresh fold leads to, in order of n, up to the tail; shorter where some are not there. @throws LogFault, UnknownSchema */
export async function judgedOutputs(log: Log, digest: Digest, { replica, verdict, tail }: Replacement): Promise<Output[]> {
  const { name } = outputTopic(replica);
  const { startOffset, endOffset } = await log.bounds(name, verdict.partition);
  // A repaired replica's topic may hold an n twice, and blocks need not stand in the order of n.
  const candidates = new Map<number, Output[]>();
  for await (const record of recordsBetween(log, name, verdict.partition, startOffset, endOffset)) {
    for (const output of decodeBlock(record.value)?.outputs ?? []) {
      if (output.n < verdict.n || output.n > tail.n) continue;
      const known = candidates.get(output.n) ?? [];
      if (!known.some(({ chain }) => sameChain(chain, output.chain))) candidates.set(output.n, [...known, output]);
    }
  }
  const found: Output[] = [];
  for (let n = verdict.n; n <= tail.n; n++) {
    const last = found.at(-1);
    const next = candidates.get(n)?.find((output) => (last ? continues(last, output, digest) : sameChain(output.chain, verdict.judged_chain)));
    if (!next) break;
    found.push(next);
  }
  return found;
}

function continues(last: Output, output: Output, digest: Digest): boolean {
  return output.n === last.n + 1 && sameChain(chainOf(output, last.chain, digest).chain, output.chain);
}
