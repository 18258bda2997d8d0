/**
 * Boot loaders: the programs that firmware is sent, beside the configurations that they read. They come from Debian packages
 * (cli/setup.ts) and are put at the top of the published folder.
 *
 * | firmware | loader     | file                                 | kernel and initrd come over           |
 * |----------|------------|--------------------------------------|---------------------------------------|
 * | BIOS     | `ipxe`     | `undionly.kpxe`                      | HTTP; TFTP without a URL              |
 * | BIOS     | `pxelinux` | `lpxelinux.0`, `ldlinux.c32`         | HTTP                                  |
 * | BIOS     | `pxelinux` | `pxelinux.0`, `ldlinux.c32`          | TFTP: where there is no URL           |
 * | UEFI     | `ipxe`     | `snponly.efi`                        | HTTP; TFTP without a URL              |
 * | UEFI     | `grub`     | `grubx64.efi`                        | HTTP; TFTP without a URL              |
 * | UEFI     | `uki`      | `buildos.efi`                        | as the firmware was told of it itself |
 *
 * Debian's own network GRUB (`grubnetx64.efi`) has no HTTP in Debian 12, so one is made that has.
 */
import { copyFile, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Connection } from '../../connections/connection.ts';
import { BOOT_FILES, type BootFiles } from '../../host/dnsmasq.ts';
import { makeGrubImage } from '../../host/grub.ts';

/** Which loader each kind of firmware gets. */
export interface BootLoaders {
  readonly bios: (typeof BIOS_LOADERS)[number];
  readonly uefi: (typeof UEFI_LOADERS)[number];
}

export const BIOS_LOADERS = ['ipxe', 'pxelinux'] as const;
export const UEFI_LOADERS = ['ipxe', 'grub', 'uki'] as const;

/** The unified kernel image: what UEFI firmware can be told to boot. */
export const UKI = 'buildos.efi';

const IPXE = '/usr/lib/ipxe';
const PXELINUX = '/usr/lib/PXELINUX';
const LDLINUX = '/usr/lib/syslinux/modules/bios/ldlinux.c32';
const GRUB = 'grubx64.efi';

/** What the network, our configuration and its second try take; `all_video`: without it Linux has no screen. */
const GRUB_MODULES = 'efinet tftp http linux all_video normal configfile test sleep reboot'.split(' ');
/** `cmdpath` is where GRUB was loaded from: `(tftp,192.0.2.1)/`. */
const GRUB_CONFIG = 'configfile $cmdpath/grub.cfg\n';

/** Whether PXELINUX reads kernel and initrd over HTTP; only `lpxelinux.0` can. */
export function usesLpxelinux(loaders: BootLoaders | undefined, url: string | undefined): boolean {
  return loaders?.bios === 'pxelinux' && url?.startsWith('http:') === true;
}

/** What DHCP tells firmware and iPXE to fetch. @param url - of the published folder, without a slash at the end */
export function findBootFiles(loaders: BootLoaders, url: string | undefined): BootFiles {
  const bios = {
    ipxe: BOOT_FILES.bios,
    pxelinux: usesLpxelinux(loaders, url) ? 'lpxelinux.0' : 'pxelinux.0',
  }[loaders.bios];
  const uefi = { ipxe: BOOT_FILES.uefi, grub: GRUB, uki: UKI }[loaders.uefi];
  return {
    // Over HTTP, a host that boots over HTTP needs no TFTP at all.
    ipxe: url === undefined ? BOOT_FILES.ipxe : `${url}/${BOOT_FILES.ipxe}`,
    bios,
    uefi,
    ...(url !== undefined && { http: `${url}/${uefi}` }),
    withoutIpxe: [
      ...(loaders.bios === 'ipxe' ? [] : (['bios'] as const)),
      ...(loaders.uefi === 'ipxe' ? [] : (['uefi'] as const)),
    ],
  };
}

/**
 * Puts the loaders' programs into the published folder, each whole; but for the unified kernel image, which is made elsewhere.
 *
 * @returns their names
 */
export async function writeLoaders(
  on: Connection,
  into: string,
  what: { readonly loaders: BootLoaders; readonly url: string | undefined },
): Promise<string[]> {
  const { bios, uefi } = findBootFiles(what.loaders, what.url);
  const copies = [
    ...(what.loaders.bios === 'ipxe' ? [join(IPXE, bios)] : [join(PXELINUX, bios), LDLINUX]),
    ...(what.loaders.uefi === 'ipxe' ? [join(IPXE, uefi)] : []),
  ];
  const scratch = await mkdtemp(join(into, '.loaders-'));
  try {
    for (const file of copies) await copyFile(file, join(scratch, basename(file)));
    if (what.loaders.uefi === 'grub') {
      const config = join(scratch, 'grub-first.cfg');
      await writeFile(config, GRUB_CONFIG);
      await makeGrubImage(on, { platform: 'x86_64-efi', modules: GRUB_MODULES, config, output: join(scratch, GRUB) });
    }
    const names = [...copies.map((file) => basename(file)), ...(what.loaders.uefi === 'grub' ? [GRUB] : [])];
    for (const name of names) await rename(join(scratch, name), join(into, name));
    return names;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
