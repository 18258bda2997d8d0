/**
 * Boots over the network under TCG, from power-on, as a host that nobody watches: no key is pressed. Our image as it is published,
 * with what it publishes for DHCP; beside it, the same over DHCP as dnsmasq does it by itself, and the same files as one zstd cpio.
 *
 * Seconds, so they are worth something on a machine that does nothing else.
 */
import { copyFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuiltImage } from '../../image/built-image.ts';
import { DNSMASQ_CONF } from '../../image/publish/dhcp-config.ts';
import { publishImage } from '../../image/publish/publish.ts';
import { acceleratorArgs } from '../../lab/accelerator.ts';
import { formatBootScript } from '../../lab/bootable.ts';
import { Guest } from '../../lab/guest.ts';
import { GuestShell, SHELL_ARGUMENT } from '../../lab/guest-shell.ts';
import { type Lab, openLab } from '../../lab/lab.ts';
import { LAB_ADDRESS } from '../../lab/network.ts';
import { type StatusReading, waitForStatus } from '../../lab/status.ts';
import { TOOLCHAIN_LIST } from '../../toolchains/publish.ts';
import { writeInstantToolchain } from './agent-host.ts';
import { findPxePhases, type PxePhase } from './pxe-phases.ts';
import { QUESTIONS, sumCpuUsages } from './stamps.ts';

const BOOT_MS = 300_000;
const MEMORY_MIB = 2048;
const KERNEL_ARGUMENTS = [
  'console=ttyS0',
  'loglevel=4',
  'systemd.show_status=1',
  SHELL_ARGUMENT,
  ...acceleratorArgs('tcg'),
];
const URL_OF_LAB = `http://${LAB_ADDRESS}`;

/** A way to boot. */
export interface PxeWay {
  readonly firmware: 'bios' | 'uefi';
  /** DHCP without what spares iPXE its waits. */
  readonly isDhcpPlain?: boolean;
  /** An initrd that is the whole root, and how the kernel starts it; instead of the image's own. */
  readonly plainRoot?: { readonly initrd: string; readonly args: readonly string[] };
  /** Until the agent of a toolchain that takes no time is ready; default: until multi-user. */
  readonly untilAgent?: boolean;
}

/** A boot. */
export interface PxeBoot {
  readonly phases: readonly PxePhase[];
  /** What stage 1 and units that are programs of Node have used, with all that they have started; seconds of CPU. */
  readonly nodeSeconds: number;
}

/** Publishes an image into `folder`, boots it, and tells how it went. */
export async function measurePxe(image: BuiltImage, way: PxeWay, folder: string): Promise<PxeBoot> {
  const www = join(folder, 'www');
  await mkdir(www, { recursive: true });
  await using lab = await (way.plainRoot === undefined
    ? openPublished(image, way, folder, www)
    : openPlain(image, way.plainRoot, www));
  await using guest = await Guest.start({
    name: `pxe-${way.firmware}`,
    firmware: way.firmware,
    accelerator: 'tcg',
    memoryMiB: MEMORY_MIB,
    network: lab.network(),
    folder: join(folder, 'guest'),
    answersPrompt: false,
    shell: true,
  });
  await guest.waitForLine(/Reached target .*multi-user/, { timeoutMs: BOOT_MS });
  const status = way.untilAgent === true ? await agentReady(lab, guest) : undefined;
  const programs =
    way.untilAgent === true ? await guest.whileRunning('what Node has used', () => askPrograms(guest)) : 0;
  const phases = findPxePhases({
    powerOnMs: guest.startedAtMs,
    lab: lab.log.events,
    guest: guest.log.events,
    ...(status !== undefined && { status }),
  });
  return { phases, nodeSeconds: stage1Of(guest.lines) + programs };
}

async function askPrograms(guest: Guest): Promise<number> {
  using shell = await GuestShell.open(guest.sockets.shell, { timeoutMs: 60_000 });
  return sumCpuUsages((await shell.run(QUESTIONS.programs, { timeoutMs: 60_000 })).output) / 1e9;
}

/** Stage 1 says on the console how long its Node took to start, and what it has done itself; a root without it says nothing. */
function stage1Of(lines: readonly string[]): number {
  const said = lines.flatMap((line) => /\(Node ([\d.]+) s, init ([\d.]+) s\)/.exec(line)?.slice(1) ?? []);
  return said.reduce((sum, seconds) => sum + Number(seconds), 0);
}

async function openPublished(image: BuiltImage, way: PxeWay, folder: string, www: string): Promise<Lab> {
  const controllerFolder = join(folder, 'controller');
  if (way.untilAgent === true) {
    await writeInstantToolchain(join(www, 'toolchain'));
    await mkdir(controllerFolder, { recursive: true });
  }
  await publishImage({
    image,
    into: www,
    url: URL_OF_LAB,
    kernelArgs: KERNEL_ARGUMENTS,
    loaders: { bios: 'ipxe', uefi: 'ipxe' },
    ...(way.untilAgent === true && {
      options: {
        toolchain_url: `${URL_OF_LAB}/toolchain/${TOOLCHAIN_LIST}`,
        controller_url: `${URL_OF_LAB}:8080`,
      },
    }),
  });
  return await openLab({
    httpFolder: www,
    tftpFolder: www,
    bootConfig: way.isDhcpPlain === true ? await plainConfig(www, folder) : join(www, DNSMASQ_CONF),
    withoutAdvertisements: way.isDhcpPlain === true,
    ...(way.untilAgent === true && { controllerFolder }),
  });
}

async function openPlain(image: BuiltImage, root: NonNullable<PxeWay['plainRoot']>, www: string): Promise<Lab> {
  const names = { kernel: 'buildos-image', initrd: 'buildos-initrd' };
  await copyFile(image.kernel, join(www, names.kernel));
  await rename(root.initrd, join(www, names.initrd));
  const bootable = { buildId: image.buildId, folder: www, ...names, args: image.kernelArgs };
  const args = [...image.kernelArgs, ...KERNEL_ARGUMENTS, ...root.args];
  return await openLab({ httpFolder: www, bootScript: formatBootScript(bootable, URL_OF_LAB, args) });
}

const agentReady = (lab: Lab, guest: Guest): Promise<StatusReading> =>
  guest.whileRunning('agent ready', (signal) =>
    waitForStatus(lab, ({ events }) => events.some(({ name }) => name.startsWith('agent-ready:')), {
      what: 'agent ready',
      timeoutMs: BOOT_MS,
      signal,
    }),
  );

/** What is published for dnsmasq, without the option that tells iPXE not to wait for a proxy DHCP server. */
async function plainConfig(www: string, folder: string): Promise<string> {
  const tuned = await readFile(join(www, DNSMASQ_CONF), 'utf8');
  const plain = tuned.split('\n').filter((line) => !line.includes('encap:175,176'));
  const file = join(folder, 'dnsmasq-plain.conf');
  await writeFile(file, plain.join('\n'));
  return file;
}
