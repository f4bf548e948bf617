/**
 * The short form of `make torture`: some of its cells, on three brokers, a Redis for each collector, and two of every service. Each ends with sent =
 * billed + lost on the wire, A = B, and n without gap or repeat for an ordinary consumer; docs/TORTURE.md has the whole table.
 */
import { afterAll, describe, expect, test } from '@jest/globals';
import { allCells } from '../torture/all-cells.ts';
import { Containers, engineAnswers } from '../torture/containers.ts';
import { Torture } from '../torture/run-cells.ts';

const minute = 60_000;

async function holds(torture: Torture, name: string): Promise<void> {
  const cell = allCells.find((one) => one.name === name);
  if (!cell) throw new Error(`no cell is called ${name}`);
  const { verdict, faults, evidence } = await torture.run(cell);
  expect({ verdict, faults }).toEqual({ verdict: 'held', faults: [] });
  expect(evidence).not.toBe('');
}

describe('torture of real processes', () => {
  const torture = new Torture({ say: () => {} });
  afterAll(() => torture.end(), minute);

  test.each(['kill-elected', 'kill-broker', 'pause-collector', 'cut-feed-answers'])('%s', (name) => holds(torture, name), 5 * minute);
});

/** yes, no, or nothing: where a Docker engine answers. */
const wish = process.env['FLOWLEDGER_TEST_CONTAINERS'] ?? '';
const inContainers = wish === 'yes' || (wish !== 'no' && (await engineAnswers()));
process.stderr.write(
  inContainers
    ? 'torture: native processes, and brokers and Redis in containers as well\n'
    : `torture: native processes only; ${wish === 'no' ? 'FLOWLEDGER_TEST_CONTAINERS is no' : 'no Docker engine answers'}\n`,
);

(inContainers ? describe : describe.skip)('torture of brokers and Redis in containers', () => {
  const torture = new Torture({ say: () => {}, ...(inContainers ? { backends: new Containers() } : {}) });
  afterAll(() => torture.end(), minute);

  test.each(['kill-redis', 'pause-broker', 'kill-broker'])('%s', (name) => holds(torture, name), 10 * minute);
});
