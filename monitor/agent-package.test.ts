import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { AgentPackageError, installAgentPackage } from './agent-package.ts';

const LIMIT = { timeout: 20_000 };
const NEVER = new AbortController().signal;

interface Place {
  readonly agents: string;
  readonly files: string;
  readonly archive: string;
}

const makePlace = (context: TestContext): Place => {
  const folder = mkdtempSync(join(tmpdir(), 'agent-package-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const place = { agents: join(folder, 'agents'), files: join(folder, 'files'), archive: join(folder, 'agent.tar') };
  mkdirSync(place.agents);
  mkdirSync(place.files);
  return place;
};

/** GNU tar makes the packages, so that not only one implementation has seen them. */
const pack = ({ files, archive }: Place, content: string, ...extra: readonly string[]): void => {
  for (const name of ['agent.mjs', 'worker.mjs']) writeFileSync(join(files, name), content);
  execFileSync('tar', ['-cf', archive, '-C', files, ...extra, 'agent.mjs', 'worker.mjs']);
};

test('installAgentPackage() switches versions by one link, and does nothing twice', LIMIT, async (context) => {
  const place = makePlace(context);
  const install = (): Promise<string> => installAgentPackage('default', place.archive, place.agents, NEVER);
  pack(place, 'one');
  const first = await install();
  assert.equal(readlinkSync(join(place.agents, 'default')), first);
  assert.equal(readFileSync(join(place.agents, 'default/agent.mjs'), 'utf8'), 'one');
  assert.equal(await install(), first);

  pack(place, 'two');
  const second = await install();
  assert.notEqual(second, first);
  assert.equal(readFileSync(join(place.agents, 'default/worker.mjs'), 'utf8'), 'two');
  assert.deepEqual(
    readdirSync(join(place.agents, '.versions')),
    [second.replace('.versions/', '')],
    'the old one is gone',
  );

  writeFileSync(join(place.agents, second, 'agent.mjs'), '');
  await install();
  assert.equal(readFileSync(join(place.agents, 'default/agent.mjs'), 'utf8'), 'two', 'a damaged one is put right');
});

test(
  "installAgentPackage() leaves another toolchain's versions alone, and replaces a folder in the link's place",
  LIMIT,
  async (context) => {
    const place = makePlace(context);
    pack(place, 'one');
    mkdirSync(join(place.agents, 'default/old'), { recursive: true });
    await installAgentPackage('default', place.archive, place.agents, NEVER);
    await installAgentPackage('default-2', place.archive, place.agents, NEVER);
    await installAgentPackage('default', place.archive, place.agents, NEVER);
    pack(place, 'two');
    await installAgentPackage('default', place.archive, place.agents, NEVER);
    assert.equal(readFileSync(join(place.agents, 'default/agent.mjs'), 'utf8'), 'two');
    assert.equal(readFileSync(join(place.agents, 'default-2/agent.mjs'), 'utf8'), 'one');
  },
);

test('installAgentPackage() refuses what is no package, and keeps the one installed', LIMIT, async (context) => {
  const place = makePlace(context);
  pack(place, 'one');
  const good = await installAgentPackage('default', place.archive, place.agents, NEVER);
  const bad: Readonly<Record<string, () => void>> = {
    'not a tar': () => writeFileSync(place.archive, 'x'.repeat(2000)),
    empty: () => writeFileSync(place.archive, ''),
    'without the worker': () => execFileSync('tar', ['-cf', place.archive, '-C', place.files, 'agent.mjs']),
    'cut short': () => {
      pack(place, 'y'.repeat(20_000));
      writeFileSync(place.archive, readFileSync(place.archive).subarray(0, 15_000));
    },
    'with a symbolic link': () => {
      symlinkSync('/etc/passwd', join(place.files, 'link'));
      pack(place, 'three', 'link');
    },
    'with a FIFO': () => {
      execFileSync('mkfifo', [join(place.files, 'fifo')]);
      pack(place, 'four', 'fifo');
    },
    'with a way out': () => {
      writeFileSync(join(place.files, 'escape'), '');
      pack(place, 'five', '-P', '--transform=s,^escape,../../escape,', 'escape');
    },
  };
  for (const [what, make] of Object.entries(bad)) {
    make();
    const installing = installAgentPackage('default', place.archive, place.agents, NEVER);
    await assert.rejects(installing, AgentPackageError, what);
    assert.equal(readlinkSync(join(place.agents, 'default')), good, what);
    assert.equal(readFileSync(join(place.agents, 'default/agent.mjs'), 'utf8'), 'one', what);
  }
  assert.ok(!existsSync(join(place.agents, 'escape')));
  assert.equal(readdirSync(join(place.agents, '.versions')).length, 1);
});
