/** What a caller asks of an agent, how an agent is told what to be, and the few lines that load it. */
import type { Json, RunOptions } from './connection.ts';

/** What an agent is told when it starts. */
export interface AgentConfig {
  /** How many bytes of stdin are its bundle; frames follow. */
  readonly sizeBytes: number;
  /** Another user to become before anything else. */
  readonly become?: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] };
  /** What programs get as their environment; without it, the agent's own. */
  readonly env?: Readonly<Record<string, string>>;
}

/** What the agent finds its start in. */
export const AGENT_GLOBAL = 'buildosAgent';

/**
 * Loads an agent: it comes over stdin, ahead of the frames, so that no file of it is ever anywhere. Run as
 * `node --input-type=module --eval BOOT CONFIG`.
 */
export const BOOT: string = `
import { createHash } from 'node:crypto';
const config = JSON.parse(process.argv.at(-1)), input = process.stdin, parts = [];
let have = 0;
await new Promise((resolve) => {
  const take = () => {
    for (let chunk; have < config.sizeBytes && (chunk = input.read()) !== null; have += chunk.length) parts.push(chunk);
    if (have < config.sizeBytes) return;
    input.off('readable', take);
    resolve();
  };
  input.on('readable', take);
  input.once('end', () => process.exit(0));
});
const all = Buffer.concat(parts), code = all.subarray(0, config.sizeBytes);
if (all.length > code.length) input.unshift(all.subarray(code.length));
globalThis.${AGENT_GLOBAL} = { sha256: createHash('sha256').update(code).digest('hex'), config };
await import('data:text/javascript;base64,' + code.toString('base64'));
`;

/** The options of a run that go to the agent; the others stay with the caller. */
export type RemoteRunOptions = Pick<RunOptions, 'env' | 'cwd' | 'timeoutMs' | 'maxOutputBytes' | 'keepStdout'>;

/** A call. */
export type Request =
  | {
      readonly op: 'run';
      readonly argv: readonly string[];
      readonly options: RemoteRunOptions;
      readonly hasInput: boolean;
    }
  | { readonly op: 'readFile'; readonly path: string }
  | { readonly op: 'writeFile'; readonly path: string; readonly mode: number }
  | { readonly op: 'call'; readonly name: string; readonly args: readonly Json[] };

/**
 * Reads a call. Both ends are the same version (the digest says so): only what could be confused is looked at.
 *
 * @throws {TypeError}
 */
export function parseRequest(value: unknown): Request {
  if (typeof value === 'object' && value !== null && 'op' in value) {
    const { op } = value;
    // The caller is the same version of this file.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    if (op === 'run' || op === 'readFile' || op === 'writeFile' || op === 'call') return value as Request;
  }
  throw new TypeError(`No call of an agent: ${JSON.stringify(value)}`);
}
