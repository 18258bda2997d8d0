/** The body of a request, with bounds. */
import type { IncomingMessage } from 'node:http';
import { decodeText } from '../manifests/manifest.ts';
import { RequestError } from './error.ts';

/** What is still read of a body that was refused, so that the client gets to read why: bytes and time. */
const DRAIN_MAX_BYTES = 32 * 1024 * 1024;
const DRAIN_MAX_MS = 5000;

/**
 * Reads a manifest out of a request.
 *
 * @throws {RequestError} 400 for another Content-Type, 413 when it is longer than `maxBytes`
 * @throws {ManifestError} when it is not UTF-8
 */
export async function readManifestBody(
  request: IncomingMessage,
  options: { readonly name: string; readonly maxBytes: number },
): Promise<string> {
  checkContentType(request, 'text/manifest');
  const chunks: Uint8Array[] = [];
  let length = 0;
  checkLength(Number(request.headers['content-length'] ?? 0), options);
  for await (const chunk of readChunks(request)) {
    length += chunk.length;
    checkLength(length, options);
    chunks.push(chunk);
  }
  return decodeText(Buffer.concat(chunks), options);
}

/** The bytes of a request as they come. */
export async function* readChunks(request: IncomingMessage): AsyncGenerator<Uint8Array> {
  // The caller may stop in the middle and still wants to answer, so the request must live on.
  const chunks: AsyncIterable<unknown> = request.iterator({ destroyOnReturn: false });
  for await (const chunk of chunks) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError('a request gives bytes');
    yield chunk;
  }
}

/** Reads and forgets what is left of a body, within bounds. Never throws. */
export async function drain(request: IncomingMessage): Promise<void> {
  if (request.readableEnded || request.destroyed) return;
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const done = (): void => {
    resolve(undefined);
  };
  let length = 0;
  const timer = setTimeout(done, DRAIN_MAX_MS);
  request.on('data', (chunk: Uint8Array) => {
    length += chunk.length;
    if (length > DRAIN_MAX_BYTES) done();
  });
  for (const event of ['end', 'close', 'error']) request.once(event, done);
  request.resume();
  await promise;
  clearTimeout(timer);
}

function checkContentType(request: IncomingMessage, expected: string): void {
  const found = request.headers['content-type'] ?? '';
  if (found.split(';')[0]?.trim().toLowerCase() === expected) return;
  throw new RequestError(400, `Content-Type ${expected} is expected, found ${JSON.stringify(found)}`, {
    hint: `With curl: --header 'Content-Type: ${expected}' --data-binary @FILE`,
  });
}

function checkLength(length: number, { name, maxBytes }: { readonly name: string; readonly maxBytes: number }): void {
  if (length <= maxBytes) return;
  throw new RequestError(413, `A ${name} may have ${maxBytes} bytes, this one has ${length} or more`);
}
