/** Every finding of `flowledger doctor`, once: what it means and what to do. `make errors` writes docs/ERRORS.md from here. Codes are public. */

/** error: records can be lost, billed wrong, or not at all. warning: nothing is lost yet. notice: good to know. */
export type Severity = 'error' | 'warning' | 'notice';

export interface ErrorCode {
  readonly severity: Severity;
  readonly title: string;
  /** How it shows. */
  readonly symptom: string;
  /** What it costs. */
  readonly meaning: string;
  readonly remedy: string;
}

/** FL1 broker, FL2 Redis, FL3 clocks, FL4 sockets, FL5 schemas, FL6 services and partitions, FL7 exporters, FL8 ledger. */
export const errorCodes = {
  FL101: {
    severity: 'error',
    title: 'the broker cannot be reached',
    symptom: 'Commands fail, collectors keep what they receive, aggregators and feed wait.',
    meaning: 'Nothing is lost while the local copies have room; nothing is billed meanwhile. What depends on the broker was not checked.',
    remedy: 'See that a broker of kafka.brokers runs and listens there, and that no firewall is between.',
  },
  FL102: {
    severity: 'error',
    title: 'the broker is too old, or too new, for a request of ours',
    symptom: 'The service that makes the request reports faults of the log.',
    meaning:
      'Reading by topic id needs Apache Kafka 3.1, the size of the disks 3.3. Without it a re-created topic could be taken for its predecessor.',
    remedy: 'Upgrade the broker that is named to Apache Kafka 3.3 or later.',
  },
  FL111: {
    severity: 'error',
    title: 'a topic is missing',
    symptom: 'Services are not ready.',
    meaning: 'Nothing can be written to it; if it was there before, what was in it is gone.',
    remedy: 'flowledger topics. Was nars deleted, read about the log that is replaced in docs/ARCHITECTURE.md first.',
  },
  FL112: {
    severity: 'error',
    title: 'a setting of a topic can lose or distort records',
    symptom: 'None, until records are gone.',
    meaning: 'The broker may delete, compact, refuse or wrongly date what a replica still has to read.',
    remedy: 'flowledger topics --fix',
  },
  FL113: {
    severity: 'warning',
    title: 'a setting of a topic is not the one that is needed',
    symptom: 'None.',
    meaning: 'It costs space or redundancy, and no record.',
    remedy: 'flowledger topics --fix; the replication of a topic is raised with kafka-reassign-partitions.',
  },
  FL114: {
    severity: 'error',
    title: 'a topic has another number of partitions than is configured',
    symptom: 'Services refuse to start, or flows go to a partition that nobody folds.',
    meaning: 'Which partition a flow goes to follows from the number, so it is fixed once records are there.',
    remedy: 'Set topics.partitions to what was found.',
  },
  FL121: {
    severity: 'error',
    title: "a broker's disk is nearly full",
    symptom: 'Less than a tenth of it is free.',
    meaning: 'A broker with a full disk stops. Collectors then keep what they receive, as long as their local copies have room.',
    remedy: 'Give it room. If an aggregator is away, start it: it keeps the log from being cut (flowledger status names it).',
  },
  FL122: {
    severity: 'warning',
    title: "a broker's disk is filling",
    symptom: 'Less than a quarter of it is free.',
    meaning: 'See flowledger_judge_disk_full_seconds for how long it lasts.',
    remedy: 'Plan room; start an aggregator that is away.',
  },
  FL123: {
    severity: 'notice',
    title: 'the broker does not tell the size of its disk',
    symptom: 'Older brokers, and some file systems, do not.',
    meaning: 'Nobody can foresee when it is full.',
    remedy: 'Set judge.disk_size, or watch the disk by other means.',
  },
  FL201: {
    severity: 'error',
    title: 'Redis cannot be reached',
    symptom: 'Collectors say that their local copy is in memory only.',
    meaning: 'What a collector holds is lost if its process dies before both aggregators have acknowledged it.',
    remedy: 'See that the Redis of redis.url runs; the collector moves its copy back by itself.',
  },
  FL202: {
    severity: 'error',
    title: 'Redis keeps nothing on disk',
    symptom: 'appendonly is not yes.',
    meaning: 'A restart of Redis loses what no aggregator has.',
    remedy: 'CONFIG SET appendonly yes, and put it into the configuration of Redis.',
  },
  FL203: {
    severity: 'error',
    title: 'Redis confirms before it is on disk',
    symptom: 'appendfsync is not always.',
    meaning: 'A crash of its machine loses the last second.',
    remedy: 'CONFIG SET appendfsync always, and put it into the configuration of Redis.',
  },
  FL204: {
    severity: 'warning',
    title: 'Redis does not sync while it rewrites its file',
    symptom: 'no-appendfsync-on-rewrite is not no.',
    meaning: 'A crash of its machine during a rewrite loses up to half a minute.',
    remedy: 'CONFIG SET no-appendfsync-on-rewrite no, and put it into the configuration of Redis.',
  },
  FL205: {
    severity: 'error',
    title: 'Redis may evict what it holds',
    symptom: 'maxmemory-policy is not noeviction.',
    meaning: 'Redis may delete batches that no aggregator has.',
    remedy: 'CONFIG SET maxmemory-policy noeviction, and put it into the configuration of Redis.',
  },
  FL206: {
    severity: 'warning',
    title: 'Redis has less memory than the collector counts on',
    symptom: 'maxmemory is below collector.store_max.',
    meaning: 'It refuses writes before the collector is at its own bound; the collector then goes on in memory.',
    remedy: 'Raise maxmemory, or lower collector.store_max.',
  },
  FL207: {
    severity: 'warning',
    title: 'Redis does not tell its settings',
    symptom: 'CONFIG GET is not permitted.',
    meaning: 'Whether the local copy survives a crash is not known.',
    remedy: 'See to appendonly yes, appendfsync always and maxmemory-policy noeviction yourself, or permit CONFIG GET.',
  },
  FL208: {
    severity: 'error',
    title: 'Redis could not write to its file',
    symptom: 'aof_last_write_status is not ok.',
    meaning: 'Redis refuses writes, or what it confirms is not on disk.',
    remedy: 'Look at the disk of Redis: it is full or faulty.',
  },
  FL209: {
    severity: 'error',
    title: 'Redis is too old',
    symptom: 'Its version is below 6.2.',
    meaning: 'The local copy is written and tested with streams and scripts as later versions have them.',
    remedy: 'Upgrade Redis to 6.2 or later (7 is what the tests run with).',
  },
  FL301: {
    severity: 'warning',
    title: "this machine's clock and the broker's differ",
    symptom: 'By more than a second.',
    meaning: 'Watermarks come from the collectors and count as at most the append time of the broker, so windows close later; nothing is lost.',
    remedy: 'Let both follow the same time servers (chrony, systemd-timesyncd).',
  },
  FL302: {
    severity: 'warning',
    title: "a service's clock and the broker's differ",
    symptom: 'By more than a second.',
    meaning: 'As FL301; the ages that status shows of it are wrong by as much.',
    remedy: 'Let its machine follow the time servers of the broker.',
  },
  FL303: {
    severity: 'error',
    title: "a collector's clock is so far behind that flows get wrong times",
    symptom: "Behind the broker's by more than aggregate.future_max; clamped_flows in the ledger's windows grow.",
    meaning: 'Flows seem to end later than they were received, and count in the window of the bound instead of their own.',
    remedy: "Set the collector's clock right and keep it so. What was billed stays in the windows that it is in.",
  },
  FL401: {
    severity: 'warning',
    title: 'the kernel grants a smaller receive buffer than configured',
    symptom: 'net.core.rmem_max is below collector.receive_buffer on this machine.',
    meaning: 'Datagrams that come while the collector is busy for a moment are dropped by the kernel; their loss is counted by the sequence numbers.',
    remedy: 'sysctl -w net.core.rmem_max=BYTES, and put it into /etc/sysctl.d; then restart the collector.',
  },
  FL402: {
    severity: 'warning',
    title: 'the kernel has dropped datagrams',
    symptom: 'The receive buffer of a socket was full at some time since the collector started.',
    meaning: 'These flows are lost on the wire: they are counted in the balance and never billed.',
    remedy: 'Raise net.core.rmem_max and collector.receive_buffer; if it goes on, run another collector for some of the exporters.',
  },
  FL501: {
    severity: 'error',
    title: 'a topic holds records of a schema that this release does not know',
    symptom: 'Services that read it stop.',
    meaning: 'A newer release has written it; or it is the first one, whose schema of nars is retired.',
    remedy: 'Upgrade this machine to the release that the others run.',
  },
  FL502: {
    severity: 'warning',
    title: 'a topic holds a record that is none of ours',
    symptom: 'It cannot be decoded, and is skipped by everybody alike.',
    meaning: 'Somebody else writes to the topic.',
    remedy: 'Find who it is; permit writing to the topics to the services alone (ACLs), or use kafka.topic_prefix.',
  },
  FL601: {
    severity: 'error',
    title: 'a service is down',
    symptom: 'It has not reported on topic health for 3 s, or at all.',
    meaning:
      'One aggregator, watchdog or judge less costs redundancy; without feed or accounting nothing is billed, without a collector flows are lost.',
    remedy: 'Start it; its log tells why it ended.',
  },
  FL602: {
    severity: 'error',
    title: 'a service does not do its work',
    symptom: 'It runs and is not ready.',
    meaning: 'Its own words name the cause.',
    remedy: 'Do what the reason says; one that starts is ready within seconds.',
  },
  FL603: {
    severity: 'warning',
    title: 'a service is degraded',
    symptom: 'It does its work, with a reservation.',
    meaning: 'Its own words name the cause.',
    remedy: 'Do what the reason says.',
  },
  FL611: {
    severity: 'error',
    title: 'a partition has no leader',
    symptom: 'No aggregator was elected yet.',
    meaning: 'Nothing of it is fed.',
    remedy: 'See that a watchdog and an aggregator run.',
  },
  FL612: {
    severity: 'error',
    title: 'a partition is held',
    symptom: 'Two histories of it were found; feed or accounting does not go on.',
    meaning: 'Billing late is better than billing wrong: nothing is lost, and nothing of it is billed until it is judged.',
    remedy: 'See that a judge runs: it settles this within seconds. If it stays, flowledger audit says what differs.',
  },
  FL613: {
    severity: 'warning',
    title: 'a replica is in quarantine',
    symptom: 'The judge has found its outputs wrong.',
    meaning: 'What is billed comes from the other one alone, while this one repairs itself.',
    remedy: 'Nothing, if it ends. If it comes again, the memory or the disk of its machine is faulty: replace it.',
  },
  FL614: {
    severity: 'warning',
    title: 'a replica does not fold a partition',
    symptom: 'It is stopped or disputed.',
    meaning: 'There is no second opinion on this partition, and no fail-over.',
    remedy: 'Do what its detail in flowledger status says.',
  },
  FL615: {
    severity: 'warning',
    title: 'a replica is behind',
    symptom: 'By more than 30 s of the log.',
    meaning: 'A fail-over to it would wait for so long; collectors keep what it has not acknowledged.',
    remedy: 'Wait if it has just come back; else see whether its machine has CPU to spare.',
  },
  FL616: {
    severity: 'warning',
    title: 'a local copy is nearly full',
    symptom: 'It is at more than 80 % of its bound.',
    meaning: 'At the bound new flows are refused, and each is reported as lost.',
    remedy: 'Bring back what is away (broker or aggregator), or raise collector.store_max.',
  },
  FL701: {
    severity: 'warning',
    title: 'an exporter sends data without its templates',
    symptom: 'Datagrams of it could not be decoded lately.',
    meaning: 'These flows are not billed; the balance counts them as undecodable.',
    remedy: 'Let the exporter send its templates every minute (template refresh or timeout), and over the same path as its data.',
  },
  FL702: {
    severity: 'notice',
    title: 'the sampling rate of an exporter is not known',
    symptom: 'Its flows have sampling_rate 0.',
    meaning: 'Where it samples, scaled totals count its flows as exported, too low by the factor of the sampling.',
    remedy: 'Let it export its sampler options, or name its rate in collector.sampling: 1 where it does not sample.',
  },
  FL703: {
    severity: 'warning',
    title: "an exporter's datagrams are lost on the wire",
    symptom: 'By its own sequence numbers, lately.',
    meaning: 'These flows never reached a collector and are not billed; the balance counts them.',
    remedy: 'Look at the path, and at FL401 and FL402. An exporter that restarts, or two that share an address and a domain, look alike.',
  },
  FL704: {
    severity: 'notice',
    title: 'data sets wait for their template',
    symptom: 'A collector holds them; after collector.template_wait they are given up.',
    meaning: 'Usual for a while after the start of an exporter.',
    remedy: 'If it stays: as FL701.',
  },
  FL801: {
    severity: 'warning',
    title: 'the ledger cannot be read here',
    symptom: 'There is none, or it is of another version.',
    meaning: 'Usage and audit do not work on this machine; accounting may run elsewhere.',
    remedy: 'Set accounting.ledger, or run usage and audit where accounting runs.',
  },
  FL802: {
    severity: 'error',
    title: "the ledger's disk is nearly full",
    symptom: 'Less than a tenth of it is free.',
    meaning: 'Accounting stops booking when it is full; nothing is lost, since it goes on where it stood.',
    remedy: 'Give it room.',
  },
} as const satisfies Readonly<Record<string, ErrorCode>>;

export type Code = keyof typeof errorCodes;
