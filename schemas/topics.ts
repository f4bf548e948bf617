/** Each topic once: name, key, settings, and what goes wrong where a broker has others. Names are public. */

export type Replica = 'a' | 'b';
export const replicas: readonly Replica[] = ['a', 'b'];

export function otherReplica(replica: Replica): Replica {
  return replica === 'a' ? 'b' : 'a';
}

export interface Topic {
  readonly name: string;
  /** 'nars': as many as nars has; a number: so many. */
  readonly partitions: 'nars' | number;
  readonly key: string;
  readonly value: string;
  readonly settings: Readonly<Record<string, { readonly value: string; readonly why: string }>>;
}

const keepAll = {
  'cleanup.policy': { value: 'delete', why: 'compaction would remove records that a replica still has to read' },
  'retention.ms': { value: '-1', why: 'time retention would delete records that no replica has in a snapshot yet' },
  'retention.bytes': { value: '-1', why: 'size retention would delete records that no replica has in a snapshot yet' },
};
const compacted = {
  'cleanup.policy': { value: 'compact', why: 'the last record of each key must be kept for ever' },
};
const everywhere = {
  'message.timestamp.type': { value: 'LogAppendTime', why: "the fold limits each watermark by the broker's append time" },
  'max.message.bytes': { value: '4194304', why: 'batches and output blocks are cut at 1 MiB, well below it' },
  'unclean.leader.election.enable': { value: 'false', why: 'an unclean leader truncates the log' },
};

export const topics = {
  nars: { name: 'nars', partitions: 'nars', key: 'collector', value: 'nar-batch', settings: { ...keepAll, ...everywhere } },
  acks: { name: 'acks', partitions: 8, key: 'replica/collector/partition', value: 'ack', settings: { ...compacted, ...everywhere } },
  health: {
    name: 'health',
    partitions: 1,
    key: 'role/id',
    value: 'health',
    settings: {
      'cleanup.policy': { value: 'delete', why: 'only the newest reports matter' },
      'retention.ms': { value: '3600000', why: 'several reports a second and service add up' },
      ...everywhere,
    },
  },
  elections: { name: 'elections', partitions: 1, key: 'partition', value: 'election', settings: { ...compacted, ...everywhere } },
  agreements: { name: 'agreements', partitions: 1, key: 'partition', value: 'agreement', settings: { ...compacted, ...everywhere } },
  verdicts: { name: 'verdicts', partitions: 1, key: 'partition/replica', value: 'verdict', settings: { ...compacted, ...everywhere } },
  aggregates: { name: 'aggregates', partitions: 'nars', key: 'grouping key', value: 'output', settings: { ...keepAll, ...everywhere } },
} as const satisfies Record<string, Topic>;

/** The output blocks of one replica. */
export function outputTopic(replica: Replica): Topic {
  return { name: `aggregates.${replica}`, partitions: 'nars', key: 'partition', value: 'output-block', settings: { ...keepAll, ...everywhere } };
}

/** The snapshots of one replica. */
export function snapshotTopic(replica: Replica): Topic {
  return {
    name: `snapshots.${replica}`,
    partitions: 'nars',
    key: 'partition/offset/chunk',
    value: 'snapshot-chunk',
    settings: { ...compacted, ...everywhere },
  };
}

export const allTopics: readonly Topic[] = [
  ...Object.values(topics),
  ...replicas.flatMap((replica) => [outputTopic(replica), snapshotTopic(replica)]),
];

/** Largest encoded batch, output block or snapshot chunk in bytes: a quarter of max.message.bytes, since compression may fail to shrink it. */
export const messageBytesMax = 1024 * 1024;

/** The collector name under which the administration commands write fold_config and base entries. */
export const adminCollector = '~admin';

/** FNV-1a of the text: which partition of acks holds a collector's acknowledgments. */
export function ackPartition(collector: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < collector.length; i++) hash = Math.imul(hash ^ collector.charCodeAt(i), 0x01000193) >>> 0;
  return hash % topics.acks.partitions;
}
