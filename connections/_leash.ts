/**
 * Ends a command when the process that it was started for is gone.
 *
 * Across some hops nobody else would: sshd does not end what a lost connection left, nsenter's child outlives nsenter,
 * and what runs under sudo is out of the reach of who started it.
 */

/**
 * Arguments: PID COMMAND…. PID is the process to watch; empty: our parent. Both streams of the command stay its own; the
 * watcher looks twice a second, and kills the process group.
 */
export const LEASH: string = `
watched=\${1:-$PPID}
shift
[ "$watched" != 0 ] || exec "$@" # the parent is out of this PID namespace, on a leash itself
(
  trap 'kill "$nap"; exit' TERM
  while [ -e "/proc/$watched" ]; do
    sleep 0.5 & nap=$!
    wait "$nap"
  done
  kill -KILL 0
) </dev/null >/dev/null 2>&1 &
leash=$!
"$@"
status=$?
kill "$leash"
exit "$status"
`;

/** Puts a command on a leash held by its parent. The process group must hold nothing else. */
export function leashed(argv: readonly string[]): readonly string[] {
  return ['sh', '-c', LEASH, 'leash', '', ...argv];
}
