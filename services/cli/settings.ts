/** What every command is told in the same way: the configuration file and the directory of the local state. */
import { join } from 'node:path';
import type { Command } from 'commander';
import type { ConfigSources } from '../../adapters/config.ts';
import { findConfigFile } from '../../adapters/config.ts';
import { type Config, loadConfig } from '../config.ts';

export interface Settings {
  readonly config: Config;
  readonly sources: ConfigSources;
  /** Where the local broker's and Redis' data, logs, process files and the ledger are. */
  readonly stateDir: string;
}

const stateDirDefault = '.flowledger';

/** The configuration as the command line, the environment and the file make it. @throws ConfigError */
export function settingsOf(command: Command, overrides: Readonly<Record<string, string>> = {}): Settings {
  const options = command.optsWithGlobals<{ config?: string; state?: string }>();
  const stateDir = options.state ?? process.env['FLOWLEDGER_STATE'] ?? stateDirDefault;
  const file = findConfigFile(options.config, process.env);
  const sources = { file, env: process.env, overrides };
  const config = loadConfig(sources);
  const ledger = join(stateDirDefault, 'ledger.sqlite');
  if (stateDir === stateDirDefault || config.accounting.ledger !== ledger) return { config, sources, stateDir };
  // A state directory of its own has its own ledger.
  const moved = { ...sources, overrides: { ...overrides, 'accounting.ledger': join(stateDir, 'ledger.sqlite') } };
  return { config: loadConfig(moved), sources: moved, stateDir };
}
