/**
 * Loaded into a process before the product, by `node --import`: upon SIGUSR2 one counter in the memory of the next fold that takes a batch is another
 * one. The product has no code for it.
 */
import { flipNext } from '../flip.ts';

process.on('SIGUSR2', () => flipNext(() => process.stderr.write('one counter was flipped\n')));
