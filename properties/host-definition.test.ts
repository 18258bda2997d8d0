import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as apt from './apt.ts';
import { eseq, unapplied } from './combinators.ts';
import * as file from './file.ts';
import { excludedPaths } from './host-attrs.ts';
import { definitionDigest, hostAttrs } from './host-definition.ts';
import * as image from './image.ts';
import * as kernel from './kernel.ts';
import * as mount from './mount.ts';
import { InapplicablePropertyError, type PropertyApplication } from './property.ts';
import * as systemd from './systemd.ts';
import * as user from './user.ts';
import { toyDefinition } from './_toy.ts';

const attrs = (...properties: PropertyApplication[]): ReturnType<typeof hostAttrs> =>
  hostAttrs(toyDefinition(...properties));

test('static facts add up in order, without duplicates, through combinators', () => {
  const found = attrs(
    apt.installed(['bb', 'a2']),
    eseq(apt.installed(['a2', 'cc']), kernel.option('quiet')),
    unapplied(apt.installed(['dd'])),
    image.excludes(['usr/share/doc/*']),
    user.present({ name: 'build', uid: 1000, home: '/build' }),
    systemd.unit('x.service', '[Service]\nExecStart=/bin/true\n'),
    systemd.masked(['getty@tty1.service']),
    kernel.modules('more', ['loop']),
  );
  assert.deepEqual(found.packages, ['bb', 'a2', 'cc']);
  assert.deepEqual(found.kernelOptions, ['quiet']);
  assert.deepEqual(found.excludes, ['usr/share/doc/*']);
  assert.deepEqual(found.users, [{ name: 'build', uid: 1000, home: '/build' }]);
  assert.deepEqual(found.units, ['x.service']);
  assert.deepEqual(found.unitsMasked, ['getty@tty1.service']);
  assert.deepEqual(found.kernelModules, ['loop']);
  assert.deepEqual(found.files, ['/etc/systemd/system/x.service', '/etc/modules-load.d/more.conf']);
});

test('paths that are left out unless a package is asked for stay with it, wherever it is asked for', () => {
  const properties = [image.excludes(['a']), image.excludes(['b', 'c'], ['less', 'more'])];
  assert.deepEqual(excludedPaths(attrs(...properties)), ['a', 'b', 'c']);
  assert.deepEqual(excludedPaths(attrs(...properties, apt.installed(['less']))), ['a']);
});

test('a mount says what its kernel needs; of what is in RAM nothing', () => {
  const classes = (device: string, type?: string): readonly string[] =>
    attrs(mount.at('/srv', { device, ...(type !== undefined && { type }) })).kernelClasses;
  assert.deepEqual(classes('LABEL=srv', 'ext4'), ['filesystems']);
  assert.deepEqual(classes('/dev/mapper/srv'), ['filesystems', 'volumes']);
  assert.deepEqual(classes('server:/srv', 'nfs4'), ['network-filesystems']);
  assert.deepEqual(classes('tmpfs', 'tmpfs'), []);
});

test('what makes no sense together is refused before connecting', () => {
  assert.throws(() => attrs(apt.installed(['less']), apt.removed(['less'])), InapplicablePropertyError);
  assert.throws(() => attrs(apt.removed(['less']), apt.installed(['less'])), InapplicablePropertyError);
  const two = [user.present({ name: 'a', uid: 1000 }), user.present({ name: 'b', uid: 1000 })];
  assert.throws(() => attrs(...two), /gives uid 1000 to "a" and "b"/);
  assert.throws(() => attrs(image.bootsOver('1G'), image.bootsOver('100M')), /boots over a wire of 1G and of 100M/);
});

test('the digest of a definition changes with any argument, and with nothing else', () => {
  const one = toyDefinition(file.hasContent('/a', 'x', { mode: 0o600, owner: 'root' }));
  const same = toyDefinition(file.hasContent('/a', 'x', { owner: 'root', mode: 0o600 }));
  const other = toyDefinition(file.hasContent('/a', 'y', { mode: 0o600, owner: 'root' }));
  assert.equal(definitionDigest(one), definitionDigest(same));
  assert.notEqual(definitionDigest(one), definitionDigest(other));
});

/** What a definition must not hold. */
const WRONG: readonly (readonly [name: string, make: () => unknown])[] = [
  ['a relative path', () => file.hasContent('etc/x', '')],
  ['a path with ..', () => file.directory('/etc/../x')],
  ['a path with .', () => file.directory('/etc/./x')],
  ['a path with //', () => file.symlink('/etc//x', 'y')],
  ['a path that ends in /', () => file.directory('/etc/')],
  ['the root', () => file.absent('/')],
  ['a mode that is none', () => file.directory('/x', { mode: 0o10000 })],
  ['an owner with a blank', () => file.directory('/x', { owner: 'a b' })],
  ['a source without a digest', () => file.hasFile('/x', { source: '/y', sha256: 'abc' })],
  ['a line with a newline', () => file.hasLines('/x', ['a\nb'])],
  ['a package with a blank', () => apt.installed(['a b'])],
  ['a package that is an option', () => apt.installed(['-o'])],
  ['no packages', () => apt.installed([])],
  ['an apt source that is none', () => apt.sources(['http://deb.debian.org'])],
  ['a unit without a suffix', () => systemd.enabled(['ssh'])],
  ['a unit with a slash', () => systemd.masked(['../x.service'])],
  ['a unit file without a section', () => systemd.unit('x.service', 'ExecStart=/bin/true\n')],
  ['a unit file without its last newline', () => systemd.unit('x.service', '[Service]\nExecStart=/bin/true')],
  ['a drop-in of another kind', () => systemd.dropIn('x.service', 'a.txt', '[Service]\n')],
  ['a user with a colon', () => user.present({ name: 'a:b' })],
  ['a home with a colon', () => user.present({ name: 'a', home: '/a:b' })],
  ['a negative uid', () => user.present({ name: 'a', uid: -1 })],
  ['a kernel option of two words', () => kernel.option('a b')],
  ['a pattern that leads outside', () => image.excludes(['../x'])],
  ['a pattern with the first slash', () => image.excludes(['/usr'])],
];

for (const [name, make] of WRONG) {
  test(`${name} is refused when the host is defined`, () => {
    assert.throws(make, (error) => error instanceof TypeError || error instanceof RangeError);
  });
}
