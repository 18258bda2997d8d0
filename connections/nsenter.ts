/** The hop `nsenter`: the namespaces and the root of a process, with the environment as before. */
import { probe } from './_inside.ts';
import { leashed } from './_leash.ts';
import { posixConnection, withEnvironment } from './_posix.ts';
import { type Connection, type Hop, HopError, text } from './connection.ts';

/** nsenter(1)'s options, by the name of the namespace in /proc. */
const NAMESPACES: Readonly<Record<string, string>> = { mnt: '-m', uts: '-u', ipc: '-i', net: '-n', pid: '-p' };

/** Arguments: PID NAMESPACE…. Says which of the namespaces of a process are not ours. */
const DIFFERENT = `
pid=$1; shift
for name in "$@"; do [ "/proc/$pid/ns/$name" -ef "/proc/self/ns/$name" ] || echo "$name"; done
`;

/**
 * Opens the namespaces (mount, UTS, IPC, network, PID) and the root of a process. Needs root.
 *
 * @throws {HopError} when the process is gone or we may not enter
 */
export async function openNsenter(base: Connection, options: { readonly pid: number }): Promise<Connection> {
  const { pid } = options;
  const hop: Hop = ['nsenter', { pid }];
  if (!Number.isSafeInteger(pid) || pid < 1) throw new HopError(hop, `${pid} is not a process id`);
  const names = Object.keys(NAMESPACES);
  const different = text(await base.run(['sh', '-c', DIFFERENT, 'look', String(pid), ...names])).split('\n');
  const flags = names.flatMap((name) => (different.includes(name) ? [NAMESPACES[name] ?? ''] : []));
  const enter = ['nsenter', '-t', String(pid), ...flags, '-r', '-w', '--'];
  // Into other PID namespaces goes a child of nsenter, which outlives it; the leash does not let it.
  const prefix = flags.includes('-p') ? leashed(enter) : enter;
  await probe(base, hop, [...prefix, 'true'], 'Does the process still run? Entering needs root.');
  return posixConnection({ hop, base, wrap: (argv, runOptions) => [...prefix, ...withEnvironment(argv, runOptions)] });
}
