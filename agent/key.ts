/** The agent's key: Ed25519, made once, the private half in PEM (PKCS #8) in the state folder. */
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { makeFolder } from './_make-folder.ts';

/** A key, and what is to be said of it. */
export interface AgentKey {
  readonly key: KeyObject;
  /** Set when the key could not be kept or read: controllers that trust the old one will not know this one. */
  readonly problem?: string;
}

/**
 * Reads the key, or makes it. Where it cannot be kept, a new one serves until the agent ends.
 *
 * @param file - on the state disk; its folder is made
 */
export async function openKey(file: string): Promise<AgentKey> {
  try {
    return { key: createPrivateKey(await readFile(file)) };
  } catch (error) {
    const { privateKey } = generateKeyPairSync('ed25519');
    if (!isAbsent(error)) {
      // A key that somebody may still repair is not overwritten.
      return { key: privateKey, problem: `Cannot read the key ${file}: ${reasonOf(error)}; another is used for now` };
    }
    try {
      await keep(file, privateKey);
      return { key: privateKey };
    } catch (cause) {
      return {
        key: privateKey,
        problem: `Cannot keep the key in ${file}: ${reasonOf(cause)}; it is lost when this ends`,
      };
    }
  }
}

async function keep(file: string, key: KeyObject): Promise<void> {
  await makeFolder(dirname(file));
  const temporary = `${file}.new`;
  try {
    {
      await using handle = await open(temporary, 'w', 0o600);
      await handle.writeFile(key.export({ type: 'pkcs8', format: 'pem' }));
      await handle.sync();
    }
    await rename(temporary, file);
    await using folder = await open(dirname(file), 'r');
    await folder.sync();
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
}

const isAbsent = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');
const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
