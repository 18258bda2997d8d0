/**
 * Which property made or changed a file: what is in the upper folder of an overlay is looked at after each property, and
 * what is new or has changed since the last look is that property's doing.
 */
import { type Dirent, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DeployProgress } from '../properties/run.ts';
import { groupOrigins, type Origin, writeOrigins } from './trace.ts';

/** What deploy does besides applying properties: it keeps in the root what was applied. */
const DEPLOY: Origin = { kind: 'step', name: 'memory of what was applied (properties/memory.ts)' };

/** Watches one deployment. */
export class PropertyTrace {
  readonly #upper: string;
  /** What every path looked like when it was last looked at. */
  #known: ReadonlyMap<string, string> = new Map();
  #begun = false;
  readonly #touched: (readonly [path: string, origin: Origin])[] = [];

  /** @param upper - the overlay's upper folder as this process sees it; empty at first */
  constructor(upper: string) {
    this.#upper = upper;
    this.#look(DEPLOY);
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
    if (outcome !== 'ok') this.#look({ kind: 'property', p: application.p, description });
  };

  /** Notes the origins in the folder that becomes the layer's entry; to be called when deploy has ended. */
  async record(out: string): Promise<void> {
    this.#look(DEPLOY);
    const left = this.#touched.filter(([path]) => this.#known.has(path));
    await writeOrigins(out, groupOrigins(left));
  }

  #look(by: Origin): void {
    const found = new Map<string, string>();
    const walk = (folder: string): void => {
      for (const entry of entriesOf(join(this.#upper, folder))) {
        const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
        const look = lookOf(join(this.#upper, path));
        if (look === undefined) continue;
        found.set(path, look);
        if (entry.isDirectory()) walk(path);
      }
    };
    walk('');
    for (const [path, look] of found) if (this.#known.get(path) !== look) this.#touched.push([path, by]);
    this.#known = found;
  }
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

/** All that changes when a file does. Of a folder the time does not count: it changes with every name in it. */
function lookOf(path: string): string | undefined {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  const { ino, mode, uid, gid, size, ctimeNs, rdev } = stat;
  return [ino, mode, uid, gid, ...(stat.isDirectory() ? [] : [size, ctimeNs, rdev])].join(' ');
}
