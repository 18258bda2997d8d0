import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CommandError, FileError, checkArgv, checkPath, lines, shellQuote, text } from './connection.ts';

const bytes = (words: string): Uint8Array => new TextEncoder().encode(words);

test('shellQuote() quotes only what a shell would change', () => {
  assert.equal(
    shellQuote(['apt-get', '-o', 'A::B=c', '', "it's", 'a b', '$x', 'a=b', '~', '*']),
    `apt-get -o A::B=c '' 'it'\\''s' 'a b' '$x' a=b '~' '*'`,
  );
});

test('a name with "=" in front is quoted, or the shell would set a variable', () => {
  assert.equal(shellQuote(['=x']), "'=x'");
});

test('the message of a CommandError has the command, the place, the status and the end of stderr', () => {
  const error = new CommandError({
    argv: ['sh', '-c', 'exit 3'],
    chain: [['local'], ['chroot', { into: '/x' }]],
    failure: 'status',
    status: 3,
    stdout: bytes(''),
    stderr: bytes(`${Array.from({ length: 30 }, (_, index) => `line ${index}`).join('\n')}\n`),
  });
  assert.match(error.message, /^Command failed at \(\(:chroot :into "\/x"\)\): sh -c 'exit 3'\n {2}exit status 3\n/);
  assert.ok(error.message.endsWith('  | line 28\n  | line 29'));
  assert.ok(!error.message.includes('line 10'));
});

test('a CommandError says how long the limit was', () => {
  const nothing = bytes('');
  const error = new CommandError({
    argv: ['sleep', '9'],
    failure: 'timeout',
    timeoutMs: 50,
    status: 143,
    stdout: nothing,
    stderr: nothing,
  });
  assert.match(error.message, /time limit of 50 ms$/);
});

test('a FileError has the errno code and the place', () => {
  const error = new FileError({
    action: 'read',
    path: '/x',
    code: 'ENOENT',
    reason: 'no such file',
    chain: [['local'], ['sudo']],
  });
  assert.equal(error.message, 'Cannot read "/x" at (:sudo): no such file');
  assert.equal(error.code, 'ENOENT');
});

test('text() and lines() keep what is there', () => {
  const result = { status: 0, stdout: bytes('a\n\nb\n'), stderr: bytes('') };
  assert.equal(text(result), 'a\n\nb\n');
  assert.deepEqual(lines(result), ['a', '', 'b']);
});

test('words with NUL, an empty command and relative paths are refused', () => {
  assert.throws(() => checkArgv([]), TypeError);
  assert.throws(() => checkArgv(['']), TypeError);
  assert.throws(() => checkArgv(['a', 'b\0c']), TypeError);
  assert.throws(() => checkPath('etc/passwd'), TypeError);
  assert.throws(() => checkPath('/etc/\0'), TypeError);
});
