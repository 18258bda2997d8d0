/**
 * Which property made or changed a file: what is in the upper folder of an overlay is looked at after each property, and
 * what is new or has changed since the last look is that property's doing. Of one that says what it changes (`own-files`), and
 * did, no more is looked at.
 */
import { type Dirent, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { PropertyResult } from '../properties/attempt.ts';
import { type PropertyApplication, readRegistered } from '../properties/property.ts';
import type { DeployProgress } from '../properties/run.ts';
import { groupOrigins, type Origin, writeOrigins } from './trace.ts';

/** What deploy does besides applying properties: it keeps in the root what was applied. */
const DEPLOY: Origin = { kind: 'step', name: 'memory of what was applied (properties/memory.ts)' };

/** Watches one deployment. */
export class PropertyTrace {
  readonly #upper: string;
  /** What every path looked like when it was last looked at. */
  #known = new Map<string, string>();
  #begun = false;
  #touched: (readonly [path: string, origin: Origin])[] = [];
  #sizeBytes = 0;

  /**
   * @param upper - the overlay's upper folder as this process sees it; empty at first
   * @param before - what was noted of it until it came to what is in it now
   */
  constructor(upper: string, before?: readonly (readonly [path: string, origin: Origin])[]) {
    this.#upper = upper;
    this.#look(DEPLOY);
    if (before === undefined) return;
    this.#touched = [...before];
    this.#begun = true;
  }

  /** What was noted so far. */
  get touched(): readonly (readonly [path: string, origin: Origin])[] {
    return this.#touched;
  }

  /** Of all files in the folder when it was last looked at. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Whatever changed since the last look is this property's doing, for who goes on from here. */
  settle({ application, description }: PropertyResult): void {
    this.#look({ kind: 'property', p: application.p, description });
  }

  /** For `onProgress` of deploy. */
  readonly note = (progress: DeployProgress): void => {
    if (progress.kind === 'line' || progress.depth > 0) return;
    if (progress.kind === 'started') {
      // What is there before the first property.
      if (!this.#begun) this.#look(DEPLOY);
      this.#begun = true;
      return;
    }
    const { application, description, outcome } = progress.result;
    if (outcome === 'ok') return;
    const by: Origin = { kind: 'property', p: application.p, description };
    if (outcome !== 'changed' || !this.#lookAt(ownPaths(application), by)) this.#look(by);
  };

  /** Notes the origins in the folder that becomes the layer's entry; to be called when deploy has ended. */
  async record(out: string): Promise<void> {
    this.#look(DEPLOY);
    const left = this.#touched.filter(([path]) => this.#known.has(path));
    await writeOrigins(out, groupOrigins(left));
  }

  #look(by: Origin): void {
    const found = new Map<string, Look>();
    for (const entry of entriesOf(this.#upper)) this.#find(entry.name, found);
    this.#sizeBytes = 0;
    for (const { sizeBytes } of found.values()) this.#sizeBytes += sizeBytes;
    for (const path of this.#known.keys()) if (!found.has(path)) this.#known.delete(path);
    for (const [path, look] of found) this.#note(path, look, by);
  }

  /**
   * Looks at some paths, with the folders that they are in, and all below them.
   *
   * @returns false when one of them has not changed: then something else has, as behind a link in the path
   */
  #lookAt(paths: readonly string[], by: Origin): boolean {
    if (paths.length === 0) return false;
    return paths.every((path) => {
      const found = new Map<string, Look>();
      this.#find(path, found);
      if (found.size === 0 || this.#known.get(path) === found.get(path)?.text) return false;
      for (let end = path.indexOf('/'); end !== -1; end = path.indexOf('/', end + 1)) {
        const folder = path.slice(0, end);
        const look = lookOf(join(this.#upper, folder));
        if (look !== undefined) this.#note(folder, look, by);
      }
      for (const [each, look] of found) this.#note(each, look, by);
      return true;
    });
  }

  #note(path: string, { text }: Look, by: Origin): void {
    if (this.#known.get(path) === text) return;
    this.#touched.push([path, by]);
    this.#known.set(path, text);
  }

  /** What is at a path, and below it. */
  #find(path: string, found: Map<string, Look>): void {
    const look = lookOf(join(this.#upper, path));
    if (look === undefined) return;
    found.set(path, look);
    if (!look.isFolder) return;
    for (const entry of entriesOf(join(this.#upper, path))) this.#find(`${path}/${entry.name}`, found);
  }
}

/** What a property says it changes, from the root; none for one that does not say. */
function ownPaths({ p, a }: PropertyApplication): readonly string[] {
  const { type, definition } = readRegistered(p);
  if (type !== 'property' || definition.touches !== 'own-files') return [];
  const facts = definition.facts?.(...a) ?? [];
  return [...new Set(facts.flatMap((fact) => (fact.fact === 'packages' ? [] : [fact.path.slice(1)])))];
}

/** None when the folder is gone meanwhile: something that a property started may not have ended yet. */
function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}

/** What a path looks like. */
interface Look {
  readonly text: string;
  readonly isFolder: boolean;
  /** Of a file. */
  readonly sizeBytes: number;
}

/** All that changes when a file does. Of a folder the time does not count: it changes with every name in it. */
function lookOf(path: string): Look | undefined {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  const { ino, mode, uid, gid, size, ctimeNs, rdev } = stat;
  // What was removed. overlayfs links these to each other, so the next one changes the time of all.
  if (stat.isCharacterDevice() && rdev === 0n) return { text: 'removed', isFolder: false, sizeBytes: 0 };
  const isFolder = stat.isDirectory();
  const text = [ino, mode, uid, gid, ...(isFolder ? [] : [size, ctimeNs, rdev])].join(' ');
  return { text, isFolder, sizeBytes: isFolder ? 0 : Number(size) };
}
