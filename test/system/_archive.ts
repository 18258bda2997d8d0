/** An apt archive of a test: an index, signed with a key of its own. There are no packages behind it, only their entries. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** An entry of the index. */
export interface Entry {
  readonly name: string;
  readonly version: string;
  readonly depends?: string;
  readonly essential?: true;
}

/** What a root needs for apt to choose it, and something to ask for. */
export const ENTRIES: readonly Entry[] = [
  { name: 'base-files', version: '13.8', essential: true },
  { name: 'dpkg', version: '1.22.22', essential: true, depends: 'libc6' },
  { name: 'libc6', version: '2.41-12' },
  { name: 'apt', version: '3.0.4', depends: 'libc6' },
  { name: 'less', version: '668-1', depends: 'libc6 (>= 2.40)' },
];

/** How an index is published. */
export interface Publication {
  readonly suite: string;
  readonly entries: readonly Entry[];
  readonly validUntil?: Date;
}

/** Keys, and folders with archives; removed when disposed. */
export interface Archive extends AsyncDisposable {
  /** The archive; one of a suite that ends in `-security` is beside it, with that end to its name, too. */
  readonly folder: string;
  /** The keyring to trust, and one of somebody else. */
  readonly keyring: string;
  readonly otherKeyring: string;
  /** Writes the index of a suite, and signs it. */
  publish(publication: Publication): void;
}

/** Makes the keys; there is nothing in the archive yet. */
export async function openArchive(): Promise<Archive> {
  const base = await mkdtemp(join(tmpdir(), 'buildos-archive-'));
  const folder = join(base, 'debian');
  const keyring = makeKey(base, 'archive');
  return {
    folder,
    keyring,
    otherKeyring: makeKey(base, 'other'),
    publish: (publication) => publish(base, folder, publication),
    [Symbol.asyncDispose]: async () => {
      for (const name of ['archive', 'other']) {
        execFileSync('gpgconf', ['--homedir', join(base, name), '--kill', 'gpg-agent'], { stdio: 'ignore' });
      }
      await rm(base, { recursive: true, force: true });
    },
  };
}

function makeKey(base: string, name: string): string {
  const home = join(base, name);
  mkdirSync(home, { mode: 0o700 });
  gpg(home, '--passphrase', '', '--quick-generate-key', `${name}@example.org`, 'ed25519', 'sign', 'never');
  const keyring = join(base, `${name}.gpg`);
  gpg(home, '--output', keyring, '--export');
  return keyring;
}

function publish(base: string, folder: string, { suite, entries, validUntil }: Publication): void {
  const place = join(suite.endsWith('-security') ? `${folder}-security` : folder, 'dists', suite);
  const index = 'main/binary-amd64/Packages';
  const packages = entries.map(formatEntry).join('\n');
  mkdirSync(dirname(join(place, index)), { recursive: true });
  writeFileSync(join(place, index), packages);
  const release = [
    `Origin: test\nSuite: ${suite}\nCodename: ${suite}\nArchitectures: amd64\nComponents: main`,
    `Date: ${new Date(Date.now() - 86_400_000).toUTCString()}`,
    ...(validUntil === undefined ? [] : [`Valid-Until: ${validUntil.toUTCString()}`]),
    `SHA256:\n ${sha256Of(packages)} ${packages.length} ${index}\n`,
  ].join('\n');
  writeFileSync(join(place, 'Release'), release);
  gpg(join(base, 'archive'), '--clear-sign', '--output', join(place, 'InRelease'), join(place, 'Release'));
}

function formatEntry({ name, version, depends, essential }: Entry): string {
  const file = `pool/main/${name}_${version}_amd64.deb`;
  return [
    `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>`,
    ...(essential ? ['Essential: yes\nPriority: required'] : ['Priority: optional']),
    ...(depends === undefined ? [] : [`Depends: ${depends}`]),
    `Filename: ${file}\nSize: 1000\nSHA256: ${sha256Of(file)}\nDescription: test\n`,
  ].join('\n');
}

function sha256Of(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function gpg(home: string, ...args: readonly string[]): void {
  execFileSync('gpg', ['--homedir', home, '--batch', '--yes', '--quiet', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
}
