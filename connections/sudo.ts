/**
 * The hop `sudo`: another user on the same host.
 *
 * Where we are root already and root is wanted, no program stands between. A password, if sudo asks for one, is
 * prerequisite data `{ context: HOST, name: 'US.password' }`: of the user that we are, on the host that we are on.
 */
import { openBecoming } from './_become.ts';
import type { Connection } from './connection.ts';

/** cat(1) is the askpass: what sudo has it show as a question is the name of a pipe that holds the answer, once. */
const SCRIPT = `
user=$1 how=$2 leash=$3
shift 3
set -- -H -u "$user" -- sh -c "$leash" leash "$$" "$@"
if [ "$how" = plain ]; then
  sudo -n "$@"
else
  IFS= read -r password || exit 1
  exec 3<<END
$password
END
  unset password
  SUDO_ASKPASS=$(command -v cat) sudo -k -A -p "/proc/$$/fd/3" "$@"
fi
exit $?
`;

/**
 * Opens `sudo` on a connection.
 *
 * @param options - the user to become; default root
 * @throws {HopError} when sudo is missing, refuses, or wants a password that is not there or is wrong
 */
export async function openSudo(base: Connection, options: { readonly user?: string } = {}): Promise<Connection> {
  const user = options.user ?? 'root';
  return await openBecoming(base, {
    hop: options.user === undefined ? ['sudo'] : ['sudo', { user }],
    user,
    asks: 'who-we-are',
    script: SCRIPT,
    wants: /password is required/,
    refuses: /incorrect password|password attempt|no password was provided|Sorry, try again/i,
    hints: {
      wants: `Give that data, or let this user become ${user} without a password (NOPASSWD in /etc/sudoers.d).`,
      other: `Is sudo installed there, and is there a user ${user}? Without sudo, start as ${user}.`,
    },
  });
}
