/**
 * systemd-nspawn: the command line of a container that runs one program and holds as little power as a build needs.
 *
 * Tried with systemd-nspawn 257. What is left out on purpose:
 * - `--network-namespace-path=`: it fails together with `--private-users=`, because the child that joins the network
 *   namespace has already entered the user namespace and has no power over the host's (`Failed to join network
 *   namespace: Operation not permitted`). So nspawn is started inside the namespace, by its unit's
 *   `NetworkNamespacePath=`. The namespace then belongs to the host: root in the container can't change an address, a
 *   route or a firewall rule, nor open raw sockets.
 * - `--boot`: there is no init in the container; `--as-pid2` gives one that only reaps.
 */

/** What to run, and where. Paths are the host's unless it says otherwise. */
export interface Container {
  /** machine and host name */
  readonly name: string;
  /** root file system; left owned by uid 0, mapped where the file system can, else chowned */
  readonly directory: string;
  /** directories seen read-only at the same path inside, as `nobody`: only what others may read can be read */
  readonly readOnlyBinds: readonly string[];
  /** how the container's /etc/resolv.conf comes about, see systemd-nspawn(1) */
  readonly resolvConf: 'off' | 'replace-host' | 'replace-uplink';
  readonly environment: Readonly<Record<string, string>>;
  /** program and arguments, as seen inside */
  readonly command: readonly string[];
}

/**
 * Capabilities that root in the container keeps. GNU hello was configured, built, checked and installed with these,
 * and files changed their owners: install(1) and tar(1) need CHOWN, FOWNER and FSETID; a build that drops to another
 * user needs SETUID, SETGID and KILL; DAC_OVERRIDE is what makes root read a tree that another user unpacked.
 */
export const KEPT_CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
];

/**
 * What systemd-nspawn would leave as well (its manual, `--capability=`). There is no "drop all but": with
 * `--drop-capability=all`, dropping wins over keeping.
 */
const DROPPED_CAPABILITIES: readonly string[] = [
  'CAP_AUDIT_CONTROL',
  'CAP_AUDIT_WRITE',
  'CAP_DAC_READ_SEARCH',
  'CAP_IPC_OWNER',
  'CAP_LEASE',
  'CAP_LINUX_IMMUTABLE',
  'CAP_MKNOD',
  'CAP_NET_ADMIN',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_BROADCAST',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_CHROOT',
  'CAP_SYS_NICE',
  'CAP_SYS_PTRACE',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TTY_CONFIG',
];

/**
 * Environment of systemd-nspawn itself: /tmp stays a directory of the snapshot. As a tmpfs, what a job puts there
 * would count as its memory, and end at a tenth of the host's.
 */
export const NSPAWN_ENVIRONMENT: Readonly<Record<string, string>> = { SYSTEMD_NSPAWN_TMPFS_TMP: '0' };

/** Empty folders that systemd-nspawn leaves when it is killed. */
export function nspawnTraces(name: string): readonly string[] {
  return ['propagate', 'unix-export'].map((folder) => `/run/systemd/nspawn/${folder}/${name}`);
}

/** The command line; it belongs into a service with `Delegate=yes`, see `--keep-unit`. */
export function nspawnArgv(container: Container): readonly string[] {
  return [
    '/usr/bin/systemd-nspawn',
    '--quiet',
    '--settings=no',
    '--register=no',
    '--keep-unit',
    '--as-pid2',
    `--machine=${container.name}`,
    `--hostname=${container.name}`,
    `--directory=${container.directory}`,
    '--private-users=pick',
    '--private-users-ownership=auto',
    '--no-new-privileges=yes',
    `--drop-capability=${DROPPED_CAPABILITIES.join(',')}`,
    '--console=read-only',
    '--link-journal=no',
    '--timezone=off',
    `--resolv-conf=${container.resolvConf}`,
    ...container.readOnlyBinds.map((path) => `--bind-ro=${escapeBind(path)}`),
    ...Object.entries(container.environment).map(([name, value]) => `--setenv=${name}=${value}`),
    '--',
    ...container.command,
  ];
}

/** In `--bind-ro=`, a colon parts source, target and options, and a backslash keeps it from doing so. */
function escapeBind(path: string): string {
  return path.replaceAll(/[\\:]/g, (character) => `\\${character}`);
}
