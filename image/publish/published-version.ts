/** A version in a published folder: `versions/<build id>/`. It is there complete or not at all. */
import { copyFile, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type ImageManifest, parseImageManifest } from '../../manifests/image-manifest.ts';
import { ManifestError } from '../../manifests/manifest.ts';
import { type MinisignSecretKey, signMinisign } from '../../manifests/minisign.ts';
import { formatSha256Sums, parseSha256Sums } from '../../manifests/sha256sums.ts';
import { replaceFile, sha256Of, syncPath } from '../files.ts';
import { type BuiltImage, DamagedImageError } from '../built-image.ts';
import { formatSbom } from './sbom.ts';
import { CONTENTS_JSON } from '../trace.ts';

/** The published names (spec of the build host, "Published files"). */
export const PUBLISHED = {
  kernel: 'buildos-image',
  initrd: 'buildos-initrd',
  manifest: 'buildos-manifest.json',
  sbom: 'buildos-sbom.spdx.json',
  buildId: 'buildos-buildid',
  sums: 'SHA256SUMS',
} as const;

const SIGNATURE = `${PUBLISHED.sums}.minisig`;

/** How many versions stay beside the newest, unless told. */
export const VERSIONS_KEPT = 3;

/** What a publishing that was killed has left, beside the place that it was for. */
const LEFT_OVER = /(\.part-\d+(\.parts|\.unsigned)?|^\.loaders-[A-Za-z0-9]{6})$/;

/** Writes a whole version beside its place and renames it there: it exists complete or not at all. */
export async function writeVersion(image: BuiltImage, folder: string): Promise<void> {
  const temporary = `${folder}.part-${process.pid}`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
  try {
    await copyFile(image.kernel, join(temporary, PUBLISHED.kernel));
    await copyFile(image.initrd, join(temporary, PUBLISHED.initrd));
    await copyFile(image.manifest, join(temporary, PUBLISHED.manifest));
    await writeFile(join(temporary, PUBLISHED.buildId), `${image.buildId}\n`);
    const manifest = await readManifest(image);
    await writeFile(join(temporary, PUBLISHED.sbom), formatSbom(manifest, new Date()));
    // For "image diff" and "image explain"; an image of an older version of ours has none.
    const contents = join(image.folder, CONTENTS_JSON);
    const hasContents = await isFile(contents);
    if (hasContents) await copyFile(contents, join(temporary, CONTENTS_JSON));
    const { kernel, initrd, manifest: manifestName, sbom, buildId } = PUBLISHED;
    const names = [kernel, initrd, manifestName, sbom, buildId, ...(hasContents ? [CONTENTS_JSON] : [])];
    const sums: { path: string; sha256: string }[] = [];
    for (const name of names) sums.push({ path: name, sha256: await sha256Of(join(temporary, name)) });
    checkSums(image, manifest, sums);
    await writeFile(join(temporary, PUBLISHED.sums), formatSha256Sums(sums));
    for (const name of [...names, PUBLISHED.sums]) await syncPath(join(temporary, name));
    await syncPath(temporary);
    await rm(folder, { recursive: true, force: true });
    await rename(temporary, folder);
    await syncPath(dirname(folder));
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

async function readManifest(image: BuiltImage): Promise<ImageManifest> {
  try {
    return parseImageManifest(await readFile(image.manifest, 'utf8'), { name: image.manifest });
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    throw new DamagedImageError(image.folder, PUBLISHED.manifest, error.reason);
  }
}

/** What was copied is what was built: its manifest has the digests, and these are known by now. */
function checkSums(
  image: BuiltImage,
  manifest: ImageManifest,
  sums: readonly { readonly path: string; readonly sha256: string }[],
): void {
  for (const { path, sha256 } of manifest.files) {
    const found = sums.find((each) => each.path === path)?.sha256;
    if (found === sha256) continue;
    throw new DamagedImageError(
      image.folder,
      path,
      `its SHA-256 is ${found ?? 'unknown'}, its manifest says ${sha256}`,
    );
  }
  if (manifest.buildId === image.buildId) return;
  throw new DamagedImageError(image.folder, PUBLISHED.manifest, `it is of the image ${manifest.buildId}`);
}

const isFile = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isFile() === true;

/** Signs the sums: hosts check them where they are told `buildos.buildid_trust`. Ed25519: the same key gives the same bytes. */
export async function signVersion(folder: string, buildId: string, key: MinisignSecretKey): Promise<void> {
  const sums = await readFile(join(folder, PUBLISHED.sums));
  await replaceFile(join(folder, SIGNATURE), signMinisign(sums, key, `Build OS ${buildId}`));
}

/** A version that is there is complete, since it was renamed into place; its sums are checked all the same. */
export async function isComplete(folder: string, buildId: string): Promise<boolean> {
  try {
    if ((await readFile(join(folder, PUBLISHED.buildId), 'utf8')).trim() !== buildId) return false;
    const sums = parseSha256Sums(await readFile(join(folder, PUBLISHED.sums), 'utf8'));
    for (const { path, sha256 } of sums) {
      if ((await sha256Of(join(folder, path))) !== sha256) return false;
    }
    return Object.values(PUBLISHED).every((name) => name === PUBLISHED.sums || sums.some(({ path }) => path === name));
  } catch {
    return false;
  }
}

/** Which versions go: all but the one in force and the newest few besides it. */
export async function planRemoval(
  folder: string,
  inForce: string,
  keep: { readonly count: number; readonly olderThanMs: number },
): Promise<readonly string[]> {
  const names = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const dated: { name: string; time: number }[] = [];
  for (const { name } of names) {
    if (name === inForce || LEFT_OVER.test(name)) continue;
    await using handle = await open(join(folder, name));
    dated.push({ name, time: (await handle.stat()).mtimeMs });
  }
  dated.sort((a, b) => b.time - a.time);
  const old = Date.now() - keep.olderThanMs;
  return dated
    .slice(keep.count)
    .filter(({ time }) => time <= old)
    .map(({ name }) => name);
}

/** Finds what publishings that were killed have left in a published folder. Nobody may be publishing. */
export async function findLeftOver(into: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const folder of ['', 'versions', 'dhcp', 'hosts', 'grub', 'pxelinux.cfg']) {
    const names = await readdir(join(into, folder)).catch(() => []);
    found.push(...names.filter((name) => LEFT_OVER.test(name)).map((name) => join(into, folder, name)));
  }
  return found;
}

/** Takes a folder away at once; what is left of it when we are killed is nobody's version. */
export async function removeWhole(path: string): Promise<void> {
  const away = path.includes('.part-') ? path : `${path}.part-${process.pid}`;
  if (away !== path) await rename(path, away);
  await rm(away, { recursive: true, force: true });
}
