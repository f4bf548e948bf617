/** One thread of a Pool. */
import { parentPort } from 'node:worker_threads';
import type { Task } from './pool.ts';
import { World } from './world.ts';

parentPort?.on('message', async (task: Task) => {
  parentPort?.postMessage(await new World(task).run());
});
