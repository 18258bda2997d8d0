/** A task response: a controller gives an agent a task, or says that it has none. */
import { field, findMatch, findOne, findWord, missing, present, readWord, wrongValue } from './_fields.ts';
import { formatManifests, ManifestError, parseManifests } from './manifest.ts';
import type { Field, Manifest, ParseOptions } from './manifest.ts';
import { readTask, taskFields } from './task.ts';
import type { Task } from './task.ts';

/** No task now. */
export interface NoTask {
  readonly session: '';
}

/** A task was claimed for this agent. */
export interface TaskGiven {
  /** Opaque; comes back with the result. */
  readonly session: string;
  /** Nonce to sign with the agent's key; then the result must carry the signature. */
  readonly challenge?: string;
  readonly resultUrl: string;
  /** By type of upload, for instance `install` → URL. */
  readonly uploadUrls: Readonly<Record<string, string>>;
  readonly agentChecksum?: string;
  readonly task: Task;
}

export type TaskResponse = NoTask | TaskGiven;

/** Whether the response holds a task. */
export function hasTask(response: TaskResponse): response is TaskGiven {
  return response.session !== '';
}

const UPLOAD_URL = /^([a-z0-9][a-z0-9-]*)-upload-url$/;
const SESSION = { pattern: /^[\x21-\x7e]{0,500}$/, expected: 'up to 500 ASCII characters without blanks' };

/** @throws {ManifestError} */
export function parseTaskResponse(text: string, options: ParseOptions = {}): TaskResponse {
  const [head, task, extra] = parseManifests(text, { name: options.name ?? 'task response' });
  if (head === undefined) throw new TypeError('parseManifests() returned nothing');
  const session = findMatch(head, 'session', SESSION);
  if (session === undefined) throw missing(head, 'session');
  if (session === '') return { session };
  if (task === undefined) {
    throw new ManifestError('a task is expected after the response with a session', {
      source: head.source,
      line: head.line,
      column: 1,
    });
  }
  if (extra !== undefined) {
    throw new ManifestError('a third manifest begins here, two are expected', {
      source: extra.source,
      line: extra.line,
      column: 1,
    });
  }
  const resultUrl = findUrl(head, 'result-url');
  if (resultUrl === undefined) throw missing(head, 'result-url');
  return {
    session,
    resultUrl,
    uploadUrls: readUploadUrls(head),
    ...present({
      challenge: findWord(head, 'challenge'),
      agentChecksum: findWord(head, 'agent-checksum'),
    }),
    task: readTask(task),
  };
}

export function formatTaskResponse(response: TaskResponse): string {
  if (!hasTask(response)) return formatManifests([[['session', '']]]);
  return formatManifests([
    [
      ['session', response.session],
      ...field('challenge', response.challenge),
      ['result-url', response.resultUrl],
      ...Object.entries(response.uploadUrls).map(([type, url]): Field => [`${type}-upload-url`, url]),
      ...field('agent-checksum', response.agentChecksum),
    ],
    taskFields(response.task),
  ]);
}

function findUrl(manifest: Manifest, name: string): string | undefined {
  const pair = findOne(manifest, name);
  if (pair === undefined) return undefined;
  const value = readWord(manifest, name);
  const protocol = URL.parse(value)?.protocol;
  if (protocol !== 'http:' && protocol !== 'https:')
    throw wrongValue(manifest, pair, 'an http or https URL is expected');
  return value;
}

function readUploadUrls(manifest: Manifest): Readonly<Record<string, string>> {
  const urls: Record<string, string> = {};
  for (const { name } of manifest.pairs) {
    const type = UPLOAD_URL.exec(name)?.[1];
    const url = type === undefined ? undefined : findUrl(manifest, name);
    if (type !== undefined && url !== undefined) urls[type] = url;
  }
  return urls;
}
