/** The inside of a container: the namespaces of the process that leads it. */
import { leashed } from './_leash.ts';
import { assignment, posixConnection, withEnvironment } from './_posix.ts';
import { type Connection, type Hop, CommandError, HopError } from './connection.ts';

/** What programs in a container get, before what the caller adds; nothing of ours. */
const ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LC_ALL: 'C.UTF-8',
};

/**
 * Opens the namespaces of a process: all that are not ours. Needs root.
 *
 * @throws {HopError} when the process is gone or we may not enter
 */
export async function openInside(
  base: Connection,
  way: { readonly hop: Hop; readonly leader: number; readonly close?: () => Promise<void> },
): Promise<Connection> {
  const { hop, leader, close } = way;
  // The child of nsenter outlives it; the leash does not let it.
  const prefix = leashed(['nsenter', '--all', '-t', String(leader), '--']);
  await probe(base, hop, [...prefix, 'true'], 'Does it still run? Entering needs root.');
  return posixConnection({
    hop,
    base,
    wrap: (argv, { env, cwd }) => {
      const variables = Object.entries({ ...ENVIRONMENT, ...env }).map(([name, value]) => assignment(name, value));
      return [...prefix, 'env', '-i', ...variables, ...withEnvironment(argv, { env: undefined, cwd })];
    },
    ...(close === undefined ? {} : { close }),
  });
}

/**
 * Runs a program that shows whether a hop works.
 *
 * @throws {HopError} with what it said
 */
export async function probe(base: Connection, hop: Hop, argv: readonly string[], hint: string): Promise<void> {
  try {
    await base.run(argv, { timeoutMs: 30_000 });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const said = Buffer.from(error.stderr).toString('utf8').trim();
    throw new HopError(hop, said === '' ? error.message : said, { cause: error, hint });
  }
}
