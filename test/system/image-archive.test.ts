/**
 * The archive that packages are chosen from: what `image update` makes of a newer one, and what is said of one that is out
 * of date, forged, altered, cut off or silent. Real apt and gpg; 15 s, most of it waiting.
 */
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openLocal } from '../../connections/local.ts';
import { chooseFromArchives, type ChoiceOptions } from '../../image/lock.ts';
import { updateLock } from '../../image/update.ts';
import type { PackageLock } from '../../manifests/package-lock.ts';
import * as apt from '../../properties/apt.ts';
import type { HostDefinition } from '../../properties/host-definition.ts';
import { type Archive, ENTRIES, openArchive } from './_archive.ts';

let archive: Archive;
let work: string;

before(async () => {
  archive = await openArchive();
  work = await mkdtemp(join(tmpdir(), 'buildos-choice-'));
});

after(async () => {
  await archive?.[Symbol.asyncDispose]();
  if (work) await rm(work, { recursive: true, force: true });
});

const DAY_MS = 86_400_000;
const TOMORROW = new Date(Date.now() + DAY_MS);
const YESTERDAY = new Date(Date.now() - DAY_MS / 2);

const newer = (name: string, version: string): typeof ENTRIES =>
  ENTRIES.map((each) => (each.name === name ? { ...each, version } : each));

/** Chooses `less` from the archive, by its place on this machine. */
async function choose(options: Partial<ChoiceOptions> = {}, uri = `file://${archive.folder}`): Promise<PackageLock> {
  return await chooseFromArchives(openLocal(), {
    suite: 'trixie',
    packages: ['less'],
    sources: [{ uri, suite: 'trixie', components: ['main'] }],
    cache: join(work, 'cache'),
    keyring: archive.keyring,
    ...options,
  });
}

test(
  'image update: the lock has every package by version and digest; a newer archive shows as a difference',
  {
    timeout: 60_000,
  },
  async () => {
    const definition = (): HostDefinition => ({
      name: 'small',
      summary: 'for a test',
      base: { distribution: 'debian', suite: 'trixie' },
      properties: [apt.installed(['less'])],
    });
    const sources = ['', '-security'].map((end) => ({
      uri: `file://${archive.folder}${end}`,
      suite: `trixie${end}`,
      components: ['main'],
    }));
    const file = join(work, 'small.lock.json');
    const update = async (dryRun = false): ReturnType<typeof updateLock> =>
      await updateLock(openLocal(), { definition, file, work, sources, keyring: archive.keyring, dryRun });

    archive.publish({ suite: 'trixie', entries: ENTRIES, validUntil: TOMORROW });
    archive.publish({ suite: 'trixie-security', entries: [] });
    const first = await update();
    assert.deepEqual(
      first.changes.added.map(({ name, version }) => `${name} ${version}`),
      ['apt 3.0.4', 'base-files 13.8', 'dpkg 1.22.22', 'less 668-1', 'libc6 2.41-12'],
    );
    const before = readFileSync(file, 'utf8');
    assert.deepEqual((await update()).changes, { added: [], removed: [], changed: [] });
    assert.equal(readFileSync(file, 'utf8'), before);

    const perl = { name: 'perl-base', version: '5.40', essential: true } as const;
    archive.publish({ suite: 'trixie', entries: [...newer('less', '670-1'), perl], validUntil: TOMORROW });
    archive.publish({ suite: 'trixie-security', entries: [{ name: 'libc6', version: '2.41-12+deb13u1' }] });
    const shown = await update(true);
    assert.equal(readFileSync(file, 'utf8'), before);
    const second = await update();
    assert.deepEqual(second, shown);
    assert.deepEqual(
      second.changes.added.map(({ name }) => name),
      ['perl-base'],
    );
    assert.deepEqual(second.changes.changed, [
      { name: 'less', from: '668-1', to: '670-1', security: false },
      { name: 'libc6', from: '2.41-12', to: '2.41-12+deb13u1', security: true },
    ]);
  },
);

test('an archive past its date is refused, also by who has chosen from it before', { timeout: 60_000 }, async () => {
  archive.publish({ suite: 'trixie', entries: newer('less', '671-1'), validUntil: YESTERDAY });
  assert.equal((await choose({ checkValidUntil: false })).packages.length, 5);
  await refused(choose({ checkValidUntil: true }), /Cannot read the Debian archive .*expired/, /out of date.*clock/);
});

test('an archive signed by somebody else is refused', { timeout: 60_000 }, async () => {
  archive.publish({ suite: 'trixie', entries: newer('less', '672-1') });
  await refused(
    choose({ keyring: archive.otherKeyring }),
    /Cannot read the Debian archive .*NO_PUBKEY/,
    /is it a Debian mirror/,
  );
});

test('an index that is not what was signed is refused', { timeout: 60_000 }, async () => {
  archive.publish({ suite: 'trixie', entries: newer('less', '673-1') });
  appendFileSync(join(archive.folder, 'dists/trixie/main/binary-amd64/Packages'), '\n');
  await serving(
    (request, response) => serve(request.url ?? '', response),
    async (url) => {
      await refused(
        choose({}, url),
        /Cannot read the Debian archive .*(Hash Sum mismatch|unexpected size)/,
        /try again, or another/,
      );
    },
  );
});

test('an index that is cut off is refused', { timeout: 60_000 }, async () => {
  archive.publish({ suite: 'trixie', entries: newer('less', '674-1') });
  const cut: RequestListener = (request, response) => {
    if (!request.url?.endsWith('InRelease')) serve(request.url ?? '', response);
    else response.end(readFileSync(join(archive.folder, 'dists/trixie/InRelease')).subarray(0, 200));
  };
  await serving(cut, async (url) => {
    await refused(choose({}, url), /Cannot read the Debian archive/, /try again, or another|is it a Debian mirror/);
  });
});

test('an archive that does not answer, or stops, is given up', { timeout: 60_000 }, async () => {
  archive.publish({ suite: 'trixie', entries: newer('less', '675-1') });
  const stallMs = 1000;
  await serving(
    () => undefined,
    async (url) => {
      await refused(
        choose({ stallMs }, url),
        /Cannot read the Debian archive's index http.*no answer within 1 s/,
        /--mirror/,
      );
    },
  );
  const stops: RequestListener = (request, response) => {
    if (request.url?.endsWith('InRelease')) serve(request.url, response);
  };
  await serving(stops, async (url) => {
    await refused(
      choose({ stallMs }, url),
      /Cannot read the Debian archive .*(timed out|Connection failed)/i,
      /--mirror/,
    );
  });
});

test(
  'when nobody answers, the packages chosen last do, with a word on how old they are',
  { timeout: 60_000 },
  async () => {
    const validUntil = new Date(Date.now() + 1500);
    archive.publish({ suite: 'trixie', entries: newer('less', '680-1'), validUntil });
    const warnings: string[] = [];
    const ask: Partial<ChoiceOptions> = { archives: 'ask', stallMs: 1000, onWarning: (line) => warnings.push(line) };
    let place = '';
    const chosen: PackageLock[] = [];
    await serving(
      (request, response) => serve(request.url ?? '', response),
      async (url) => {
        place = url;
        await refused(
          choose({ ...ask, archives: 'offline' }, url),
          /Cannot choose packages offline: none/,
          /--offline/,
        );
        chosen.push(await choose(ask, url));
      },
    );
    const [last] = chosen;
    assert.equal(last?.packages.find(({ name }) => name === 'less')?.version, '680-1');
    assert.deepEqual(warnings, []);
    assert.deepEqual(await choose(ask, place), last);
    assert.match(
      warnings[0] ?? '',
      /^warning: no answer.* from http:.*InRelease; going on with .* \d+ minutes ago, on 20/,
    );
    // Others have asked for something else, or want what is there now.
    await refused(choose({ ...ask, packages: ['libc6'] }, place), /no answer/, /--mirror/);
    await refused(choose({ ...ask, archives: 'must-answer' }, place), /no answer/, /--mirror/);
    await sleep(Math.max(0, validUntil.getTime() - Date.now()));
    warnings.length = 0;
    assert.deepEqual(await choose({ ...ask, archives: 'offline' }, place), last);
    assert.match(warnings[0] ?? '', /^warning: nobody was asked; going on/);
    assert.match(
      warnings[1] ?? '',
      /^warning: the archives said themselves that this is good until .* updates may be missing/,
    );
  },
);

test('a package that there is not, and one that cannot be had, are named', { timeout: 60_000 }, async () => {
  const entries = [...newer('less', '676-1'), { name: 'more', version: '1', depends: 'libnothing' }];
  archive.publish({ suite: 'trixie', entries });
  await refused(choose({ packages: ['moer'] }), /Cannot choose the packages: .*moer/, /is the name right/);
  await refused(choose({ packages: ['more'] }), /Cannot choose the packages: .*libnothing/, /cannot be together/);
});

async function refused(choice: Promise<unknown>, message: RegExp, hint: RegExp): Promise<void> {
  await assert.rejects(choice, (error) => {
    assert.ok(error instanceof Error && 'hint' in error && typeof error.hint === 'string');
    assert.match(error.message, message);
    assert.match(error.hint, hint);
    return true;
  });
}

/** Serves the archive's files as they are. */
function serve(path: string, response: Parameters<RequestListener>[1]): void {
  const file = join(archive.folder, path);
  if (!existsSync(file)) response.writeHead(404);
  response.end(existsSync(file) ? readFileSync(file) : 'no such file');
}

async function serving(listener: RequestListener, act: (url: string) => Promise<void>): Promise<void> {
  const server = createServer(listener);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  try {
    await act(`http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}
