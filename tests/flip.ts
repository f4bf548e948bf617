/**
 * Memory that is not what it was: one counter of one group in the state of one fold, changed behind the product's back. Nothing in the product
 * knows of it.
 */
import { Fold } from '../core/aggregate/fold.ts';
import { Windows } from '../core/aggregate/windows.ts';

const armed = new WeakMap<Fold, () => void>();
let armedNext: (() => void) | null = null;
let folding: Fold | null = null;

const step = Fold.prototype.step;
Fold.prototype.step = function (this: Fold, record) {
  folding = this;
  try {
    return step.call(this, record);
  } finally {
    folding = null;
  }
};

const add = Windows.prototype.add;
Windows.prototype.add = function (this: Windows, ...args) {
  const result = add.apply(this, args);
  const flipped = folding && (armed.get(folding) ?? armedNext);
  if (folding && flipped && flipOne(this)) {
    armed.delete(folding);
    armedNext = null;
    flipped();
  }
  return result;
};

function flipOne(windows: Windows): boolean {
  const window = windows.due(Number.MAX_SAFE_INTEGER).find(({ hasUsage }) => hasUsage);
  const [group] = window?.groups.values() ?? [];
  group?.usage.raw.add(0, 1, 0);
  return group !== undefined;
}

/** With the next batch that this fold takes while a window of it is open; then the caller is told. */
export function flip(fold: Fold, flipped: () => void): void {
  armed.set(fold, flipped);
}

/** The same, with whichever fold takes the next batch. */
export function flipNext(flipped: () => void): void {
  armedNext = flipped;
}
