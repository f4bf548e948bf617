/**
 * What is promised of a partition of nars after what has happened to it.
 *
 * Nothing but crashes, pauses, cuts, lost stores and lying clients: everything. A log that was cut, or outputs that are gone: all that is folded and
 * emitted is what the fold gives, but it may stop, and say so; outputs that a replica had read back count as written, whoever removed them. A log
 * that was replaced without a base (3.8): two replicas may have folded different logs; then aggregates is one of the two histories, whole and
 * unmixed, and the partition may stop, and say so.
 */
import { healthCodec } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';
import type { Health } from '../../schemas/types.ts';
import type { World } from './world.ts';

export type Promised = 'all' | 'may stop' | 'one history';

/** The latest word of each service. */
function healthOf(world: World): Health[] {
  const latest = new Map<string, Health>();
  for (const { record } of world.broker.partition(topics.health.name, 0).entries) {
    if (record.key && record.value) latest.set(record.key.toString(), healthCodec.decode(record.value));
  }
  return [...latest.values()];
}

/** Who says that something is wrong which does not pass. */
export function alarms(world: World): string[] {
  return healthOf(world).flatMap(({ role, id, partitions, reasons, ready, suspicions }) => {
    const stopped = partitions.filter(({ state }) => state === 'stopped' || state === 'held').map(({ detail }) => detail);
    const suspected = suspicions.map(({ replica, partition }) => `suspects ${replica} of partition ${partition}`);
    return [...stopped, ...(ready ? [] : reasons), ...suspected].map((what) => `${role} ${id}: ${what}`);
  });
}
