/**
 * The hop `chroot`: chroot.fork where that can be and means the same, else chroot.shell.
 *
 * They differ in /etc/resolv.conf: the shell covers it for one command, the agent for as long as it lives. So the agent
 * is chosen for roots that need no network.
 */
import type { ChrootOptions } from './_chroot.ts';
import { IDENTITY, lookUp } from './attributes.ts';
import { openChrootFork } from './chroot-fork.ts';
import { openChrootShell } from './chroot-shell.ts';
import type { Connection } from './connection.ts';

/**
 * Opens a chroot.
 *
 * @throws {HopError} when the root is not a directory, or we are not root
 */
export async function openChroot(base: Connection, options: ChrootOptions): Promise<Connection> {
  const native =
    options.network === false && base.native?.agent !== undefined && (await lookUp(base, IDENTITY)).uid === 0;
  return native ? await openChrootFork(base, options, 'chroot') : await openChrootShell(base, options, 'chroot');
}
