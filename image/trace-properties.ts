/**
 * Which property made or changed a file: what is in the upper folder of an overlay is looked at after each property, and
 * what is new or has changed since the last look is that property's doing.
 */
import { type Dirent, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { PropertyResult } from '../properties/attempt.ts';
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
    let sizeBytes = 0;
    const walk = (folder: string): void => {
      for (const entry of entriesOf(join(this.#upper, folder))) {
        const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
        const look = lookOf(join(this.#upper, path));
        if (look === undefined) continue;
        found.set(path, look.text);
        sizeBytes += look.sizeBytes;
        if (entry.isDirectory()) walk(path);
      }
    };
    walk('');
    for (const [path, look] of found) if (this.#known.get(path) !== look) this.#touched.push([path, by]);
    this.#known = found;
    this.#sizeBytes = sizeBytes;
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
function lookOf(path: string): { readonly text: string; readonly sizeBytes: number } | undefined {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  const { ino, mode, uid, gid, size, ctimeNs, rdev } = stat;
  const isFolder = stat.isDirectory();
  const text = [ino, mode, uid, gid, ...(isFolder ? [] : [size, ctimeNs, rdev])].join(' ');
  return { text, sizeBytes: isFolder ? 0 : Number(size) };
}
