import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../adapters/digest.ts';
import { judge, type LedgerFault, type Standing } from '../../../core/ledger/continuity.ts';
import { History } from './history.ts';

const history = new History(3).usage({ src: 'acme', dst: 'globex', flows: 1, bytes: 10n }).close().close();
const [first, second, third] = history.outputs;

function standing(n: number, chain: Uint8Array, replacedChain: Uint8Array | null = null): Standing {
  return { partition: 3, n, chain, replacedChain };
}

describe('an output read from aggregates', () => {
  test('is booked when it is the next and continues the chain', () => {
    expect(judge(standing(0, Buffer.alloc(16)), first!, sha256)).toBe('next');
    expect(judge(standing(1, first!.chain), second!, sha256)).toBe('next');
  });

  test('is dropped when it was booked before', () => {
    expect(judge(standing(2, second!.chain), first!, sha256)).toBe('booked_before');
    expect(judge(standing(2, second!.chain), second!, sha256)).toBe('booked_before');
  });

  test('is dropped when it was booked before, and was corrected since', () => {
    expect(judge(standing(2, Buffer.alloc(16).fill(9), second!.chain), second!, sha256)).toBe('booked_before');
    expect(judge(standing(2, Buffer.alloc(16).fill(9), first!.chain), second!, sha256)).toMatchObject({ code: 'chain' });
  });

  test('stops the partition at a gap, with partition, n and remedy', () => {
    const fault = judge(standing(1, first!.chain), third!, sha256) as LedgerFault;
    expect(fault).toMatchObject({ code: 'gap', partition: 3, n: 3 });
    expect(fault.message).toContain('partition 3, output n 3 follows n 1 in topic aggregates: 1 outputs are missing');
    expect(fault.message).toContain('restore its records');
  });

  test('stops the partition when the last n comes again with another history', () => {
    const fault = judge(standing(1, Buffer.alloc(16).fill(9)), first!, sha256) as LedgerFault;
    expect(fault).toMatchObject({ code: 'chain', partition: 3, n: 1 });
    expect(fault.message).toContain('flowledger audit');
  });

  test('stops the partition when the next one continues another history', () => {
    expect(judge(standing(1, Buffer.alloc(16).fill(9)), second!, sha256)).toMatchObject({ code: 'chain', n: 2 });
  });

  test('stops the partition when one bit of it differs from what its chain says', () => {
    const changed = { ...first!, aggregate: { ...first!.aggregate!, bytes: 11n } };
    expect(judge(standing(0, Buffer.alloc(16)), changed, sha256)).toMatchObject({ code: 'chain', n: 1 });
  });

  test('stops the partition when it is of another partition', () => {
    expect(judge({ ...standing(0, Buffer.alloc(16)), partition: 2 }, first!, sha256)).toMatchObject({ code: 'partition', partition: 2, n: 1 });
  });
});
