/**
 * The hop `su`: another user on the same host, for hosts without sudo.
 *
 * Root needs no password. For others it is prerequisite data `{ context: HOST, name: 'USER.password' }`: of the user that
 * we become.
 */
import { openBecoming } from './_become.ts';
import type { Connection } from './connection.ts';

/**
 * su reads the password from its stdin, and asks on its stderr: it gets streams of its own, and the command finds ours
 * as 3 and 4.
 */
const SCRIPT = `
user=$1 how=$2 leash=$3
shift 3
set -- su -s /bin/sh -c 'exec "$@" <&3 2>&4 3<&- 4>&-' -- "$user" su sh -c "$leash" leash "$$" "$@"
case $how in
  plain)
    exec 3<&0 4>&2
    "$@" </dev/null ;;
  *)
    IFS= read -r password || exit 1
    exec 3<&0 4>&2
    [ "$how" = probe ] || exec 2>/dev/null
    "$@" <<END
$password
END
    ;;
esac
exit $?
`;

/**
 * Opens `su` on a connection.
 *
 * @param options - the user to become; default root
 * @throws {HopError} when su is missing, refuses, or wants a password that is not there or is wrong
 */
export async function openSu(base: Connection, options: { readonly user?: string } = {}): Promise<Connection> {
  const user = options.user ?? 'root';
  return await openBecoming(base, {
    hop: options.user === undefined ? ['su'] : ['su', { user }],
    user,
    asks: 'who-we-become',
    script: SCRIPT,
    wants: /Authentication failure|Password:/,
    refuses: /Authentication failure/,
    hints: {
      wants: `Give that data, or use the hop "sudo" where it needs no password.`,
      other: `Is there a user ${user} with a shell?`,
    },
  });
}
