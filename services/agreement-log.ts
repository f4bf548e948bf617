/** What topic agreements says, read on from where it was read to before. */
import type { Log, LogRecord } from '../adapters/ports.ts';
import { Agreements } from '../core/judge/agreement.ts';
import { agreementCodec, UndecodableRecord } from '../schemas/codec.ts';
import { topics } from '../schemas/topics.ts';
import type { Agreement } from '../schemas/types.ts';
import { recordsBetween } from './log-records.ts';

const { name: topic } = topics.agreements;

export class AgreementLog {
  readonly #log: Log;
  readonly #agreements = new Agreements();
  #id = '';
  #nextOffset = 0;
  #reading: Promise<void> | null = null;

  constructor(log: Log) {
    this.#log = log;
  }

  /** As of the last refresh; null where nothing is agreed on in the log of this topic id. */
  of(partition: number, topicId: string): Agreement | null {
    return this.#agreements.of(partition, topicId);
  }

  /** Reads up to the present end. @throws LogFault, UnknownSchema */
  refresh(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null;
    });
    return this.#reading;
  }

  async #read(): Promise<void> {
    const id = await this.#log.topicId(topic);
    const { startOffset, endOffset } = await this.#log.bounds(topic, 0);
    if (id !== this.#id || this.#nextOffset > endOffset) {
      this.#id = id;
      this.#nextOffset = 0;
      this.#agreements.clear();
    }
    for await (const record of recordsBetween(this.#log, topic, 0, Math.max(startOffset, this.#nextOffset), endOffset)) {
      const agreement = decode(record);
      if (agreement) this.#agreements.apply(agreement);
      this.#nextOffset = record.offset + 1;
    }
    this.#nextOffset = endOffset;
  }
}

function decode({ value }: LogRecord): Agreement | null {
  try {
    return value && agreementCodec.decode(value);
  } catch (error) {
    // What no schema can decode says nothing.
    if (error instanceof UndecodableRecord) return null;
    throw error;
  }
}
