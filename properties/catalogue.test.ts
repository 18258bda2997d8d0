/** Every property of the set is documented, and what is printed of it is true. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { runInThisContext } from 'node:vm';
import { formatCall, loadCatalogue } from './catalogue.ts';
import {
  applicationDigest,
  checkApplication,
  describeApplication,
  readRegistered,
  registeredIds,
  type PropertyApplication,
} from './property.ts';

const catalogue = await loadCatalogue();

/** What a definition that imports all modules has in reach: `file`, `apt`, …, and combinators by their own names. */
async function inReach(): Promise<Map<string, unknown>> {
  const found = new Map<string, unknown>();
  for (const name of readdirSync(import.meta.dirname).filter((one) => /^[a-z][a-z-]*\.ts$/.test(one))) {
    const module: unknown = await import(pathToFileURL(join(import.meta.dirname, name)).href);
    found.set(name.slice(0, -'.ts'.length), module);
    if (name === 'combinators.ts' || name === 'conditions.ts') {
      for (const [key, value] of Object.entries(Object(module))) found.set(key, value);
    }
  }
  return found;
}

function exampleOf(id: string): PropertyApplication {
  const { example } = readRegistered(id).definition;
  assert.ok(example !== undefined, `${id} has no example`);
  return { p: id, a: example };
}

test('everything that is defined is in the list, and is exported by the name in its id', async () => {
  assert.deepEqual([...catalogue.keys()], registeredIds());
  const reach = await inReach();
  for (const id of catalogue.keys()) {
    const [first = '', second] = id.split('.');
    const found: unknown = second === undefined ? reach.get(first) : Object(reach.get(first))[second];
    assert.equal(found, readRegistered(id).make, id);
  }
});

test('every one has a summary of a line, words for every argument, and an example', () => {
  for (const { id, summary, about, args, example } of catalogue.values()) {
    assert.match(summary, /^[A-Za-z/].{8,140}$/, id);
    assert.match(about, /\.$/, id);
    for (const one of args) {
      assert.notEqual(one.about, '', `${id} ${one.name}`);
      assert.doesNotMatch(one.type, /unknown/, `${id} ${one.name}`);
    }
    assert.ok(example !== undefined, `${id} has no example`);
  }
});

test('every property that has a way back says what that does', () => {
  const silent: string[] = [];
  for (const { id, about, reversible } of catalogue.values()) {
    if (id.includes('.') && reversible === 'yes' && !about.includes('Unapplied: ')) silent.push(id);
  }
  assert.deepEqual(silent, []);
});

for (const id of catalogue.keys()) {
  test(`the example of ${id} is right`, async () => {
    const example = exampleOf(id);
    checkApplication(example);
    assert.match(describeApplication(example), /^[^\n]+$/);
    // What is made of it is plain data, the same after it was written and read.
    const make: unknown = readRegistered(id).make;
    const made = call(make, example.a);
    assert.equal(applicationDigest(made), applicationDigest(example));
    const read: PropertyApplication = JSON.parse(JSON.stringify(made));
    assert.deepEqual(read, made);
    checkApplication(read);
    // What is printed of it is the call that makes it.
    const reach = await inReach();
    const names = [...reach.keys()].filter((name) => /^\w+$/.test(name));
    const run: unknown = runInThisContext(`((${names.join(', ')}) => ${formatCall(example)})`);
    assert.deepEqual(
      call(
        run,
        names.map((name) => reach.get(name)),
      ),
      made,
    );
  });
}

function call(made: unknown, args: readonly unknown[]): PropertyApplication {
  assert.ok(typeof made === 'function');
  const application: PropertyApplication = Reflect.apply(made, undefined, args);
  return application;
}
