/**
 * What agents ask: for a task, to give its result and its files back. Where keys are trusted, an agent says whose it is when
 * it asks, and proves it with what it gives back.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { statfsSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { isSigned, keyFingerprint } from '../manifests/challenge.ts';
import { parseResultRequest, RESULT_REQUEST_MAX_BYTES } from '../manifests/result-request.ts';
import { formatResult } from '../manifests/result.ts';
import { parseTaskRequest, TASK_REQUEST_MAX_BYTES } from '../manifests/task-request.ts';
import type { TaskRequest } from '../manifests/task-request.ts';
import { formatTaskResponse } from '../manifests/task-response.ts';
import { readChunks, readManifestBody } from './body.ts';
import { expireOverdue, manifestAnswer, textAnswer } from './desk.ts';
import type { Answer, Desk } from './desk.ts';
import { diskFull, RequestError } from './error.ts';
import { chooseTask, isWanted, judgeResult, planWithoutResult } from './plan.ts';
import type { Session } from './store.ts';
import { receiveUpload } from './upload.ts';

/** The type of upload that is asked for: what the operation `install` left in its staging directory. */
const UPLOAD_TYPE = 'install';

/** A session: task, attempt, and what nobody can guess. */
const SESSION = /^[1-9]\d{0,15}-[1-9]\d{0,8}-[0-9a-f]{32}$/;

/** A result is in the database as a manifest and as logs, and once more of both in the database's log. */
const RESULT_SPACE_FACTOR = 4;

/** Gives an agent the oldest task that it can build, if there is one. */
export async function handOutTask(request: IncomingMessage, _query: URLSearchParams, desk: Desk): Promise<Answer> {
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

/** Keeps a result, or puts the task of an interrupted build back in the queue. */
export async function takeResult(request: IncomingMessage, _query: URLSearchParams, desk: Desk): Promise<Answer> {
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

/** Keeps the file that comes before a result. */
export async function takeUpload(request: IncomingMessage, query: URLSearchParams, desk: Desk): Promise<Answer> {
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
