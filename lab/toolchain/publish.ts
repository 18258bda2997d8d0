/**
 * The demo's toolchain: bmake, bootstrapped from Debian's source archive, and the agent made from this checkout.
 *
 *     <folder>/toolchain.sha256                list: version, and a digest for each file below
 *              toolchain.json                  how to bootstrap, what is the agent
 *              bootstrap.sh
 *              bmake_20200710.orig.tar.gz
 *              buildos-agent.tar               agent.mjs, worker.mjs
 *
 * The same sources give the same list, and so the same toolchain id.
 */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { create } from 'tar';
import { bundle } from '../../image/bundle.ts';
import { formatToolchainList } from '../../manifests/toolchain-list.ts';
import { TOOLCHAIN_JSON, formatToolchainJson } from '../../manifests/toolchain.ts';

/** The source of the demo's make in Debian's archive. */
export const BMAKE = { name: 'bmake', version: '20200710', suite: 'trixie' } as const;
/** The package that the demo builds. */
export const HELLO = { name: 'hello', version: '2.10', suite: 'trixie' } as const;

/** The list, published last: what `buildos.toolchain_url` points to. */
export const TOOLCHAIN_LIST = 'toolchain.sha256';

/** The agent in a toolchain's files. */
export const AGENT_PACKAGE = 'buildos-agent.tar';
const BOOTSTRAP = 'bootstrap.sh';

/** The programs of the agent package, from the top of the checkout. */
const PROGRAMS = { 'agent.mjs': 'agent/main.ts', 'worker.mjs': 'agent/worker/main.ts' } as const;

export interface ToolchainOptions {
  /** Where it is published. */
  readonly folder: string;
  /** The source archive of bmake. */
  readonly bmake: string;
}

/**
 * Publishes the toolchain. The list comes last, in one step.
 *
 * @returns the files' names
 */
export async function publishToolchain(options: ToolchainOptions): Promise<readonly string[]> {
  const { folder } = options;
  await mkdir(folder, { recursive: true });
  const archive = `${BMAKE.name}_${BMAKE.version}.orig.tar.gz`;
  await copyFile(options.bmake, join(folder, archive));
  await copyFile(join(import.meta.dirname, 'bmake', BOOTSTRAP), join(folder, BOOTSTRAP));
  await packAgent(folder);
  await writeFile(
    join(folder, TOOLCHAIN_JSON),
    formatToolchainJson({
      bootstrap: {
        command: ['sh', `{files}/${BOOTSTRAP}`, '{files}', '{prefix}'],
        timeLimitSeconds: 900,
        leaves: ['bin/bmake'],
        environment: {},
      },
      agent: AGENT_PACKAGE,
      machine: { environment: { MAKE: '{prefix}/bin/bmake' } },
    }),
  );
  const names = [TOOLCHAIN_JSON, BOOTSTRAP, archive, AGENT_PACKAGE];
  const files = await Promise.all(names.map(async (path) => ({ path, sha256: await sha256Of(join(folder, path)) })));
  const list = formatToolchainList({ version: `bmake-${BMAKE.version}`, disabled: false, files });
  await writeFile(join(folder, `${TOOLCHAIN_LIST}.part`), list);
  await rename(join(folder, `${TOOLCHAIN_LIST}.part`), join(folder, TOOLCHAIN_LIST));
  return [...names, TOOLCHAIN_LIST];
}

/** Bundles agent and worker and packs them as {@link AGENT_PACKAGE}; the archive depends on their content only. */
export async function packAgent(folder: string): Promise<void> {
  const scratch = join(folder, '.agent');
  await rm(scratch, { recursive: true, force: true });
  try {
    for (const [name, entry] of Object.entries(PROGRAMS)) await bundle({ entry, outfile: join(scratch, name) });
    await create(
      { cwd: scratch, file: join(folder, AGENT_PACKAGE), portable: true, mtime: new Date(0), noDirRecurse: true },
      Object.keys(PROGRAMS),
    );
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

const sha256Of = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
