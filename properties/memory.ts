/**
 * Memory: the list of properties that was last applied to a host, kept on the host itself, also inside an image. So the
 * next run knows what left the definition.
 *
 *   /var/lib/buildos/properties/NAME.json    {"format":1,"host":"NAME","digest":"…","applied":[{"p":"…","a":[…]},…]}
 *
 * It holds no time and no path of the controller, so that the same definition gives the same bytes; and no secret, since
 * definitions have none. It is written before the first change, with what was there and what will be; and after the last,
 * with what is there.
 */
import { z } from 'zod';
import type { Connection, Json } from '../connections/connection.ts';
import { OWN } from './_file-change.ts';
import { learn } from './catalogue.ts';
import type { FactRequest, Facts } from './facts.ts';
import { type HostDefinition, definitionDigest, withoutPlaces } from './host-definition.ts';
import { canonicalJson } from './canonical-json.ts';
import {
  APPLICATION,
  FailedChangeError,
  type PropertyApplication,
  checkApplication,
  describeApplication,
  findIrreversible,
  readRegistered,
} from './property.ts';
import type { CombinatorDefinition } from './walk.ts';

/** Where memory and debts are, unless a caller says otherwise. */
export const STATE_FOLDER = '/var/lib/buildos';

const MEMORY = z.object({
  format: z.literal(1),
  host: z.string(),
  digest: z.string(),
  applied: z.array(APPLICATION),
});

/** What a host remembers of a definition. */
export interface Memory {
  /** Digest of the definition; empty while a run is under way. */
  readonly digest: string;
  readonly applied: readonly PropertyApplication[];
}

/** What left the definition since the last run. */
export interface Leaving {
  /** To be taken back, in this order. */
  readonly unapply: readonly PropertyApplication[];
  /** What stays although it left, and why. */
  readonly warnings: readonly string[];
}

/** The file of a definition. */
export function memoryPath(state: string, name: string): string {
  return `${state}/properties/${name.replaceAll(/[^A-Za-z0-9._-]/g, '_')}.json`;
}

/** What {@link readMemory} wants to know. */
export function memoryFacts(state: string, name: string): readonly FactRequest[] {
  return [{ fact: 'text', path: memoryPath(state, name) }];
}

/**
 * Reads the memory out of the facts.
 *
 * @returns undefined when the host remembers nothing
 * @throws {FailedChangeError} when the file makes no sense
 */
export async function readMemory(facts: Facts, state: string, name: string): Promise<Memory | undefined> {
  const path = memoryPath(state, name);
  const text = facts.text(path);
  if (text === undefined) return undefined;
  try {
    const { digest, applied } = MEMORY.parse(JSON.parse(text));
    await learn(applied);
    return { digest, applied };
  } catch (cause) {
    throw new FailedChangeError(`Cannot read what was applied before from ${path}`, {
      cause,
      hint: 'Without that file nothing is known of earlier runs: move it away, and what left the definition stays.',
    });
  }
}

/** The memory that a run writes before it changes anything: what was there, and what will be. */
export function memoryBefore(memory: Memory | undefined, definition: HostDefinition): Memory {
  const now = definition.properties.map(withoutPlace);
  const before = memory?.applied ?? [];
  const same = before.length === now.length && before.every((one, index) => isSame(one, now[index]));
  if (same && memory !== undefined) return memory;
  return { digest: '', applied: union(before, now) };
}

/** The memory that a run leaves: the definition, and what left it but could not be taken back yet. */
export function memoryAfter(definition: HostDefinition, stuck: readonly PropertyApplication[]): Memory {
  return {
    digest: definitionDigest(definition),
    applied: [...stuck.map(withoutPlace), ...definition.properties.map(withoutPlace)],
  };
}

/** Writes the memory, unless the facts say that it is there already. */
export async function writeMemory(
  run: Connection['run'],
  facts: Facts & { forgetFiles(paths: readonly string[]): void },
  where: { readonly state: string; readonly name: string },
  memory: Memory,
  known: string | undefined,
): Promise<string> {
  const path = memoryPath(where.state, where.name);
  const applied = memory.applied.map(({ p, a }) => canonicalJson({ p, a })).join(',\n');
  const head = canonicalJson({ format: 1, host: where.name, digest: memory.digest }).slice(0, -1);
  const text = `${head},"applied":[\n${applied}\n]}\n`;
  if (text === known) return text;
  const script = 'umask 077; mkdir -p "$1" && cat > "$2.tmp" && sync "$2.tmp" && mv -f "$2.tmp" "$2" && sync "$1"';
  try {
    await run(['sh', '-c', script, 'remember', `${where.state}/properties`, path], { ...OWN, input: text });
  } catch (cause) {
    throw new FailedChangeError(`Cannot remember what is applied in ${path}`, {
      cause,
      hint: 'Is this root there? Without memory ("--no-memory") what leaves the definition later stays on the host.',
    });
  }
  facts.forgetFiles([path]);
  return text;
}

/**
 * What left the definition. A property whose things are managed by one that is still there is no loss: `systemd.unit` that
 * has become `file.hasContent` of the same path, a package that another list has.
 */
export function planLeaving(memory: Memory | undefined, definition: HostDefinition): Leaving {
  const now = definition.properties.flatMap(partsOf);
  const kept = new Set(now.map(keyOf));
  const managed = new Set(now.flatMap(managedBy));
  const unapply: PropertyApplication[] = [];
  const warnings: string[] = [];
  for (const whole of memory?.applied ?? []) {
    const parts = tryPartsOf(whole);
    if (parts === undefined) {
      warnings.push(`${whole.p} left the definition and stays: this version does not know it as it was applied`);
      continue;
    }
    for (const part of parts) {
      if (kept.has(keyOf(part)) || managedBy(part).some((thing) => managed.has(thing))) continue;
      if (!actsOnHost(part)) continue;
      const irreversible = findIrreversible(part);
      if (irreversible === undefined) unapply.unshift(part);
      else {
        warnings.push(
          `"${describeApplication(part)}" left the definition and stays: ${irreversible} does not say how to take it back`,
        );
      }
    }
  }
  return { unapply, warnings };
}

/** The smallest applications that say the same: combinators that are nothing but their children are opened. */
function partsOf(application: PropertyApplication): readonly PropertyApplication[] {
  const { type, definition } = readRegistered(application.p);
  if (type === 'property') {
    return definition.parts?.(...application.a).map((a) => ({ p: application.p, a })) ?? [application];
  }
  return definition.transparent === true ? definition.children(...application.a).flatMap(partsOf) : [application];
}

/** As partsOf, for what was read: undefined when it cannot be an application of today. */
function tryPartsOf(application: PropertyApplication): readonly PropertyApplication[] | undefined {
  try {
    checkApplication(application);
    return partsOf(application);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

function managedBy(application: PropertyApplication): readonly string[] {
  const { type, definition } = readRegistered(application.p);
  if (type === 'combinator') return held(definition, application).flatMap(partsOf).flatMap(managedBy);
  const own = definition.manages?.(...application.a);
  if (own !== undefined) return own;
  return [`${application.p} ${canonicalJson(application.a[0] ?? null)}`];
}

/** Whether anything of it is on the host: static facts only are not, nor is what was taken back. */
function actsOnHost(application: PropertyApplication): boolean {
  const { type, definition } = readRegistered(application.p);
  if (type === 'property') return definition.apply !== undefined;
  if (definition.children(...application.a).length === 0) return true; // what it does, its children do not tell
  return held(definition, application).some(actsOnHost);
}

function held(
  definition: CombinatorDefinition<readonly Json[]>,
  { a }: PropertyApplication,
): readonly PropertyApplication[] {
  return definition.keeps?.(...a) ?? definition.attrsFrom?.(...a) ?? definition.children(...a);
}

const withoutPlace = ({ p, a }: PropertyApplication): PropertyApplication => ({ p, a: a.map(withoutPlaces) });

const keyOf = (application: PropertyApplication): string => {
  const { p, a } = withoutPlace(application);
  return canonicalJson({ p, a });
};

const isSame = (one: PropertyApplication, other: PropertyApplication | undefined): boolean =>
  other !== undefined && keyOf(one) === keyOf(other);

function union(before: readonly PropertyApplication[], now: readonly PropertyApplication[]): PropertyApplication[] {
  const kept = new Set(now.map(keyOf));
  return [...before.filter((one) => !kept.has(keyOf(one))), ...now];
}
