/**
 * The agent's side of the controller protocol over HTTP: asks for tasks, gives results and uploads back. Every exchange has
 * a time limit, and of an answer only so much is read.
 */
import { createHash } from 'node:crypto';
import { createReadStream, openAsBlob } from 'node:fs';
import { ManifestError } from '../manifests/manifest.ts';
import { parseTaskResponse } from '../manifests/task-response.ts';
import type { TaskResponse } from '../manifests/task-response.ts';

/** What went wrong with a controller, and what that means for the next try. */
export class ExchangeError extends Error {
  override readonly name = 'ExchangeError';
  readonly url: string;
  /** `unreachable`: no answer; `refused`: an HTTP status that is no success; `garbage`: an answer that is none. */
  readonly reason: 'unreachable' | 'refused' | 'garbage';
  /** The HTTP status, when one came. */
  readonly status: number | undefined;
  readonly hint: string | undefined;

  constructor(
    message: string,
    fields: {
      readonly url: string;
      readonly reason: ExchangeError['reason'];
      readonly status?: number;
      readonly hint?: string;
      readonly cause?: unknown;
    },
  ) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.url = fields.url;
    this.reason = fields.reason;
    this.status = fields.status;
    this.hint = fields.hint;
  }
}

/** Bounds of one exchange. */
export interface ExchangeOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** An answer with a task is a few KB; a longer one is none. */
const RESPONSE_MAX_BYTES = 1_000_000;

/** How much of a refusal's text goes into the message. */
const REASON_MAX_CHARACTERS = 300;

/**
 * Asks a controller for a task.
 *
 * @param controller - its URL, as the host's options have it
 * @param request - the text of a task request
 * @throws {ExchangeError}
 */
export async function askForTask(controller: string, request: string, options: ExchangeOptions): Promise<TaskResponse> {
  const url = `${controller.replace(/[/?]+$/, '')}/?build-task`;
  const text = await post(url, request, 'text/manifest;charset=utf-8', options);
  try {
    return parseTaskResponse(text, { name: `the answer of ${url}` });
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    throw new ExchangeError(`${error.message}; it begins with ${JSON.stringify(text.slice(0, 80))}`, {
      url,
      reason: 'garbage',
      hint: 'is that the URL of a controller? See buildos.controller_url on the kernel command line',
      cause: error,
    });
  }
}

/**
 * Gives a result back.
 *
 * @param request - the text of a result request
 * @throws {ExchangeError}
 */
export async function sendResult(url: string, request: string, options: ExchangeOptions): Promise<void> {
  await post(url, request, 'text/manifest;charset=utf-8', options);
}

/** An archive that belongs to a result. */
export interface UploadRequest {
  readonly session: string;
  /** The signed challenge; present exactly when one was given. */
  readonly challenge?: string;
  /** The type of upload that the URL is for. */
  readonly instance: string;
  readonly file: string;
}

/**
 * Uploads an archive, before the result it belongs to.
 *
 * @throws {ExchangeError}
 */
export async function sendUpload(url: string, upload: UploadRequest, options: ExchangeOptions): Promise<void> {
  const form = new FormData();
  form.set('session', upload.session);
  if (upload.challenge !== undefined) form.set('challenge', upload.challenge);
  form.set('instance', upload.instance);
  form.set('archive', await openAsBlob(upload.file, { type: 'application/x-tar' }), `${upload.instance}.tar`);
  form.set('sha256sum', await digestOf(upload.file));
  await post(url, form, undefined, options);
}

/** @returns the body of a 200 */
async function post(
  url: string,
  body: string | FormData,
  contentType: string | undefined,
  options: ExchangeOptions,
): Promise<string> {
  const deadline = AbortSignal.timeout(options.timeoutMs);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  let response: Response;
  let text: string;
  try {
    response = await fetch(url, {
      method: 'POST',
      body,
      headers: contentType === undefined ? {} : { 'Content-Type': contentType },
      // A redirect would turn the POST into a GET, or send a result where nobody meant it to go.
      redirect: 'manual',
      signal,
    });
    text = await readLimited(response, url);
  } catch (error) {
    if (error instanceof ExchangeError || options.signal?.aborted === true) throw error;
    const reason = deadline.aborted ? `no answer within ${options.timeoutMs / 1000} s` : describeFetchError(error);
    throw new ExchangeError(`Cannot reach ${url}: ${reason}`, {
      url,
      reason: 'unreachable',
      hint: 'is the controller running, and is there a route to it from this host?',
      cause: error,
    });
  }
  if (response.status === 200) return text;
  const location = response.headers.get('Location');
  const said = text.trim().split('\n', 1)[0]?.slice(0, REASON_MAX_CHARACTERS) ?? '';
  throw new ExchangeError(
    `${url} answered ${response.status} ${response.statusText}${said === '' ? '' : `: ${said}`}`,
    {
      url,
      reason: 'refused',
      status: response.status,
      ...(location === null ? {} : { hint: `it has moved to ${location}: name that URL` }),
      ...(response.status === 401 ? { hint: 'the controller does not know the key of this agent' } : {}),
      ...(response.status === 501 ? { hint: 'the controller hands out no tasks now' } : {}),
    },
  );
}

async function readLimited(response: Response, url: string): Promise<string> {
  if (response.body === null) return '';
  const chunks: Uint8Array[] = [];
  let size = 0;
  const body: AsyncIterable<Uint8Array> = response.body;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > RESPONSE_MAX_BYTES) {
      throw new ExchangeError(`${url} answered with more than ${RESPONSE_MAX_BYTES} bytes`, {
        url,
        reason: 'garbage',
        status: response.status,
        hint: 'is that the URL of a controller? See buildos.controller_url on the kernel command line',
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  const stream: AsyncIterable<Uint8Array> = createReadStream(file);
  for await (const chunk of stream) hash.update(chunk);
  return hash.digest('hex');
}

const describeFetchError = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message || error.message : error.message;
};
