/** What those who have something built ask: to queue a task, and what became of it. */
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { TASK_REQUEST_MAX_BYTES } from '../manifests/task-request.ts';
import { parseTask } from '../manifests/task.ts';
import { readManifestBody } from './body.ts';
import { expireOverdue, jsonAnswer, manifestAnswer, textAnswer } from './desk.ts';
import type { Answer, Desk } from './desk.ts';
import { RequestError } from './error.ts';
import { CONTENT_SECURITY_POLICY, formatPage } from './page.ts';

/** The list of tasks ends after this many. */
const MAX_LISTED = 1000;

/** Queues a task. */
export async function submitTask(request: IncomingMessage, _query: URLSearchParams, desk: Desk): Promise<Answer> {
  const text = await readManifestBody(request, { name: 'task manifest', maxBytes: TASK_REQUEST_MAX_BYTES });
  const task = parseTask(text);
  if (desk.store.countQueued() >= desk.maxQueued) {
    throw new RequestError(503, `${desk.maxQueued} tasks are waiting, no more are taken`, {
      hint: 'Is an agent polling that offers the machines these tasks need? Try again later.',
    });
  }
  return jsonAnswer({ id: desk.store.submit(task, desk.now()) });
}

/** The page for people. */
export function givePage(_request: IncomingMessage, _query: URLSearchParams, desk: Desk): Answer {
  expireOverdue(desk);
  return {
    status: 200,
    type: 'text/html; charset=utf-8',
    content: { text: formatPage(desk.store.list(MAX_LISTED)) },
    headers: { 'Content-Security-Policy': CONTENT_SECURITY_POLICY },
  };
}

/** All tasks, the newest first. */
export function giveTasks(_request: IncomingMessage, _query: URLSearchParams, desk: Desk): Answer {
  expireOverdue(desk);
  return jsonAnswer(desk.store.list(MAX_LISTED));
}

/** All about one task. */
export function giveTask(_request: IncomingMessage, query: URLSearchParams, desk: Desk): Answer {
  expireOverdue(desk);
  const id = readTaskId(query, 'task');
  const found = desk.store.find(id);
  if (found === undefined) throw noTask(id);
  return jsonAnswer(found);
}

/** The log of an operation, or of all. */
export function giveLog(_request: IncomingMessage, query: URLSearchParams, desk: Desk): Answer {
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

/** The result manifest of a task. */
export function giveResult(_request: IncomingMessage, query: URLSearchParams, desk: Desk): Answer {
  const id = readTaskId(query, 'result');
  const manifest = desk.store.findResult(id);
  if (manifest === undefined) throw new RequestError(404, `Task ${id} has no result, or there is no such task`);
  return manifestAnswer(manifest);
}

/** The file that was uploaded with a result. */
export function giveUpload(_request: IncomingMessage, query: URLSearchParams, desk: Desk): Answer {
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

function readTaskId(query: URLSearchParams, name: string): string {
  const id = query.get(name) ?? '';
  if (!/^[1-9]\d{0,14}$/.test(id)) throw noTask(id);
  return id;
}

function noTask(id: string): RequestError {
  return new RequestError(404, `There is no task ${JSON.stringify(id)}`, { hint: 'GET /?tasks lists them.' });
}
