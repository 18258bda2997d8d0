/** Each way in which what is published may not be one whole is seen and named. */
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { formatImageManifest } from '../manifests/image-manifest.ts';
import { type MinisignSecretKey, formatPublicKey, signMinisign } from '../manifests/minisign.ts';
import { formatSha256Sums } from '../manifests/sha256sums.ts';
import { formatToolchainList } from '../manifests/toolchain-list.ts';
import { TEXT_LIMITS } from './fetch.ts';
import { IMAGE, UnpublishedError, checkImage, checkToolchain } from './published.ts';
import { UntrustedError } from './signed.ts';
import { listIdOf } from './toolchain.ts';

const LIMITS = { text: { ...TEXT_LIMITS, tries: 1 }, file: { ...TEXT_LIMITS, tries: 1 } };
const NEVER = new AbortController().signal;
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

type Files = Record<string, string>;

/** Serves files while something looks at them; `onAsked` may change them. */
async function serving<T>(
  files: Files,
  look: (url: string) => Promise<T>,
  onAsked: (path: string) => void = () => undefined,
): Promise<T> {
  const server = createServer((request, response) => {
    const path = request.url?.slice(1) ?? '';
    const content = files[path];
    onAsked(path);
    response.writeHead(content === undefined ? 404 : 200).end(content);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  try {
    return await look(`http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

function image(id: string): Files {
  const files: Files = {
    [IMAGE.buildId]: `${id}\n`,
    [IMAGE.kernel]: `kernel of ${id}`,
    [IMAGE.initrd]: `initrd of ${id}`,
  };
  files[IMAGE.manifest] = formatImageManifest({
    format: 1,
    buildId: id,
    host: 'h',
    hostSha256: '0'.repeat(64),
    architecture: 'amd64',
    base: { name: 'debian', version: '13', suite: 'trixie' },
    kernelVersion: '6',
    node: { version: '26', sha256: '0'.repeat(64) },
    packages: [],
    files: [IMAGE.kernel, IMAGE.initrd].map((path) => {
      const content = files[path] ?? '';
      return { path, sha256: sha256(content), sizeBytes: content.length };
    }),
    rootfsBytes: 1,
  });
  return { ...files, [IMAGE.sums]: sumsOf(files) };
}

const sumsOf = (files: Files): string =>
  formatSha256Sums(Object.entries(files).map(([path, content]) => ({ path, sha256: sha256(content) })));

const [A, B] = [image('aaaa'), image('bbbb')];
const { [IMAGE.sums]: _, ...withoutSums } = B;

/** With sums that fit, whatever else does not. */
const summed = (files: Files): Files => ({ ...files, [IMAGE.sums]: sumsOf(files) });

const check = async (files: Files, onAsked?: (path: string) => void, trust?: string): Promise<void> =>
  await serving(files, (url) => checkImage({ url: `${url}/${IMAGE.buildId}`, trust }, 'bbbb', LIMITS, NEVER), onAsked);

test('an image whose parts are of one build is whole', async () => {
  await check(B);
});

const WRONG: readonly (readonly [what: string, files: Files, message: RegExp])[] = [
  ['the build id', { ...B, [IMAGE.buildId]: 'aaaa\n' }, /^the build id is aaaa, expected bbbb: it is not published/],
  [
    'the manifest',
    { ...B, [IMAGE.manifest]: A[IMAGE.manifest] ?? '' },
    /^the build id in buildos-manifest.json is aaaa/,
  ],
  ['the kernel', { ...B, [IMAGE.kernel]: A[IMAGE.kernel] ?? '' }, /^the SHA-256 of buildos-image as served is /],
  ['the initrd', { ...B, [IMAGE.initrd]: A[IMAGE.initrd] ?? '' }, /^the SHA-256 of buildos-initrd as served is /],
  ['the sums', { ...B, [IMAGE.sums]: A[IMAGE.sums] ?? '' }, /^the SHA-256 of buildos-buildid is /],
  [
    'the manifest, by a space',
    { ...B, [IMAGE.manifest]: `${B[IMAGE.manifest]} ` },
    /^the SHA-256 of buildos-manifest.json is /,
  ],
  [
    'the kernel, with its sum',
    summed({ ...withoutSums, [IMAGE.kernel]: 'another' }),
    /^the SHA-256 of buildos-image in buildos-manifest.json is /,
  ],
  [
    'a line of the sums, which is missing',
    { ...B, [IMAGE.sums]: (B[IMAGE.sums] ?? '').replace(/^.*initrd\n/m, '') },
    /^SHA256SUMS does not have buildos-initrd/,
  ],
];

for (const [what, files, message] of WRONG) {
  test(`an image of one build, but for ${what}, is not whole`, async () => {
    await assert.rejects(check(files), (error) => {
      assert.ok(error instanceof UnpublishedError, String(error));
      assert.match(error.message, message);
      return true;
    });
  });
}

test('an image that is replaced while it is looked at is not whole', async () => {
  const files = { ...B };
  const replace = (path: string): void => {
    if (path === IMAGE.initrd) Object.assign(files, A);
  };
  await assert.rejects(check(files, replace), /^UnpublishedError: the build id, looked at again, is aaaa/);
});

test('a toolchain is whole when its list is the one that was seen, and its files are those of the list', async () => {
  const content = { 'toolchain.json': '{}', 'a b/bootstrap.sh': 'true\n' };
  const list = formatToolchainList({
    version: '1.0',
    disabled: false,
    files: Object.entries(content).map(([path, text]) => ({ path, sha256: sha256(text) })),
  });
  const files = { list, 'toolchain.json': '{}', 'a%20b/bootstrap.sh': 'true\n' };
  const look = async (served: Files, id = listIdOf(list)): Promise<void> =>
    await serving(served, (url) => checkToolchain({ url: `${url}/list`, trust: undefined }, id, LIMITS, NEVER));
  await look(files);
  await assert.rejects(look(files, 'f'.repeat(64)), /^UnpublishedError: the list http.*\/list is /);
  await assert.rejects(
    look({ ...files, 'a%20b/bootstrap.sh': 'false\n' }),
    /^UnpublishedError: the SHA-256 of http.*a%20b\/bootstrap\.sh is /,
  );
});

const OURS: MinisignSecretKey = { id: Buffer.from('OURS0000'), key: generateKeyPairSync('ed25519').privateKey };
const THEIRS: MinisignSecretKey = { id: Buffer.from('THEIRS00'), key: generateKeyPairSync('ed25519').privateKey };
const TRUST = formatPublicKey(OURS).split('\n')[1] ?? '';
const sign = (text: string, key = OURS): string => signMinisign(new TextEncoder().encode(text), key, 'test');
const SIGNED = { ...B, 'SHA256SUMS.minisig': sign(B[IMAGE.sums] ?? '') };

test('an image is followed when the key that is trusted has signed its sums', async () => {
  await check(SIGNED, undefined, TRUST);
});

const { 'SHA256SUMS.minisig': signature, ...unsigned } = SIGNED;
const other = { ...summed({ ...withoutSums, [IMAGE.kernel]: 'another' }), 'SHA256SUMS.minisig': signature };
const UNTRUSTED: readonly (readonly [what: string, files: Files, message: RegExp])[] = [
  [
    'no signature',
    unsigned,
    /^Cannot trust http:\S+\/SHA256SUMS without its signature: Cannot fetch \S+\.minisig: .*404/,
  ],
  ['a signature of other sums', other, /\/SHA256SUMS: its signature does not fit the content$/],
  [
    'a signature of another key',
    { ...SIGNED, 'SHA256SUMS.minisig': sign(B[IMAGE.sums] ?? '', THEIRS) },
    /SHA256SUMS: its signature is of the key 3030535249454854, not of 303030305352554F that is trusted$/,
  ],
  [
    'a signature of another key under our id',
    { ...SIGNED, 'SHA256SUMS.minisig': sign(B[IMAGE.sums] ?? '', { ...THEIRS, id: OURS.id }) },
    /does not fit the content$/,
  ],
  [
    'another comment',
    { ...SIGNED, 'SHA256SUMS.minisig': signature.replace(': test', ': text') },
    /comment .* was altered$/,
  ],
  ['no signature but a page', { ...SIGNED, 'SHA256SUMS.minisig': '<html>' }, /is not in the minisign format$/],
];

for (const [what, files, message] of UNTRUSTED) {
  test(`an image with ${what} is not trusted, and nothing large is fetched of it`, async () => {
    const asked: string[] = [];
    await assert.rejects(
      check(files, (path) => void asked.push(path), TRUST),
      (error) => {
        assert.ok(error instanceof UntrustedError, String(error));
        assert.match(error.message, message);
        assert.match(error.hint, /sign/);
        return true;
      },
    );
    assert.deepEqual(asked, [IMAGE.buildId, IMAGE.sums, 'SHA256SUMS.minisig']);
  });
}

test('an image is not what its signed sums say, however well all else fits', async () => {
  // The kernel and everything that can be written without the key.
  const files = { ...SIGNED, [IMAGE.kernel]: 'another' };
  await assert.rejects(check(files, undefined, TRUST), /^UnpublishedError: the SHA-256 of buildos-image as served is /);
});

test('nothing is signed by a key that is none', async () => {
  await assert.rejects(
    check(SIGNED, undefined, 'mistyped'),
    /^UntrustedError: .*SHA256SUMS: Cannot read the minisign public key/,
  );
});

test('a toolchain is followed when the key that is trusted has signed its list', async () => {
  const list = formatToolchainList({ version: '1', disabled: false, files: [{ path: 'a', sha256: sha256('') }] });
  const look = async (files: Files): Promise<void> =>
    await serving(files, (url) => checkToolchain({ url: `${url}/list`, trust: TRUST }, listIdOf(list), LIMITS, NEVER));
  await look({ list, a: '', 'list.minisig': sign(list) });
  await assert.rejects(look({ list, a: '' }), /^UntrustedError: Cannot trust \S+\/list without its signature/);
  await assert.rejects(look({ list, a: '', 'list.minisig': sign(`${list}\n`) }), /list: its signature does not fit/);
  await assert.rejects(
    look({ list, a: '', 'list.minisig': sign(list, THEIRS) }),
    /of the key 3030535249454854, not of 303030305352554F/,
  );
});
