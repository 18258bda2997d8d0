/** Archives as GNU tar and dpkg-deb write them, and every place where one can be cut. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, linkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { END_OF_ARCHIVE, readTar, tarFile } from './tar-members.ts';

const LONG = `${'long/'.repeat(30)}name`;

function archiveBy(format: string): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-tar-'));
  try {
    mkdirSync(join(folder, 'a'), { mode: 0o750 });
    writeFileSync(join(folder, 'a/file'), 'text\n', { mode: 0o640 });
    linkSync(join(folder, 'a/file'), join(folder, 'a/twin'));
    symlinkSync('../a/file', join(folder, 'a/way'));
    mkdirSync(join(folder, LONG), { recursive: true });
    writeFileSync(join(folder, LONG, 'ümlaut'), 'x'.repeat(1000));
    return execFileSync('tar', ['-c', `--format=${format}`, '--sort=name', '--owner=7', '--group=9', '.'], {
      cwd: folder,
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

for (const format of ['gnu', 'pax', 'ustar']) {
  test(`readTar() reads what tar writes as ${format}: names, kinds, owners, long paths`, () => {
    const members = readTar(archiveBy(format));
    const told = members
      .filter(({ path }) => /^(a.*)?$/.test(path))
      .map(({ path, type, mode, uid, gid, target }) => [path, type, mode.toString(8), uid, gid, target]);
    assert.deepEqual(told.slice(1), [
      ['a', 'directory', '750', 7, 9, ''],
      ['a/file', 'file', '640', 7, 9, ''],
      ['a/twin', 'hard link', '640', 7, 9, 'a/file'],
      ['a/way', 'symlink', '777', 7, 9, '../a/file'],
    ]);
    assert.deepEqual(told[0]?.slice(0, 2), ['', 'directory']);
    const last = members.at(-1);
    assert.equal(last?.path, `${LONG}/ümlaut`);
    assert.equal(last.content.length, 1000);
  });

  test(`members of a ${format} archive can be put together anew`, () => {
    const archive = archiveBy(format);
    const members = readTar(archive);
    const parts = members.map(({ start, end }) => archive.subarray(start, end));
    const again = readTar(Buffer.concat([...parts.reverse(), END_OF_ARCHIVE]));
    assert.deepEqual(
      again.map(({ path, target }) => [path, target]),
      members.map(({ path, target }) => [path, target]).reverse(),
    );
  });
}

test('readTar() refuses an archive that is cut, wherever', () => {
  const archive = Buffer.concat([tarFile('a', Buffer.from('text'), { mode: 0o644, timeSeconds: 0 }), END_OF_ARCHIVE]);
  assert.equal(readTar(archive).length, 1);
  for (const length of [0, 1, 511, 512, 513, 1023, 1024, 1535]) {
    assert.throws(() => readTar(archive.subarray(0, length)), /cut off/, String(length));
  }
});

test('readTar() refuses a header that was altered', () => {
  const archive = Buffer.concat([tarFile('a', Buffer.from('text'), { mode: 0o644, timeSeconds: 0 }), END_OF_ARCHIVE]);
  archive[0] = 0x62;
  assert.throws(() => readTar(archive), /damaged/);
});

test('tarFile() writes what tar reads, with long paths', () => {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-tar-'));
  const paths = ['short', `${'d'.repeat(60)}/${'f'.repeat(90)}`];
  try {
    const parts = paths.map((path) => tarFile(path, Buffer.from(path), { mode: 0o755, timeSeconds: 1_767_225_600 }));
    execFileSync('tar', ['-x'], { cwd: folder, input: Buffer.concat([...parts, END_OF_ARCHIVE]) });
    for (const path of paths) assert.equal(readFileSync(join(folder, path), 'utf8'), path);
  } finally {
    rmSync(folder, { recursive: true });
  }
  assert.throws(() => tarFile('f'.repeat(120), new Uint8Array(), { mode: 0o644, timeSeconds: 0 }), /too long/);
});
