/** What `prop` and `host` have in common: which host, and where its prerequisite data comes from. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { InvalidArgumentError, Option } from 'commander';
import { parseChain } from '../connections/chain.ts';
import type { Chain } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import {
  type DataSource,
  DataStore,
  askSource,
  credentialsSource,
  environmentSource,
  fileSource,
  passSource,
  treeSource,
} from '../properties/data.ts';

/** `--on CHAIN` */
export function onOption(): Option {
  return new Option('--on <chain>', 'the host, as a chain of hops: ((:ssh :host "b1") :sudo)')
    .argParser(chainOf)
    .default([['local']] satisfies Chain, 'this host');
}

/** `--json` */
export function jsonOption(): Option {
  return new Option('--json', 'print the result as JSON');
}

/** `--data SOURCE`, repeated. */
export function dataOption(): Option {
  return new Option('--data <source>', 'where prerequisite data comes from; may be repeated, the newest version counts')
    .argParser((text: string, before: readonly string[] | undefined) => [...(before ?? []), checkSource(text)])
    .default(undefined, 'environment, systemd credentials, and the operator');
}

/** Help on {@link dataOption}. */
export const DATA_HELP = `
Prerequisite data (passwords, keys) is named CONTEXT/NAME. Sources for --data:
  tree:FOLDER                FOLDER/CONTEXT/NAME
  file:CONTEXT/NAME=PATH     one of them in a file
  env                        BUILDOS_DATA_<CONTEXT>__<NAME>, upper case, other characters as _
  credentials                of a systemd service: CONTEXT--NAME
  pass                       the password store (pass(1)): CONTEXT/NAME
  ask                        the operator, when nobody else has it`;

/** The store of the sources that were asked for. */
export function dataStore(wanted: readonly string[] | undefined): DataStore {
  const defaults = ['env', 'credentials', ...(process.stdin.isTTY ? ['ask'] : [])];
  return new DataStore(dataSources(wanted ?? defaults));
}

/** The sources by what they are called on the command line. */
export function dataSources(wanted: readonly string[]): readonly DataSource[] {
  return wanted.flatMap(sourceOf);
}

function sourceOf(text: string): readonly DataSource[] {
  const [kind = '', rest = ''] = splitOnce(text, ':');
  const credentials = process.env['CREDENTIALS_DIRECTORY'];
  if (kind === 'tree') return [treeSource(resolve(rest))];
  if (kind === 'env') return [environmentSource(process.env, Date.now())];
  if (kind === 'credentials') return credentials === undefined ? [] : [credentialsSource(credentials)];
  if (kind === 'pass') {
    const store = process.env['PASSWORD_STORE_DIR'] ?? join(homedir(), '.password-store');
    return [passSource(openLocal(), store)];
  }
  if (kind === 'ask') return [askSource(askHidden)];
  const [ref = '', path = ''] = splitOnce(rest, '=');
  const slash = ref.lastIndexOf('/');
  return [fileSource({ context: ref.slice(0, slash), name: ref.slice(slash + 1) }, resolve(path))];
}

function checkSource(text: string): string {
  if (/^(tree:.+|file:[^=]+\/[^=/]+=.+|env|credentials|pass|ask)$/.test(text)) return text;
  throw new InvalidArgumentError('expected tree:FOLDER, file:CONTEXT/NAME=PATH, env, credentials, pass or ask');
}

function chainOf(text: string): Chain {
  try {
    return parseChain(text);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
}

const splitOnce = (text: string, at: string): readonly string[] => {
  const index = text.indexOf(at);
  return index < 0 ? [text] : [text.slice(0, index), text.slice(index + 1)];
};

/** Asks on the terminal, without showing what is typed. */
async function askHidden(question: string): Promise<string> {
  process.stderr.write(question);
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: silent, terminal: true });
  try {
    return await lines.question('');
  } finally {
    lines.close();
    process.stderr.write('\n');
  }
}
