/**
 * The helper's closed list of verbs: what each asks for, what it answers, and the check of every argument.
 *
 * A request is one JSON object on one line, `{"verb":"machine.stop","build":"default-7"}`. No argument is a path, a
 * unit name or a device: the helper computes those from names, and a name has a pattern without `/` and without a
 * leading dot or dash. An argument that the verb does not know is refused, so a misspelt limit is never no limit.
 */

/** What the `build` user may ask for. Names: see {@link parseVerb}. Every verb may be repeated without harm. */
export type Verb =
  /** Makes a fresh writable snapshot of a machine; one left by an earlier try is replaced. */
  | { readonly verb: 'machine.snapshot'; readonly volume: string; readonly machine: string; readonly build: string }
  /** Kills and removes all that belongs to a build: unit, network namespace, link, firewall entry, snapshot. */
  | { readonly verb: 'machine.delete'; readonly volume: string; readonly build: string }
  /** Starts the worker in the build's snapshot; one that already runs is left alone. */
  | {
      readonly verb: 'machine.start';
      readonly volume: string;
      readonly build: string;
      /** whose agent package and prefix the machine sees */
      readonly toolchain: string;
      /** inside address, 169.254.0.0/16 without the host's own */
      readonly address: string;
      /** of the build's own TFTP instance on 169.254.111.222, 1024 to 65535 */
      readonly port: number;
      readonly cpus: number;
      readonly memoryMiB: number;
      /** processes and threads */
      readonly tasksMax: number;
      /** wall time, after which the machine is killed */
      readonly timeoutSeconds: number;
    }
  /** Kills every process of the machine at once and waits until it is gone. */
  | { readonly verb: 'machine.stop'; readonly build: string }
  /** Looks for all that any build has left on this host. */
  | { readonly verb: 'machine.list' }
  /** Waits, at most {@link WAIT_LIMIT_MS}, for the machine to end; `running` means: ask again. */
  | { readonly verb: 'machine.wait'; readonly build: string }
  /** Starts a toolchain's bootstrap as the user `build`; one that runs is left alone. */
  | {
      readonly verb: 'bootstrap.start';
      readonly toolchain: string;
      /** program and arguments, placeholders already replaced */
      readonly command: readonly string[];
      readonly environment: Readonly<Record<string, string>>;
      readonly timeLimitSeconds: number;
    }
  | { readonly verb: 'bootstrap.state'; readonly toolchain: string }
  | { readonly verb: 'bootstrap.stop'; readonly toolchain: string }
  | { readonly verb: 'agent.start'; readonly toolchain: string }
  | { readonly verb: 'agent.stop'; readonly toolchain: string }
  | { readonly verb: 'agent.restart'; readonly toolchain: string }
  | { readonly verb: 'agent.state'; readonly toolchain: string }
  | { readonly verb: 'hostname.set'; readonly name: string }
  /** Reboots in an orderly way; refused while a shutdown is already on its way. */
  | { readonly verb: 'reboot'; readonly reason: string };

/** What the answer to each verb holds beside `"ok":true`. */
export interface Replies {
  readonly 'machine.snapshot': {
    /** of the snapshot; its root file system is in `root/` */
    readonly path: string;
  };
  readonly 'machine.delete': {
    /** what was there and is gone now; empty when there was nothing */
    readonly removed: readonly ('unit' | 'netns' | 'link' | 'firewall' | 'snapshot')[];
  };
  readonly 'machine.start': {
    readonly unit: string;
    /** false: it ran already */
    readonly started: boolean;
  };
  readonly 'machine.stop': { readonly wasRunning: boolean };
  readonly 'machine.list': { readonly builds: readonly BuildRemains[] };
  readonly 'machine.wait': MachineEnd;
  readonly 'bootstrap.start': { readonly unit: string; readonly started: boolean };
  readonly 'bootstrap.state': BootstrapState;
  readonly 'bootstrap.stop': { readonly wasRunning: boolean };
  readonly 'agent.start': AgentState;
  readonly 'agent.stop': AgentState;
  readonly 'agent.restart': AgentState;
  readonly 'agent.state': AgentState;
  readonly 'hostname.set': { readonly changed: boolean };
  readonly reboot: { readonly started: boolean };
}

/** The answer's type for a verb. */
export type ReplyTo<V extends Verb> = Replies[V['verb']];

/** All that is left of one build on this host. */
export interface BuildRemains {
  readonly build: string;
  /** where its snapshot is; absent when there is none */
  readonly volume?: string;
  /** ActiveState of its unit, or `exited` when it has ended well; absent when systemd does not know it */
  readonly unit?: string;
  readonly snapshot: boolean;
  readonly netns: boolean;
  /** the host's end of its link */
  readonly link: boolean;
}

/** How a machine ended. */
export interface MachineEnd {
  /**
   * systemd's Result of the unit (`success`, `exit-code`, `signal`, `timeout`, `oom-kill`, `resources`, …), or
   * `running`: not yet ended; `absent`: no such unit.
   */
  readonly result: string;
  /** exit status, or the signal's number when killed; 0 when running or absent */
  readonly status: number;
  /** for every other end than `success`: the last lines of the unit's journal, untrusted but without control codes */
  readonly detail?: string;
}

/** Where a bootstrap stands. `absent`: none was started since boot, or it was stopped. */
export interface BootstrapState {
  readonly state: 'absent' | 'running' | 'success' | 'failed' | 'timeout';
  /** one line for people, such as `exit status 2` */
  readonly detail: string;
}

/** systemd's view of an agent's service. */
export interface AgentState {
  /** ActiveState: `active`, `activating`, `inactive`, `failed`, … */
  readonly state: string;
  /** SubState, Result and StatusText in one line */
  readonly detail: string;
}

/** A request that the helper does not take. */
export class VerbError extends Error {
  override readonly name = 'VerbError';
  /** the argument at fault; absent when the request as a whole is */
  readonly argument: string | undefined;
  readonly hint: string | undefined;

  constructor(message: string, details: { readonly argument?: string; readonly hint?: string } = {}) {
    super(message);
    this.argument = details.argument;
    this.hint = details.hint;
  }
}

/** The longest request line with its newline, in bytes. */
export const MAX_LINE_BYTES: number = 16 * 1024;

/** How long one `machine.wait` waits. */
export const WAIT_LIMIT_MS = 20_000;

/** Where the helper listens. */
export const HELPER_SOCKET = '/run/buildos/helper.sock';

/** The host's address on `br1`, where machines reach their TFTP instance. */
export const HOST_ADDRESS = '169.254.111.222';

type Check<T> = (value: unknown) => T;
type Checks<V> = { readonly [K in Exclude<keyof V, 'verb'>]: Check<V[K]> };

const NAME = /^[a-z0-9][a-z0-9_.-]{0,63}$/i;
const BUILD = /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/i;
const HOSTNAME = /^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/i;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]{0,63}$/;
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f]/;

const name = matching(NAME, 'a letter or digit, then at most 63 letters, digits, "_", "." and "-"');
const build = matching(BUILD, '1 to 32 letters, digits and dashes, no dash first or last');
const toolchainOnly = { toolchain: name };

/** The table that {@link parseVerb} goes by; its type makes it agree with {@link Verb}. */
const CHECKS: { readonly [N in Verb['verb']]: Checks<Extract<Verb, { readonly verb: N }>> } = {
  'machine.snapshot': { volume: name, machine: name, build },
  'machine.delete': { volume: name, build },
  'machine.start': {
    volume: name,
    build,
    toolchain: name,
    address: machineAddress,
    port: integer(1024, 65_535),
    cpus: integer(1, 4096),
    memoryMiB: integer(16, 64 * 1024 * 1024),
    tasksMax: integer(16, 1_000_000),
    timeoutSeconds: integer(1, 7 * 86_400),
  },
  'machine.stop': { build },
  'machine.list': {},
  'machine.wait': { build },
  'bootstrap.start': {
    toolchain: name,
    command,
    environment,
    timeLimitSeconds: integer(1, 86_400),
  },
  'bootstrap.state': toolchainOnly,
  'bootstrap.stop': toolchainOnly,
  'agent.start': toolchainOnly,
  'agent.stop': toolchainOnly,
  'agent.restart': toolchainOnly,
  'agent.state': toolchainOnly,
  'hostname.set': { name: matching(HOSTNAME, '1 to 64 letters, digits and dashes, no dash first or last') },
  reboot: { reason: line },
};

/** Every verb's name, in the order of {@link Verb}. */
export const VERB_NAMES: readonly string[] = Object.keys(CHECKS);

/**
 * Checks a request.
 *
 * Volume, machine and toolchain names match `^[a-z0-9][a-z0-9_.-]{0,63}$` in any case; builds are host names of at
 * most 32 characters, because they become one.
 *
 * @param value - the parsed JSON of one line
 * @returns a new object that holds the verb's own arguments and nothing else
 * @throws {VerbError} for an unknown verb, an unknown, missing or wrong argument
 */
export function parseVerb(value: unknown): Verb {
  if (!isRecord(value)) throw new VerbError('Cannot take the request: it is not a JSON object');
  const verb = Object.hasOwn(value, 'verb') ? value['verb'] : undefined;
  if (typeof verb !== 'string' || !isVerbName(verb)) {
    throw new VerbError(`Cannot take the request: unknown verb ${shown(verb)}`, {
      argument: 'verb',
      hint: `the verbs are ${VERB_NAMES.join(', ')}`,
    });
  }
  const checks: Readonly<Record<string, Check<unknown>>> = CHECKS[verb];
  const unknown = Object.keys(value).find((key) => key !== 'verb' && !Object.hasOwn(checks, key));
  if (unknown !== undefined) {
    throw new VerbError(`Cannot take ${verb}: unknown argument ${shown(unknown)}`, {
      argument: unknown.slice(0, 64),
      hint: `${verb} takes ${Object.keys(checks).join(', ') || 'no argument'}`,
    });
  }
  const parsed: Record<string, unknown> = { verb };
  for (const [key, check] of Object.entries(checks)) {
    try {
      parsed[key] = check(Object.hasOwn(value, key) ? value[key] : undefined);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const given = Object.hasOwn(value, key) ? shown(value[key]) : 'nothing';
      throw new VerbError(`Cannot take ${verb}: ${key} is ${given}, not ${error.message}`, { argument: key });
    }
  }
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- CHECKS[verb] has the verb's keys and their types
  return parsed as Verb;
}

function isVerbName(verb: string): verb is Verb['verb'] {
  return Object.hasOwn(CHECKS, verb);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value as it may stand in a message: short, one line. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function matching(pattern: RegExp, what: string): Check<string> {
  return (value) => {
    if (typeof value !== 'string' || !pattern.test(value)) throw new RangeError(what);
    return value;
  };
}

function integer(least: number, most: number): Check<number> {
  return (value) => {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most) {
      throw new RangeError(`a whole number from ${least} to ${most}`);
    }
    return value;
  };
}

function machineAddress(value: unknown): string {
  const parts = typeof value === 'string' ? /^169\.254\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(value) : null;
  const [third, fourth] = [Number(parts?.[1]), Number(parts?.[2])];
  const edge = (third === 0 && fourth === 0) || (third === 255 && fourth === 255);
  if (typeof value !== 'string' || parts === null || third > 255 || fourth > 255 || edge || value === HOST_ADDRESS) {
    throw new RangeError(`an address of 169.254.0.0/16 other than its first, its last and ${HOST_ADDRESS}`);
  }
  return value;
}

/** One line of text for people: no control characters, 1 to 500 characters. */
function line(value: unknown): string {
  if (typeof value !== 'string' || value === '' || value.length > 500 || CONTROL.test(value)) {
    throw new RangeError('1 to 500 characters on one line');
  }
  return value;
}

function word(value: unknown): value is string {
  return typeof value === 'string' && value.length <= 4096 && !CONTROL.test(value);
}

function command(value: unknown): readonly string[] {
  const isCommand = Array.isArray(value) && value.length > 0 && value.length <= 64 && value.every(word);
  if (!isCommand || !/^[^-]/.test(value[0] ?? '')) {
    throw new RangeError('1 to 64 words of at most 4096 characters, no control characters, the first a program');
  }
  return [...value];
}

function environment(value: unknown): Readonly<Record<string, string>> {
  const pairs = isRecord(value) ? Object.entries(value) : undefined;
  if (pairs === undefined || pairs.length > 64) throw new RangeError('an object of at most 64 variables');
  const checked: Record<string, string> = {};
  for (const [variable, text] of pairs) {
    if (!VARIABLE.test(variable) || variable === '__proto__' || !word(text)) {
      throw new RangeError('an object of variable names with values of at most 4096 characters on one line');
    }
    checked[variable] = text;
  }
  return checked;
}
