/**
 * Building an image: from a host definition to kernel, initrd and manifest.
 *
 * ```
 *   programs ──► definition ──► base root ──► properties ──► pack ──► kernel, initrd, manifest
 *   (esbuild)    (TypeScript)   (mmdebstrap,  (deploy over   (squashfs,
 *                                cached)       chroot)         cpio)
 * ```
 *
 * The build id is a digest of what goes in: definition, packages with versions, Node, stage 1. So the same input has the
 * same id on any machine, and another id means another image.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Connection } from '../connections/connection.ts';
import { openChain } from '../connections/open.ts';
import { debianSources } from '../host/mmdebstrap.ts';
import { formatImageManifest, type ImageManifest, type ImagePackage } from '../manifests/image-manifest.ts';
import { checkReport, deploy, type DeployReport } from '../properties/deploy.ts';
import { definitionDigest, hostAttrs, type HostDefinition } from '../properties/host-definition.ts';
import { findOrMakeBaseRoot } from './base-root.ts';
import { bundle, type Bundle } from './bundle.ts';
import { HARDWARE, type Hardware } from './kernel-modules.ts';
import { findOrStripNode, type NodeBinary } from './node-runtime.ts';
import { packImage, type Packed } from './pack.ts';
import { type BuiltImage, formatBuiltImage, IMAGE_JSON, readImage } from './built-image.ts';

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
  /** Folder for caches and results; made when absent. */
  readonly work: string;
  /** Debian mirror; default deb.debian.org. */
  readonly mirror?: string;
  /** Which kernel modules go in; default `server`. */
  readonly hardware?: Hardware;
  readonly note?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
}

/** What came of it. */
export interface BuildResult {
  readonly image: BuiltImage;
  /** What the properties did. */
  readonly report: DeployReport;
}

/**
 * Builds an image. The result is in `<work>/images/<build id>/`, complete or not there.
 *
 * @throws {DeployError} when properties fail, naming them; the root that they were applied to is thrown away
 * @throws {CommandError} when a tool fails
 */
export async function buildImage(options: BuildOptions): Promise<BuildResult> {
  const work = resolve(options.work);
  const cache = join(work, 'cache');
  const say = options.onProgress ?? (() => undefined);
  const signal = options.signal ? { signal: options.signal } : {};
  await using local = await openChain([['local']]);
  await using scratch = await makeScratch(join(work, 'tmp'));

  say('Bundling init, monitor and helper');
  const programs = await bundlePrograms(scratch.folder);
  const node = await findOrStripNode(local, { cache });
  const definition = options.definition({ programs, note: options.note ?? '' });
  const attrs = hostAttrs(definition);

  say(`Debian ${definition.base.suite}: ${attrs.packages.length} packages and what they need`);
  const base = await findOrMakeBaseRoot(local, {
    suite: definition.base.suite,
    sources: debianSources({
      suite: definition.base.suite,
      ...(options.mirror !== undefined && { mirror: options.mirror }),
    }),
    packages: attrs.packages,
    cache,
    ...signal,
  });
  if (base.cached) say('Debian: the archive has not changed, the root is in the cache');
  const root = join(scratch.folder, 'root');
  await local.run(['cp', '--archive', '--reflink=auto', base.folder, root]);

  say(`Applying ${definition.properties.length} properties`);
  const report = await applyProperties(definition, root, options);
  const packages = await installedPackages(local, root);
  const buildId = buildIdOf({ definition, packages, node, programs, hardware: options.hardware ?? 'server' });

  say(`Packing ${buildId}`);
  const out = join(scratch.folder, 'out');
  const packed = await packImage(local, {
    root,
    out,
    cache,
    buildId,
    node,
    init: programs['init.mjs'],
    excludes: attrs.excludes,
    classes: HARDWARE[options.hardware ?? 'server'],
    ...signal,
  });
  await writeFile(
    join(out, 'buildos-manifest.json'),
    formatImageManifest(manifestOf({ definition, packages, node, buildId, packed })),
  );
  const image = await keep(out, join(work, 'images', buildId), {
    buildId,
    kernelArgs: attrs.kernelOptions,
    sizes: packed.sizes,
  });
  return { image, report };
}

async function bundlePrograms(folder: string): Promise<Readonly<Record<ProgramName, Bundle>>> {
  const one = async (name: ProgramName): Promise<Bundle> =>
    await bundle({ entry: PROGRAMS[name], outfile: join(folder, 'programs', name) });
  return {
    'init.mjs': await one('init.mjs'),
    'monitor.mjs': await one('monitor.mjs'),
    'helper.mjs': await one('helper.mjs'),
  };
}

async function applyProperties(definition: HostDefinition, root: string, options: BuildOptions): Promise<DeployReport> {
  await using connection = await openChain([['local'], ['chroot', { into: root }]]);
  const report = await deploy(definition, connection, options.signal ? { signal: options.signal } : {});
  checkReport(report);
  return report;
}

async function installedPackages(on: Connection, root: string): Promise<readonly ImagePackage[]> {
  const format = '${Package}\t${Version}\t${Architecture}\n';
  const { stdout } = await on.run([
    'dpkg-query',
    `--admindir=${root}/var/lib/dpkg`,
    '--show',
    `--showformat=${format}`,
  ]);
  return new TextDecoder()
    .decode(stdout)
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [name = '', version = '', architecture = ''] = line.split('\t');
      return { name, version, architecture };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function manifestOf(made: {
  readonly definition: HostDefinition;
  readonly packages: readonly ImagePackage[];
  readonly node: NodeBinary;
  readonly buildId: string;
  readonly packed: Packed;
}): ImageManifest {
  return {
    format: 1,
    buildId: made.buildId,
    host: made.definition.name,
    hostSha256: definitionDigest(made.definition),
    architecture: 'amd64',
    base: { name: 'debian', version: debianVersion(made.packages), suite: made.definition.base.suite },
    kernelVersion: made.packed.kernelRelease,
    node: { version: made.node.version, sha256: made.node.sha256 },
    packages: made.packages,
    files: made.packed.files,
    rootfsBytes: made.packed.rootfsBytes,
  };
}

/** The release's number: base-files has the point release as its version, such as `13.8+deb13u2`. */
function debianVersion(packages: readonly ImagePackage[]): string {
  const found = packages.find(({ name }) => name === 'base-files')?.version ?? '';
  return /^[0-9.]+/.exec(found)?.[0] ?? 'unknown';
}

/** Moves the results to their place: the image is there complete or not at all. */
async function keep(
  out: string,
  folder: string,
  image: Pick<BuiltImage, 'buildId' | 'kernelArgs' | 'sizes'>,
): Promise<BuiltImage> {
  await writeFile(join(out, IMAGE_JSON), formatBuiltImage(image));
  await mkdir(dirname(folder), { recursive: true });
  await rm(folder, { recursive: true, force: true });
  await rename(out, folder);
  return await readImage(folder);
}

/** The digest of what goes in: 20 hex digits, enough to tell images apart and to be read aloud. */
function buildIdOf(inputs: {
  readonly definition: HostDefinition;
  readonly packages: readonly ImagePackage[];
  readonly node: NodeBinary;
  readonly programs: Readonly<Record<ProgramName, Bundle>>;
  readonly hardware: Hardware;
}): string {
  const text = JSON.stringify({
    format: 1,
    definition: definitionDigest(inputs.definition),
    packages: inputs.packages.map(({ name, version, architecture }) => [name, version, architecture]),
    node: inputs.node.sha256,
    init: inputs.programs['init.mjs'].sha256,
    modules: HARDWARE[inputs.hardware],
  });
  return createHash('sha256').update(text).digest('hex').slice(0, 20);
}

/** A folder for one build, removed with all that is in it when the build ends, whichever way. */
async function makeScratch(parent: string): Promise<{ readonly folder: string } & AsyncDisposable> {
  await mkdir(parent, { recursive: true });
  const folder = await mkdtemp(join(parent, 'build-'));
  return { folder, [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true, force: true }) };
}
