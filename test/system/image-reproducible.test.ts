/**
 * An image is the same bit for bit wherever and by whom it is made: `image build` of the same host twice, the second time
 * from a copy of the sources in another folder, with other times of the files, another umask, locale, time zone, home,
 * name, path and number of cores. 15 s of CPU.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { findImage } from '../../image/built-image.ts';
import { firstDifference } from './_image-difference.ts';
import { openSmallImage } from './_small-image.ts';

const TOP = join(import.meta.dirname, '../..');
const HOST = 'test/system/_small-host.ts';
const run = promisify(execFile);

/** What decides neither packages nor properties, and is another on every machine. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  LANG: 'tr_TR.UTF-8',
  LC_ALL: 'tr_TR.UTF-8',
  TZ: 'Asia/Kathmandu',
  HOME: '/nonexistent',
  USER: 'somebody',
  LOGNAME: 'somebody',
  SOURCE_DATE_EPOCH: '1234567890',
  MAKEFLAGS: '-j9',
  TAR_OPTIONS: '--mtime=@1',
  XZ_DEFAULTS: '--memlimit=512MiB',
  DEBIAN_FRONTEND: 'readline',
};

/**
 * `$1`: where the copy of the sources goes; then the command. node_modules is mounted, not linked: programs find it where
 * they would after `npm ci`. The tree is another one for readdir, too, since its files are made in another order.
 */
const IN_A_COPY = `
set -e
top=$1 copy=$2; shift 2
mkdir -p "$copy/node_modules"
cd "$top"
find . \\( -path ./node_modules -o -path ./work -o -path ./.git \\) -prune -o -type f -print | sort -r |
  tar --create --mtime=@86400 --files-from=- | tar --extract --directory "$copy"
mount --bind "$top/node_modules" "$copy/node_modules"
cd /
umask 077
exec taskset --cpu-list 0 "$@"`;

test('the same host gives the same image, bit for bit, whoever builds it where', { timeout: 240_000 }, async () => {
  await using small = await openSmallImage();
  const build = (work: string): string[] => ['image', 'build', '--lock', small.lockFile, '--work', work, '--json'];
  const [here, there] = [await small.emptyWork(), join(small.folder, 'another folder/work')];
  await run(process.execPath, ['cli/main.ts', ...build(here), HOST], { cwd: TOP });

  await small.prepareWork(there);
  const copy = join(small.folder, 'elsewhere', 'build-os');
  await mkdir(copy, { recursive: true });
  const command = [process.execPath, join(copy, 'cli/main.ts'), ...build(there), join(copy, HOST)];
  const path = `/nonexistent/bin:${process.env['PATH'] ?? ''}`;
  await run('unshare', ['--mount', '--', 'sh', '-c', IN_A_COPY, 'sh', TOP, copy, ...command], {
    env: { ...ELSEWHERE, PATH: path },
  });

  assert.equal(await firstDifference(await findImage(here), await findImage(there)), undefined);
});
