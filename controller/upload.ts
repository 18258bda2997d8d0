/**
 * What an agent uploads beside its result: one file, streamed to the disk.
 *
 * The form's fields come in this order: `session`, `challenge` (when one was given), `instance`, `archive` (the
 * file), `sha256sum`; `instance` may be absent. The file stands under its final name, synchronised, before the
 * store is told.
 */
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { RequestError } from './error.ts';
import { MultipartError, MultipartReader, parseBoundary } from './multipart.ts';
import type { Session } from './store.ts';

/** Names of files that are being received. */
const PARTIAL_PREFIX = '.partial-';

/** A received file that waits under its temporary name. */
export interface Received extends AsyncDisposable {
  readonly session: Session;
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Gives the file its name, on the disk when it returns. Without it the file is removed. */
  keep(name: string): void;
}

export interface ReceiveOptions {
  readonly contentType: string;
  /** Existing directory. */
  readonly folder: string;
  readonly maxBytes: number;
  /** Who may upload; called before the first byte of the file is written. Throws to refuse. */
  readonly authenticate: (session: string, challenge: string | undefined) => Session;
}

/** A field of the form may be this long, in bytes. */
const MAX_FIELD_BYTES = 8192;
const FIELDS = ['session', 'challenge', 'instance', 'archive', 'sha256sum'];

/**
 * Receives one form.
 *
 * @throws {RequestError} 400 for a wrong form or digest, 413 for a file that is too long; what `authenticate` throws
 */
export async function receiveUpload(chunks: AsyncIterable<Uint8Array>, options: ReceiveOptions): Promise<Received> {
  const reader = openReader(options.contentType);
  await using form = new Form(options);
  try {
    for await (const chunk of chunks) {
      for (const event of reader.push(chunk)) {
        if (event.kind === 'part') await form.beginPart(event.name);
        else if (event.kind === 'data') await form.addData(event.bytes);
        else if (event.kind === 'part-end') await form.endPart();
      }
    }
    reader.end();
  } catch (error) {
    if (error instanceof MultipartError) throw new RequestError(400, `Cannot read the upload: ${error.message}`);
    throw error;
  }
  return form.finish();
}

/** The form as it fills. */
class Form implements AsyncDisposable {
  readonly #options: ReceiveOptions;
  readonly #fields = new Map<string, string>();
  readonly #hash = createHash('sha256');
  readonly #path: string;
  #part = '';
  #text: Uint8Array[] = [];
  #handle: FileHandle | undefined;
  #session: Session | undefined;
  #sizeBytes = 0;
  #finished = false;

  constructor(options: ReceiveOptions) {
    this.#options = options;
    this.#path = join(options.folder, `${PARTIAL_PREFIX}${randomBytes(8).toString('hex')}`);
  }

  async beginPart(name: string): Promise<void> {
    if (!FIELDS.includes(name)) throw wrongForm(`the field ${JSON.stringify(name)} is not known`);
    if (this.#fields.has(name)) throw wrongForm(`the field "${name}" is given twice`);
    this.#part = name;
    this.#text = [];
    this.#fields.set(name, '');
    if (name !== 'archive') return;
    const session = this.#fields.get('session');
    if (session === undefined) throw wrongForm('the field "session" must come before "archive"');
    this.#session = this.#options.authenticate(session, this.#fields.get('challenge'));
    this.#handle = await open(this.#path, 'wx', 0o640);
  }

  async addData(bytes: Uint8Array): Promise<void> {
    if (this.#part === 'archive' && this.#handle !== undefined) {
      this.#sizeBytes += bytes.length;
      if (this.#sizeBytes > this.#options.maxBytes) {
        throw new RequestError(413, `An upload may have ${this.#options.maxBytes} bytes, this one has more`);
      }
      this.#hash.update(bytes);
      await this.#handle.writeFile(bytes);
      return;
    }
    this.#text.push(bytes);
    if (this.#text.reduce((sum, part) => sum + part.length, 0) > MAX_FIELD_BYTES) {
      throw wrongForm(`the field "${this.#part}" is longer than ${MAX_FIELD_BYTES} bytes`);
    }
  }

  async endPart(): Promise<void> {
    if (this.#part !== 'archive') {
      this.#fields.set(this.#part, Buffer.concat(this.#text).toString('utf8').trim());
      return;
    }
    await this.#handle?.sync();
    await this.#handle?.close();
    this.#handle = undefined;
  }

  /** Checks what was received; from here on the result owns the file. */
  finish(): Received {
    const wanted = this.#fields.get('sha256sum');
    if (this.#session === undefined) throw wrongForm('the field "archive" is missing');
    // Also as "<digest> *<file>", the way sha256sum prints it.
    if (wanted === undefined || !/^[0-9a-f]{64}(?:\s.*)?$/i.test(wanted)) {
      throw wrongForm('the field "sha256sum" is missing or not a SHA-256');
    }
    const sha256 = this.#hash.digest('hex');
    if (wanted.slice(0, 64).toLowerCase() !== sha256) {
      throw wrongForm(`sha256sum is ${wanted.slice(0, 64)}, the ${this.#sizeBytes} bytes received have ${sha256}`);
    }
    this.#finished = true;
    const path = this.#path;
    const { folder } = this.#options;
    return {
      session: this.#session,
      sha256,
      sizeBytes: this.#sizeBytes,
      keep: (name) => {
        renameSync(path, join(folder, name));
        syncFolder(folder);
      },
      [Symbol.asyncDispose]: () => rm(path, { force: true }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle?.close();
    if (!this.#finished) await rm(this.#path, { force: true });
  }
}

function openReader(contentType: string): MultipartReader {
  try {
    return new MultipartReader(parseBoundary(contentType));
  } catch (cause) {
    throw new RequestError(400, cause instanceof Error ? cause.message : String(cause), {
      cause,
      hint: 'With curl: --form session=… --form archive=@FILE --form sha256sum=…',
    });
  }
}

/** A rename is on the disk when its directory is. */
function syncFolder(folder: string): void {
  const descriptor = openSync(folder, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function wrongForm(reason: string): RequestError {
  return new RequestError(400, `Cannot take the upload: ${reason}`);
}
