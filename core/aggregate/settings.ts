/** A configuration from the log, made ready to fold with. */
import type { FoldConfig } from '../../schemas/types.ts';
import { GroupKeys } from './group-key.ts';

/** The arithmetic of this release. Whatever changes a result changes this number, and is switched on by a configuration in the log. */
export const foldVersion = 1;

/** The ledger's samples, which every window must divide, in ms. */
const sampleMs = 300_000;

export interface Settings {
  readonly config: FoldConfig;
  readonly keys: GroupKeys;
  readonly scaled: boolean;
}

/** A configuration asks for what this release does not know: the replica stops here, and never folds on. */
export class UnknownFoldVersion extends Error {}

/** Null for one that no release can fold with, which every replica ignores alike. @throws UnknownFoldVersion */
export function compileSettings(config: FoldConfig): Settings | null {
  if (config.fold_version !== foldVersion) throw unknown(config, `fold_version ${config.fold_version}`);
  if (config.sampling !== 'scaled' && config.sampling !== 'raw') throw unknown(config, `sampling ${config.sampling}`);
  if (config.deduplication !== 'none') throw unknown(config, `deduplication ${config.deduplication}`);
  if (config.window_ms <= 0 || sampleMs % config.window_ms !== 0 || config.snapshot_every < 1) return null;
  if (config.lateness_ms < 0 || config.live_within_ms < 0 || config.past_ms_max < 0 || config.future_ms_max < 0) return null;
  try {
    return { config, keys: new GroupKeys(config), scaled: config.sampling === 'scaled' };
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw unknown(config, (error as Error).message);
  }
}

function unknown({ version }: FoldConfig, what: string): UnknownFoldVersion {
  return new UnknownFoldVersion(`configuration ${version} of the fold needs a newer release (${what}): upgrade this replica before it folds on`);
}
