/**
 * What a command needs of the developer's machine: root, and Debian packages. Asks for root through sudo, says which packages
 * are missing, and installs them. Works on Debian 12 and 13.
 */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { shellQuote } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import { findMissingPackages, installArgv, installPackages } from '../host/apt.ts';

/** What packages are needed for; a command names the sets it uses. */
export type Need =
  | 'image'
  | 'uki'
  | 'ipxe'
  | 'pxelinux'
  | 'grub'
  | 'iso'
  | 'machine'
  | 'lab'
  | 'sources'
  | 'test'
  | 'bench';

/** Packages of Debian 12 and 13, by what uses them. */
const PACKAGES: Readonly<Record<Need, readonly string[]>> = {
  /** Roots, the initrd and its compressed payload. */
  image: ['debian-archive-keyring', 'gpgv', 'squashfs-tools', 'xz-utils', 'kmod', 'binutils'],
  /** Unified kernel images, and their signatures. */
  uki: ['systemd-boot-efi', 'sbsigntool', 'openssl'],
  /** Boot loaders that are published. */
  ipxe: ['ipxe'],
  pxelinux: ['pxelinux', 'syslinux-common'],
  grub: ['grub-efi-amd64-bin', 'grub-common'],
  /** CDs and USB sticks. */
  iso: ['xorriso', 'isolinux', 'syslinux-common'],
  /** The container's root, and a btrfs disk for it. */
  machine: ['mmdebstrap', 'debian-archive-keyring', 'gpgv', 'btrfs-progs', 'e2fsprogs', 'xz-utils'],
  /** The private network and QEMU. */
  lab: ['iproute2', 'dnsmasq-base', 'ipxe', 'ipxe-qemu', 'ovmf', 'qemu-system-x86', 'e2fsprogs', 'curl'],
  /** Source archives of another Debian release. */
  sources: ['debian-archive-keyring', 'gpgv'],
  /** Foreign peers that only tests talk to. */
  test: [
    'tftp-hpa',
    'atftp',
    'libwrap0',
    'python3-scapy',
    'dnsmasq-base',
    'strace',
    'busybox-static',
    'cpio',
    'zstd',
    'nftables',
    'openssh-client',
    'systemd-container',
    'gpg',
    'gpg-agent',
    'minisign',
  ],
  /** The load client is C, the kit Python; libraries of the servers that are unpacked and not installed. */
  bench: ['python3', 'gcc', 'libc6-dev', 'iproute2', 'dnsmasq-base', 'libwrap0', 'libpcre2-8-0'],
};

/** A command cannot go on before somebody with the rights does something; the command to run is in `hint`. */
export class SetupError extends Error {
  readonly hint: string;

  constructor(message: string, hint: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'SetupError';
    this.hint = hint;
  }
}

/**
 * Makes sure that this process is root; otherwise the whole command is run again through sudo, and this call does not return.
 *
 * @param why - what root is needed for, for the message: `network namespaces`
 * @throws {SetupError} when there is no sudo
 */
export function needRoot(why: string): void {
  if (process.getuid?.() === 0) return;
  const again = [process.execPath, ...process.argv.slice(1)];
  const sudo = findProgram('sudo');
  if (sudo === undefined) {
    throw new SetupError(
      `Root is needed (${why}), and there is no sudo`,
      `run it as root: su -c ${shellQuote([shellQuote(again)])}`,
    );
  }
  process.stderr.write(`Root is needed (${why}): starting again through sudo.\n`);
  // The same process, so that the terminal, its signals and the exit status stay as they are.
  process.execve?.(sudo, ['sudo', '--', ...again], process.env);
}

/**
 * Makes sure that the packages of some sets are installed; says what it installs.
 *
 * @param say - gets a line at a time; default: standard error
 * @throws {SetupError} when they are missing and cannot be installed
 */
export async function needPackages(
  needs: readonly Need[],
  say: (line: string) => void = (line) => void process.stderr.write(`${line}\n`),
): Promise<void> {
  const local = openLocal();
  const wanted = [...new Set(needs.flatMap((need) => PACKAGES[need]))];
  if (findProgram('dpkg-query') === undefined || findProgram('apt-get') === undefined) {
    throw new SetupError(
      'Cannot look for Debian packages: dpkg and apt are not here',
      `use Debian 12 or 13, or install by hand what these hold: ${wanted.join(' ')}`,
    );
  }
  const missing = await findMissingPackages(local, wanted);
  if (missing.length === 0) return;
  const command = shellQuote(installArgv(missing));
  needRoot(`installing the packages ${missing.join(' ')}`);
  say(`Installing ${missing.length} Debian packages: ${missing.join(' ')}`);
  try {
    await installPackages(local, missing);
  } catch (error) {
    throw new SetupError(`Cannot install the Debian packages ${missing.join(' ')}`, `see why: ${command}`, error);
  }
}

const findProgram = (name: string): string | undefined =>
  [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin']
    .map((folder) => join(folder, name))
    .find((path) => existsSync(path));
