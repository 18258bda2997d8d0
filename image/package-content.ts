/** What a root gets of a package: its files without documentation, and its part of dpkg's database, as one tar. */
import { hash } from 'node:crypto';
import { z } from 'zod';
import { EPOCH_SECONDS } from './epoch.ts';
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

/** An index as it was written. */
export const INDEX_SCHEMA: z.ZodType<PackageIndex> = z.object({
  control: z.string(),
  id: z.string(),
  triggers: z.string(),
  hasPreinst: z.boolean(),
  diverts: z.boolean(),
  conffiles: z.array(z.object({ path: z.string(), md5: z.string().optional() })),
  members: z.array(member),
  tarBytes: z.int(),
});

/** What the first archive of a .deb has. */
export interface ControlFiles {
  /** The control file, without an end of line at its end. */
  readonly control: string;
  /** All others: maintainer scripts, lists. */
  readonly others: ReadonlyMap<string, Buffer>;
}

/** Reads the archive of control files; nothing of it is used afterwards. */
export function readControlFiles(archive: Uint8Array): ControlFiles {
  const files = readTar(archive).filter(({ type }) => type === 'file');
  const others = new Map(files.map(({ path, content }) => [path, Buffer.from(content)]));
  const control = others.get('control')?.toString('utf8').trimEnd() ?? '';
  others.delete('control');
  return { control, others };
}

/** A package as it is unpacked: what there is to know of it, and its files. */
export interface PackageContent {
  readonly index: PackageIndex;
  /** No end of archive. */
  readonly tar: Uint8Array;
}

/** Makes it of the two archives of a .deb: control files, and files. Nothing of the archive is used afterwards. */
export function packageContent({ control, others }: ControlFiles, archive: Uint8Array): PackageContent {
  const textOf = (name: string): string => others.get(name)?.toString('utf8') ?? '';
  const field = (name: string): string => new RegExp(`^${name}: *(.*?) *$`, 'm').exec(control)?.[1] ?? '';
  const id = field('Multi-Arch') === 'same' ? `${field('Package')}:${field('Architecture')}` : field('Package');
  const members = readTar(archive);
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
        ...[...inRoot].map(({ start, end }) => archive.subarray(start, end)),
        ...[...others].map(([name, content]) => info(name, content)),
        info('list', Buffer.from(list)),
      ]);
  const index: PackageIndex = {
    control,
    id,
    triggers: textOf('triggers'),
    hasPreinst: others.has('preinst'),
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
