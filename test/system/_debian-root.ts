/**
 * A real Debian root for tests: made once with mmdebstrap, kept as a tar in the system's folder for temporary files,
 * unpacked anew for each test file.
 */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const MIRROR = 'http://deb.debian.org/debian';
/** Older tars are made again: the archive moves on. */
const MAX_AGE_MS = 24 * 3_600_000;

/** Why these tests cannot run here, or false. */
export const cannotChroot: string | false = process.getuid?.() === 0 ? false : 'needs root: chroot, mounts, namespaces';

/** An unpacked Debian root, removed when disposed. */
export interface DebianRoot extends Disposable {
  readonly path: string;
}

/**
 * Unpacks Debian trixie (minbase and sudo).
 *
 * @param more - packages besides; each set of them has a tar of its own
 */
export function unpackDebian(more: readonly string[] = []): DebianRoot {
  const packages = ['sudo', ...more];
  const tar = join(tmpdir(), `buildos-test-trixie-minbase-${packages.join('-')}.tar`);
  if (!existsSync(tar) || Date.now() - statSync(tar).mtimeMs > MAX_AGE_MS) {
    const part = `${tar}.${process.pid}.part`;
    const words = ['--variant=minbase', `--include=${packages.join(',')}`, '--format=tar', 'trixie', part, MIRROR];
    try {
      execFileSync('mmdebstrap', words, { stdio: ['ignore', 'ignore', 'pipe'] });
      renameSync(part, tar);
    } finally {
      rmSync(part, { force: true });
    }
  }
  const folder = mkdtempSync(join(tmpdir(), 'buildos-root-'));
  const path = join(folder, 'root');
  execFileSync('mkdir', [path]);
  execFileSync('tar', ['--extract', '--numeric-owner', '--file', tar, '--directory', path]);
  return { path, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

/** What a chroot left behind: processes whose root or words are there, mounts that any process sees. */
export function leftovers(path: string): string[] {
  const found = new Set<string>();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      const root = readlinkSync(`/proc/${pid}/root`);
      if (root === path || words.split(' ').includes(path)) found.add(`process ${pid}: ${words}`);
      for (const line of readFileSync(`/proc/${pid}/mountinfo`, 'utf8').split('\n')) {
        const at = line.split(' ')[4];
        if (at?.startsWith(path) === true) found.add(`mount ${at} seen by ${pid}`);
      }
    } catch {
      // It ended while we looked, or it is a kernel thread.
    }
  }
  return [...found];
}

/** Leftovers after some patience: the kernel ends a PID namespace in its own time. */
export async function leftoversAfter(path: string, patienceMs: number): Promise<string[]> {
  const end = Date.now() + patienceMs;
  for (;;) {
    const found = leftovers(path);
    if (found.length === 0 || Date.now() > end) return found;
    await sleep(50);
  }
}
