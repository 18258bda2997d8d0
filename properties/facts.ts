/**
 * What is known about files and packages of a host, looked up for all its properties in one command.
 *
 * A look costs the same 20 ms for one path and for a hundred. So deploy collects what the properties want to know, asks
 * once, and asks again only for what a change may have made untrue.
 */
import { randomUUID } from 'node:crypto';
import { type RunOptions, type RunResult, shellQuote, text } from '../connections/connection.ts';

/** Something a property wants to know. */
export type FactRequest =
  /** Type, mode, owner, link target of a path; with `digest` also the SHA-256 of a regular file. */
  | { readonly fact: 'file'; readonly path: string; readonly digest?: true }
  /** The text of a small file, such as /etc/passwd. */
  | { readonly fact: 'text'; readonly path: string }
  /** The names in a directory. */
  | { readonly fact: 'names'; readonly path: string }
  /** All packages that dpkg knows. */
  | { readonly fact: 'packages' };

/** What is at a path. Symbolic links are looked at, not followed. */
export interface FileFact {
  readonly type: 'file' | 'directory' | 'link' | 'other';
  /** Permission bits, with set-uid, set-gid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Name of the owner; the number as text when it has no name. */
  readonly user: string;
  readonly group: string;
  readonly sizeBytes: number;
  /** Where a link points; empty for others. */
  readonly target: string;
  /** When a digest was asked for and this is a regular file. */
  readonly sha256?: string;
}

/** A package as dpkg has it. */
export interface PackageFact {
  /** dpkg's word: `installed`, `config-files`, … */
  readonly status: string;
  /** What dpkg shall do with it: `install`, `hold`, `deinstall`, … */
  readonly wanted: string;
  readonly version: string;
}

/** What was looked up. Asking for what was not requested is a mistake in the property and throws. */
export interface Facts {
  /** @returns undefined when nothing is there */
  file(path: string): FileFact | undefined;
  /** @returns undefined when there is no such regular file */
  text(path: string): string | undefined;
  /** @returns in no order, without `.` and `..`; empty when there is no such directory */
  names(path: string): readonly string[];
  /** By name, without an architecture. */
  packages(): ReadonlyMap<string, PackageFact>;
}

/** Most paths in one command, so that no list of arguments (2 MiB) grows too long. */
const BATCH = 400;

type Run = (argv: readonly string[], options?: RunOptions) => Promise<RunResult>;

/** Facts of one host during one deploy. */
export class FactStore implements Facts {
  readonly #run: Run;
  readonly #files = new Map<string, FileFact | undefined>();
  readonly #digested = new Set<string>();
  readonly #texts = new Map<string, string | undefined>();
  readonly #names = new Map<string, readonly string[]>();
  #packages: ReadonlyMap<string, PackageFact> | undefined;

  constructor(run: Run) {
    this.#run = run;
  }

  /** Sees to it that `wanted` is known. If anything is missing, everything unknown among `also` is looked up with it. */
  async ensure(wanted: readonly FactRequest[], also: readonly FactRequest[]): Promise<void> {
    if (wanted.every((request) => this.#has(request))) return;
    const missing = [...wanted, ...also].filter((request) => !this.#has(request));
    const paths = unique(missing.flatMap((request) => (request.fact === 'file' ? [request.path] : [])));
    const digests = unique(
      missing.flatMap((request) => (request.fact === 'file' && request.digest === true ? [request.path] : [])),
    );
    const texts = unique(missing.flatMap((request) => (request.fact === 'text' ? [request.path] : [])));
    const names = unique(missing.flatMap((request) => (request.fact === 'names' ? [request.path] : [])));
    const packages = missing.some(({ fact }) => fact === 'packages');
    for (let at = 0; at === 0 || at < Math.max(paths.length, digests.length, texts.length, names.length); at += BATCH) {
      const part = {
        paths: paths.slice(at, at + BATCH),
        digests: digests.slice(at, at + BATCH),
        texts: texts.slice(at, at + BATCH),
        names: names.slice(at, at + BATCH),
        packages: packages && at === 0,
      };
      const mark = `@@${randomUUID()}`;
      const { stdout } = await this.#run(['sh'], {
        input: lookScript(part, mark),
        env: { LC_ALL: 'C' },
        ownFiles: true,
      });
      this.#take(part, decodeLook(stdout, mark));
    }
  }

  /** Forgets what a change may have made untrue: paths and all below them. */
  forgetFiles(paths: readonly string[]): void {
    const touched = (known: string): boolean =>
      paths.some((path) => known === path || known.startsWith(path.endsWith('/') ? path : `${path}/`));
    for (const map of [this.#files, this.#texts, this.#names]) {
      for (const path of map.keys()) if (touched(path)) map.delete(path);
    }
    for (const path of this.#digested) if (touched(path)) this.#digested.delete(path);
  }

  /** Forgets everything. */
  forgetAll(): void {
    this.#files.clear();
    this.#digested.clear();
    this.#texts.clear();
    this.#names.clear();
    this.#packages = undefined;
  }

  file(path: string): FileFact | undefined {
    if (!this.#files.has(path)) throw new TypeError(`The property did not ask for facts about "${path}"`);
    return this.#files.get(path);
  }

  text(path: string): string | undefined {
    if (!this.#texts.has(path)) throw new TypeError(`The property did not ask for the text of "${path}"`);
    return this.#texts.get(path);
  }

  names(path: string): readonly string[] {
    const names = this.#names.get(path);
    if (names === undefined) throw new TypeError(`The property did not ask for the names in "${path}"`);
    return names;
  }

  packages(): ReadonlyMap<string, PackageFact> {
    if (this.#packages === undefined) throw new TypeError('The property did not ask for the packages');
    return this.#packages;
  }

  #has(request: FactRequest): boolean {
    if (request.fact === 'packages') return this.#packages !== undefined;
    if (request.fact === 'text') return this.#texts.has(request.path);
    if (request.fact === 'names') return this.#names.has(request.path);
    return this.#files.has(request.path) && (request.digest !== true || this.#digested.has(request.path));
  }

  #take(asked: Look, look: Answer): void {
    for (const path of asked.paths) {
      const found = look.files.get(path);
      const sha256 = look.digests.get(path);
      this.#files.set(path, found !== undefined && sha256 !== undefined ? { ...found, sha256 } : found);
    }
    for (const path of asked.digests) this.#digested.add(path);
    for (const path of asked.texts) this.#texts.set(path, look.texts.get(path));
    for (const path of asked.names) this.#names.set(path, look.names.get(path) ?? []);
    if (asked.packages) this.#packages = look.packages;
  }
}

/** One command's worth of questions. */
interface Look {
  readonly paths: readonly string[];
  readonly digests: readonly string[];
  readonly texts: readonly string[];
  readonly names: readonly string[];
  readonly packages: boolean;
}

/** What find(1) prints of a path: fields and the path, each ended by NUL. */
const FIND_FORMAT = ['%y', '%m', '%U', '%G', '%u', '%g', '%s', '%l', '%p'].join('\\0') + '\\0';
const FIND_FIELDS = 9;

/**
 * The shell script of a look. Its output is five sections of fields ended by NUL, each section ended by the mark:
 * find's records · `SHA256 two spaces PATH` · PATH, base64 · DIRECTORY, name · `package status wanted version`
 */
function lookScript(look: Look, mark: string): string {
  const section = (command: string): string => `${command}\nprintf '${mark}\\0'\n`;
  const files =
    look.paths.length === 0
      ? ':'
      : `find -P ${shellQuote(look.paths)} -maxdepth 0 -printf ${shellQuote([FIND_FORMAT])} 2>/dev/null`;
  const digests =
    look.digests.length === 0
      ? ':'
      : `find -P ${shellQuote(look.digests)} -maxdepth 0 -type f -exec sha256sum -z -- {} + 2>/dev/null`;
  const texts = look.texts
    .map((path) => {
      const word = shellQuote([path]);
      return `if [ -f ${word} ]; then printf '%s\\0' ${word}; base64 -w0 < ${word}; printf '\\0'; fi`;
    })
    .join('\n');
  const names = look.names
    .map((path) => `find -P ${shellQuote([path])} -mindepth 1 -maxdepth 1 -printf '%H\\0%f\\0' 2>/dev/null`)
    .join('\n');
  const packages = look.packages
    ? `dpkg-query -W -f '\${Package} \${db:Status-Status} \${db:Status-Want} \${Version}\\n' 2>/dev/null | tr '\\n' '\\0'`
    : ':';
  // find(1) gives up where it cannot come back to, such as the home of whoever we were before.
  return `cd /\n${section(files)}${section(digests)}${section(texts || ':')}${section(names || ':')}${section(packages)}`;
}

/** What a look found. */
interface Answer {
  readonly files: ReadonlyMap<string, FileFact>;
  readonly digests: ReadonlyMap<string, string>;
  readonly texts: ReadonlyMap<string, string>;
  readonly names: ReadonlyMap<string, readonly string[]>;
  readonly packages: ReadonlyMap<string, PackageFact>;
}

function decodeLook(answer: Uint8Array, mark: string): Answer {
  const fields = text({ status: 0, stdout: answer, stderr: new Uint8Array() }).split('\0');
  let next = 0;
  const section = (): string[] => {
    const end = fields.indexOf(mark, next);
    if (end < 0) throw new TypeError('The look at the host was cut short');
    const found = fields.slice(next, end);
    next = end + 1;
    return found;
  };
  const found = section();
  const files = new Map<string, FileFact>();
  for (let at = 0; at + FIND_FIELDS <= found.length; at += FIND_FIELDS) {
    const [type = '', mode = '', uid = '', gid = '', user = '', group = '', size = '', target = '', path = ''] =
      found.slice(at, at + FIND_FIELDS);
    files.set(path, {
      type: type === 'f' ? 'file' : type === 'd' ? 'directory' : type === 'l' ? 'link' : 'other',
      mode: Number.parseInt(mode, 8),
      uid: Number(uid),
      gid: Number(gid),
      user,
      group,
      sizeBytes: Number(size),
      target,
    });
  }
  const digests = new Map(section().map((line): [string, string] => [line.slice(66), line.slice(0, 64)]));
  const pairs = section();
  const texts = new Map<string, string>();
  for (let at = 0; at + 1 < pairs.length; at += 2) {
    texts.set(pairs[at] ?? '', Buffer.from(pairs[at + 1] ?? '', 'base64').toString('utf8'));
  }
  const entries = section();
  const names = new Map<string, string[]>();
  for (let at = 0; at + 1 < entries.length; at += 2) {
    const folder = entries[at] ?? '';
    names.set(folder, [...(names.get(folder) ?? []), entries[at + 1] ?? '']);
  }
  const packages = new Map<string, PackageFact>();
  for (const line of section()) {
    const [name = '', status = '', wanted = '', version = ''] = line.split(' ');
    if (name !== '' && packages.get(name)?.status !== 'installed') packages.set(name, { status, wanted, version });
  }
  return { files, digests, texts, names, packages };
}

const unique = (paths: readonly string[]): string[] => [...new Set(paths)];
