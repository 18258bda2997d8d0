/**
 * The hop `chroot.shell`: a root below this one, as root, from the outside (no program of ours is needed inside). Every
 * command gets its namespaces and mounts (_chroot.ts), and nothing is left of them when it ends. If it is asked for (`held`), half
 * of them are prepared by a process that the first command starts and the end of the connection ends, and commands that look at
 * files or change them share one shell (_staying-shell.ts).
 *
 * What a program writes comes to us over a socket, as Node has it: inside, a redirection to /dev/stderr fails (ENXIO),
 * while writing to the descriptor (`>&2`) works.
 *
 * Commands that look at files or change them (`ownFiles`) see the root's own /etc/resolv.conf.
 */
import { type Holder, startHolder } from './_holder.ts';
import { HAS_SERVICES, SHARES_PROCESSES, lookUp, setAttribute } from './attributes.ts';
import {
  type ChrootOptions,
  ENVIRONMENT,
  checkChroot,
  chrootArguments,
  enterChroot,
  enterHeldChroot,
  holdChroot,
  throwSetupError,
} from './_chroot.ts';
import { assignment, posixConnection, withEnvironment } from './_posix.ts';
import { StayingShell } from './_staying-shell.ts';
import type { Connection, Hop } from './connection.ts';

/**
 * Opens a chroot.
 *
 * @param name - how the hop was called
 * @throws {HopError} when the root is not a directory, or we are not root
 */
export async function openChrootShell(
  base: Connection,
  options: ChrootOptions,
  name = 'chroot.shell',
): Promise<Connection> {
  const hop: Hop = [name, chrootArguments(options)];
  await checkChroot(base, hop, options);
  const root = new HeldRoot(base, options);
  const connection = posixConnection({
    hop,
    base,
    durable: false, // a root under construction is made again after a power cut
    wrap: async (argv, { env, cwd, ownFiles }) => {
      const variables = Object.entries({ ...ENVIRONMENT, ...env }).map(([key, value]) => assignment(key, value));
      const inner = withEnvironment(argv, { env: undefined, cwd });
      const resolv = options.network === false || ownFiles === true ? 'no' : 'yes';
      const pid = options.held === true ? await root.pid() : undefined;
      const enter =
        pid === undefined ? enterChroot(options, { resolv, files: [] }) : enterHeldChroot(options, { pid, resolv });
      return [...enter, 'env', '-i', ...variables, 'chroot', '--', '.', ...inner];
    },
    examine: (result) => throwSetupError(hop, result),
    ...(options.held === true ? { quicker: (chain, run) => new StayingShell(chain, run) } : {}),
    close: () => root.close(),
  });
  setAttribute(connection, HAS_SERVICES, false);
  setAttribute(connection, SHARES_PROCESSES, false);
  return connection;
}

/** How long preparing a root may take. */
const HOLD_MS = 30_000;

/** A root that is prepared once, when it is first needed. */
class HeldRoot {
  readonly #base: Connection;
  readonly #options: ChrootOptions;
  #holder: Promise<Holder | undefined> | undefined;

  constructor(base: Connection, options: ChrootOptions) {
    this.#base = base;
    this.#options = options;
  }

  /**
   * The process that holds it. Undefined when there can be none (commands on the base do not see each other's processes) or it
   * failed: then a command that does all itself says why.
   */
  async pid(): Promise<string | undefined> {
    this.#holder ??= this.#start();
    return (await this.#holder)?.ready;
  }

  async close(): Promise<void> {
    await (await this.#holder)?.close();
  }

  async #start(): Promise<Holder | undefined> {
    if (!(await lookUp(this.#base, SHARES_PROCESSES))) return undefined;
    const holder = await startHolder(this.#base, holdChroot(this.#options), HOLD_MS);
    if ('failed' in holder) return undefined;
    // Somebody has killed it: the next command starts another.
    void holder.ended.then(() => (this.#holder = undefined));
    return holder;
  }
}
