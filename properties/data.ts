/**
 * Prerequisite data: what a property needs and a definition must not hold, such as passwords and private keys.
 *
 * It is named by a pair, context and name (`example.org`, `tls.key`), and looked for in several sources, all on the
 * controller. The newest version counts. All of it is treated as secret, but for what a definition calls public.
 */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Connection, DataSource as ConnectionData } from '../connections/connection.ts';
import { textThat } from './args.ts';
import { Secret, SecretMask } from './secret.ts';

/** The name of prerequisite data. */
export type DataRef = {
  /** What it belongs to: a host, a domain, a service. */
  readonly context: string;
  /** What it is, such as `tls.key`. */
  readonly name: string;
  /** Everybody may know it: it is shown, and may become part of an image. */
  readonly public?: true;
};

/** A place where data may be. */
export interface DataSource {
  /** For messages: `the folder /etc/secrets`. */
  readonly about: string;
  /** Whether it needs a person: asked last, and only when something is to be changed. */
  readonly asks?: true;
  /** Looks, without reading: the version (milliseconds since 1970), or undefined when it is not there. */
  find(ref: DataRef): Promise<{ readonly version: number; read(): Promise<string | Uint8Array> } | undefined>;
}

/** Data that no source has. Found before connecting. */
export class MissingDataError extends Error {
  override readonly name = 'MissingDataError';
  readonly refs: readonly DataRef[];
  readonly hint: string;

  constructor(refs: readonly DataRef[], sources: readonly DataSource[]) {
    const asked =
      sources.length === 0 ? 'no source was given' : `not in ${sources.map(({ about }) => about).join(', ')}`;
    super(`Cannot find the data ${refs.map(describeRef).join(', ')}: ${asked}`);
    this.refs = refs;
    this.hint =
      sources.length === 0
        ? 'Say where it is: --data tree:FOLDER, for a file FOLDER/CONTEXT/NAME. What is made for many, such as a machine, has no secrets: leave the property out there, and deploy it to the host.'
        : 'Put it into a file FOLDER/CONTEXT/NAME and say --data tree:FOLDER, or see "buildos host deploy --help".';
  }
}

/** The schema of a {@link DataRef}, for arguments. */
export const DATA_REF: z.ZodType<DataRef> = z
  .strictObject({
    context: textThat(isRefPart, 'like "example.org": letters, digits and ._@+-, parts joined by "/"'),
    name: textThat(isRefPart, 'like "tls.key": letters, digits and ._@+-, parts joined by "/"'),
    public: z.literal(true).exactOptional(),
  })
  .meta({ title: '{ context: string; name: string; public?: true }' });

/** `example.org/tls.key` */
export function describeRef({ context, name }: DataRef): string {
  return `${context}/${name}`;
}

/** All sources together, and what was read from them in this run. */
export class DataStore {
  /** Hides what was read so far. */
  readonly mask: SecretMask = new SecretMask();
  readonly #sources: readonly DataSource[];
  readonly #read = new Map<string, Promise<Secret>>();

  constructor(sources: readonly DataSource[] = []) {
    this.#sources = sources;
  }

  /**
   * Sees to it that some source has each of these; reads nothing and asks nobody.
   *
   * @throws {MissingDataError}
   */
  async check(refs: readonly DataRef[]): Promise<void> {
    const missing: DataRef[] = [];
    for (const ref of refs) if ((await this.#newest(ref)) === undefined) missing.push(ref);
    if (missing.length > 0) throw new MissingDataError(missing, this.#sources);
  }

  /**
   * Reads the newest version, once a run.
   *
   * @param mayAsk - false: as if nobody could be asked
   * @throws {MissingDataError}
   */
  async read(ref: DataRef, mayAsk: boolean): Promise<Secret> {
    const key = describeRef(ref);
    const known = this.#read.get(key);
    if (known !== undefined) return await known;
    const found = await this.#newest(ref, mayAsk);
    if (found === undefined) throw new MissingDataError([ref], this.#sources);
    const reading = found.read().then((content) => {
      const secret = new Secret(content);
      if (ref.public !== true) this.mask.add(secret);
      return secret;
    });
    this.#read.set(key, reading);
    return await reading;
  }

  /** As connections ask for it: passwords of hops. */
  forConnections(): ConnectionData {
    return async (ref) => {
      try {
        return (await this.read(ref, true)).reveal();
      } catch (error) {
        if (error instanceof MissingDataError) return undefined;
        throw error;
      }
    };
  }

  async #newest(ref: DataRef, mayAsk = true): ReturnType<DataSource['find']> {
    let newest: Awaited<ReturnType<DataSource['find']>>;
    for (const source of this.#sources.filter(({ asks }) => asks !== true)) {
      const found = await source.find(ref);
      if (found !== undefined && (newest === undefined || found.version > newest.version)) newest = found;
    }
    if (newest !== undefined || !mayAsk) return newest;
    for (const source of this.#sources.filter(({ asks }) => asks === true)) newest ??= await source.find(ref);
    return newest;
  }
}

/** One pair in one file. */
export function fileSource(ref: DataRef, path: string): DataSource {
  return {
    about: `the file ${path}`,
    find: async (wanted) => (describeRef(wanted) === describeRef(ref) ? await findFile(path) : undefined),
  };
}

/** A folder of files `CONTEXT/NAME`. */
export function treeSource(folder: string): DataSource {
  return {
    about: `the folder ${folder}`,
    find: async ({ context, name }) => await findFile(join(folder, context, name)),
  };
}

/**
 * Variables `BUILDOS_DATA_<CONTEXT>__<NAME>`, upper case, other characters as `_`. They are as new as this run.
 *
 * @param env - such as process.env
 */
export function environmentSource(env: Readonly<Record<string, string | undefined>>, now: number): DataSource {
  const word = (text: string): string => text.toUpperCase().replaceAll(/[^A-Z0-9]/g, '_');
  return {
    about: 'the environment (BUILDOS_DATA_…)',
    find: async ({ context, name }) => {
      const value = env[`BUILDOS_DATA_${word(context)}__${word(name)}`];
      return value === undefined ? undefined : { version: now, read: async () => value };
    },
  };
}

/** Credentials of a systemd service (systemd.exec(5)): files `CONTEXT--NAME`, with `-` for `/`. */
export function credentialsSource(folder: string): DataSource {
  return {
    about: "systemd's credentials",
    find: async ({ context, name }) => await findFile(join(folder, `${context}--${name}`.replaceAll('/', '-'))),
  };
}

/**
 * The password store (pass(1)): entries `CONTEXT/NAME`. The version is when the entry was last written.
 *
 * @param local - where pass runs
 * @param store - its folder, `~/.password-store` unless the user says otherwise
 */
export function passSource(local: Connection, store: string): DataSource {
  return {
    about: `the password store ${store}`,
    find: async (ref) => {
      const entry = describeRef(ref);
      const found = await findFile(join(store, `${entry}.gpg`));
      if (found === undefined) return undefined;
      return {
        version: found.version,
        read: async () => (await local.run(['pass', 'show', entry], { env: { PASSWORD_STORE_DIR: store } })).stdout,
      };
    },
  };
}

/** Asks the operator, when no other source has it. */
export function askSource(ask: (question: string) => Promise<string>): DataSource {
  return {
    about: 'the operator',
    asks: true,
    find: async (ref) => ({ version: 0, read: () => ask(`${describeRef(ref)}: `) }),
  };
}

async function findFile(path: string): ReturnType<DataSource['find']> {
  try {
    const found = await stat(path);
    return found.isFile() ? { version: found.mtimeMs, read: () => readFile(path) } : undefined;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

function isRefPart(text: string): boolean {
  return /^[A-Za-z0-9._@+-]+(\/[A-Za-z0-9._@+-]+)*$/.test(text) && !text.split('/').some((part) => /^\.+$/.test(part));
}
