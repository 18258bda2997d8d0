/**
 * Metrics for Prometheus: over HTTP (`GET /metrics`, and nothing else), or as a file for node_exporter's textfile collector.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { isIP } from 'node:net';

/** Nobody but a few scrapers asks. */
const CONNECTIONS_MAX = 16;
const REQUEST_MS = 5000;
const FILE_EVERY_MS = 15_000;
const TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Where metrics go. */
export type MetricsTarget =
  | { readonly kind: 'http'; readonly address: string; readonly port: number }
  | { readonly kind: 'file'; readonly file: string };

/** Metrics cannot be given. */
export class MetricsError extends Error {
  readonly hint: string;

  constructor(message: string, hint: string, cause: unknown) {
    super(message, { cause });
    this.name = 'MetricsError';
    this.hint = hint;
  }
}

/** Reads `192.0.2.7:9069`, `[::1]:9069` or the path of a file, which holds a `/`; undefined when it is none. */
export function parseMetricsTarget(text: string): MetricsTarget | undefined {
  if (text.includes('/')) return { kind: 'file', file: text };
  const [, bracketed, plain, port = ''] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  const address = bracketed ?? plain ?? '';
  const family = bracketed === undefined ? 4 : 6;
  if (isIP(address) !== family || Number(port) > 65_535) return undefined;
  return { kind: 'http', address, port: Number(port) };
}

/** Answers over HTTP until disposed. */
export async function serveMetrics(
  at: { readonly address: string; readonly port: number },
  render: () => string,
): Promise<AsyncDisposable & { readonly port: number }> {
  const server = createServer(
    // A scraper says what it wants in a few hundred bytes, at once.
    { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, connectionsCheckingInterval: 1000, maxHeaderSize: 8192 },
    (request, response) => answer(request, response, render),
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.keepAliveTimeout = REQUEST_MS;
  try {
    await listen(server, at);
  } catch (error) {
    const hint = 'is the address one of this machine, and the port free (ss -ltnp)?';
    throw new MetricsError(`Cannot serve metrics on ${at.address} port ${at.port}`, hint, error);
  }
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : at.port,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

function listen(server: Server, at: { readonly address: string; readonly port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: at.address, port: at.port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function answer(request: IncomingMessage, response: ServerResponse, render: () => string): void {
  const isKnown = /^\/metrics(\?|$)/.test(request.url ?? '');
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  if (!isKnown || !isRead) {
    const text = isKnown ? 'only GET\n' : 'there is /metrics only\n';
    response.writeHead(isKnown ? 405 : 404, { 'content-type': 'text/plain', ...(isKnown && { allow: 'GET, HEAD' }) });
    response.end(text);
  } else {
    const body = render();
    response.writeHead(200, { 'content-type': TYPE, 'content-length': Buffer.byteLength(body) });
    response.end(request.method === 'HEAD' ? undefined : body);
  }
}

/**
 * Writes a file now, every 15 s and when disposed; it is whole at any moment.
 *
 * @param onError - a later write failed; the next may succeed
 * @throws {MetricsError} when it cannot be written now
 */
export function writeMetrics(file: string, render: () => string, onError: (error: Error) => void): Disposable {
  const write = (): void => {
    const temporary = `${file}.${process.pid}.tmp`;
    try {
      writeFileSync(temporary, render());
      renameSync(temporary, file);
    } catch (error) {
      throw new MetricsError(`Cannot write metrics to ${file}`, 'may this user write to its folder?', error);
    }
  };
  const writeLater = (): void => {
    try {
      write();
    } catch (error) {
      onError(error instanceof Error ? error : new Error(String(error)));
    }
  };
  write();
  const timer = setInterval(writeLater, FILE_EVERY_MS).unref();
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      writeLater();
    },
  };
}
