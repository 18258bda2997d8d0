import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { defineProperty } from '../properties/property.ts';
import { PropertyTrace } from './trace-properties.ts';
import { formatContents, parseContents } from './trace.ts';

for (const id of ['users', 'nothing', 'moreUsers', 'mode']) {
  defineProperty<[]>({ id: `test.${id}`, kind: 'posix', describe: () => id, apply: () => undefined });
}
defineProperty<[path: string]>({
  id: 'test.own',
  kind: 'posix',
  describe: () => 'own',
  touches: 'own-files',
  facts: (path) => [
    { fact: 'file', path },
    { fact: 'text', path },
  ],
  apply: () => undefined,
});

/** What deploy tells at both ends of a property. */
function apply(trace: PropertyTrace, name: string, act?: () => void, a: readonly string[] = []): void {
  const place = { depth: 0, index: 0, count: 1 };
  trace.note({ kind: 'started', description: name, ...place });
  act?.();
  trace.note({ kind: 'line', line: 'working' });
  const application = { p: `test.${name}`, a };
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
  apply(trace, 'moreUsers', () => {
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
    { origin: property('moreUsers'), paths: ['etc/group', 'etc/passwd'] },
    { origin: property('mode'), paths: ['etc/group'] },
  ];
  assert.deepEqual(recorded, { origins: expected });
});

test('PropertyTrace looks at what a property says it changes, and at all where that does not tell', async () => {
  await using folder = await mkdtempDisposable(join(tmpdir(), 'buildos-trace-'));
  const [upper, out] = [join(folder.path, 'upper'), join(folder.path, 'out')];
  mkdirSync(join(upper, 'usr/lib'), { recursive: true });
  mkdirSync(out);
  const trace = new PropertyTrace(upper);
  const write = (path: string): void => writeFileSync(join(upper, path), 'x');
  apply(
    trace,
    'own',
    () => {
      mkdirSync(join(upper, 'etc/a'), { recursive: true });
      write('etc/a/file');
      write('etc/not-said'); // found by the next who looks at all
    },
    ['/etc/a/file'],
  );
  apply(
    trace,
    'own',
    () => {
      rmSync(join(upper, 'etc/a'), { recursive: true });
      write('usr/lib/b'); // where the root has a link: lib -> usr/lib
    },
    ['/lib/b'],
  );
  await trace.record(out);
  const recorded = String(readFileSync(join(out, 'origins.json')));
  const origin = { kind: 'property', p: 'test.own', description: 'own' };
  assert.ok(recorded.includes(JSON.stringify({ origin, paths: ['etc', 'etc/not-said', 'usr/lib/b'] })), recorded);
  assert.deepEqual(
    trace.touched.map(([path]) => path),
    ['usr', 'usr/lib', 'etc', 'etc/a', 'etc/a/file', 'etc/not-said', 'usr/lib/b'],
  );
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
