/**
 * The kernel command line: how the kernel cuts it into words, and what the `buildos.` words among them mean.
 *
 * Specification: the kernel's `next_arg()` in lib/cmdline.c for the words; the option table of the host specification for
 * the meaning. Pure: the text arrives as an argument. A bad option is never an error here: it becomes an
 * {@link OptionProblem}, the option keeps its default, and the boot goes on.
 */

import { findNearest } from './nearest-name.ts';
import {
  BadValueError,
  checkMinisignKey,
  parseBoolean,
  parseController,
  parseCount,
  parseEmail,
  parseFingerprint,
  parseHostname,
  parseInteractive,
  parseMiB,
  parseRelay,
  parseSeconds,
  parseSshKey,
  parseUrl,
} from './option-values.ts';

/** What is asked for one toolchain: `buildos.<option>[.<tc>]`. */
export interface ToolchainOptions {
  /** `buildos.toolchain_url`: http, https or tftp URL of the file list. */
  readonly url?: string;
  /** `buildos.toolchain_trust`: minisign public key, base64; as written when it is none, see {@link KEYS}. */
  readonly trust?: string;
  /** `buildos.controller_url`: priority is 1 to 5 digits `[F]DCBA`, `0` when not given. */
  readonly controllers: readonly { readonly priority: string; readonly url: string }[];
  /** `buildos.controller_trust`: SHA-256 fingerprints, upper case hex pairs with colons. */
  readonly controllerTrust: readonly string[];
  /** `buildos.instances`: machines at once, 1 to 256. */
  readonly instances?: number;
  /** `buildos.ncpu`: CPUs per machine, 1 to 4096. */
  readonly ncpu?: number;
  /** `buildos.ram`: memory per machine, at least 128 MiB. */
  readonly ramMiB?: number;
  /** `buildos.interactive`. */
  readonly interactive: 'false' | 'true' | 'both';
}

/** All `buildos.` options of a host, checked; what was not given has its default or is absent. */
export interface HostOptions {
  readonly buildidUrl?: string;
  readonly buildidTrust?: string;
  /** By toolchain name; an option without `.<tc>` belongs to `default`. */
  readonly toolchains: Readonly<Record<string, ToolchainOptions>>;
  readonly configUrl?: string;
  readonly configTrust?: string;
  /** 5 to 86400; {@link DEFAULT_MONITOR_INTERVAL_SECONDS} when not given. */
  readonly monitorIntervalSeconds: number;
  /** As asked for, not yet limited to a quarter of RAM. */
  readonly tftpSizeMiB?: number;
  /** `host` or `host:port`. */
  readonly smtpRelay?: string;
  readonly adminEmail?: string;
  /** Lines for authorized_keys, without options. */
  readonly sshKeys: readonly string[];
  readonly hostname?: string;
  readonly initDebug: boolean;
  readonly initShell: boolean;
}

/** One thing wrong with the command line, for the console, the journal and the status. */
export interface OptionProblem {
  /** The option as written, `buildos.` included. */
  readonly name: string;
  /** The value as written; absent when there was none. */
  readonly value?: string;
  readonly message: string;
  readonly hint?: string;
}

/** One word of the command line; `value` is absent when the word has no `=`. */
export interface KernelArgument {
  readonly name: string;
  readonly value?: string;
}

/** Seconds between looks at the URLs when `buildos.monitor_interval` is not given. */
export const DEFAULT_MONITOR_INTERVAL_SECONDS = 60;

const PREFIX = 'buildos.';

/** Letters, digits, dashes: it becomes part of unit, directory and interface names, and of build ids (32 at most). */
const TOOLCHAIN_NAME = /^[a-z0-9][a-z0-9-]{0,19}$/i;

const FILE_SCHEMES = ['http', 'https', 'tftp'] as const;

type Draft<T> = { -readonly [K in keyof T]: T[K] };
type HostDraft = Draft<Omit<HostOptions, 'toolchains' | 'sshKeys'>> & { sshKeys: string[] };
type ToolchainDraft = Draft<ToolchainOptions>;

/** Options of the whole host: the setter checks the value and throws {@link BadValueError}. */
const HOST_OPTIONS: Readonly<Record<string, (host: HostDraft, value: string) => void>> = {
  buildid_url: (host, value) => (host.buildidUrl = parseUrl(value, FILE_SCHEMES)),
  buildid_trust: (host, value) => (host.buildidTrust = value),
  config_url: (host, value) => (host.configUrl = parseUrl(value, FILE_SCHEMES)),
  config_trust: (host, value) => (host.configTrust = value),
  monitor_interval: (host, value) => (host.monitorIntervalSeconds = parseSeconds(value, 5, 86_400)),
  tftp_size: (host, value) => (host.tftpSizeMiB = parseMiB(value, 16)),
  smtp_relay: (host, value) => (host.smtpRelay = parseRelay(value)),
  admin_email: (host, value) => (host.adminEmail = parseEmail(value)),
  ssh_key: (host, value) => host.sshKeys.push(parseSshKey(value)),
  hostname: (host, value) => (host.hostname = parseHostname(value)),
};

/** Options that are on when merely named. */
const HOST_FLAGS: Readonly<Record<string, (host: HostDraft, on: boolean) => void>> = {
  init_debug: (host, on) => (host.initDebug = on),
  init_shell: (host, on) => (host.initShell = on),
};

/** Options of one toolchain, which may end in `.<tc>`. */
const TOOLCHAIN_OPTIONS: Readonly<Record<string, (toolchain: ToolchainDraft, value: string) => void>> = {
  toolchain_url: (toolchain, value) => (toolchain.url = parseUrl(value, FILE_SCHEMES)),
  toolchain_trust: (toolchain, value) => (toolchain.trust = value),
  controller_url: (toolchain, value) => (toolchain.controllers = value.split(',').map(parseController)),
  controller_trust: (toolchain, value) => (toolchain.controllerTrust = value.split(',').map(parseFingerprint)),
  instances: (toolchain, value) => (toolchain.instances = parseCount(value, 1, 256)),
  ncpu: (toolchain, value) => (toolchain.ncpu = parseCount(value, 1, 4096)),
  ram: (toolchain, value) => (toolchain.ramMiB = parseMiB(value, 128)),
  interactive: (toolchain, value) => (toolchain.interactive = parseInteractive(value)),
};

/**
 * Options that name a minisign public key. A bad one is kept, and reported: nothing is signed by it, where the default
 * would be to take what is not signed.
 */
const KEYS: ReadonlySet<string> = new Set(['buildid_trust', 'config_trust', 'toolchain_trust']);

/** Options of the specification that nothing acts upon yet: to be told, above all where they promise safety. */
const WITHOUT_EFFECT: ReadonlySet<string> = new Set([
  'controller_trust',
  'config_url',
  'config_trust',
  'smtp_relay',
  'admin_email',
  'interactive',
]);

/** What a problem with a name that is no option says. */
export const UNKNOWN_OPTION = 'unknown option';

/** Every known option, without `buildos.` and without `.<tc>`. */
export const OPTION_NAMES: readonly string[] = [
  ...Object.keys(HOST_OPTIONS),
  ...Object.keys(HOST_FLAGS),
  ...Object.keys(TOOLCHAIN_OPTIONS),
];

/**
 * Reads the `buildos.` options of a kernel command line. Of an option given twice the last good value counts, of a key the last;
 * `buildos.ssh_key` collects. Words of others are left alone.
 *
 * @param text - as in /proc/cmdline; line ends are blanks, so a file with an option per line is read too
 */
export function parseKernelCommandLine(text: string): {
  readonly options: HostOptions;
  readonly problems: readonly OptionProblem[];
} {
  const host: HostDraft = {
    monitorIntervalSeconds: DEFAULT_MONITOR_INTERVAL_SECONDS,
    sshKeys: [],
    initDebug: false,
    initShell: false,
  };
  const toolchains = new Map<string, ToolchainDraft>();
  const problems: OptionProblem[] = [];
  for (const argument of splitKernelCommandLine(text)) {
    if (!argument.name.toLowerCase().startsWith(PREFIX)) continue;
    try {
      take(argument, host, toolchains);
      const [option = ''] = argument.name.slice(PREFIX.length).toLowerCase().split('.');
      if (KEYS.has(option)) checkMinisignKey(argument.value ?? '');
      if (WITHOUT_EFFECT.has(option)) {
        problems.push({
          ...argument,
          message: 'has no effect in this version',
          hint: 'nothing is checked or sent because of it',
        });
      }
    } catch (error) {
      if (!(error instanceof BadValueError)) throw error;
      problems.push({ ...argument, message: error.message, ...(error.hint !== undefined && { hint: error.hint }) });
    }
  }
  problems.push(...findOrphans(toolchains));
  if (host.buildidTrust !== undefined && host.buildidUrl === undefined) {
    const message = `not given, so ${PREFIX}buildid_trust has no effect`;
    problems.push({ name: `${PREFIX}buildid_url`, message, hint: `add ${PREFIX}buildid_url=<url>` });
  }
  return { options: { ...host, toolchains: Object.fromEntries(toolchains) }, problems };
}

/**
 * Cuts a command line into words as the kernel does: blanks inside double quotes do not separate, and the quotes around a
 * whole word (`"name=a b"`) or around a whole value (`name="a b"`) are dropped. Others stay where they are.
 */
export function splitKernelCommandLine(text: string): KernelArgument[] {
  const found: KernelArgument[] = [];
  for (const [raw] of text.matchAll(/(?:"[^"]*(?:"|$)|[^\s"])+/g)) {
    const word = raw.startsWith('"') ? unquote(raw) : raw;
    // An equals sign at the very start does not count: the kernel takes the word as a name without value.
    const equals = word.indexOf('=', 1);
    if (equals < 0) found.push({ name: word });
    else found.push({ name: word.slice(0, equals), value: unquote(word.slice(equals + 1)) });
  }
  return found;
}

/** One line for the console: what is wrong and what to write instead. */
export function formatProblem(problem: OptionProblem): string {
  const word = problem.value === undefined ? problem.name : `${problem.name}=${problem.value}`;
  return `${word}: ${problem.message}${problem.hint === undefined ? '' : ` (${problem.hint})`}`;
}

function take(argument: KernelArgument, host: HostDraft, toolchains: Map<string, ToolchainDraft>): void {
  const [base = '', ...rest] = argument.name.slice(PREFIX.length).split('.');
  const suffix = rest.length === 0 ? undefined : rest.join('.');
  const known = argument.name.startsWith(PREFIX) && OPTION_NAMES.includes(base);
  if (!known) throw unknownOption(base, suffix);
  const ofToolchain = TOOLCHAIN_OPTIONS[base];
  if (ofToolchain === undefined && suffix !== undefined) {
    throw new BadValueError(UNKNOWN_OPTION, `${PREFIX}${base} is for the whole host and takes no toolchain name`);
  }
  const flag = HOST_FLAGS[base];
  if (flag !== undefined) {
    flag(host, argument.value === undefined || parseBoolean(argument.value));
    return;
  }
  const value = argument.value ?? '';
  if (value === '' && !KEYS.has(base)) {
    throw new BadValueError('has no value', `write ${argument.name}=<value>, or leave it out for the default`);
  }
  if (ofToolchain === undefined) {
    HOST_OPTIONS[base]?.(host, value);
    return;
  }
  const name = suffix ?? 'default';
  if (!TOOLCHAIN_NAME.test(name)) {
    throw new BadValueError(`"${name}" is no toolchain name`, 'letters, digits and dashes, at most 20');
  }
  const toolchain = toolchains.get(name) ?? { controllers: [], controllerTrust: [], interactive: 'false' };
  ofToolchain(toolchain, value);
  toolchains.set(name, toolchain);
}

function unknownOption(base: string, suffix: string | undefined): BadValueError {
  const tail = suffix === undefined ? '' : `.${suffix}`;
  const nearest = findNearest(base.toLowerCase(), OPTION_NAMES);
  return nearest === undefined
    ? new BadValueError(UNKNOWN_OPTION, `known are: ${OPTION_NAMES.toSorted().join(', ')}`)
    : new BadValueError(UNKNOWN_OPTION, `did you mean ${PREFIX}${nearest}${nearest in TOOLCHAIN_OPTIONS ? tail : ''}?`);
}

/** Options of a toolchain that has no list: most often a mistyped `.<tc>`. */
function findOrphans(toolchains: ReadonlyMap<string, ToolchainDraft>): OptionProblem[] {
  const named = [...toolchains].filter(([, toolchain]) => toolchain.url !== undefined).map(([name]) => name);
  return [...toolchains]
    .filter(([, toolchain]) => toolchain.url === undefined)
    .map(([name]) => {
      const option = `${PREFIX}toolchain_url${name === 'default' ? '' : `.${name}`}`;
      const message = `not given, so the other options of toolchain "${name}" have no effect`;
      const nearest = findNearest(name, named);
      const hint = nearest === undefined ? `add ${option}=<url>` : `add it, or did you mean toolchain "${nearest}"?`;
      return { name: option, message, hint };
    });
}

function unquote(text: string): string {
  if (!text.startsWith('"')) return text;
  return text.slice(1, text.length > 1 && text.endsWith('"') ? -1 : undefined);
}
