/**
 * What a .deb unpacks to, in a form that is quick to put into a root: kept beside it in the cache.
 *
 * ```
 *   <cache>/debs/<sha256>.deb                 as it was fetched: unpacking its xz is most of the work
 *   <cache>/debs/<sha256>.<form>.unpacked     two parts: index (JSON), files (tar, zstd -1)
 *                                             before each its length and its SHA-256
 * ```
 *
 * Tars without their ends can be put one after another, so that one `tar` unpacks many packages. `<form>` is the digest of
 * the code that makes it. A file that is missing, cut or altered is made again from the .deb.
 */
import { hash } from 'node:crypto';
import { open, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import type { Connection } from '../connections/connection.ts';
import { DebReader } from './deb-reader.ts';
import { isDiskFull } from './disk-full.ts';
import { once } from './once.ts';
import {
  type ControlFiles,
  INDEX_SCHEMA,
  packageContent,
  type PackageContent,
  type PackageIndex,
  readControlFiles,
} from './package-content.ts';
import { partSuffix } from './store.ts';

/** A package, ready to be unpacked. */
export interface UnpackedPackage {
  readonly index: PackageIndex;
  /** Its files; no end of archive. */
  readonly readTar: () => Promise<Uint8Array>;
}

/** A package in the cache. */
export interface CachedPackage {
  /**
   * Its control file, without an end of line at its end.
   *
   * @throws {CommandError} when it is no Debian package
   */
  readonly control: () => Promise<string>;
  /**
   * What it unpacks to: what is kept, or it is unpacked now, and kept.
   *
   * @throws {CommandError} when it is no Debian package
   */
  readonly open: () => Promise<UnpackedPackage>;
}

const SUFFIX = '.unpacked';

/** Before each part: its length, 4 bytes, and its digest. */
const HEAD_BYTES = 4 + 32;

/** What is kept besides the packages of the last root. */
const KEPT_BYTES = 2 ** 30;

/** What may wait in memory, of what was just unpacked; more is read again from what is kept. */
const HELD_BYTES = 384 * 2 ** 20;

/** The packages of a folder. Dispose it to end what unpacks; then all is kept. */
export class PackageCache implements AsyncDisposable {
  readonly #folder: string;
  readonly #form: string;
  readonly #reader: DebReader;
  readonly #packages = new Map<string, CachedPackage>();
  readonly #keeping: Promise<void>[] = [];
  /** Packs one after the other: what is unpacked next is waited for. */
  #lastKept: Promise<unknown> = Promise.resolve();
  #heldBytes = 0;

  /**
   * @param options.folder - has `<sha256>.deb`, whose contents were checked
   * @param options.form - digest of the code that unpacks
   */
  constructor(
    on: Connection,
    options: { readonly folder: string; readonly form: string; readonly signal?: AbortSignal },
  ) {
    this.#folder = options.folder;
    this.#form = options.form;
    this.#reader = new DebReader(on, options);
  }

  /** @param deb - name of the .deb; no white space */
  get(deb: string): CachedPackage {
    const known = this.#packages.get(deb);
    if (known !== undefined) return known;
    const file = join(this.#folder, `${basename(deb, '.deb')}.${this.#form}${SUFFIX}`);
    const index = once(() => readIndex(file));
    const control = once(() => this.#reader.read(deb, 'ctrl', readControlFiles));
    const made: CachedPackage = {
      control: async () => (await index())?.control ?? (await control()).control,
      open: once(async () => {
        const kept = await index();
        if (kept === undefined) return await this.#unpack(file, deb, control);
        const readTar = async (): Promise<Uint8Array> =>
          (await readTarOf(file, kept)) ?? (await (await this.#unpack(file, deb, control)).readTar());
        return { index: kept, readTar };
      }),
    };
    this.#packages.set(deb, made);
    return made;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader[Symbol.asyncDispose]();
    await Promise.all(this.#keeping);
  }

  async #unpack(file: string, deb: string, control: () => Promise<ControlFiles>): Promise<UnpackedPackage> {
    const controlFiles = await control();
    const content = await this.#reader.read(deb, 'fsys', (archive) => packageContent(controlFiles, archive));
    const { index } = content;
    const kept = this.#keep(file, content);
    // No function of this scope may use the content: it would be there as long as `readTar` is.
    let held: Uint8Array | undefined;
    if (this.#heldBytes + index.tarBytes <= HELD_BYTES) {
      held = content.tar;
      this.#heldBytes += index.tarBytes;
    }
    const readTar = async (): Promise<Uint8Array> => {
      if (held !== undefined) {
        const tar = held;
        held = undefined;
        this.#heldBytes -= index.tarBytes;
        return tar;
      }
      await kept;
      return (await readTarOf(file, index)) ?? (await (await this.#unpack(file, deb, control)).readTar());
    };
    return { index, readTar };
  }

  /** Puts it into the cache, after those before it. */
  #keep(file: string, content: PackageContent): Promise<void> {
    const kept = this.#lastKept.then(() => keep(file, content));
    // Who disposes of this hears of a failure; it may come before that.
    this.#lastKept = kept.catch(() => undefined);
    this.#keeping.push(kept);
    return kept;
  }
}

/** @returns undefined when it is not there, or not as it was written */
async function readIndex(file: string): Promise<PackageIndex | undefined> {
  const part = await readPart(file, 0);
  if (part === undefined) return undefined;
  await utimes(file, new Date(), new Date()).catch(() => undefined);
  return INDEX_SCHEMA.parse(JSON.parse(part.content.toString('utf8')));
}

async function readTarOf(file: string, index: PackageIndex): Promise<Uint8Array | undefined> {
  const first = await readPart(file, 0);
  const second = first && (await readPart(file, first.end));
  if (second === undefined) return undefined;
  return await promisify(zstdDecompress)(second.content, { chunkSize: Math.max(index.tarBytes, 64) });
}

async function readPart(
  file: string,
  at: number,
): Promise<{ readonly content: Buffer; readonly end: number } | undefined> {
  try {
    await using handle = await open(file);
    const head = Buffer.alloc(HEAD_BYTES);
    await handle.read(head, 0, HEAD_BYTES, at);
    const length = head.readUInt32BE(0);
    if (at + HEAD_BYTES + length > (await handle.stat()).size) return undefined;
    const content = Buffer.allocUnsafe(length);
    await handle.read(content, 0, length, at + HEAD_BYTES);
    if (hash('sha256', content, 'hex') !== head.toString('hex', 4)) return undefined;
    return { content, end: at + HEAD_BYTES + length };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Without room there is nothing to keep: then the next root takes longer. Not synced: the digests tell. */
async function keep(file: string, { index, tar }: PackageContent): Promise<void> {
  const params = { [constants.ZSTD_c_compressionLevel]: 1 };
  const packed = await promisify(zstdCompress)(tar, { params, chunkSize: 2 ** 20 });
  const parts = [Buffer.from(JSON.stringify(index)), packed].flatMap((content) => {
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32BE(content.length);
    head.set(hash('sha256', content, 'buffer'), 4);
    return [head, content];
  });
  const part = `${file}${partSuffix()}`;
  try {
    await writeFile(part, parts);
    await rename(part, file);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
  } finally {
    await rm(part, { force: true });
  }
}

/** Removes what was used longest ago, and whatever other code has made, when there is more than enough. */
export async function removeOldPackages(folder: string, options: { readonly sinceMs: number }): Promise<void> {
  const old: { file: string; sizeBytes: number; timeMs: number }[] = [];
  for (const name of await readdir(folder)) {
    if (!name.endsWith(SUFFIX)) continue;
    const file = join(folder, name);
    const found = await stat(file).catch(() => undefined);
    if (found && found.mtimeMs < options.sinceMs) old.push({ file, sizeBytes: found.size, timeMs: found.mtimeMs });
  }
  old.sort((a, b) => b.timeMs - a.timeMs);
  let sizeBytes = 0;
  for (const each of old) {
    sizeBytes += each.sizeBytes;
    if (sizeBytes > KEPT_BYTES) await rm(each.file, { force: true });
  }
}
