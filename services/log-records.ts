/** Reading a part of a partition from a position on, beside the loop's own reader. */
import type { Log, LogRecord } from '../adapters/ports.ts';
import { type Codec, UndecodableRecord } from '../schemas/codec.ts';

const pollMs = 250;

/** The records from an offset up to, and not including, another one, which must not be beyond the end. @throws LogFault */
export async function* recordsBetween(log: Log, topic: string, partition: number, fromOffset: number, toOffset: number): AsyncGenerator<LogRecord> {
  if (fromOffset >= toOffset) return;
  const reader = log.reader('committed');
  reader.assign(topic, partition, fromOffset);
  try {
    for (let next = fromOffset; next < toOffset; ) {
      for (const { records, nextOffset } of await reader.poll(pollMs)) {
        for (const record of records) if (record.offset < toOffset) yield record;
        next = nextOffset;
      }
    }
  } finally {
    await reader.close();
  }
}

/** A part of a partition: from an offset up to, and not including, another one, which must not be beyond the end. */
export interface Span {
  readonly topic: string;
  readonly partition: number;
  readonly fromOffset: number;
  readonly toOffset: number;
}

/** The records of several partitions through one reader, those of each in order; of open and aborted transactions as well. @throws LogFault */
export async function* recordsOfSpans(log: Log, spans: readonly Span[]): AsyncGenerator<{ readonly span: Span; readonly record: LogRecord }> {
  const left = new Map(spans.filter(({ fromOffset, toOffset }) => fromOffset < toOffset).map((span) => [`${span.topic}/${span.partition}`, span]));
  const reader = log.reader('raw');
  for (const { topic, partition, fromOffset } of left.values()) reader.assign(topic, partition, fromOffset);
  try {
    while (left.size > 0) {
      for (const { topic, partition, records, nextOffset } of await reader.poll(pollMs)) {
        const span = left.get(`${topic}/${partition}`);
        if (!span) continue;
        for (const record of records) if (record.marker === null && record.offset < span.toOffset) yield { span, record };
        if (nextOffset < span.toOffset) continue;
        left.delete(`${topic}/${partition}`);
        reader.unassign(topic, partition);
      }
    }
  } finally {
    await reader.close();
  }
}

/** Undefined where there is no record of this offset. @throws LogFault */
export async function recordAt(log: Log, topic: string, partition: number, offset: number): Promise<LogRecord | undefined> {
  for await (const record of recordsBetween(log, topic, partition, offset, offset + 1)) if (record.offset === offset) return record;
  return undefined;
}

/** null for what is no record of ours, which everybody reads over. @throws UnknownSchema */
export function decodedOrNull<T>(codec: Codec<T>, value: Uint8Array | null): T | null {
  try {
    return value && codec.decode(value);
  } catch (error) {
    if (error instanceof UndecodableRecord) return null;
    throw error;
  }
}
