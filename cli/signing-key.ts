/** `--sign` and `--password-file`, of commands that publish what hosts may be told to trust. */
import { readFile } from 'node:fs/promises';
import { type MinisignSecretKey, formatPublicKey, parseSecretKey } from '../manifests/minisign.ts';

/** As the options give it. */
export interface SigningFlags {
  readonly sign?: string;
  readonly passwordFile?: string;
}

/** There is no key to sign with. */
export class SigningKeyError extends Error {
  override readonly name = 'SigningKeyError';
  readonly hint = 'minisign -G makes a key; --password-file names a file with the password of one that has any';
}

/**
 * Reads the key that is to sign; undefined when none is asked for.
 *
 * @throws {SigningKeyError} when it cannot be read or used
 */
export async function signingKeyOf(flags: SigningFlags): Promise<MinisignSecretKey | undefined> {
  if (flags.sign === undefined) return undefined;
  const read = async (file: string, option: string): Promise<string> => {
    return await readFile(file, 'utf8').catch((cause: unknown) => {
      throw new SigningKeyError(`Cannot sign: cannot read the file ${file} of ${option}`, { cause });
    });
  };
  const password = flags.passwordFile === undefined ? undefined : await read(flags.passwordFile, '--password-file');
  const text = await read(flags.sign, '--sign');
  try {
    return parseSecretKey(text, password?.replace(/\r?\n$/, ''));
  } catch (cause) {
    throw new SigningKeyError(`Cannot sign with the key ${flags.sign}`, { cause });
  }
}

/** The option that has hosts check it, as `image publish` takes it: `--option toolchain_trust=RW…`. */
export function trustOption(name: 'buildid_trust' | 'toolchain_trust', key: MinisignSecretKey): string {
  return `--option ${name}=${formatPublicKey(key).split('\n')[1]}`;
}
