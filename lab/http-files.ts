/**
 * A read-only HTTP/1.1 server for a folder: GET and HEAD, one byte range, symbolic links inside the folder.
 *
 * Each file is opened once, and what is open is what is sent: publishing by switching a link never mixes two versions in one answer.
 * Left out: listings, conditional requests, several ranges in one answer.
 */
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { join, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';

/** A request that has ended. */
export interface HttpRequestEvent {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly bytes: number;
  readonly peer: string;
  readonly durationMs: number;
  /** False when the connection broke before the whole answer was out. */
  readonly complete: boolean;
}

export interface HttpFilesOptions {
  readonly folder: string;
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  readonly onRequest?: (event: HttpRequestEvent) => void;
}

export interface HttpFiles extends AsyncDisposable {
  /** Without a final slash. */
  readonly url: string;
  readonly port: number;
  close(): Promise<void>;
}

/** Bytes `first` to `last`, both included. */
interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/** Serves a folder until closed. @throws when the address cannot be bound */
export async function serveHttpFiles(options: HttpFilesOptions): Promise<HttpFiles> {
  const folder = await realpath(options.folder);
  const server = createServer((request, response) => {
    void answer(folder, request, response, options.onRequest);
  });
  await listen(server, options.port, options.address);
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : options.port;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  };
  return { url: `http://${options.address}:${port}`, port, close, [Symbol.asyncDispose]: close };
}

/**
 * Reads a Range header (RFC 9110 §14.2) for a file of a size.
 *
 * @returns undefined: send everything (no header, several ranges, another unit, malformed); `unsatisfiable`: status 416
 */
export function parseRange(header: string | undefined, sizeBytes: number): ByteRange | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? '');
  if (match === null) return undefined;
  const [first, last] = [match[1] ?? '', match[2] ?? ''];
  if (first === '' && last === '') return undefined;
  if (first === '') {
    // The last so many bytes.
    const count = Math.min(Number(last), sizeBytes);
    return count === 0 ? 'unsatisfiable' : { first: sizeBytes - count, last: sizeBytes - 1 };
  }
  const range = { first: Number(first), last: last === '' ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1) };
  if (range.first >= sizeBytes) return 'unsatisfiable';
  return range.last < range.first ? undefined : range;
}

async function answer(
  folder: string,
  request: IncomingMessage,
  response: ServerResponse,
  onRequest: HttpFilesOptions['onRequest'],
): Promise<void> {
  const startMs = performance.now();
  const path = (request.url ?? '/').split('?')[0] ?? '/';
  let bytes = 0;
  response.once('close', () =>
    onRequest?.({
      method: request.method ?? '',
      path,
      status: response.statusCode,
      bytes,
      peer: request.socket.remoteAddress ?? '',
      durationMs: performance.now() - startMs,
      complete: response.writableFinished,
    }),
  );
  const refuse = (status: number, headers: Record<string, string> = {}): void => {
    response.writeHead(status, { 'Content-Type': 'text/plain', ...headers }).end(`${status} ${path}\n`);
  };
  try {
    if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(405, { Allow: 'GET, HEAD' });
    await using file = await openInside(folder, path);
    const size = file?.sizeBytes ?? 0;
    if (file === undefined) return refuse(404);
    const range = parseRange(request.headers.range, size);
    if (range === 'unsatisfiable') return refuse(416, { 'Content-Range': `bytes */${size}` });
    const { first, last } = range ?? { first: 0, last: size - 1 };
    response.writeHead(range === undefined ? 200 : 206, {
      'Content-Type': 'application/octet-stream',
      // In capitals: GRUB before 2.12 knows it in no other form, and without it waits for the end of the connection.
      'Content-Length': last - first + 1,
      'Accept-Ranges': 'bytes',
      'Last-Modified': file.modified.toUTCString(),
      ...(range === undefined ? {} : { 'Content-Range': `bytes ${first}-${last}/${size}` }),
    });
    if (request.method === 'HEAD' || last < first) return void response.end();
    const stream = file.handle.createReadStream({ start: first, end: last, autoClose: false, highWaterMark: 1 << 18 });
    stream.on('data', (chunk) => (bytes += chunk.length));
    await pipeline(stream, response);
  } catch {
    // The peer went away, or the file could not be read to its end: a broken connection is the only honest answer left.
    if (response.headersSent) response.destroy();
    else refuse(500);
  }
  return undefined;
}

interface OpenFile extends AsyncDisposable {
  readonly handle: FileHandle;
  readonly sizeBytes: number;
  readonly modified: Date;
}

/** Opens a regular file that really lies inside the folder; undefined for everything else. */
async function openInside(folder: string, path: string): Promise<OpenFile | undefined> {
  let real: string;
  try {
    real = await realpath(join(folder, decodeURIComponent(path)));
  } catch {
    return undefined;
  }
  if (!real.startsWith(folder + sep)) return undefined;
  const handle = await open(real, 'r');
  const found = await handle.stat();
  if (!found.isFile()) {
    await handle.close();
    return undefined;
  }
  return {
    handle,
    sizeBytes: found.size,
    modified: found.mtime,
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

function listen(server: Server, port: number, address: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(port, address, () => {
    server.off('error', reject);
    resolve();
  });
  return promise;
}
