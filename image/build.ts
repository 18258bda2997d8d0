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
import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, open, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import type { Connection } from '../connections/connection.ts';
import { openChain } from '../connections/open.ts';
import type { Compression } from '../host/squashfs.ts';
import { formatImageManifest, type ImageManifest, type ImagePackage } from '../manifests/image-manifest.ts';
import type { PackageLock } from '../manifests/package-lock.ts';
import type { DataSource, DataStore } from '../properties/data.ts';
import { type DeployReport, checkReport, deploy } from '../properties/deploy.ts';
import { type HostAttrs, emptyAttrs, excludedPaths } from '../properties/host-attrs.ts';
import { type HostDefinition, definitionDigest, hostAttrs } from '../properties/host-definition.ts';
import type { Wire } from '../properties/image.ts';
import { type PropertyApplication, readRegistered } from '../properties/property.ts';
import { baseRootKey, findOrMakeBaseRoot, mountBaseRoot } from './base-root.ts';
import { type Bundle, findOrBundle } from './bundle.ts';
import { type BuiltImage, formatBuiltImage, IMAGE_JSON, readImage } from './built-image.ts';
import { DiskFullError, isDiskFull, nameFullDisk, RamFullError } from './disk-full.ts';
import { chooseEncoding, describeEncoding, type Encoding } from './encoding.ts';
import { atEpoch } from './epoch.ts';
import { type DataOfImage, readImageData } from './image-data.ts';
import { announceBuild } from './in-use.ts';
import { mountOverlay, packChanges, packPackages } from './layers.ts';
import { type Archives, checkLock, chooseFromArchives, debianArchives, withMirror } from './lock.ts';
import { findOrPackNode, findOrStripNode, type NodeBinary } from './node-runtime.ts';
import { classesOf, type Hardware } from './module-classes.ts';
import { FIRST_STEPS, packImage, type Packed, RESCUE } from './pack.ts';
import { digestOf, hashAll, sourceDigest, SOURCES } from './source-digest.ts';
import { DamagedEntryError, type Entry, keyOf, Store } from './store.ts';
import { type Timing, Timings } from './timings.ts';
import { findTools } from './tools.ts';
import { recordPackages } from './trace-packages.ts';
import { PropertyTrace } from './trace-properties.ts';
import { writeContents } from './trace.ts';
import { openWorkshop, removeLeftOver, type Workshop } from './workshop.ts';

/** Our programs in an image, by the name of their file in `/usr/lib/buildos`. */
const PROGRAMS = {
  'init.mjs': 'init/main.ts',
  'monitor.mjs': 'monitor/main.ts',
  'helper.mjs': 'helper/main.ts',
} as const;

/** One of our programs. */
export type ProgramName = keyof typeof PROGRAMS;

/** What a definition may refer to. */
export interface ImageInputs {
  readonly programs: Readonly<Record<ProgramName, Bundle>>;
  /** Text for `/etc/buildos-note`: a word for those who look at a running host. */
  readonly note: string;
}

/** A host definition as a function of what this build made before. */
export type ImageDefinition = (inputs: ImageInputs) => HostDefinition;

/** How to build. */
export interface BuildOptions {
  readonly definition: ImageDefinition;
  /** The module that the definition is from; to be given when it defines properties of its own, or imports some. */
  readonly definitionFile?: string;
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

/** What became of a property. */
export interface PropertyOutcome {
  readonly description: string;
  readonly outcome: string;
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

/** Bundles what definitions may refer to, or finds it in the cache. */
export async function bundlePrograms(store: Store): Promise<ImageInputs['programs']> {
  const one = async (name: ProgramName): Promise<Bundle> => await findOrBundle(store, PROGRAMS[name]);
  const [init, monitor, helper] = await Promise.all([one('init.mjs'), one('monitor.mjs'), one('helper.mjs')]);
  return { 'init.mjs': init, 'monitor.mjs': monitor, 'helper.mjs': helper };
}

/** The steps of one build. */
class Build {
  readonly #options: BuildOptions;
  readonly #work: string;
  readonly #store: Store;
  readonly #timings = new Timings();
  readonly #signal: { readonly signal?: AbortSignal };

  constructor(options: BuildOptions) {
    this.#options = options;
    this.#work = resolve(options.work);
    this.#store = new Store(join(this.#work, 'cache'));
    this.#signal = options.signal ? { signal: options.signal } : {};
  }

  async run(): Promise<BuildResult> {
    const { hardware = 'server', ram, ramMiB } = this.#options;
    await using stack = new AsyncDisposableStack();
    stack.use(await announceBuild(this.#work));
    const local = stack.use(await openChain([['local']]));
    const cache = this.#store.folder;
    const { programs, node } = await this.#timed('programs', async () => ({
      programs: await bundlePrograms(this.#store),
      node: await findOrStripNode(local, { cache }),
    }));
    const definition = this.#options.definition({ programs, note: this.#options.note ?? '' });
    const attrs = hostAttrs(definition);
    // Told now, not after its packages were installed.
    const data = await readImageData(definition, this.#options.data ?? []);
    const [code, tools] = await this.#timed('inputs', async () => [await this.#code(), await findTools()] as const);
    const lock = await this.#timed('choose packages', async () => {
      const { lock: given, mirror, signal } = this.#options;
      const { suite } = definition.base;
      if (given !== undefined) {
        checkLock(given.content, { suite, packages: attrs.packages }, given.file);
        return given.content;
      }
      const sources = debianArchives({ suite, ...(mirror !== undefined && { mirror }) });
      return await chooseFromArchives(local, {
        suite,
        packages: attrs.packages,
        sources,
        cache,
        archives: this.#options.archives ?? 'ask',
        onWarning: (line) => this.#say(line),
        ...(signal && { signal }),
      });
    });
    const { wire: asked = attrs.wires[0] } = this.#options;
    const wire = asked === 'any' ? undefined : asked;
    const encoding = chooseEncoding(wire);
    const inputs: Inputs = { definition, attrs, data, lock, code, tools, node, programs, hardware, encoding };
    const buildId = buildIdOf(inputs);
    const folder = join(this.#work, 'images', buildId);
    const there = await findBuilt(folder);
    if (there !== undefined)
      return this.#result({ image: there, cached: true, properties: await readOutcomes(folder) });

    const pinned =
      this.#options.lock === undefined
        ? 'not pinned: "image update" makes a lock'
        : `pinned by ${this.#options.lock.file}`;
    this.#say(`Debian ${lock.suite}: ${lock.packages.length} packages, ${pinned}`);
    let opened: Workshop | undefined;
    const workshop = once(async () => {
      opened = stack.use(
        await openWorkshop(join(this.#work, 'tmp'), { ...(ram !== undefined && { ram }), ...(ramMiB && { ramMiB }) }),
      );
      return opened;
    });
    for (const line of describeEncoding(wire)) this.#say(line);
    const both = [
      this.#timedEntry('pack Node', () => this.#packNode(local, inputs)),
      this.#layers(inputs, workshop),
    ] as const;
    // Also when one fails: nothing goes on behind the back of who hears of it.
    await Promise.allSettled(both);
    const [{ entry: nodeSystem }, { layers, properties }] = await Promise.all(both).catch(async (error: unknown) => {
      throw await nameFullDisk(opened, error);
    });
    this.#say(`Packing ${buildId}`);
    const image = await this.#timed('pack', () => this.#pack(inputs, { buildId, layers, nodeSystem, properties }));
    return this.#result({ image, cached: false, properties });
  }

  /** While packages are unpacked: it takes seconds, once for a Node. */
  async #packNode(on: Connection, { node, encoding }: Inputs): Promise<{ entry: Entry; cached: boolean }> {
    return await findOrPackNode(on, {
      store: this.#store,
      node,
      compression: encoding.node,
      onPack: () => this.#options.onStep?.('pack Node'),
    });
  }

  /** Digests of the code of each step: what it does to its inputs. */
  async #code(): Promise<Code> {
    const of = async (...names: readonly string[]): Promise<string> =>
      await sourceDigest(names, { cache: this.#store.folder });
    const source = (name: string): string => join(SOURCES, name);
    const hosts = this.#options.definitionFile ?? source('image/hosts/build-host.ts');
    const [root, layers, properties, pack] = await Promise.all([
      of(source('image/base-root.ts')),
      of(source('image/layers.ts'), source('image/trace-packages.ts'), source('image/trace-properties.ts')),
      of(source('properties/deploy.ts'), source('connections/open.ts'), hosts),
      of(source('image/pack.ts')),
    ]);
    const scripts = digestOf(await hashAll([FIRST_STEPS, RESCUE]));
    return { root, layers, properties, pack: `${pack} ${scripts}` };
  }

  async #layers(
    inputs: Inputs,
    workshop: () => Promise<Workshop>,
  ): Promise<{ readonly layers: readonly Entry[]; readonly properties: readonly PropertyOutcome[] }> {
    const { definition, attrs, data, lock, code, tools, hardware, encoding } = inputs;
    const compression = encoding.root;
    const excludes = excludedPaths(attrs);
    const rootKey = baseRootKey(lock, code.root);
    const [base, upper] = splitDefinition(definition);
    // A root that was made here is used at once, while it is put into the cache.
    const early = Promise.withResolvers<string>();
    const kept = once(() =>
      this.#timedEntry('root of packages', () =>
        findOrMakeBaseRoot({
          store: this.#store,
          lock: withMirror(lock, this.#options.mirror),
          code: code.root,
          workshop,
          ...('snapshot' in this.#options && { snapshot: this.#options.snapshot }),
          offline: this.#options.archives === 'offline',
          ...this.#signal,
          onProgress: (line) => this.#say(line),
          onStep: (step) => this.#options.onStep?.(step),
          onRoot: early.resolve,
        }),
      ),
    );
    let isRootUsed = false;
    const root = once(async () => {
      isRootUsed = true;
      const found = async (): Promise<string> => {
        const { entry, cached } = await kept();
        return cached ? await mountBaseRoot(await workshop(), entry) : await early.promise;
      };
      return await Promise.race([early.promise, found()]);
    });

    const modules = { classes: classesOf(hardware, attrs.kernelClasses), wanted: attrs.kernelModules };
    const packagesKey = keyOf({
      kind: 'packages 2',
      rootKey,
      code: code.layers,
      tools,
      excludes,
      modules,
      compression,
    });
    const packages = async (): Promise<Entry> =>
      await this.#layer('layer of packages', packagesKey, async (out) => {
        const lowest = await root();
        this.#options.onStep?.('pack packages');
        const options = { root: lowest, out, excludes, modules, compression, ...this.#signal };
        await recordPackages((await workshop()).seen(options.root), out);
        return { ...(await packPackages(await workshop(), options)) };
      });

    // What is applied below a layer of properties is in its key; so is the whole definition in that of the last.
    const { digests } = data;
    const common = { rootKey, layers: code.layers, properties: code.properties, tools, excludes, compression, digests };
    const baseKey = keyOf({ kind: 'properties 1', ...common, definition: definitionDigest(base) });
    const baseUpper = once(async () => {
      const { entry } = await this.#timedEntry('apply properties', () =>
        this.#store.findOrMake('properties', baseKey, async (out) => {
          const [at, lowest] = [await workshop(), await root()];
          this.#options.onStep?.('apply properties');
          this.#say(`Applying ${base.properties.length} properties`);
          return await this.#apply(at, {
            definition: base,
            data: data.store,
            root: lowest,
            below: [],
            out,
            excludes,
            compression,
            above: 'layers',
          });
        }),
      );
      return entry;
    });
    const above = async (): Promise<readonly Entry[]> => {
      const first = await baseUpper();
      if (upper === undefined) return [first];
      const key = keyOf({ kind: 'programs 1', ...common, baseKey, definition: definitionDigest(upper) });
      const { entry } = await this.#timedEntry('apply programs', () =>
        this.#store.findOrMake('properties', key, async (out) => {
          const [at, lowest] = [await workshop(), await root()];
          this.#options.onStep?.('apply programs');
          return await this.#apply(at, {
            definition: upper,
            data: data.store,
            root: lowest,
            below: [first],
            out,
            excludes,
            compression,
            above: 'nothing',
          });
        }),
      );
      return [first, entry];
    };
    const both = [packages(), above()] as const;
    // Also when one fails: nothing goes on behind the back of who hears of it.
    await Promise.allSettled(both);
    if (isRootUsed) await kept();
    const [lowest, others] = await Promise.all(both);
    const properties = [...outcomesOf(others[0]), ...outcomesOf(others[1]).slice(base.properties.length)];
    return { layers: [lowest, ...others], properties };
  }

  /** Applies properties to a root below which nothing changes; what changes becomes a layer. */
  async #apply(
    workshop: Workshop,
    options: {
      readonly definition: HostDefinition;
      readonly data: DataStore;
      readonly root: string;
      readonly below: readonly Entry[];
      readonly out: string;
      readonly excludes: readonly string[];
      readonly compression: Compression;
      readonly above: 'layers' | 'nothing';
    },
  ): Promise<Readonly<Record<string, string>>> {
    const { definition, data, root, out, excludes, compression, above } = options;
    const { upper, merged } = await mountOverlay(workshop, root, options.below);
    await using chain = await openChain([...workshop.chain, ['chroot', { into: merged }]]);
    const trace = new PropertyTrace(workshop.seen(upper));
    const report = await deploy(definition, atEpoch(chain), { data, ...this.#signal, onProgress: trace.note });
    checkReport(report);
    await trace.record(out);
    await workshop.on.run(['umount', merged]);
    const { rootBytes } = await packChanges(workshop, { upper, out, excludes, compression, above, ...this.#signal });
    return { rootBytes, outcomes: JSON.stringify(outcomesOfReport(report)) };
  }

  async #pack(
    inputs: Inputs,
    made: {
      readonly buildId: string;
      readonly layers: readonly Entry[];
      readonly nodeSystem: Entry;
      readonly properties: readonly PropertyOutcome[];
    },
  ): Promise<BuiltImage> {
    const { buildId, layers, nodeSystem, properties } = made;
    const parent = join(this.#work, 'images');
    const scratch = join(this.#work, 'tmp');
    for (const folder of [parent, scratch]) await mkdir(folder, { recursive: true });
    await removeLeftOver(scratch);
    // Named like a workshop, so that the next build removes it if this one is killed.
    const out = await mkdtemp(join(scratch, `build-${process.pid}-`));
    try {
      const init = inputs.programs['init.mjs'];
      const packed = await packImage({ layers, out, store: this.#store, buildId, node: nodeSystem, init });
      await writeFile(join(out, MANIFEST), formatImageManifest(manifestOf(inputs, buildId, packed)));
      await writeContents(out, layers);
      await writeFile(join(out, OUTCOMES), `${JSON.stringify(properties)}\n`);
      const { kernelOptions } = inputs.attrs;
      await writeFile(
        join(out, IMAGE_JSON),
        formatBuiltImage({ buildId, kernelArgs: kernelOptions, sizes: packed.sizes }),
      );
      await chmod(out, 0o755);
      return await keep(out, join(parent, buildId));
    } finally {
      await rm(out, { recursive: true, force: true });
    }
  }

  #result(result: Omit<BuildResult, 'timings'>): BuildResult {
    return { ...result, timings: this.#timings.all };
  }

  #say(line: string): void {
    this.#options.onProgress?.(line);
  }

  async #layer(
    name: string,
    key: string,
    make: (out: string) => Promise<Readonly<Record<string, string>>>,
  ): Promise<Entry> {
    return (await this.#timedEntry(name, () => this.#store.findOrMake('layers', key, make))).entry;
  }

  async #timed<T>(name: string, act: () => Promise<T>): Promise<T> {
    this.#options.onStep?.(name);
    return await this.#timings.measure(name, act, () => false);
  }

  async #timedEntry<T extends { readonly cached: boolean }>(name: string, act: () => Promise<T>): Promise<T> {
    return await this.#timings.measure(name, act, ({ cached }) => cached);
  }
}

/** All that an image is made from. */
interface Inputs {
  readonly definition: HostDefinition;
  readonly attrs: HostAttrs;
  readonly data: DataOfImage;
  readonly lock: PackageLock;
  readonly code: Code;
  /** Digest of the programs of this machine whose version shows in the result. */
  readonly tools: string;
  readonly node: NodeBinary;
  readonly programs: Readonly<Record<ProgramName, Bundle>>;
  readonly hardware: Hardware;
  readonly encoding: Encoding;
}

interface Code {
  readonly root: string;
  readonly layers: string;
  readonly properties: string;
  readonly pack: string;
}

const MANIFEST = 'buildos-manifest.json';

/** What the properties did, for who builds an image that is there already. */
const OUTCOMES = 'properties.json';

/** The digest of what goes in: 20 hex digits, enough to tell images apart and to be read aloud. */
function buildIdOf(inputs: Inputs): string {
  const { definition, attrs, lock, code, tools, node, programs, hardware, encoding } = inputs;
  const data = {
    format: 2,
    definition: definitionDigest(definition),
    data: inputs.data.digests,
    root: baseRootKey(lock, code.root),
    code: [code.layers, code.properties, code.pack],
    tools,
    node: node.sha256,
    zstd: process.versions.zstd,
    init: programs['init.mjs'].sha256,
    modules: classesOf(hardware, attrs.kernelClasses),
    encoding,
  };
  return createHash('sha256').update(JSON.stringify(data)).digest('hex').slice(0, 20);
}

/**
 * The definition without the programs at its end, which are the properties that copy files of this machine; and, if there
 * are such, the whole.
 */
function splitDefinition(
  definition: HostDefinition,
): readonly [base: HostDefinition, whole: HostDefinition | undefined] {
  const { properties } = definition;
  const last = properties.findLastIndex((application) => !copiesFiles(application));
  if (last === properties.length - 1) return [definition, undefined];
  return [{ ...definition, properties: properties.slice(0, last + 1) }, definition];
}

function copiesFiles(application: PropertyApplication): boolean {
  const { type, definition } = readRegistered(application.p);
  if (type !== 'property') return false;
  return (definition.hostattrs?.(emptyAttrs(''), ...application.a).sources?.length ?? 0) > 0;
}

function outcomesOfReport(report: DeployReport): readonly PropertyOutcome[] {
  return report.results.map(({ description, outcome }) => ({ description, outcome }));
}

const outcomes = z.array(z.object({ description: z.string(), outcome: z.string() }));

function outcomesOf(entry: Entry | undefined): readonly PropertyOutcome[] {
  return entry === undefined ? [] : outcomes.parse(JSON.parse(entry.facts['outcomes'] ?? '[]'));
}

async function readOutcomes(folder: string): Promise<readonly PropertyOutcome[]> {
  return outcomes.parse(JSON.parse(await readFile(join(folder, OUTCOMES), 'utf8')));
}

function manifestOf(inputs: Inputs, buildId: string, packed: Packed): ImageManifest {
  const { definition, lock, node } = inputs;
  const packages: readonly ImagePackage[] = lock.packages.map(({ name, version, architecture, sha256 }) => ({
    name,
    version,
    architecture,
    sha256,
  }));
  return {
    format: 1,
    buildId,
    host: definition.name,
    hostSha256: definitionDigest(definition),
    architecture: lock.architecture,
    base: { name: 'debian', version: debianVersion(packages), suite: definition.base.suite },
    kernelVersion: packed.kernelRelease,
    node: { version: node.version, sha256: node.sha256 },
    packages,
    files: packed.files,
    rootfsBytes: packed.rootfsBytes,
  };
}

/** The release's number: base-files has the point release as its version, such as `13.8+deb13u2`. */
function debianVersion(packages: readonly ImagePackage[]): string {
  const found = packages.find(({ name }) => name === 'base-files')?.version ?? '';
  return /^[0-9.]+/.exec(found)?.[0] ?? 'unknown';
}

/** The image that was built from the same inputs before, if all of it is there; it is the newest again then. */
async function findBuilt(folder: string): Promise<BuiltImage | undefined> {
  try {
    const image = await readImage(folder);
    const [kernel, initrd] = [await stat(image.kernel), await stat(image.initrd)];
    if (kernel.size !== image.sizes.kernel || initrd.size !== image.sizes.initrd) return undefined;
    await stat(join(folder, OUTCOMES));
    await utimes(join(folder, IMAGE_JSON), new Date(), new Date());
    return image;
  } catch {
    return undefined;
  }
}

/** Moves the results to their place: the image is there complete or not at all. */
async function keep(out: string, folder: string): Promise<BuiltImage> {
  await syncFolder(out);
  const other = await findBuilt(folder);
  // A build of the same inputs was quicker, and its image is as good.
  if (other !== undefined) return other;
  await rm(folder, { recursive: true, force: true });
  await rename(out, folder);
  await syncFolder(dirname(folder));
  return await readImage(folder);
}

async function syncFolder(path: string): Promise<void> {
  await using handle = await open(path);
  await handle.sync();
}

/** Called as often as one likes, done once. */
function once<T>(act: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => (result ??= act());
}
