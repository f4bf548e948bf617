/** IPFIX over TCP and TLS into a real collector: real sockets, real certificates, and what a lost session leaves in the balance. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { freePort } from '../../infra/local-kafka.ts';
import { Stack } from '../../infra/stack.ts';
import { exportSeconds, ipfixMessage, octets, set, templateRecord } from '../core/wire/decoding.ts';
import { eventually } from './reading.ts';

const minute = 60_000;
const collector = 'collector-1';
const fields = [
  [8, 4],
  [12, 4],
  [1, 4],
  [2, 4],
] as const;
const template = set(2, templateRecord(256, fields));
const flow = octets([0x0a000001, 4], [0x0a000002, 4], [700, 4], [7, 4]);
const message = (sequence: number, flows: number, withTemplate = sequence === 0) =>
  ipfixMessage(sequence, [...(withTemplate ? [template] : []), set(256, ...new Array<Buffer>(flows).fill(flow))], Math.floor(Date.now() / 1000));

let stack: Stack;
let certificates: string;
let tcpPort: number;
let tlsPort: number;
const clients: Socket[] = [];

const file = (name: string) => join(certificates, name);
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: certificates, stdio: ['ignore', 'ignore', 'pipe'] });

/** A key and a certificate that an authority signed. */
function certify(name: string, authority: string, extensions = ''): void {
  openssl(
    'req',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    `/CN=${name}`,
    '-keyout',
    `${name}.key`,
    '-out',
    `${name}.csr`,
  );
  writeFileSync(file(`${name}.ext`), extensions);
  const signed = ['-CA', `${authority}.pem`, '-CAkey', `${authority}.key`, '-CAcreateserial', '-extfile', `${name}.ext`];
  openssl('x509', '-req', '-in', `${name}.csr`, ...signed, '-days', '1', '-out', `${name}.pem`);
}

function makeAuthority(name: string): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`];
  openssl('req', '-x509', ...key, '-subj', `/CN=${name}`, '-days', '1', '-out', `${name}.pem`);
}

beforeAll(async () => {
  certificates = mkdtempSync(join(tmpdir(), 'certificates-'));
  for (const authority of ['authority', 'stranger']) makeAuthority(authority);
  certify('collector', 'authority', 'subjectAltName=IP:127.0.0.1');
  certify('router-7', 'authority');
  certify('intruder', 'stranger');
  [tcpPort, tlsPort] = [await freePort(), await freePort()];
  stack = await Stack.start({
    partitions: 2,
    env: {
      FLOWLEDGER_AGGREGATE_WINDOW: '1s',
      FLOWLEDGER_AGGREGATE_LATENESS: '1s',
      FLOWLEDGER_AGGREGATE_LIVE_WITHIN: '5s',
      FLOWLEDGER_COLLECTOR_LISTEN_TCP: `127.0.0.1:${tcpPort}`,
      FLOWLEDGER_COLLECTOR_LISTEN_TLS: `127.0.0.1:${tlsPort}`,
      FLOWLEDGER_COLLECTOR_TLS_CERTIFICATE: file('collector.pem'),
      FLOWLEDGER_COLLECTOR_TLS_KEY: file('collector.key'),
      FLOWLEDGER_COLLECTOR_TLS_AUTHORITIES: file('authority.pem'),
      FLOWLEDGER_COLLECTOR_TCP_MESSAGE_WITHIN: '2s',
    },
  });
}, 3 * minute);

afterAll(async () => {
  for (const client of clients) client.destroy();
  await stack?.stop();
  if (certificates) rmSync(certificates, { recursive: true, force: true });
}, minute);

async function tcp(): Promise<Socket> {
  const client = connectTcp({ host: '127.0.0.1', port: tcpPort });
  clients.push(client);
  client.on('error', () => undefined);
  await new Promise<void>((resolve) => client.once('connect', resolve));
  return client;
}

/** Without a name: without a certificate. Rejects when the handshake fails on this side. */
async function tls(name?: string, maxVersion: 'TLSv1.2' | 'TLSv1.3' = 'TLSv1.3'): Promise<Socket> {
  const own = name === undefined ? {} : { cert: readFileSync(file(`${name}.pem`)), key: readFileSync(file(`${name}.key`)) };
  const client = connectTls({ host: '127.0.0.1', port: tlsPort, ca: readFileSync(file('authority.pem')), maxVersion, ...own });
  clients.push(client);
  await new Promise<void>((resolve, reject) => {
    client.once('secureConnect', resolve);
    client.once('error', reject);
  });
  client.on('error', () => undefined);
  return client;
}

const metric = async (name: string) => (await stack.metrics(collector)).get(`flowledger_collector_${name}`) ?? 0;
const reaches = (name: string, value: number) =>
  eventually(
    () => metric(name),
    (seen) => seen === value,
  );
const audit = async () => JSON.parse((await stack.command('audit', '--json', '--wait', '60s')).stdout);

test(
  'an exporter with a good certificate is heard over TLS, and its name is in the log; over TCP another one',
  async () => {
    const [secure, plain] = [await tls('router-7'), await tcp()];
    secure.write(Buffer.concat([message(0, 3), message(3, 2)]));
    const cut = message(0, 4);
    plain.write(cut.subarray(0, 33));
    await delay(100);
    plain.write(cut.subarray(33));
    await reaches('decoded_flows_total', 9);
    for (const client of [secure, plain]) client.end();
    await reaches('ended_sessions_total', 2);
    expect(await metric('lost_sessions_total')).toBe(0);
    expect(readFileSync(stack.logFile(collector), 'utf8')).toContain('"certificate":"router-7"');
  },
  2 * minute,
);

test(
  'a wrong certificate, none, an old protocol, plain text and a handshake that does not go on are refused and counted',
  async () => {
    const before = await metric('decoded_flows_total');
    for (const [i, attempt] of [() => tls('intruder'), () => tls(), () => tls('intruder', 'TLSv1.2'), () => tls(undefined, 'TLSv1.2')].entries()) {
      // With TLS 1.3 the client learns of it only afterwards.
      await attempt().then(
        (client) => client.write(message(0, 1)),
        () => undefined,
      );
      await reaches('refused_connections_total', i + 1);
    }
    const connect = () => {
      const client = connectTcp({ host: '127.0.0.1', port: tlsPort });
      client.on('error', () => undefined);
      clients.push(client);
      return client;
    };
    connect().write(message(0, 1));
    await reaches('refused_connections_total', 5);
    connect();
    await reaches('refused_connections_total', 6);
    await reaches('connections', 0);
    expect(await metric('decoded_flows_total')).toBe(before);
    expect(readFileSync(stack.logFile(collector), 'utf8')).toContain('a TLS connection is refused');
  },
  2 * minute,
);

test(
  'sessions that end by themselves leave no doubt, one that breaks leaves one, and so does a collector that is killed',
  async () => {
    expect(await audit()).toMatchObject({ complete: true, doubts: 0, totals: { billed_flows: 9 } });
    const broken = await tcp();
    broken.write(message(0, 5));
    await reaches('decoded_flows_total', 14);
    broken.resetAndDestroy();
    await reaches('lost_sessions_total', 1);
    const open = await tls('router-7');
    open.write(message(0, 6));
    await reaches('decoded_flows_total', 20);
    await eventually(
      () => metric('pending_nars'),
      (pending) => pending === 0,
    );
    await stack.kill(collector);
    await stack.startService(collector);
    await stack.ready(collector);
    expect(await metric('lost_sessions_total')).toBe(1);
    const { totals, doubts } = await audit();
    expect(totals.billed_flows).toBe(20);
    expect(doubts).toBe(2);
  },
  3 * minute,
);

test(
  'templates end with their session',
  async () => {
    const before = await metric('decoded_flows_total');
    const [first, second] = [await tcp(), await tcp()];
    first.write(message(0, 1));
    await reaches('decoded_flows_total', before + 1);
    first.end();
    second.write(message(0, 1, false));
    await reaches('waiting_sets', 1);
    second.write(ipfixMessage(1, [template], exportSeconds));
    await reaches('decoded_flows_total', before + 2);
    second.end();
  },
  minute,
);
