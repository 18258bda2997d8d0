/**
 * Installs a toolchain's agent package: unpacked into a new directory, synced, and switched to by one link.
 *
 *     /build/agents/
 *       default -> .versions/default-2f1c0a9b7d3e
 *       .versions/default-2f1c0a9b7d3e/agent.mjs, worker.mjs, …
 *
 * The directory's name has the package's digest, so installing what is installed changes nothing. An agent or a
 * machine that still has the old directory open or bound keeps it.
 */
import { mkdir, open, readdir, readlink, rename, rm, stat, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type ReadEntry, extract } from 'tar';
import { syncFolder } from './atomic-file.ts';
import { sha256Of } from './toolchain-files.ts';

/** What a package must bring. */
const NEEDED = ['agent.mjs', 'worker.mjs'] as const;
const MAX_PACKAGE_BYTES = 64 * 1024 * 1024;
const MAX_FILES = 1000;

/** The package is not one. */
export class AgentPackageError extends Error {
  override readonly name = 'AgentPackageError';
  readonly hint = 'an agent package is a tar that holds agent.mjs and worker.mjs, and files and folders only';
}

/**
 * Installs a package.
 *
 * @param archive - absolute path of the tar
 * @param agents - the folder of agents, {@link Paths.agents}
 * @returns what the link `<agents>/<toolchain>` leads to
 * @throws {AgentPackageError}
 */
export async function installAgentPackage(
  toolchain: string,
  archive: string,
  agents: string,
  signal: AbortSignal,
): Promise<string> {
  const version = `${toolchain}-${(await sha256Of(archive, signal)).slice(0, 12)}`;
  const versions = join(agents, '.versions');
  const target = join(versions, version);
  const link = join(agents, toolchain);
  const linkText = join('.versions', version);
  if ((await readlink(link).catch(() => undefined)) === linkText && (await isComplete(target))) return linkText;

  await mkdir(versions, { recursive: true });
  const fresh = join(versions, `.${version}.new`);
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { mode: 0o755 });
  try {
    await unpack(archive, fresh);
    if (!(await isComplete(fresh))) {
      throw new AgentPackageError(`Cannot install the agent package ${archive}: it lacks ${NEEDED.join(' or ')}`);
    }
    await syncTree(fresh);
    await rm(target, { recursive: true, force: true });
    await rename(fresh, target);
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
  const freshLink = join(versions, `.${toolchain}.link`);
  await rm(freshLink, { force: true });
  await symlink(linkText, freshLink);
  // A folder in the link's place would not be replaced; nobody but an earlier layout can have put one there.
  if ((await readlink(link).catch(() => undefined)) === undefined) await rm(link, { recursive: true, force: true });
  await rename(freshLink, link);
  await syncFolder(agents);
  await removeOthers(versions, toolchain, version);
  return linkText;
}

async function unpack(archive: string, folder: string): Promise<void> {
  const { size } = await stat(archive);
  if (size > MAX_PACKAGE_BYTES) {
    throw new AgentPackageError(`Cannot install the agent package ${archive}: larger than ${MAX_PACKAGE_BYTES} bytes`);
  }
  let files = 0;
  let odd: string | undefined;
  await extract({
    file: archive,
    cwd: folder,
    strict: true,
    preserveOwner: false,
    noMtime: true,
    filter: (path, entry) => {
      files += 1;
      const type = isEntry(entry) ? entry.type : '';
      const isPlain = type === 'File' || type === 'OldFile' || type === 'ContiguousFile' || type === 'Directory';
      if (!isPlain || files > MAX_FILES || path.split('/').includes('..') || path.startsWith('/')) odd ??= path;
      return odd === undefined;
    },
  }).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new AgentPackageError(`Cannot install the agent package ${archive}: ${reason}`, { cause });
  });
  if (odd !== undefined) {
    throw new AgentPackageError(`Cannot install the agent package ${archive}: it must not hold ${JSON.stringify(odd)}`);
  }
}

function isEntry(entry: object): entry is ReadEntry {
  return 'type' in entry;
}

async function isComplete(folder: string): Promise<boolean> {
  const found = await Promise.all(NEEDED.map((name) => stat(join(folder, name)).catch(() => undefined)));
  return found.every((one) => one?.isFile() === true && one.size > 0);
}

async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    await using handle = await open(join(entry.parentPath, entry.name), 'r');
    await handle.sync();
  }
  await syncFolder(folder);
}

/** Removes this toolchain's other versions; one that is in use stays readable to who has it. */
async function removeOthers(versions: string, toolchain: string, version: string): Promise<void> {
  const pattern = new RegExp(`^\\.?${RegExp.escape(toolchain)}-[0-9a-f]{12}(?:\\.new)?$`);
  for (const name of await readdir(versions)) {
    if (basename(name) !== version && pattern.test(name)) {
      await rm(join(versions, name), { recursive: true, force: true });
    }
  }
}
