/**
 * Signatures in the minisign format: Ed25519 over the BLAKE2b-512 digest of a file, beside it as `<file>.minisig`.
 *
 * ```
 *   untrusted comment: …                        not signed
 *   base64( alg 2 │ key id 8 │ signature 64 )   alg "ED": of the digest; "Ed": of the file itself (old)
 *   trusted comment: …                          signed
 *   base64( signature 64 )                      of the signature above and the trusted comment
 * ```
 *
 * Source: jedisct1.github.io/minisign, "Signature format"; libsodium's `pwhash_scryptsalsa208sha256` for the password
 * of a secret key. The checksum in a secret key is not looked at: that its two halves belong together says the same.
 */
import {
  type KeyObject,
  createHash,
  createPrivateKey,
  createPublicKey,
  scryptSync,
  sign as signRaw,
  verify as verifyRaw,
} from 'node:crypto';

/** A key or signature that cannot be read, or does not fit. */
export class MinisignError extends Error {
  override readonly name = 'MinisignError';
  readonly hint: string;

  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}

/** A public key. */
export interface MinisignPublicKey {
  /** 8 bytes; says which key has signed, and proves nothing. */
  readonly id: Uint8Array;
  readonly key: KeyObject;
}

/** A secret key; a KeyObject does not show what it holds. */
export interface MinisignSecretKey {
  readonly id: Uint8Array;
  readonly key: KeyObject;
}

const KEY_ID_BYTES = 8;
const SIGNATURE_BYTES = 64;
const PUBLIC_KEY_BYTES = 2 + KEY_ID_BYTES + 32;
const SECRET_KEY_BYTES = 2 + 2 + 2 + 32 + 8 + 8 + 104;
/** DER of an Ed25519 key, up to the 32 bytes of the key itself (RFC 8410 §4, §7). */
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');
/** More than minisign's own keys ask for (1 GiB) is a file made to exhaust memory. */
const SCRYPT_MEMORY_MAX_BYTES = 2 * 1024 ** 3;

const TRUSTED = 'trusted comment: ';

/**
 * Reads a public key: the file `minisign.pub`, or the line of base64 in it, as options have it.
 *
 * @throws {MinisignError}
 */
export function parsePublicKey(text: string): MinisignPublicKey {
  const line = text.trim().split(/\r?\n/).at(-1) ?? '';
  const bytes = decodeBase64(line);
  if (bytes?.length !== PUBLIC_KEY_BYTES || bytes.toString('latin1', 0, 2) !== 'Ed') {
    throw new MinisignError(
      `Cannot read the minisign public key "${line.slice(0, 80)}": not 56 characters of base64 that begin with RW`,
      'it is the second line of the file minisign.pub',
    );
  }
  return { id: bytes.subarray(2, 2 + KEY_ID_BYTES), key: publicKeyOf(bytes.subarray(2 + KEY_ID_BYTES)) };
}

/**
 * Reads a secret key, as `minisign -G` writes it.
 *
 * @param password - of an encrypted one; deriving the key takes a second and 1 GiB
 * @throws {MinisignError} when it is malformed, encrypted and no password is given, or the password is wrong
 */
export function parseSecretKey(text: string, password?: string): MinisignSecretKey {
  const bytes = decodeBase64(text.trim().split(/\r?\n/).at(-1) ?? '');
  if (bytes?.length !== SECRET_KEY_BYTES || bytes.toString('latin1', 0, 2) !== 'Ed') {
    throw new MinisignError('Cannot read the minisign secret key: not in its form', 'minisign -G makes one');
  }
  const kdf = bytes.subarray(2, 4).toString('latin1');
  const secret = Buffer.from(bytes.subarray(54));
  if (kdf === 'Sc') {
    if (password === undefined) {
      throw new MinisignError(
        'Cannot use the minisign secret key: it is encrypted',
        'give its password, or a key made with "minisign -G -W"',
      );
    }
    const stream = deriveStream(password, bytes.subarray(6, 38), bytes.readBigUInt64LE(38), bytes.readBigUInt64LE(46));
    for (const [index, byte] of stream.entries()) secret.writeUInt8(secret.readUInt8(index) ^ byte, index);
  } else if (kdf !== '\0\0') {
    throw new MinisignError('Cannot read the minisign secret key: its encryption is unknown', 'minisign -G makes one');
  }
  const seed = secret.subarray(KEY_ID_BYTES, KEY_ID_BYTES + 32);
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, seed]), format: 'der', type: 'pkcs8' });
  const publicHalf = createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(SPKI_PREFIX.length);
  if (!publicHalf.equals(secret.subarray(KEY_ID_BYTES + 32, KEY_ID_BYTES + 64))) {
    throw new MinisignError(
      `Cannot use the minisign secret key: ${kdf === 'Sc' ? 'the password is wrong' : 'its halves do not fit'}`,
      'minisign -S with the same key says whether it is good',
    );
  }
  return { id: secret.subarray(0, KEY_ID_BYTES), key };
}

/**
 * Signs, as `minisign -S` does.
 *
 * @param trustedComment - one line, signed too: say what it is, for instance the build id
 * @returns the text of the `.minisig` file
 */
export function signMinisign(content: Uint8Array, secretKey: MinisignSecretKey, trustedComment: string): string {
  if (/[\r\n]/.test(trustedComment)) throw new RangeError('Cannot sign: the trusted comment has more than one line');
  const signature = signRaw(null, digestOf(content), secretKey.key);
  const global = signRaw(null, Buffer.concat([signature, Buffer.from(trustedComment)]), secretKey.key);
  const first = Buffer.concat([Buffer.from('ED'), secretKey.id, signature]);
  return [
    `untrusted comment: signature by key ${formatKeyId(secretKey.id)}`,
    first.toString('base64'),
    `${TRUSTED}${trustedComment}`,
    global.toString('base64'),
    '',
  ].join('\n');
}

/**
 * Checks a signature.
 *
 * @param signatureText - the `.minisig` file
 * @returns the trusted comment
 * @throws {MinisignError} when the content, the comment or the key is another one; the message goes on after a colon
 */
export function verifyMinisign(content: Uint8Array, signatureText: string, publicKey: MinisignPublicKey): string {
  const [untrusted = '', first = '', comment = '', second = ''] = signatureText.split(/\r?\n/);
  const signed = decodeBase64(first);
  const global = decodeBase64(second);
  const algorithm = signed?.toString('latin1', 0, 2);
  if (
    !untrusted.startsWith('untrusted comment:') ||
    signed?.length !== 2 + KEY_ID_BYTES + SIGNATURE_BYTES ||
    !(algorithm === 'ED' || algorithm === 'Ed') ||
    !comment.startsWith(TRUSTED) ||
    global?.length !== SIGNATURE_BYTES
  ) {
    throw new MinisignError('its signature is not in the minisign format', 'sign again with "minisign -S"');
  }
  const id = signed.subarray(2, 2 + KEY_ID_BYTES);
  if (!id.equals(publicKey.id)) {
    throw new MinisignError(
      `its signature is of the key ${formatKeyId(id)}, not of ${formatKeyId(publicKey.id)} that is trusted`,
      'sign with the key that is trusted, or trust the other one',
    );
  }
  const signature = signed.subarray(2 + KEY_ID_BYTES);
  const trustedComment = comment.slice(TRUSTED.length);
  if (!verifyRaw(null, algorithm === 'ED' ? digestOf(content) : content, publicKey.key, signature)) {
    throw new MinisignError(
      'its signature does not fit the content',
      'one of the two was altered, or is being published just now: publish and sign again if it stays so',
    );
  }
  if (!verifyRaw(null, Buffer.concat([signature, Buffer.from(trustedComment)]), publicKey.key, global)) {
    throw new MinisignError('the comment in its signature was altered', 'sign again with "minisign -S"');
  }
  return trustedComment;
}

/** The text of a public key file. */
export function formatPublicKey(secretKey: MinisignSecretKey): string {
  const raw = createPublicKey(secretKey.key).export({ format: 'der', type: 'spki' }).subarray(SPKI_PREFIX.length);
  const line = Buffer.concat([Buffer.from('Ed'), secretKey.id, raw]).toString('base64');
  return `untrusted comment: minisign public key ${formatKeyId(secretKey.id)}\n${line}\n`;
}

/** As minisign prints it: the bytes as one little-endian number. */
function formatKeyId(id: Uint8Array): string {
  return Buffer.from(id)
    .toReversed()
    .reduce((text, byte) => text + byte.toString(16).padStart(2, '0'), '')
    .toUpperCase();
}

function publicKeyOf(raw: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI_PREFIX, raw]), format: 'der', type: 'spki' });
}

function digestOf(content: Uint8Array): Buffer {
  return createHash('blake2b512').update(content).digest();
}

function decodeBase64(text: string): Buffer | undefined {
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]+={0,2}$/.test(text) ? Buffer.from(text, 'base64') : undefined;
}

/** libsodium's choice of scrypt parameters (pickparams() in pwhash_scryptsalsa208sha256.c), and the stream of 104 bytes. */
function deriveStream(password: string, salt: Uint8Array, opsLimit: bigint, memoryLimit: bigint): Buffer {
  const r = 8;
  const ops = Math.max(32_768, Number(opsLimit));
  const memory = Number(memoryLimit);
  const fewOps = ops < memory / 32;
  const maxN = fewOps ? ops / (r * 4) : memory / (r * 128);
  let N = 2;
  while (N <= maxN / 2 && N < 2 ** 40) N *= 2;
  const p = fewOps ? 1 : Math.floor(Math.min(ops / 4 / N, 0x3fffffff) / r);
  if (128 * N * r * Math.max(p, 1) > SCRYPT_MEMORY_MAX_BYTES) {
    throw new MinisignError(
      'Cannot use the minisign secret key: it asks for too much memory',
      'minisign -G makes another',
    );
  }
  return scryptSync(password, salt, 104, { N, r, p: Math.max(p, 1), maxmem: SCRYPT_MEMORY_MAX_BYTES + 1024 ** 2 });
}
