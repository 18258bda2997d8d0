/**
 * Servers that take uploads: one for a build machine, whose every writable name has a rule and a quota, and one for a
 * folder that all may write to (the command `tftp serve --writable`).
 */
import { readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';

import { RefusedError } from './error.ts';
import { openParent, openToRead, parseName } from './folder.ts';
import { ERROR_CODE } from './packet.ts';
import type { Access, WritePlace, WriteRequest } from './access.ts';
import type { ServeOptions, TftpServer } from './serve-options.ts';
import { serve } from './server.ts';
import { type WriteRule, FileSink } from './sink.ts';

/** How a name may be written. */
export interface Writable {
  /** quota: the size the file may reach */
  readonly maxBytes: number;
  /**
   * - `once`: only while there is no such file
   * - `replace`: the new file takes the place of the old one when it is complete
   * - `append`: the private option `offset` says where the bytes go; at most at the end
   */
  readonly rule: WriteRule;
}

/** What a machine's own server shows it and takes from it. */
export interface MachineOptions extends Omit<ServeOptions, 'addresses' | 'fd' | 'fds'> {
  /** all of it is readable, and nothing else */
  readonly folder: string;
  /** numeric IP address */
  readonly address: string;
  /** default 0: any that is free */
  readonly port?: number | undefined;
  /** the only client address that is answered */
  readonly peer: string;
  /** by name below the folder */
  readonly writable: Readonly<Record<string, Writable>>;
  /** a file is complete and in place; `bytes` is what this upload brought */
  readonly onWritten?: ((name: string, bytes: number) => void) | undefined;
}

/** Uploads of one machine at once, one a name, with some reads beside. */
const MACHINE_TRANSFERS_MAX = 64;

/**
 * Serves a build machine: its folder to read, some names to write, to its address only.
 *
 * @throws {ListenError} when the address or port cannot be had
 * @throws {RangeError} when a writable name could never be asked for
 */
export function serveMachine(options: MachineOptions): Promise<TftpServer> {
  const { folder, writable, onWritten } = options;
  for (const name of Object.keys(writable)) checkWritableName(name);
  removeLeftovers(folder);
  return serve(
    { transfersMax: MACHINE_TRANSFERS_MAX, ...options, port: options.port ?? 0 },
    writableAccess(folder, (name) => (Object.hasOwn(writable, name) ? writable[name] : undefined), onWritten),
  );
}

/**
 * Serves a folder to read and to write, all names, each replaced when an upload is complete. Whoever reaches the port can
 * fill the disk: for a bench or a lab.
 *
 * @throws {ListenError} when the address or port cannot be had
 */
export function serveWritableFolder(
  options: ServeOptions & { readonly folder: string; readonly maxBytes: number },
): Promise<TftpServer> {
  const rule: Writable = { maxBytes: options.maxBytes, rule: 'replace' };
  return serve(
    options,
    writableAccess(options.folder, () => rule, undefined),
  );
}

function writableAccess(
  folder: string,
  findRule: (name: string) => Writable | undefined,
  onWritten: ((name: string, bytes: number) => void) | undefined,
): Access {
  /** uploads that run, by name: the newest wins, for a client that was restarted must not wait for its former self */
  const running = new Map<string, FileSink>();
  return {
    openRead: (name) => openToRead(folder, parseName(name)),
    openWrite(request) {
      const parts = parseName(request.name);
      const name = parts.join('/');
      const writable = findRule(name);
      if (writable === undefined) throw new RefusedError(ERROR_CODE.accessViolation, 'this name cannot be written');
      const place = openPlace(folder, parts, writable, request, (sink) => {
        if (running.get(name) === sink) running.delete(name);
      });
      const former = running.get(name);
      running.set(name, place.sink);
      // Its transfer meets the closed sink at its next DATA, and ends.
      former?.[Symbol.dispose]();
      return { ...place, ...(onWritten && { onWritten: (bytes: number) => onWritten(name, bytes) }) };
    },
  };
}

function openPlace(
  folder: string,
  parts: readonly string[],
  writable: Writable,
  request: WriteRequest,
  onDispose: (sink: FileSink) => void,
): WritePlace & { readonly sink: FileSink } {
  const { rule, maxBytes } = writable;
  const isAppend = rule === 'append';
  const offset = isAppend ? request.offset : undefined;
  if ((offset ?? 0) > maxBytes) {
    throw new RefusedError(ERROR_CODE.diskFull, `offset ${offset} is more than the ${maxBytes} bytes allowed here`);
  }
  const parent = openParent(folder, parts);
  const sink = new FileSink({ parent, part: parts.at(-1) ?? '', rule, offset, bytesMax: maxBytes, onDispose });
  return { sink, bytesMax: maxBytes - (offset ?? 0), offset: isAppend };
}

function checkWritableName(name: string): void {
  let parts: readonly string[] = [];
  try {
    parts = parseName(name);
  } catch (error) {
    throw new RangeError(`${JSON.stringify(name)} cannot be a writable name`, { cause: error });
  }
  if (parts.join('/') !== name) throw new RangeError(`the writable name ${JSON.stringify(name)} is ${parts.join('/')}`);
}

/** Removes what an instance that was killed had begun. */
function removeLeftovers(folder: string): void {
  for (const entry of readdirSync(folder)) {
    if (/^\..+\.[0-9a-f]{12}\.part$/.test(entry)) unlinkSync(join(folder, entry));
  }
}
