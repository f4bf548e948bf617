/** The models keep what the ports promise; a simulation is worth no more than they are. */
import { describe, expect, test } from '@jest/globals';
import { LogFault } from '../../adapters/ports.ts';
import { ModelClock, ProcessHandle } from './model-clock.ts';
import { ModelBroker } from './model-log.ts';

const message = (text: string) => ({ key: null, value: Buffer.from(text) });

/** Runs the clock until the promise is settled. */
async function settled<T>(clock: ModelClock, promise: Promise<T>): Promise<T> {
  let over = false;
  const done = promise.finally(() => {
    over = true;
  });
  done.catch(() => undefined);
  await clock.runUntil(() => over, clock.now() + 60_000);
  if (!over) throw new Error('still waiting after a virtual minute');
  return done;
}

function worldOf(seed = 1) {
  const clock = new ModelClock(seed);
  const broker = new ModelBroker(clock, 2);
  return { clock, broker, process: new ProcessHandle(clock, 'p') };
}

async function valuesOf(clock: ModelClock, broker: ModelBroker, isolation: 'raw' | 'committed', topic = 'nars') {
  const reader = broker.connect().reader(isolation);
  reader.assign(topic, 0, 0);
  const values: string[] = [];
  for (;;) {
    const [part] = await settled(clock, reader.poll(100));
    values.push(...part!.records.map((record) => record.marker ?? record.value!.toString()));
    if (part!.records.length === 0) return values;
  }
}

describe('clock', () => {
  test('sleepers wake in the order of their times, and a killed process never', async () => {
    const { clock, process } = worldOf();
    const woken: string[] = [];
    const start = clock.now();
    void clock.sleep(20).then(() => woken.push(`b at ${clock.now() - start}`));
    void clock.sleep(10).then(() => woken.push(`a at ${clock.now() - start}`));
    void process.clock.sleep(15).then(() => woken.push('killed'));
    process.kill();
    await clock.run(start + 100);
    expect(woken).toEqual(['a at 10', 'b at 20']);
  });

  test('a paused process goes on where it stood', async () => {
    const { clock, process } = worldOf();
    const start = clock.now();
    let woken = 0;
    void process.clock.sleep(10).then(() => {
      woken = clock.now() - start;
    });
    process.pause();
    clock.after(500, () => process.resume());
    await clock.run(start + 1000);
    expect(woken).toBe(500);
  });
});

describe('log', () => {
  test('records are read as appended, with the virtual time', async () => {
    const { clock, broker } = worldOf();
    const writer = broker.connect().writer();
    const offsets = await settled(
      clock,
      Promise.all([writer.append('nars', 0, [message('1'), message('2')]), writer.append('nars', 0, [message('3')])]),
    );
    expect(offsets).toEqual([0, 2]);
    expect(await valuesOf(clock, broker, 'committed')).toEqual(['1', '2', '3']);
  });

  test('a poll waits for a record and no longer than it was told', async () => {
    const { clock, broker } = worldOf();
    const reader = broker.connect().reader('committed');
    reader.assign('nars', 1, 0);
    const start = clock.now();
    expect((await settled(clock, reader.poll(50)))[0]).toMatchObject({ records: [], nextOffset: 0, endOffset: 0 });
    expect(clock.now() - start).toBeGreaterThanOrEqual(50);
    clock.after(
      10,
      () =>
        void broker
          .connect()
          .writer()
          .append('nars', 1, [message('x')]),
    );
    expect((await settled(clock, reader.poll(5000)))[0]!.records).toHaveLength(1);
    expect(clock.now() - start).toBeLessThan(1000);
  });

  test('an offset that is not in the log is a fault', async () => {
    const { clock, broker } = worldOf();
    const reader = broker.connect().reader('committed');
    reader.assign('nars', 0, 5);
    await expect(settled(clock, reader.poll(50))).rejects.toMatchObject({ kind: 'out_of_range' });
  });

  test('a swallowed append reports success, an unknown one may have been written', async () => {
    const { clock, broker } = worldOf();
    const writer = broker.connect().writer();
    broker.faults = { ...broker.faults, swallowed: 1 };
    await settled(clock, writer.append('nars', 0, [message('swallowed')]));
    broker.faults = { ...broker.faults, swallowed: 0, unknownAppended: 1 };
    await expect(settled(clock, writer.append('nars', 0, [message('written')]))).rejects.toBeInstanceOf(LogFault);
    expect(await valuesOf(clock, broker, 'committed')).toEqual(['written']);
  });

  test('away: unavailable, and then well again', async () => {
    const { clock, broker } = worldOf();
    broker.away(1000);
    await expect(settled(clock, broker.connect().bounds('nars', 0))).rejects.toMatchObject({ kind: 'unavailable' });
    await clock.run(clock.now() + 1000);
    expect(await settled(clock, broker.connect().bounds('nars', 0))).toEqual({ startOffset: 0, endOffset: 0 });
  });
});

describe('transactions', () => {
  test('committed readers see committed records only; raw readers also markers', async () => {
    const { clock, broker } = worldOf();
    const writer = broker.connect().transactionalWriter('feed-0');
    await settled(clock, writer.open());
    await settled(clock, writer.commit('nars', 0, [message('1'), message('2')]));
    expect(await valuesOf(clock, broker, 'committed')).toEqual(['1', '2']);
    expect(await valuesOf(clock, broker, 'raw')).toEqual(['1', '2', 'commit']);
  });

  test('open() fences the older writer and aborts what it had open', async () => {
    const { clock, broker, process } = worldOf();
    const older = broker.connect(process).transactionalWriter('feed-0');
    await settled(clock, older.open());
    const hanging = older.commit('nars', 0, [message('lost')]);
    hanging.catch(() => undefined);
    await clock.runUntil(() => broker.partition('nars', 0).endOffset > 0, clock.now() + 200);
    process.pause();
    const newer = broker.connect().transactionalWriter('feed-0');
    await settled(clock, newer.open());
    process.resume();
    await expect(settled(clock, hanging)).rejects.toMatchObject({ kind: 'fenced' });
    await settled(clock, newer.commit('nars', 0, [message('kept')]));
    expect(await valuesOf(clock, broker, 'committed')).toEqual(['kept']);
    expect(await valuesOf(clock, broker, 'raw')).toEqual(['lost', 'abort', 'kept', 'commit']);
  });
});

describe('what real brokers and clients do', () => {
  test('K1: a producer that is kept after a lost answer has its next batch taken for a repeat of the last', async () => {
    const { clock, broker } = worldOf();
    broker.isClientCareless = true;
    const writer = broker.connect().writer();
    broker.faults = { ...broker.faults, unknownAppended: 1 };
    await expect(settled(clock, writer.append('nars', 0, [message('first')]))).rejects.toBeInstanceOf(LogFault);
    broker.faults = { ...broker.faults, unknownAppended: 0 };
    expect(await settled(clock, writer.append('nars', 0, [message('second')]))).toBe(0);
    expect(await valuesOf(clock, broker, 'committed')).toEqual(['first']);
  });

  test('a producer that is thrown away after it is not', async () => {
    const { clock, broker } = worldOf();
    const writer = broker.connect().writer();
    broker.faults = { ...broker.faults, unknownAppended: 1 };
    await expect(settled(clock, writer.append('nars', 0, [message('first')]))).rejects.toBeInstanceOf(LogFault);
    broker.faults = { ...broker.faults, unknownAppended: 0 };
    expect(await settled(clock, writer.append('nars', 0, [message('second')]))).toBe(1);
  });

  test('only the last five batches of a producer are known, and none after a while', () => {
    const { clock, broker } = worldOf();
    const log = broker.partition('nars', 0);
    const request = (sequence: number) => ({ producerId: '7', epoch: 0, sequence, messages: [message(`${sequence}`)] });
    for (let sequence = 0; sequence < 6; sequence++) broker.produce(log, request(sequence));
    expect(broker.produce(log, request(1))).toBe(1);
    expect(() => broker.produce(log, request(0))).toThrow('out of order');
    clock.after(60_000, () => undefined);
    return clock.run(clock.now() + 60_000).then(() => expect(broker.produce(log, request(0))).toBe(6));
  });

  test('KAFKA-17754: a late commit of one transaction ends the next one of the same epoch, and none of a newer epoch', async () => {
    const { clock, broker } = worldOf();
    const log = broker.partition('nars', 0);
    const { producer } = broker.openProducer('feed-0');
    const send = (text: string, sequence: number) => {
      broker.beginTransaction(producer, log);
      broker.produceInTransaction(producer, { producerId: producer.id, epoch: 1, sequence, messages: [message(text)] });
    };
    send('first', 0);
    broker.commitTransaction(producer);
    await clock.run(clock.now() + 200);
    send('half of the second', 1);
    broker.commitTransaction(producer);
    await clock.run(clock.now() + 200);
    expect(await valuesOf(clock, broker, 'committed')).toEqual(['first', 'half of the second']);
  });
});
