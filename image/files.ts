/** Files that are replaced whole, and are on the disk before anything names them. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, symlink, unlink, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';

/** Writes a file beside its place and renames it there; its folder is made when absent. */
export async function replaceFile(file: string, content: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.part-${process.pid}`;
  await writeFile(temporary, content);
  await syncPath(temporary);
  await rename(temporary, file);
}

/** Makes a symbolic link point elsewhere; readers see the old target or the new one. */
export async function switchLink(link: string, target: string): Promise<void> {
  const temporary = `${link}.part-${process.pid}`;
  await unlink(temporary).catch(() => undefined);
  await symlink(target, temporary);
  await rename(temporary, link);
  await syncPath(dirname(link));
}

/** Waits until a file or folder is on the disk. */
export async function syncPath(path: string): Promise<void> {
  await using handle = await open(path);
  await handle.sync();
}

/** What is wrong with a text of ours, in a line: the first place where it is of another form. */
export function describeMismatch(error: unknown): string {
  if (!(error instanceof z.ZodError)) return error instanceof Error ? error.message : String(error);
  const [issue] = error.issues;
  return issue === undefined
    ? 'of another form'
    : `${issue.path.map(String).join('.') || 'all of it'}: ${issue.message}`;
}

/** In hexadecimal digits. */
export async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}
