/** Mounts, as /etc/fstab has them. */
import { z } from 'zod';
import { arg, textThat } from './args.ts';
import { type FstabEntry, deviceAt, hasEntry, withEntry, withoutEntry } from './_fstab.ts';
import { describeTextChange, keepAttributes, rewrite } from './_file-change.ts';
import { PATH } from './file.ts';
import type { KernelClass } from './kernel-classes.ts';
import { type HostReader, type PropertyApplication, InapplicablePropertyError, defineProperty } from './property.ts';

/** What is mounted, and how. */
export type MountOptions = {
  /** `LABEL=srv`, `UUID=…`, `/dev/…`, `tmpfs`, `server:/path`. */
  readonly device: string;
  /** Type of the file system; default `auto`. */
  readonly type?: string;
  /** Such as `noatime`, `nofail`; default `defaults`. */
  readonly options?: readonly string[];
  /** When it is checked at boot (fsck(8)): 0 never, 1 the root, 2 others; default 0. */
  readonly pass?: 0 | 1 | 2;
};

/** The schema of a field of fstab. */
export const FSTAB_FIELD: z.ZodType<string> = textThat((field) => /^[^\s#][^\s]*$/.test(field), 'without blanks');

/** The file. */
export const FSTAB = '/etc/fstab';

const OPTIONS: z.ZodType<MountOptions> = z.strictObject({
  device: FSTAB_FIELD,
  type: textThat((type) => /^[a-z0-9._-]+$/.test(type), 'a type of file systems').exactOptional(),
  options: z
    .array(textThat((option) => /^[^\s,#]+$/.test(option), 'one option, without blanks and ","'))
    .exactOptional(),
  pass: z.union([z.literal(0), z.literal(1), z.literal(2)]).exactOptional(),
});

/** Something is mounted: at each boot, and on a live host now. Unapplied: it is unmounted, its mount point stays. */
export const at: (where: string, mount: MountOptions) => PropertyApplication = defineProperty<
  [where: string, mount: MountOptions]
>({
  id: 'mount.at',
  kind: 'posix',
  about:
    'A file system is mounted at each boot, by /etc/fstab, and now on a live host (unless its options say noauto). The mount ' +
    'point is made. An image carries the kernel modules for it. Unapplied: it is unmounted, the mount point stays.',
  example: ['/srv', { device: 'LABEL=srv', type: 'ext4', options: ['noatime', 'nofail'], pass: 2 }],
  args: [
    arg('where', PATH, 'the mount point'),
    arg('mount', OPTIONS, 'what, its type, options, and when it is checked'),
  ],
  describe: (where, { device }) => `${device} is mounted at ${where}`,
  manages: (where) => [`mount ${where}`],
  hostattrs: (known, where, mount) => {
    const { device } = mount;
    const clash = known.mounts.find((other) => other.where === where && other.device !== device);
    if (clash !== undefined)
      throw new InapplicablePropertyError(`"${known.name}" mounts "${clash.device}" and "${device}" at ${where}`);
    return { mounts: [{ where, device }], files: [FSTAB], kernelClasses: classesFor(mount) };
  },
  facts: (where) => [
    { fact: 'file', path: FSTAB },
    { fact: 'text', path: FSTAB },
    { fact: 'file', path: where },
  ],
  check: async (host, where, mount) =>
    hasEntry(host.facts.text(FSTAB) ?? '', entryOf(where, mount)) &&
    host.facts.file(where)?.type === 'directory' &&
    (!(await isDueNow(host, mount)) || (await isMounted(host, where))),
  plan: async (host, where, mount) => [
    ...(await describeTextChange(
      host,
      FSTAB,
      withEntry(host.facts.text(FSTAB) ?? '', entryOf(where, mount)),
      keepAttributes(host.facts.file(FSTAB)),
    )),
    ...((await isDueNow(host, mount)) && !(await isMounted(host, where)) ? [`mount ${where}`] : []),
  ],
  apply: async (host, where, mount) => {
    const old = host.facts.text(FSTAB) ?? '';
    const text = withEntry(old, entryOf(where, mount));
    const before = deviceAt(old, where);
    let mounted = (await host.isLive()) && (await isMounted(host, where));
    if (text !== old) {
      // First, since it may be busy: what is written down would hide from the next run that something else is mounted.
      if (mounted && before !== undefined && before !== mount.device) {
        await host.run(['umount', '--', where]);
        mounted = false;
      }
      await rewrite(host, FSTAB, text);
      if (await host.isLive()) await host.run(['systemctl', 'daemon-reload']);
      if (mounted && before !== undefined) await host.run(['mount', '-o', 'remount', '--', where]);
    }
    await host.run(['mkdir', '-p', '--', where]);
    if (!mounted && (await isDueNow(host, mount))) await host.run(['mount', '--', where]);
  },
  checkUnapplied: async (host, where, mount) => {
    const old = host.facts.text(FSTAB) ?? '';
    return (
      withoutEntry(old, entryOf(where, mount)) === old && !((await host.isLive()) && (await isMounted(host, where)))
    );
  },
  unapply: async (host, where, mount) => {
    if ((await host.isLive()) && (await isMounted(host, where))) await host.run(['umount', '--', where]);
    await rewrite(host, FSTAB, withoutEntry(host.facts.text(FSTAB) ?? '', entryOf(where, mount)));
    if (await host.isLive()) await host.run(['systemctl', 'daemon-reload']);
  },
});

/** What a kernel needs for it; of file systems in RAM nothing. */
function classesFor({ device, type = 'auto' }: MountOptions): readonly KernelClass[] {
  if (/^(nfs4?|cifs|smb3|9p)$/.test(type)) return ['network-filesystems'];
  if (/^\/dev\/(mapper|md)/.test(device)) return ['filesystems', 'volumes'];
  return /^(\/|(PART)?(LABEL|UUID)=)/.test(device) ? ['filesystems'] : [];
}

const entryOf = (where: string, { device, type = 'auto', options = [], pass = 0 }: MountOptions): FstabEntry => ({
  device,
  where,
  type,
  options,
  pass,
});

const isDueNow = async (host: HostReader, { options = [] }: MountOptions): Promise<boolean> =>
  !options.includes('noauto') && (await host.isLive());

const isMounted = async (host: HostReader, where: string): Promise<boolean> =>
  (await host.run(['mountpoint', '--quiet', where], { okStatus: 'any' })).status === 0;
