/**
 * The layers of an image's root: those in the cache as they are, the others made, the packages' while properties are
 * applied.
 */
import { emptyAttrs, excludedPaths } from '../properties/host-attrs.ts';
import { type HostDefinition, definitionDigest } from '../properties/host-definition.ts';
import { type PropertyApplication, readRegistered } from '../properties/property.ts';
import { type ApplyOptions, applyProperties, OUTCOMES_SCHEMA, type PropertyOutcome } from './apply-properties.ts';
import type { BuildContext } from './build-context.ts';
import type { Inputs } from './build-inputs.ts';
import { isKernelOf, type KeptModules, type PreparedKernel, prepareKernel } from './kernel-tree.ts';
import { packPackages } from './layers.ts';
import { classesOf } from './module-classes.ts';
import type { PackagesRoot } from './packages-root.ts';
import { type Entry, keyOf } from './store.ts';
import { recordPackages } from './trace-packages.ts';
import type { Workshop } from './workshop.ts';

/** Finds the layers in the cache, or makes them; the lowest first. The root may still be on its way into the cache. */
export async function findOrMakeLayers(
  context: BuildContext,
  inputs: Inputs,
  root: PackagesRoot,
): Promise<{ readonly layers: readonly Entry[]; readonly properties: readonly PropertyOutcome[] }> {
  const both = [layerOfPackages(context, inputs, root), layersOfProperties(context, inputs, root)] as const;
  // Also when one fails: nothing goes on behind the back of who hears of it, and the root of packages stays for the next time.
  const ended = await Promise.allSettled(both);
  if (ended.some(({ status }) => status === 'rejected')) await root.settled();
  const [lowest, others] = await Promise.all(both);
  return { layers: [lowest, ...others], properties: others.flatMap(outcomesOf) };
}

async function layerOfPackages(context: BuildContext, inputs: Inputs, root: PackagesRoot): Promise<Entry> {
  const { attrs, code, tools, hardware, encoding } = inputs;
  const modules = { classes: classesOf(hardware, attrs.kernelClasses), wanted: attrs.kernelModules };
  const packing = { excludes: excludedPaths(attrs), compression: encoding.root };
  const key = keyOf({
    kind: 'packages 3',
    rootKey: root.key,
    code: code.layers,
    tools,
    packing: { ...packing, modules },
  });
  const { entry } = await context.timed('layer of packages', () =>
    context.store.findOrMake('layers', key, async (out) => {
      const workshop = await context.workshop();
      const early = await prepareEarly(workshop, root, { out, modules });
      const folder = await root.folder();
      context.step('pack packages');
      const kernel =
        early !== undefined && (await isKernelOf(workshop, folder, early))
          ? early
          : await prepareKernel(workshop, { root: folder, out, modules });
      await recordPackages(workshop.seen(folder), out);
      return { ...(await packPackages(workshop, { root: folder, out, kernel, ...packing, ...context.signal })) };
    }),
  );
  return entry;
}

/** While packages are configured: one script runs after the other then, and a core has nothing to do. */
async function prepareEarly(
  workshop: Workshop,
  root: PackagesRoot,
  options: { readonly out: string; readonly modules: KeptModules },
): Promise<PreparedKernel | undefined> {
  const folder = await root.indexed();
  if (folder === undefined) return undefined;
  // What it lacks may come, and is asked for again when all is configured.
  return await prepareKernel(workshop, { root: folder, ...options }).catch(() => undefined);
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
