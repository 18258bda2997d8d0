/**
 * Publishing a toolchain: what hosts bootstrap, and the agent made from this checkout with it.
 *
 *     <folder>/toolchain.sha256    list: version, and a digest for each file below; .minisig: its signature, if asked for
 *              toolchain.json      how to bootstrap, what is the agent
 *              …                   what the bootstrap takes, of whoever publishes
 *              buildos-agent.tar   agent.mjs, worker.mjs
 *
 * The same sources give the same list, and so the same toolchain id.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { create } from 'tar';
import { bundle } from '../image/bundle.ts';
import { replaceFile, sha256Of } from '../image/files.ts';
import { formatToolchainList } from '../manifests/toolchain-list.ts';
import { type MinisignSecretKey, signMinisign } from '../manifests/minisign.ts';
import { formatToolchainJson, TOOLCHAIN_JSON, type ToolchainJson } from '../manifests/toolchain.ts';

/** The list, published last: what `buildos.toolchain_url` points to. */
export const TOOLCHAIN_LIST = 'toolchain.sha256';

/** Beside the list. */
const TOOLCHAIN_SIGNATURE = `${TOOLCHAIN_LIST}.minisig`;

/** The agent in a toolchain's files. */
const AGENT_PACKAGE = 'buildos-agent.tar';

/** The programs of the agent package, from the top of the checkout. */
const PROGRAMS = { 'agent.mjs': 'agent/main.ts', 'worker.mjs': 'agent/worker/main.ts' } as const;

/** A toolchain without what every one has. */
export interface ToolchainToPublish extends Omit<ToolchainJson, 'agent'> {
  readonly version: string;
  /** Names of what is in the folder already. */
  readonly files: readonly string[];
}

/**
 * Publishes a toolchain whose own files are in the folder. The list comes last, in one step. Its signature comes just
 * before: a host that asks for both in between finds that they do not fit, stays as it is, and looks again.
 *
 * @param signWith - without it a list that has changed has no signature
 * @returns the files' names
 */
export async function publishToolchain(
  folder: string,
  toolchain: ToolchainToPublish,
  signWith?: MinisignSecretKey,
): Promise<readonly string[]> {
  const { bootstrap, machine, version } = toolchain;
  await packAgent(folder);
  await writeFile(join(folder, TOOLCHAIN_JSON), formatToolchainJson({ bootstrap, agent: AGENT_PACKAGE, machine }));
  const names = [TOOLCHAIN_JSON, ...toolchain.files, AGENT_PACKAGE];
  const files = await Promise.all(names.map(async (path) => ({ path, sha256: await sha256Of(join(folder, path)) })));
  const list = formatToolchainList({ version, disabled: false, files });
  if (signWith !== undefined) {
    const signature = signMinisign(new TextEncoder().encode(list), signWith, `Build OS toolchain ${version}`);
    await replaceFile(join(folder, TOOLCHAIN_SIGNATURE), signature);
  } else if ((await readFile(join(folder, TOOLCHAIN_LIST), 'utf8').catch(() => undefined)) !== list) {
    await rm(join(folder, TOOLCHAIN_SIGNATURE), { force: true });
  }
  await replaceFile(join(folder, TOOLCHAIN_LIST), list);
  return [...names, ...(signWith === undefined ? [] : [TOOLCHAIN_SIGNATURE]), TOOLCHAIN_LIST];
}

/** Bundles agent and worker; the archive depends on their content only. */
async function packAgent(folder: string): Promise<void> {
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
