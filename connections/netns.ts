/** The hop `netns`: a named network namespace, with files and processes as before. */
import { probe } from './_inside.ts';
import { posixConnection, withEnvironment } from './_posix.ts';
import { type Connection, type Hop, HopError } from './connection.ts';

/**
 * Opens a named network namespace, as `ip netns` made it. Needs root.
 *
 * @throws {HopError} when there is no such namespace
 */
export async function openNetns(base: Connection, options: { readonly name: string }): Promise<Connection> {
  const { name } = options;
  const hop: Hop = ['netns', { name }];
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/.test(name)) throw new HopError(hop, `"${name}" cannot be a name`);
  await probe(
    base,
    hop,
    ['ip', 'netns', 'exec', name, 'true'],
    `See "ip netns list"; make it with "ip netns add ${name}".`,
  );
  return posixConnection({
    hop,
    base,
    sameFiles: true,
    wrap: (argv, runOptions) => ['ip', 'netns', 'exec', name, ...withEnvironment(guard(argv), runOptions)],
  });
}

/** `ip netns exec` reads no options after the name, but a word such as `-x` as a program is better told to a shell. */
const guard = (argv: readonly string[]): readonly string[] =>
  argv[0]?.startsWith('-') === true ? ['env', '--', ...argv] : argv;
