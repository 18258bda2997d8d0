/**
 * What a .deb unpacks to, in a form that is quick to put into a root: kept beside it in the cache.
 *
 * ```
 *   <cache>/debs/<sha256>.deb                 as it was fetched: unpacking its xz is most of the work
 *   <cache>/debs/<sha256>.<form>.unpacked     two parts: index (JSON), files (tar, zstd -1)
 *                                             before each its length and its SHA-256
 * ```
 *
 * The tar has what a root gets: the package's files without documentation, and its part of dpkg's database. Tars without
 * their ends can be put one after another, so that one `tar` unpacks many packages. `<form>` is the digest of the code
 * that makes it. A file that is missing, cut or altered is made again from the .deb.
 */
import { hash } from 'node:crypto';
import { open, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { z } from 'zod';
import type { Connection } from '../connections/connection.ts';
import { isDiskFull } from './disk-full.ts';
import { EPOCH_SECONDS } from './epoch.ts';
import { partSuffix } from './store.ts';
import { readTar, tarFile, type TarMember } from './tar-members.ts';

/** What there is to know of a package besides its files. */
export interface PackageIndex {
  /** The control file, without an end of line at its end. */
  readonly control: string;
  /** As dpkg names the files of its database: `libc6:amd64` when several architectures can be there at once. */
  readonly id: string;
  readonly triggers: string;
  readonly hasPreinst: boolean;
  /** Whether its preinst moves files of others away: then dpkg has to unpack it, and there is no tar. */
  readonly diverts: boolean;
  /** With the MD5 of each that is a file of the package. */
  readonly conffiles: readonly { readonly path: string; readonly md5?: string | undefined }[];
  readonly members: readonly PackageMember[];
  /** Bytes of the tar. */
  readonly tarBytes: number;
}

/** A file of a package, as dpkg lists it. */
export interface PackageMember {
  /** From the root, without a slash at either end; empty for the root itself. */
  readonly path: string;
  readonly directory: boolean;
  /** `755 0:0`: mode, owner and group. */
  readonly attributes: string;
  /** Not in the root: documentation. */
  readonly leftOut: boolean;
}

const member = z.object({ path: z.string(), directory: z.boolean(), attributes: z.string(), leftOut: z.boolean() });

const schema: z.ZodType<PackageIndex> = z.object({
  control: z.string(),
  id: z.string(),
  triggers: z.string(),
  hasPreinst: z.boolean(),
  diverts: z.boolean(),
  conffiles: z.array(z.object({ path: z.string(), md5: z.string().optional() })),
  members: z.array(member),
  tarBytes: z.int(),
});

/** A package, ready to be unpacked. */
export interface UnpackedPackage {
  readonly index: PackageIndex;
  /** Its files; no end of archive. */
  readonly readTar: () => Promise<Uint8Array>;
}

const SUFFIX = '.unpacked';

/** Before each part: its length, 4 bytes, and its digest. */
const HEAD_BYTES = 4 + 32;

/** What is kept besides the packages of the last root. */
const KEPT_BYTES = 2 ** 30;

/**
 * Reads what a package unpacks to, or unpacks it and keeps that.
 *
 * @param deb - `<sha256>.deb`; its content was checked
 * @param form - digest of the code that unpacks
 * @throws {CommandError} when it is no Debian package
 */
export async function openPackage(
  on: Connection,
  deb: string,
  options: { readonly form: string; readonly signal?: AbortSignal },
): Promise<UnpackedPackage> {
  const file = join(dirname(deb), `${basename(deb, '.deb')}.${options.form}${SUFFIX}`);
  const make = async (): Promise<Unpacked> => {
    const made = await unpack(on, deb, options.signal);
    await keep(file, made);
    return made;
  };
  const kept = await readIndex(file);
  if (kept === undefined) {
    const { index, tar } = await make();
    return { index, readTar: async () => (await readTarOf(file, index)) ?? tar };
  }
  return { index: kept, readTar: async () => (await readTarOf(file, kept)) ?? (await make()).tar };
}

interface Unpacked {
  readonly index: PackageIndex;
  readonly tar: Uint8Array;
}

/** @returns undefined when it is not there, or not as it was written */
async function readIndex(file: string): Promise<PackageIndex | undefined> {
  const part = await readPart(file, 0);
  if (part === undefined) return undefined;
  await utimes(file, new Date(), new Date()).catch(() => undefined);
  return schema.parse(JSON.parse(part.content.toString('utf8')));
}

async function readTarOf(file: string, index: PackageIndex): Promise<Uint8Array | undefined> {
  const first = await readPart(file, 0);
  const second = first && (await readPart(file, first.end));
  if (second === undefined) return undefined;
  return await promisify(zstdDecompress)(second.content, { chunkSize: Math.max(index.tarBytes, 64) });
}

async function readPart(
  file: string,
  at: number,
): Promise<{ readonly content: Buffer; readonly end: number } | undefined> {
  try {
    await using handle = await open(file);
    const head = Buffer.alloc(HEAD_BYTES);
    await handle.read(head, 0, HEAD_BYTES, at);
    const length = head.readUInt32BE(0);
    if (at + HEAD_BYTES + length > (await handle.stat()).size) return undefined;
    const content = Buffer.allocUnsafe(length);
    await handle.read(content, 0, length, at + HEAD_BYTES);
    if (hash('sha256', content, 'hex') !== head.toString('hex', 4)) return undefined;
    return { content, end: at + HEAD_BYTES + length };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Without room there is nothing to keep: then the next root takes longer. Not synced: the digests tell. */
async function keep(file: string, { index, tar }: Unpacked): Promise<void> {
  const params = { [constants.ZSTD_c_compressionLevel]: 1 };
  const packed = await promisify(zstdCompress)(tar, { params, chunkSize: 2 ** 20 });
  const parts = [Buffer.from(JSON.stringify(index)), packed].flatMap((content) => {
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32BE(content.length);
    head.set(hash('sha256', content, 'buffer'), 4);
    return [head, content];
  });
  const part = `${file}${partSuffix()}`;
  try {
    await writeFile(part, Buffer.concat(parts));
    await rename(part, file);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
  } finally {
    await rm(part, { force: true });
  }
}

/** Removes what was used longest ago, and whatever other code has made, when there is more than enough. */
export async function removeOldPackages(folder: string, options: { readonly sinceMs: number }): Promise<void> {
  const old: { file: string; sizeBytes: number; timeMs: number }[] = [];
  for (const name of await readdir(folder)) {
    if (!name.endsWith(SUFFIX)) continue;
    const file = join(folder, name);
    const found = await stat(file).catch(() => undefined);
    if (found && found.mtimeMs < options.sinceMs) old.push({ file, sizeBytes: found.size, timeMs: found.mtimeMs });
  }
  old.sort((a, b) => b.timeMs - a.timeMs);
  let sizeBytes = 0;
  for (const each of old) {
    sizeBytes += each.sizeBytes;
    if (sizeBytes > KEPT_BYTES) await rm(each.file, { force: true });
  }
}

async function unpack(on: Connection, deb: string, signal: AbortSignal | undefined): Promise<Unpacked> {
  const options = { timeoutMs: 300_000, maxOutputBytes: 2 ** 32, ...(signal && { signal }) };
  const [control, data] = await Promise.all([
    on.run(['dpkg-deb', '--ctrl-tarfile', deb], options),
    on.run(['dpkg-deb', '--fsys-tarfile', deb], options),
  ]);
  return toUnpacked(control.stdout, data.stdout);
}

/** Makes the form of the two archives of a .deb: control files, and files. */
function toUnpacked(controlTar: Uint8Array, dataTar: Uint8Array): Unpacked {
  const scripts = readTar(controlTar).filter(({ type }) => type === 'file');
  const textOf = (name: string): string => {
    const found = scripts.find(({ path }) => path === name);
    return found === undefined ? '' : Buffer.from(found.content).toString('utf8');
  };
  const control = textOf('control').trimEnd();
  const field = (name: string): string => new RegExp(`^${name}: *(.*?) *$`, 'm').exec(control)?.[1] ?? '';
  const id = field('Multi-Arch') === 'same' ? `${field('Package')}:${field('Architecture')}` : field('Package');
  const members = readTar(dataTar);
  const listed = members.filter(({ path }) => !UNLISTED.test(path));
  const preinst = textOf('preinst');
  const inRoot = new Set(wanted(members));
  const diverts = preinst.includes('dpkg-divert') && preinst.includes('--rename');
  const info = (name: string, content: Uint8Array): Uint8Array =>
    tarFile(`var/lib/dpkg/info/${id}.${name}`, content, {
      mode: /^(pre|post)(inst|rm)$|^config$/.test(name) ? 0o755 : 0o644,
      timeSeconds: EPOCH_SECONDS,
    });
  const list = listed.map(({ path }) => (path === '' ? '/.\n' : `/${path}\n`)).join('');
  const tar = diverts
    ? new Uint8Array()
    : Buffer.concat([
        ...[...inRoot].map(({ start, end }) => dataTar.subarray(start, end)),
        ...scripts.filter(({ path }) => path !== 'control').map(({ path, content }) => info(path, content)),
        info('list', Buffer.from(list)),
      ]);
  const index: PackageIndex = {
    control,
    id,
    triggers: textOf('triggers'),
    hasPreinst: scripts.some(({ path }) => path === 'preinst'),
    diverts,
    conffiles: textOf('conffiles')
      .split('\n')
      .filter((line) => line.startsWith('/'))
      .map((path) => ({ path, md5: md5Of(members, path) })),
    members: diverts ? [] : listed.map((each) => toMember(each, inRoot.has(each))),
    tarBytes: tar.length,
  };
  return { index, tar };
}

const toMember = ({ path, type, mode, uid, gid }: TarMember, isInRoot: boolean): PackageMember => ({
  path,
  directory: type === 'directory',
  attributes: `${mode.toString(8)} ${uid}:${gid}`,
  leftOut: !isInRoot,
});

/** Left out of dpkg's lists too: nothing that is looked for there. */
const UNLISTED = /^usr\/share\/(info|lintian|man)\/./;

/**
 * Documentation is left out, as dpkg is told to do later (host/root-options.ts). Links in /usr/share/doc stay: copyrights
 * are found through them.
 */
function isLeftOut({ path, type }: TarMember): boolean {
  if (UNLISTED.test(path)) return true;
  if (/^usr\/share\/locale\/./.test(path)) return path !== 'usr/share/locale/locale.alias';
  return (type === 'file' || type === 'hard link') && /^usr\/share\/doc\/(?!(.*\/)?copyright$)/.test(path);
}

/** The members that a root gets: no folder of documentation that would be empty, and what hard links lead to. */
function wanted(members: readonly TarMember[]): TarMember[] {
  const kept = members.filter((each) => !isLeftOut(each));
  const targets = new Set(kept.filter(({ type }) => type === 'hard link').map(({ target }) => target));
  const isFolderOfDocs = ({ path, type }: TarMember): boolean =>
    type === 'directory' && /^usr\/share\/doc\/./.test(path);
  const files = members.filter((each) => (!isLeftOut(each) && !isFolderOfDocs(each)) || targets.has(each.path));
  const folders = new Set<string>();
  for (const { path } of files) {
    for (let at = path.lastIndexOf('/'); at > 0; at = path.lastIndexOf('/', at - 1)) folders.add(path.slice(0, at));
  }
  const chosen = new Set(files);
  return members.filter((each) => chosen.has(each) || (isFolderOfDocs(each) && folders.has(each.path)));
}

function md5Of(members: readonly TarMember[], path: string): string | undefined {
  const name = path.slice(1);
  const found = members.find((each) => each.path === name);
  return found?.type === 'file' ? hash('md5', found.content) : undefined;
}
