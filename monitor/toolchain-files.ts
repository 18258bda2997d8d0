/**
 * Makes a toolchain's folder hold exactly the files of its list, each with its checksum verified.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, mkdir, opendir, rm, statfs } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { TOOLCHAIN_RESERVED, type ToolchainList } from '../manifests/toolchain-list.ts';
import { type FetchLimits, fetchToFile } from './fetch.ts';
import { type FilesPlan, planFiles } from './toolchain-plan.ts';

/** More entries than this in a folder are not ours. */
const MAX_ENTRIES = 10_000;
/** Left free on the tmpfs for logs, results and the status. */
const RESERVE_BYTES = 16 * 1024 * 1024;

/**
 * Looks, plans, fetches.
 *
 * @param folder - absolute; made when missing
 * @param listUrl - where the list came from
 * @returns what was done
 * @throws {FetchError}
 */
export async function fetchToolchainFiles(
  list: ToolchainList,
  listUrl: string,
  folder: string,
  limits: FetchLimits,
  signal: AbortSignal,
): Promise<FilesPlan> {
  await mkdir(folder, { recursive: true });
  const steps = planFiles(list, listUrl, await digestsOf(folder, signal));
  for (const path of steps.remove) await rm(join(folder, path), { recursive: true, force: true });
  for (const file of steps.fetch) {
    const { bavail, bsize } = await statfs(folder);
    const maxBytes = Math.min(limits.maxBytes, Math.max(0, bavail * bsize - RESERVE_BYTES));
    await fetchToFile(
      file.url,
      { sha256: file.sha256, file: join(folder, file.path) },
      { ...limits, maxBytes },
      signal,
    );
  }
  return steps;
}

/**
 * SHA-256 of every file below a folder, by relative path. What is neither a file nor a folder (and temporary files
 * that a kill has left) gets the digest `''`, so that a plan removes it.
 */
export async function digestsOf(folder: string, signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
  const digests: Record<string, string> = {};
  let entries = 0;
  for await (const entry of await opendir(folder, { recursive: true })) {
    signal.throwIfAborted();
    entries += 1;
    if (entries > MAX_ENTRIES)
      throw new Error(`Cannot look through ${folder}: it holds more than ${MAX_ENTRIES} files`);
    if (entry.isDirectory()) continue;
    const file = join(entry.parentPath, entry.name);
    const path = relative(folder, file);
    // The host's own files beside it are not part of the list and may be large or growing.
    if (TOOLCHAIN_RESERVED.includes(path)) continue;
    digests[path] = entry.isFile() ? await sha256Of(file, signal) : '';
  }
  return digests;
}

/** SHA-256 of a file, lower case hexadecimal. */
export async function sha256Of(file: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash, { signal });
  return hash.digest('hex');
}

/** Whether there is something at a path; a dangling link counts. */
export async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined;
}
