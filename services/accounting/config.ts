/** The accounting service's section of the configuration. */
import { address, type SectionOf, section, text } from '../../adapters/config-values.ts';

export const accountingConfig = section({
  /** Path of the ledger's database. */
  ledger: text('.flowledger/ledger.sqlite', /./, 'a path'),
  http: address('127.0.0.1:9106'),
});
export type AccountingConfig = SectionOf<typeof accountingConfig>;
