/** Which host an image is made of: one that we ship, by name, or a module of the user; and the lock beside it. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Option } from 'commander';
import type { BuildOptions } from '../image/build.ts';
import type { ImageDefinition } from '../image/build-inputs.ts';
import { readLock } from '../image/lock.ts';
import { HostDefinitionError } from '../properties/host-definition.ts';
import { loadHostDefinition } from '../properties/load-host.ts';

const HOSTS = join(import.meta.dirname, '../image/hosts');

/** What `image build` makes without a name. */
export const DEFAULT_HOST = 'build-host';

/** For the help of commands that take one. */
export const HOST_HELP: string =
  '\nHOST is a name of "buildos host list", or the path of a module with a definition: ./my-host.ts.\n' +
  'Its lock is beside it: my-host.lock.json ("buildos image update" makes and renews it).';

/** A host that an image can be made of. */
export interface ImageHost {
  readonly definition: ImageDefinition;
  /** Where its lock is, or would be. */
  readonly lockFile: string;
}

/** @throws {HostDefinitionError} */
export async function loadImageHost(nameOrPath: string): Promise<ImageHost> {
  const isPath = /[/.]/.test(nameOrPath);
  const names = readdirSync(HOSTS).filter((name) => /^[a-z].*\.ts$/.test(name));
  if (!isPath && !names.includes(`${nameOrPath}.ts`)) {
    throw new HostDefinitionError(`There is no host "${nameOrPath}"`, {
      hint: `There are ${names.map((name) => name.slice(0, -3)).join(', ')}; or give the path of a module: ./${nameOrPath}.ts`,
    });
  }
  const loaded = await loadHostDefinition(isPath ? nameOrPath : join(HOSTS, `${nameOrPath}.ts`));
  return {
    definition: (inputs) => loaded.define(inputs),
    lockFile: `${loaded.path.replace(/\.[cm]?[jt]s$/, '')}.lock.json`,
  };
}

/** A lock that is asked for is not there. */
class NoLockError extends Error {
  override readonly name = 'NoLockError';
  readonly hint =
    '"buildos image update" makes one: its --lock names the file; without --lock it is beside the definition';
}

/** `--lock FILE`, `--no-lock`. */
export function lockOptions(): readonly Option[] {
  return [
    new Option('--lock <file>', 'the lock to build from; default: the one beside the definition, if there is one'),
    new Option('--no-lock', 'take what the archives offer today'),
  ];
}

/** The lock that is asked for: a file, `false` for `--no-lock`, or else the one beside the definition if there is one. */
export async function findLock(asked: string | false | undefined, beside: string): Promise<BuildOptions['lock']> {
  if (asked === false) return undefined;
  const file = typeof asked === 'string' ? asked : beside;
  try {
    return { content: await readLock(file), file };
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (!missing) throw error;
    if (asked === undefined) return undefined;
    throw new NoLockError(`Cannot read the lock ${file}: there is no such file`);
  }
}
