/**
 * Exporters repeat their templates every few minutes, and what samples how, too: until then a new process could not decode what they send. So what
 * the decoder knows of them is kept in the store, written when it changes, away from the path of the datagrams, and taken up again at the start.
 */
import type { Clock, Logger } from '../../adapters/ports.ts';
import { type Store, StoreFault } from '../../adapters/store.ts';
import type { Decoder } from '../../core/wire/decoder.ts';

export interface RememberingParts {
  readonly store: Store;
  readonly decoder: Decoder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A number that changes when the store failed, or does not end where the process left it: it may have lost what was saved. */
  readonly troubles: () => number;
}

/** Of saves at a time, so that a flood of templates does not keep the collector from what else is due. */
const savesMax = 4;

export class Remembering {
  readonly #parts: RememberingParts;
  #troubles = 0;
  #failed = false;

  constructor(parts: RememberingParts) {
    this.#parts = parts;
  }

  /** What earlier processes kept. @throws StoreFault */
  async recall(): Promise<void> {
    const { store, decoder, clock, logger } = this.#parts;
    const entries = await store.templates();
    decoder.recall(entries, clock.now());
    const { corrupt, refused } = decoder.counters.ignoredTemplates;
    if (corrupt + refused > 0) logger.warn({ corrupt, refused }, 'templates in the store are ignored: their exporters will repeat them');
  }

  /** What changed since the last time. @throws StoreFault; all of it is saved again then */
  async save(): Promise<void> {
    const { store, decoder, troubles } = this.#parts;
    if (this.#failed || troubles() !== this.#troubles) decoder.rememberAgain();
    this.#failed = false;
    this.#troubles = troubles();
    for (let i = 0; i < savesMax; i++) {
      const changes = decoder.takeMemory();
      if (changes.length === 0) return;
      try {
        await store.saveTemplates(changes);
      } catch (error) {
        this.#failed = error instanceof StoreFault;
        throw error;
      }
    }
  }
}
