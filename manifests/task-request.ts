/** A task request: an agent asks a controller for work and says which machines it has. */
import { field, findChoice, findInteger, findMatch, findWord, missing, present, readWord } from './_fields.ts';
import { machineHeaderFields, readMachineHeader } from './machine.ts';
import type { MachineHeader } from './machine.ts';
import { formatManifests, parseManifests } from './manifest.ts';
import type { ParseOptions } from './manifest.ts';

const INTERACTIVE_MODES = ['false', 'true', 'both'] as const;
export type InteractiveMode = (typeof INTERACTIVE_MODES)[number];

export interface TaskRequest {
  /** Name of the agent: letters, digits, `.`, `_`, `-`. */
  readonly agent: string;
  readonly toolchainName: string;
  readonly toolchainVersion: string;
  readonly interactiveMode?: InteractiveMode;
  readonly interactiveLogin?: string;
  /** SHA-256 of the agent's public key (DER), lower case hexadecimal. */
  readonly fingerprint?: string;
  readonly auxiliaryRamKiB?: number;
  readonly machines: readonly MachineHeader[];
}

/** A task request may be this long, in bytes. */
export const TASK_REQUEST_MAX_BYTES = 100_000;

const AGENT = { pattern: /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/, expected: 'letters, digits, ".", "_" or "-"' };
const FINGERPRINT = { pattern: /^[0-9a-f]{64}$/i, expected: 'a SHA-256 in hexadecimal' };

/** @throws {ManifestError} */
export function parseTaskRequest(text: string, options: ParseOptions = {}): TaskRequest {
  const [head, ...machines] = parseManifests(text, { name: options.name ?? 'task request' });
  if (head === undefined) throw new TypeError('parseManifests() returned nothing');
  const agent = findMatch(head, 'agent', AGENT);
  if (agent === undefined) throw missing(head, 'agent');
  return present({
    agent,
    toolchainName: readWord(head, 'toolchain-name'),
    toolchainVersion: readWord(head, 'toolchain-version'),
    interactiveMode: findChoice(head, 'interactive-mode', INTERACTIVE_MODES),
    interactiveLogin: findWord(head, 'interactive-login'),
    fingerprint: findMatch(head, 'fingerprint', FINGERPRINT)?.toLowerCase(),
    auxiliaryRamKiB: findInteger(head, 'auxiliary-ram'),
    machines: machines.map(readMachineHeader),
  });
}

export function formatTaskRequest(request: TaskRequest): string {
  return formatManifests([
    [
      ['agent', request.agent],
      ['toolchain-name', request.toolchainName],
      ['toolchain-version', request.toolchainVersion],
      ...field('interactive-mode', request.interactiveMode),
      ...field('interactive-login', request.interactiveLogin),
      ...field('fingerprint', request.fingerprint),
      ...field('auxiliary-ram', request.auxiliaryRamKiB),
    ],
    ...request.machines.map(machineHeaderFields),
  ]);
}
