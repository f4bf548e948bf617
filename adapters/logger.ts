/** Structured logs: pretty on a terminal, else JSON lines. Level by consequence: warn, nothing lost; error, data lost or an operator must act. */
import pino from 'pino';
import type { Logger } from './ports.ts';

export function openLogger(service: string, level = 'info'): Logger {
  const base = { service };
  if (process.stderr.isTTY) {
    return pino({ level, base }, pino.transport({ target: 'pino-pretty', options: { destination: 2, ignore: 'pid,hostname' } }));
  }
  return pino({ level, base }, pino.destination({ dest: 2, sync: false }));
}
