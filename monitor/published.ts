/**
 * Whether what a reboot would get is published whole (spec: host, Monitor 3, "published and bootable").
 *
 * The files beside the build id are fetched as the boot would fetch them, and must all belong to one id:
 *
 *     buildos-buildid  ─┐
 *     buildos-image     ├─ digests as in SHA256SUMS      buildos-manifest.json says the same build id
 *     buildos-initrd   ─┘                                and the same digests
 *
 * A publisher switches all of them at once, but mirrors, caches and people copying files by hand do not. At the end
 * the build id is fetched once more, because the check takes a while. With a key to trust, the sums must be signed by
 * it, and so is everything that has to have the digest they say.
 */
import { createHash } from 'node:crypto';
import { parseBuildId } from '../manifests/build-id.ts';
import { parseImageManifest } from '../manifests/image-manifest.ts';
import { parseSha256Sums } from '../manifests/sha256sums.ts';
import { parseToolchainList } from '../manifests/toolchain-list.ts';
import { type FetchLimits, fetchDigest, fetchText } from './fetch.ts';
import { listIdOf } from './toolchain.ts';
import { shorten } from './plan.ts';
import { type Source, checkSigned } from './signed.ts';

/** The files of an image, by the names they are published under. */
export const IMAGE = {
  buildId: 'buildos-buildid',
  kernel: 'buildos-image',
  initrd: 'buildos-initrd',
  manifest: 'buildos-manifest.json',
  sums: 'SHA256SUMS',
} as const;

/** What is there is not one whole. The message says which part does not fit. */
export class UnpublishedError extends Error {
  override readonly name = 'UnpublishedError';
}

/** Bounds of the fetches. */
export interface PublishedLimits {
  readonly text: FetchLimits;
  readonly file: FetchLimits;
}

/**
 * Checks the image.
 *
 * @param source - the option `buildos.buildid_url`, the other files are beside it; and who has to have signed the sums
 * @param id - the build id that a look has found
 * @throws {UnpublishedError} when the parts do not fit
 * @throws {UntrustedError} when they are not signed as they have to be
 * @throws {FetchError} when one cannot be had
 * @throws {ManifestError} when one is garbage
 */
export async function checkImage(
  source: Source,
  id: string,
  limits: PublishedLimits,
  signal: AbortSignal,
): Promise<void> {
  const { url: buildidUrl, trust } = source;
  const beside = (name: string): string => new URL(name, buildidUrl).href;
  const text = (url: string): Promise<string> => fetchText(url, limits.text, signal);

  const idText = await text(buildidUrl);
  checkSame('the build id', parseBuildId(idText, { name: buildidUrl }), id);
  const sumsText = await text(beside(IMAGE.sums));
  await checkSigned(sumsText, { url: beside(IMAGE.sums), trust }, limits.text, signal);
  const sums = new Map(parseSha256Sums(sumsText, { name: beside(IMAGE.sums) }).map((sum) => [sum.path, sum.sha256]));
  const manifestText = await fetchText(beside(IMAGE.manifest), { ...limits.text, maxBytes: 16 * 1024 ** 2 }, signal);
  const manifest = parseImageManifest(manifestText, { name: beside(IMAGE.manifest) });
  checkSame(`the build id in ${IMAGE.manifest}`, manifest.buildId, id);
  checkSame(`the SHA-256 of ${IMAGE.buildId}`, sha256(idText), sumOf(sums, IMAGE.buildId));
  checkSame(`the SHA-256 of ${IMAGE.manifest}`, sha256(manifestText), sumOf(sums, IMAGE.manifest));
  for (const name of [IMAGE.kernel, IMAGE.initrd]) {
    const listed = manifest.files.find((file) => file.path === name)?.sha256;
    if (listed !== undefined) checkSame(`the SHA-256 of ${name} in ${IMAGE.manifest}`, listed, sumOf(sums, name));
    checkSame(
      `the SHA-256 of ${name} as served`,
      await fetchDigest(beside(name), limits.file, signal),
      sumOf(sums, name),
    );
  }
  checkSame('the build id, looked at again,', parseBuildId(await text(buildidUrl), { name: buildidUrl }), id);
}

/**
 * Checks that the files of a toolchain list are there with the digests it says.
 *
 * @param source - the list, and who has to have signed it
 * @param id - of the list that a look has found
 * @throws as {@link checkImage}
 */
export async function checkToolchain(
  source: Source,
  id: string,
  limits: PublishedLimits,
  signal: AbortSignal,
): Promise<void> {
  const listUrl = source.url;
  const text = await fetchText(listUrl, limits.text, signal);
  checkSame(`the list ${listUrl}`, listIdOf(text), id);
  await checkSigned(text, source, limits.text, signal);
  const list = parseToolchainList(text, { name: listUrl });
  for (const file of list.files) {
    const url = new URL(file.path.split('/').map(encodeURIComponent).join('/'), listUrl).href;
    checkSame(`the SHA-256 of ${url}`, await fetchDigest(url, limits.file, signal), file.sha256);
  }
}

function sumOf(sums: ReadonlyMap<string, string>, name: string): string {
  const sum = sums.get(name);
  if (sum === undefined) throw new UnpublishedError(`${IMAGE.sums} does not have ${name}`);
  return sum;
}

function checkSame(what: string, found: string, expected: string): void {
  if (found === expected) return;
  throw new UnpublishedError(
    `${what} is ${shorten(found)}, expected ${shorten(expected)}: it is not published whole yet`,
  );
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
