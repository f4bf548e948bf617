/** The table's rows, in the order in which they run. */
import type { Cell } from './cell.ts';
import { clockCells } from './cells/clock-cells.ts';
import { namespaceCells } from './cells/namespace-cells.ts';
import { networkCells } from './cells/network-cells.ts';
import { operatorCells } from './cells/operator-cells.ts';
import { processCells } from './cells/process-cells.ts';
import { storeCells } from './cells/store-cells.ts';

export const allCells: readonly Cell[] = [...processCells, ...networkCells, ...namespaceCells, ...storeCells, ...clockCells, ...operatorCells];
