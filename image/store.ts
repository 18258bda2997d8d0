/**
 * What was made before, by the digest of what it was made from: `<cache>/<kind>/<key>/`, a folder of files each.
 *
 * A key is a digest of every input, the code that does the work included; so an entry is right or not there, and
 * nothing is ever updated. An entry is made beside its place, synced, and renamed: killed or out of space, there is no
 * entry. Its `entry.json` names every file with its digest; who reads a file checks it, and an entry that was damaged
 * later is made again. Builds at the same time may make the same entry: the second to finish takes that of the first.
 */
import { createHash, hash, randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

/** How many entries of a kind are kept, besides those used within the last hour. */
const KEPT = 8;
const IN_USE_MS = 3_600_000;

const ENTRY_JSON = 'entry.json';

const PIECE_BYTES = 256 * 1024;

const schema = z.object({
  facts: z.record(z.string(), z.string()),
  files: z.record(z.string(), z.object({ sha256: z.string(), sizeBytes: z.int().min(0) })),
});

/** One file of an entry. */
export interface StoredFile {
  readonly path: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** An entry: complete, and not to be changed. */
export interface Entry {
  readonly key: string;
  readonly folder: string;
  /** What was found out while it was made. */
  readonly facts: Readonly<Record<string, string>>;
  readonly files: ReadonlyMap<string, StoredFile>;
}

/** An entry is not what it was when it was made. */
export class DamagedEntryError extends Error {
  override readonly name = 'DamagedEntryError';
  readonly entry: Entry;

  constructor(entry: Entry, file: string) {
    super(`The cache is damaged: ${join(entry.folder, file)} has changed since it was made`);
    this.entry = entry;
  }
}

/** The cache below a folder. */
export class Store {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  /**
   * Finds an entry, or makes it.
   *
   * @param make - writes files into an empty folder, as this process sees it, and gives facts
   */
  async findOrMake(
    kind: string,
    key: string,
    make: (folder: string) => Promise<Readonly<Record<string, string>>>,
  ): Promise<{ readonly entry: Entry; readonly cached: boolean }> {
    const found = await this.find(kind, key);
    if (found !== undefined) return { entry: found, cached: true };
    const place = join(this.folder, kind, key);
    const part = `${place}${partSuffix()}`;
    await mkdir(part, { recursive: true });
    try {
      const facts = await make(part);
      await seal(part, facts);
      await rename(part, place).catch(async (error: unknown) => {
        if ((await this.find(kind, key)) === undefined) throw error;
      });
      await syncPath(join(this.folder, kind));
    } finally {
      await rm(part, { recursive: true, force: true });
    }
    await this.#removeOld(kind, key);
    const entry = await this.find(kind, key);
    if (entry === undefined) throw new Error(`The cache lost ${place} as soon as it was made`);
    return { entry, cached: false };
  }

  /** @returns undefined when there is no such entry, or a file of it has another size */
  async find(kind: string, key: string): Promise<Entry | undefined> {
    const folder = join(this.folder, kind, key);
    const text = await readFile(join(folder, ENTRY_JSON), 'utf8').catch(() => undefined);
    if (text === undefined) return undefined;
    try {
      const { facts, files } = schema.parse(JSON.parse(text));
      const map = new Map<string, StoredFile>();
      for (const [name, { sha256, sizeBytes }] of Object.entries(files)) {
        const path = join(folder, name);
        if ((await stat(path)).size !== sizeBytes) throw new RangeError(`${path} has another size`);
        map.set(name, { path, sha256, sizeBytes });
      }
      await utimes(join(folder, ENTRY_JSON), new Date(), new Date());
      return { key, folder, facts, files: map };
    } catch {
      await rm(folder, { recursive: true, force: true });
      return undefined;
    }
  }

  /**
   * Reads a file of an entry whole, and checks it.
   *
   * @throws {DamagedEntryError} after the entry was removed: the next build makes it again
   */
  async read(entry: Entry, name: string): Promise<Uint8Array> {
    const file = fileOf(entry, name);
    const content = await readFile(file.path);
    return hash('sha256', content) === file.sha256 ? content : await this.#giveUp(entry, name);
  }

  /**
   * Checks a file of an entry that somebody else is to read, right after that.
   *
   * @returns its path
   * @throws {DamagedEntryError} as {@link read}
   */
  async check(entry: Entry, name: string): Promise<string> {
    for await (const _piece of this.pieces(entry, name));
    return fileOf(entry, name).path;
  }

  /**
   * Reads a file of an entry; what came is only right when all has come.
   *
   * @returns pieces, each there until the next is asked for
   * @throws {DamagedEntryError} as {@link read}
   */
  async *pieces(entry: Entry, name: string): AsyncGenerator<Uint8Array> {
    const file = fileOf(entry, name);
    const digest = createHash('sha256');
    for await (const piece of piecesOf(file.path)) {
      digest.update(piece);
      yield piece;
    }
    if (digest.digest('hex') !== file.sha256) await this.#giveUp(entry, name);
  }

  async remove(entry: Entry): Promise<void> {
    await rm(entry.folder, { recursive: true, force: true });
  }

  async #giveUp(entry: Entry, name: string): Promise<never> {
    await this.remove(entry);
    throw new DamagedEntryError(entry, name);
  }

  async #removeOld(kind: string, newest: string): Promise<void> {
    const dated: { folder: string; time: number }[] = [];
    for (const name of await readdir(join(this.folder, kind))) {
      if (name === newest) continue;
      const folder = join(this.folder, kind, name);
      const time = await stat(join(folder, ENTRY_JSON)).catch(() => stat(folder).catch(() => undefined));
      if (time !== undefined) dated.push({ folder, time: time.mtimeMs });
    }
    dated.sort((a, b) => b.time - a.time);
    for (const [index, { folder, time }] of dated.entries()) {
      const old = index >= KEPT - 1 || folder.includes('.part-');
      if (old && Date.now() - time > IN_USE_MS) await rm(folder, { recursive: true, force: true });
    }
  }
}

/** For what is made beside its place: no other process, and no other build in this one, uses the same. */
export function partSuffix(): string {
  return `.part-${process.pid}-${randomBytes(4).toString('hex')}`;
}

/** A file of an entry by its name. */
export function fileOf(entry: Entry, name: string): StoredFile {
  const file = entry.files.get(name);
  if (file === undefined) throw new RangeError(`The cache entry ${entry.folder} has no file "${name}"`);
  return file;
}

/** A key: the digest of what something is made from. Plain data; the order of keys in objects counts. */
export function keyOf(inputs: unknown): string {
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 40);
}

/** Writes what is in the folder into its `entry.json`, and all of it to the disk. */
async function seal(folder: string, facts: Readonly<Record<string, string>>): Promise<void> {
  const names = (await readdir(folder)).sort();
  const files = await Promise.all(
    names.map(async (name): Promise<[string, { sha256: string; sizeBytes: number }]> => {
      const [file] = await Promise.all([digestFile(join(folder, name)), syncPath(join(folder, name))]);
      return [name, file];
    }),
  );
  const entry = { facts, files: Object.fromEntries(files) };
  await writeFile(join(folder, ENTRY_JSON), `${JSON.stringify(entry, undefined, 2)}\n`);
  await syncPath(join(folder, ENTRY_JSON));
  await syncPath(folder);
}

async function digestFile(path: string): Promise<{ readonly sha256: string; readonly sizeBytes: number }> {
  const digest = createHash('sha256');
  let sizeBytes = 0;
  for await (const piece of piecesOf(path)) {
    digest.update(piece);
    sizeBytes += piece.length;
  }
  return { sha256: digest.digest('hex'), sizeBytes };
}

/**
 * Reads a file, each piece over the one before: with a whole root in memory every program takes longer to start, since fork
 * copies page tables.
 */
async function* piecesOf(path: string): AsyncGenerator<Uint8Array> {
  await using handle = await open(path);
  const piece = Buffer.allocUnsafe(PIECE_BYTES);
  for (;;) {
    const { bytesRead } = await handle.read(piece, 0, piece.length);
    if (bytesRead === 0) return;
    yield piece.subarray(0, bytesRead);
  }
}

async function syncPath(path: string): Promise<void> {
  await using handle = await open(path);
  await handle.sync();
}
