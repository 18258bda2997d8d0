/** What every connection has to do exactly, whatever hops lead there; and a search for what it left behind. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandError, type Connection, FileError, text } from '../../connections/connection.ts';

/** Every byte but NUL, as the characters that have them in UTF-8 or alone; and what shells, ssh and sudo might take apart. */
const WORDS: readonly string[] = [
  String.fromCharCode(...Array.from({ length: 255 }, (_, at) => at + 1)),
  '',
  '-n',
  '--',
  '--help',
  '\n',
  'a\n\nb\n',
  "'",
  `"`,
  '\\',
  '\\n',
  '$(id)',
  '`id`',
  '$HOME',
  '*',
  '~',
  'a=b',
  ' two  spaces ',
  '!x',
  'ünïcödé 漢字 🙂',
  '\u0301',
];

/** Words, variables, folder, streams, statuses, limits and files. */
export async function assertExact(connection: Connection, folder: string): Promise<void> {
  const native = connection.kind === 'native';
  // Words, variables and the working directory.
  const script = 'printf "%s\\0" "$PWD" "$VALUE" "$@"';
  const options = { env: { VALUE: 'x=1\n"y" ' }, cwd: '/usr' };
  const said = await connection.run(['sh', '-c', script, 'sh', ...WORDS], options);
  assert.deepEqual(text(said).split('\0').slice(0, -1), ['/usr', 'x=1\n"y" ', ...WORDS]);
  // Longer than one word may be (128 KiB): ssh sends one.
  const many = Array.from({ length: 2000 }, (_, at) => `${at} ${"it's ".repeat(20)}`);
  assert.deepEqual(
    text(await connection.run(['printf', '%s\\0', ...many]))
      .split('\0')
      .slice(0, -1),
    many,
  );
  assert.equal(text(await connection.run(['sh', '-c', 'cat; echo "$#"', 'sh', ...many], { input: 'in' })), 'in2000\n');

  // Streams.
  const bytes = randomBytes(1024 * 1024);
  assert.ok(Buffer.from((await connection.run(['cat'], { input: bytes })).stdout).equals(bytes));
  const half = bytes.length / 2;
  const parts = (async function* () {
    yield bytes.subarray(0, half);
    await sleep(20);
    yield bytes.subarray(half);
  })();
  assert.ok(Buffer.from((await connection.run(['cat'], { input: parts })).stdout).equals(bytes));
  assert.equal(text(await connection.run(['cat'])), '');
  const both = await connection.run(['sh', '-c', 'cat >&2; echo out'], { input: bytes });
  assert.equal(text(both), 'out\n');
  assert.ok(Buffer.from(both.stderr).equals(bytes));
  await connection.run(['true'], { input: bytes }); // who does not read does not hang

  // Statuses and signals.
  for (const status of [1, 3, 125, 200, 255]) {
    const ended = await connection.run(['sh', '-c', `echo o; echo e >&2; exit ${status}`], { okStatus: [status] });
    assert.deepEqual([ended.status, text(ended), Buffer.from(ended.stderr).toString()], [status, 'o\n', 'e\n']);
  }
  await assert.rejects(connection.run(['sh', '-c', 'kill -KILL $$']), (error) => {
    assert.ok(error instanceof CommandError);
    assert.equal(error.status, 137);
    if (native) assert.equal(error.signal, 'SIGKILL');
    return true;
  });
  await assert.rejects(
    connection.run(['no-such-program']),
    (error) => error instanceof CommandError && error.status === 127,
  );

  // Limits.
  const marker = `${4000 + Math.floor(Math.random() * 1e9)}`;
  const stay = ['sh', '-c', `sleep ${marker} & echo started; sleep ${marker}`];
  const fails = (failure: string) => (error: unknown) => error instanceof CommandError && error.failure === failure;
  const control = new AbortController();
  const enough = { signal: control.signal, onOutput: () => control.abort(new Error('enough')) };
  await Promise.all([
    assert.rejects(connection.run(stay, { timeoutMs: 300 }), fails('timeout')),
    assert.rejects(
      connection.run(stay, enough),
      (error) => fails('aborted')(error) && error instanceof Error && error.cause instanceof Error,
    ),
    assert.rejects(connection.run(['cat', '/dev/zero'], { maxOutputBytes: 1_000_000 }), fails('output')),
  ]);
  assert.deepEqual(await processesAfter((words) => words.includes(marker), 4000), []);

  // Files.
  const path = `${folder}/it's a file`;
  for (const mode of [0o600, 0o644, 0o4755]) {
    await connection.writeFile(path, bytes, { mode });
    assert.ok(Buffer.from(await connection.readFile(path)).equals(bytes));
    assert.equal(text(await connection.run(['stat', '-c', '%a', path])), `${mode.toString(8)}\n`);
  }
  await assertAtomic(connection, path);
  assert.equal(text(await connection.run(['sh', '-c', 'ls -A "$1"', 'ls', folder])), "it's a file\n");
  const code = (wanted: string) => (error: unknown) => error instanceof FileError && error.code === wanted;
  await assert.rejects(connection.readFile(`${folder}/none`), code('ENOENT'));
  await assert.rejects(connection.readFile(folder), code('EISDIR'));
  await assert.rejects(connection.writeFile(`${folder}/none/file`, '', { mode: 0o600 }), code('ENOENT'));
  await connection.run(['rm', '--', path]);
}

/** A reader sees one content or the other, whole. */
async function assertAtomic(connection: Connection, path: string): Promise<void> {
  const contents = ['a'.repeat(100_000), 'b'.repeat(200_000)];
  await connection.writeFile(path, contents[0] ?? '', { mode: 0o600 });
  const writing = (async () => {
    for (const content of [...contents, ...contents]) await connection.writeFile(path, content, { mode: 0o600 });
  })();
  for (let at = 0; at < 6; at++) {
    const seen = Buffer.from(await connection.readFile(path)).toString();
    assert.ok(contents.includes(seen), `read ${seen.length} bytes`);
  }
  await writing;
}

/** Processes of this kernel whose words fit, after some patience: `pid words`. */
export async function processesAfter(fits: (words: string) => boolean, patienceMs: number): Promise<string[]> {
  const end = Date.now() + patienceMs;
  for (;;) {
    const found = readdirSync('/proc').flatMap((pid) => {
      if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return [];
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
        return fits(words) ? [`${pid} ${words.slice(0, 120)}`] : [];
      } catch {
        return []; // it ended while we looked
      }
    });
    if (found.length === 0 || Date.now() > end) return found;
    await sleep(50);
  }
}
