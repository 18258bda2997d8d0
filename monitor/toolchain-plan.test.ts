import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseToolchainList } from '../manifests/toolchain-list.ts';
import { type ToolchainRecord, build2Recipe, findToolchainJson, planBootstrap, planFiles } from './toolchain-plan.ts';

const A = 'a'.repeat(64);
const B = 'b'.repeat(64);
const LIST = parseToolchainList(`# 1.0\n${A} *toolchain.json\n${B} *1.0/source c++.tar.gz\n`);
const URL_ = 'http://boot/toolchains/list?x=1';

test('planFiles() fetches what is missing or wrong, relative to the list, and removes what does not belong', () => {
  assert.deepEqual(planFiles(LIST, URL_, {}), {
    remove: [],
    fetch: [
      { path: 'toolchain.json', sha256: A, url: 'http://boot/toolchains/toolchain.json' },
      { path: '1.0/source c++.tar.gz', sha256: B, url: 'http://boot/toolchains/1.0/source%20c%2B%2B.tar.gz' },
    ],
  });
  const found = {
    'toolchain.json': A,
    '1.0/source c++.tar.gz': A,
    '.old.part': '',
    'bootstrap.log': B,
    'toolchain.tar': B,
  };
  assert.deepEqual(planFiles(LIST, 'tftp://boot/t/list', found), {
    remove: ['.old.part', '1.0/source c++.tar.gz'],
    fetch: [{ path: '1.0/source c++.tar.gz', sha256: B, url: 'tftp://boot/t/1.0/source%20c%2B%2B.tar.gz' }],
  });
  assert.deepEqual(planFiles(LIST, URL_, { 'toolchain.json': A, '1.0/source c++.tar.gz': B }), {
    remove: [],
    fetch: [],
  });
});

test('planBootstrap() starts anew unless this very list is done, or under way', () => {
  const record = (bootstrap: ToolchainRecord['bootstrap'], id = 'x'): ToolchainRecord => ({
    id,
    version: '1',
    bootstrap,
    leaves: [],
  });
  assert.equal(planBootstrap('x', undefined, 'running', true), 'start');
  assert.equal(planBootstrap('x', record('started', 'old'), 'running', false), 'start');
  assert.equal(planBootstrap('x', record('started'), 'running', false), 'follow');
  assert.equal(planBootstrap('x', record('started'), 'success', true), 'follow');
  for (const unit of ['failed', 'timeout', 'absent'] as const)
    assert.equal(planBootstrap('x', record('started'), unit, true), 'start');
  assert.equal(planBootstrap('x', record('done'), 'absent', true), 'done');
  assert.equal(planBootstrap('x', record('done'), 'success', false), 'start');
  assert.equal(planBootstrap('x', record('done', 'old'), 'success', true), 'start');
});

test('findToolchainJson() prefers the top, and takes one below when it is the only one', () => {
  const listOf = (...paths: readonly string[]): ReturnType<typeof parseToolchainList> =>
    parseToolchainList(`# 1\n${paths.map((path) => `${A} *${path}\n`).join('')}`);
  assert.equal(findToolchainJson(LIST), 'toolchain.json');
  assert.equal(findToolchainJson(listOf('1.0/toolchain.json', '1.0/x')), '1.0/toolchain.json');
  assert.equal(findToolchainJson(listOf('1.0/toolchain.json', '1.1/toolchain.json')), undefined);
  assert.equal(findToolchainJson(listOf('mytoolchain.json')), undefined);
});

test('build2Recipe() knows a list of build2', () => {
  const list = parseToolchainList(
    `# 0.17.0\n${A} *0.17.0/build2-toolchain-0.17.0.tar.xz\n${B} *0.17.0/build2-install-0.17.0.sh\n`,
  );
  assert.ok(build2Recipe(list)?.bootstrap.command.includes('{files}/0.17.0/build2-toolchain-0.17.0.tar.xz'));
  assert.equal(build2Recipe(LIST), undefined);
});
