import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findSourceArchive } from './apt.ts';

const STANZAS = `Package: hello
Version: 2.10-5
Files:
 6cd0ffea3884a4e79330338dcc2987d6 725946 hello_2.10.orig.tar.gz
Checksums-Sha256:
 319f8c377eb48597798b699f72ab853f3439a991583ddd51bf94b415373ffdfe 1736 hello_2.10-5.dsc
 31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b 725946 hello_2.10.orig.tar.gz
Homepage: https://www.gnu.org/software/hello/
Directory: pool/main/h/hello
`;

test('findSourceArchive() takes directory, size and SHA-256 from the stanza', () => {
  assert.deepEqual(findSourceArchive(`Package: other\n\n${STANZAS}\n`, 'hello_2.10.orig.tar.gz'), {
    directory: 'pool/main/h/hello',
    file: 'hello_2.10.orig.tar.gz',
    sha256: '31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b',
    sizeBytes: 725946,
  });
});

test('findSourceArchive() finds nothing where the archive, its digest or the directory is missing', () => {
  assert.equal(findSourceArchive(STANZAS, 'hello_2.11.orig.tar.gz'), undefined);
  assert.equal(findSourceArchive(STANZAS.replace(/^Directory.*$/m, ''), 'hello_2.10.orig.tar.gz'), undefined);
  assert.equal(findSourceArchive(STANZAS.replaceAll('31e0', 'zzzz'), 'hello_2.10.orig.tar.gz'), undefined);
});
