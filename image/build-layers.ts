/**
 * The layers of an image's root: those in the cache as they are, the others made, the packages' while properties are
 * applied.
 */
import { emptyAttrs, excludedPaths } from '../properties/host-attrs.ts';
import { type HostDefinition, definitionDigest } from '../properties/host-definition.ts';
import { type PropertyApplication, readRegistered } from '../properties/property.ts';
import { type ApplyOptions, applyProperties, OUTCOMES_SCHEMA, type PropertyOutcome } from './apply-properties.ts';
import { baseRootKey, findOrMakeBaseRoot, mountBaseRoot } from './base-root.ts';
import type { Inputs } from './build-inputs.ts';
import { packPackages } from './layers.ts';
import type { PackageLock } from '../manifests/package-lock.ts';
import { type Archives, withMirror } from './lock.ts';
import { classesOf } from './module-classes.ts';
import { once } from './once.ts';
import { type Entry, keyOf, type Store } from './store.ts';
import { recordPackages } from './trace-packages.ts';
import type { Workshop } from './workshop.ts';

/** What the steps of a build have in common. */
export interface BuildContext {
  readonly store: Store;
  readonly signal: { readonly signal?: AbortSignal };
  /** Opened when it is first asked for. */
  readonly workshop: () => Promise<Workshop>;
  say(line: string): void;
  /** A step begins that is not in the cache. */
  step(name: string): void;
  /** Notes how long it takes. */
  timed<T extends { readonly cached: boolean }>(name: string, act: () => Promise<T>): Promise<T>;
}

/** Where packages come from. */
export interface PackageOrigin {
  readonly mirror?: string;
  readonly snapshot?: string | undefined;
  readonly archives?: Archives;
}

/** Finds the layers in the cache, or makes them; the lowest first. */
export async function findOrMakeLayers(
  context: BuildContext,
  inputs: Inputs,
  root: PackagesRoot,
): Promise<{ readonly layers: readonly Entry[]; readonly properties: readonly PropertyOutcome[] }> {
  const both = [layerOfPackages(context, inputs, root), layersOfProperties(context, inputs, root)] as const;
  // Also when one fails: nothing goes on behind the back of who hears of it.
  await Promise.allSettled(both);
  await root.settled();
  const [lowest, others] = await Promise.all(both);
  return { layers: [lowest, ...others], properties: others.flatMap(outcomesOf) };
}

/** The root of packages, mounted read-only in the workshop when it is first asked for. */
export class PackagesRoot {
  readonly key: string;
  /** Where it is. One that is made here is used at once, while it is put into the cache. */
  readonly folder: () => Promise<string>;
  readonly #store: Store;
  readonly #given = new AbortController();
  #kept: Promise<unknown> | undefined;

  /** @param what.code - digest of the code that makes it */
  constructor(
    context: BuildContext,
    what: { readonly lock: PackageLock; readonly code: string; readonly from: PackageOrigin },
  ) {
    const { lock, code, from } = what;
    const { signal } = context.signal;
    this.key = baseRootKey(lock, code);
    this.#store = context.store;
    const early = Promise.withResolvers<string>();
    this.folder = once(async () => {
      const made = context.timed('root of packages', () =>
        findOrMakeBaseRoot({
          store: context.store,
          lock: withMirror(lock, from.mirror),
          code,
          workshop: context.workshop,
          ...('snapshot' in from && { snapshot: from.snapshot }),
          offline: from.archives === 'offline',
          signal: AbortSignal.any([this.#given.signal, ...(signal === undefined ? [] : [signal])]),
          onProgress: (line) => context.say(line),
          onStep: (step) => context.step(step),
          onRoot: early.resolve,
        }),
      );
      this.#kept = made;
      const found = async (): Promise<string> => {
        const { entry, cached } = await made;
        return cached ? await mountBaseRoot(await context.workshop(), entry) : await early.promise;
      };
      return await Promise.race([early.promise, found()]);
    });
  }

  /**
   * Makes it before it is asked for, unless it is in the cache: then it may be that nothing has to be done at all.
   *
   * @returns whether it is made
   */
  async begin(): Promise<boolean> {
    if ((await this.#store.find('roots', this.key)) !== undefined) return false;
    // Who asks for it hears what went wrong.
    this.folder().catch(() => undefined);
    return true;
  }

  /** It is in the cache, if it was asked for. */
  async settled(): Promise<void> {
    await this.#kept;
  }

  /** Nobody will ask for it any more. */
  async abandon(): Promise<void> {
    this.#given.abort();
    await this.settled().catch(() => undefined);
  }
}

async function layerOfPackages(context: BuildContext, inputs: Inputs, root: PackagesRoot): Promise<Entry> {
  const { attrs, code, tools, hardware, encoding } = inputs;
  const modules = { classes: classesOf(hardware, attrs.kernelClasses), wanted: attrs.kernelModules };
  const packing = { excludes: excludedPaths(attrs), modules, compression: encoding.root };
  const key = keyOf({ kind: 'packages 3', rootKey: root.key, code: code.layers, tools, packing });
  const { entry } = await context.timed('layer of packages', () =>
    context.store.findOrMake('layers', key, async (out) => {
      const folder = await root.folder();
      const workshop = await context.workshop();
      context.step('pack packages');
      await recordPackages(workshop.seen(folder), out);
      return { ...(await packPackages(workshop, { root: folder, out, ...packing, ...context.signal })) };
    }),
  );
  return entry;
}

/** That of the definition, and above it that of the programs at its end, if there are any. */
async function layersOfProperties(
  context: BuildContext,
  inputs: Inputs,
  root: PackagesRoot,
): Promise<readonly Entry[]> {
  const { definition, attrs, data, code, tools, encoding } = inputs;
  const [base, whole] = splitDefinition(definition);
  // What is applied below a layer is in its key; so is the whole definition in that of the last.
  const applied = { rootKey: root.key, layers: code.layers, properties: code.properties, data: data.digests };
  const packing = { excludes: excludedPaths(attrs), compression: encoding.root };
  const find = async (
    name: 'properties' | 'programs',
    what: Pick<ApplyOptions, 'definition' | 'done' | 'below' | 'above'>,
  ): Promise<Entry> => {
    const below = what.below.map((entry) => entry.key);
    const key = keyOf({
      kind: `${name} 2`,
      applied,
      tools,
      packing,
      below,
      definition: definitionDigest(what.definition),
    });
    const { entry } = await context.timed(`apply ${name}`, () =>
      context.store.findOrMake('properties', key, async (out) => {
        const folder = await root.folder();
        const workshop = await context.workshop();
        context.step(`apply ${name}`);
        return await applyProperties(workshop, {
          ...what,
          store: context.store,
          data: data.store,
          inputs: applied,
          root: folder,
          out,
          layer: { ...packing, ...context.signal },
          onProgress: (line) => context.say(line),
        });
      }),
    );
    return entry;
  };
  const first = await find('properties', {
    definition: base,
    done: 0,
    below: [],
    above: whole === undefined ? 'nothing' : 'layers',
  });
  if (whole === undefined) return [first];
  const done = base.properties.length;
  return [first, await find('programs', { definition: whole, done, below: [first], above: 'nothing' })];
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

function outcomesOf(entry: Entry): readonly PropertyOutcome[] {
  return OUTCOMES_SCHEMA.parse(JSON.parse(entry.facts['outcomes'] ?? '[]'));
}
