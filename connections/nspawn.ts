/**
 * The hop `nspawn`: a container of systemd-nspawn, started for the connection from a directory and ended with it. With
 * `boot` the directory's systemd runs in it; without, nothing but our commands. Needs root.
 *
 * It runs in a mount namespace of its own, so what nspawn mounts below /run/systemd/nspawn goes with it; in a cgroup of
 * ours, so that it needs no systemd on this host; and sees the unified hierarchy alone: it cannot attach to others.
 */
import { randomBytes } from 'node:crypto';
import { HOLD, READY, startHolder } from './_holder.ts';
import { openInside } from './_inside.ts';
import { IDENTITY, lookUp } from './attributes.ts';
import { type Connection, type Hop, HopError, checkPath, lines } from './connection.ts';

/** What openNspawn needs. */
export interface NspawnOptions {
  /** Absolute path of the root file system. */
  readonly directory: string;
  /** Start its init; default false. */
  readonly boot?: boolean;
  /** This host's network, and its /etc/resolv.conf; default true. False: only a loopback device. */
  readonly network?: boolean;
}

/**
 * Arguments: DIRECTORY NAME boot|plain NSPAWN-OPTION…. Says the process id of the container's init.
 *
 * nspawn leaves a running container behind when it is killed. So it is the first process of a PID namespace, and the
 * kernel ends all of it with its first.
 */
const SCRIPT = `${HOLD}
directory=$1 name=$2 how=$3; shift 3
cgroups=/sys/fs/cgroup
[ ! -d $cgroups/unified ] || cgroups=$cgroups/unified
hold '
  left=50
  while [ -d "$1" ] && [ "$left" -gt 0 ]; do
    # The last processes of a container that was killed are still on their way out.
    find "$1" -depth -type d -exec rmdir {} + || sleep 0.1
    left=$((left - 1))
  done
' "$cgroups/$name"
mkdir -- "$cgroups/$name" && echo "$$" > "$cgroups/$name/cgroup.procs" || fail "cannot make the cgroup $cgroups/$name"
mkdir -p /run/systemd/nspawn || fail "cannot make /run/systemd/nspawn"
export SYSTEMD_NSPAWN_LOCK=0
$dies unshare --mount --pid --fork --kill-child=KILL --propagation=slave -- sh -c '
  mount -n -t proc proc /proc && mount -n -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn || exit 1
  if [ -d /sys/fs/cgroup/unified ]; then
    umount -n -R /sys/fs/cgroup && mount -n -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
  fi
  exec systemd-nspawn "$@"
' nspawn --keep-unit --register=no --quiet --settings=no --link-journal=no --console=pipe \
  --machine="$name" --directory="$directory" "$@" &
outer=$!
children() { cat "/proc/$1/task/$1/children" 2>/dev/null; }
trap '
  trap "" TERM
  kill -TERM $(children "$outer")
  left=100
  [ "$how" = boot ] || left=5
  while [ -e "/proc/$outer" ] && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
  kill -KILL "$outer"
  wait "$outer"
  exit 143' TERM
leader=
left=300
while [ -z "$leader" ] && [ "$left" -gt 0 ]; do
  [ -e "/proc/$outer" ] || { wait "$outer"; fail "systemd-nspawn ended with status $?"; }
  for nspawn in $(children "$outer"); do
    for child in $(children "$nspawn"); do
      # The init of the container, once it is one.
      if grep -qs '^NSpid:.*[[:space:]]1$' "/proc/$child/status" &&
        [ "$(cat "/proc/$child/comm")" != systemd-nspawn ]; then leader=$child; fi
    done
  done
  [ -n "$leader" ] || sleep 0.05
  left=$((left - 1))
done
[ -n "$leader" ] || fail "the container has no init after 15 s"
echo ${READY} "$leader"
wait "$outer"
exit $?
`;

/** A boot under emulation is slow. */
const BOOT_MS = 120_000;
const START_MS = 30_000;

/**
 * Starts a container and opens its inside.
 *
 * @throws {HopError} when it does not start, or (with `boot`) does not come up
 */
export async function openNspawn(base: Connection, options: NspawnOptions): Promise<Connection> {
  const { directory, boot = false, network = true } = options;
  const hop: Hop = ['nspawn', { ...options }];
  checkPath(directory);
  const { uid } = await lookUp(base, IDENTITY);
  if (uid !== 0) {
    throw new HopError(hop, `it needs root, and this is uid ${uid}`, { hint: 'Put the hop "sudo" before it.' });
  }
  const name = `buildos-${randomBytes(4).toString('hex')}`;
  const words = [
    'sh',
    '-c',
    SCRIPT,
    'nspawn',
    directory,
    name,
    boot ? 'boot' : 'plain',
    // The root's own /etc/localtime stays as it is.
    '--timezone=off',
    ...(network ? ['--resolv-conf=replace-host'] : ['--private-network', '--resolv-conf=off']),
    ...(boot ? ['--boot'] : ['--as-pid2', '--', 'sh', '-c', 'while :; do sleep 86400; done']),
  ];
  const holder = await startHolder(base, words, START_MS);
  if ('failed' in holder) {
    throw new HopError(hop, holder.failed, {
      hint: 'Is systemd-nspawn there (package systemd-container), and is the directory a root?',
    });
  }
  try {
    const inside = await openInside(base, { hop, leader: Number(holder.ready), close: () => holder.close() });
    if (boot) await awaitBoot(inside, hop);
    return inside;
  } catch (error) {
    await holder.close();
    throw error;
  }
}

/** Waits until systemd has started all that it should. */
async function awaitBoot(inside: Connection, hop: Hop): Promise<void> {
  const end = Date.now() + BOOT_MS;
  for (;;) {
    const [state = ''] = lines(
      await inside.run(['systemctl', 'is-system-running'], { okStatus: 'any', timeoutMs: BOOT_MS }),
    );
    if (state === 'running' || state === 'degraded') return;
    if (Date.now() > end) throw new HopError(hop, `its systemd is still "${state}" after ${BOOT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
