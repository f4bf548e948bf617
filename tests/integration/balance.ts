/** The balance that a test ends with. */
import { expect } from '@jest/globals';
import type { Stack } from '../../infra/stack.ts';

interface Balance {
  readonly totals: Readonly<Record<'billed_flows' | 'lost_flows' | 'lost_on_wire_flows', number>>;
  readonly divergence: number;
  readonly doubts: number;
}

/** What audit says once nothing is on its way: it is complete, and it balances. */
export async function balanceOf(stack: Stack): Promise<Balance> {
  const { code, stdout, stderr } = await stack.command('audit', '--json', '--wait', '60s');
  expect({ code, stderr: code ? stderr : '' }).toEqual({ code: 0, stderr: '' });
  const audit = JSON.parse(stdout);
  expect(audit).toMatchObject({ complete: true, imbalance: { flows: 0, bytes: 0, packets: 0 } });
  return audit;
}
