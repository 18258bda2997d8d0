/**
 * Mounts: mount(8) through a connection, and what is mounted, from /proc/self/mountinfo (proc_pid_mountinfo(5)).
 *
 * Several mounts go to the host as one command. In stage 1 every program costs about 18 ms under emulation, so a step of
 * four mounts is one program there, not four. (mount(2) through node:ffi was measured too: 1 ms a mount, but 55 ms to
 * load it, so it saves next to nothing.)
 */
import type { Connection } from '../connections/connection.ts';

/** One mount to make. `type` is `bind` or `move` for what is no file system of its own. */
export interface Mount {
  /** A file system, or `bind` (also for a single file), or `move`. */
  readonly type: string;
  /** A device, a file to loop, a path to bind or move, or any word for a file system without a device. */
  readonly source: string;
  /** Must exist, unless `makeTarget`. */
  readonly target: string;
  /** As for `mount -o`: `loop` finds a free loop device. */
  readonly options?: readonly string[];
  /** Make the folder at `target` (and its parents) first. */
  readonly makeTarget?: boolean;
}

/** One line of mountinfo. Paths are as seen by the process, escapes resolved. */
export interface MountInfo {
  readonly target: string;
  /** Options of this mount, such as `ro`, `nosuid`. */
  readonly options: readonly string[];
  readonly type: string;
  readonly source: string;
  /** Options of the file system, such as `size=1024k`. */
  readonly superOptions: readonly string[];
}

/** Takes five words a mount: type, source, target, options, `mkdir` or nothing. `$0` runs a program by name. */
const SCRIPT = `
while [ $# -ge 5 ]; do
  if [ "$5" = mkdir ]; then $0 mkdir -p "$3" || exit; fi
  case "$1" in
    bind) $0 mount -o "bind,$4" "$2" "$3" || exit ;;
    move) $0 mount --move "$2" "$3" || exit ;;
    *) $0 mount -t "$1" -o "$4" "$2" "$3" || exit ;;
  esac
  shift 5
done`;

const MOUNT_TIMEOUT_MS = 60_000;

/** Where the programs are when a host has only busybox. */
export interface MountPrograms {
  /** Absolute path of busybox; without it, `sh`, `mkdir` and `mount` are looked up in PATH. */
  readonly busybox?: string;
}

/**
 * Makes mounts in this order, and stops at the first that fails; those before it stay.
 *
 * @throws {CommandError} whose stderr names the mount that failed
 */
export async function mountAll(on: Connection, mounts: readonly Mount[], programs: MountPrograms = {}): Promise<void> {
  if (mounts.length === 0) return;
  const { busybox } = programs;
  const words = mounts.flatMap(({ type, source, target, options = [], makeTarget = false }) => [
    type,
    source,
    target,
    options.length === 0 ? 'defaults' : options.join(','),
    makeTarget ? 'mkdir' : '',
  ]);
  const shell = busybox === undefined ? ['sh', '-c', SCRIPT, 'env'] : [busybox, 'sh', '-c', SCRIPT, busybox];
  // An empty input, not none: the first mount of all is the one that brings /dev/null.
  await on.run([...shell, ...words], { timeoutMs: MOUNT_TIMEOUT_MS, input: '' });
}

/** The mount as a command, for a log or `--dry-run`. */
export function describeMount(mount: Mount): string {
  const options = mount.options === undefined || mount.options.length === 0 ? '' : ` (${mount.options.join(',')})`;
  return `${mount.type} ${mount.source} on ${mount.target}${options}`;
}

/**
 * Reads mountinfo: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`. What does not look
 * like such a line is left out.
 */
export function parseMountInfo(content: string): MountInfo[] {
  return content.split('\n').flatMap((line) => {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    const [target, options] = [fields[4], fields[5]];
    const [type, source, superOptions] = fields.slice(separator + 1);
    if (separator < 0 || target === undefined || options === undefined || type === undefined) return [];
    return {
      target: unescapePath(target),
      options: options.split(','),
      type,
      source: unescapePath(source ?? ''),
      superOptions: (superOptions ?? '').split(','),
    };
  });
}

/** The kernel writes blank, tab, newline and backslash as three octal digits. */
function unescapePath(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
