/** One thread of a Pool. With edits, it runs the product with these changes to its source; each must fit exactly once, so that none goes stale. */
import { registerHooks } from 'node:module';
import { parentPort, workerData } from 'node:worker_threads';
import type { Edit } from './mutations.ts';
import type { Task } from './pool.ts';

const { edits } = workerData as { readonly edits: readonly Edit[] };

function edited(url: string, source: string): string {
  let text = source;
  for (const [file, from, to] of edits) {
    if (!url.endsWith(`/${file}`)) continue;
    if (text.split(from).length !== 2) throw new Error(`${file} has not exactly one ${JSON.stringify(from)}`);
    text = text.replace(from, () => to);
    made.add(file);
  }
  return text;
}

const made = new Set<string>();

if (edits.length > 0) {
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context);
      return edits.some(([file]) => url.endsWith(`/${file}`)) ? { ...loaded, source: edited(url, String(loaded.source)) } : loaded;
    },
  });
}
const { World } = await import('./world.ts');
const missed = edits.find(([file]) => !made.has(file));
if (missed) throw new Error(`${missed[0]} is no part of the simulation`);

parentPort?.on('message', async (task: Task) => {
  parentPort?.postMessage(await new World(task).run());
});
