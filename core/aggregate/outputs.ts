/** Numbers the outputs of a partition, links them by their chain, and cuts them into blocks: the same blocks wherever the fold runs. */
import { messageBytesMax } from '../../schemas/topics.ts';
import type { Aggregate, Output, OutputBlock, WindowClose } from '../../schemas/types.ts';
import { chainOf, type Digest } from './chain.ts';

/** Small enough that a reader has whole blocks early. */
const outputsPerBlockMax = 500;

/** The wire format's header, and a block's own fields and array counts, at their largest. */
const blockOverheadBytes = 80;

export class Outputs {
  readonly #partition: number;
  readonly #digest: Digest;
  #n: number;
  #chain: Uint8Array;
  #blocks: OutputBlock[] = [];
  #blockBytes = 0;

  constructor(partition: number, n: number, chain: Uint8Array, digest: Digest) {
    this.#partition = partition;
    this.#n = n;
    this.#chain = chain;
    this.#digest = digest;
  }

  /** Of the last output. */
  get n(): number {
    return this.#n;
  }

  get chain(): Uint8Array {
    return this.#chain;
  }

  aggregate(aggregate: Aggregate): void {
    this.#put(aggregate, null);
  }

  close(close: WindowClose): void {
    this.#put(null, close);
  }

  /** What was put since the last call. Called after every record of the log, so no block spans two. */
  takeBlocks(): OutputBlock[] {
    const blocks = this.#blocks;
    this.#blocks = [];
    return blocks;
  }

  #put(aggregate: Aggregate | null, close: WindowClose | null): void {
    const previous = this.#chain;
    const output: Output = { partition: this.#partition, n: this.#n + 1, chain: previous, aggregate, window_close: close, correction: null };
    const { chain, bytes } = chainOf(output, previous, this.#digest);
    output.chain = chain;
    const block = this.#blocks.at(-1);
    if (block && block.outputs.length < outputsPerBlockMax && this.#blockBytes + bytes <= messageBytesMax) {
      block.outputs.push(output);
      this.#blockBytes += bytes;
    } else {
      this.#blocks.push({ partition: this.#partition, first_n: output.n, previous_chain: previous, outputs: [output] });
      this.#blockBytes = blockOverheadBytes + bytes;
    }
    this.#n = output.n;
    this.#chain = chain;
  }
}
