/** Fetches what the local broker and the local Redis need, with progress: `make backends`. */
import { installKafka, MissingTool } from './local-kafka.ts';
import { installRedis } from './local-redis.ts';

const terminal = process.stderr.isTTY;
let lastToldMs = 0;

/** On a terminal one live line; elsewhere a line every two seconds, so that a log shows that something moves. */
function tell(line: string): void {
  if (terminal) process.stderr.write(`\r\x1b[K${line}`);
  else if (Date.now() - lastToldMs >= 2000) process.stderr.write(`${line}\n`);
  else return;
  lastToldMs = Date.now();
}

try {
  await installKafka(tell);
  await installRedis(tell);
  if (terminal && lastToldMs > 0) process.stderr.write('\n');
} catch (error) {
  process.stderr.write(`${terminal ? '\n' : ''}${(error as Error).message}\n`);
  process.exitCode = error instanceof MissingTool ? 69 : 1;
}
