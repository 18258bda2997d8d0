/**
 * Entries that must outlive the agent: the tasks it runs and the results it has not delivered. An entry is `<id>.json`, and
 * maybe an attachment `<id>.data` beside it, which is there before the entry is.
 *
 * A put is on the disk when it returns (fsync of file and folder). Where the disk is full or missing, the entry goes to a
 * folder in RAM: lost at a reboot, kept when the agent dies.
 */
import { copyFile, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from './_make-folder.ts';

/** One entry, as found. */
export interface ShelfEntry<T> {
  readonly id: string;
  readonly value: T;
  /** Path of the attachment, when there is one. */
  readonly attachment?: string;
  /** True when only RAM holds it. */
  readonly inRam: boolean;
}

/** An entry that could be kept nowhere. */
export class ShelfError extends Error {
  override readonly name = 'ShelfError';
  readonly hint = 'is the state disk full and /run too? Free space on one of them';
}

const ID = /^[a-z0-9][a-z0-9-]{0,63}$/i;

export class Shelf<T> {
  readonly #folder: string;
  readonly #ramFolder: string;
  readonly #parse: (json: unknown) => T;
  readonly #onProblem: (message: string) => void;

  /** @param options.onProblem - gets what is wrong with a folder or an entry; the shelf goes on */
  constructor(options: {
    readonly folder: string;
    readonly ramFolder: string;
    readonly parse: (json: unknown) => T;
    readonly onProblem: (message: string) => void;
  }) {
    this.#folder = options.folder;
    this.#ramFolder = options.ramFolder;
    this.#parse = options.parse;
    this.#onProblem = options.onProblem;
  }

  /**
   * Keeps an entry; one with the same id is replaced.
   *
   * @param id - letters, digits and dashes
   * @param attachment - a file to copy
   * @returns whether it is on the disk, only in RAM, or in RAM without its attachment
   * @throws {ShelfError} when it could not be kept at all
   */
  async put(id: string, value: T, attachment?: string): Promise<'disk' | 'ram' | 'ram-without-attachment'> {
    if (!ID.test(id)) throw new RangeError(`Cannot keep an entry under the id ${JSON.stringify(id)}`);
    const first = await this.#tryPut(this.#folder, id, value, attachment);
    if (first === undefined) return 'disk';
    this.#onProblem(`Cannot keep ${id} in ${this.#folder}: ${first}; it is kept in RAM and would be lost at a reboot`);
    const second = await this.#tryPut(this.#ramFolder, id, value, attachment);
    if (second === undefined) return 'ram';
    const third = attachment === undefined ? second : await this.#tryPut(this.#ramFolder, id, value, undefined);
    if (third !== undefined)
      throw new ShelfError(`Cannot keep ${id} in ${this.#folder} (${first}) nor in RAM (${third})`);
    this.#onProblem(`Cannot keep the attachment of ${id} in RAM: ${second}; the entry is kept without it`);
    return 'ram-without-attachment';
  }

  /** All entries, the oldest first. Those that cannot be read are reported and set aside. */
  async list(): Promise<readonly ShelfEntry<T>[]> {
    const found: { entry: ShelfEntry<T>; ms: number }[] = [];
    for (const [folder, inRam] of [
      [this.#folder, false],
      [this.#ramFolder, true],
    ] as const) {
      for (const name of await names(folder)) {
        const id = /^(.+)\.json$/.exec(name)?.[1];
        if (id === undefined || !ID.test(id) || found.some(({ entry }) => entry.id === id)) continue;
        const entry = await this.#read(folder, id, inRam);
        if (entry !== undefined) found.push(entry);
      }
    }
    return found.toSorted((a, b) => a.ms - b.ms).map(({ entry }) => entry);
  }

  /** Forgets an entry; one that is not there is no error. */
  async remove(id: string): Promise<void> {
    for (const folder of [this.#folder, this.#ramFolder]) {
      // The entry first: an attachment alone is swept, an entry without its attachment would be wrong.
      await this.#quietly(`remove ${id}`, async () => {
        await rm(join(folder, `${id}.json`), { force: true });
        await syncFolder(folder);
        await rm(join(folder, `${id}.data`), { force: true });
      });
    }
  }

  /** Removes what an earlier agent began and did not finish. */
  async sweep(): Promise<void> {
    for (const folder of [this.#folder, this.#ramFolder]) {
      const all = await names(folder);
      for (const name of all) {
        const isOrphan = name.endsWith('.data') && !all.includes(name.replace(/\.data$/, '.json'));
        if (isOrphan || name.startsWith('.tmp-')) {
          await this.#quietly(`remove ${name}`, () => rm(join(folder, name), { force: true }));
        }
      }
    }
  }

  /** @returns why it could not be done, or nothing */
  async #tryPut(folder: string, id: string, value: T, attachment: string | undefined): Promise<string | undefined> {
    const temporary = join(folder, `.tmp-${id}`);
    const data = join(folder, `${id}.data`);
    try {
      await makeFolder(folder);
      await rm(data, { force: true });
      if (attachment !== undefined) {
        await copyFile(attachment, temporary);
        await commit(temporary, data);
      }
      await using file = await open(temporary, 'w', 0o600);
      await file.writeFile(`${JSON.stringify(value)}\n`);
      await file.sync();
      await rename(temporary, join(folder, `${id}.json`));
      await syncFolder(folder);
      return undefined;
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined);
      await rm(data, { force: true }).catch(() => undefined);
      return reasonOf(error);
    }
  }

  async #read(folder: string, id: string, inRam: boolean): Promise<{ entry: ShelfEntry<T>; ms: number } | undefined> {
    const file = join(folder, `${id}.json`);
    try {
      const value = this.#parse(JSON.parse(await readFile(file, 'utf8')));
      const { mtimeMs } = await stat(file);
      const data = join(folder, `${id}.data`);
      const hasData = (await names(folder)).includes(`${id}.data`);
      return { entry: { id, value, inRam, ...(hasData ? { attachment: data } : {}) }, ms: mtimeMs };
    } catch (error) {
      this.#onProblem(`Cannot read ${file}: ${reasonOf(error)}; it is set aside as ${id}.bad`);
      await this.#quietly(`set aside ${file}`, () => rename(file, join(folder, `${id}.bad`)));
      return undefined;
    }
  }

  async #quietly(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.#onProblem(`Cannot ${what}: ${reasonOf(error)}`);
    }
  }
}

async function commit(temporary: string, target: string): Promise<void> {
  {
    await using file = await open(temporary, 'r');
    await file.sync();
  }
  await rename(temporary, target);
}

async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync();
}

async function names(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch {
    // Absent, or not readable: the next put says so.
    return [];
  }
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
const codeOf = (error: unknown): unknown => (error instanceof Error && 'code' in error ? error.code : undefined);
