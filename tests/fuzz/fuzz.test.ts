/** The fuzzer in its short form: the same scenarios each time, and all that it found before. */
import { beforeAll, describe, expect, test } from '@jest/globals';
import { Decoder } from '../../core/wire/decoder.ts';
import { readFinds, shortened } from './corpus.ts';
import { faultOf, play, roomy, type Step, Taking } from './play.ts';
import { scenarioOf } from './scenarios.ts';
import { readSessions } from './sessions.ts';

let material: Awaited<ReturnType<typeof readSessions>>;
beforeAll(async () => {
  material = await readSessions();
});

test('spoilt datagrams make no decoder throw, give nothing that cannot be, and change nothing beside them', () => {
  const faults: string[] = [];
  const kinds = new Map<string, number>();
  for (let seed = 1; seed <= 120; seed++) {
    const { name, steps, limits, mutated } = scenarioOf(seed, material);
    const fault = play(steps, limits);
    if (fault !== null) faults.push(`${name}: ${fault}`);
    const kind = name.split('-', 1)[0] as string;
    kinds.set(kind, (kinds.get(kind) ?? 0) + mutated);
  }
  expect(faults).toEqual([]);
  expect([...kinds.keys()].sort()).toEqual(['bystander', 'hostile', 'neighbour']);
  for (const mutated of kinds.values()) expect(mutated).toBeGreaterThan(150);
});

test('nothing that was found before fails any more', () => {
  expect(readFinds().map(({ name, steps, limits }) => [name, play(steps, limits)])).toEqual(readFinds().map(({ name }) => [name, null]));
});

describe('the oracle', () => {
  /** A session of which the last datagram gives NARs. */
  function session(): Step[] {
    const found = material.sessions.find((one) => one.length > 3 && (one.at(-1)?.taken.ends.length ?? 0) > 1)!;
    return found.map(({ address, receivedMs, datagram, taken }) => ({
      ...{ address, receivedMs, datagram },
      wanted: { taken, first: taken.ends.length, last: 0, exactly: true },
    }));
  }

  test('is content with what is not spoilt', () => {
    expect(play(session(), roomy)).toBeNull();
  });

  test('notices a NAR that is missing, and one that is another, and shortens what shows it', () => {
    const steps = session();
    const last = steps.at(-1)!;
    const taken = last.wanted!.taken;
    const fewer = { ...taken, ends: taken.ends.slice(1), keys: taken.keys.slice(1) };
    const missing = [...steps.slice(0, -1), { ...last, wanted: { ...last.wanted!, taken: fewer } }];
    expect(play(missing, roomy)).toMatch(/NARs instead of/);
    const other = { ...taken, bytes: Buffer.from(taken.bytes) };
    other.bytes[10] = other.bytes[10]! ^ 1;
    const changed = [...steps.slice(0, -1), { ...last, wanted: { ...last.wanted!, taken: other } }];
    expect(play(changed, roomy)).toMatch(/other NARs/);
    const short = shortened({ name: 'x', steps: changed, limits: roomy, mutated: 0 });
    expect(short.length).toBeLessThan(steps.length);
    expect(play(short, roomy)).not.toBeNull();
  });

  test('notices a NAR that cannot be', () => {
    const faults: (string | null)[] = [];
    const decoder = new Decoder(roomy);
    const taking = new Taking();
    const { datagram, address, receivedMs } = material.sessions.flat().find(({ taken }) => taken.ends.length > 0 && taken.keys[0]?.includes('v5'))!;
    decoder.decode(datagram, address, receivedMs, (nar, slot) => {
      faults.push(faultOf(nar), faultOf({ ...nar, src_port: 65536 }), faultOf({ ...nar, bytes: -1 }), faultOf({ ...nar, src_addr: Buffer.alloc(5) }));
      taking.sink({ ...nar, time_flow_end_ms: Number.NaN }, slot);
    });
    expect(faults[0]).toBeNull();
    expect(faults.slice(1, 4)).not.toContain(null);
    expect(taking.fault).not.toBeNull();
  });
});
