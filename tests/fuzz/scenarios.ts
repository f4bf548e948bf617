/** From a seed to the steps of a scenario. */

import type { DecoderLimits } from '../../core/wire/decoder.ts';
import { PseudoRandom } from '../../core/wire/pseudo-random.ts';
import { Mutator } from './mutations.ts';
import { roomy, type Step, tight } from './play.ts';
import type { Session, SessionDatagram } from './sessions.ts';

export interface Scenario {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly limits: DecoderLimits;
  /** Spoilt datagrams among the steps. */
  readonly mutated: number;
}

interface Material {
  readonly sessions: readonly Session[];
  readonly payloads: readonly Buffer[];
}

const spoiltDatagrams = 150;
/** No template has this id. */
const strangeSetId = 60_001;

export function scenarioOf(seed: number, material: Material): Scenario {
  const random = new PseudoRandom(seed);
  const mutator = new Mutator(random, material.payloads);
  switch (random.below(4)) {
    case 0:
      return hostile(`hostile-${seed}`, random, mutator, material);
    case 1:
      return bystander(`bystander-${seed}`, random, mutator, material);
    default:
      return neighbour(`neighbour-${seed}`, random, mutator, material);
  }
}

function spoilt(random: PseudoRandom, mutator: Mutator, { payloads }: Material, receivedMs: number): Step {
  const payload = payloads[random.below(payloads.length)] as Buffer;
  return { address: `198.18.0.${random.below(4)}`, receivedMs, datagram: mutator.anywhere(payload) };
}

/** Nothing but spoilt datagrams, and little room. */
function hostile(name: string, random: PseudoRandom, mutator: Mutator, material: Material): Scenario {
  const startMs = 1_700_000_000_000;
  const steps = Array.from({ length: spoiltDatagrams }, (_, i) => spoilt(random, mutator, material, startMs + 1_000 * i));
  return { name, steps, limits: tight, mutated: spoiltDatagrams };
}

/** A whole session, with spoilt datagrams of other exporters between its own, which are all decoded as if there were no others. */
function bystander(name: string, random: PseudoRandom, mutator: Mutator, material: Material): Scenario {
  const session = material.sessions[random.below(material.sessions.length)] as Session;
  const steps: Step[] = [];
  const each = Math.ceil(spoiltDatagrams / session.length);
  for (const one of session) {
    for (let i = 0; i < each; i++) steps.push(spoilt(random, mutator, material, one.receivedMs));
    steps.push(untouched(one));
  }
  return { name, steps, limits: roomy, mutated: each * session.length };
}

/** A session of which flows are spoilt, and sets put in that nobody knows: all other flows of the same exporter are decoded as ever. */
function neighbour(name: string, random: PseudoRandom, mutator: Mutator, material: Material): Scenario {
  const session = material.sessions[random.below(material.sessions.length)] as Session;
  let mutated = 0;
  const steps = session.map((one): Step => {
    const part = one.parts[random.below(one.parts.length)];
    const kind = random.below(4);
    if (part !== undefined && kind > 0) {
      mutated++;
      const datagram = Buffer.from(one.datagram);
      mutator.within(datagram, part.start, part.end);
      const { address, receivedMs, taken } = one;
      return { address, receivedMs, datagram, wanted: { taken, first: part.before, last: part.behind, exactly: false } };
    }
    if (one.gaps.length === 0 || random.below(2) === 0) return untouched(one);
    mutated++;
    return { ...untouched(one), datagram: withStranger(one, one.gaps[random.below(one.gaps.length)] as number, mutator.noise(4 * random.below(20))) };
  });
  return { name, steps, limits: roomy, mutated };
}

function untouched({ address, receivedMs, datagram, taken }: SessionDatagram): Step {
  return { address, receivedMs, datagram, wanted: { taken, first: taken.ends.length, last: 0, exactly: true } };
}

function withStranger({ datagram }: SessionDatagram, at: number, content: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16BE(strangeSetId, 0);
  head.writeUInt16BE(4 + content.length, 2);
  const longer = Buffer.concat([datagram.subarray(0, at), head, content, datagram.subarray(at)]);
  // IPFIX tells the message's length.
  if (longer.readUInt16BE(0) === 10) longer.writeUInt16BE(datagram.readUInt16BE(2) + head.length + content.length, 2);
  return longer;
}
