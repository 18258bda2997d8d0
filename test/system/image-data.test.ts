/**
 * Data of an image: what is public is in it and counts as an input; of secrets that lie beside it nothing gets into an
 * image, the cache, a message, or the words and variables of what is run. Needs root; 10 s of CPU.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { globSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setInterval } from 'node:timers';
import { buildImage, type BuildResult } from '../../image/build.ts';
import { SecretInImageError } from '../../image/image-data.ts';
import { readLock } from '../../image/lock.ts';
import { whenContained } from '../../properties/conditions.ts';
import { environmentSource, treeSource } from '../../properties/data.ts';
import * as file from '../../properties/file.ts';
import type { PropertyApplication } from '../../properties/property.ts';
import { host } from './_small-host.ts';
import { openSmallImage, type SmallImage } from './_small-image.ts';

const SECRET = 'kj4-the-token-nobody-may-see-9x';
const OTHER = 'kj4-the-variable-nobody-may-see-9x';
const TOKEN = { context: 'small', name: 'token' };
const MOTD = { context: 'small', name: 'motd', public: true } as const;

let small: SmallImage;
let work: string;
/** All that was said. */
const said: string[] = [];

before(async () => {
  small = await openSmallImage();
  work = await small.emptyWork();
});

after(async () => {
  await small?.[Symbol.asyncDispose]();
});

async function build(motd: string, ...more: readonly PropertyApplication[]): Promise<BuildResult> {
  const data = join(small.folder, 'data');
  mkdirSync(join(data, 'small'), { recursive: true });
  writeFileSync(join(data, 'small/motd'), motd);
  writeFileSync(join(data, 'small/token'), SECRET);
  const result = await buildImage({
    definition: () => ({ ...host, properties: [...host.properties, ...more] }),
    work,
    lock: { content: await readLock(small.lockFile), file: small.lockFile },
    hardware: 'vm',
    data: [treeSource(data), environmentSource({ BUILDOS_DATA_SMALL__TOKEN: OTHER }, 0)],
    onProgress: (line) => said.push(line),
    onStep: (step) => said.push(step),
  });
  said.push(JSON.stringify(result));
  return result;
}

test(
  'a secret is refused at once; public data is in the image, and of the secret beside it nothing',
  { timeout: 120_000 },
  async () => {
    await assert.rejects(build('one\n', file.hasData('/etc/token', TOKEN)), (error) => {
      assert.ok(error instanceof SecretInImageError);
      said.push(error.message, error.hint, String(error.stack));
      return true;
    });
    // Only packages, which know nothing of properties, are at work before.
    const after = /^(inputs|choose packages|apply|pack)/;
    assert.deepEqual(
      said.filter((line) => after.test(line)),
      [],
      'it went on for longer than it needs to know',
    );

    const watch = watchProcesses();
    const properties = [file.hasData('/etc/motd', MOTD), whenContained(null, file.hasData('/etc/token', TOKEN))];
    const [one, again] = [await build('one\n', ...properties), await build('one\n', ...properties)];
    const two = await build('two\n', ...properties);
    said.push(...watch.stop());
    assert.equal(again.cached, true);
    assert.notEqual(one.image.buildId, two.image.buildId);

    const found = contentsOf(join(work, 'cache/properties'));
    const motds = found.filter(({ path }) => path.endsWith('/etc/motd')).map(({ text }) => text);
    assert.deepEqual(new Set(motds), new Set(['one\n', 'two\n']));
    for (const secret of [SECRET, OTHER]) {
      for (const { path, text } of [...found, ...filesBelow(work)]) assert.ok(!text.includes(secret), path);
      for (const line of said) assert.ok(!line.includes(secret), line.slice(0, 300));
    }
  },
);

/** The words and variables of all processes, looked at again and again. */
function watchProcesses(): { stop(): readonly string[] } {
  const seen = new Set<string>();
  const timer = setInterval(() => {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      for (const name of ['cmdline', 'environ']) {
        try {
          seen.add(readFileSync(`/proc/${pid}/${name}`, 'latin1'));
        } catch {
          // It has ended.
        }
      }
    }
  }, 100);
  return {
    stop: () => {
      clearInterval(timer);
      return [...seen];
    },
  };
}

/** What is in the layers, unpacked. */
function contentsOf(folder: string): readonly { readonly path: string; readonly text: string }[] {
  const out = join(small.folder, 'unpacked');
  mkdirSync(out);
  for (const [index, path] of globSync(join(folder, '*/*.squashfs')).entries()) {
    execFileSync('unsquashfs', ['-quiet', '-no-progress', '-dest', join(out, String(index)), path], {
      stdio: 'ignore',
    });
  }
  return filesBelow(out);
}

function filesBelow(folder: string): readonly { readonly path: string; readonly text: string }[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.startsWith(join(work, 'cache/debs')))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => statSync(path).size < 64 * 2 ** 20)
    .map((path) => ({ path, text: readFileSync(path, 'latin1') }));
}
