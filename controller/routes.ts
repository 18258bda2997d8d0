/**
 * The controller's requests and their answers. All are on the path `/`; the first name of the query says which.
 *
 * ```
 * POST /?build-task                     an agent asks for a task
 * POST /?build-result                   … gives a result back          (the result-url of a task response)
 * POST /?build-upload=<type>            … uploads a file before that   (a <type>-upload-url)
 * POST /?submit                         a task manifest → {"id": …}
 * GET  /?tasks   /?task=<id>            JSON
 * GET  /?log=<id>[&operation=<op>]      text
 * GET  /?result=<id>                    the result manifest
 * GET  /?upload=<id>[&type=<type>]      the uploaded file
 * GET  /                                a page for people
 * ```
 */
import { createHash, randomBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { statfsSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { isSigned, keyFingerprint } from '../manifests/challenge.ts';
import { parseResultRequest, RESULT_REQUEST_MAX_BYTES } from '../manifests/result-request.ts';
import { formatResult } from '../manifests/result.ts';
import { parseTask } from '../manifests/task.ts';
import { parseTaskRequest, TASK_REQUEST_MAX_BYTES } from '../manifests/task-request.ts';
import type { TaskRequest } from '../manifests/task-request.ts';
import { formatTaskResponse } from '../manifests/task-response.ts';
import { readChunks, readManifestBody } from './body.ts';
import { diskFull, RequestError } from './error.ts';
import { CONTENT_SECURITY_POLICY, formatPage } from './page.ts';
import { chooseTask, isWanted, judgeResult, planExpiry, planWithoutResult } from './plan.ts';
import type { Session, Store } from './store.ts';
import { receiveUpload } from './upload.ts';

/** What is sent back. */
export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly content: { readonly text: string } | { readonly file: string; readonly sizeBytes: number };
  readonly headers?: Readonly<Record<string, string>>;
}

/** What the requests work on. */
export interface Desk {
  readonly store: Store;
  /** Of uploaded files. */
  readonly uploads: string;
  /** How agents reach us; without it, as the request did. */
  readonly publicUrl?: string;
  /** Agents that may take tasks; none: all may. */
  readonly trustedKeys: readonly KeyObject[];
  readonly taskTimeoutSeconds: number;
  readonly maxAttempts: number;
  readonly maxQueued: number;
  readonly maxUploadBytes: number;
  /** Whether agents get tasks at all; otherwise 501. */
  readonly handsOut: boolean;
  readonly now: () => number;
}

type Handler = (request: IncomingMessage, query: URLSearchParams, desk: Desk) => Answer | Promise<Answer>;

const ROUTES: Readonly<Record<'GET' | 'POST', Readonly<Record<string, Handler>>>> = {
  GET: {
    '': givePage,
    tasks: giveTasks,
    task: giveTask,
    log: giveLog,
    result: giveResult,
    upload: giveUpload,
  },
  POST: {
    'build-task': handOutTask,
    'build-result': takeResult,
    'build-upload': takeUpload,
    submit: submitTask,
  },
};

/** The type of upload that is asked for: what the operation `install` left in its staging directory. */
const UPLOAD_TYPE = 'install';

/** A session: task, attempt, and what nobody can guess. */
const SESSION = /^[1-9]\d{0,15}-[1-9]\d{0,8}-[0-9a-f]{32}$/;

/** A result is in the database as a manifest and as logs, and once more of both in the database's log. */
const RESULT_SPACE_FACTOR = 4;

/** The list of tasks ends after this many. */
const MAX_LISTED = 1000;

/**
 * Answers one request.
 *
 * @throws {RequestError} for what is refused
 * @throws {ManifestError} for a manifest that is wrong
 */
export async function answer(request: IncomingMessage, desk: Desk): Promise<Answer> {
  const url = URL.parse(request.url ?? '', 'http://controller');
  if (url === null) throw new RequestError(400, 'The address of the request is not a URL');
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  const [name = ''] = url.searchParams.keys();
  if (url.pathname !== '/' || !Object.values(ROUTES).some((routes) => Object.hasOwn(routes, name))) {
    throw new RequestError(404, `There is nothing at ${JSON.stringify(request.url)}`, {
      hint: 'All requests are on "/": GET /, /?tasks, /?task=ID, /?log=ID&operation=OP, POST /?submit, /?build-task.',
    });
  }
  const routes = method === 'GET' || method === 'POST' ? ROUTES[method] : {};
  const handler = Object.hasOwn(routes, name) ? routes[name] : undefined;
  if (handler === undefined) throw new RequestError(405, `${method} is not for "/?${name}"`);
  return handler(request, url.searchParams, desk);
}

async function handOutTask(request: IncomingMessage, _query: URLSearchParams, desk: Desk): Promise<Answer> {
  if (!desk.handsOut) throw new RequestError(501, 'This controller hands out no tasks');
  const text = await readManifestBody(request, { name: 'task request', maxBytes: TASK_REQUEST_MAX_BYTES });
  const asked = parseTaskRequest(text);
  const fingerprint = checkAgent(asked, desk);
  expireOverdue(desk);
  const choice = chooseTask(desk.store.queued(), asked);
  if (choice === undefined) return manifestAnswer(formatTaskResponse({ session: '' }));
  const attempt = (desk.store.find(choice.id)?.attempts ?? 0) + 1;
  const session = `${choice.id}-${attempt}-${randomBytes(16).toString('hex')}`;
  const proof = fingerprint === undefined ? {} : { fingerprint, challenge: randomBytes(32).toString('hex') };
  desk.store.claim({
    session,
    taskId: choice.id,
    agent: asked.agent,
    machine: choice.task.machine,
    nowMs: desk.now(),
    ...proof,
  });
  const base = desk.publicUrl ?? urlOf(request);
  return manifestAnswer(
    formatTaskResponse({
      session,
      ...(proof.challenge === undefined ? {} : { challenge: proof.challenge }),
      resultUrl: `${base}/?build-result`,
      uploadUrls: { [UPLOAD_TYPE]: `${base}/?build-upload=${UPLOAD_TYPE}` },
      task: choice.task,
    }),
  );
}

async function takeResult(request: IncomingMessage, _query: URLSearchParams, desk: Desk): Promise<Answer> {
  const text = await readManifestBody(request, { name: 'result request', maxBytes: RESULT_REQUEST_MAX_BYTES });
  const { session: name, challenge, result } = parseResultRequest(text);
  const session = findSession(name, desk);
  if (session === undefined) return textAnswer('expired');
  checkChallenge(session, challenge, desk);
  if (result.name !== session.task.name || result.version !== session.task.version) {
    throw new RequestError(
      400,
      `The result is of ${result.name} ${result.version}, the task was ${session.task.name} ${session.task.version}`,
    );
  }
  const digest = createHash('sha256').update(formatResult(result)).digest('hex');
  const verdict = judgeResult(session, digest);
  if (verdict === 'conflict') throw new RequestError(409, 'This session has given another result before');
  if (verdict === 'accept') {
    checkSpace(desk.uploads, text.length * RESULT_SPACE_FACTOR);
    if (result.status === 'interrupt') {
      const next = planWithoutResult(session.attempts, desk.maxAttempts);
      desk.store.acceptInterrupt(session, digest, next, desk.now());
    } else {
      desk.store.acceptResult(session, digest, result, desk.now());
    }
  }
  return textAnswer({ accept: 'accepted', repeat: 'accepted before', expired: 'expired' }[verdict]);
}

async function takeUpload(request: IncomingMessage, query: URLSearchParams, desk: Desk): Promise<Answer> {
  const type = query.get('build-upload') ?? '';
  if (type !== UPLOAD_TYPE) throw new RequestError(404, `There are no uploads of the type ${JSON.stringify(type)}`);
  await using received = await receiveUpload(readChunks(request), {
    contentType: request.headers['content-type'] ?? '',
    folder: desk.uploads,
    maxBytes: desk.maxUploadBytes,
    authenticate: (name, challenge) => {
      const session = findSession(name, desk);
      if (session === undefined || !isWanted(session)) {
        throw new RequestError(410, 'This session has ended, its task went on without it');
      }
      checkChallenge(session, challenge, desk);
      return session;
    },
  });
  // From here to the answer nothing else runs: look and change belong together.
  const { session } = received.session;
  const known = desk.store.findUpload(session, type);
  if (known !== undefined) {
    if (known.sha256 === received.sha256) return textAnswer('accepted before');
    throw new RequestError(409, 'This session has uploaded another file before');
  }
  const file = `${session}.${type}`;
  received.keep(file);
  const { sha256, sizeBytes } = received;
  desk.store.acceptUpload({ session, type, sha256, sizeBytes, file }, received.session.taskId, desk.now());
  return textAnswer('accepted');
}

async function submitTask(request: IncomingMessage, _query: URLSearchParams, desk: Desk): Promise<Answer> {
  const text = await readManifestBody(request, { name: 'task manifest', maxBytes: TASK_REQUEST_MAX_BYTES });
  const task = parseTask(text);
  if (desk.store.countQueued() >= desk.maxQueued) {
    throw new RequestError(503, `${desk.maxQueued} tasks are waiting, no more are taken`, {
      hint: 'Is an agent polling that offers the machines these tasks need? Try again later.',
    });
  }
  return jsonAnswer({ id: desk.store.submit(task, desk.now()) });
}

function givePage(_request: IncomingMessage, _query: URLSearchParams, desk: Desk): Answer {
  expireOverdue(desk);
  return {
    status: 200,
    type: 'text/html; charset=utf-8',
    content: { text: formatPage(desk.store.list(MAX_LISTED)) },
    headers: { 'Content-Security-Policy': CONTENT_SECURITY_POLICY },
  };
}

function giveTasks(_request: IncomingMessage, _query: URLSearchParams, desk: Desk): Answer {
  expireOverdue(desk);
  return jsonAnswer(desk.store.list(MAX_LISTED));
}

function giveTask(_request: IncomingMessage, query: URLSearchParams, desk: Desk): Answer {
  expireOverdue(desk);
  const id = readTaskId(query, 'task');
  const found = desk.store.find(id);
  if (found === undefined) throw noTask(id);
  return jsonAnswer(found);
}

function giveLog(_request: IncomingMessage, query: URLSearchParams, desk: Desk): Answer {
  const id = readTaskId(query, 'log');
  const found = desk.store.find(id);
  if (found === undefined) throw noTask(id);
  const known = found.operations.map(({ operation }) => operation);
  if (known.length === 0) {
    throw new RequestError(404, `Task ${id} has no logs: its state is ${found.state}`);
  }
  const wanted = query.get('operation');
  if (wanted === null) {
    return textAnswer(known.map((name) => `== ${name} ==\n${desk.store.findLog(id, name) ?? ''}`).join('\n'));
  }
  const log = desk.store.findLog(id, wanted);
  if (log === undefined) {
    throw new RequestError(404, `Task ${id} has no operation ${JSON.stringify(wanted)}`, {
      hint: `It has: ${known.join(', ')}.`,
    });
  }
  return { status: 200, type: 'text/plain; charset=utf-8', content: { text: log } };
}

function giveResult(_request: IncomingMessage, query: URLSearchParams, desk: Desk): Answer {
  const id = readTaskId(query, 'result');
  const manifest = desk.store.findResult(id);
  if (manifest === undefined) throw new RequestError(404, `Task ${id} has no result, or there is no such task`);
  return manifestAnswer(manifest);
}

function giveUpload(_request: IncomingMessage, query: URLSearchParams, desk: Desk): Answer {
  const id = readTaskId(query, 'upload');
  const upload = desk.store.findUploadOf(id, query.get('type') ?? undefined);
  if (upload === undefined) throw new RequestError(404, `Task ${id} has no upload, or there is no such task`);
  return {
    status: 200,
    type: 'application/octet-stream',
    content: { file: join(desk.uploads, upload.file), sizeBytes: upload.sizeBytes },
    headers: {
      'Content-Disposition': `attachment; filename="task-${id}-${upload.type}.tar"`,
      'Repr-Digest': `sha-256=:${Buffer.from(upload.sha256, 'hex').toString('base64')}:`,
    },
  };
}

/** Puts tasks whose agent was not heard of for too long back in the queue, or gives them up. */
function expireOverdue(desk: Desk): void {
  const nowMs = desk.now();
  desk.store.expire(
    planExpiry(desk.store.claims(), {
      nowMs,
      timeoutMs: desk.taskTimeoutSeconds * 1000,
      maxAttempts: desk.maxAttempts,
    }),
    nowMs,
  );
}

/** Who asks, when only known agents may; nothing when all may. */
function checkAgent(asked: TaskRequest, desk: Desk): string | undefined {
  if (desk.trustedKeys.length === 0) return undefined;
  if (asked.fingerprint === undefined) {
    throw new RequestError(401, `The agent "${asked.agent}" must say its fingerprint`, {
      hint: 'This controller gives tasks only to agents whose public key it was started with.',
    });
  }
  if (findKey(asked.fingerprint, desk) === undefined) {
    throw new RequestError(401, `The key of the agent "${asked.agent}", ${asked.fingerprint}, is not trusted`, {
      hint: "Start the controller with --trust and the agent's public key.",
    });
  }
  return asked.fingerprint;
}

function findKey(fingerprint: string, desk: Desk): KeyObject | undefined {
  return desk.trustedKeys.find((key) => keyFingerprint(key) === fingerprint);
}

/** A session that was never given out, but could have been, has expired: the database was another one. */
function findSession(name: string, desk: Desk): Session | undefined {
  if (!SESSION.test(name)) throw new RequestError(400, `${JSON.stringify(name.slice(0, 80))} is not a session`);
  return desk.store.findSession(name);
}

function checkChallenge(session: Session, signature: string | undefined, desk: Desk): void {
  if (session.challenge === undefined) {
    if (signature !== undefined) throw new RequestError(400, 'A challenge was answered that was not given');
    return;
  }
  if (signature === undefined) throw new RequestError(400, 'The signed challenge is missing');
  const key = findKey(session.fingerprint ?? '', desk);
  if (key === undefined || !isSigned(session.challenge, signature, key)) {
    throw new RequestError(400, 'The challenge is not signed with the key of the agent that took the task');
  }
}

/**
 * Refuses what will not fit before it is begun: a change that fails in the middle leaves the database's log grown,
 * and on a full disk that space does not come back.
 */
function checkSpace(folder: string, neededBytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < neededBytes) throw diskFull();
}

/** How the client reached us; what it says itself is good enough, since only it is told. */
function urlOf(request: IncomingMessage): string {
  const host = request.headers.host ?? '';
  if (!/^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/.test(host)) {
    throw new RequestError(400, `${JSON.stringify(host)} is not a host`);
  }
  return `http://${host}`;
}

function readTaskId(query: URLSearchParams, name: string): string {
  const id = query.get(name) ?? '';
  if (!/^[1-9]\d{0,14}$/.test(id)) throw noTask(id);
  return id;
}

function noTask(id: string): RequestError {
  return new RequestError(404, `There is no task ${JSON.stringify(id)}`, { hint: 'GET /?tasks lists them.' });
}

function textAnswer(text: string): Answer {
  return { status: 200, type: 'text/plain; charset=utf-8', content: { text: `${text}\n` } };
}

function manifestAnswer(text: string): Answer {
  return { status: 200, type: 'text/manifest; charset=utf-8', content: { text } };
}

function jsonAnswer(value: unknown): Answer {
  return { status: 200, type: 'application/json', content: { text: `${JSON.stringify(value, undefined, 2)}\n` } };
}
