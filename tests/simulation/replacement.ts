/** nars is deleted and made anew, and the administration's command lets it begin with what was folded: the real command over the model broker. */
import { sha256 } from '../../adapters/digest.ts';
import { LogFault } from '../../adapters/ports.ts';
import { type Replica, replicas, topics } from '../../schemas/topics.ts';
import { awaitStop, isBegun, NoSuccession, planSuccession, writeSuccession } from '../../services/cli/succession.ts';

import { ProcessHandle } from './model-clock.ts';
import { noLogFaults } from './model-log.ts';
import type { Replacement } from './scenario.ts';
import type { World } from './world.ts';

const withinMs = 120_000;
const rough = { ...noLogFaults, unavailable: 0.03, unknownAppended: 0.03, unknownLost: 0.03, swallowed: 0.03, readFault: 0.002 };

/** Says what is wrong, or nothing. */
export async function replaceNars(world: World, { awayMs, isRough }: Replacement): Promise<string | null> {
  const { clock, broker } = world;
  const failed = () => world.violations.length > 0;
  const until = (condition: () => boolean) => clock.runUntil(() => failed() || condition(), clock.now() + withinMs);
  for (const replica of ['a', 'b'] as const) world.part(replica).killOlder();
  const isReady = () => bothRun(world) && isHeldByOne(world, awayMs > 0 ? ['a'] : replicas);
  if (!(await until(isReady))) return 'the replicas do not both run before nars is replaced';
  if (failed()) return null;
  if (awayMs > 0) world.part('b').kill(awayMs);
  world.note('nars is deleted and made anew');
  world.count('nars replaced');
  broker.createTopic(topics.nars.name, world.histories.length);
  world.agreedOnce.length = 0;
  for (const { eras } of world.histories) eras.replace(broker.topic(topics.nars.name).id);
  if (isRough) broker.faults = { ...rough };
  let outcome: string | null | undefined;
  administer(world).then(
    () => {
      outcome = null;
    },
    (error: Error) => {
      outcome = `the base cannot be written: ${error.stack}`;
    },
  );
  const isOver = await until(() => outcome !== undefined);
  broker.faults = { ...noLogFaults };
  return isOver || failed() ? (outcome ?? null) : 'the base is not written in time';
}

function bothRun(world: World): boolean {
  return (['a', 'b'] as const).every((replica) => {
    const { aggregator, process } = world.aggregators[replica] ?? {};
    return (
      process?.state === 'running' && aggregator?.partitions.length === world.histories.length && aggregator.partitions.every((one) => one.isRunning)
    );
  });
}

/**
 * Of each partition one of those that stay has folded what is published, and what both have acknowledged: one that was started anew gets there again
 * only by the log, and where that goes first, nobody can.
 */
function isHeldByOne(world: World, staying: readonly Replica[]): boolean {
  return world.histories.every(({ emitted, acknowledged }, partition) =>
    staying.some((replica) => {
      const fold = world.aggregators[replica]?.aggregator.partitions[partition]?.running?.fold;
      if (!fold || fold.n < emitted.length) return false;
      const folded = new Map(fold.collectors().flatMap((name) => fold.sequences(name).map(({ incarnation, sequence }) => [incarnation, sequence])));
      return [...acknowledged.a].every(([name, byA]) => Math.min(byA, acknowledged.b.get(name) ?? 0) <= (folded.get(name) ?? 0));
    }),
  );
}

/** As an operator does it: again until it is done. */
async function administer(world: World): Promise<void> {
  const process = new ProcessHandle(world.clock, 'admin');
  const parts = { log: world.broker.connect(process), clock: process.clock, digest: sha256 };
  for (const partition of world.histories.keys()) {
    for (;;) {
      try {
        if (await isBegun(parts.log, partition)) break;
        await awaitStop(parts, partition, 60_000);
        const plan = await planSuccession(parts, partition);
        if (plan) await writeSuccession(parts, plan, 5_000);
        break;
      } catch (error) {
        if (!(error instanceof LogFault) && !(error instanceof NoSuccession && /run this again/.test(error.message))) throw error;
        await parts.clock.sleep(200);
      }
    }
  }
}
