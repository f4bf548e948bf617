/** A known defect of Kafka clients, and how it is brought about. */
import type { Log } from '../../adapters/ports.ts';
import type { BareClient } from './bare.ts';
import type { Setting } from './setting.ts';

/** The port, but for the cutting of heads and the state of disks. */
export type PortLog = Omit<Log, 'offsetAt' | 'deleteRecords' | 'disks'>;

export interface Seen {
  /** The defect showed. */
  readonly defect: boolean;
  readonly facts: string;
}

export interface Case {
  readonly id: string;
  /** What goes wrong, in a sentence. */
  readonly about: string;
  /** What a caller cannot rely on where it shows. */
  readonly use: 'appends' | 'transactions' | 'committed reads' | 'groups' | 'idle';
  bare(setting: Setting, client: BareClient): Promise<Seen>;
  /** The same situation, through the port. */
  guarded(setting: Setting, log: PortLog): Promise<Seen>;
}

export const text = (value: string) => ({ key: null, value: Buffer.from(value) });
export const said = (values: readonly string[]) => (values.length === 0 ? 'nothing' : values.join(' '));
