import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { ChainError, formatChain, formatChainText, normaliseChain, parseChain } from './chain.ts';
import type { Chain, Hop } from './connection.ts';

/** Text → normal form. */
const SAME: readonly (readonly [source: string, chain: Chain])[] = [
  ['local', [['local']]],
  ['"ssh"', [['local'], ['ssh']]],
  ['ssh', [['local'], ['ssh']]],
  ['[["ssh",{"host":"h"}]]', [['local'], ['ssh', { host: 'h' }]]],
  ['["ssh",["sudo",{"user":"build"}]]', [['local'], ['ssh'], ['sudo', { user: 'build' }]]],
  ['["ssh","sudo"]', [['local'], ['ssh'], ['sudo']]],
  ['["ssh"]', [['local'], ['ssh']]],
  ['[]', [['local']]],
  ['[["local"],["chroot",{"into":"/x","network":false}]]', [['local'], ['chroot', { into: '/x', network: false }]]],
  ['[["ssh",{}]]', [['local'], ['ssh']]],
  [':ssh', [['local'], ['ssh']]],
  ['(:ssh)', [['local'], ['ssh']]],
  ['((:ssh :user "root") (:sudo :user "build"))', [['local'], ['ssh', { user: 'root' }], ['sudo', { user: 'build' }]]],
  ['(:ssh (:sudo :user "build"))', [['local'], ['ssh'], ['sudo', { user: 'build' }]]],
  [
    String.raw`((:SSH :PORT 22 :host-key "a\"b\\c" :quick t :slow nil))`,
    [['local'], ['ssh', { port: 22, hostKey: String.raw`a"b\c`, quick: true, slow: false }]],
  ],
];

for (const [source, chain] of SAME) {
  test(`parseChain() reads ${source}`, () => {
    assert.deepEqual(parseChain(source), chain);
    assert.deepEqual(normaliseChain(chain), chain);
  });
}

/** Text → what the error and its hint say. */
const WRONG: readonly (readonly [source: string, message: RegExp, hint: RegExp])[] = [
  ['["ssh",{"host":"h"}]', /one hop, not a list/, /\[\["ssh",\{"host":"h"\}\]\]/],
  ['(:ssh :user "root")', /stands where a hop should be/, /\(\(:ssh :user "root"\)\)/],
  ['[["sudo"],["local"]]', /hop 2 is "local"/, /first/],
  ['', /empty/, /local/],
  ['[["ssh",{"a":{}}]]', /argument "a"/, /strings, numbers or booleans/],
  ['[["ssh",{},{}]]', /is not a hop/, /brackets/],
  ['[["ssh",["sudo"]]]', /arguments of hop "ssh"/, /Write/],
  ['{"ssh":1}', /not a list/, /\[\[/],
  ['[1]', /not a hop/, /"name"/],
  ['["Ssh"]', /name of a hop/, /like/],
  ['[["ssh"', /JSON|Expected/, /Write/],
  ['((:ssh :user))', /value for user/, /:host/],
  ['((:ssh "x"))', /argument such as/, /:host/],
  ['((:ssh)', /expected at its end/, /:host/],
  ['((:ssh)) (:sudo)', /nothing more/, /:host/],
  [":ssh 'x'", /makes no sense/, /double quotes/],
];

for (const [source, message, hint] of WRONG) {
  test(`parseChain() refuses ${source === '' ? 'the empty text' : source}, with a hint`, () => {
    assert.throws(
      () => parseChain(source),
      (error) => error instanceof ChainError && message.test(error.message) && hint.test(error.hint ?? ''),
    );
  });
}

const hopName = fc.stringMatching(/^[a-km-z][a-z0-9]{0,8}$/);
const argumentName = fc.stringMatching(/^[a-z][a-z0-9]{0,5}([A-Z][a-z0-9]{0,3})?$/);
const argumentValue = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.boolean(),
  fc.integer(),
  fc.integer({ min: -9999, max: 9999 }).map((value) => value / 100),
);
const hop: fc.Arbitrary<Hop> = fc
  .tuple(hopName, fc.dictionary(argumentName, argumentValue, { noNullPrototype: true }))
  .map(([name, args]): Hop => (Object.keys(args).length === 0 ? [name] : [name, args]));

test('both text forms of any chain are read back as they were', () => {
  fc.assert(
    fc.property(fc.array(hop, { maxLength: 4 }), (hops) => {
      const chain = normaliseChain(hops);
      assert.deepEqual(parseChain(formatChain(chain)), chain);
      assert.deepEqual(parseChain(formatChainText(chain)), chain);
    }),
    { numRuns: 200 },
  );
});

test('no text makes parseChain() fail with anything but a ChainError', () => {
  fc.assert(
    fc.property(fc.string(), fc.boolean(), (source, lisp) => {
      try {
        parseChain(lisp ? `(${source}` : source);
      } catch (error) {
        assert.ok(error instanceof ChainError);
      }
    }),
    { numRuns: 300 },
  );
});
