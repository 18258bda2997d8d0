import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatPublicKey, parsePublicKey, parseSecretKey, signMinisign, verifyMinisign } from './minisign.ts';

// Made by minisign 0.11: "minisign -G -W", then "minisign -S -t 'from minisign'" of the content.
const PUBLIC = 'RWRVe3a8mdu1hmXkYiOCPGmHcKWgruknZviBV6kO/uw1z44agqYrpwAW';
const SECRET =
  'RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAVXt2vJnbtYZOcBDiqOiGA3nJFdh6YdQh+juqcySsCcpx5Hi+z18jP2XkYiOCPGmHcKWgruknZviBV6kO/uw1z44agqYrpwAWAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=';
const CONTENT = new TextEncoder().encode('hello\n');
const SIGNATURE = `untrusted comment: signature from minisign secret key
RURVe3a8mdu1hhbCajyBKsrToJXudmIdBaPaNakzzZExc8r9QSsOq8WeOisypT9N1W/KjvqjbqRMwx1qiIasi7Y/Zs2GreYMqw8=
trusted comment: from minisign
LaqI01cBLqqHQeHljJJIgqx7iHXYqYVEniGmAFA00c000EEs5q7RpYqvjFRP4PFNxFXnfh12rr7SHQsG0RimAA==
`;
/** Of the content itself and not of its digest, as minisign before 0.10 did: "minisign -S -l". */
const OLD_SIGNATURE = `untrusted comment: signature from minisign secret key
RWRVe3a8mdu1hpeZ0i84Gx8bcfXbwpT2Foc9QS1Mt87t6IS2s5JftPlWMU9oJCXYlZFKr8KZkAnZOxX+hzD2qJpF34laI6gZ0gg=
trusted comment: from minisign
M/LIkyCMnqfOxPsAKxMBfRj+XCu5SBwKTTml4v1ZD94nJFeJnmwAD/zPmQwgEJuS9UYAXQ+8OZ526GOI9dfEAA==
`;

describe('minisign', () => {
  test('accepts what minisign has signed, and gives the trusted comment', () => {
    assert.equal(verifyMinisign(CONTENT, SIGNATURE, parsePublicKey(PUBLIC)), 'from minisign');
  });

  test('accepts a signature of the old kind, and no other content by it', () => {
    const key = parsePublicKey(PUBLIC);
    assert.equal(verifyMinisign(CONTENT, OLD_SIGNATURE, key), 'from minisign');
    assert.throws(() => verifyMinisign(CONTENT.subarray(1), OLD_SIGNATURE, key), /does not fit the content/);
    // The kind is in the signature and not signed: the other one is another signature.
    assert.throws(() => verifyMinisign(CONTENT, OLD_SIGNATURE.replace('RWRV', 'RURV'), key), /does not fit/);
    assert.throws(() => verifyMinisign(CONTENT, SIGNATURE.replace('RURV', 'RWRV'), key), /does not fit/);
  });

  test('gives the signature that minisign gives: Ed25519 has no chance in it', () => {
    const lines = signMinisign(CONTENT, parseSecretKey(SECRET), 'from minisign').split('\n');
    assert.deepEqual(lines.slice(1), SIGNATURE.split('\n').slice(1));
  });

  test('a public key is derived from its secret one', () => {
    assert.equal(formatPublicKey(parseSecretKey(SECRET)).split('\n')[1], PUBLIC);
  });

  test('refuses another content, another comment, another key, a cut signature', () => {
    const key = parsePublicKey(PUBLIC);
    assert.throws(
      () => verifyMinisign(new TextEncoder().encode('hallo\n'), SIGNATURE, key),
      /does not fit the content/,
    );
    assert.throws(
      () => verifyMinisign(CONTENT, SIGNATURE.replace('comment: from', 'comment: by'), key),
      /comment in its signature was altered/,
    );
    const other = { ...key, id: new Uint8Array(8) };
    assert.throws(() => verifyMinisign(CONTENT, SIGNATURE, other), /not of 0000000000000000 that is trusted/);
    for (let length = 0; length < SIGNATURE.length - 1; length += 1) {
      assert.throws(() => verifyMinisign(CONTENT, SIGNATURE.slice(0, length), key), { name: 'MinisignError' });
    }
  });

  test('refuses a secret key that was altered, and says when a password is needed', () => {
    const bytes = Buffer.from(SECRET, 'base64');
    bytes.writeUInt8(bytes.readUInt8(70) ^ 1, 70);
    assert.throws(() => parseSecretKey(bytes.toString('base64')), /its halves do not fit/);
    bytes.write('Sc', 2, 'latin1');
    assert.throws(() => parseSecretKey(bytes.toString('base64')), /it is encrypted/);
    assert.throws(() => parseSecretKey('RWQ='), /not in its form/);
    assert.throws(() => parsePublicKey(SECRET), /begin with RW/);
  });
});
