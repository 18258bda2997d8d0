/**
 * The hop `sudo`: another user on the same host, without a password (`sudo -n`).
 *
 * Where we are root already and root is wanted, no program stands between. Passwords come with a later hop.
 */
import { posixConnection, withEnvironment } from './_posix.ts';
import { type Connection, type Hop, CommandError, HopError, text } from './connection.ts';

/**
 * Opens `sudo` on a connection.
 *
 * @param options - the user to become; default root
 * @throws {HopError} when sudo is missing or wants a password
 */
export async function openSudo(base: Connection, options: { readonly user?: string } = {}): Promise<Connection> {
  const user = options.user ?? 'root';
  const hop: Hop = options.user === undefined ? ['sudo'] : ['sudo', { user }];
  if (!/^[a-z_][a-z0-9_-]*\$?$/i.test(user)) throw new HopError(hop, `"${user}" is not the name of a user`);
  const uid = text(await base.run(['id', '-u'])).trim();
  if (uid === '0' && user === 'root') {
    return {
      chain: [...base.chain, hop],
      kind: base.kind,
      run: (argv, runOptions) => base.run(argv, runOptions),
      readFile: (path) => base.readFile(path),
      writeFile: (path, content, fileOptions) => base.writeFile(path, content, fileOptions),
      async [Symbol.asyncDispose]() {},
    };
  }
  const prefix = ['sudo', '-n', '-H', '-u', user, '--'];
  try {
    await base.run([...prefix, 'true'], { timeoutMs: 30_000 });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const said = Buffer.from(error.stderr).toString('utf8').trim();
    throw new HopError(hop, said === '' ? error.message : said, {
      cause: error,
      hint: /password/.test(said)
        ? `Let this user become ${user} without a password (NOPASSWD in /etc/sudoers.d), or start as ${user}.`
        : `Is sudo installed there? Without it, start as ${user}.`,
    });
  }
  return posixConnection({
    hop,
    base,
    // sudo too takes NAME=VALUE before the program for variables, so words with `=` are guarded in the same way.
    wrap: (argv, runOptions) => [...prefix, ...withEnvironment(argv, runOptions)],
  });
}
