/**
 * Packets that are really lost: the whole stack lives in a network namespace of its own, with a loopback device whose packets nftables drops by rule.
 * Nothing outside of the namespace is touched.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { run } from '../../../infra/local-kafka.ts';
import { type Cell, type Fault, require } from '../cell.ts';
import type { Field } from '../field.ts';

const runFile = promisify(execFile);

/** Installs what is missing where that can be done. */
async function lacksNamespaces(): Promise<string> {
  if (process.getuid?.() !== 0) return 'a network namespace takes root';
  const works = () => run('unshare', ['--net', 'sh', '-c', 'ip link set lo up && nft add table inet probe'], () => {}).then(({ code }) => code === 0);
  if (await works().catch(() => false)) return '';
  await run('apt-get', ['-q', 'install', '-y', '--no-install-recommends', 'nftables', 'iproute2'], () => {}).catch(() => undefined);
  return (await works().catch(() => false))
    ? ''
    : 'network namespaces or nftables do not work here (Debian, Ubuntu: apt-get install nftables iproute2)';
}

/** Rules on what comes in, which on a loopback device is everything. */
async function drop(rules: readonly string[], holdMs: number, about: string): Promise<Fault> {
  const nft = (script: string) => runFile('nft', [script]);
  await nft('add table inet torture; add chain inet torture in { type filter hook input priority 0; }');
  for (const rule of rules) await nft(`add rule inet torture in ${rule} counter drop`);
  return {
    holdMs,
    happened: async () => {
      const { stdout } = await runFile('nft', ['list', 'table', 'inet', 'torture']);
      const packets = [...stdout.matchAll(/counter packets (\d+)/g)].map(([, count]) => Number(count));
      for (const [i, count] of packets.entries()) require(count > 0, `no packet met the rule ${rules[i]}`);
      return `${about} for ${holdMs / 1000} s: ${packets.join(' and ')} packets dropped`;
    },
    heal: async () => void (await nft('delete table inet torture')),
  };
}

const portsOf = (field: Field, from: string) =>
  `{ ${field.network
    .links(from, 'kafka')
    .map(({ port }) => port)
    .join(', ')} }`;

export const namespaceCells: readonly Cell[] = [
  {
    name: 'packet-loss',
    about: 'one packet of a hundred is lost, whoever sends it: brokers, Redis, services, exporters',
    settleWithinMs: 90_000,
    inNamespace: true,
    lacks: lacksNamespaces,
    fault: () => drop(['meta l4proto tcp numgen random mod 1000 < 10', 'meta l4proto udp numgen random mod 1000 < 10'], 20_000, '1 % loss'),
  },
  {
    name: 'blackhole-elected',
    about: 'every packet between the elected aggregator and the brokers is lost, those that open a connection as well',
    settleWithinMs: 90_000,
    inNamespace: true,
    lacks: lacksNamespaces,
    fault: (field) => {
      const ports = portsOf(field, `aggregator-${field.elected()}`);
      return drop([`tcp dport ${ports}`, `tcp sport ${ports}`], 15_000, 'all packets of the elected aggregator lost');
    },
  },
  {
    name: 'blackhole-answers',
    about: 'every packet from the brokers to the feed that emits and to a collector is lost, and none to them',
    settleWithinMs: 90_000,
    inNamespace: true,
    lacks: lacksNamespaces,
    fault: async (field) => {
      const [feed, collector] = [portsOf(field, await field.activeFeed()), portsOf(field, 'collector-1')];
      return drop([`tcp sport ${feed}`, `tcp sport ${collector}`], 15_000, 'answers to a feed and a collector lost');
    },
  },
];
