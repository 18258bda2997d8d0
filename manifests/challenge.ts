/**
 * The proof that a result comes from the agent that took the task: a nonce signed with the agent's private key.
 *
 * Ed25519 signs the nonce itself (RFC 8032). RSA signs as existing agents do (`openssl pkeyutl -sign`): PKCS #1 v1.5
 * padding around the bare nonce, without the name of a digest, so it must be shorter than the key; a signature
 * over its SHA-256 (RFC 8017 §8.2) is also accepted.
 */
import { constants, createHash, createPublicKey, privateEncrypt, publicDecrypt, sign, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

/** SHA-256 of the public key's DER form (SPKI), lower case hexadecimal; of a private key, that of its public half. */
export function keyFingerprint(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key;
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex');
}

/**
 * Signs a challenge.
 *
 * @param nonce - as the controller gave it
 * @param key - private, Ed25519 or RSA
 * @returns base64
 */
export function signChallenge(nonce: string, key: KeyObject): string {
  const bytes = new TextEncoder().encode(nonce);
  if (key.asymmetricKeyType === 'ed25519') return sign(undefined, bytes, key).toString('base64');
  if (key.asymmetricKeyType === 'rsa') {
    return privateEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, bytes).toString('base64');
  }
  throw new TypeError(`Cannot sign with a key of type ${String(key.asymmetricKeyType)}: Ed25519 or RSA is needed`);
}

/** Whether a signature (base64) over the nonce was made with the private half of this public key. */
export function isSigned(nonce: string, signature: string, key: KeyObject): boolean {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(signature)) return false;
  const bytes = new TextEncoder().encode(nonce);
  const signed = Buffer.from(signature, 'base64');
  try {
    if (key.asymmetricKeyType === 'ed25519') return verify(undefined, bytes, key, signed);
    if (key.asymmetricKeyType !== 'rsa') return false;
    if (verify('sha256', bytes, key, signed)) return true;
    return publicDecrypt({ key, padding: constants.RSA_PKCS1_PADDING }, signed).equals(bytes);
  } catch {
    // A signature of the wrong length or padding is a wrong signature.
    return false;
  }
}
