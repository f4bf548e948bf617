/** Datagrams that the kernel dropped, per UDP socket of this process, since its receive buffer was full: what Linux tells in /proc/net/udp. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { addressText } from '../core/nar/address.ts';

/** Of one socket: where it is bound, and what it dropped since it was opened. */
export interface SocketDrops {
  readonly host: string;
  readonly port: number;
  readonly drops: number;
}

const tables = ['/proc/net/udp', '/proc/net/udp6'];
const columnOf = { local: 1, inode: 9, drops: 12 };

/** null where the kernel does not tell. */
export function kernelDrops(): SocketDrops[] | null {
  try {
    const inodes = ownSockets();
    const [v4 = '', v6 = ''] = tables.map(readTable);
    return [...readDrops(v4, inodes), ...readDrops(v6, inodes)];
  } catch {
    // Not Linux, or a /proc that hides it.
    return null;
  }
}

/** The lines of a table that are of these sockets; others may share their ports. */
export function readDrops(table: string, inodes: ReadonlySet<string>): SocketDrops[] {
  return table.split('\n').flatMap((line) => {
    const columns = line.trim().split(/\s+/);
    const [address = '', port = ''] = (columns[columnOf.local] ?? '').split(':');
    if (!inodes.has(columns[columnOf.inode] ?? '')) return [];
    return [{ host: hostOf(address), port: Number.parseInt(port, 16), drops: Number(columns[columnOf.drops]) }];
  });
}

/** The kernel writes each 32-bit word of the address as the machine has it, low octet first. */
function hostOf(hex: string): string {
  const words = hex.match(/.{8}/g) ?? [];
  return addressText(Buffer.concat(words.map((word) => Buffer.from(word, 'hex').reverse())));
}

function ownSockets(): Set<string> {
  const inodes = new Set<string>();
  for (const fd of readdirSync('/proc/self/fd')) {
    const inode = /^socket:\[(\d+)\]$/.exec(targetOf(`/proc/self/fd/${fd}`))?.[1];
    if (inode !== undefined) inodes.add(inode);
  }
  return inodes;
}

/** '' for what was closed meanwhile. */
function targetOf(link: string): string {
  try {
    return readlinkSync(link);
  } catch {
    return '';
  }
}

/** IPv6 may be switched off. */
function readTable(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (file.endsWith('6')) return '';
    throw error;
  }
}
