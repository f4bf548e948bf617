/** Scenarios that failed once, made as short as they can be, in files. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { play, roomy, type Step, tight } from './play.ts';
import type { Scenario } from './scenarios.ts';

const folder = join(import.meta.dirname, 'corpus');

/** Leaves out steps, in ever smaller pieces, as long as it fails. */
export function shortened({ steps, limits }: Scenario): readonly Step[] {
  let kept = [...steps];
  if (play(kept, limits) === null) return kept;
  for (let size = kept.length >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at < kept.length; ) {
      const fewer = kept.toSpliced(at, size);
      if (play(fewer, limits) === null) at += size;
      else kept = fewer;
    }
  }
  return kept;
}

/** The file's path. */
export function writeFind(scenario: Scenario): string {
  const path = join(folder, `${scenario.name}.json`);
  const steps = shortened(scenario).map(({ address, receivedMs, datagram, wanted }) => ({
    ...{ address, receivedMs, datagram: datagram.toString('hex') },
    ...(wanted && { wanted: { ...wanted, taken: { ...wanted.taken, bytes: wanted.taken.bytes.toString('hex') } } }),
  }));
  writeFileSync(path, `${JSON.stringify({ limits: scenario.limits === tight ? 'tight' : 'roomy', steps }, null, 2)}\n`);
  return path;
}

interface StoredStep {
  readonly address: string;
  readonly receivedMs: number;
  readonly datagram: string;
  readonly wanted?: { readonly first: number; readonly last: number; readonly exactly: boolean; readonly taken: StoredTaken };
}

interface StoredTaken {
  readonly bytes: string;
  readonly ends: number[];
  readonly keys: string[];
}

/** All finds so far. */
export function readFinds(): Scenario[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .map((file) => {
      const { limits, steps } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as { limits: string; steps: StoredStep[] };
      const read = steps.map(
        ({ wanted, datagram, ...step }): Step => ({
          ...step,
          datagram: Buffer.from(datagram, 'hex'),
          ...(wanted && { wanted: { ...wanted, taken: { ...wanted.taken, bytes: Buffer.from(wanted.taken.bytes, 'hex') } } }),
        }),
      );
      return { name: file, steps: read, limits: limits === 'tight' ? tight : roomy, mutated: 0 };
    });
}
