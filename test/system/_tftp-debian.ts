/**
 * Programs of Debian packages that are not installed, because their package would start a daemon or conflicts with another:
 * fetched with apt and unpacked. What their programs link to is installed (cli/setup.ts).
 */
import { execFileSync } from 'node:child_process';
import { globSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Kept from run to run. */
const CACHE = join(import.meta.dirname, '..', '..', 'work', 'test-packages');

/** @returns the folder that the package is unpacked into */
export function unpackPackage(name: string): string {
  const folder = join(CACHE, name);
  if (globSync(join(folder, 'usr/sbin/*')).length > 0) return folder;
  mkdirSync(CACHE, { recursive: true });
  const part = mkdtempSync(join(CACHE, '.part-'));
  try {
    try {
      download(name, part);
    } catch {
      // Where everything else was installed before, the lists may be absent or old.
      execFileSync('apt-get', ['update'], { stdio: ['ignore', 'ignore', 'pipe'], timeout: 120_000 });
      download(name, part);
    }
    const [file = ''] = globSync(join(part, '*.deb'));
    execFileSync('dpkg-deb', ['--extract', file, join(part, 'root')]);
    renameSync(join(part, 'root'), folder);
  } finally {
    rmSync(part, { recursive: true, force: true });
  }
  return folder;
}

function download(name: string, folder: string): void {
  // Only root may switch to apt's own user for the download, which cannot write here.
  const argv = ['-o', 'APT::Sandbox::User=root', 'download', name];
  execFileSync('apt-get', argv, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'], timeout: 60_000 });
}
