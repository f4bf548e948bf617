/** An output as a message of topic aggregates. */
import { outputCodec } from '../../schemas/codec.ts';
import type { Output } from '../../schemas/types.ts';

export interface AggregatesMessage {
  readonly key: Buffer;
  readonly value: Buffer;
}

export function messageOf(output: Output): AggregatesMessage {
  return { key: Buffer.from(groupingKey(output)), value: outputCodec.encode(output) };
}

/** `name=value;name=value` in the order of group_by; `window-close` where the output ends a window. */
export function groupingKey(output: Output): string {
  if (!output.aggregate) return 'window-close';
  return output.aggregate.group.map(({ name, value }) => `${name}=${value}`).join(';');
}
