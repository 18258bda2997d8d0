/**
 * qemu-system-x86_64: the command line of a guest, as a value. What starts it, reads its console and talks QMP is elsewhere.
 *
 * Two findings decide the details. QEMU 7.2 under TCG crashed 6.12 kernels with any CPU model that has cmpxchg16b; 10.0 does not.
 * With firmware OVMF the network card gets no option ROM, so that OVMF's own PXE stack runs, as on real UEFI hardware.
 */
import { text } from '../connections/connection.ts';
import type { Connection } from '../connections/connection.ts';

/** `direct`: QEMU loads the kernel itself; no firmware boot, no PXE. */
export type Firmware = 'bios' | 'uefi' | 'direct';

/** `icount`: TCG on one CPU whose clock counts instructions, 1 ns each: the same figures on any machine, however busy it is. */
export type Accelerator = 'kvm' | 'tcg' | 'icount';

/** A disk of the guest. */
export interface QemuDisk {
  readonly file: string;
  readonly format: 'raw' | 'qcow2';
  /** Writes go to a temporary file and are gone at the end; the file itself stays as it is. */
  readonly snapshot?: boolean;
  /** How the guest sees it; default `disk`. Firmware boots from a CD or a USB stick before it tries the network. */
  readonly attach?: 'disk' | 'cdrom' | 'usb';
}

/** A guest. Paths are on the host that runs QEMU; sockets are UNIX sockets, at most 107 bytes. */
export interface QemuGuest {
  readonly name: string;
  readonly version: QemuVersion;
  readonly accelerator: Accelerator;
  readonly firmware: Firmware;
  readonly memoryMiB: number;
  readonly cpus: number;
  /** Of `direct`. */
  readonly kernel?: { readonly file: string; readonly initrd?: string; readonly append: string };
  /** Of `uefi`: the firmware's code, and the guest's own copy of its variables. */
  readonly ovmf?: { readonly code: string; readonly vars: string; readonly secureBoot?: boolean };
  /** Of `uefi`: HTTP Boot is the only way over the network; else PXE comes first. */
  readonly httpBoot?: boolean;
  readonly network?: { readonly tap: string; readonly mac: string };
  readonly disks?: readonly QemuDisk[];
  /** QEMU listens here, and starts the guest when the console's reader has connected: no line is lost. */
  readonly consoleSocket: string;
  /** A copy of everything the console says, kept by QEMU itself. */
  readonly consoleLog: string;
  readonly qmpSocket: string;
  /** A second serial port, `ttyS1`, on a socket of its own: for `systemd.debug_shell`. */
  readonly shellSocket?: string;
  /** A guest that reboots ends QEMU instead. */
  readonly noReboot?: boolean;
}

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
}

/** Where Debian's package `ovmf` puts the firmware; `vars` is a template, to be copied for each guest. */
export const OVMF = {
  code: '/usr/share/OVMF/OVMF_CODE_4M.fd',
  vars: '/usr/share/OVMF/OVMF_VARS_4M.fd',
  /** The code that checks signatures; its variables are written in System Management Mode only. */
  secureCode: '/usr/share/OVMF/OVMF_CODE_4M.secboot.fd',
} as const;

/**
 * The command line of a guest.
 *
 * @throws {TypeError} when the firmware lacks what it needs: `direct` a kernel, `uefi` its OVMF files
 */
export function qemuArgv(guest: QemuGuest): string[] {
  return [
    ['qemu-system-x86_64', '-name', guest.name],
    ['-nodefaults', '-no-user-config'],
    ['-display', 'none'],
    accelerate(guest),
    ['-smp', String(guest.cpus)],
    ['-m', String(guest.memoryMiB)],
    firmwareArgs(guest),
    guest.network === undefined ? ['-nic', 'none'] : networkArgs(guest.network, guest.firmware),
    (guest.disks ?? []).flatMap(diskArgs),
    ['-object', 'rng-random,id=rng0,filename=/dev/urandom', '-device', 'virtio-rng-pci,rng=rng0'],
    ['-chardev', `socket,id=console,path=${guest.consoleSocket},server=on,wait=on,logfile=${guest.consoleLog}`],
    ['-serial', 'chardev:console'],
    guest.shellSocket === undefined
      ? []
      : ['-chardev', `socket,id=shell,path=${guest.shellSocket},server=on,wait=off`, '-serial', 'chardev:shell'],
    ['-qmp', `unix:${guest.qmpSocket},server=on,wait=off`],
    guest.noReboot === true ? ['-no-reboot'] : [],
  ].flat();
}

/**
 * Reads `qemu-system-x86_64 --version`.
 *
 * @throws {CommandError} when QEMU cannot be run
 * @throws {RangeError} when it says something else than a version
 */
export async function readQemuVersion(on: Connection): Promise<QemuVersion> {
  return parseQemuVersion(text(await on.run(['qemu-system-x86_64', '--version'])));
}

/**
 * @param output - `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)…`
 * @throws {RangeError} when there is no version in it
 */
export function parseQemuVersion(output: string): QemuVersion {
  const match = /version (\d+)\.(\d+)/.exec(output);
  if (match === null) throw new RangeError(`Cannot find a version in what QEMU says of itself: "${output.trim()}"`);
  return { major: Number(match[1]), minor: Number(match[2]) };
}

/** The CPU model: the host's own under KVM; under TCG all that this QEMU emulates reliably. */
export function cpuModel(accelerator: Accelerator, version: QemuVersion): string {
  if (accelerator === 'kvm') return 'host';
  return version.major >= 10 ? 'max' : 'qemu64,-cx16,+rdrand';
}

// A translation cache of 512 MiB: the default is flushed over and over while a Node program starts.
const ACCELERATOR_ARGS: Readonly<Record<Accelerator, readonly string[]>> = {
  kvm: ['-accel', 'kvm'],
  tcg: ['-accel', 'tcg,thread=multi,tb-size=512'],
  // sleep=off: a guest that waits gets its next timer at once.
  icount: ['-accel', 'tcg,thread=single,tb-size=512', '-icount', 'shift=0,sleep=off'],
};

function accelerate(guest: QemuGuest): string[] {
  return [...ACCELERATOR_ARGS[guest.accelerator], '-cpu', cpuModel(guest.accelerator, guest.version)];
}

function firmwareArgs(guest: QemuGuest): string[] {
  switch (guest.firmware) {
    case 'bios':
      // Without graphics SeaBIOS and iPXE speak on the serial console, which is where a failed boot must show.
      return ['-machine', 'pc,graphics=off'];
    case 'uefi': {
      if (guest.ovmf === undefined) throw new TypeError('Cannot describe a UEFI guest without the files of OVMF');
      return [
        guest.ovmf.secureBoot === true
          ? ['-machine', 'q35,smm=on', '-global', 'driver=cfi.pflash01,property=secure,value=on']
          : ['-machine', 'q35'],
        // IPv6 is tried before HTTP, and takes a minute to give up where nobody answers.
        ['-fw_cfg', 'name=opt/org.tianocore/IPv6PXESupport,string=n'],
        guest.httpBoot === true ? ['-fw_cfg', 'name=opt/org.tianocore/IPv4PXESupport,string=n'] : [],
        ['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${escapeComma(guest.ovmf.code)}`],
        ['-drive', `if=pflash,unit=1,format=raw,file=${escapeComma(guest.ovmf.vars)}`],
      ].flat();
    }
    case 'direct': {
      if (guest.kernel === undefined) throw new TypeError('Cannot describe a direct boot without a kernel');
      return [
        ['-machine', 'q35', '-kernel', guest.kernel.file],
        guest.kernel.initrd === undefined ? [] : ['-initrd', guest.kernel.initrd],
        ['-append', guest.kernel.append],
      ].flat();
    }
    default:
      return guest.firmware satisfies never;
  }
}

function networkArgs(network: { readonly tap: string; readonly mac: string }, firmware: Firmware): string[] {
  // BIOS: the card's own ROM (iPXE, package ipxe-qemu) is what boots. Otherwise none: OVMF has PXE, a direct boot needs none.
  const rom = firmware === 'bios' ? '' : ',romfile=';
  return [
    ['-netdev', `tap,id=net0,ifname=${network.tap},script=no,downscript=no`],
    ['-device', `virtio-net-pci,netdev=net0,mac=${network.mac},bootindex=1${rom}`],
  ].flat();
}

function diskArgs(disk: QemuDisk, index: number): string[] {
  const snapshot = disk.snapshot === true ? ',snapshot=on' : '';
  const drive = `if=none,id=disk${index},format=${disk.format},cache=unsafe,discard=unmap${snapshot},file=${escapeComma(disk.file)}`;
  const attach = disk.attach ?? 'disk';
  switch (attach) {
    case 'disk':
      return ['-drive', drive, '-device', `virtio-blk-pci,drive=disk${index},serial=disk${index}`];
    case 'cdrom':
      return ['-drive', `${drive},media=cdrom,readonly=on`, '-device', `ide-cd,drive=disk${index},bootindex=0`];
    case 'usb':
      return [
        ['-device', `qemu-xhci,id=usb${index}`],
        ['-drive', drive, '-device', `usb-storage,bus=usb${index}.0,drive=disk${index},removable=on,bootindex=0`],
      ].flat();
    default:
      return attach satisfies never;
  }
}

/** QEMU's option lists separate by comma; a doubled one is a literal one. */
const escapeComma = (value: string): string => value.replaceAll(',', ',,');
