/**
 * A controller: takes tasks from people, hands them to agents, keeps what comes back.
 *
 * ```
 * <folder>/controller.sqlite   tasks, sessions, results, logs
 * <folder>/uploads/            what agents uploaded
 * ```
 *
 * Specification: the controller protocol (task request, result request, uploads). Left out: TLS and accounts for
 * people; put a reverse proxy in front where others can reach it.
 */
import type { KeyObject } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { ManifestError } from '../manifests/manifest.ts';
import { drain } from './body.ts';
import { ControllerError, diskFull, RequestError } from './error.ts';
import type { Answer, Desk } from './desk.ts';
import { answer } from './routes.ts';
import { openStore } from './sqlite-store.ts';
import type { Store } from './store.ts';

/** When a task without a result is handed out again: longer than an agent lets a build take (4 h), and its delivery. */
export const TASK_TIMEOUT_SECONDS: number = 5 * 3600;

export interface ControllerOptions {
  /** Where everything is kept; made when absent, and used by one controller at a time. */
  readonly folder: string;
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  /** How agents reach us, for the URLs they are given. Default: as their request did. */
  readonly publicUrl?: string;
  /** Public keys (Ed25519, RSA) of the agents that get tasks. Default: all agents do. */
  readonly trustedKeys?: readonly KeyObject[];
  /** A task without a result after this time is handed out again. Default: 3 hours. */
  readonly taskTimeoutSeconds?: number;
  /** How often a task is handed out. Default: 5. */
  readonly maxAttempts?: number;
  /** How many tasks may wait. Default: 10 000. */
  readonly maxQueued?: number;
  /** Default: 2 GiB. */
  readonly maxUploadBytes?: number;
  /** `false`: agents are told that this controller hands out nothing (501). */
  readonly handsOut?: boolean;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** Hears of what was answered with 500 and 507. */
  readonly onError?: (error: unknown) => void;
}

export interface Controller extends AsyncDisposable {
  /** `http://<address>:<port>`, without a slash at the end. */
  readonly url: string;
  readonly port: number;
  /** Answers what it has begun (5 s at most), then lets go of the port and the folder. */
  close(): Promise<void>;
}

/** Requests that are under way have this long when the controller closes. */
const CLOSE_GRACE_MS = 5000;
/** A whole request, also an upload, may take this long. */
const REQUEST_TIMEOUT_MS = 30 * 60 * 1000;
/** A connection on which nothing moves is closed. */
const IDLE_TIMEOUT_MS = 60 * 1000;
const MAX_CONNECTIONS = 500;

/**
 * Starts a controller.
 *
 * @throws {ControllerError} when the folder or the port cannot be had
 */
export async function openController(options: ControllerOptions): Promise<Controller> {
  const uploads = join(options.folder, 'uploads');
  await makeFolder(uploads);
  await using stack = new AsyncDisposableStack();
  const store = stack.use(openStore(join(options.folder, 'controller.sqlite')));
  await removeStrays(uploads, store);
  const desk: Desk = {
    store,
    uploads,
    ...(options.publicUrl === undefined ? {} : { publicUrl: options.publicUrl.replace(/\/+$/, '') }),
    trustedKeys: options.trustedKeys ?? [],
    taskTimeoutSeconds: options.taskTimeoutSeconds ?? TASK_TIMEOUT_SECONDS,
    maxAttempts: options.maxAttempts ?? 5,
    maxQueued: options.maxQueued ?? 10_000,
    maxUploadBytes: options.maxUploadBytes ?? 2 * 1024 ** 3,
    handsOut: options.handsOut ?? true,
    now: options.now ?? Date.now,
  };
  const running = new Set<Promise<void>>();
  const server = createServer((request, response) => {
    const work = respond(request, response, desk, options.onError ?? (() => undefined));
    running.add(work);
    void work.finally(() => running.delete(work));
  });
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.setTimeout(IDLE_TIMEOUT_MS);
  server.maxConnections = MAX_CONNECTIONS;
  stack.defer(() => stop(server, running));
  const port = await listen(server, options);
  const resources = stack.move();
  const close = (): Promise<void> => resources.disposeAsync();
  return { url: formatUrl(options.address, port), port, close, [Symbol.asyncDispose]: close };
}

/** Answers one request, whatever happens. Never throws. */
async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  desk: Desk,
  onError: (error: unknown) => void,
): Promise<void> {
  let reply: Answer;
  try {
    reply = await answer(request, desk);
  } catch (error) {
    reply = refuse(error, onError);
    await drain(request);
  }
  try {
    await send(reply, request, response);
  } catch (error) {
    // The client has gone, or the file could not be read: the status is out, so all that is left is to hang up.
    response.destroy();
    if (!request.destroyed) onError(error);
  }
}

async function send(reply: Answer, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { content } = reply;
  const text = 'text' in content ? Buffer.from(content.text) : undefined;
  response.writeHead(reply.status, {
    'Content-Type': reply.type,
    'Content-Length': 'file' in content ? content.sizeBytes : (text?.length ?? 0),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    ...(request.readableEnded || request.method === 'GET' || request.method === 'HEAD' ? {} : { Connection: 'close' }),
    ...reply.headers,
  });
  if (request.method === 'HEAD' || 'text' in content) {
    response.end(request.method === 'HEAD' ? undefined : text);
    return;
  }
  await pipeline(createReadStream(content.file), response);
}

function refuse(error: unknown, onError: (error: unknown) => void): Answer {
  const refusal = asRefusal(error);
  if (refusal.status >= 500 && refusal.status !== 501 && refusal.status !== 503) onError(error);
  const hint = refusal.hint === undefined ? '' : `hint: ${refusal.hint}\n`;
  return {
    status: refusal.status,
    type: 'text/plain; charset=utf-8',
    content: { text: `error: ${refusal.message}\n${hint}` },
  };
}

function asRefusal(error: unknown): RequestError {
  if (error instanceof RequestError) return error;
  if (error instanceof ManifestError) {
    return new RequestError(400, error.message, error.hint === undefined ? {} : { hint: error.hint });
  }
  if (isDiskFull(error)) return diskFull(error);
  return new RequestError(500, 'The controller failed on this request, nothing was kept', {
    hint: 'Its own output says why. The request may be sent again.',
  });
}

/** ENOSPC of a file, SQLITE_FULL (13) of the database. */
function isDiskFull(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ('code' in error && error.code === 'ENOSPC') || ('errcode' in error && error.errcode === 13);
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o750 });
  } catch (cause) {
    throw new ControllerError(
      `Cannot make the folder "${folder}": ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause, hint: 'Name a folder that you may write to.' },
    );
  }
}

/** Removes what a crash has left of uploads: half received, or received and not recorded. */
async function removeStrays(uploads: string, store: Store): Promise<void> {
  const known = store.uploadFiles();
  for (const name of await readdir(uploads)) {
    if (!known.has(name)) await rm(join(uploads, name), { force: true });
  }
}

async function listen(server: Server, options: { readonly address: string; readonly port: number }): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  server.once('error', reject);
  server.listen({ host: options.address, port: options.port }, () => {
    resolve(undefined);
  });
  try {
    await promise;
  } catch (cause) {
    throw new ControllerError(
      `Cannot listen on ${formatUrl(options.address, options.port)}: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause, hint: 'Is the address one of this host, and the port free? Port 0 takes any free one.' },
    );
  }
  const address = server.address();
  if (address === null || typeof address === 'string') throw new TypeError('a TCP server has an address');
  return address.port;
}

async function stop(server: Server, running: ReadonlySet<Promise<void>>): Promise<void> {
  if (!server.listening) return;
  const { promise, resolve } = Promise.withResolvers<undefined>();
  server.close(() => {
    resolve(undefined);
  });
  server.closeIdleConnections();
  const timer = setTimeout(() => {
    server.closeAllConnections();
  }, CLOSE_GRACE_MS);
  await promise;
  clearTimeout(timer);
  // A handler whose connection was cut may still be at work with the store.
  await Promise.allSettled(running);
}

function formatUrl(address: string, port: number): string {
  return `http://${isIPv6(address) ? `[${address}]` : address}:${port}`;
}
