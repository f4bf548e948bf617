/** What other incarnations hold in the store: looked for all the time, sent under their own numbers, closed with a goodbye when empty (G3). */
import type { Clock, Logger } from '../../adapters/ports.ts';
import type { Store, StoredStream } from '../../adapters/store.ts';
import { cutBatch } from '../../core/buffer/batcher.ts';
import type { Ledger } from '../../core/buffer/ledger.ts';
import { goodbyesDue } from '../../core/buffer/settlement.ts';
import type { Stream } from '../../core/buffer/stream.ts';
import { emptyBatch, lostNars, unknownLoss } from '../../core/buffer/tombstone.ts';
import { narBatchCodec } from '../../schemas/codec.ts';

export interface DiscoveryParts {
  readonly collector: string;
  readonly partitions: number;
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ledger: Ledger;
  /** The incarnation that the process itself writes under. */
  readonly isOwn: (incarnation: string) => boolean;
}

const totalsPerRead = 500;

export class Discovery {
  /** Their owner died while it brought them from memory into the store: a plain goodbye would end the doubt about what it reached (G9). */
  readonly #leftVolatile = new Set<string>();
  readonly #parts: DiscoveryParts;
  /** What Kafka had confirmed of the streams that wait for the log's end. */
  readonly confirmed = new Map<string, { sequence: number; topicId: string }>();
  /** Partitions that hold batches and that the configuration does not know. */
  readonly strayPartitions = new Set<number>();

  constructor(parts: DiscoveryParts) {
    this.#parts = parts;
  }

  /** @throws StoreFault */
  async look(): Promise<void> {
    const { store, ledger, isOwn } = this.#parts;
    const found = (await store.streams()).filter((stream) => !isOwn(stream.incarnation));
    const names = new Set(found.map(({ incarnation, partition }) => `${incarnation}/${partition}`));
    for (const stream of ledger.streams) {
      if (isOwn(stream.incarnation) || !stream.inStore || names.has(`${stream.incarnation}/${stream.partition}`)) continue;
      ledger.gone(stream, stream.first, stream.last);
      stream.inStore = false;
      stream.intact = false;
    }
    for (const stream of found) await this.#take(stream);
  }

  async #take(found: StoredStream): Promise<void> {
    const { ledger, logger, partitions, clock } = this.#parts;
    const { incarnation, partition } = found;
    if (partition >= partitions) {
      if (!this.strayPartitions.has(partition))
        logger.error({ partition, partitions }, 'the store holds batches of a partition beyond topics.partitions');
      this.strayPartitions.add(partition);
      return;
    }
    const known = ledger.stream(incarnation, partition);
    if (known) {
      await this.#compare(known, found);
      return;
    }
    logger.info({ incarnation, partition, first: found.first, last: found.last }, 'an earlier incarnation left batches in the store');
    const stream = ledger.adopt({ incarnation, partition, first: found.first, closed: found.closed, volatile: false });
    // Its owner may be alive and only slow: whoever says goodbye for it must have seen it idle first, also where there is nothing in it to load.
    stream.changedMs = clock.now();
    if (found.confirmed) this.confirmed.set(`${incarnation}/${partition}`, found.confirmed);
    await this.#load(stream, found);
  }

  async #compare(stream: Stream, found: StoredStream): Promise<void> {
    const { ledger } = this.#parts;
    if (found.last < stream.last) {
      ledger.gone(stream, found.last + 1, stream.last);
      stream.intact = false;
      return;
    }
    if (found.first > stream.first) ledger.gone(stream, stream.first, found.first - 1);
    if (found.firstBatch > stream.first) ledger.released(stream, found.firstBatch - 1, 'store');
    stream.closed = found.closed;
    await this.#load(stream, found);
  }

  async #load(stream: Stream, found: StoredStream): Promise<void> {
    const { store, ledger, clock } = this.#parts;
    // Whoever owns it goes on, even where all of it is acknowledged and trimmed by now.
    if (stream.last < found.last) stream.changedMs = clock.now();
    while (stream.last < found.last) {
      const entries = await store.totals(stream.incarnation, stream.partition, stream.last + 1, totalsPerRead);
      if (entries.length === 0) ledger.foundGone(stream, found.last);
      for (const { sequence, totals, size } of entries) {
        if (sequence <= stream.last) continue;
        const batch = narBatchCodec.decode(totals);
        if (batch.volatile) this.#leftVolatile.add(stream.incarnation);
        const holdings = batch.losses;
        const released = sequence < found.firstBatch;
        const entry = {
          sequence,
          nars: lostNars(holdings),
          holdings,
          valueSize: size,
          totalsSize: totals.length,
          watermarkMs: batch.watermark_ms,
          released,
        };
        ledger.found(stream, entry, clock.now());
      }
    }
  }

  /** A goodbye says nothing about time, hence watermark 0: the collector that owned the incarnation is not there to say. @throws StoreFault */
  async sayGoodbyes(idleMs: number): Promise<void> {
    const { collector, store, ledger, clock } = this.#parts;
    for (const stream of goodbyesDue(ledger, clock.now(), idleMs)) {
      const { incarnation, partition, last } = stream;
      const identity = { collector, incarnation, partition, sequence: last + 1, volatile: stream.volatile, goodbye: true };
      const losses = this.#leftVolatile.has(incarnation) ? [unknownLoss('volatile_ended')] : [];
      const batch = cutBatch({ ...emptyBatch(identity, 0), losses });
      if (!stream.inStore || !stream.intact) {
        ledger.keep(stream, batch, 'memory', clock.now());
        continue;
      }
      const outcome = await store.flush({ incarnation, ends: [{ partition, last }], batches: [batch], positions: [] });
      if (outcome.kind === 'mismatch') stream.changedMs = clock.now();
      else ledger.keep(stream, batch, 'store', clock.now());
    }
  }
}
