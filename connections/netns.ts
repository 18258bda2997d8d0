/**
 * The hops `netns` (a named network namespace, files and processes as before) and `nsenter` (all namespaces of a
 * process, so the inside of a container).
 */
import { posixConnection, withEnvironment } from './_posix.ts';
import { type Connection, type Hop, CommandError, HopError } from './connection.ts';

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

/**
 * Opens the namespaces (mount, UTS, IPC, network, PID) and the root of a process. Needs root.
 *
 * @throws {HopError} when the process is gone or we may not enter
 */
export async function openNsenter(base: Connection, options: { readonly pid: number }): Promise<Connection> {
  const { pid } = options;
  const hop: Hop = ['nsenter', { pid }];
  if (!Number.isSafeInteger(pid) || pid < 1) throw new HopError(hop, `${pid} is not a process id`);
  const prefix = ['nsenter', '-t', String(pid), '-m', '-u', '-i', '-n', '-p', '-r', '-w', '--'];
  await probe(base, hop, [...prefix, 'true'], 'Does the process still run? Entering needs root.');
  return posixConnection({ hop, base, wrap: (argv, runOptions) => [...prefix, ...withEnvironment(argv, runOptions)] });
}

/** `ip netns exec` reads no options after the name, but a word such as `-x` as a program is better told to a shell. */
const guard = (argv: readonly string[]): readonly string[] =>
  argv[0]?.startsWith('-') === true ? ['env', '--', ...argv] : argv;

async function probe(base: Connection, hop: Hop, argv: readonly string[], hint: string): Promise<void> {
  try {
    await base.run(argv, { timeoutMs: 30_000 });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const said = Buffer.from(error.stderr).toString('utf8').trim();
    throw new HopError(hop, said === '' ? error.message : said, { cause: error, hint });
  }
}
