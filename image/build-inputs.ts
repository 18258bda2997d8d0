/** All that an image is made from, and the digests that stand for it. */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { PackageLock } from '../manifests/package-lock.ts';
import type { HostAttrs } from '../properties/host-attrs.ts';
import { type HostDefinition, definitionDigest } from '../properties/host-definition.ts';
import { modulesOf } from '../properties/tree.ts';
import { baseRootKey } from './base-root.ts';
import { type Bundle, findOrBundle } from './bundle.ts';
import type { Encoding } from './encoding.ts';
import type { DataOfImage } from './image-data.ts';
import { classesOf, type Hardware } from './module-classes.ts';
import type { NodeBinary } from './node-runtime.ts';
import { FIRST_STEPS, RESCUE } from './pack.ts';
import { digestOf, hashAll, sourceDigest, sourceDigests, SOURCES } from './source-digest.ts';
import type { Store } from './store.ts';

/** Our programs in an image, by the name of their file in `/usr/lib/buildos`. */
const PROGRAMS = {
  'init.mjs': 'init/main.ts',
  'monitor.mjs': 'monitor/main.ts',
  'helper.mjs': 'helper/main.ts',
} as const;

/** One of our programs. */
export type ProgramName = keyof typeof PROGRAMS;

const ROOT_CODE = join(SOURCES, 'image/base-root.ts');

/** What a definition may refer to. */
export interface ImageInputs {
  readonly programs: Readonly<Record<ProgramName, Bundle>>;
  /** Text for `/etc/buildos-note`: a word for those who look at a running host. */
  readonly note: string;
}

/** A host definition as a function of what this build made before. */
export type ImageDefinition = (inputs: ImageInputs) => HostDefinition;

/** All that an image is made from. */
export interface Inputs {
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

/** Digests of the code of each step: what it does to its inputs. */
export interface Code {
  readonly root: string;
  readonly layers: string;
  readonly properties: string;
  /** What packs Node. */
  readonly node: string;
  readonly pack: string;
}

/** Bundles what definitions may refer to, or finds it in the cache. */
export async function bundlePrograms(store: Store): Promise<ImageInputs['programs']> {
  const one = async (name: ProgramName): Promise<Bundle> => await findOrBundle(store, PROGRAMS[name]);
  const [init, monitor, helper] = await Promise.all([one('init.mjs'), one('monitor.mjs'), one('helper.mjs')]);
  return { 'init.mjs': init, 'monitor.mjs': monitor, 'helper.mjs': helper };
}

/** The digest of the code that makes a root of packages: the same for all definitions. */
export async function rootCode(cache: string): Promise<string> {
  return await sourceDigest([ROOT_CODE], { cache });
}

/**
 * The digests of our code, for a definition.
 *
 * @param cache - where it is kept which sources import which
 */
export async function codeOf(definition: HostDefinition, cache: string): Promise<Code> {
  const source = (name: string): string => join(SOURCES, name);
  const ours = (await readdir(source('properties'))).filter((name) => /^[a-z][a-z-]*\.ts$/.test(name));
  const digests = await sourceDigests(
    {
      root: [ROOT_CODE],
      layers: ['layers', 'trace-packages', 'trace-properties'].map((name) => source(`image/${name}.ts`)),
      // All properties of ours, so that it does not count which are used; and those that are defined elsewhere.
      properties: [
        source('image/apply-properties.ts'),
        source('connections/open.ts'),
        ...ours.map((name) => source(`properties/${name}`)),
        ...definition.properties.flatMap(modulesOf),
      ],
      node: [source('host/squashfs.ts')],
      pack: [source('image/pack.ts')],
    },
    { cache },
  );
  const scripts = digestOf(await hashAll([FIRST_STEPS, RESCUE]));
  return { ...digests, pack: `${digests.pack} ${scripts}` };
}

/** The digest of what goes in: 20 hex digits, enough to tell images apart and to be read aloud. */
export function buildIdOf(inputs: Inputs): string {
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
