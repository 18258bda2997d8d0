/** Swap: a device or a file that is in /etc/fstab. */
import { z } from 'zod';
import { arg } from './args.ts';
import { type FstabEntry, hasEntry, withEntry, withoutEntry } from './_fstab.ts';
import { lines } from '../connections/connection.ts';
import { definePropertyList } from './combinators.ts';
import { describeTextChange, keepAttributes, removeFile, rewrite } from './_file-change.ts';
import { PATH } from './file.ts';
import { FSTAB, FSTAB_FIELD } from './mount.ts';
import { type HostReader, type PropertyApplication, defineProperty } from './property.ts';

/** Swap on a device or file: at each boot, and now on a host with a kernel of its own. Unapplied: it is off. */
export const on: (device: string) => PropertyApplication = defineProperty<[device: string]>({
  id: 'swap.on',
  kind: 'posix',
  about:
    'Swap on a device or file that mkswap(8) has prepared: at each boot, by /etc/fstab, and now on a host with a kernel of ' +
    'its own. Unapplied: it is off.',
  example: ['LABEL=swap'],
  args: [arg('device', FSTAB_FIELD, 'such as /dev/vdb, LABEL=swap, or the path of a file')],
  describe: (device) => `swap on ${device}`,
  manages: (device) => [`swap ${device}`],
  hostattrs: () => ({ files: [FSTAB] }),
  facts: () => [
    { fact: 'file', path: FSTAB },
    { fact: 'text', path: FSTAB },
  ],
  check: async (host, device) =>
    hasEntry(host.facts.text(FSTAB) ?? '', entryOf(device)) && (!(await hasKernel(host)) || (await isOn(host, device))),
  plan: async (host, device) => [
    ...(await describeTextChange(
      host,
      FSTAB,
      withEntry(host.facts.text(FSTAB) ?? '', entryOf(device)),
      keepAttributes(host.facts.file(FSTAB)),
    )),
    ...((await hasKernel(host)) && !(await isOn(host, device)) ? [`swapon ${device}`] : []),
  ],
  apply: async (host, device) => {
    const old = host.facts.text(FSTAB) ?? '';
    const text = withEntry(old, entryOf(device));
    if (text !== old) await rewrite(host, FSTAB, text);
    if (await host.isLive()) await host.run(['systemctl', 'daemon-reload']);
    if ((await hasKernel(host)) && !(await isOn(host, device))) await host.run(['swapon', '--', device]);
  },
  checkUnapplied: async (host, device) => {
    const old = host.facts.text(FSTAB) ?? '';
    return withoutEntry(old, entryOf(device)) === old && !((await hasKernel(host)) && (await isOn(host, device)));
  },
  unapply: async (host, device) => {
    if ((await hasKernel(host)) && (await isOn(host, device))) await host.run(['swapoff', '--', device]);
    await rewrite(host, FSTAB, withoutEntry(host.facts.text(FSTAB) ?? '', entryOf(device)));
    if (await host.isLive()) await host.run(['systemctl', 'daemon-reload']);
  },
});

/** A swap file of a size, and swap on it; an image that is being built gets none. Unapplied: both go away. */
export const file: (path: string, sizeMiB: number) => PropertyApplication = definePropertyList<
  [path: string, sizeMiB: number]
>({
  id: 'swap.file',
  about:
    'A swap file of a size, and swap on it. Inside of an image or container there is the line in /etc/fstab only, and no file. ' +
    'Unapplied: both go away.',
  example: ['/swapfile', 2048],
  args: [arg('path', PATH, 'absolute path'), arg('sizeMiB', z.int().min(1), 'its size')],
  describe: (path, sizeMiB) => `a swap file ${path} of ${sizeMiB} MiB`,
  properties: (path, sizeMiB) => [prepared(path, sizeMiB), on(path)],
});

/** A file is there that swap can be on. Inside of an image or container nothing happens. Unapplied: it goes away. */
export const prepared: (path: string, sizeMiB: number) => PropertyApplication = defineProperty<
  [path: string, sizeMiB: number]
>({
  id: 'swap.prepared',
  kind: 'posix',
  touches: 'own-files',
  about:
    'A file is there that swap can be on; only root may read it. Inside of an image or container nothing happens. Unapplied: it ' +
    'goes away. See swap.file(), which also has swap on it.',
  example: ['/swapfile', 2048],
  args: [arg('path', PATH, 'absolute path'), arg('sizeMiB', z.int().min(1), 'its size')],
  manages: (path) => [`file ${path}`],
  describe: (path, sizeMiB) => `${path} is a file of ${sizeMiB} MiB for swap`,
  facts: (path) => [{ fact: 'file', path }],
  check: async (host, path, sizeMiB) => {
    const found = host.facts.file(path);
    return (await host.isContained()) || (found?.type === 'file' && found.sizeBytes === sizeMiB * 1024 ** 2);
  },
  apply: async (host, path, sizeMiB) => void (await host.run(['sh', '-c', PREPARE, 'swap', path, String(sizeMiB)])),
  checkUnapplied: ({ facts }, path) => facts.file(path) === undefined,
  unapply: async (host, path) => await removeFile(host, path),
});

/** `swap PATH MEBIBYTES`. A file with holes cannot be swapped to, so it is written whole. */
const PREPARE = `
set -e
umask 077
swapoff -- "$1" 2>/dev/null || :
rm -f -- "$1" "$1.part"
trap 'rm -f -- "$1.part"' EXIT
dd if=/dev/zero of="$1.part" bs=1M count="$2" status=none
mkswap --quiet -- "$1.part"
mv -fT -- "$1.part" "$1"
`;

const entryOf = (device: string): FstabEntry => ({ device, where: 'none', type: 'swap', options: ['sw'], pass: 0 });

/** Swap is the kernel's: containers have none of their own. */
const hasKernel = async (host: HostReader): Promise<boolean> => (await host.isLive()) && !(await host.isContained());

async function isOn(host: HostReader, device: string): Promise<boolean> {
  const found = await host.run(['findfs', device], { okStatus: 'any' });
  const path = found.status === 0 ? (lines(found)[0] ?? device) : device;
  return lines(await host.run(['swapon', '--show=NAME', '--noheadings', '--raw'])).includes(path);
}
