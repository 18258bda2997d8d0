/**
 * What chroot.shell and chroot.fork share: namespaces of their own, and in them a small script that mounts what programs
 * expect in a root.
 *
 *   ROOT/proc    proc of the PID namespace        ROOT/dev   tmpfs: null zero full random urandom tty, pts, shm, fd
 *   ROOT/sys     sysfs, read-only                 ROOT/run, ROOT/tmp   tmpfs, gone afterwards
 *
 * The mounts are in no other namespace and the script is PID 1 of its own, so whatever kills it (or us, or unshare), the
 * kernel ends every process inside and drops every mount: there is nothing to clean up, ever.
 *
 * Who runs many commands can have half of that done once ("held"): a process that ends with the connection holds a mount
 * namespace with what commands may share (dev, sys, binds), and each command goes on from there into namespaces of its own,
 * with a proc, run, tmp and shm that nobody had before. 17 ms of CPU a command instead of 29.
 *
 * Services cannot start: there is no /run/systemd/system, and a PATH entry in the tmpfs on /run holds stand-ins for
 * invoke-rc.d and its kind, which say what they did not do. Nothing of that is written into the root: an own
 * policy-rc.d would have to be, since a bind needs a file to sit on. (One that the root has is covered by ours.)
 *
 * Names are resolved as on this host: its /etc/resolv.conf is bound over the root's, or put where the root's link into
 * /run leads. A root that has none gets none.
 */
import { READY } from './_holder.ts';
import { IDENTITY, lookUp } from './attributes.ts';
import { type Connection, type Hop, type RunResult, HopError, checkPath } from './connection.ts';

/** A path of the outside to be seen inside. */
export interface Bind {
  readonly from: string;
  /** Where in the root; must exist there, and no part of it may be a symbolic link. */
  readonly to: string;
}

/** What a chroot needs. */
export interface ChrootOptions {
  /** Absolute path of the root. */
  readonly into: string;
  /** Let programs inside resolve names as this host does (/etc/resolv.conf); default true (chroot.fork: false). */
  readonly network?: boolean;
  /** Read-only binds. */
  readonly binds?: readonly Bind[];
  /** Writable binds, such as a cache of packages. */
  readonly shares?: readonly Bind[];
  /** Prepare the root once and hold it while the connection lives: for many commands. Not for chroot.fork, which does. */
  readonly held?: boolean;
}

/** The whole environment of a command inside, before what the caller adds. */
export const ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: '/run/buildos-chroot/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LC_ALL: 'C.UTF-8',
  DEBIAN_FRONTEND: 'noninteractive',
  DEBCONF_NONINTERACTIVE_SEEN: 'true',
  APT_CONFIG: '/run/buildos-chroot/apt.conf',
};

/** The script says so when it is itself what failed. */
const SETUP_STATUS = 125;
const SETUP_MARK = 'buildos-chroot: ';

/** Where the script puts FILES, as seen inside. */
export const FILES_FOLDER = '/run/buildos-chroot/agent';

/**
 * Looks whether a root can be entered.
 *
 * @throws {HopError} when it is not a directory, or we are not root
 */
export async function checkChroot(base: Connection, hop: Hop, options: ChrootOptions): Promise<void> {
  checkPath(options.into);
  for (const { from, to } of [...(options.binds ?? []), ...(options.shares ?? [])]) {
    checkPath(from);
    checkPath(to);
  }
  const [isDirectory, { uid }] = await Promise.all([
    base.run(['test', '-d', options.into], { okStatus: [0, 1] }),
    lookUp(base, IDENTITY),
  ]);
  if (isDirectory.status !== 0) throw new HopError(hop, `"${options.into}" is not a directory`);
  if (uid !== 0) {
    throw new HopError(hop, `it needs root, and this is uid ${uid}`, {
      hint: 'Put the hop "sudo" before it, or start as root.',
    });
  }
}

/** The words that enter a root; those of a command follow, which finds itself outside of the root, in its top folder. */
export function enterChroot(
  options: ChrootOptions,
  more: { readonly resolv: 'yes' | 'no'; readonly files: readonly { readonly name: string; readonly path: string }[] },
): readonly string[] {
  const words = [
    options.into,
    more.resolv,
    String(more.files.length),
    ...more.files.flatMap(({ name, path }) => [name, escapeFstab(path)]),
    ...bindWords(options),
  ];
  return [...confined(ENTER_NAMESPACES), 'sh', '-c', ENTER_SCRIPT, 'chroot', ...words];
}

/** The words of a program that prepares a root, says {@link READY} and its process id, and holds it until its stdin ends. */
export function holdChroot(options: ChrootOptions): readonly string[] {
  const words = [options.into, 'no', '0', ...bindWords(options), escapeFstab(options.into)];
  return [...confined(HOLD_NAMESPACES), 'sh', '-c', HOLD_SCRIPT, 'chroot', ...words];
}

/** As {@link enterChroot}, into a root that process `pid` holds. */
export function enterHeldChroot(
  options: ChrootOptions,
  held: { readonly pid: string; readonly resolv: 'yes' | 'no' },
): readonly string[] {
  const enter = ['nsenter', '-t', held.pid, '-m', '-r', '-w', '--', ...confined(ENTER_NAMESPACES)];
  return [...enter, 'sh', '-c', ENTER_HELD_SCRIPT, 'chroot', options.into, held.resolv];
}

function bindWords(options: ChrootOptions): readonly string[] {
  const binds = [
    ...(options.binds ?? []).flatMap(({ from, to }) => ['ro', from, to]),
    ...(options.shares ?? []).flatMap(({ from, to }) => ['rw', from, to]),
  ];
  return [String(binds.length / 3), ...binds];
}

/** fstab(5): fields end at white space. */
const escapeFstab = (path: string): string =>
  path.replaceAll(/[\\ \t\n#]/g, (one) => `\\${one.charCodeAt(0).toString(8).padStart(3, '0')}`);

/** The hop's arguments, for messages and for opening it again. */
export function chrootArguments(options: ChrootOptions): Record<string, string | boolean> {
  const list = (binds: readonly Bind[]): string => binds.map(({ from, to }) => `${from}:${to}`).join(',');
  return {
    into: options.into,
    ...(options.network === undefined ? {} : { network: options.network }),
    ...(options.binds === undefined || options.binds.length === 0 ? {} : { binds: list(options.binds) }),
    ...(options.shares === undefined || options.shares.length === 0 ? {} : { shares: list(options.shares) }),
  };
}

/** The script's own failure, which is no failure of the command. */
export function throwSetupError(hop: Hop, result: Pick<RunResult, 'status' | 'stderr'>): void {
  if (result.status !== SETUP_STATUS) return;
  const said = Buffer.from(result.stderr).toString('utf8').trim().split('\n');
  const last = said.at(-1) ?? '';
  if (last.startsWith(SETUP_MARK)) {
    const before = said.slice(0, -1).join('; ');
    throw new HopError(hop, `${last.slice(SETUP_MARK.length)}${before === '' ? '' : ` (${before})`}`, {
      hint: 'A root needs the directories /proc, /sys, /dev, /run and /tmp; mounting needs CAP_SYS_ADMIN.',
    });
  }
}

/**
 * Nothing inside may set this machine's clock, load modules into its kernel, boot another one or reach its ports: there
 * are no namespaces for these.
 */
const BOUNDING = '-sys_time,-sys_boot,-sys_module,-sys_rawio';

const ENTER_NAMESPACES = ['--mount', '--uts', '--ipc', '--pid', '--fork', '--kill-child=KILL'];
const HOLD_NAMESPACES = ['--mount'];

/**
 * Private namespaces. setpriv: an unshare that loses its parent dies too. --kill-child: with unshare dies the script.
 * --fork and --pid: with the script, PID 1 in there, dies everything else.
 */
const confined = (namespaces: readonly string[]): readonly string[] => [
  'setpriv',
  '--pdeathsig=KILL',
  `--bounding-set=${BOUNDING}`,
  `--inh-caps=${BOUNDING}`,
  '--',
  'unshare',
  ...namespaces,
  '--propagation=private',
  '--',
];

/** The script's own failures. */
const FAIL = `
fail() { echo "${SETUP_MARK}$*" >&2; exit ${SETUP_STATUS}; }`;

/**
 * Arguments: ROOT RESOLV FILES (NAME FROM)×FILES BINDS (ro|rw FROM TO)×BINDS …
 *
 * RESOLV `yes`: cover /etc/resolv.conf. FILES go into a folder of their own on the tmpfs, FROM as fstab(5) has it; with
 * any, mount points that the root lacks are made. Few programs are started, since every command pays for them.
 */
const PREPARE = String.raw`${FAIL}
root=$1 resolv=$2 files=$3; shift 3
exec 3<&0 </dev/null
umask 022
mount -n --rbind -- "$root" "$root" || fail "cannot bind $root" # or / would be no mount point inside: no unshare there
cd "$root" || fail "cannot enter $root"
for at in proc sys dev run tmp; do
  [ "$files" = 0 ] || [ -e $at ] || [ -L $at ] || mkdir $at || fail "cannot make /$at of $root"
  [ -d $at ] && [ ! -L $at ] || fail "/$at of $root is not a directory"
done
mount -n -t tmpfs -o mode=0755,nosuid,nodev run run || fail "cannot mount in $root"
own=run/buildos-chroot
mkdir run/lock $own $own/bin $own/agent || fail "cannot make directories"
{
  echo 'dev /dev tmpfs mode=0755,nosuid,size=16m'
  echo 'pts /dev/pts devpts X-mount.mkdir,newinstance,ptmxmode=0666,mode=0620,gid=5,nosuid,noexec'
  echo 'shm /dev/shm tmpfs X-mount.mkdir,mode=1777,nosuid,nodev'
  echo 'proc /proc proc nosuid,nodev,noexec'
  echo 'sys /sys sysfs ro,nosuid,nodev,noexec'
  echo 'tmp /tmp tmpfs mode=1777,nosuid,nodev'
  if [ "$resolv" = yes ] && [ -f /etc/resolv.conf ] && [ ! -L etc ] && [ ! -L etc/resolv.conf ] && [ -f etc/resolv.conf ]
  then echo '/etc/resolv.conf /etc/resolv.conf none bind,ro'; fi
  while [ "$files" -gt 0 ]; do
    : > "$own/agent/$1"
    printf '%s /%s none bind,ro\n' "$2" "$own/agent/$1"
    shift 2; files=$((files - 1))
  done
} > $own/fstab
mount -n -a -T $own/fstab --target-prefix "$PWD" || fail "cannot mount in $root"
links='/dev/fd /dev/stdin /dev/stdout /dev/stderr'
for link in $links; do [ -L $link ] || links=; done
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty $links dev/ || fail "cannot make device nodes"
if [ -z "$links" ]; then
  ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
fi
ln -s pts/ptmx dev/ptmx
printf 'DPkg::Path "";\nDPkg::Options:: "--force-unsafe-io";\nDpkg::Use-Pty "0";\n' > $own/apt.conf
printf '#!/bin/sh\nexit 101\n' > $own/policy-rc.d
for name in invoke-rc.d service start-stop-daemon deb-systemd-invoke; do
  printf '#!/bin/sh\necho "%s $*: not done, no services here" >&2\n' $name > $own/bin/$name
done
chmod 755 $own/policy-rc.d $own/bin/*
inside() { # no part of the path may be a link: the kernel would follow it to the outside
  seen=. IFS=/
  for part in $1; do
    [ -n "$part" ] || continue
    [ "$part" != .. ] || fail "$1 has .. in it"
    seen=$seen/$part
    [ ! -L "$seen" ] || fail "$1 leads over a symbolic link in $root"
  done
  unset IFS
  [ -e "$seen" ] || fail "$1 does not exist in $root"
}
binds=$1; shift
set -f
while [ "$binds" -gt 0 ]; do
  inside "$3"
  mount -n --bind -o "$1" -- "$2" "./$3" || fail "cannot bind $2"
  shift 3; binds=$((binds - 1))
done
set +f`;

/** What the root may have, and ours is to be seen instead: a policy-rc.d; an /etc/resolv.conf that leads into /run. */
const COVER = String.raw`
if [ -f usr/sbin/policy-rc.d ] && [ ! -L usr/sbin ] && [ ! -L usr/sbin/policy-rc.d ]; then
  mount -n --bind $own/policy-rc.d usr/sbin/policy-rc.d || fail "cannot cover policy-rc.d"
fi
if [ "$resolv" = yes ] && [ -f /etc/resolv.conf ] && [ ! -L etc ] && [ -L etc/resolv.conf ]; then
  link=$(readlink etc/resolv.conf)
  case $link in
    *..*/..*) link= ;;
    /run/*) link=.$link ;;
    ../run/*) link=$(echo "$link" | sed 's,^\.\.,.,') ;;
    *) link= ;;
  esac
  if [ -n "$link" ]; then mkdir -p "$(dirname "$link")" && cat /etc/resolv.conf > "$link"; fi
fi`;

/** The shell stays: it is PID 1, reaps what the command leaves, and its own end ends those. */
const RUN = `
"$@" <&3 3<&-
exit $?
`;

/** Arguments: those of PREPARE, COMMAND… */
const ENTER_SCRIPT = `${PREPARE}${COVER}${RUN}`;

/**
 * Arguments: those of PREPARE, ROOT as fstab(5) has it.
 *
 * What every command gets of its own is in a table. Its sources have other names than those of PREPARE: "mount -a" passes over
 * what it takes for mounted. Our folder on /run is kept on /tmp, for as long as it takes to bind it over a new /run.
 */
const HOLD_SCRIPT = `${PREPARE}
mkdir tmp/own && mount -n --bind $own tmp/own || fail "cannot mount in $root"
{
  echo 'own-proc /proc proc nosuid,nodev,noexec'
  echo 'own-run /run tmpfs mode=0755,nosuid,nodev'
  echo 'own-lock /run/lock tmpfs X-mount.mkdir,mode=0755,nosuid,nodev'
  printf '%s/tmp/own /run/buildos-chroot none bind,ro,X-mount.mkdir\\n' "$1"
  echo 'own-shm /dev/shm tmpfs mode=1777,nosuid,nodev'
  echo 'own-tmp /tmp tmpfs mode=1777,nosuid,nodev'
} > tmp/fstab
echo "${READY} $$"
exec cat <&3 >/dev/null
`;

/** Arguments: ROOT RESOLV COMMAND… */
const ENTER_HELD_SCRIPT = `${FAIL}
root=$1 resolv=$2 own=run/buildos-chroot; shift 2
exec 3<&0 </dev/null
umask 022
for at in proc dev run tmp; do [ ! -L $at ] || fail "/$at of $root is not a directory"; done
mount -n -a -T tmp/fstab --target-prefix "$root" || fail "cannot mount in $root"
if [ "$resolv" = yes ] && [ -f /etc/resolv.conf ] && [ ! -L etc ] && [ ! -L etc/resolv.conf ] && [ -f etc/resolv.conf ]
then mount -n --bind -o ro /etc/resolv.conf etc/resolv.conf || fail "cannot cover /etc/resolv.conf of $root"; fi
${COVER}${RUN}`;
