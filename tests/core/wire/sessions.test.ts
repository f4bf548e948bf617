import { describe, expect, test } from '@jest/globals';
import { Decoder, defaultDecoderLimits } from '../../../core/wire/decoder.ts';
import { exportSeconds, ipfixMessage, octets, set, templateRecord } from './decoding.ts';

const address = '192.0.2.1';
const startMs = exportSeconds * 1000;
const fields = [
  [8, 4],
  [12, 4],
  [1, 4],
  [2, 4],
] as const;
const template = set(2, templateRecord(256, fields));
const flow = set(256, octets([0x0a000001, 4], [0x0a000002, 4], [700, 4], [7, 4]));

class Sessions {
  readonly decoder = new Decoder();
  flows = 0;

  take(session: string | null, sequence: number, sets: readonly Buffer[], afterMs = 0): void {
    const message = ipfixMessage(sequence, sets, exportSeconds + Math.floor(afterMs / 1000));
    const sink = () => {
      this.flows++;
    };
    this.decoder.decode(message, address, startMs + afterMs, sink, session && `${address}#${session}`);
  }

  end(session: string): void {
    this.decoder.endSession(`${address}#${session}`);
  }
}

describe('a transport session', () => {
  test('has its own templates: no other session of the exporter and no datagram uses them', () => {
    const sessions = new Sessions();
    sessions.take('a', 0, [template]);
    sessions.take('b', 0, [flow]);
    sessions.take(null, 0, [flow]);
    expect(sessions.flows).toBe(0);
    sessions.take('a', 0, [flow]);
    expect(sessions.flows).toBe(1);
    sessions.take(null, 1, [template]);
    expect(sessions.flows).toBe(2);
  });

  test('takes its templates along when it ends, and what waits is given up', () => {
    const sessions = new Sessions();
    sessions.take('a', 0, [template]);
    sessions.take('a', 0, [set(257, Buffer.alloc(16))]);
    expect(sessions.decoder.counters.waitingSets).toBe(1);
    sessions.end('a');
    expect(sessions.decoder.counters).toMatchObject({ waitingSets: 0, waitingBytes: 0, undecodableSets: 1 });
    sessions.take('b', 0, [flow]);
    expect(sessions.flows).toBe(0);
  });

  test('is forgotten when it ended and is reported, and not before, however long it is silent', () => {
    const sessions = new Sessions();
    sessions.take('a', 0, [template]);
    sessions.decoder.takeReports();
    sessions.decoder.takePositions();
    const day = 24 * 3_600_000;
    sessions.decoder.expire(startMs + 3 * day);
    sessions.take('a', 0, [flow], 3 * day);
    expect(sessions.flows).toBe(1);
    sessions.end('a');
    sessions.decoder.expire(startMs + 3 * day + 1_000);
    expect(sessions.decoder.counters.exporters).toBe(1);
    expect(sessions.decoder.takeReports()).toMatchObject([{ sampler_address: address, protocol: 'ipfix', received_datagrams: 1 }]);
    sessions.decoder.takePositions();
    sessions.decoder.expire(startMs + 3 * day + 2_000);
    expect(sessions.decoder.counters.exporters).toBe(0);
  });

  test('counts from its own beginning: no loss over its end, a loss within it', () => {
    const sessions = new Sessions();
    sessions.take('a', 0, [template, flow]);
    sessions.take('a', 1, [flow]);
    sessions.end('a');
    sessions.take('b', 0, [template, flow]);
    sessions.take('b', 4, [flow]);
    const lost = sessions.decoder.takeReports().map((report) => report.lost_on_wire_flows);
    expect(lost).toEqual([0, 3]);
    expect(sessions.decoder.counters.exporterRestarts).toBe(0);
  });

  test('leaves nothing to be stored', () => {
    const sessions = new Sessions();
    sessions.take('a', 0, [template, flow]);
    expect(sessions.decoder.takePositions()).toEqual([]);
    expect(sessions.decoder.takeMemory()).toEqual([]);
    sessions.decoder.rememberAgain();
    sessions.end('a');
    sessions.decoder.takeReports();
    sessions.decoder.expire(startMs + 1_000);
    expect(sessions.decoder.counters.exporters).toBe(0);
    expect([sessions.decoder.takePositions(), sessions.decoder.takeMemory()]).toEqual([[], []]);
  });

  test('does not take up what datagrams of the same exporter left in the store', () => {
    const before = new Sessions();
    before.take(null, 0, [template]);
    const sessions = new Sessions();
    sessions.decoder.recall(before.decoder.takeMemory(), startMs);
    sessions.decoder.restore(before.decoder.takePositions());
    sessions.take('a', 100, [flow]);
    expect(sessions.flows).toBe(0);
    expect(sessions.decoder.takeReports()).toMatchObject([{ lost_on_wire_flows: 0 }]);
    sessions.take(null, 0, [flow]);
    expect(sessions.flows).toBe(1);
  });

  test('counts as an exporter of its address', () => {
    const decoder = new Decoder({ ...defaultDecoderLimits, exportersPerAddressMax: 3 });
    for (let i = 0; i < 10; i++) decoder.decode(ipfixMessage(0, [template]), address, startMs, () => undefined, `${address}#${i}`);
    expect(decoder.counters).toMatchObject({ exporters: 3, refusedDatagrams: 7 });
    for (let i = 0; i < 10; i++) decoder.endSession(`${address}#${i}`);
    decoder.takeReports();
    decoder.takePositions();
    decoder.expire(startMs + 1_000);
    decoder.decode(ipfixMessage(0, [template]), address, startMs, () => undefined, `${address}#10`);
    expect(decoder.counters.exporters).toBe(1);
  });
});
