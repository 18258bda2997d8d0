/** Folders that a user names, for caches, images and publications: made, tried, and told clearly when they will not do. */
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  open,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';

/** A folder cannot be made, or cannot be worked in. */
export class FolderError extends Error {
  override readonly name = 'FolderError';
  readonly hint: string;

  constructor(path: string, purpose: string, { reason, hint, cause }: Trouble & { readonly cause?: unknown }) {
    super(`Cannot use the folder ${path} for ${purpose}: ${reason}`, { cause });
    this.hint = hint;
  }
}

/** What is wrong, and what to try. */
interface Trouble {
  readonly reason: string;
  readonly hint: string;
}

/**
 * Makes a folder, with those above it, and tries whether files can be kept there: written, dated, renamed, read again.
 *
 * @param purpose - `caches and images`
 * @param option - what names it: `--work`
 * @throws {FolderError}
 */
export async function makeFolder(path: string, purpose: string, option: string): Promise<void> {
  const folder = resolve(path);
  try {
    await makeFolders(folder);
    await tryOut(folder);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    const trouble = await explain(folder, code, option);
    if (trouble === undefined) throw error;
    throw new FolderError(path, purpose, { ...trouble, cause: error });
  }
}

/** Makes a folder, with those above it. Step by step: where there can be no folders, as in /proc, Node's own recursive mkdir tries for ever. */
export async function makeFolders(folder: string): Promise<void> {
  const missing: string[] = [];
  for (let at = folder; ; at = dirname(at)) {
    const info = await stat(at).catch((error: unknown) => {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (info !== undefined && !info.isDirectory())
      throw Object.assign(new Error(`${at} is a file`), { code: 'ENOTDIR' });
    if (info !== undefined) break;
    missing.push(at);
  }
  for (const at of missing.toReversed()) {
    await mkdir(at).catch((error: unknown) => {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    });
  }
}

async function tryOut(folder: string): Promise<void> {
  const scratch = await mkdtemp(join(folder, '.try-'));
  try {
    const [file, after] = [join(scratch, 'a'), join(scratch, 'b')];
    await writeFile(file, folder, { mode: 0o600 });
    await utimes(file, new Date(), new Date());
    await rename(file, after);
    for (const path of [after, scratch]) {
      await using handle = await open(path);
      await handle.sync();
    }
    if ((await readFile(after, 'utf8')) !== folder)
      throw Object.assign(new Error('read back differs'), { code: 'EIO' });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** What an overlay cannot be written to (Documentation/filesystems/overlayfs.rst, "upper layer"). */
const NO_OVERLAY = new Set([
  '9p',
  'cifs',
  'exfat',
  'fuse',
  'fuseblk',
  'msdos',
  'nfs',
  'nfs4',
  'ntfs3',
  'overlay',
  'smb3',
  'vfat',
  'virtiofs',
]);

/**
 * Sees to it that a root can be unpacked in a folder that is there: files keep owner, mode and links, and an overlay may be
 * put over it.
 *
 * @throws {FolderError}
 */
export async function checkUnpackable(folder: string): Promise<void> {
  const place = await fileSystemOf(folder);
  const on = place === undefined ? '' : ` (${place.type} on ${place.mount})`;
  const hint = 'ext4, btrfs and xfs can: give another one with --work; or have 4 GB of RAM free, and it is done there';
  const refuse = (reason: string, cause?: unknown): FolderError =>
    new FolderError(folder, 'unpacking packages', { reason: `${reason}${on}`, hint, cause });
  if (place !== undefined && NO_OVERLAY.has(place.type))
    throw refuse('its file system cannot be the top of an overlay');
  const scratch = await mkdtemp(join(folder, '.try-'));
  try {
    const [file, link] = [join(scratch, 'a'), join(scratch, 'b')];
    await writeFile(file, '');
    await chown(file, 4321, 4321);
    await chmod(file, 0o4755);
    await symlink('a', link);
    const { uid, mode } = await stat(link);
    if (uid !== 4321 || (mode & 0o7777) !== 0o4755) throw refuse('files do not keep their owner and mode there');
  } catch (cause) {
    if (cause instanceof FolderError) throw cause;
    throw refuse('files cannot have owner, mode and links there', cause);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function explain(folder: string, code: string, option: string): Promise<Trouble | undefined> {
  const place = await fileSystemOf(folder);
  const other = `give another one with ${option}`;
  const on = place === undefined ? '' : ` (${place.type} on ${place.mount})`;
  if (place?.type === 'proc' || place?.type === 'sysfs') {
    return { reason: `it is in ${place.mount}, which the kernel makes up; nothing can be kept there`, hint: other };
  }
  const reasons: Readonly<Record<string, Trouble>> = {
    ENOTDIR: { reason: 'it, or a part of its path, is a file', hint: `remove the file, or ${other}` },
    ENOENT: {
      reason: `a part of its path can neither be found nor made${on}`,
      hint: `is it a broken link? Else ${other}`,
    },
    ELOOP: { reason: 'its path is a circle of links', hint: other },
    ENAMETOOLONG: { reason: 'its name is too long', hint: other },
    EROFS: { reason: `it can only be read${on}`, hint: other },
    EACCES: { reason: `this user may not write there${on}`, hint: `run it as the owner or root, or ${other}` },
    EPERM: { reason: `this file system does not let us${on}`, hint: `an ordinary one of Linux will do: ${other}` },
    ENOSPC: { reason: `no space is left${on}`, hint: `make room: "df -h ${folder}"; or ${other}` },
    EDQUOT: { reason: `the quota is used up${on}`, hint: `make room: "quota"; or ${other}` },
    ENOTSUP: {
      reason: `this file system cannot do what is needed${on}`,
      hint: `ext4, btrfs, xfs and tmpfs can: ${other}`,
    },
    EINVAL: {
      reason: `this file system cannot do what is needed${on}`,
      hint: `ext4, btrfs, xfs and tmpfs can: ${other}`,
    },
    EIO: { reason: `what is written there is not read back${on}`, hint: `look at "dmesg"; or ${other}` },
    ESTALE: { reason: `its server has forgotten it${on}`, hint: `mount it again, or ${other}` },
  };
  return reasons[code];
}

/** The mount that a path is on, or would be (proc_pid_mountinfo(5)). */
async function fileSystemOf(path: string): Promise<{ readonly type: string; readonly mount: string } | undefined> {
  const text = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  let best: { readonly type: string; readonly mount: string } | undefined;
  for (const line of text.split('\n')) {
    const [, , , , at] = line.split(' ');
    const type = line.split(' - ')[1]?.split(' ')[0];
    if (at === undefined || type === undefined) continue;
    const mount = at.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    const holds = path === mount || path.startsWith(mount === '/' ? '/' : `${mount}/`);
    // The last of those that are mounted on the same place counts.
    if (holds && mount.length >= (best?.mount.length ?? 0)) best = { type, mount };
  }
  return best;
}
