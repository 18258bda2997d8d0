/**
 * Reads the archives that are in .debs (deb(5)), by dpkg-deb in a few shells that stay.
 *
 * A process of ours for each archive costs as much as unpacking a small one, so a shell gets the names, and its output is:
 *
 * ```
 *   archive ─ zeros ─ mark (512) ─ archive ─ zeros ─ mark ─ …
 * ```
 *
 * The headers of an archive tell where it ends, and the mark that dpkg-deb was content with it.
 */
import { availableParallelism } from 'node:os';
import type { Connection } from '../connections/connection.ts';
import { BLOCK_BYTES, memberBytes } from './tar-members.ts';

/** The two archives of a .deb, as dpkg-deb(1) names them. */
export type DebPart = 'ctrl' | 'fsys';

const MARK = 'dpkg-deb has ended with status 0';

/** Lines: part, file name. */
const SHELL = `
while read -r part deb; do
  dpkg-deb "--$part-tarfile" "$deb" || exit
  printf '%-${BLOCK_BYTES}s' '${MARK}'
done`;

/** For all packages of a shell. */
const SHELL_TIMEOUT_MS = 30 * 60_000;
const DEB_TIMEOUT_MS = 300_000;

/** What to read, and who waits for it. */
interface Request {
  readonly deb: string;
  readonly part: DebPart;
  /** Gets the archive; it is overwritten later. */
  readonly take: (archive: Uint8Array) => void;
  readonly fail: (error: unknown) => void;
}

/** Reads .debs of one folder, as many at once as there are cores. Dispose it to end its shells. */
export class DebReader implements AsyncDisposable {
  readonly #on: Connection;
  readonly #folder: string;
  readonly #signal: AbortSignal | undefined;
  readonly #queue: Request[] = [];
  readonly #shells = new Set<Promise<void>>();
  /** Shells that wait for a name. */
  readonly #idle: (() => void)[] = [];
  #isOver = false;

  constructor(on: Connection, options: { readonly folder: string; readonly signal?: AbortSignal }) {
    this.#on = on;
    this.#folder = options.folder;
    this.#signal = options.signal;
  }

  /**
   * Reads one of its archives.
   *
   * @param deb - name of a file in the folder; no white space
   * @param take - gets the archive, which is there until it returns
   * @throws {CommandError} when it is no Debian package
   */
  async read<T>(deb: string, part: DebPart, take: (archive: Uint8Array) => T): Promise<T> {
    return await new Promise((resolve, fail) => {
      this.#queue.push({ deb, part, take: (archive) => resolve(take(archive)), fail });
      const wake = this.#idle.shift();
      if (wake !== undefined) wake();
      else if (this.#shells.size < availableParallelism()) this.#start();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    for (const wake of this.#idle.splice(0)) wake();
    await Promise.all(this.#shells);
  }

  #start(): void {
    const shell = this.#serve().finally(() => {
      this.#shells.delete(shell);
      if (this.#queue.length > 0) this.#start();
    });
    this.#shells.add(shell);
  }

  /** One shell, until it fails or nobody asks any more. */
  async #serve(): Promise<void> {
    const archive = new IncomingArchive();
    let current: Request | undefined;
    let onAnswer = (): void => {};
    const next = async (): Promise<Request | undefined> => {
      while (this.#queue.length === 0 && !this.#isOver) await new Promise<void>((wake) => this.#idle.push(wake));
      return this.#queue.shift();
    };
    const names = async function* (): AsyncGenerator<Uint8Array> {
      for (let request = await next(); request !== undefined; request = await next()) {
        current = request;
        archive.clear();
        const answer = Promise.withResolvers<void>();
        onAnswer = answer.resolve;
        yield Buffer.from(`${request.part} ${request.deb}\n`);
        await answer.promise;
      }
    };
    const end = new AbortController();
    const onOutput = (chunk: Uint8Array, stream: 'stdout' | 'stderr'): void => {
      if (stream === 'stderr' || current === undefined) return;
      const { take, fail } = current;
      try {
        if (!archive.add(chunk)) return;
        take(archive.content);
      } catch (error) {
        fail(error);
        end.abort(error);
      }
      current = undefined;
      onAnswer();
    };
    try {
      await this.#on.run(['nice', 'sh', '-c', SHELL], {
        cwd: this.#folder,
        input: names(),
        keepStdout: 'no',
        onOutput,
        timeoutMs: SHELL_TIMEOUT_MS,
        signal: this.#signal === undefined ? end.signal : AbortSignal.any([end.signal, this.#signal]),
      });
    } catch {
      // Without a request it could not be started, unless we have ended it.
      const failed = current ?? (end.signal.aborted ? undefined : this.#queue.shift());
      if (failed !== undefined) await this.#readAlone(failed);
    }
  }

  /** After a failure: says what it was. */
  async #readAlone({ deb, part, take, fail }: Request): Promise<void> {
    const signal = this.#signal ? { signal: this.#signal } : {};
    const options = { cwd: this.#folder, timeoutMs: DEB_TIMEOUT_MS, maxOutputBytes: 2 ** 32, ...signal };
    try {
      take((await this.#on.run(['dpkg-deb', `--${part}-tarfile`, deb], options)).stdout);
    } catch (error) {
      fail(error);
    }
  }
}

/** Memory for an archive at first; and the most that stays for the next one. */
const FIRST_BYTES = 2 ** 20;
const KEPT_BYTES = 16 * 2 ** 20;

/** An archive of which chunks come; its memory is used again for the next one. */
class IncomingArchive {
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #length = 0;
  /** Where the next header is. */
  #at = 0;

  /** What there is so far, without the mark. */
  get content(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }

  clear(): void {
    if (this.#bytes.length > KEPT_BYTES) this.#bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
    this.#length = 0;
    this.#at = 0;
  }

  /**
   * @returns whether it is whole
   * @throws {RangeError} when it is no archive
   */
  add(chunk: Uint8Array): boolean {
    if (this.#length + chunk.length > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(2 * (this.#length + chunk.length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    this.#bytes.set(chunk, this.#length);
    this.#length += chunk.length;
    while (this.#at + BLOCK_BYTES <= this.#length) {
      const header = this.#bytes.subarray(this.#at, this.#at + BLOCK_BYTES);
      if (header.toString('latin1', 0, MARK.length) === MARK) return true;
      // The zeros at the end of an archive are headers of nothing.
      this.#at += memberBytes(header);
    }
    return false;
  }
}
