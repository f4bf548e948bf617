/** The judge's metrics. */
import type { Metrics, Sample } from '../../adapters/metrics.ts';
import type { Clock } from '../../adapters/ports.ts';
import { replicas } from '../../schemas/topics.ts';
import type { HeadKeeper } from './head-keeper.ts';
import type { Judge } from './judge.ts';

export function judgeMetrics(metrics: Metrics, judge: Judge, clock: Clock): void {
  const of = (read: (head: HeadKeeper) => number) => (): Sample<'partition'>[] =>
    judge.heads.map((head) => [{ partition: head.partition }, read(head)]);
  metrics.counter('flowledger_judge_faults_total', 'Turns that a fault of the log broke off; the next one begins anew', [], () => [
    [{}, judge.faults],
  ]);
  const { judging } = judge;
  metrics.counter('flowledger_judge_trials_total', 'Fresh folds of the log that were held against both replicas, by outcome', ['outcome'], () =>
    Object.entries(judging.outcomes).map(([outcome, count]) => [{ outcome }, count] as const),
  );
  metrics.gauge('flowledger_judge_trial_remaining_records', 'Records of nars that the trial under way may still fold', ['partition'], () =>
    judging.progress ? [[{ partition: judging.progress.partition }, judging.progress.endOffset - judging.progress.nextOffset] as const] : [],
  );
  metrics.gauge('flowledger_judge_quarantined', '1 while the replica is in quarantine, 0 once it is repaired', ['partition', 'replica'], () =>
    judging.verdicts.standing().map(({ partition, replica, state }) => [{ partition, replica }, Number(state === 'quarantined')] as const),
  );
  metrics.gauge('flowledger_judge_verdict_epoch', 'Epoch of the last verdict on the replica', ['partition', 'replica'], () =>
    judging.verdicts.standing().map(({ partition, replica, epoch }) => [{ partition, replica }, epoch] as const),
  );
  metrics.counter('flowledger_judge_undecodable_total', 'Records of verdicts and health that no schema can decode', [], () => [
    [{}, judging.undecodable],
  ]);
  metrics.gauge(
    'flowledger_judge_agreed_offset',
    'Next offset of nars behind the newest snapshot that both replicas agree on; 0 before the first',
    ['partition'],
    of(({ agreement }) => agreement?.offset ?? 0),
  );
  metrics.gauge(
    'flowledger_judge_agreed_n',
    'n of the newest snapshot that both replicas agree on; 0 before the first',
    ['partition'],
    of(({ agreement }) => agreement?.n ?? 0),
  );
  metrics.gauge(
    'flowledger_judge_head_offset',
    'First offset of nars that is not cut',
    ['partition'],
    of(({ startOffset }) => startOffset),
  );
  metrics.counter(
    'flowledger_judge_agreements_total',
    'Agreements that this judge recorded',
    ['partition'],
    of(({ counters }) => counters.agreements),
  );
  metrics.counter(
    'flowledger_judge_cut_records_total',
    'Records of nars that this judge cut',
    ['partition'],
    of(({ counters }) => counters.cutRecords),
  );
  metrics.counter(
    'flowledger_judge_untrue_snapshots_total',
    'Snapshots whose state is not what their chunks say; left out',
    ['partition'],
    of(({ counters }) => counters.untrueSnapshots),
  );
  metrics.gauge(
    'flowledger_judge_head_held_seconds',
    'Since when the replica has kept the head of nars from being cut; 0 while it does not',
    ['partition', 'replica'],
    () =>
      judge.heads.flatMap(({ partition, holdings }) =>
        replicas.map((replica) => {
          const holding = holdings.find((one) => one.replica === replica);
          return [{ partition, replica }, holding ? (clock.now() - holding.sinceMs) / 1000 : 0] as const;
        }),
      ),
  );
  metrics.gauge('flowledger_judge_disk_usable_bytes', 'Free on the disk that holds the logs; absent where it is not known', ['disk'], () =>
    judge.disks.sizes.flatMap(({ name, usableBytes }): Sample<'disk'>[] => (usableBytes === null ? [] : [[{ disk: name }, usableBytes]])),
  );
  metrics.gauge(
    'flowledger_judge_disk_full_seconds',
    'Time until the disk is full at the growth of the last hour; absent while it does not grow, or where that is not known',
    ['disk'],
    () =>
      judge.disks.sizes.flatMap(({ name }): Sample<'disk'>[] => {
        const ms = judge.disks.fullInMs(name);
        return ms === null ? [] : [[{ disk: name }, ms / 1000]];
      }),
  );
}
