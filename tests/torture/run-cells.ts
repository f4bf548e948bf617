/** Runs cells one after another on one stack, and judges each. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Backends } from '../../infra/stack.ts';
import type { Cell } from './cell.ts';
import { type AuditAnswer, type Balance, balanceOf, Field } from './field.ts';
import type { Sent } from './load.ts';
import { isInNamespace, runInNamespace } from './namespace.ts';

export interface CellResult {
  readonly name: string;
  readonly about: string;
  readonly verdict: 'held' | 'BROKEN' | 'skipped';
  /** That the fault happened, or why it could not. */
  readonly evidence: string;
  readonly sentFlows: number;
  readonly billedFlows: number;
  readonly lostOnWireFlows: number;
  /** In explicit Losses. */
  readonly lostFlows: number;
  readonly doubts: number;
  /** The longest time in which some partition was fed nothing, from the fault on. */
  readonly gapMs: number | null;
  /** From the end of the fault until A, B and what is fed were current again, under load. */
  readonly lagZeroMs: number | null;
  readonly seconds: number;
  readonly faults: readonly string[];
}

export interface TortureOptions {
  readonly say: (line: string) => void;
  /** Nothing: a new directory, removed at the end. */
  readonly dir?: string;
  /** What starts brokers and Redis; nothing: as processes. */
  readonly backends?: Backends;
}

const noBalance: Balance = {
  billed: { datagrams: 0, flows: 0, bytes: 0, packets: 0 },
  lostOnWireFlows: 0,
  lost: { datagrams: 0, flows: 0, bytes: 0, packets: 0 },
  doubts: 0,
};
/** Of load before a fault, and after everything is well again: each exporter must be heard once more, so that what it lost is known. */
const loadBeforeMs = 4_000;
const loadAfterMs = 3_000;
const startWithinMs = 60_000;
const auditSeconds = 90;
const agreeWithinMs = 30_000;

export class Torture {
  readonly #options: TortureOptions;
  #field: Field | null = null;
  #balance: Balance = noBalance;
  #fields = 0;

  constructor(options: TortureOptions) {
    this.#options = options;
  }

  async run(cell: Cell): Promise<CellResult> {
    const { say } = this.#options;
    const startedMs = Date.now();
    const lacking = (await cell.lacks?.()) ?? '';
    if (lacking) {
      say(`${cell.name}: SKIPPED, ${lacking}`);
      return result(cell, 'skipped', { evidence: lacking });
    }
    if (cell.env || cell.inNamespace) await this.end();
    let outcome: CellResult;
    try {
      outcome = cell.inNamespace && !isInNamespace() ? await runInNamespace<CellResult>(cell.name) : await this.#runOn(await this.#ready(cell), cell);
    } catch (error) {
      outcome = result(cell, 'BROKEN', { faults: [(error as Error).message] });
    }
    outcome = { ...outcome, seconds: Math.round((Date.now() - startedMs) / 1000) };
    // What one cell has broken must not be held against the next one; what it has changed must not help it.
    if (outcome.verdict === 'BROKEN' || cell.env) await this.end();
    const { verdict, evidence, seconds } = outcome;
    say(`${cell.name}: ${verdict} in ${seconds} s; ${evidence}`);
    return outcome;
  }

  async end(): Promise<void> {
    const field = this.#field;
    this.#field = null;
    this.#balance = noBalance;
    await field?.stop();
  }

  async #ready(cell: Cell): Promise<Field> {
    if (this.#field) return this.#field;
    const { say, dir, backends } = this.#options;
    say('starting three brokers, two Redis, collectors, watchdogs and feeds each, aggregators and accounting');
    const place = dir ? { dir: `${dir}/${++this.#fields}` } : {};
    this.#field = await Field.start({ ...place, ...(cell.env ? { env: cell.env } : {}), ...(backends ? { backends } : {}) });
    return this.#field;
  }

  async #runOn(field: Field, cell: Cell): Promise<CellResult> {
    const { say } = this.#options;
    const faults: string[] = [];
    field.witness.forgetBefore(Date.now());
    field.startLoad();
    if ((await field.current(startWithinMs)) === null) throw new Error(`without any fault nothing is current after ${startWithinMs / 1000} s`);
    await delay(loadBeforeMs);
    say(`${cell.name}: ${cell.about}`);
    const atMs = Date.now();
    const fault = await cell.fault(field);
    let evidence = '';
    try {
      await delay(fault.holdMs);
      evidence = await fault.happened();
    } finally {
      await fault.heal();
    }
    const lagZeroMs = await field.current(cell.settleWithinMs);
    if (lagZeroMs === null) faults.push(`not current within ${cell.settleWithinMs / 1000} s: ${field.witness.behindMs(Date.now())} ms behind`);
    const gapMs = field.witness.longestGapMs(atMs, Date.now());
    await field.allReady().catch((error: Error) => faults.push(error.message));
    await delay(loadAfterMs);
    const sent = await field.stopLoad();
    const audit = await field.audit(auditSeconds);
    const before = this.#balance;
    this.#balance = balanceOf(audit);
    faults.push(...judge(cell, sent, before, audit), ...(await sameEverywhere(field)), ...((await cell.afterwards?.(field)) ?? []));
    return result(cell, faults.length > 0 ? 'BROKEN' : 'held', { ...figures(sent, before, this.#balance), evidence, gapMs, lagZeroMs, faults });
  }
}

function result(cell: Cell, verdict: CellResult['verdict'], known: Partial<CellResult>): CellResult {
  const nothing = { evidence: '', sentFlows: 0, billedFlows: 0, lostOnWireFlows: 0, lostFlows: 0, doubts: 0, gapMs: null, lagZeroMs: null };
  return { name: cell.name, about: cell.about, verdict, seconds: 0, faults: [], ...nothing, ...known };
}

function figures(sent: Sent, before: Balance, after: Balance) {
  return {
    sentFlows: sent.flows,
    billedFlows: after.billed.flows - before.billed.flows,
    lostOnWireFlows: after.lostOnWireFlows - before.lostOnWireFlows,
    lostFlows: after.lost.flows - before.lost.flows,
    doubts: after.doubts - before.doubts,
  };
}

/** What the audit, held against what was sent, does not bear out. */
function judge(cell: Cell, sent: Sent, before: Balance, audit: AuditAnswer): string[] {
  const faults: string[] = [];
  const after = balanceOf(audit);
  const { billedFlows, lostOnWireFlows, lostFlows, doubts } = figures(sent, before, after);
  if (!audit.complete) faults.push(`not complete: ${audit.waiting_for.join('; ')}`);
  const { flows, bytes, packets } = audit.imbalance;
  if (flows !== 0 || bytes !== 0 || packets !== 0) faults.push(`imbalance: ${audit.imbalances.join('; ')}`);
  if (audit.divergence !== 0) faults.push(`divergence: ${audit.divergences.join('; ')}`);
  if (audit.unclosed_windows !== 0) faults.push(`${audit.unclosed_windows} windows are not closed`);
  if (lostFlows !== 0 && !cell.allows) faults.push(`${lostFlows} flows in explicit Losses, which this fault must not cause`);
  if (doubts !== 0 && cell.allows !== 'doubt') faults.push(`${doubts} doubts, which this fault must not cause`);
  const known = billedFlows + lostOnWireFlows + lostFlows;
  const sum = `billed ${billedFlows} + lost on the wire ${lostOnWireFlows} + lost ${lostFlows} = ${known}`;
  if (doubts > 0 ? known > sent.flows : known !== sent.flows) faults.push(`${sum}, sent ${sent.flows} flows (${sent.flows - known} missing)`);
  if (lostOnWireFlows === 0 && lostFlows === 0 && doubts === 0) {
    for (const unit of ['bytes', 'packets'] as const) {
      const billed = after.billed[unit] - before.billed[unit];
      if (billed !== sent[unit]) faults.push(`billed ${billed} ${unit}, sent ${sent[unit]}`);
    }
  }
  return faults;
}

/** A, B and aggregates hold the same outputs, and an ordinary consumer gets each once. */
async function sameEverywhere(field: Field): Promise<string[]> {
  const { witness, consumer } = field;
  const differing = () => witness.ns('a').join() !== witness.ns('b').join() || witness.ns('a').join() !== witness.ns('fed').join();
  for (const end = Date.now() + agreeWithinMs; differing() && Date.now() < end; ) await delay(100);
  const faults = witness.faults.splice(0);
  if (differing()) faults.push(`a has n ${witness.ns('a')}, b ${witness.ns('b')}, aggregates ${witness.ns('fed')}`);
  faults.push(...(await consumer.sees(witness.ns('fed'), agreeWithinMs)));
  return faults;
}
