/** A cell of the table: one fault under load, the proof that it happened, and what may be lost by it. */
import type { Field } from './field.ts';

/** A fault that has been injected. */
export interface Fault {
  /** How long it stays before it is healed. */
  readonly holdMs: number;
  /** In words, with figures. @throws Error when it did not happen: then the cell proves nothing */
  happened(): Promise<string>;
  /** Ends it; what was killed is started again. */
  heal(): Promise<void>;
}

export interface Cell {
  readonly name: string;
  /** One sentence for the table. */
  readonly about: string;
  readonly settleWithinMs: number;
  /**
   * Beside what is lost on the wire, which is always known to the flow. loss: explicit Losses. doubt: the ledger may say that something is not known
   * (then billed and lost together may be less than what was sent, never more). Nothing: neither.
   */
  readonly allows?: 'loss' | 'doubt';
  /** Runs in a network namespace of its own, on a stack of its own. */
  readonly inNamespace?: boolean;
  /** Configuration that this cell needs, hence a stack of its own. */
  readonly env?: Readonly<Record<string, string>>;
  /** Why it cannot run on this machine, with the remedy; '' when it can. */
  readonly lacks?: () => Promise<string>;
  fault(field: Field): Promise<Fault>;
  /** What else must hold at the end. @returns what does not */
  readonly afterwards?: (field: Field) => Promise<readonly string[]>;
}

/** @throws Error saying that the fault did not happen */
export function require(happened: boolean, what: string): void {
  if (!happened) throw new Error(`the fault did not happen: ${what}`);
}
