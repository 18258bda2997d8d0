/**
 * The hops `setuid` (an agent of ours as another user: native, needs a native connection as root) and `as` (that one
 * where it can be, else `su`).
 */
import { startAgent } from './_agent.ts';
import { IDENTITY, lookUp } from './attributes.ts';
import { type Connection, type Hop, HopError, lines } from './connection.ts';
import { openSu } from './su.ts';

/**
 * Opens an agent as another user, with that user's groups. It is loaded as root, so that user needs no access to Node.
 *
 * @param options - a user's name, or a number for one that has none
 * @throws {HopError} when the base is not native, we are not root there, or there is no such user
 */
export async function openSetuid(base: Connection, options: { readonly user: string }): Promise<Connection> {
  const hop: Hop = ['setuid', { user: options.user }];
  const { native } = base;
  if (native?.agent === undefined) {
    throw new HopError(hop, 'it needs our JavaScript, and here is a shell only', {
      hint: 'Use "su" or "sudo", or put the hop "agent" before it.',
    });
  }
  const us = await lookUp(base, IDENTITY);
  if (us.uid !== 0) {
    throw new HopError(hop, `it needs root, and this is ${us.user}`, { hint: 'Put the hop "sudo" before it.' });
  }
  const user = await findUser(base, hop, options.user);
  return await startAgent({
    hop,
    base,
    agent: native.agent,
    runtime: await native.runtime(),
    wrap: (node) => node,
    config: {
      become: user,
      env: {
        PATH: '/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin',
        HOME: user.home,
        USER: user.name,
        LOGNAME: user.name,
        LC_ALL: 'C.UTF-8',
      },
    },
  });
}

/**
 * Becomes another user in the best way there is.
 *
 * @throws {HopError} as openSetuid and openSu
 */
export async function openAs(base: Connection, options: { readonly user: string }): Promise<Connection> {
  const native = base.native?.agent !== undefined && (await lookUp(base, IDENTITY)).uid === 0;
  return native ? await openSetuid(base, options) : await openSu(base, options);
}

/** A user as the host knows it. */
interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly home: string;
}

async function findUser(base: Connection, hop: Hop, wanted: string): Promise<User> {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$/.test(wanted))
    throw new HopError(hop, `"${wanted}" is not the name of a user`);
  const found = await base.run(['sh', '-c', 'getent passwd "$1" && id -G "$1"', 'sh', wanted], { okStatus: 'any' });
  const [entry, groups] = lines(found);
  const [name = '', , uid, gid, , home = '/'] = entry?.split(':') ?? [];
  if (found.status === 0 && groups !== undefined) {
    return { name, uid: Number(uid), gid: Number(gid), groups: groups.split(' ').map(Number), home };
  }
  if (!/^\d+$/.test(wanted)) {
    throw new HopError(hop, `there is no user "${wanted}"`, { hint: 'See "getent passwd" there.' });
  }
  return { name: wanted, uid: Number(wanted), gid: Number(wanted), groups: [], home: '/' };
}
