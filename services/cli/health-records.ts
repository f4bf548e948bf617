/** The newest health record of each service, from the log. */
import type { Clock, Log } from '../../adapters/ports.ts';
import { healthCodec, UndecodableRecord } from '../../schemas/codec.ts';
import { topics } from '../../schemas/topics.ts';
import type { Health } from '../../schemas/types.ts';

/** Some ten minutes of a small system's records: a service that died is still among them, and they are read in a fraction of a second. */
const recordsMax = 20_000;
const patienceMs = 10_000;

/** A health record, and when the broker appended it. */
export interface HealthRecord {
  readonly health: Health;
  readonly appendedMs: number;
}

/** @throws LogFault where the broker does not answer */
export async function newestHealth(log: Log, clock: Clock): Promise<Health[]> {
  return (await newestHealthRecords(log, clock)).map(({ health }) => health);
}

/** @throws LogFault where the broker does not answer */
export async function newestHealthRecords(log: Log, clock: Clock): Promise<HealthRecord[]> {
  const { name } = topics.health;
  const { startOffset, endOffset } = await log.bounds(name, 0);
  const newest = new Map<string, HealthRecord>();
  const reader = log.reader('raw');
  try {
    let position = Math.max(startOffset, endOffset - recordsMax);
    if (position < endOffset) reader.assign(name, 0, position);
    for (const deadlineMs = clock.now() + patienceMs; position < endOffset && clock.now() < deadlineMs; ) {
      for (const { records, nextOffset } of await reader.poll(500)) {
        for (const { value, appendedMs } of records) if (value) note(newest, value, appendedMs);
        position = nextOffset;
      }
    }
  } finally {
    await reader.close();
  }
  return [...newest.values()];
}

function note(newest: Map<string, HealthRecord>, value: Uint8Array, appendedMs: number): void {
  try {
    const health = healthCodec.decode(value);
    newest.set(`${health.role}/${health.id}`, { health, appendedMs });
  } catch (error) {
    // Nobody's health follows from it; the service shows as silent.
    if (!(error instanceof UndecodableRecord)) throw error;
  }
}
