/** Aborted by the first SIGINT or SIGTERM, so that a load tool stops and still says what it sent. A second one ends the process at once. */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => controller.abort());
  return controller.signal;
}
