/** What operators do by mistake, and what they do every day. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Admin } from 'kafkajs';
import { electionCodec } from '../../../schemas/codec.ts';
import { otherReplica, outputTopic, type Replica, topics } from '../../../schemas/topics.ts';
import type { Election } from '../../../schemas/types.ts';
import { chainsOf, readOutputs } from '../../integration/reading.ts';
import { type Cell, type Fault, require } from '../cell.ts';
import { start } from '../faults.ts';
import { type Field, partitions } from '../field.ts';
import { administer, remakeTopics } from '../operator.ts';
import { runKafkaTool } from '../ordinary-consumer.ts';

export const operatorCells: readonly Cell[] = [
  {
    name: 'offsets-reset',
    about: "every group's committed offsets are reset to latest, and all who committed them restart",
    settleWithinMs: 90_000,
    fault: resetOffsets,
  },
  {
    name: 'acks-recreated',
    about: 'topic acks is deleted and made again',
    settleWithinMs: 90_000,
    fault: recreateAcks,
  },
  {
    name: 'replica-wiped',
    about: "one aggregator's snapshots and output topics are deleted while it is down, and made again",
    settleWithinMs: 90_000,
    fault: wipeReplica,
    afterwards: sameFromTheStart,
  },
  {
    name: 'fold-config',
    about: 'the configuration of the fold changes under load',
    settleWithinMs: 60_000,
    fault: changeFoldConfig,
  },
  {
    name: 'leaders-moved',
    about: 'every partition of every topic gets another broker leader',
    settleWithinMs: 90_000,
    fault: moveLeaders,
  },
  {
    name: 'old-election',
    about: 'an election of an old epoch is written late, as by a watchdog that slept',
    settleWithinMs: 60_000,
    fault: writeOldElection,
  },
];

async function resetOffsets(field: Field): Promise<Fault> {
  const groups = ['flowledger-aggregator-a', 'flowledger-aggregator-b', 'flowledger-feed', 'flowledger-accounting'];
  const services = field.stack.services.filter((name) => /^(aggregator|feed|accounting)/.test(name));
  for (const name of services) await field.stack.kill(name);
  // What the load brings meanwhile is what a group that trusts its offsets would miss.
  await delay(3000);
  const reset: string[] = [];
  await administer(field, async (admin) => {
    for (const groupId of groups) {
      for (const { topic } of await admin.fetchOffsets({ groupId })) {
        await admin.resetOffsets({ groupId, topic, earliest: false });
        reset.push(`${groupId}/${topic}`);
      }
    }
  });
  return {
    holdMs: 1000,
    happened: async () => {
      require(reset.length >= groups.length, `only ${reset.join(', ')} had offsets`);
      return `offsets of ${reset.join(', ')} set to the end while ${services.length} services were down and the load went on`;
    },
    heal: async () => void (await Promise.all(services.map((name) => start(field, name)))),
  };
}

async function recreateAcks(field: Field): Promise<Fault> {
  const happened = await remakeTopics(field, [topics.acks.name]);
  return { holdMs: 5000, happened, heal: async () => undefined };
}

async function wipeReplica(field: Field): Promise<Fault> {
  const wiped = otherReplica(field.elected());
  await field.stack.kill(`aggregator-${wiped}`);
  const happened = await remakeTopics(field, [`aggregates.${wiped}`, `snapshots.${wiped}`]);
  field.witness.replaced(outputTopic(wiped).name);
  return { holdMs: 5000, happened, heal: () => start(field, `aggregator-${wiped}`) };
}

/** The whole history of both, not only what came since. */
async function sameFromTheStart(field: Field): Promise<string[]> {
  const faults: string[] = [];
  for (let partition = 0; partition < partitions; partition++) {
    const [a, b] = await Promise.all((['a', 'b'] as Replica[]).map((replica) => readOutputs(field.log, replica, partition)));
    const length = Math.min(a?.length ?? 0, b?.length ?? 0, field.witness.ns('fed')[partition] as number);
    if (length < (field.witness.ns('fed')[partition] as number))
      faults.push(`partition ${partition}: a replica's topic begins anew but ends at n ${length}`);
    if (chainsOf((a ?? []).slice(0, length)).join() !== chainsOf((b ?? []).slice(0, length)).join())
      faults.push(`partition ${partition}: a and b differ`);
  }
  return faults;
}

async function changeFoldConfig(field: Field): Promise<Fault> {
  const file = join(field.stack.dir, 'changed.yaml');
  const versionBefore = field.witness.foldConfigVersion;
  const lines = [
    'aggregate:',
    '  window: 2s',
    '  lateness: 1s',
    '  live_within: 5s',
    '  group_by: [dst_account, proto, dst_port]',
    '  snapshot_every: 300',
  ];
  writeFileSync(file, `${lines.join('\n')}\n`);
  // The environment would win over the file, so it is taken out of this command's.
  const env = Object.fromEntries(
    Object.keys(field.stack.env)
      .filter((key) => key.startsWith('FLOWLEDGER_AGGREGATE_'))
      .map((key) => [key, undefined]),
  );
  const { code, stderr } = await field.stack.commandWith(env, 'config', 'apply', file);
  return {
    holdMs: 8000,
    happened: async () => {
      require(code === 0, `config apply ended with ${code}: ${stderr}`);
      const version = field.witness.foldConfigVersion;
      require(version > versionBefore, `the outputs are still of version ${version}`);
      return `config apply under load: outputs of version ${version} after those of version ${versionBefore}, windows of 2 s and other groups`;
    },
    heal: async () => undefined,
  };
}

async function moveLeaders(field: Field): Promise<Fault> {
  const leadersOf = (admin: Admin) =>
    admin
      .fetchTopicMetadata()
      .then(({ topics }) => new Map(topics.flatMap(({ name, partitions }) => partitions.map((one) => [`${name}/${one.partitionId}`, one] as const))));
  const before = await administer(field, async (admin) => {
    const leaders = await leadersOf(admin);
    const moves = new Map<string, { partition: number; replicas: number[] }[]>();
    for (const [key, { partitionId, leader, replicas }] of leaders) {
      const topic = key.slice(0, key.lastIndexOf('/'));
      const next = replicas.find((id) => id !== leader) as number;
      moves.set(topic, [...(moves.get(topic) ?? []), { partition: partitionId, replicas: [next, ...replicas.filter((id) => id !== next)] }]);
    }
    await admin.alterPartitionReassignments({ topics: [...moves].map(([topic, partitionAssignment]) => ({ topic, partitionAssignment })) });
    return leaders;
  });
  await delay(1000);
  await runKafkaTool('LeaderElectionCommand', ['--bootstrap-server', field.brokers, '--election-type', 'preferred', '--all-topic-partitions']);
  return {
    holdMs: 3000,
    happened: async () => {
      const after = await administer(field, leadersOf);
      const moved = [...after].filter(([key, { leader }]) => before.get(key)?.leader !== leader);
      require(moved.length > before.size / 2, `${moved.length} of ${before.size} partitions have another leader`);
      return `${moved.length} of ${before.size} partitions have another leader`;
    },
    heal: async () => undefined,
  };
}

async function writeOldElection(field: Field): Promise<Fault> {
  const elected = field.elected();
  const last = field.witness.elections.findLast(({ election }) => election.partition === 0)?.election as Election;
  const old: Election = {
    ...last,
    epoch: 0,
    leader: otherReplica(elected),
    previous: elected,
    watchdog: 'old',
    reason: 'silent',
    evidence: 'long ago',
  };
  const writer = field.log.writer();
  const offset = await writer.append(topics.elections.name, 0, [{ key: Buffer.from('0'), value: electionCodec.encode(old) }]);
  await writer.close();
  return {
    holdMs: 5000,
    happened: async () => {
      require(field.witness.elections.some(({ election }) => election.watchdog === 'old'), 'nobody read it');
      return `election of ${old.leader} with epoch 0 written at offset ${offset}, while ${elected} leads with epoch ${last.epoch}`;
    },
    heal: async () => undefined,
  };
}
