/**
 * Transport sessions of IPFIX over TCP and TLS. What an exporter has written and a broken connection did not deliver cannot be counted: numbering
 * begins anew with each session (RFC 7011 section 3.1). So a session that does not end by its exporter's close leaves a doubt in the balance, also
 * when it is this process that ended, for which a mark stands beside the exporters' positions.
 */
import type { Logger } from '../../adapters/ports.ts';

const markPrefix = 'session|';

export class Sessions {
  readonly #logger: Logger;
  /** By address. */
  readonly #open = new Map<string, Set<string>>();
  readonly #marks = new Map<string, string>();
  /** Sessions that did not end by their exporter's close; of an earlier process, exporters that had some. */
  lost = 0;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** A message of the session came. */
  note(session: string, address: string): void {
    const open = this.#open.get(address);
    if (open !== undefined) {
      open.add(session);
      return;
    }
    this.#open.set(address, new Set([session]));
    this.#marks.set(markPrefix + address, '1');
  }

  /** True where something of it may be missing. */
  end(session: string, address: string, isComplete: boolean): boolean {
    const open = this.#open.get(address);
    open?.delete(session);
    if (open?.size === 0) {
      this.#open.delete(address);
      this.#marks.set(markPrefix + address, '');
    }
    if (isComplete) return false;
    this.lost++;
    this.#logger.warn({ exporter: address }, 'a session did not end by its exporter: what was under way is of unknown size');
    return true;
  }

  /** Marks to be stored with what was decoded so far, like positions. */
  takeMarks(): [key: string, mark: string][] {
    const marks = [...this.#marks];
    this.#marks.clear();
    return marks;
  }

  /** The positions without the marks among them; true where an earlier process ended within sessions. */
  restore(positions: ReadonlyMap<string, string>): { readonly positions: Map<string, string>; readonly isInDoubt: boolean } {
    const rest = new Map(positions);
    const exporters: string[] = [];
    for (const key of positions.keys()) {
      if (!key.startsWith(markPrefix)) continue;
      rest.delete(key);
      this.#marks.set(key, '');
      exporters.push(key.slice(markPrefix.length));
    }
    this.lost += exporters.length;
    if (exporters.length > 0) this.#logger.warn({ exporters }, 'an earlier process ended within sessions: what was under way is of unknown size');
    return { positions: rest, isInDoubt: exporters.length > 0 };
  }
}
