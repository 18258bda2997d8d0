/**
 * Every way to boot what `image publish` wrote, but for those of pxe-boot.test.ts (iPXE) and secure-boot.test.ts: the folder as it
 * is, served by DHCP with the published configuration, by TFTP and by HTTP; and the ISO image as a CD and as a USB stick.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { BuiltImage } from '../../image/built-image.ts';
import { DNSMASQ_CONF } from '../../image/publish/dhcp-config.ts';
import { publishImage } from '../../image/publish/publish.ts';
import { rollBack } from '../../image/publish/rollback.ts';
import type { Accelerator } from '../../host/qemu.ts';
import { acceleratorArgs, findAccelerator } from '../../lab/accelerator.ts';
import { Guest, type GuestOptions } from '../../lab/guest.ts';
import { type Lab, openLab } from '../../lab/lab.ts';
import { labPort } from '../../lab/network.ts';
import { bootedLine, makeBootImage } from './_boot-image.ts';

const URL_OF_LAB = 'http://10.77.0.1';
const STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub';
const BOOT_MS = 120_000;
const OLD = 'a'.repeat(20);
const NEW = 'b'.repeat(20);

let folder: string;
let images: Readonly<Record<string, BuiltImage>>;
let accelerator: Accelerator;
let kernelArgs: string[];

before(
  async () => {
    folder = await mkdtemp(join(tmpdir(), 'boots-anywhere-'));
    images = { [OLD]: await makeBootImage(folder, OLD), [NEW]: await makeBootImage(folder, NEW) };
    accelerator = await findAccelerator(image(NEW).kernel);
    kernelArgs = ['quiet', 'console=ttyS0', ...acceleratorArgs(accelerator)];
  },
  { timeout: 300_000 },
);
after(() => rm(folder, { recursive: true, force: true }));

const image = (buildId: string): BuiltImage => images[buildId] ?? assert.fail(buildId);

const openLabOf = (into: string): Promise<Lab> =>
  openLab({ httpFolder: into, tftpFolder: into, bootConfig: join(into, DNSMASQ_CONF) });

/** Boots a guest until its init runs. @returns the kernel command line */
async function boot(
  name: string,
  buildId: string,
  options: Pick<GuestOptions, 'firmware'> & Partial<GuestOptions>,
): Promise<string> {
  await using guest = await Guest.start({
    name,
    accelerator,
    memoryMiB: 512,
    cpus: 1,
    folder: join(folder, name),
    ...options,
  });
  const { line, atMs } = await guest.waitForLine(bootedLine(buildId), { timeoutMs: BOOT_MS });
  process.stdout.write(`${name}: ${((atMs - guest.startedAtMs) / 1000).toFixed(1)} s\n`);
  return line;
}

/** The files that were read to the end, each once. */
function filesRead(lab: Lab, by: 'tftp' | 'http'): string[] {
  const names = lab.log.events.flatMap((event) => {
    if (event.source === 'tftp') return by === 'tftp' && event.result === 'done' ? [event.name] : [];
    return event.source === 'http' && by === 'http' && event.complete && event.status < 300
      ? [event.path.slice(1)]
      : [];
  });
  return [...new Set(names)].toSorted();
}

// Two at a time, the longest first.
describe('a published folder boots', { concurrency: 2, timeout: 600_000 }, () => {
  test('with PXELINUX on BIOS over HTTP, and with GRUB on UEFI; rolled back, its older version', async () => {
    const into = join(folder, 'www-linux');
    const settings = { into, url: URL_OF_LAB, kernelArgs, loaders: { bios: 'pxelinux', uefi: 'grub' } } as const;
    await publishImage({ ...settings, image: image(OLD) });
    // For the one host of the lab: PXELINUX and GRUB each have to find out that they run on it.
    await publishImage({ ...settings, image: image(NEW), hosts: { [labPort(1).mac]: { hostname: 'a b' } } });
    await using lab = await openLabOf(into);

    const args = await boot('bios-lpxelinux', NEW, { firmware: 'bios', network: lab.network() });
    assert.match(
      args,
      / panic=10 quiet .*buildos\.buildid_url=http:\/\/10\.77\.0\.1\/current\/.* buildos\.hostname="a b"/,
    );
    const files = ['buildos-image', 'buildos-initrd'].map((name) => `versions/${NEW}/${name}`);
    assert.deepEqual(filesRead(lab, 'http'), files);
    assert.deepEqual(filesRead(lab, 'tftp'), ['ldlinux.c32', 'lpxelinux.0', 'pxelinux.cfg/01-52-54-00-77-00-01']);

    await rollBack(into);
    const older = await boot('uefi-grub', OLD, { firmware: 'uefi', network: lab.network() });
    assert.match(
      older,
      / buildos\.buildid_url=http:.* "buildos\.hostname=a b"/,
      'the kernel takes both forms of quoting',
    );
    assert.ok(filesRead(lab, 'http').includes(`versions/${OLD}/buildos-initrd`));
    assert.ok(!filesRead(lab, 'tftp').some((name) => name.includes(OLD)));
  });

  test('from its ISO image: a CD or a USB stick, BIOS or UEFI', async () => {
    const into = join(folder, 'www-iso');
    await publishImage({ into, image: image(NEW), url: URL_OF_LAB, kernelArgs, iso: { stub: STUB } });
    for (const firmware of ['bios', 'uefi'] as const) {
      for (const attach of ['cdrom', 'usb'] as const) {
        const disks = [{ file: join(into, 'buildos.iso'), format: 'raw', snapshot: true, attach } as const];
        const args = await boot(`${firmware}-${attach}`, NEW, { firmware, disks });
        assert.match(args, / panic=10 quiet /);
        assert.doesNotMatch(args, /buildid_url/, 'a stick that is replaced by hand watches nothing');
      }
    }
  });

  test('by UEFI firmware over HTTP, without DHCP knowing of TFTP', async () => {
    const into = join(folder, 'www-uki');
    const loaders = { bios: 'ipxe', uefi: 'uki' } as const;
    await publishImage({ into, image: image(NEW), url: URL_OF_LAB, kernelArgs, loaders, uki: { stub: STUB } });
    await using lab = await openLabOf(into);
    await boot('uefi-http', NEW, { firmware: 'uefi', network: lab.network(), httpBoot: true });
    assert.deepEqual(filesRead(lab, 'http'), ['buildos.efi']);
    assert.deepEqual(filesRead(lab, 'tftp'), []);
  });

  test('with PXELINUX on BIOS over TFTP alone', async () => {
    const into = join(folder, 'www-tftp');
    await publishImage({ into, image: image(NEW), kernelArgs, loaders: { bios: 'pxelinux', uefi: 'ipxe' } });
    await using lab = await openLabOf(into);
    await boot('bios-pxelinux', NEW, { firmware: 'bios', network: lab.network() });
    assert.deepEqual(filesRead(lab, 'http'), []);
    assert.ok(filesRead(lab, 'tftp').includes(`versions/${NEW}/buildos-initrd`));
  });
});
