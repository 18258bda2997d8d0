import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { z } from 'zod';
import { PropertyArgumentError, arg, checkArgs, restArg, usageOf } from './args.ts';
import { seq } from './combinators.ts';
import * as file from './file.ts';
import { checkApplication, readRegistered, registeredIds } from './property.ts';
import * as user from './user.ts';

/** A wrong call, and what its message has to say. */
const WRONG: readonly (readonly [make: () => unknown, message: RegExp])[] = [
  [
    () => wrong('/x', 5),
    /Cannot apply file.hasContent at .*args.test.ts:\d+: argument "text": it must be string, and is the number 5$/,
  ],
  [() => wrong('/x'), /argument "text": it must be string, and is missing$/],
  [() => wrong('/x', 'x', { mode: '0644' }), /argument "options" at \.mode: it must be .*, and is the text "0644"$/],
  [() => wrong('/x', 'x', { Mode: 1 }), /argument "options": it has no member "Mode"$/],
  [() => wrong('x', 'x'), /argument "path": "x" must be an absolute path/],
  [() => wrong('/x', 'x', {}, 'more'), /4 arguments were given, and it takes 3$/],
  [
    () => checkApplication({ p: 'seq', a: [{ p: 'file.absent', a: ['/x'] }, 5] }),
    /Cannot apply seq.*argument "children" at \[1\]: /,
  ],
  [
    () => checkApplication({ p: 'seq', a: [{ p: 'file.absent', a: ['x'] }] }),
    /Cannot apply file.absent.*argument "path"/,
  ],
  [
    () => checkApplication({ p: 'user.present', a: [{ name: 'a', groups: ['b', 'c d'] }] }),
    /argument "user" at \.groups\[1\]: "c d"/,
  ],
];

const wrong = (...a: readonly unknown[]): unknown => Reflect.apply(file.hasContent, undefined, a);

test('a wrong argument is told with property, argument and place, and how it is called', () => {
  for (const [make, message] of WRONG) {
    assert.throws(make, (error) => {
      assert.ok(error instanceof PropertyArgumentError);
      assert.match(error.message, message);
      assert.match(error.hint, /^It is called as [A-Za-z.]+\(/);
      return true;
    });
  }
  assert.ok(seq(user.present({ name: 'a' })));
});

test('usageOf() is what TypeScript would show', () => {
  const args = [
    arg('name', z.string(), ''),
    arg('how', z.union([z.enum(['a', 'b']), z.number()]), ''),
    arg('options', z.strictObject({ deep: z.array(z.string()), more: z.boolean().exactOptional() }).optional(), ''),
    restArg('all', z.record(z.string(), z.int()), ''),
  ];
  assert.equal(
    usageOf('x', args),
    'x(name: string, how: "a" | "b" | number, options?: { deep: string[]; more?: boolean }, ...all: { [name: string]: integer }[])',
  );
});

test('checkArgs() lets anything pass where nothing is said', () => {
  checkArgs('x', undefined, [1, 2, 3]);
});

test('every property of this room documents itself', async () => {
  for (const name of readdirSync(import.meta.dirname)) {
    if (name.endsWith('.ts') && !name.endsWith('.test.ts') && name !== '_toy.ts')
      await import(join(import.meta.dirname, name));
  }
  const ids = registeredIds().filter((id) => !/^(toy|test|rules)\./.test(id));
  assert.ok(ids.length > 40);
  for (const id of ids) {
    const { definition } = readRegistered(id);
    assert.ok(definition.args !== undefined && (definition.about ?? '').length > 10, `${id} says nothing about itself`);
    for (const one of definition.args) assert.ok(one.about !== '' && one.name !== '', `${id}: ${one.name}`);
    assert.doesNotMatch(usageOf(id, definition.args), /unknown/, id);
  }
});
