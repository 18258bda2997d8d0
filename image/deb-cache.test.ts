/** Fetching from servers that misbehave: each is named with what it did, and nothing wrong gets into the cache. */
import assert from 'node:assert/strict';
import { createHash, pbkdf2 } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { PackageLock } from '../manifests/package-lock.ts';
import { FetchError, fetchPackages } from './deb-cache.ts';

const CONTENT = Buffer.from('!<arch>\n'.repeat(5000));

const lockFor = (uri: string, content: Uint8Array = CONTENT): PackageLock => ({
  format: 1,
  suite: 'trixie',
  architecture: 'amd64',
  requested: ['less'],
  sources: [
    {
      uri,
      suite: 'trixie',
      components: ['main'],
      releaseSha256: '0'.repeat(64),
      releaseDate: '2026-09-12T07:55:41.000Z',
    },
  ],
  packages: [
    {
      name: 'less',
      version: '1:668-1',
      architecture: 'amd64',
      source: 0,
      path: 'pool/main/l/less/less_668-1+b1_amd64.deb',
      sizeBytes: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
    },
  ],
});

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Runs a test against a server on loopback and an empty cache. */
async function against(
  answer: Answer,
  act: (place: { readonly url: string; readonly cache: string; readonly asked: string[] }) => Promise<void>,
): Promise<void> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    answer(request, response);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const cache = await mkdtemp(join(tmpdir(), 'buildos-debs-'));
  try {
    await act({ url: `http://127.0.0.1:${port}`, cache, asked });
  } finally {
    server.closeAllConnections();
    server.close();
    await rm(cache, { recursive: true, force: true });
  }
}

/** The error for a server that misbehaves; the cache must be empty afterwards. */
async function refused(answer: Answer, lock = lockFor): Promise<FetchError> {
  let found: FetchError | undefined;
  await against(answer, async ({ url, cache }) => {
    const options = { lock: lock(`${url}/debian`), cache, snapshot: undefined, stallMs: 300 };
    await assert.rejects(fetchPackages(options), (error) => {
      assert.ok(error instanceof FetchError);
      found = error;
      return true;
    });
    assert.deepEqual(await readdir(join(cache, 'debs')), []);
  });
  assert.ok(found);
  return found;
}

test('a package is fetched once, by its digest', async () => {
  await against(
    (_request, response) => response.end(CONTENT),
    async ({ url, cache, asked }) => {
      const lock = lockFor(`${url}/debian`);
      const [file = ''] = await fetchPackages({ lock, cache });
      assert.deepEqual(await readFile(file), CONTENT);
      assert.equal(file, join(cache, 'debs', `${lock.packages[0]?.sha256}.deb`));
      assert.deepEqual(await fetchPackages({ lock, cache }), [file]);
      assert.deepEqual(asked, ['/debian/pool/main/l/less/less_668-1%2Bb1_amd64.deb']);
    },
  );
});

test('a package comes whole while memory is short and the machine busy', async (t) => {
  setFlagsFromString('--expose-gc');
  const collectGarbage: unknown = runInNewContext('gc');
  assert.ok(typeof collectGarbage === 'function');
  const plain = globalThis.fetch;
  // Between the answer and its first byte: what opens files has no thread to spare, and garbage is collected.
  const busy: typeof plain = async (...args) => {
    const response = await plain(...args);
    for (let jobs = 0; jobs < 32; jobs += 1) pbkdf2('a', 'b', 50_000, 32, 'sha256', () => undefined);
    for (const ms of [1, 10]) setTimeout(() => void Reflect.apply(collectGarbage, undefined, []), ms);
    return response;
  };
  // By hand: a mock of node:test would keep the answer.
  globalThis.fetch = busy;
  t.after(() => void (globalThis.fetch = plain));
  await against(
    (_request, response) => response.end(CONTENT),
    async ({ url, cache, asked }) => {
      await fetchPackages({ lock: lockFor(`${url}/debian`), cache, snapshot: undefined });
      assert.equal(asked.length, 1);
    },
  );
});

test('a package that was altered or cut in the cache is fetched again', async () => {
  await against(
    (_request, response) => response.end(CONTENT),
    async ({ url, cache, asked }) => {
      const lock = lockFor(`${url}/debian`);
      const [file = ''] = await fetchPackages({ lock, cache });
      const altered = Buffer.from(CONTENT);
      altered[20_000] = 0;
      for (const damaged of [altered, CONTENT.subarray(0, 1000)]) {
        await writeFile(file, damaged);
        const lines: string[] = [];
        await fetchPackages({ lock, cache, onProgress: (line) => lines.push(line) });
        assert.match(lines.join('\n'), /less is damaged in the cache/);
        assert.deepEqual(await readFile(file), CONTENT);
      }
      assert.equal(asked.length, 3);
    },
  );
});

test('an altered package is refused, with both digests', async () => {
  const altered = Buffer.from(CONTENT);
  altered[100] = 0;
  const error = await refused((_request, response) => response.end(altered));
  assert.match(error.message, /^Cannot fetch less 1:668-1: http:.*altered: its SHA-256 is [0-9a-f]{64}, the lock says/);
  assert.match(error.hint, /--mirror/);
});

test('a truncated package is refused, however it was cut', async () => {
  const short = await refused((_request, response) => response.end(CONTENT.subarray(0, 1000)));
  assert.match(short.message, /1000 bytes, not the 40000 bytes of the lock/);
  const cut = await refused((_request, response) => {
    response.writeHead(200, { 'content-length': CONTENT.length });
    response.write(CONTENT.subarray(0, 1000), () => response.destroy());
  });
  assert.match(cut.message, /cut off after \d+ of 40000 bytes/);
});

test('a server that sends more than there should be is not listened to', async () => {
  const error = await refused((_request, response) => response.end(Buffer.concat([CONTENT, CONTENT])));
  assert.match(error.message, /more than the 40000 bytes/);
});

test('a server that stops sending is given up', async () => {
  const error = await refused((_request, response) => response.write(CONTENT.subarray(0, 1000)));
  assert.match(error.message, /no data for 0\.3 s/);
  const silent = await refused(() => undefined);
  assert.match(silent.message, /no data for 0\.3 s/);
});

test('nobody there', async () => {
  const error = await refused(
    () => undefined,
    () => lockFor('http://127.0.0.1:9/debian'),
  );
  assert.match(error.message, /http:\/\/127\.0\.0\.1:9\/debian\/pool\/.*no answer/);
});

test('a version that the mirror has no more comes from the snapshot archive, as of soon after the lock', async () => {
  const answer: Answer = (request, response) => {
    const kept = request.url?.startsWith('/snapshot/archive/debian/20260912T195541Z/pool/') === true;
    response.writeHead(kept ? 200 : 404);
    response.end(kept ? CONTENT : 'gone');
  };
  await against(answer, async ({ url, cache, asked }) => {
    await fetchPackages({ lock: lockFor(`${url}/debian`), cache, snapshot: `${url}/snapshot` });
    assert.equal(asked.length, 2);
  });
  const error = await refused(answer);
  assert.match(error.message, /HTTP 404/);
  assert.match(error.hint, /buildos image update.*--snapshot/);
});

test('a snapshot archive that has not got it either, or does not answer, is named', async () => {
  for (const snapshot of [undefined, 'http://127.0.0.1:9']) {
    await against(
      (_request, response) => response.writeHead(404).end(),
      async ({ url, cache, asked }) => {
        const options = { lock: lockFor(`${url}/debian`), cache, snapshot: snapshot ?? `${url}/snapshot` };
        await assert.rejects(fetchPackages(options), (error) => {
          assert.ok(error instanceof FetchError);
          assert.match(error.message, snapshot === undefined ? /snapshot.*: HTTP 404/ : /127\.0\.0\.1:9.*no answer/);
          assert.match(error.hint, /the snapshot archive does not give it/);
          return true;
        });
        // The release's own time is asked for, too.
        if (snapshot === undefined) assert.match(asked.at(-1) ?? '', /20260912T075541Z/);
      },
    );
  }
});

test('a server that says "later" is asked again, a bounded number of times', async () => {
  let refusals = 2;
  const busy: Answer = (_request, response) => {
    refusals -= 1;
    response.writeHead(refusals < 0 ? 200 : 503);
    response.end(refusals < 0 ? CONTENT : 'later');
  };
  await against(busy, async ({ url, cache }) => {
    await fetchPackages({ lock: lockFor(`${url}/debian`), cache, snapshot: undefined, laterMs: 1 });
  });
  await against(
    (_request, response) => response.writeHead(429).end(),
    async ({ url, cache, asked }) => {
      const options = { lock: lockFor(`${url}/debian`), cache, snapshot: undefined, laterMs: 1 };
      await assert.rejects(fetchPackages(options), /HTTP 429/);
      assert.equal(asked.length, 6);
    },
  );
});

test('offline, nobody is asked, and what is missing is named', async () => {
  await against(
    (_request, response) => response.end(CONTENT),
    async ({ url, cache, asked }) => {
      const options = { lock: lockFor(`${url}/debian`), cache, offline: true };
      await assert.rejects(fetchPackages(options), (error) => {
        assert.ok(error instanceof FetchError);
        assert.equal(error.message, 'Cannot build offline: not in the cache: less 1:668-1');
        return true;
      });
      assert.deepEqual(asked, []);
      await fetchPackages({ ...options, offline: false });
      assert.equal((await fetchPackages(options)).length, 1);
    },
  );
});
