/**
 * The folder of a build in the TFTP tree: what its machine reads, writes, and what people may read after it.
 *
 * ```
 * <builds>/<build>/  task.manifest  toolchain.tar  toolchain.json     to read, the last two are hard links
 *                    result.manifest  log  upload.tar                 written by the machine
 * ```
 */
import { copyFile, link, mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildNumber } from '../machines/name.ts';
import { planPrune } from './plan.ts';

/** Names in the folder. */
export const TASK_FILE = 'task.manifest';
export const RESULT_FILE = 'result.manifest';
export const LOG_FILE = 'log';
export const UPLOAD_FILE = 'upload.tar';
const TOOLCHAIN_TAR = 'toolchain.tar';
const TOOLCHAIN_JSON = 'toolchain.json';

/** How much of a log's end is read. */
const LOG_TAIL_BYTES = 64 * 1024;

/** The toolchain is not there, or not whole. */
export class ToolchainFilesError extends Error {
  override readonly name = 'ToolchainFilesError';
  readonly hint = 'the monitor puts it there after a bootstrap: see status.json';
}

/**
 * Makes the folder of a build; one of the same name is replaced.
 *
 * @param toolchain - the folder of the toolchain's files
 * @param task - text of the task manifest
 * @throws {ToolchainFilesError} when the toolchain lacks a file
 */
export async function makeBuildFolder(folder: string, toolchain: string, task: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o755 });
  await writeFile(join(folder, TASK_FILE), task, { mode: 0o644 });
  await bring(join(toolchain, TOOLCHAIN_TAR), join(folder, TOOLCHAIN_TAR));
  await bring(await findToolchainJson(toolchain), join(folder, TOOLCHAIN_JSON));
}

/** Leaves what people may want to read: task, log and result. The toolchain and the upload are kept elsewhere. */
export async function thinBuildFolder(folder: string): Promise<void> {
  for (const name of [TOOLCHAIN_TAR, TOOLCHAIN_JSON, UPLOAD_FILE]) await rm(join(folder, name), { force: true });
}

/** Removes the folders of old builds. @param builds - the folder of all */
export async function pruneBuildFolders(
  builds: string,
  toolchain: string,
  running: ReadonlySet<string>,
): Promise<void> {
  const found = (await listBuildFolders(builds)).flatMap((build) => {
    const number = buildNumber(toolchain, build);
    return number === undefined ? [] : [{ build, number }];
  });
  for (const build of planPrune(found, running)) await rm(join(builds, build), { recursive: true, force: true });
}

/** The builds that have a folder. */
export async function listBuildFolders(builds: string): Promise<readonly string[]> {
  return readdir(builds).catch(() => []);
}

/** The file, or nothing when the machine did not write it. */
export async function findWritten(folder: string, name: string): Promise<string | undefined> {
  const file = join(folder, name);
  const found = await stat(file).catch(() => undefined);
  return found?.isFile() === true ? file : undefined;
}

/** The text of a file that the machine wrote. */
export async function readWritten(folder: string, name: string): Promise<string | undefined> {
  const file = await findWritten(folder, name);
  return file === undefined ? undefined : readFile(file, 'utf8');
}

/** The end of the log, from a line's beginning; empty when there is none. */
export async function readLogTail(folder: string): Promise<string> {
  const file = await findWritten(folder, LOG_FILE);
  if (file === undefined) return '';
  await using handle = await open(file, 'r');
  const { size } = await handle.stat();
  const start = Math.max(0, size - LOG_TAIL_BYTES);
  const bytes = Buffer.alloc(size - start);
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, start);
  const text = bytes.toString('utf8', 0, bytesRead);
  return start === 0 ? text : text.slice(text.indexOf('\n') + 1);
}

async function findToolchainJson(toolchain: string): Promise<string> {
  const entries = await readdir(toolchain, { withFileTypes: true });
  const folders = ['.', ...entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)];
  for (const folder of folders) {
    const file = await findWritten(join(toolchain, folder), TOOLCHAIN_JSON);
    if (file !== undefined) return file;
  }
  throw new ToolchainFilesError(`Cannot find ${TOOLCHAIN_JSON} in ${toolchain}`);
}

/** A hard link costs no memory; where there can be none, a copy. */
async function bring(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT') throw new ToolchainFilesError(`Cannot find ${from}`, { cause: error });
    if (code !== 'EXDEV' && code !== 'EPERM' && code !== 'EMLINK') throw error;
    await copyFile(from, to);
  }
}
