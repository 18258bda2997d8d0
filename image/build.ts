/**
 * Building an image: from a host definition to kernel, initrd and manifest.
 *
 * ```
 *   definition ──► lock ──► packages ──► root ──┬─► layer of packages ─────┐
 *   (TypeScript)  (or the   (by digest)  (dpkg) └─► layer of properties ───┼─► kernel, initrd, manifest
 *   programs      archives)                          └► layer of programs ─┘
 *   (esbuild)
 * ```
 *
 * Every box is kept by the digest of what it is made from, our code included, and made again only when that changes;
 * so a build takes as long as what is different, and the result is that of a build from nothing. The build id is the
 * digest of all inputs: the same input has the same id on any machine, and another id means another image.
 */
import { join, resolve } from 'node:path';
import type { Connection } from '../connections/connection.ts';
import { openChain } from '../connections/open.ts';
import type { PackageLock } from '../manifests/package-lock.ts';
import type { DataSource } from '../properties/data.ts';
import type { HostAttrs } from '../properties/host-attrs.ts';
import { hostAttrs, type HostDefinition } from '../properties/host-definition.ts';
import type { Wire } from '../properties/image.ts';
import type { PropertyOutcome } from './apply-properties.ts';
import { buildIdOf, bundlePrograms, codeOf, type ImageDefinition, type Inputs, rootCode } from './build-inputs.ts';
import type { BuildContext } from './build-context.ts';
import { findOrMakeLayers } from './build-layers.ts';
import { findResult, writeImage } from './build-result.ts';
import type { BuiltImage } from './built-image.ts';
import { DiskFullError, isDiskFull, nameFullDisk, RamFullError } from './disk-full.ts';
import { chooseEncoding, describeEncoding } from './encoding.ts';
import { readImageData } from './image-data.ts';
import { announceBuild } from './in-use.ts';
import { type Archives, checkLock, chooseFromArchives, debianArchives } from './lock.ts';
import { findOrPackNode, findOrStripNode } from './node-runtime.ts';
import type { Hardware } from './module-classes.ts';
import { once } from './once.ts';
import { PackagesRoot } from './packages-root.ts';
import { DamagedEntryError, type Entry, Store } from './store.ts';
import { type Timing, Timings } from './timings.ts';
import { findTools } from './tools.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

/** How to build. */
export interface BuildOptions {
  readonly definition: ImageDefinition;
  /** Folder for caches and results; made when absent. */
  readonly work: string;
  /** The packages to use; without it those that the archives offer today. */
  readonly lock?: { readonly content: PackageLock; readonly file: string };
  /** Debian mirror; default deb.debian.org. */
  readonly mirror?: string;
  /** Asked for versions that the mirror has no more; `undefined`: nobody. Default snapshot.debian.org. */
  readonly snapshot?: string | undefined;
  /** Whether archives are to be asked, for a choice of packages and for the packages; default `ask`. */
  readonly archives?: Archives;
  /** Which kernel modules go in; default `server`. */
  readonly hardware?: Hardware;
  /** The wire that hosts boot over; `any`: whatever it is, pack at once. Default: what the definition says. */
  readonly wire?: Wire | 'any';
  /** Where public data comes from that properties ask for; default nowhere. */
  readonly data?: readonly DataSource[];
  readonly note?: string;
  /** Whether to work in RAM; default: when there is enough. */
  readonly ram?: boolean;
  /** How much of it may be used, in MiB; default: most of what is free. */
  readonly ramMiB?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
  /** Told when a step begins that is not in the cache. */
  readonly onStep?: (step: string) => void;
}

/** What came of it. */
export interface BuildResult {
  readonly image: BuiltImage;
  /** Whether nothing had changed, and the image was there. */
  readonly cached: boolean;
  /** What the properties did when they were applied last. */
  readonly properties: readonly PropertyOutcome[];
  /** How long each step took, and whether its result was in the cache. */
  readonly timings: readonly Timing[];
}

/**
 * Builds an image. The result is in `<work>/images/<build id>/`, complete or not there.
 *
 * @throws {DeployError} when properties fail, naming them
 * @throws {LockMismatchError} when the lock is for other packages
 * @throws {ArchiveError | ResolveError | FetchError} when packages cannot be had
 * @throws {BootstrapError} when they cannot be installed
 * @throws {DiskFullError} when there is no room left; what was made before stays in the cache
 * @throws {CommandError} when a tool fails
 */
export async function buildImage(options: BuildOptions): Promise<BuildResult> {
  // Files of an image have the mode that is asked for. For good: builds at the same time would take it from each other.
  process.umask(0o022);
  try {
    return await new Build(options).run();
  } catch (error) {
    if (error instanceof RamFullError && options.ram === undefined) {
      options.onProgress?.(`${error.message}: once more, on the disk`);
      return await buildImage({ ...options, ram: false });
    }
    if (isDiskFull(error) && !(error instanceof RamFullError)) throw new DiskFullError(resolve(options.work), error);
    // The entry is removed: what was made of it is made again.
    if (!(error instanceof DamagedEntryError)) throw error;
    options.onProgress?.(`${error.message}; it is made again`);
    return await new Build(options).run();
  }
}

/** The steps of one build. */
class Build {
  readonly #options: BuildOptions;
  readonly #work: string;
  readonly #store: Store;
  readonly #timings = new Timings();
  readonly #signal: { readonly signal?: AbortSignal };
  #saidLock = false;

  constructor(options: BuildOptions) {
    this.#options = options;
    this.#work = resolve(options.work);
    this.#store = new Store(join(this.#work, 'cache'));
    this.#signal = options.signal ? { signal: options.signal } : {};
  }

  async run(): Promise<BuildResult> {
    await using stack = new AsyncDisposableStack();
    stack.use(await announceBuild(this.#work));
    const local = stack.use(await openChain([['local']]));
    const context = this.#context(stack);
    const { lock: given } = this.#options;
    if (given === undefined) return await this.#build(local, context);
    // It takes longest, and a lock says all about it.
    const code = await rootCode(this.#store.folder);
    const root = new PackagesRoot(context, { lock: given.content, code, from: this.#options });
    try {
      if (await root.begin()) this.#sayLock(context, given.content);
      return await this.#build(local, context, root);
    } catch (error) {
      await root.abandon();
      throw error;
    }
  }

  #context(stack: AsyncDisposableStack): BuildContext {
    const { ram, ramMiB } = this.#options;
    let opened: Workshop | undefined;
    return {
      store: this.#store,
      signal: this.#signal,
      workshop: once(async () => {
        const use = { ...(ram !== undefined && { ram }), ...(ramMiB && { ramMiB }) };
        opened = stack.use(await openWorkshop(join(this.#work, 'tmp'), use));
        return opened;
      }),
      openedWorkshop: () => opened,
      say: (line) => this.#options.onProgress?.(line),
      step: (name) => this.#options.onStep?.(name),
      timed: (name, act) => this.#timings.measure(name, act, ({ cached }) => cached),
    };
  }

  /** @param begun - the root of packages, where it is made already */
  async #build(local: Connection, context: BuildContext, begun?: PackagesRoot): Promise<BuildResult> {
    const cache = this.#store.folder;
    const [programs, node] = await this.#timed('programs', () =>
      Promise.all([bundlePrograms(this.#store), findOrStripNode(local, { cache })]),
    );
    const definition = this.#options.definition({ programs, note: this.#options.note ?? '' });
    const attrs = hostAttrs(definition);
    // Told now, not after its packages were installed.
    const data = await readImageData(definition, this.#options.data ?? []);
    const [code, tools] = await this.#timed('inputs', () => Promise.all([codeOf(definition, cache), findTools()]));
    const lock = await this.#timed('choose packages', () => this.#findLock(local, definition, attrs));
    const { hardware = 'server', wire: asked = attrs.wires[0] } = this.#options;
    const wire = asked === 'any' ? undefined : asked;
    const encoding = chooseEncoding(wire);
    const inputs: Inputs = { definition, attrs, data, lock, code, tools, node, programs, hardware, encoding };
    const buildId = buildIdOf(inputs);
    const there = await findResult(this.#work, buildId);
    if (there !== undefined) {
      await begun?.abandon();
      return this.#result({ ...there, cached: true });
    }

    this.#sayLock(context, lock);
    for (const line of describeEncoding(wire)) context.say(line);
    const root = begun ?? new PackagesRoot(context, { lock, code: code.root, from: this.#options });
    const both = [
      context.timed('pack Node', () => this.#packNode(local, inputs)),
      findOrMakeLayers(context, inputs, root),
    ] as const;
    // Also when one fails: nothing goes on behind the back of who hears of it.
    await Promise.allSettled(both);
    const [{ entry: nodeSystem }, { layers, properties }] = await Promise.all(both).catch(async (error: unknown) => {
      throw await nameFullDisk(context.openedWorkshop(), error);
    });
    context.say(`Packing ${buildId}`);
    const parts = { buildId, layers, nodeSystem, properties };
    let image: BuiltImage;
    try {
      image = await this.#timed('pack', () => writeImage(inputs, parts, { work: this.#work, store: this.#store }));
    } finally {
      await root.settled();
    }
    return this.#result({ image, cached: false, properties });
  }

  async #findLock(local: Connection, definition: HostDefinition, attrs: HostAttrs): Promise<PackageLock> {
    const { lock: given, mirror, archives = 'ask' } = this.#options;
    const { suite } = definition.base;
    const { packages } = attrs;
    if (given !== undefined) {
      checkLock(given.content, { suite, packages }, given.file);
      return given.content;
    }
    return await chooseFromArchives(local, {
      suite,
      packages,
      sources: debianArchives({ suite, ...(mirror !== undefined && { mirror }) }),
      cache: this.#store.folder,
      archives,
      onWarning: (line) => this.#options.onProgress?.(line),
      ...this.#signal,
    });
  }

  /** Once. */
  #sayLock(context: BuildContext, lock: PackageLock): void {
    if (this.#saidLock) return;
    this.#saidLock = true;
    const { lock: given } = this.#options;
    const pinned = given === undefined ? 'not pinned: "image update" makes a lock' : `pinned by ${given.file}`;
    context.say(`Debian ${lock.suite}: ${lock.packages.length} packages, ${pinned}`);
  }

  /** While packages are unpacked: it takes seconds, once for a Node. */
  async #packNode(on: Connection, { node, encoding, code, tools }: Inputs): Promise<{ entry: Entry; cached: boolean }> {
    return await findOrPackNode(on, {
      store: this.#store,
      node,
      compression: encoding.node,
      packers: [code.node, tools],
      onPack: () => this.#options.onStep?.('pack Node'),
    });
  }

  #result(result: Omit<BuildResult, 'timings'>): BuildResult {
    return { ...result, timings: this.#timings.all };
  }

  async #timed<T>(name: string, act: () => Promise<T>): Promise<T> {
    this.#options.onStep?.(name);
    return await this.#timings.measure(name, act, () => false);
  }
}
