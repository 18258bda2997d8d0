/** A result request: an agent gives the result of a task back to the controller. */
import { field, findWord, present, readWord } from './_fields.ts';
import { formatManifests, ManifestError, parseManifests } from './manifest.ts';
import type { ParseOptions } from './manifest.ts';
import { readResult, resultFields } from './result.ts';
import type { Result } from './result.ts';

export interface ResultRequest {
  readonly session: string;
  /** The nonce of the task response signed with the agent's key, base64; there exactly when a nonce was given. */
  readonly challenge?: string;
  readonly agentChecksum?: string;
  readonly result: Result;
}

/** A result request may be this long, in bytes. */
export const RESULT_REQUEST_MAX_BYTES = 15_000_000;

/** @throws {ManifestError} */
export function parseResultRequest(text: string, options: ParseOptions = {}): ResultRequest {
  const [head, result, extra] = parseManifests(text, { name: options.name ?? 'result request' });
  if (head === undefined) throw new TypeError('parseManifests() returned nothing');
  if (result === undefined || extra !== undefined) {
    throw new ManifestError(
      result === undefined
        ? 'a result is expected after the request'
        : 'a third manifest begins here, two are expected',
      { source: head.source, line: (extra ?? head).line, column: 1 },
    );
  }
  return {
    session: readWord(head, 'session'),
    ...present({
      // Several lines: base64 as some tools break it.
      challenge: head.pairs.find((pair) => pair.name === 'challenge')?.value.replaceAll(/\s/g, ''),
      agentChecksum: findWord(head, 'agent-checksum'),
    }),
    result: readResult(result),
  };
}

export function formatResultRequest(request: ResultRequest): string {
  return formatManifests([
    [
      ['session', request.session],
      ...field('challenge', request.challenge),
      ...field('agent-checksum', request.agentChecksum),
    ],
    resultFields(request.result),
  ]);
}
