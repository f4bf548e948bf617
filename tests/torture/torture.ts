/**
 * `make torture`: a table of cells over real processes. Each injects one fault under load, proves that it happened, and ends with the same question:
 * is everything that was sent billed or known to be lost, to the flow, once, in order, by both aggregators alike?
 */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { allCells } from './all-cells.ts';
import type { Cell } from './cell.ts';
import { flowsPerSecond } from './field.ts';
import { type CellResult, Torture } from './run-cells.ts';

const { values } = parseArgs({
  options: {
    cell: { type: 'string', multiple: true, default: [] },
    all: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    json: { type: 'string' },
    dir: { type: 'string' },
    containers: { type: 'boolean', default: false },
  },
});

const startedMs = Date.now();
const say = (line: string) => process.stderr.write(`${((Date.now() - startedMs) / 1000).toFixed(0).padStart(5)} s  ${line}\n`);

/** By name, or by the beginning of the name: kill is all that begin with kill. @throws Error when there is none */
function chosen(): readonly Cell[] {
  if (values.all) return allCells;
  const names = values.cell.flatMap((name) => name.split(','));
  const unknown = names.filter((name) => !allCells.some((cell) => matches(cell, name)));
  if (unknown.length > 0 || names.length === 0)
    throw new Error(`${unknown.length > 0 ? `no cell is called ${unknown.join(', ')}` : 'which cell?'} --cell NAME, --all or --list`);
  return allCells.filter((cell) => names.some((name) => matches(cell, name)));
}

function matches({ name }: Cell, wanted: string): boolean {
  return name === wanted || name.startsWith(`${wanted}-`);
}

function table(results: readonly CellResult[]): string {
  const seconds = (ms: number | null) => (ms === null ? '-' : (ms / 1000).toFixed(1)).padStart(7);
  const count = (flows: number) => flows.toLocaleString('en').padStart(10);
  const head = `${'cell'.padEnd(28)} verdict    sent flows     billed  lost on wire      lost   gap s  lag 0 s`;
  const rows = results.map((result) => {
    const { name, verdict, sentFlows, billedFlows, lostOnWireFlows, lostFlows, gapMs, lagZeroMs } = result;
    const flows = `${count(sentFlows)} ${count(billedFlows)}    ${count(lostOnWireFlows)} ${count(lostFlows)}`;
    return `${name.padEnd(28)} ${verdict.padEnd(8)} ${flows} ${seconds(gapMs)}  ${seconds(lagZeroMs)}`;
  });
  return [head, ...rows].join('\n');
}

async function main(): Promise<number> {
  if (values.list) {
    for (const { name, about } of allCells) process.stdout.write(`${name.padEnd(28)} ${about}\n`);
    return 0;
  }
  const backends = values.containers ? { backends: new (await import('./containers.ts')).Containers(say) } : {};
  const torture = new Torture({ say, ...backends, ...(values.dir ? { dir: values.dir } : {}) });
  const results: CellResult[] = [];
  try {
    for (const cell of chosen()) {
      const result = await torture.run(cell);
      results.push(result);
      for (const fault of result.faults) say(`   ${fault}`);
    }
  } finally {
    await torture.end();
  }
  const where = values.containers ? 'brokers and Redis in containers' : 'all as processes';
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.version}; ${where}`;
  process.stdout.write(`${machine}; ${flowsPerSecond.toLocaleString('en')} flows/s\n${table(results)}\n`);
  if (values.json)
    writeFileSync(values.json, `${JSON.stringify({ machine, flowsPerSecond, at: new Date(startedMs).toISOString(), cells: results })}\n`);
  const broken = results.filter(({ verdict }) => verdict === 'BROKEN');
  const skipped = results.filter(({ verdict }) => verdict === 'skipped');
  process.stdout.write(`${results.length - broken.length - skipped.length} cells held, ${broken.length} broken, ${skipped.length} skipped\n`);
  return broken.length > 0 ? 1 : 0;
}

process.exitCode = await main().catch((error: Error) => {
  process.stderr.write(`${error.stack}\n`);
  return 1;
});
