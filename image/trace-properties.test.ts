import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PropertyTrace } from './trace-properties.ts';
import { formatContents, parseContents } from './trace.ts';

/** What deploy tells at both ends of a property. */
function apply(trace: PropertyTrace, name: string, act?: () => void): void {
  const place = { depth: 0, index: 0, count: 1 };
  trace.note({ kind: 'started', description: name, ...place });
  act?.();
  trace.note({ kind: 'line', line: 'working' });
  const application = { p: `test.${name}`, a: [] };
  const result = {
    application,
    description: name,
    outcome: act ? 'changed' : 'ok',
    durationMs: 1,
    children: [],
  } as const;
  trace.note({ kind: 'ended', result, ...place });
}

test('PropertyTrace notes which property touched what, in order; not what is gone again', async () => {
  await using folder = await mkdtempDisposable(join(tmpdir(), 'buildos-trace-'));
  const [upper, out] = [join(folder.path, 'upper'), join(folder.path, 'out')];
  mkdirSync(upper);
  mkdirSync(out);
  const trace = new PropertyTrace(upper);
  const write = (path: string, text: string): void => writeFileSync(join(upper, path), text);
  write('memory', 'before');
  apply(trace, 'users', () => {
    mkdirSync(join(upper, 'etc'));
    write('etc/passwd', 'root\n');
    write('scratch', 'x');
  });
  apply(trace, 'nothing');
  apply(trace, 'more users', () => {
    write('etc/passwd', 'root\nbuild\n');
    write('etc/group', 'build\n');
    rmSync(join(upper, 'scratch'));
  });
  apply(trace, 'mode', () => chmodSync(join(upper, 'etc/group'), 0o600));
  write('memory', 'after it');
  await trace.record(out);
  const recorded: unknown = JSON.parse(readFileSync(join(out, 'origins.json'), 'utf8'));
  const property = (name: string): object => ({ kind: 'property', p: `test.${name}`, description: name });
  const expected = [
    { origin: { kind: 'step', name: 'memory of what was applied (properties/memory.ts)' }, paths: ['memory'] },
    { origin: property('users'), paths: ['etc', 'etc/passwd'] },
    { origin: property('more users'), paths: ['etc/group', 'etc/passwd'] },
    { origin: property('mode'), paths: ['etc/group'] },
  ];
  assert.deepEqual(recorded, { origins: expected });
});

test('parseContents() reads what formatContents() writes, and refuses another format', () => {
  const contents = {
    format: 1,
    layers: [
      { origins: [] },
      {
        origins: [
          { origin: { kind: 'package', name: 'less', version: '668-1', how: 'shipped' }, paths: ['usr/bin/less'] },
          { origin: { kind: 'step', name: 'x' }, paths: ['a "quoted" name', 'b'] },
        ],
      },
    ],
  } as const;
  assert.deepEqual(parseContents(formatContents(contents)), contents);
  assert.throws(() => parseContents('{"format":2,"layers":[]}'));
});
