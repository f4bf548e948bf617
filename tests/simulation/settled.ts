/** I14, for when the faults are over: everything that was sent is accounted for everywhere. Each function names what is still missing. */
import { type Replica, replicas } from '../../schemas/topics.ts';
import { flowIdsOf } from './auditor.ts';
import type { ModelExporter } from './model-exporter.ts';
import type { World } from './world.ts';

export function settled(world: World): string[] {
  // What is cheap to ask, and settles last, comes first.
  for (const ask of [storesAreEmpty, everyWindowIsClosed, nobodyLags, nobodyIsInQuarantine, everyFlowHasCome, ledgerAgrees]) {
    const missing = ask(world);
    if (missing.length > 0) return missing;
  }
  return [];
}

/**
 * I12. Sent = accepted + reported lost, to the flow, as long as the exporters' positions are kept. A bound only, with flows that are reported lost
 * and accepted all the same: where a store went back, or two processes of one collector listened. Nothing is promised where a doubt stands,
 * or a collector had to start without the positions.
 */
export function everyFlowIsKnown(world: World): string | null {
  let known = 0;
  let accepted = 0;
  for (const { auditor } of world.histories) {
    known += auditor.total.flows + auditor.lost.flows + auditor.lostOnWire;
    accepted += auditor.total.flows;
  }
  const sent = world.exporters.reduce((sum, exporter) => sum + heardOf(world, exporter), 0);
  if (world.histories.some(({ promised }) => promised !== 'all')) return null;
  const doubts = world.histories.reduce((sum, { balance }) => sum + balance.doubts, 0);
  if (accepted > sent) return `${accepted} flows are accepted, ${sent} were sent`;
  if (doubts > 0 || world.knowledge === 'none') return null;
  const wrong = world.knowledge === 'exact' ? !lostBeforeAccepted(world).has(known - sent) : known < sent;
  return wrong ? `${sent} flows were sent, ${accepted} are accepted and ${known - accepted} reported lost` : null;
}

/** Reports of loss may be on their way, like everything else. */
function everyFlowHasCome(world: World): string[] {
  const unknown = everyFlowIsKnown(world);
  return unknown ? [unknown] : [];
}

/** Whatever happened to the log: nothing is billed that was not sent, or twice. */
export function noMoreThanSent(world: World): string | null {
  const sent = world.exporters.flatMap((exporter) => exporter.sent);
  const bytes = sent.reduce((sum, flow) => sum + BigInt(flow.bytes), 0n);
  const billed = { flows: 0, bytes: 0n };
  for (const { balance } of world.histories) {
    billed.flows += balance.total.flows;
    billed.bytes += balance.total.bytes;
  }
  if (billed.flows <= sent.length && billed.bytes <= bytes) return null;
  return `${billed.flows} flows and ${billed.bytes} bytes are emitted, ${sent.length} and ${bytes} were sent`;
}

/** Of one partition, since nothing goes wrong any more: a start, some restarts, a few take-overs. */
const openingsMax = 24;

/** F8. Feeds do not fence one another for ever. */
export function feedsAgree(opened: number, partitions: number): string | null {
  return opened > openingsMax * partitions ? `feeds have opened ${opened} producers for ${partitions} partitions since nothing goes wrong` : null;
}

/** Flows from the first one accepted on: what an exporter sent before it was ever heard is nobody's to know. */
function heardOf(world: World, exporter: ModelExporter): number {
  return exporter.sent.length - unheardOf(world, exporter);
}

/** Those before the first one accepted. */
function unheardOf(world: World, { sent }: ModelExporter): number {
  const unheard = sent.findIndex(({ id }) => world.histories.some(({ auditor }) => auditor.flows.has(id)));
  return unheard < 0 ? sent.length : unheard;
}

/**
 * How many flows may be reported lost beyond those that were heard: a collector whose copy was full when it first heard an exporter knows of its
 * flows from that datagram on, and has accepted none.
 */
function lostBeforeAccepted(world: World): Set<number> {
  let sums = new Set([0]);
  for (const exporter of world.exporters) {
    const unheard = unheardOf(world, exporter);
    const more = [0, ...exporter.carried.filter((before) => before < unheard).map((before) => unheard - before)];
    sums = new Set([...sums].flatMap((sum) => more.map((one) => sum + one)));
  }
  return sums;
}

function everyWindowIsClosed(world: World): string[] {
  return world.histories.flatMap(({ auditor, balance }, partition) => {
    const missing: string[] = [];
    if (balance.openFlows > 0 || balance.total.flows !== auditor.total.flows || balance.total.bytes !== auditor.total.bytes) {
      missing.push(`partition ${partition}: ${auditor.total.flows} flows are accepted, ${balance.total.flows} emitted, ${balance.openFlows} open`);
    }
    for (const [accounts, usage] of auditor.usage) {
      const given = balance.usage.get(accounts);
      if (given?.flows !== usage.flows || given.bytes !== usage.bytes || given.packets !== usage.packets) {
        missing.push(`partition ${partition}: ${accounts} has ${given?.bytes} bytes in aggregates, ${usage.bytes} in the log`);
      }
    }
    return missing;
  });
}

/** The fold moves on while one looks, so the last few outputs may be on their way. */
const onTheirWay = 3;

function nobodyLags(world: World): string[] {
  return world.histories.flatMap((history, partition) => {
    const due = history.reference.outputs.length - onTheirWay;
    const missing = replicas
      .filter((replica: Replica) => history.views[replica].outputs.length < due)
      .map((replica) => `partition ${partition}: ${replica} stands at ${history.views[replica].outputs.length}, ${due} are due`);
    if (history.emitted.length < due) missing.push(`partition ${partition}: aggregates stands at ${history.emitted.length}, ${due} are due`);
    return missing;
  });
}

function nobodyIsInQuarantine(world: World): string[] {
  return world.histories.flatMap(({ wrongness }) =>
    wrongness.quarantined.map(({ partition, replica, evidence }) => `partition ${partition}: ${replica} is still in quarantine: ${evidence}`),
  );
}

function ledgerAgrees(world: World): string[] {
  const expected = new Map<string, bigint>();
  for (const { auditor } of world.histories) {
    for (const [accounts, usage] of auditor.usage) expected.set(accounts, (expected.get(accounts) ?? 0n) + usage.bytes);
  }
  const view = world.ledger.view();
  const rows = view.usage(view.groupFields().length > 0 ? ['src_account', 'dst_account'] : [], { fromMs: null, toMs: null });
  const billed = new Map(rows.map(({ fields, bytes }) => [`${fields['src_account']}>${fields['dst_account']}`, bytes]));
  const unclosed = view.unclosedWindows({ fromMs: null, toMs: null });
  return [
    ...[...expected]
      .filter(([accounts, bytes]) => billed.get(accounts) !== bytes)
      .map(([accounts, bytes]) => `the ledger has ${billed.get(accounts)} bytes of ${accounts}, ${bytes} are due`),
    ...(unclosed > 0 ? [`the ledger has ${unclosed} windows that do not add up`] : []),
  ];
}

function storesAreEmpty(world: World): string[] {
  return world.stores.flatMap((store, index) => {
    let kept = 0;
    for (const { entries } of store.streams.values()) for (const { value } of entries.values()) kept += value ? flowIdsOf(value).length : 0;
    return kept > 0 ? [`store ${index} still holds ${kept} flows`] : [];
  });
}
