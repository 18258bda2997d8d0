/**
 * `image diff` and `image explain` on real images: against squashfs-tools, dpkg's own lists, and what was changed between
 * two builds. About 20 s.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { lstatSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { join } from 'node:path';
import type { BuiltImage } from '../../image/built-image.ts';
import { isWhiteout } from '../../image/explain/image-entry.ts';
import { findSubject } from '../../image/explain/find-subject.ts';
import { inspectImage, type Inspection } from '../../image/explain/inspect.ts';
import { explainPath } from '../../image/explain/why.ts';
import { untraced } from '../../image/explain/summary.ts';
import { CONTENTS_JSON } from '../../image/trace.ts';
import { publishImage } from '../../image/publish/publish.ts';
import { INPUTS, type Inputs, openSmallImage, type SmallImage } from './_small-image.ts';

const PROGRAM = join(import.meta.dirname, '../../cli/main.ts');

let small: SmallImage;
let work: string;
let image: BuiltImage;
let inspection: Inspection;

before(
  async () => {
    small = await openSmallImage();
    work = await small.emptyWork();
    image = await build(INPUTS);
    inspection = await inspectImage(await findSubject(image.folder, { work }));
  },
  { timeout: 120_000 },
);

after(async () => await small[Symbol.asyncDispose]());

async function build(inputs: Inputs): Promise<BuiltImage> {
  return (await small.build(work, inputs)).image;
}

/** `buildos image …`. */
async function command(
  ...args: readonly string[]
): Promise<{ readonly status: number; readonly stdout: string; readonly stderr: string }> {
  return await new Promise((done) => {
    const child = execFile(
      process.execPath,
      [PROGRAM, 'image', ...args],
      { cwd: small.folder, maxBuffer: 1 << 28, timeout: 60_000 },
      (_error, stdout, stderr) => done({ status: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

test('no file of a real image is untraced, and no byte unaccounted for', () => {
  assert.deepEqual(untraced(inspection.items), []);
  const files = statSync(image.kernel).size + statSync(image.initrd).size;
  const sum = (numbers: readonly number[]): number => numbers.reduce((all, each) => all + each, 0);
  assert.equal(sum(inspection.items.map(({ storedBytes }) => storedBytes)), files);
  assert.equal(sum(inspection.parts.map(({ storedBytes }) => storedBytes)), files);
  // What nobody knows is a step of ours by name; in this image nothing is of that kind.
  const vague = inspection.items.filter(({ name }) => name.includes('not known'));
  assert.deepEqual(
    vague.map(({ path }) => path),
    [],
  );
});

test('layers are read as unsquashfs reads them', { timeout: 60_000 }, () => {
  const initrd = readFileSync(image.initrd);
  for (const part of inspection.parts.filter(({ kind }) => kind === 'layer')) {
    const at = initrd.indexOf('hsqs', initrd.length - partsAfter(part.layer ?? 0));
    const file = join(small.folder, `layer.squashfs`);
    const tree = join(small.folder, `layer-${part.layer}`);
    writeFileSync(file, initrd.subarray(at));
    execFileSync('unsquashfs', ['-quiet', '-no-progress', '-dest', tree, file], { stdio: 'ignore' });
    const expected = new Set(namesIn(tree));
    for (const entry of part.entries.filter(({ path }) => path !== '')) {
      const at = join(tree, entry.path);
      const found = lstatSync(at);
      const facts = [found.mode & 0o7777, found.uid, found.gid, found.isDirectory(), found.isCharacterDevice()];
      const { kind } = entry;
      const read = [entry.mode, entry.uid, entry.gid, kind === 'directory', kind === 'character-device'];
      assert.deepEqual(read, facts, entry.path);
      if (kind === 'symlink') assert.equal(entry.target, readlinkSync(at), entry.path);
      if (kind === 'file') assert.ok(Buffer.compare(entry.content(), readFileSync(at)) === 0, entry.path);
      expected.delete(entry.path);
    }
    assert.deepEqual([...expected.keys()], []);
  }
  assert.ok(inspection.parts.some(({ entries }) => entries.some(isWhiteout)) || inspection.root.hidden.length > 0);
});

/** Paths below a folder. `recursive` of readdir would follow links, such as /bin. */
function namesIn(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => [
    entry.name,
    ...(entry.isDirectory() ? namesIn(join(folder, entry.name)).map((name) => `${entry.name}/${name}`) : []),
  ]);
}

/** Bytes from the beginning of a layer to the end of the initrd. */
function partsAfter(layer: number): number {
  const later = inspection.parts.filter((part) => part.kind === 'layer' && (part.layer ?? 0) >= layer);
  return later.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
}

test('image explain says which package, property or step a file comes from, and why one is not there', async () => {
  const why = (path: string): string => {
    const { state, origins, pattern } = explainPath(path, inspection);
    const last = origins.at(-1);
    const from = last?.kind === 'package' ? last.name : last?.kind === 'property' ? last.p : (last?.name ?? '');
    return [state, from, pattern ?? ''].join(' ').trim();
  };
  assert.equal(why('/bin/busybox'), 'present busybox-static');
  assert.equal(why('/usr/share/tiny/data'), 'present tiny-data');
  assert.equal(why('/usr/share/tiny/seen'), 'present tiny-data');
  assert.equal(why('/etc/tiny.conf'), 'present file.hasContent');
  assert.equal(why('/etc/passwd'), 'present user.present');
  assert.equal(why('/usr/lib/program.mjs'), 'present file.hasFile');
  assert.equal(why('/etc/skel/.bashrc'), 'removed file.directory');
  assert.equal(why('/usr/share/doc/libc6/copyright'), 'left-out libc6 usr/share/doc');
  assert.equal(why('initrd:/lib/libstdc++.so.6'), 'present libstdc++6');
  assert.match(why('initrd:/node/node'), /^present Node \d+\.\d+\.\d+, stripped$/);
  assert.equal(why('kernel'), 'present tiny-kernel');
  assert.equal(why('/no/such/file'), 'absent');

  const shown = await command('explain', image.folder, '/usr/bin/busybox');
  assert.equal(shown.status, 0);
  assert.match(
    shown.stdout,
    /file 0755, owner 0:0, \d+ bytes, \d+ in the image, in layer 1\n +from package busybox-static 1:/,
  );
  assert.equal((await command('explain', image.folder, '/no/such/file')).status, 1);
});

test('image explain --html is one file that loads nothing; its areas are the sizes', { timeout: 60_000 }, async () => {
  const [html, svg] = [join(small.folder, 'map.html'), join(small.folder, 'map.svg')];
  assert.equal((await command('explain', image.folder, '--html', html, '--svg', svg)).status, 0);
  const page = readFileSync(html, 'utf8');
  assert.match(page, /Content-Security-Policy" content="default-src 'none'/);
  // Files are called /usr/lib/apt/methods/http.
  const loads = /https?:\/\/|src=|href=|url\(|@import/.exec(page.replaceAll('http://www.w3.org/2000/svg', ''));
  assert.equal(loads?.[0], undefined);
  const drawing = readFileSync(svg, 'utf8');
  const total = inspection.items.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  const node = inspection.items.find(({ path }) => path === 'initrd:/node/node')?.storedBytes ?? 0;
  const tile =
    /<rect class="file" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"><title>initrd:\/node\/node:/;
  const [x = 0, y = 0, width = 0, height = 0] = (tile.exec(drawing) ?? []).slice(1).map(Number);
  assert.ok(Math.abs((width * height) / (1600 * 900) - node / total) < 0.001, `${width} by ${height}`);
  assert.ok(x >= 0 && y >= 0 && x + width <= 1600.01 && y + height <= 900.01);
});

test('image diff names what was changed between two builds, and nothing else', { timeout: 120_000 }, async () => {
  const other = await build({ ...INPUTS, text: 'other\n', program: 'console.log(2);\n', user: true });
  const { status, stdout } = await command('diff', image.folder, other.folder, '--json');
  assert.equal(status, 1);
  const diff: unknown = JSON.parse(stdout);
  assert.ok(typeof diff === 'object' && diff !== null && 'files' in diff && Array.isArray(diff.files));
  const paths = diff.files.map(({ path, change }: { path: string; change: string }) => `${change} ${path}`);
  assert.deepEqual(
    paths.filter((line) => !line.includes('/var/lib/')),
    [
      ...['group', 'group-', 'gshadow', 'gshadow-', 'passwd', 'passwd-', 'shadow', 'shadow-', 'tiny.conf'].map(
        (name) => `changed /etc/${name}`,
      ),
      'changed /usr/lib/program.mjs',
      'changed initrd:/buildos/payload.json',
    ],
  );
  const text = (await command('diff', image.folder, other.folder)).stdout;
  assert.match(text, /\n {2}~ file\.hasContent \/etc\/tiny\.conf\n {6}- hello\n {6}\+ other\n/);
  assert.match(text, /\n {2}\+ user\.present more\n/);
});

test('image diff: the same is status 0, also when it was published; trouble is 2', { timeout: 60_000 }, async () => {
  const into = join(small.folder, 'served');
  await publishImage({ image, into });
  const same = await command('diff', image.buildId.slice(0, 8), into, '--work', work);
  assert.equal(same.status, 0, same.stdout + same.stderr);
  assert.match(same.stdout, /the same, bit for bit/);
  const trouble = await command('diff', image.folder, '/no/such/image');
  assert.equal(trouble.status, 2);
  assert.match(trouble.stderr, /^error: Cannot find the image "\/no\/such\/image".*\nhint: /);
  const cut = join(small.folder, 'cut');
  execFileSync('cp', ['-r', image.folder, cut]);
  execFileSync('truncate', ['--size=-100000', join(cut, 'buildos-initrd')]);
  assert.equal((await command('diff', image.folder, cut)).status, 2);
});

test('where files come from is noted the same when it is built again', { timeout: 120_000 }, async () => {
  const noted = readFileSync(join(image.folder, CONTENTS_JSON));
  for (const folder of ['images', 'cache/properties']) rmSync(join(work, folder), { recursive: true });
  const again = await build(INPUTS);
  assert.deepEqual(readFileSync(join(again.folder, CONTENTS_JSON)), noted);
});
