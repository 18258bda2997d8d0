/**
 * What `sudo` and `su` share: a password that goes to the host ahead of the command's stdin, is read there by a shell,
 * and is in no file, no list of processes, and never in the stdin of the command.
 */
import { IDENTITY, lookUp } from './attributes.ts';
import { LEASH } from './_leash.ts';
import { posixConnection, sameConnection, withEnvironment } from './_posix.ts';
import { type Connection, type DataRef, type Hop, CommandError, HopError } from './connection.ts';

/** A program that makes another user of us. */
export interface Becoming {
  readonly hop: Hop;
  readonly user: string;
  /** Whose password it asks for. */
  readonly asks: 'who-we-are' | 'who-we-become';
  /**
   * A shell script. Its arguments: USER, plain|ask|probe, LEASH (_leash.ts) and the words of a command. With `ask` and
   * `probe`, the first line of stdin is the password; with `probe`, stderr may hold more than what the command says. The
   * shell must stay until the command ends: it holds the leash.
   */
  readonly script: string;
  /** What the program says when it wants a password. */
  readonly wants: RegExp;
  /** What it says to a wrong one. */
  readonly refuses: RegExp;
  readonly hints: { readonly wants: string; readonly other: string };
}

/** Programs ask three times at most, and wait two seconds after each wrong answer. */
const OPEN_MS = 30_000;

/**
 * Opens it: without a password, and if one is wanted, with the one that the connection has for it.
 *
 * @throws {HopError} when there is none, or it is wrong, or that user may not become the other
 */
export async function openBecoming(base: Connection, way: Becoming): Promise<Connection> {
  const { hop, user } = way;
  if (!/^[a-z_][a-z0-9_-]*\$?$/i.test(user)) throw new HopError(hop, `"${user}" is not the name of a user`);
  const us = await lookUp(base, IDENTITY);
  if (us.uid === 0 && user === 'root') return sameConnection(base, hop);

  const words = (how: 'plain' | 'ask' | 'probe', argv: readonly string[]): readonly string[] => [
    'sh',
    '-c',
    way.script,
    hop[0],
    user,
    how,
    LEASH,
    ...argv,
  ];
  /** What the program says against it; undefined when it works. */
  const attempt = async (password: Uint8Array | undefined): Promise<CommandError | undefined> => {
    try {
      await base.run(words(password === undefined ? 'plain' : 'probe', ['true']), {
        env: { LC_ALL: 'C' },
        timeoutMs: OPEN_MS,
        ...(password === undefined ? {} : { input: password }),
      });
      return undefined;
    } catch (error) {
      if (error instanceof CommandError) return error;
      throw error;
    }
  };

  let line: Uint8Array | undefined;
  let failure = await attempt(undefined);
  if (failure !== undefined && way.wants.test(said(failure))) {
    const ref: DataRef = { context: us.hostName, name: `${way.asks === 'who-we-are' ? us.user : user}.password` };
    line = await passwordLine(base, way, ref);
    failure = await attempt(line);
    if (failure !== undefined && (failure.failure === 'timeout' || way.refuses.test(said(failure)))) {
      throw new HopError(hop, `the password "${ref.context}/${ref.name}" is wrong`, {
        hint: 'Nothing was run. Mend that data and try again.',
      });
    }
  }
  if (failure !== undefined) {
    const words = said(failure);
    throw new HopError(hop, words === '' ? failure.message : words, { cause: failure, hint: way.hints.other });
  }
  return posixConnection({
    hop,
    base,
    wrap: (argv, options) => {
      const command = withEnvironment(argv, options);
      return line === undefined ? words('plain', command) : { words: words('ask', command), first: line };
    },
  });
}

async function passwordLine(base: Connection, way: Becoming, ref: DataRef): Promise<Uint8Array> {
  const found = await base.data?.(ref);
  const name = `${ref.context}/${ref.name}`;
  if (found === undefined) {
    throw new HopError(way.hop, `it wants a password, and there is no data "${name}"`, { hint: way.hints.wants });
  }
  const password = Buffer.from(found).toString('latin1').replace(/\n$/, '');
  if (/[\n\0]/.test(password))
    throw new HopError(way.hop, `the data "${name}" is no password: it has several lines`, {
      hint: 'Passwords are one line.',
    });
  return Buffer.from(`${password}\n`, 'latin1');
}

const said = (failure: CommandError): string => Buffer.from(failure.stderr).toString('utf8').trim();
