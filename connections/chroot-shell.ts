/**
 * The hop `chroot.shell`: a root below this one, as root, from the outside (no program of ours is needed inside). Every
 * command gets its namespaces and mounts (_chroot.ts), and nothing is left of them when it ends.
 *
 * What a program writes comes to us over a socket, as Node has it: inside, a redirection to /dev/stderr fails (ENXIO),
 * while writing to the descriptor (`>&2`) works.
 *
 * Commands that look at files or change them (`ownFiles`) see the root's own /etc/resolv.conf.
 */
import { HAS_SERVICES, setAttribute } from './attributes.ts';
import {
  type ChrootOptions,
  ENVIRONMENT,
  checkChroot,
  chrootArguments,
  enterChroot,
  throwSetupError,
} from './_chroot.ts';
import { assignment, posixConnection, withEnvironment } from './_posix.ts';
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
  const connection = posixConnection({
    hop,
    base,
    durable: false, // a root under construction is made again after a power cut
    wrap: (argv, { env, cwd, ownFiles }) => {
      const variables = Object.entries({ ...ENVIRONMENT, ...env }).map(([key, value]) => assignment(key, value));
      const inner = withEnvironment(argv, { env: undefined, cwd });
      const resolv = options.network === false || ownFiles === true ? 'no' : 'yes';
      return [...enterChroot(options, { resolv, files: [] }), 'env', '-i', ...variables, 'chroot', '--', '.', ...inner];
    },
    examine: (result) => throwSetupError(hop, result),
  });
  setAttribute(connection, HAS_SERVICES, false);
  return connection;
}
