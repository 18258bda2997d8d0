import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { absent } from './file.ts';
import { HostDefinitionError, hostAttrs } from './host-definition.ts';
import { loadHostDefinition } from './load-host.ts';

const folder = mkdtempSync(join(tmpdir(), 'buildos-load-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const FILE = JSON.stringify(join(import.meta.dirname, 'file.ts'));
const HOST = `{ name: 'my-host', summary: 'mine', base: { distribution: 'debian', suite: 'trixie' }, properties: [file.absent('/x')] }`;

let made = 0;
function module(text: string): string {
  const path = join(folder, `host-${made++}.ts`);
  writeFileSync(path, `import * as file from ${FILE};\n${text}\n`);
  return path;
}

const RIGHT: readonly (readonly [name: string, text: string])[] = [
  ['an export named host', `export const other = 1; export const host = ${HOST};`],
  ['the default export', `export default ${HOST};`],
  ['the only one that can be', `export const version = '1'; export const whatever = ${HOST};`],
  ['a function', `export function host() { return ${HOST}; }`],
  [
    'a function of inputs',
    `export function whatever(inputs: { note: string }) { return { ...${HOST}, summary: inputs.note }; }`,
  ],
];

for (const [name, text] of RIGHT) {
  test(`a host definition is found: ${name}`, async () => {
    const loaded = await loadHostDefinition(module(text));
    const definition = loaded.define({ note: 'mine' });
    assert.deepEqual([definition.name, definition.summary], ['my-host', 'mine']);
    assert.equal(loaded.wantsInputs, name === 'a function of inputs');
  });
}

test('a definition anywhere imports our files as buildos/…, the very ones', async () => {
  const path = join(folder, 'elsewhere.ts');
  const imports = `import { absent } from 'buildos/properties/file.ts';\nimport type { HostDefinition } from 'buildos/properties/host-definition.ts';`;
  writeFileSync(
    path,
    `${imports}\nexport const host: HostDefinition = ${HOST.replace('file.absent', 'absent')};\nexport { absent };\n`,
  );
  const loaded = await loadHostDefinition(path);
  assert.deepEqual(loaded.define(undefined).properties, [absent('/x')]);
});

/** The TypeScript of docs/write-a-host.md: modules by the name in their first line, and a property of one's own. */
function documented(): { readonly files: ReadonlyMap<string, string>; readonly property: string } {
  const text = readFileSync(join(import.meta.dirname, '../docs/write-a-host.md'), 'utf8');
  const blocks = [...text.matchAll(/^```ts\n([^]*?)^```$/gm)].map((match) => match[1] ?? '');
  const named = blocks.flatMap((block): [string, string][] => {
    const name = /^\/\/ (\S+\.ts)\n/.exec(block)?.[1];
    return name === undefined ? [] : [[name, block]];
  });
  return { files: new Map(named), property: blocks.at(-1) ?? '' };
}

test('what docs/write-a-host.md has to copy is right', async () => {
  const { files, property } = documented();
  assert.deepEqual([...files.keys()], ['my-host.ts', 'my-image.ts', 'my-machine.ts']);
  for (const [name, text] of files) writeFileSync(join(folder, name), text);
  for (const name of files.keys()) {
    const definition = (await loadHostDefinition(join(folder, name))).define(undefined);
    assert.ok(definition.properties.length > 2, name);
    hostAttrs(definition);
  }
  const own = `${property}\nexport const host = ${HOST.replace("file.absent('/x')", "greets('hello')")};\n`;
  const path = join(folder, 'own.ts');
  writeFileSync(path, own);
  const { properties } = (await loadHostDefinition(path)).define(undefined);
  assert.deepEqual(properties, [{ p: 'my.greets', a: ['hello'] }]);
});

const WRONG: readonly (readonly [name: string, text: string, message: RegExp])[] = [
  ['nothing', '', /it exports nothing/],
  ['something else', 'export const a = 1, b = "x";', /it exports a, b$/],
  ['two that could be', `export const a = ${HOST}, b = ${HOST};`, /more than one could be it/],
  [
    'a host without a suite',
    'export const host = { name: "x", summary: "", base: { distribution: "debian" }, properties: [] };',
    /"host" of .* at base.suite: /,
  ],
  ['a host with a member too many', `export const host = { ...${HOST}, packages: [] };`, /packages/],
  ['a name that cannot be', `export const host = { ...${HOST}, name: '../x' };`, /at name: must be lower case/],
  [
    'an unknown property',
    `export const host = { ...${HOST}, properties: [{ p: 'no.such', a: [] }] };`,
    /properties\.0 is wrong/,
  ],
  [
    'a wrong argument',
    `export const host = { ...${HOST}, properties: [{ p: 'file.absent', a: [5] }] };`,
    /properties\.0 is wrong/,
  ],
  ['a function that returns none', 'export const host = () => 5;', /what "host" of .* returns/],
  ['a module that throws', `throw new Error('broken');`, /Cannot load the host definition "(.*)" at \1:2$/],
  ['a module that is none', 'export const = ;', /Cannot load the host definition "(.*)" at \1:2$/],
  ['no TypeScript that Node takes', 'enum X { A }', /Cannot load the host definition "(.*)" at \1:2$/],
];

for (const [name, text, message] of WRONG) {
  test(`no host definition: ${name}`, async () => {
    await assert.rejects(
      async () => (await loadHostDefinition(module(text))).define(undefined),
      (error) => {
        assert.ok(error instanceof HostDefinitionError);
        assert.match(error.message, message);
        assert.ok(error.hint !== undefined || error.cause !== undefined);
        return true;
      },
    );
  });
}

test('a file that is not there is told', async () => {
  await assert.rejects(loadHostDefinition(join(folder, 'absent.ts')), /there is no such file/);
});

const BROKEN: readonly (readonly [name: string, text: string, message: RegExp, hint: RegExp | undefined])[] = [
  ['does not parse', `export const host = {{;`, /Cannot load .* at \/.*host-\d+\.ts:2/, undefined],
  ['throws', `throw new Error('boom');`, /Cannot load .* at \/.*host-\d+\.ts:2/, undefined],
  [
    'throws when called',
    `export const host = () => { throw new Error('boom'); };`,
    /Cannot make .*"host".* at \/.*:2/,
    undefined,
  ],
  ['is async', `export const host = async () => (${HOST});`, /it is a Promise/, /must not be async/],
  [
    'imports a package that is not there',
    `import 'no-such-package-xy';`,
    /Cannot load/,
    /npm install no-such-package-xy/,
  ],
  ['imports a file of ours that is not there', `import 'buildos/properties/fil.ts';`, /Cannot load/, /prop show NAME/],
  ['misspells a property', `file.hasContnt('/x', 'y');`, /Cannot load .* at \/.*:2/, /prop list/],
  ['reads a file that is not there', `file.sourceOf('/no/such');`, /Cannot load .* at \/.*host-\d+\.ts:2/, undefined],
  [
    'gives an argument that contains itself',
    `const o = {}; o.o = o; file.absent(o);`,
    /Cannot load/,
    /It is called as file\.absent/,
  ],
  [
    'does not call a property',
    `export const host = { ...${HOST}, properties: [file.absent] };`,
    /at properties\.0/,
    /what its function returns/,
  ],
];

for (const [name, text, message, hint] of BROKEN) {
  test(`a module that ${name} is told so, with its place`, async () => {
    const load = async (): Promise<unknown> => (await loadHostDefinition(module(text))).define(undefined);
    await assert.rejects(load, (error) => {
      assert.ok(error instanceof HostDefinitionError);
      assert.match(error.message, message);
      if (hint === undefined) assert.equal(error.hint, undefined);
      else assert.match(error.hint ?? '', hint);
      return true;
    });
  });
}
