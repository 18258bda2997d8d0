/**
 * One try of one toolchain: list → files → bootstrap → toolchain.tar → agent package. Every part is looked at before
 * it is done, so a try after a crash, or a second one, does only what is missing or wrong.
 *
 * A toolchain that is complete stays as it is until the host reboots, whatever its list says now: an agent and its
 * machines use it. A monitor that starts again finds it by its record, and a newer list is then a change like any other.
 */
import { mkdir, readFile, readlink, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createHash } from 'node:crypto';
import * as z from 'zod';
import type { Connection } from '../connections/connection.ts';
import { callHelper } from '../helper/client.ts';
import type { BootstrapState, ReplyTo, Verb } from '../helper/verb.ts';
import { type ToolchainList, parseToolchainList } from '../manifests/toolchain-list.ts';
import { fillIn, parseToolchainJson } from '../manifests/toolchain.ts';
import { installAgentPackage } from './agent-package.ts';
import { writeAtomically } from './atomic-file.ts';
import { type FetchLimits, fetchText } from './fetch.ts';
import type { Log } from './log.ts';
import type { Paths } from './paths.ts';
import type { Event } from './event.ts';
import { checkSigned } from './signed.ts';
import type { Trouble } from './state.ts';
import { fetchToolchainFiles, isThere, sha256Of } from './toolchain-files.ts';
import {
  MAX_FILES,
  type Recipe,
  type ToolchainRecord,
  build2Recipe,
  findToolchainJson,
  planBootstrap,
} from './toolchain-plan.ts';

/** What a try works with. */
export interface ToolchainTry {
  readonly name: string;
  /** of the list; undefined when none is configured */
  readonly url: string | undefined;
  /** the key that has to have signed the list; undefined when none is configured */
  readonly trust: string | undefined;
  readonly paths: Paths;
  /** for tar */
  readonly local: Connection;
  readonly textLimits: FetchLimits;
  readonly fileLimits: FetchLimits;
  /** between two looks at a running bootstrap, once it has run for a while */
  readonly pollMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
  /** tells how far it is */
  readonly tell: (event: Event) => void;
}

/** The toolchain is not one that can be used; `hint` says what to look at. */
export class ToolchainError extends Error {
  override readonly name = 'ToolchainError';
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

/** systemd's limit is the one that counts; ours is for a unit that does not end even so. */
const BOOTSTRAP_GRACE_MS = 60_000;
/** A bootstrap that has little to do is not waited for longer than it takes. */
const FIRST_POLL_MS = 50;
const PACK_TIMEOUT_MS = 600_000;

/** The toolchain's id is the digest of its list's text, also of a text that is not a list. */
export function listIdOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Tries a toolchain. Never throws: a failure is an event as well. */
export async function tryToolchain(work: ToolchainTry): Promise<Event> {
  const { name } = work;
  try {
    return await tryOnce(work);
  } catch (error) {
    return { kind: 'toolchain-failed', toolchain: name, trouble: troubleOf(error) };
  }
}

/** An error as it is shown. */
export function troubleOf(error: unknown): Trouble {
  if (!(error instanceof Error)) return { error: String(error) };
  const hint = 'hint' in error && typeof error.hint === 'string' ? { hint: error.hint } : {};
  return { error: error.message, ...hint };
}

async function tryOnce(work: ToolchainTry): Promise<Event> {
  const { name, url, trust, paths, signal, log } = work;
  if (url === undefined) {
    throw new ToolchainError(
      `Toolchain ${name} has no list`,
      `set buildos.toolchain_url${name === 'default' ? '' : `.${name}`} on the kernel command line`,
    );
  }
  work.tell({ kind: 'toolchain-stage', toolchain: name, stage: 'fetching' });
  const record = await readRecord(recordFileOf(work));
  if (record !== undefined && (await isInUse(work, record))) {
    log('info', `toolchain ${name}: ${record.version} is complete since an earlier monitor`);
    work.tell({ kind: 'toolchain-list', toolchain: name, id: record.id, version: record.version });
    return { kind: 'toolchain-ready', toolchain: name, hasAgent: record.agent !== '' };
  }
  const text = await fetchText(url, work.textLimits, signal);
  work.tell({ kind: 'toolchain-list', toolchain: name, id: listIdOf(text) });
  await checkSigned(text, { url, trust }, work.textLimits, signal);
  if (trust !== undefined) log('info', `toolchain ${name}: its list is signed by the key that is trusted`);
  const list = parseToolchainList(text, { name: url });
  work.tell({ kind: 'toolchain-list', toolchain: name, id: list.id, version: list.version });
  if (list.disabled) return { kind: 'toolchain-disabled', toolchain: name };
  if (list.files.length > MAX_FILES) {
    throw new ToolchainError(`Cannot take the list ${url}: ${list.files.length} files, more than ${MAX_FILES}`);
  }

  const folder = join(paths.tftpToolchains, name);
  const done = await fetchToolchainFiles(list, url, folder, work.fileLimits, signal);
  log(
    'info',
    `toolchain ${name}: ${done.fetch.length} of ${list.files.length} files fetched, ${done.remove.length} removed`,
  );
  const recipe = await readRecipe(list, folder);
  const bootstrapped = await bootstrap(work, list, recipe);
  if (recipe.agent === undefined) {
    await saveRecord(work, { ...bootstrapped, agent: '' });
    return { kind: 'toolchain-ready', toolchain: name, hasAgent: false };
  }
  if (!list.files.some((file) => file.path === recipe.agent)) {
    throw new ToolchainError(`Toolchain ${name}: its agent package ${recipe.agent} is not in its list`);
  }
  const agent = await installAgentPackage(name, join(folder, recipe.agent), paths.agents, signal);
  log('info', `toolchain ${name}: agent package ${recipe.agent} is installed as ${agent}`);
  await saveRecord(work, { ...bootstrapped, agent });
  return { kind: 'toolchain-ready', toolchain: name, hasAgent: true };
}

async function readRecipe(list: ToolchainList, folder: string): Promise<Recipe> {
  const path = findToolchainJson(list);
  const recipe =
    path === undefined
      ? build2Recipe(list)
      : parseToolchainJson(await readFile(join(folder, path), 'utf8'), { name: path });
  if (recipe === undefined) {
    throw new ToolchainError(
      'Cannot bootstrap the toolchain: no toolchain.json among its files',
      'add a toolchain.json with the command to the list; only a list of build2 goes without',
    );
  }
  return recipe;
}

/** Bootstraps and packs, or finds that this was done; gives the record of it. */
async function bootstrap(work: ToolchainTry, list: ToolchainList, recipe: Recipe): Promise<ToolchainRecord> {
  const { name, paths, signal, log } = work;
  const folder = join(paths.tftpToolchains, name);
  const prefix = join(paths.toolchains, name);
  const archive = join(folder, 'toolchain.tar');
  const { leaves } = recipe.bootstrap;
  const about = { id: list.id, version: list.version, leaves };
  const record = await readRecord(recordFileOf(work));
  const unit = record?.id === list.id ? await call(work, { verb: 'bootstrap.state', toolchain: name }) : undefined;
  const isWhole =
    (await findMissing(leaves, prefix)).length === 0 && (await isDigest(archive, record?.tarSha256, signal));
  const decision = planBootstrap(list.id, record, unit?.state ?? 'absent', isWhole);
  if (decision === 'done' && record !== undefined) {
    log('info', `toolchain ${name}: it is bootstrapped already`);
    return record;
  }

  work.tell({ kind: 'toolchain-stage', toolchain: name, stage: 'bootstrapping' });
  const startedMs = performance.now();
  if (decision === 'start') {
    // The record is written before the start: without one, none was started since the host's boot.
    if (await isThere(recordFileOf(work))) await call(work, { verb: 'bootstrap.stop', toolchain: name });
    await Promise.all([rm(archive, { force: true }), rm(prefix, { recursive: true, force: true })]);
    await mkdir(prefix, { recursive: true });
    await saveRecord(work, { ...about, bootstrap: 'started' });
    const fill = (value: string): string => fillIn(value, { files: folder, prefix });
    await call(work, {
      verb: 'bootstrap.start',
      toolchain: name,
      command: recipe.bootstrap.command.map(fill),
      environment: Object.fromEntries(
        Object.entries(recipe.bootstrap.environment).map(([variable, value]) => [variable, fill(value)]),
      ),
      timeLimitSeconds: recipe.bootstrap.timeLimitSeconds,
    });
  }
  log('info', `toolchain ${name}: bootstrap ${decision === 'start' ? 'started' : 'is under way, following it'}`);
  await waitForBootstrap(work, recipe.bootstrap.timeLimitSeconds);
  const left = await findMissing(leaves, prefix);
  if (left.length > 0) {
    throw new ToolchainError(
      `The bootstrap of toolchain ${name} succeeded but did not leave ${left.join(', ')} in ${prefix}`,
      logHint(name),
    );
  }
  await pack(work, prefix, archive);
  const done: ToolchainRecord = { ...about, bootstrap: 'done', tarSha256: await sha256Of(archive, signal) };
  await saveRecord(work, done);
  log('info', `toolchain ${name}: bootstrapped in ${Math.round((performance.now() - startedMs) / 1000)} s`);
  return done;
}

async function waitForBootstrap(work: ToolchainTry, timeLimitSeconds: number): Promise<void> {
  const { name, signal } = work;
  const deadlineMs = performance.now() + timeLimitSeconds * 1000 + BOOTSTRAP_GRACE_MS;
  for (let pauseMs = FIRST_POLL_MS; ; pauseMs = Math.min(2 * pauseMs, work.pollMs)) {
    const { state, detail } = await call(work, { verb: 'bootstrap.state', toolchain: name });
    if (state === 'success') return;
    if (state !== 'running') throw bootstrapError(name, state, detail, timeLimitSeconds);
    if (performance.now() > deadlineMs) {
      await call(work, { verb: 'bootstrap.stop', toolchain: name });
      throw bootstrapError(name, 'timeout', detail, timeLimitSeconds);
    }
    await sleep(Math.min(pauseMs, work.pollMs), undefined, { signal });
  }
}

function bootstrapError(
  name: string,
  state: Exclude<BootstrapState['state'], 'success' | 'running'>,
  detail: string,
  timeLimitSeconds: number,
): ToolchainError {
  const more = detail === '' ? '' : `: ${detail}`;
  switch (state) {
    case 'timeout':
      return new ToolchainError(
        `The bootstrap of toolchain ${name} did not end within ${timeLimitSeconds} s and was stopped${more}`,
        `${logHint(name)}; timeLimitSeconds is in toolchain.json`,
      );
    case 'failed':
      return new ToolchainError(`The bootstrap of toolchain ${name} failed${more}`, logHint(name));
    case 'absent':
      return new ToolchainError(`The bootstrap of toolchain ${name} is gone: somebody has stopped it`, logHint(name));
    default:
      return state satisfies never;
  }
}

function logHint(name: string): string {
  return `its output is in toolchains/${name}/bootstrap.log, to be read over TFTP`;
}

/**
 * Packs the prefix. GNU tar and not a library: it ends with a status other than 0 when something could not be read or
 * has changed under it. Sorted and without owners, so that the same tree gives the same archive.
 */
async function pack(work: ToolchainTry, prefix: string, archive: string): Promise<void> {
  const temporary = `${archive}.new`;
  try {
    await work.local.run(
      [
        'tar',
        '--create',
        '--format=gnu',
        '--sort=name',
        '--owner=0',
        '--group=0',
        '--numeric-owner',
        `--file=${temporary}`,
        `--directory=${prefix}`,
        '.',
      ],
      { timeoutMs: PACK_TIMEOUT_MS, signal: work.signal },
    );
    await rename(temporary, archive);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Whether an earlier monitor has completed the toolchain, down to its agent, and it is still whole. */
async function isInUse(work: ToolchainTry, record: ToolchainRecord): Promise<boolean> {
  const { name, paths, signal } = work;
  if (record.bootstrap !== 'done' || record.agent === undefined) return false;
  if ((await findMissing(record.leaves, join(paths.toolchains, name))).length > 0) return false;
  const installed = await readlink(join(paths.agents, name)).catch(() => '');
  if (record.agent !== '' && (installed !== record.agent || !(await isThere(join(paths.agents, installed)))))
    return false;
  return isDigest(join(paths.tftpToolchains, name, 'toolchain.tar'), record.tarSha256, signal);
}

/** What of `leaves` the bootstrap has not left in the prefix. */
async function findMissing(leaves: readonly string[], prefix: string): Promise<readonly string[]> {
  if (!(await isThere(prefix))) return ['anything'];
  const missing: string[] = [];
  for (const path of leaves) {
    if ((await stat(join(prefix, path)).catch(() => undefined)) === undefined) missing.push(path);
  }
  return missing;
}

async function isDigest(file: string, sha256: string | undefined, signal: AbortSignal): Promise<boolean> {
  if (sha256 === undefined || !(await isThere(file))) return false;
  return (await sha256Of(file, signal)) === sha256;
}

const RECORD: z.ZodType<ToolchainRecord> = z.object({
  id: z.string(),
  version: z.string(),
  bootstrap: z.enum(['started', 'done']),
  leaves: z.array(z.string()),
  tarSha256: z.exactOptional(z.string()),
  agent: z.exactOptional(z.string()),
});

/** A record that cannot be read is none: the bootstrap is then done again. */
async function readRecord(file: string): Promise<ToolchainRecord | undefined> {
  try {
    const result = RECORD.safeParse(JSON.parse(await readFile(file, 'utf8')));
    return result.success ? result.data : undefined;
  } catch {
    return undefined;
  }
}

function saveRecord(work: ToolchainTry, record: ToolchainRecord): Promise<void> {
  return writeAtomically(recordFileOf(work), `${JSON.stringify(record)}\n`, { isDurable: false });
}

function recordFileOf(work: ToolchainTry): string {
  return join(work.paths.records, `${work.name}.json`);
}

function call<V extends Verb>(work: ToolchainTry, verb: V): Promise<ReplyTo<V>> {
  return callHelper(verb, { socket: work.paths.helperSocket, signal: work.signal });
}
