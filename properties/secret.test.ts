/** Secrets: nothing that a run prints, keeps, plans, throws or starts shows one, but the file that asked for it has it. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { format, inspect } from 'node:util';
import { z } from 'zod';
import { type Connection, type RunOptions, CommandError } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import { toyDefinition } from './_toy.ts';
import { DATA_REF, type DataRef, DataStore, MissingDataError, treeSource } from './data.ts';
import { arg } from './args.ts';
import { DeployError, checkReport, deploy } from './deploy.ts';
import * as file from './file.ts';
import { formatPlan, planHost } from './plan.ts';
import { type PropertyApplication, defineProperty } from './property.ts';
import { Secret, SecretMask } from './secret.ts';

const QUICK = { timeout: 20_000 };
const { uid, gid } = userInfo();
const owner = `${uid}:${gid}`;
const WORDS = 'correct horse battery staple\n"line two" of it';
const REF: DataRef = { context: 'example.org', name: 'tls.key' };

/** Every shape in which the secret could be seen. */
const SHAPES = [
  WORDS,
  'correct horse battery staple',
  'line two',
  Buffer.from(WORDS).toString('base64'),
  Buffer.from(WORDS).toString('hex'),
];

function assertHidden(where: string, text: string): void {
  for (const shape of SHAPES) assert.ok(!text.includes(shape), `${where} shows ${shape}: ${text}`);
}

test('a secret prints as [secret], whichever way', () => {
  const secret = new Secret(WORDS);
  const shown: readonly (readonly [string, string])[] = [
    ['String()', String(secret)],
    ['a template', ['it is ', secret].join('')],
    ['JSON', JSON.stringify({ secret })],
    ['inspect', inspect(secret, { depth: 9, showHidden: true })],
    ['inspect of a holder', inspect({ a: [secret] })],
    ['format', format('%s %o %j', secret, secret, secret)],
    ['an error', new Error(['no', secret].join(' '), { cause: secret }).message],
    ['inspect of an error', inspect(new Error('no', { cause: secret }))],
  ];
  for (const [where, text] of shown) assertHidden(where, text);
  assert.equal(String(secret), '[secret]');
  // A template string asks for a primitive; the linter would not let us write one.
  assert.equal(Reflect.apply(secret[Symbol.toPrimitive], secret, ['string']), '[secret]');
  assert.deepEqual(Buffer.from(secret.reveal()).toString(), WORDS);
  assert.deepEqual(Object.keys(secret), []);
});

test('a mask hides the whole, its lines, and its usual encodings', () => {
  const mask = new SecretMask();
  mask.add(new Secret(WORDS));
  for (const shape of SHAPES.filter((one) => one !== 'line two')) {
    assert.equal(mask.isIn(`x ${shape} y`), true);
    assertHidden('the mask', mask.hide(`x ${shape} y`));
  }
  assert.equal(mask.hide('nothing of it'), 'nothing of it');
});

/** Writes the data where it was asked to, says it aloud, and fails. */
const careless: (data: DataRef, how: string) => PropertyApplication = defineProperty<[data: DataRef, how: string]>({
  id: 'test.careless',
  kind: 'posix',
  args: [arg('data', DATA_REF, 'what it needs'), arg('how', z.string(), 'how it shows it')],
  describe: () => 'careless',
  data: (data) => [data],
  apply: async (host, data, how) => {
    const bytes = Buffer.from((await host.data(data)).reveal());
    if (how === 'says') host.progress(`it is ${bytes.toString()}`);
    else if (how === 'throws')
      throw new Error(`Cannot use ${bytes.toString()}`, { cause: new Error(bytes.toString()) });
    else if (how === 'stderr') await host.run(['sh', '-c', 'cat >&2; exit 3'], { input: bytes });
    else if (how === 'argv') await host.run(['echo', bytes.toString()]);
    else if (how === 'env') await host.run(['true'], { env: { KEY: bytes.toString() } });
  },
});

const other: () => PropertyApplication = defineProperty<[]>({
  id: 'test.other',
  kind: 'posix',
  describe: () => 'other',
  apply: async (host) => void (await host.data(REF)),
});

/** This machine, and all words and variables of what is run there. */
function listening(): { readonly connection: Connection; readonly words: string[] } {
  const local = openLocal();
  const words: string[] = [];
  const run = (argv: readonly string[], options: RunOptions = {}): ReturnType<Connection['run']> => {
    words.push(...argv, ...Object.entries(options.env ?? {}).flat());
    return local.run(argv, options);
  };
  return { connection: { ...local, run }, words };
}

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'buildos-secret-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function store(folder: string): DataStore {
  const tree = join(folder, 'data');
  return new DataStore([treeSource(tree)]);
}

test(
  'a file gets its secret, and nothing else does: no report, message, plan, memory, argument, variable',
  QUICK,
  async (t) => {
    const folder = scratch(t);
    const state = join(folder, 'state');
    const path = join(folder, 'key');
    const put = (text: string): void => {
      const tree = join(folder, 'data/example.org');
      rmSync(tree, { recursive: true, force: true });
      mkdirSync(tree, { recursive: true });
      writeFileSync(join(tree, 'tls.key'), text);
    };
    put(WORDS);
    const { connection, words } = listening();
    const seen: string[] = [];
    const properties = [
      file.hasData(path, REF, { owner }),
      ...['says', 'throws', 'stderr', 'argv', 'env'].map((how) => careless(REF, how)),
      other(),
    ];
    const definition = toyDefinition(...properties);
    const plan = await planHost(definition, connection, { data: store(folder), state });
    seen.push(formatPlan(plan), JSON.stringify(plan), inspect(plan, { depth: 20 }));
    const report = await deploy(definition, connection, {
      data: store(folder),
      state,
      onProgress: (progress) => void seen.push(inspect(progress, { depth: 20, showHidden: true })),
    });
    assert.equal(readFileSync(path, 'utf8'), WORDS);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(
      report.results.map(({ outcome }) => outcome),
      ['changed', 'changed', 'failed', 'failed', 'failed', 'failed', 'failed'],
    );
    seen.push(JSON.stringify(report), inspect(report, { depth: 20, showHidden: true }));
    try {
      checkReport(report);
    } catch (error) {
      assert.ok(error instanceof DeployError);
      seen.push(inspect(error, { depth: 20 }), error.message, String(error.stack));
    }
    // A plan of a file that holds an old secret, and one of a secret that would change.
    put('another secret text');
    const later = toyDefinition(file.hasData(path, REF, { owner }), file.hasContent(path, 'public', { owner }));
    seen.push(inspect(await planHost(later, connection, { data: store(folder), state }), { depth: 20 }));
    for (const name of readdirSync(state, { recursive: true, withFileTypes: true })) {
      if (name.isFile()) seen.push(readFileSync(join(name.parentPath, name.name), 'utf8'));
    }
    for (const text of [...seen, ...words]) {
      assertHidden('the run', text);
      assert.ok(!text.includes('another secret text'), text);
    }
    const messages = report.results.map(({ error }) => error?.message ?? '');
    assert.match(messages[3] ?? '', /\[secret\]/);
    assert.match(messages[4] ?? '', /would show a secret in the arguments/);
    assert.match(messages[5] ?? '', /would show a secret in the arguments/);
    assert.match(messages[6] ?? '', /test.other did not ask for the data example.org\/tls.key/);
    assert.ok(!(report.results[3]?.error instanceof CommandError)); // its stderr would have it
  },
);

test('a plan masks a secret that is in a public file', QUICK, async (t) => {
  const folder = scratch(t);
  mkdirSync(join(folder, 'data/example.org'), { recursive: true });
  writeFileSync(join(folder, 'data/example.org/tls.key'), 'hunter2-hunter2');
  const path = join(folder, 'f');
  writeFileSync(path, 'password = hunter2-hunter2\n');
  const definition = toyDefinition(
    file.hasData(join(folder, 'k'), REF, { owner }),
    file.hasContent(path, 'x\n', { owner }),
  );
  const plan = await planHost(definition, openLocal(), { data: store(folder), memory: 'none' });
  assert.deepEqual(plan.properties[1]?.lines.slice(2), ['@@ -1 +1 @@', '-password = [secret]', '+x']);
});

test('data that no source has is told before anything is run', QUICK, async (t) => {
  const { connection, words } = listening();
  const definition = toyDefinition(file.hasData('/x', REF));
  await assert.rejects(
    deploy(definition, connection, { data: store(scratch(t)) }),
    (error) => error instanceof MissingDataError && /example.org\/tls.key: not in the folder/.test(error.message),
  );
  assert.deepEqual(words, []);
});
