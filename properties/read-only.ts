/**
 * Commands that only look. A check and a plan may run these and no others: their type takes no other program, and what
 * the type cannot tell (`find … -delete`) is refused when it is about to run.
 */
import { shellQuote } from '../connections/connection.ts';

/** Whether these words after the program's name only look. */
type Rule = (words: readonly string[]) => boolean;

const always: Rule = () => true;

/** The first word that is no option is one of these. */
const verb =
  (...verbs: readonly string[]): Rule =>
  (words) =>
    verbs.includes(words.find((word) => !word.startsWith('-')) ?? '');

/** None of the words begins like this. */
const without =
  (...starts: readonly string[]): Rule =>
  (words) =>
    !words.some((word) => starts.some((start) => word === start || word.startsWith(start)));

/** A program that can be run to look. */
export type ReadOnlyProgram =
  | 'apt-cache'
  | 'apt-mark'
  | 'blkid'
  | 'cat'
  | 'cmp'
  | 'date'
  | 'df'
  | 'dpkg'
  | 'dpkg-divert'
  | 'dpkg-query'
  | 'findmnt'
  | 'find'
  | 'findfs'
  | 'getent'
  | 'getfacl'
  | 'getfattr'
  | 'grep'
  | 'hostname'
  | 'id'
  | 'ip'
  | 'ls'
  | 'lsblk'
  | 'lsmod'
  | 'mountpoint'
  | 'nproc'
  | 'passwd'
  | 'readlink'
  | 'realpath'
  | 'sha256sum'
  | 'stat'
  | 'swapon'
  | 'sysctl'
  | 'systemctl'
  | 'systemd-detect-virt'
  | 'systemd-escape'
  | 'test'
  | 'uname'
  | 'update-alternatives'
  | 'wc';

const READ_ONLY: Readonly<Record<ReadOnlyProgram, Rule>> = {
  'apt-cache': verb('policy', 'show', 'showpkg', 'madison', 'depends', 'rdepends', 'search'),
  'apt-mark': verb('showhold', 'showauto', 'showmanual'),
  blkid: always,
  cat: always,
  cmp: always,
  date: (words) => words.every((word) => /^(\+|-u$|--(utc|date=|rfc-3339=|iso-8601))/.test(word)),
  df: always,
  dpkg: verb('--compare-versions'),
  'dpkg-divert': without('--add', '--remove', '--rename'),
  'dpkg-query': always,
  findmnt: always,
  findfs: always,
  find: without('-delete', '-exec', '-ok', '-fprint', '-fls'),
  getent: always,
  getfacl: always,
  getfattr: always,
  grep: always,
  hostname: (words) => words.every((word) => /^-[afdiIs]$/.test(word)),
  id: always,
  // Its words may be shortened: only the full one, at its place.
  ip: (words) => words.filter((word) => !word.startsWith('-'))[1] === 'show',
  ls: always,
  lsblk: always,
  lsmod: always,
  mountpoint: always,
  nproc: always,
  passwd: (words) => words[0] === '-S' || words[0] === '--status',
  readlink: always,
  realpath: always,
  sha256sum: always,
  stat: always,
  swapon: (words) => words.some((word) => /^(--show(=|$)|-s$|--summary$)/.test(word)),
  sysctl: (words) => !words.some((word) => word.includes('=') || /^-[a-z]*[wp]|^--(write|load|system)/.test(word)),
  systemctl: verb(
    'cat',
    'get-default',
    'is-active',
    'is-enabled',
    'is-failed',
    'is-system-running',
    'list-unit-files',
    'list-units',
    'show',
    'status',
  ),
  'systemd-detect-virt': always,
  'systemd-escape': always,
  test: always,
  uname: always,
  'update-alternatives': (words) => words.some((word) => /^--(display|get-selections|list|query)$/.test(word)),
  wc: always,
};

declare const declared: unique symbol;

/** A command that only looks: of a known program, or made by {@link declareReadOnly}. */
export type ReadOnlyArgv =
  | readonly [program: ReadOnlyProgram, ...words: string[]]
  | (readonly string[] & { readonly [declared]: true });

const extra = new Map<string, Rule>();

/**
 * Declares that another program, or some uses of it, only looks.
 *
 * @param only - which words; default any
 * @returns makes the command from the words after the program's name
 */
export function declareReadOnly(program: string, only: Rule = always): (...words: readonly string[]) => ReadOnlyArgv {
  extra.set(program, only);
  // The mark exists for the compiler only: it says that the program was declared here.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return (...words) => [program, ...words] as unknown as ReadOnlyArgv;
}

/**
 * Refuses a command that may change something.
 *
 * @throws {TypeError}
 */
export function checkReadOnly(argv: readonly string[]): void {
  const [program = '', ...words] = argv;
  const rule = extra.get(program) ?? (isKnown(program) ? READ_ONLY[program] : undefined);
  if (rule?.(words) === true) return;
  throw new TypeError(
    `Cannot run "${shellQuote(argv)}" to look: ${rule === undefined ? `"${program}" is not declared read-only` : 'it may change something'}`,
  );
}

const isKnown = (program: string): program is ReadOnlyProgram => Object.hasOwn(READ_ONLY, program);
