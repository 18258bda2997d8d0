/**
 * The properties of a definition, applied to a root below which nothing changes: what they change becomes a layer.
 *
 * ```
 *   properties   0 ········ 15 | 16 ········ 31 | 32 ···   applied one after the other
 *                              ▼                ▼
 *   checkpoints          upper folder     upper folder     kept by the digest of all properties before it
 * ```
 *
 * When one property is another, those before the last checkpoint that has nothing to do with it are not applied again: the
 * folder is put back, and the work goes on from there. There is a checkpoint only where all before it would be the same
 * whatever comes after. The layer is made of the folder as ever: it does not show where somebody went on.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { openChroot } from '../connections/chroot.ts';
import type { DataStore } from '../properties/data.ts';
import { type DeployStep, checkReport, deploy } from '../properties/deploy.ts';
import { type HostDefinition, definitionDigest } from '../properties/host-definition.ts';
import { atEpoch } from './epoch.ts';
import { keepChanges, type LayerOptions, mountOverlay, packChanges } from './layers.ts';
import { keyOf, type Entry, type Store } from './store.ts';
import { PropertyTrace } from './trace-properties.ts';
import { touchedSchema } from './trace.ts';
import type { Workshop } from './workshop.ts';

/** Properties between two checkpoints: keeping one takes as long as applying one or two. */
const APART = 16;

/** No checkpoint of more than this: each holds all that is changed, the first changes again and again. */
const LARGEST_BYTES = 32 * 2 ** 20;

const UPPER = 'upper.tar';

/** What became of a property. */
export interface PropertyOutcome {
  readonly description: string;
  readonly outcome: string;
}

/** The schema of outcomes as they are kept. */
export const OUTCOMES_SCHEMA: z.ZodType<readonly PropertyOutcome[]> = z.array(
  z.object({ description: z.string(), outcome: z.string() }),
);

/** What to apply, and to what. */
export interface ApplyOptions {
  readonly store: Store;
  readonly definition: HostDefinition;
  readonly data: DataStore;
  /** How many of the properties the layers below have already. */
  readonly done: number;
  /** All that decides what comes of applying a property, besides the properties before it. */
  readonly inputs: unknown;
  /** In the workshop. */
  readonly root: string;
  readonly below: readonly Entry[];
  /** An empty folder, as this process sees it. */
  readonly out: string;
  readonly layer: LayerOptions;
  readonly above: 'layers' | 'nothing';
  readonly onProgress: (line: string) => void;
}

/**
 * Applies properties.
 *
 * @returns facts of the layer; `outcomes` are those of the properties from `done` on
 * @throws {DeployError} when properties fail, naming them
 */
export async function applyProperties(
  workshop: Workshop,
  options: ApplyOptions,
): Promise<Readonly<Record<string, string>>> {
  const { definition, out, layer, above } = options;
  const signal = layer.signal ? { signal: layer.signal } : {};
  const checkpoints = new Checkpoints(options);
  const found = await checkpoints.find();
  const count = definition.properties.length - options.done;
  const kept = found === undefined ? '' : `, of which ${found.done} are as they were`;
  options.onProgress(`Applying ${count} ${count === 1 ? 'property' : 'properties'}${kept}`);
  const { upper, merged } = await mountOverlay(workshop, options.root, options.below, found?.upper);
  const trace = new PropertyTrace(workshop.seen(upper), found?.touched);
  const outcomes = [...(found?.outcomes ?? [])];
  try {
    await using chain = await openChroot(workshop.on, { into: merged, held: true });
    const report = await deploy(definition, atEpoch(chain), {
      ...signal,
      data: options.data,
      memory: 'at-end',
      done: found?.done ?? options.done,
      onProgress: trace.note,
      afterEach: async (step) => {
        const { description, outcome } = step.result;
        outcomes.push({ description, outcome });
        await checkpoints.note(step, outcomes, async (folder) => {
          trace.settle(step.result);
          if (trace.sizeBytes > LARGEST_BYTES) return undefined;
          await keepChanges(workshop, upper, join(folder, UPPER));
          return trace.touched;
        });
      },
    });
    checkReport(report);
  } finally {
    await checkpoints.settled();
  }
  await trace.record(out);
  const { rootBytes } = await packChanges(workshop, { ...layer, upper, out, above });
  return { rootBytes, outcomes: JSON.stringify(outcomes) };
}

/** A state to go on from. */
interface Checkpoint {
  readonly done: number;
  /** A tar of the upper folder. */
  readonly upper: string;
  readonly outcomes: readonly PropertyOutcome[];
  readonly touched: z.infer<typeof touchedSchema>;
}

const schema = z.object({ outcomes: OUTCOMES_SCHEMA, touched: touchedSchema });

/** The checkpoints of one list of properties. */
class Checkpoints {
  readonly #options: ApplyOptions;
  readonly #kept: Promise<unknown>[] = [];
  #broken = false;

  constructor(options: ApplyOptions) {
    this.#options = options;
  }

  /** The last that there is. @throws {DamagedEntryError} when it is not what it was */
  async find(): Promise<Checkpoint | undefined> {
    const { store, definition, done: least } = this.#options;
    const last = definition.properties.length - (definition.properties.length % APART);
    for (let done = last; done > least; done -= APART) {
      const entry = await store.find('checkpoints', this.#keyOf(done));
      if (entry === undefined) continue;
      const facts = schema.parse(JSON.parse(entry.facts['checkpoint'] ?? ''));
      return { done, upper: await store.check(entry, UPPER), ...facts };
    }
    return undefined;
  }

  /** Keeps a state if there is to be a checkpoint; on the disk it gets while the work goes on. */
  async note(
    step: DeployStep,
    outcomes: readonly PropertyOutcome[],
    keep: (folder: string) => Promise<Checkpoint['touched'] | undefined>,
  ): Promise<void> {
    const done = step.index + 1;
    const failed = step.result.outcome !== 'changed' && step.result.outcome !== 'ok';
    this.#broken ||= failed || !step.independent;
    if (this.#broken || done % APART !== 0) return;
    const { store } = this.#options;
    const taken = Promise.withResolvers<void>();
    const facts = { outcomes: [...outcomes] };
    const kept = store
      .findOrMake('checkpoints', this.#keyOf(done), async (folder) => {
        const touched = await keep(folder);
        taken.resolve();
        if (touched === undefined) throw new TooLarge();
        return { checkpoint: JSON.stringify({ ...facts, touched }) };
      })
      .catch((error: unknown) => {
        if (!(error instanceof TooLarge)) throw error;
        this.#broken = true;
      });
    kept.catch(() => undefined); // settled() tells
    this.#kept.push(kept);
    await Promise.race([taken.promise, kept]);
  }

  /** All are on the disk. @throws what went wrong with one */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#kept);
    await Promise.all(this.#kept);
  }

  #keyOf(done: number): string {
    const { definition, inputs } = this.#options;
    const properties = definition.properties.slice(0, done);
    return keyOf({ kind: 'checkpoint 1', inputs, definition: definitionDigest({ ...definition, properties }) });
  }
}

/** A state that is not kept. */
class TooLarge extends Error {
  override readonly name = 'TooLarge';
}
