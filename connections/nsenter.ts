/** The hop `nsenter`: the namespaces and the root of a process, with the environment as before. */
import { probe } from './_inside.ts';
import { leashed } from './_leash.ts';
import { posixConnection, withEnvironment } from './_posix.ts';
import { type Connection, type Hop, HopError } from './connection.ts';

/**
 * Opens the namespaces (mount, UTS, IPC, network, PID) and the root of a process. Needs root.
 *
 * @throws {HopError} when the process is gone or we may not enter
 */
export async function openNsenter(base: Connection, options: { readonly pid: number }): Promise<Connection> {
  const { pid } = options;
  const hop: Hop = ['nsenter', { pid }];
  if (!Number.isSafeInteger(pid) || pid < 1) throw new HopError(hop, `${pid} is not a process id`);
  // The child of nsenter outlives it; the leash does not let it.
  const prefix = leashed(['nsenter', '-t', String(pid), '-m', '-u', '-i', '-n', '-p', '-r', '-w', '--']);
  await probe(base, hop, [...prefix, 'true'], 'Does the process still run? Entering needs root.');
  return posixConnection({ hop, base, wrap: (argv, runOptions) => [...prefix, ...withEnvironment(argv, runOptions)] });
}
