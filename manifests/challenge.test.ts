import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { isSigned, keyFingerprint, signChallenge } from './challenge.ts';

const ed25519 = generateKeyPairSync('ed25519');
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const NONCE = 'ab'.repeat(32);

test('a challenge signed with either kind of key is verified with its public half only', () => {
  for (const [mine, other] of [
    [ed25519, rsa],
    [rsa, ed25519],
  ] as const) {
    const signature = signChallenge(NONCE, mine.privateKey);
    assert.ok(isSigned(NONCE, signature, mine.publicKey));
    assert.ok(!isSigned(`${NONCE}0`, signature, mine.publicKey));
    assert.ok(!isSigned(NONCE, signature, other.publicKey));
    assert.ok(!isSigned(NONCE, signature.slice(4), mine.publicKey));
  }
});

test('an RSA signature over the SHA-256 is taken too, garbage is not', () => {
  const signature = sign('sha256', Buffer.from(NONCE), rsa.privateKey).toString('base64');
  assert.ok(isSigned(NONCE, signature, rsa.publicKey));
  for (const garbage of ['', 'AAAA', '!', 'A'.repeat(344)]) {
    assert.ok(!isSigned(NONCE, garbage, rsa.publicKey));
    assert.ok(!isSigned(NONCE, garbage, ed25519.publicKey));
  }
});

test('both halves of a key have the same fingerprint', () => {
  assert.match(keyFingerprint(rsa.publicKey), /^[0-9a-f]{64}$/);
  assert.equal(keyFingerprint(rsa.publicKey), keyFingerprint(rsa.privateKey));
  assert.notEqual(keyFingerprint(rsa.publicKey), keyFingerprint(ed25519.publicKey));
});

test('signChallenge() refuses a key of another kind', () => {
  assert.throws(() => signChallenge(NONCE, generateKeyPairSync('x25519').privateKey), TypeError);
});
